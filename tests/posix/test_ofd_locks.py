"""Open-file-description locks: ranges as fcntl has them, owners as flock has them."""

import errno
import os
from pathlib import Path

import pytest

from tests.posix import calls
from tests.posix.files import make, opened, refused
from tests.posix.locks import FLOCK, NONE, READ, WRITE, lock, ofd_ask, ofd_lock, ofd_wait_lock
from tests.posix.people import actor
from tests.posix.subject import Subject


@pytest.fixture
def file(subject: Subject) -> Path:
    return make(subject.path / "f", bytes(1000))


def test_between_two_opens_of_one_process(file: Path) -> None:
    with opened(file, os.O_RDWR) as first, opened(file, os.O_RDWR) as second:
        ofd_lock(first, WRITE, 0, 10)
        ofd_lock(second, WRITE, 10, 10)
        with refused(errno.EAGAIN):
            ofd_lock(second, READ, 5, 1)
        ofd_lock(first, NONE, 0, 10)
        ofd_lock(second, READ, 5, 1)


def test_between_processes_and_mounts(file: Path, subject: Subject) -> None:
    with actor() as other, opened(file, os.O_RDWR) as descriptor:
        theirs = other(os.open, subject.other / "f", os.O_RDWR)
        ofd_lock(descriptor, READ)
        other(ofd_lock, theirs, READ)
        with refused(errno.EAGAIN):
            other(ofd_lock, theirs, WRITE)


def test_conflict_with_locks_of_processes(file: Path) -> None:
    with opened(file, os.O_RDWR) as first, opened(file, os.O_RDWR) as second:
        ofd_lock(first, WRITE, 0, 10)
        with refused(errno.EAGAIN, errno.EACCES):
            lock(second, WRITE, 0, 10)


def test_close_of_another_open_releases_nothing(file: Path) -> None:
    with opened(file, os.O_RDWR) as descriptor, opened(file, os.O_RDWR) as stranger:
        ofd_lock(descriptor, WRITE)
        with opened(file):
            pass
        with refused(errno.EAGAIN):
            ofd_lock(stranger, WRITE)


def test_released_at_the_last_close(file: Path) -> None:
    with opened(file, os.O_RDWR) as stranger:
        descriptor = os.open(file, os.O_RDWR)
        duplicate = os.dup(descriptor)
        ofd_lock(descriptor, WRITE)
        os.close(descriptor)
        with refused(errno.EAGAIN):
            ofd_lock(stranger, WRITE)
        os.close(duplicate)
        ofd_wait_lock(stranger, WRITE)


def test_nobody_is_told_of_it_after_the_last_close(file: Path) -> None:
    with opened(file, os.O_RDWR) as stranger:
        for _ in range(20):
            with opened(file, os.O_RDWR) as descriptor:
                ofd_lock(descriptor, WRITE)
            assert ofd_ask(stranger, WRITE) is None


def test_free_everywhere_when_the_last_close_has_returned(file: Path, subject: Subject) -> None:
    with opened(subject.other / "f", os.O_RDWR) as stranger:
        for _ in range(20):
            with opened(file, os.O_RDWR) as descriptor:
                ofd_lock(descriptor, WRITE)
            assert ofd_ask(stranger, WRITE) is None
            ofd_lock(stranger, WRITE)
            ofd_lock(stranger, NONE)


def test_end_of_one_leaves_the_next(file: Path, subject: Subject) -> None:
    """The next open of the file often has the same place in the kernel's memory as the one before."""
    with opened(subject.other / "f", os.O_RDWR) as stranger:
        for _ in range(100):
            with opened(file, os.O_RDWR) as descriptor:
                ofd_lock(descriptor, WRITE)
            with opened(file, os.O_RDWR) as descriptor:
                ofd_lock(descriptor, WRITE)
                for _ in range(3):
                    with refused(errno.EAGAIN):
                        ofd_lock(stranger, WRITE)


def test_children_share_it(file: Path) -> None:
    """The child has the same open file, so the lock is its own, too, and survives its end."""
    with opened(file, os.O_RDWR) as descriptor, opened(file, os.O_RDWR) as stranger:
        ofd_lock(descriptor, WRITE)
        with actor(once=(ofd_lock, (descriptor, WRITE, 0, 5))) as child:
            child.result()
        with refused(errno.EAGAIN):
            ofd_lock(stranger, WRITE, 0, 1)
        with actor(once=(ofd_lock, (descriptor, NONE))) as child:
            child.result()
        ofd_lock(stranger, WRITE, 0, 1)


def test_question(file: Path) -> None:
    """The lock has no process: its pid is -1."""
    with opened(file, os.O_RDWR) as first, opened(file, os.O_RDWR) as second:
        ofd_lock(first, WRITE, 7, 3)
        found = ofd_ask(second, READ)
        assert found is not None
        assert found[:3] == (WRITE, 7, 3)
        assert found.pid == -1
        assert ofd_ask(first, READ) is None


def test_waits_until_it_is_free(file: Path, subject: Subject) -> None:
    with actor() as other, opened(file, os.O_RDWR) as descriptor:
        theirs = other(os.open, subject.other / "f", os.O_RDWR)
        ofd_lock(descriptor, WRITE)
        other.start(ofd_wait_lock, theirs, READ)
        other.wait_in("fcntl")
        assert not other.finished()
        ofd_lock(descriptor, NONE)
        other.result()


def test_released_when_the_process_is_killed(file: Path, subject: Subject) -> None:
    with actor() as other, opened(file, os.O_RDWR) as descriptor:
        theirs = other(os.open, subject.other / "f", os.O_RDWR)
        other(ofd_lock, theirs, WRITE)
        with refused(errno.EAGAIN):
            ofd_lock(descriptor, READ)
        other.kill()
        ofd_wait_lock(descriptor, READ)


def test_pid_field_must_be_zero(file: Path) -> None:
    with opened(file, os.O_RDWR) as descriptor, refused(errno.EINVAL):
        calls.fcntl(descriptor, calls.F_OFD_SETLK, FLOCK.pack(WRITE, os.SEEK_SET, 0, 0, 5))
