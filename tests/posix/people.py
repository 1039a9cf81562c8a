"""Other processes: a call made as another user, and an actor that makes calls one by one when told to.

The test process is root. Users and groups are plain numbers; none of them needs an account.
"""

import contextlib
import multiprocessing.connection
import os
import pickle
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import pytest

from tests.posix.calls import NUMBERS
from tests.posix.files import DEADLINE_S

T = TypeVar("T")

ALICE, BOB, CAROL = 3001, 3002, 3003
"""Users; each one's own group has the same number."""
STAFF, GUESTS = 4001, 4002
"""Groups without a user of that number."""
_POLL_S = 0.001


def needs_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("acting as other users needs root")


def as_user(
    function: Callable[..., T], *arguments: Any, uid: int = ALICE, gid: int | None = None, groups: tuple[int, ...] = ()
) -> T:
    """What the function returns or raises in a process of this user; `umask` is 022 there."""
    needs_root()
    with actor(uid=uid, gid=uid if gid is None else gid, groups=groups, once=(function, arguments)) as one:
        result: T = one.result()
        return result


class Actor:
    """A forked process that makes calls for us, one after the other."""

    def __init__(self, pid: int, channel: multiprocessing.connection.Connection) -> None:
        self.pid = pid
        self.channel = channel

    def __call__(self, function: Callable[..., T], *arguments: Any) -> T:
        """Make the call there and wait for its end. Arguments and the function travel by pickle."""
        self.start(function, *arguments)
        result: T = self.result()
        return result

    def start(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.channel.send((function, arguments))

    def finished(self, timeout_s: float = 0.0) -> bool:
        return self.channel.poll(timeout_s)

    def result(self) -> Any:
        """Of the call that was started last; raises what it raised."""
        assert self.channel.poll(DEADLINE_S), f"process {self.pid} is still in its call after {DEADLINE_S:.0f} s"
        try:
            ok, value = self.channel.recv()
        except EOFError:
            raise AssertionError(f"process {self.pid} ended in its call") from None
        if ok:
            return value
        error, trace = value
        if not isinstance(error, OSError):
            error.add_note(trace)
        raise error

    def wait_in(self, call: str) -> None:
        """Until the process sleeps in this system call."""
        number = NUMBERS[call]
        deadline = time.monotonic() + DEADLINE_S
        while True:
            words = Path(f"/proc/{self.pid}/syscall").read_text().split()
            if words[0] == str(number):
                return
            assert not self.finished(), f"the call ended: {self.result()!r}"
            assert time.monotonic() < deadline, f"process {self.pid} does not get to {call}"
            time.sleep(_POLL_S)

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.pid, number)


@contextlib.contextmanager
def actor(
    *,
    uid: int | None = None,
    gid: int | None = None,
    groups: tuple[int, ...] = (),
    once: tuple[Callable[..., Any], tuple[Any, ...]] | None = None,
) -> Iterator[Actor]:
    """Another process, of the same user or of the one given; killed at the end if it is still there.

    With `once` it makes this call alone; function and arguments need not be pickled then.
    """
    ours, theirs = multiprocessing.connection.Pipe()
    pid = os.fork()
    if pid == 0:
        ours.close()
        _child(theirs, uid, gid, groups, once)
    theirs.close()
    try:
        yield Actor(pid, ours)
    finally:
        ours.close()
        _reap(pid)


def _reap(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _child(
    channel: multiprocessing.connection.Connection,
    uid: int | None,
    gid: int | None,
    groups: tuple[int, ...],
    once: tuple[Callable[..., Any], tuple[Any, ...]] | None,
) -> NoReturn:
    status = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(int(DEADLINE_S) * 2)
        if uid is not None:
            assert gid is not None
            os.umask(0o022)
            os.setgroups(groups)
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
        if once is not None:
            _answer(channel, *once)
        else:
            _close_all_but(channel.fileno())
            while True:
                _answer(channel, *channel.recv())
        status = 0
    except (EOFError, BrokenPipeError, ConnectionResetError):
        status = 0
    finally:
        os._exit(status)


def _close_all_but(kept: int) -> None:
    """Then what the test process closes is closed for good: locks of an open file end with its last descriptor."""
    os.closerange(3, kept)
    os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))


def _answer(
    channel: multiprocessing.connection.Connection, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    try:
        answer = (True, function(*arguments))
    except BaseException as error:
        answer = (False, (error, traceback.format_exc()))
    try:
        pickled = pickle.dumps(answer)
    except Exception as error:
        pickled = pickle.dumps((False, (RuntimeError(f"{answer!r} cannot be pickled: {error}"), "")))
    channel.send_bytes(pickled)
