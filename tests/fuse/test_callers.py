"""Who is about to end."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from fs_client.fuse.callers import is_ending

HANDLES = "import signal; signal.signal(signal.SIGUSR1, lambda *_: print('rang', flush=True)); print('up', flush=True);"
BLOCKS = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]); print('up', flush=True);"


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    programs: list[subprocess.Popen[str]] = []
    yield programs
    for one in programs:
        one.kill()
        one.communicate()


def start(started: list[subprocess.Popen[str]], code: str) -> subprocess.Popen[str]:
    one = subprocess.Popen(
        [sys.executable, "-c", f"{code} input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    started.append(one)
    assert one.stdout is not None and one.stdout.readline() == "up\n"
    return one


def test_who_lives_is_not_ending() -> None:
    assert not is_ending(os.getpid())
    assert not is_ending(threading.get_native_id())
    assert not is_ending(0)


def test_who_is_gone_has_ended(started: list[subprocess.Popen[str]]) -> None:
    one = start(started, HANDLES)
    one.kill()
    os.waitid(os.P_PID, one.pid, os.WEXITED | os.WNOWAIT)
    assert is_ending(one.pid), "nobody has collected it yet"
    one.wait()
    assert is_ending(one.pid)


def test_a_handled_signal_ends_nobody(started: list[subprocess.Popen[str]]) -> None:
    one = start(started, HANDLES)
    one.send_signal(signal.SIGUSR1)
    assert one.stdout is not None and one.stdout.readline() == "rang\n"
    assert not is_ending(one.pid)


def test_a_blocked_signal_ends_nobody_yet(started: list[subprocess.Popen[str]]) -> None:
    one = start(started, BLOCKS)
    one.send_signal(signal.SIGTERM)
    assert not is_ending(one.pid)


def test_a_stopped_program_that_was_told_to_end(started: list[subprocess.Popen[str]]) -> None:
    one = start(started, HANDLES)
    one.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, one.pid, os.WSTOPPED)
    assert not is_ending(one.pid)
    one.send_signal(signal.SIGUSR1)
    assert not is_ending(one.pid), "it handles this one when it goes on"
    one.send_signal(signal.SIGTERM)
    assert is_ending(one.pid)
