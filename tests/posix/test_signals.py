"""Signals during calls: what is interruptible ends, what is not completes, nothing is half done without saying so."""

import errno
import os
import signal
from pathlib import Path

from tests.posix.files import make, opened, pattern, read_all, refused
from tests.posix.people import actor
from tests.posix.test_flock import _ignore_loudly


def _ring(interval_s: float) -> None:
    """A signal every so often, for ever, with a handler that does nothing."""
    _ignore_loudly()
    signal.signal(signal.SIGALRM, lambda number, frame: None)
    signal.setitimer(signal.ITIMER_REAL, interval_s, interval_s)


def _write_and_read(path: Path, rounds: int) -> None:
    for number in range(rounds):
        data = pattern(200_000, number)
        with opened(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC) as descriptor:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
            assert read_all(descriptor) == data
        assert path.stat().st_size == len(data)


def test_storm_of_signals_does_no_harm(directory: Path) -> None:
    """Writes may be short under signals, never wrong."""
    with actor() as one:
        one(_ring, 0.0005)
        one(_write_and_read, directory / "f", 15)


def _work_on_names(directory: Path, rounds: int) -> int:
    for number in range(rounds):
        path = directory / f"{number}"
        make(path, b"x")
        os.rename(path, directory / f"r{number}")
        os.link(directory / f"r{number}", directory / f"l{number}")
        if number % 2:
            os.unlink(directory / f"r{number}")
    return len(os.listdir(directory))


def test_storm_of_signals_during_namespace_changes(directory: Path) -> None:
    """A change that was interrupted has happened or has not: Python repeats a call that says EINTR, so a change that
    happened and said EINTR would show as EEXIST or ENOENT here."""
    with actor() as one:
        one(_ring, 0.0005)
        assert one(_work_on_names, directory, 60) == 90


def test_open_of_a_fifo_is_interrupted(directory: Path) -> None:
    os.mkfifo(directory / "fifo")
    with actor() as one:
        one(_raise_on_signal)
        one.start(os.open, directory / "fifo", os.O_RDONLY)
        one.wait_in("openat")
        one.kill(signal.SIGUSR1)
        with refused(errno.ECANCELED):
            one.result()


def _raise_on_signal() -> None:
    """Python would repeat the call after the handler, unless the handler raises."""

    def give_up(number: int, frame: object) -> None:
        raise OSError(errno.ECANCELED, "a signal came")

    signal.signal(signal.SIGUSR1, give_up)


def _write_for_ever(path: Path) -> None:
    with opened(path, os.O_RDWR | os.O_CREAT | os.O_APPEND) as descriptor:
        while True:
            os.write(descriptor, b"0123456789abcdef" * 256)


def test_writer_is_killed(directory: Path) -> None:
    """What is there afterwards is whole records, and the file can be used at once."""
    path = make(directory / "f")
    with actor() as one:
        one.start(_write_for_ever, path)
        while path.stat().st_size < 100_000:
            assert not one.finished()
        one.kill()
        os.waitid(os.P_PID, one.pid, os.WEXITED | os.WNOWAIT)
    with opened(path, os.O_RDWR | os.O_APPEND) as descriptor:
        data = read_all(descriptor)
        assert len(data) % 16 == 0
        assert data == b"0123456789abcdef" * (len(data) // 16)
        os.write(descriptor, b"end")
        assert read_all(descriptor) == data + b"end"
