"""Programs that work on a mount while things break, and remember outside it what they were promised.

A witness is a process of its own. It writes a line to its log, on a local disk, for each step: `ok` when the step is
acknowledged (the last fsync has returned), `error`, or `wrong` when it saw bytes that nobody wrote. A step that failed
is tried again, on descriptors opened anew. Afterwards `verify` says what of the promises was broken.
"""

import contextlib
import errno
import os
import random
import signal
import sqlite3
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tests.posix.files import pattern

T = TypeVar("T")
POLL_S = 0.02
"""Between a failure and the next attempt, and between looks at a log."""
_RECENT = 1000
"""Events that are looked at for news; more never happen between two looks."""
PACE_S = 0.005
"""Between steps: several witnesses share a small machine with the cluster that they watch."""


class Event(NamedTuple):
    kind: str
    """`ok`, `error` or `wrong`"""
    number: int
    began: float
    """time.monotonic() when the step began"""
    longest_s: float
    """of what it timed, see `Witness.CALLS`"""
    text: str


class Witness:
    """What is common: steps in a process, a log, the clock of each system call."""

    name = ""
    CALLS = 1
    """How many system calls what is timed as one may be, that each wait for as long as one may."""

    def __init__(self, place: Path, outside: Path) -> None:
        self.place = place
        """A directory on the mount, this witness's own."""
        self._log_path = outside / f"{self.name}.log"
        self._stop_path = outside / f"{self.name}.stop"
        self._pid = 0
        self._longest_s = 0.0
        self._events: list[Event] = []
        self._read_to = 0
        """How far `_events` goes in the log."""

    # told by each kind of witness

    def prepare(self) -> None:
        """Before anything breaks."""

    def step(self, number: int) -> None:
        """Acknowledged when it returns. OSError: not acknowledged. AssertionError: wrong bytes."""
        raise NotImplementedError

    def recover(self) -> None:
        """After a failed step: forget descriptors."""

    def verify(self) -> list[str]:
        """Promises that were not kept, looked at when all is well again."""
        raise NotImplementedError

    # the test's side

    def start(self) -> None:
        self.place.mkdir()
        self.prepare()
        self._pid = os.fork()
        if self._pid == 0:
            self._work()

    def events(self) -> list[Event]:
        """All that are in the log by now."""
        if self._log_path.exists():
            with open(self._log_path, "rb") as log:
                log.seek(self._read_to)
                lines = log.read().split(b"\n")[:-1]
            self._read_to += sum(len(line) + 1 for line in lines)
            for line in lines:
                kind, number, began, longest, text = line.decode().split(" ", 4)
                self._events.append(Event(kind, int(number), float(began), float(longest), text))
        return self._events

    def acknowledged(self) -> list[int]:
        return [event.number for event in self.events() if event.kind == "ok"]

    def has_ended_a_step_since(self, moment: float) -> bool:
        return any(event.began >= moment for event in self.events()[-_RECENT:])

    def has_succeeded_since(self, moment: float) -> bool:
        return any(event.began >= moment and event.kind == "ok" for event in self.events()[-_RECENT:])

    def stop(self, timeout_s: float) -> bool:
        """Let it end after its step; whether it did. One that hangs is killed."""
        self._stop_path.touch()
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if os.waitpid(self._pid, os.WNOHANG)[0]:
                self._pid = 0
                return True
            time.sleep(POLL_S)
        return False

    def kill(self) -> None:
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._pid = 0

    # the process

    def _work(self) -> None:
        status = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            log = os.open(self._log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            number = 0
            while not self._stop_path.exists():
                self._longest_s = 0.0
                began = time.monotonic()
                kind, text = "ok", ""
                try:
                    self.step(number)
                except (OSError, sqlite3.Error) as error:
                    kind, text = "error", f"{type(error).__name__}: {error}"
                except AssertionError as error:
                    kind, text = "wrong", str(error)
                line = f"{kind} {number} {began} {self._longest_s:.3f} {text.splitlines()[0] if text else ''}\n"
                os.write(log, line.encode())
                if kind == "ok":
                    number += 1
                else:
                    self.recover()
                time.sleep(PACE_S if kind == "ok" else POLL_S)
            self.recover()
            status = 0
        except BaseException:
            traceback.print_exc(file=sys.stderr)
        finally:
            os._exit(status)

    def timed(self, call: Callable[..., T], *arguments: Any) -> T:
        began = time.monotonic()
        try:
            return call(*arguments)
        finally:
            self._longest_s = max(self._longest_s, time.monotonic() - began)


class Records(Witness):
    """Writes record after record into one file, each synced."""

    name = "records"
    SIZE = 40_017
    _descriptor = -1

    def step(self, number: int) -> None:
        if self._descriptor < 0:
            self._descriptor = self.timed(os.open, self.place / "records", os.O_RDWR | os.O_CREAT, 0o644)
        view = memoryview(self._record(number))
        offset = number * self.SIZE
        while view:
            written = self.timed(os.pwrite, self._descriptor, view, offset)
            view, offset = view[written:], offset + written
        self.timed(os.fsync, self._descriptor)

    def recover(self) -> None:
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                self.timed(os.close, self._descriptor)
            self._descriptor = -1

    def verify(self) -> list[str]:
        data = (self.place / "records").read_bytes()
        broken = []
        acknowledged = self.acknowledged()
        for number in acknowledged:
            found = data[number * self.SIZE : (number + 1) * self.SIZE]
            if found != self._record(number):
                broken.append(f"record {number} was synced and is {_described(found, self._record(number))}")
        rest = len(acknowledged)
        found = data[rest * self.SIZE :]
        expected = self._record(rest)
        if any(byte not in (0, expected[index % self.SIZE]) for index, byte in enumerate(found)):
            broken.append(f"record {rest}, which was not synced, has bytes that nobody wrote")
        return broken

    def _record(self, number: int) -> bytes:
        return pattern(self.SIZE, number + 1)


class Appends(Witness):
    """Appends lines to a log, each synced. What was not acknowledged may be there, in part or not at all."""

    name = "appends"

    def step(self, number: int) -> None:
        descriptor = self.timed(os.open, self.place / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            line = self._line(number)
            written = self.timed(os.write, descriptor, line)
            if written != len(line):
                raise OSError(errno.EIO, f"{written} bytes of {len(line)} were written")
            self.timed(os.fsync, descriptor)
        finally:
            self.timed(os.close, descriptor)

    def verify(self) -> list[str]:
        data = (self.place / "log").read_bytes()
        return [
            f"line {number} was synced and is not there"
            for number in self.acknowledged()
            if self._line(number) not in data
        ]

    def _line(self, number: int) -> bytes:
        return b"\n%d %s\n" % (number, bytes([97 + number % 26]) * 900)


class Replacements(Witness):
    """Replaces a file again and again: written, synced, renamed, directory synced."""

    name = "replacements"
    SIZE = 70_000

    def step(self, number: int) -> None:
        new = self.place / "new"
        descriptor = self.timed(os.open, new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            view = memoryview(self.contents(number))
            while view:
                view = view[self.timed(os.write, descriptor, view) :]
            self.timed(os.fsync, descriptor)
        finally:
            self.timed(os.close, descriptor)
        self.timed(os.rename, new, self.place / "current")
        directory = self.timed(os.open, self.place, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self.timed(os.fsync, directory)
        finally:
            self.timed(os.close, directory)

    def verify(self) -> list[str]:
        data = (self.place / "current").read_bytes()
        acknowledged = self.acknowledged()
        number = int(data[:8]) if data[:8].isdigit() else -1
        if data != self.contents(number):
            return [f"the file is not one that was renamed there: {len(data)} bytes, it begins {data[:20]!r}"]
        if number < acknowledged[-1]:
            return [f"the file is number {number}, {acknowledged[-1]} was synced"]
        return []

    @classmethod
    def contents(cls, number: int) -> bytes:
        return b"%08d" % number + pattern(cls.SIZE, number + 7)


class Names(Witness):
    """Makes directories with a file in them and removes older ones, syncing the parent after each."""

    name = "names"
    KEPT = 5

    def step(self, number: int) -> None:
        made = self.place / f"d{number}"
        with contextlib.suppress(FileExistsError):
            self.timed(os.mkdir, made)
        self.timed(os.close, self.timed(os.open, made / "f", os.O_WRONLY | os.O_CREAT, 0o644))
        self._sync(made)
        if number >= self.KEPT:
            old = self.place / f"d{number - self.KEPT}"
            with contextlib.suppress(FileNotFoundError):
                self.timed(os.unlink, old / "f")
            with contextlib.suppress(FileNotFoundError):
                self.timed(os.rmdir, old)
        self._sync(self.place)

    def _sync(self, path: Path) -> None:
        descriptor = self.timed(os.open, path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self.timed(os.fsync, descriptor)
        finally:
            self.timed(os.close, descriptor)

    def verify(self) -> list[str]:
        acknowledged = self.acknowledged()
        last = acknowledged[-1]
        found = set(os.listdir(self.place))
        there = {f"d{number}" for number in range(max(0, last + 2 - self.KEPT), last + 1)}
        gone = {f"d{number}" for number in range(max(0, last + 1 - self.KEPT))}
        broken = [f"{name} was made and synced and is not there" for name in sorted(there - found)]
        broken += [f"{name} was removed and synced and is there" for name in sorted(gone & found)]
        broken += [
            f"{name}/f was made and synced and is not there"
            for name in there & found
            if not (self.place / name / "f").exists()
        ]
        return broken


class Reads(Witness):
    """Reads files that nobody changes, from further away than the page cache."""

    name = "reads"
    COUNT, SIZE = 6, 2_500_000
    _expected: tuple[bytes, ...] = ()

    def prepare(self) -> None:
        self._expected = tuple(pattern(self.SIZE, number + 3) for number in range(self.COUNT))
        for number in range(self.COUNT):
            with open(self.place / f"{number}", "wb") as file:
                file.write(pattern(self.SIZE, number + 3))
                file.flush()
                os.fsync(file.fileno())

    def step(self, number: int) -> None:
        chance = random.Random(number)
        which, offset = chance.randrange(self.COUNT), chance.randrange(self.SIZE - 200_000)
        descriptor = self.timed(os.open, self.place / f"{which}", os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            found = self.timed(os.pread, descriptor, 200_000, offset)
            expected = self._expected[which][offset : offset + 200_000]
            assert found == expected, f"file {which} at {offset}: {_described(found, expected)}"
        finally:
            self.timed(os.close, descriptor)

    def verify(self) -> list[str]:
        return [
            f"file {n} differs"
            for n in range(self.COUNT)
            if (self.place / f"{n}").read_bytes() != pattern(self.SIZE, n + 3)
        ]


class Rows(Witness):
    """Commits rows to a sqlite database."""

    name = "rows"
    CALLS = 3
    """A commit that fails goes on to write, to roll back and to unlock."""
    _database: sqlite3.Connection | None = None

    def prepare(self) -> None:
        with contextlib.closing(sqlite3.connect(self.place / "db", isolation_level=None)) as database:
            database.execute("create table rows (number integer primary key, text text)")

    def step(self, number: int) -> None:
        if self._database is None:
            self._database = sqlite3.connect(self.place / "db", isolation_level=None, timeout=5)
            self._database.execute("pragma synchronous=full")
        self.timed(self._insert, self._database, number)

    def _insert(self, database: sqlite3.Connection, number: int) -> None:
        database.execute("insert or replace into rows values (?, ?)", (number, f"{number}" * 300))

    def recover(self) -> None:
        if self._database is not None:
            with contextlib.suppress(sqlite3.Error):
                self._database.close()
            self._database = None

    def verify(self) -> list[str]:
        # The locks of a mount whose daemon was killed stay until the service gives it up.
        with contextlib.closing(sqlite3.connect(self.place / "db", timeout=60)) as database:
            whole = database.execute("pragma integrity_check").fetchall()
            found = {number for (number,) in database.execute("select number from rows")}
        broken = [] if whole == [("ok",)] else [f"integrity check: {whole[:3]}"]
        return broken + [
            f"row {number} was committed and is not there" for number in self.acknowledged() if number not in found
        ]


KINDS: tuple[type[Witness], ...] = (Records, Appends, Replacements, Names, Reads, Rows)


@contextlib.contextmanager
def witnesses(place: Path, outside: Path, kinds: tuple[type[Witness], ...] = KINDS) -> Iterator[list[Witness]]:
    """One of each kind, at work; whoever is left at the end is killed."""
    outside.mkdir()
    started: list[Witness] = []
    try:
        for kind in kinds:
            one = kind(place / kind.name, outside)
            one.start()
            started.append(one)
        yield started
    finally:
        for one in started:
            one.kill()


def _described(found: bytes, expected: bytes) -> str:
    if len(found) != len(expected):
        return f"{len(found)} bytes instead of {len(expected)}"
    differing = [index for index in range(len(found)) if found[index] != expected[index]]
    zeros = all(found[index] == 0 for index in differing)
    return f"different in {len(differing)} bytes from {differing[0]} to {differing[-1]}{', all zero' if zeros else ''}"
