"""flock: locks of open files, between processes and between mounts."""

import errno
import fcntl
import os
import signal
from pathlib import Path

import pytest

from tests.posix import calls
from tests.posix.files import make, opened, refused
from tests.posix.people import actor
from tests.posix.subject import Subject

SH, EX, UN, NB = fcntl.LOCK_SH, fcntl.LOCK_EX, fcntl.LOCK_UN, fcntl.LOCK_NB


@pytest.fixture
def file(subject: Subject) -> Path:
    return make(subject.path / "f", b"abc")


@pytest.fixture
def other_name(subject: Subject, file: Path) -> Path:
    """The same file as another mount has it."""
    return subject.other / file.name


@pytest.mark.parametrize(
    ("first", "second", "fits"), [(SH, SH, True), (SH, EX, False), (EX, SH, False), (EX, EX, False)]
)
def test_between_processes(file: Path, other_name: Path, first: int, second: int, fits: bool) -> None:
    with actor() as other, opened(file, os.O_RDWR) as descriptor:
        theirs = other(os.open, other_name, os.O_RDWR)
        fcntl.flock(descriptor, first)
        if fits:
            other(fcntl.flock, theirs, second | NB)
        else:
            with refused(errno.EWOULDBLOCK):
                other(fcntl.flock, theirs, second | NB)
            fcntl.flock(descriptor, UN)
            other(fcntl.flock, theirs, second | NB)


def test_between_two_opens_of_one_process(file: Path) -> None:
    """The lock belongs to the open file, not to the process."""
    with opened(file) as first, opened(file) as second:
        fcntl.flock(first, EX)
        with refused(errno.EWOULDBLOCK):
            fcntl.flock(second, EX | NB)


def test_duplicates_share_it(file: Path) -> None:
    with opened(file) as descriptor, opened(file) as stranger:
        duplicate = os.dup(descriptor)
        fcntl.flock(descriptor, EX)
        fcntl.flock(duplicate, EX | NB)
        os.close(duplicate)
        with refused(errno.EWOULDBLOCK):
            fcntl.flock(stranger, SH | NB)
        duplicate = os.dup(descriptor)
        fcntl.flock(duplicate, UN)
        os.close(duplicate)
        fcntl.flock(stranger, EX | NB)


def test_released_when_the_last_descriptor_is_closed(file: Path) -> None:
    with opened(file) as waiting:
        descriptor = os.open(file, os.O_RDONLY)
        duplicate = os.dup(descriptor)
        fcntl.flock(descriptor, EX)
        os.close(descriptor)
        with refused(errno.EWOULDBLOCK):
            fcntl.flock(waiting, EX | NB)
        os.close(duplicate)
        fcntl.flock(waiting, EX)


def test_free_everywhere_when_the_close_has_returned(file: Path, other_name: Path) -> None:
    for _ in range(20):
        with opened(file, os.O_RDWR) as descriptor:
            fcntl.flock(descriptor, EX)
        with opened(other_name, os.O_RDWR) as descriptor:
            fcntl.flock(descriptor, EX | NB)


def test_free_everywhere_when_its_holder_is_gone(file: Path, other_name: Path) -> None:
    for _ in range(5):
        with actor() as other:
            other(fcntl.flock, other(os.open, file, os.O_RDWR), EX)
            os.kill(other.pid, signal.SIGKILL)
            os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
            with opened(other_name, os.O_RDWR) as descriptor:
                fcntl.flock(descriptor, EX | NB)


def test_close_of_another_open_releases_nothing(file: Path) -> None:
    """Unlike fcntl's locks."""
    with opened(file) as descriptor:
        fcntl.flock(descriptor, EX)
        with opened(file):
            pass
        with opened(file) as stranger, refused(errno.EWOULDBLOCK):
            fcntl.flock(stranger, SH | NB)


def test_released_when_the_process_is_killed(file: Path, other_name: Path) -> None:
    with actor() as other, opened(file) as descriptor:
        theirs = other(os.open, other_name, os.O_RDONLY)
        other(fcntl.flock, theirs, EX)
        with refused(errno.EWOULDBLOCK):
            fcntl.flock(descriptor, EX | NB)
        other.kill()
        fcntl.flock(descriptor, EX)


def test_waits_until_it_is_free(file: Path, other_name: Path) -> None:
    with actor() as other, opened(file) as descriptor:
        theirs = other(os.open, other_name, os.O_RDONLY)
        fcntl.flock(descriptor, EX)
        other.start(fcntl.flock, theirs, EX)
        other.wait_in("flock")
        assert not other.finished()
        fcntl.flock(descriptor, UN)
        other.result()
        with refused(errno.EWOULDBLOCK):
            fcntl.flock(descriptor, EX | NB)


def test_several_wait_and_all_get_it(file: Path, other_name: Path) -> None:
    with actor() as a, actor() as b, actor() as c, opened(file) as descriptor:
        fcntl.flock(descriptor, EX)
        for one in (a, b, c):
            one.start(_lock_and_unlock, other_name)
            one.wait_in("flock")
        fcntl.flock(descriptor, UN)
        for one in (a, b, c):
            one.result()


def _lock_and_unlock(path: Path) -> None:
    with opened(path) as descriptor:
        fcntl.flock(descriptor, EX)


def test_shared_becomes_exclusive_and_back(file: Path) -> None:
    with opened(file) as first, opened(file) as second:
        fcntl.flock(first, SH)
        fcntl.flock(second, SH)
        with refused(errno.EWOULDBLOCK):
            fcntl.flock(first, EX | NB)
        fcntl.flock(second, UN)
        fcntl.flock(first, EX)
        with refused(errno.EWOULDBLOCK):
            fcntl.flock(second, SH | NB)
        fcntl.flock(first, SH)
        fcntl.flock(second, SH | NB)


def test_unlock_of_nothing(file: Path) -> None:
    with opened(file) as descriptor:
        fcntl.flock(descriptor, UN)
        fcntl.flock(descriptor, UN | NB)


def test_needs_no_access_mode(file: Path) -> None:
    """An exclusive lock on a file that is open for reading only is fine, and a directory can be locked."""
    for path, flags in ((file, os.O_RDONLY), (file, os.O_WRONLY), (file.parent, os.O_RDONLY | os.O_DIRECTORY)):
        with opened(path, flags) as descriptor:
            fcntl.flock(descriptor, EX | NB)


def test_invalid_operation(file: Path) -> None:
    with opened(file) as descriptor:
        for operation in (0, 64, SH | EX):
            with refused(errno.EINVAL):
                calls.flock(descriptor, operation)


def test_wait_ends_at_a_signal(file: Path) -> None:
    with actor() as other, opened(file) as descriptor:
        theirs = other(os.open, file, os.O_RDONLY)
        other(_ignore_loudly)
        fcntl.flock(descriptor, EX)
        other.start(calls.flock, theirs, EX)
        other.wait_in("flock")
        other.kill(signal.SIGUSR1)
        with refused(errno.EINTR):
            other.result()
        fcntl.flock(descriptor, UN)
        other(calls.flock, theirs, EX | NB)


def _ignore_loudly() -> None:
    """With a handler the call is interrupted; with SIG_IGN it would not be."""
    signal.signal(signal.SIGUSR1, lambda number, frame: None)
    signal.siginterrupt(signal.SIGUSR1, True)


def test_wait_ends_when_killed(file: Path) -> None:
    with opened(file) as descriptor:
        fcntl.flock(descriptor, EX)
        with actor() as other:
            theirs = other(os.open, file, os.O_RDONLY)
            other.start(fcntl.flock, theirs, EX)
            other.wait_in("flock")
            other.kill()
            assert os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        fcntl.flock(descriptor, UN)
        with opened(file) as again:
            fcntl.flock(again, EX | NB)


def test_independent_of_fcntl_locks(file: Path) -> None:
    with actor() as other, opened(file, os.O_RDWR) as descriptor:
        theirs = other(os.open, file, os.O_RDWR)
        fcntl.flock(descriptor, EX)
        other(fcntl.lockf, theirs, EX | NB)


def test_of_a_deleted_file(file: Path) -> None:
    with opened(file) as first, opened(file) as second:
        file.unlink()
        fcntl.flock(first, EX)
        with refused(errno.EWOULDBLOCK):
            fcntl.flock(second, EX | NB)


def _count(path: Path, counter: Path, rounds: int, unlock: bool) -> None:
    for _ in range(rounds):
        with opened(path, os.O_RDWR) as descriptor:
            fcntl.flock(descriptor, EX)
            with opened(counter, os.O_RDWR) as file:
                number = int(os.pread(file, 20, 0))
                os.pwrite(file, b"%d" % (number + 1), 0)
                os.fsync(file)
            if unlock:
                fcntl.flock(descriptor, UN)


@pytest.mark.parametrize("unlock", [True, False], ids=["unlocked", "closed"])
@pytest.mark.parametrize("where", ["elsewhere", "in another file"])
def test_protects_a_counter(subject: Subject, tmp_path: Path, where: str, unlock: bool) -> None:
    """Read, add one, write back, under the lock: no addition is lost, on one mount or on two.

    With the counter on a local disk this is about the lock alone; with it on the file system, it is also about what an
    open shows that comes after the other one's close.
    """
    make(subject.path / "lock")
    make((tmp_path if where == "elsewhere" else subject.path) / "counter", b"0")
    with actor() as a, actor() as b:
        for one, place in ((a, subject.path), (b, subject.other)):
            counter = (tmp_path if where == "elsewhere" else place) / "counter"
            one.start(_count, place / "lock", counter, 60, unlock)
        a.result()
        b.result()
    assert ((tmp_path if where == "elsewhere" else subject.path) / "counter").read_bytes() == b"120"


def _count_inside(path: Path, rounds: int, unlock: bool) -> None:
    for _ in range(rounds):
        with opened(path, os.O_RDWR) as descriptor:
            fcntl.flock(descriptor, EX)
            number = int(os.pread(descriptor, 20, 0))
            os.pwrite(descriptor, b"%d" % (number + 1), 0)
            os.fsync(descriptor)
            if unlock:
                fcntl.flock(descriptor, UN)


@pytest.mark.parametrize("unlock", [True, False], ids=["unlocked", "closed"])
def test_protects_the_file_that_is_locked(subject: Subject, unlock: bool) -> None:
    """Opened before the lock is there: the bytes that count are those of after it."""
    make(subject.path / "counter", b"0")
    with actor() as a, actor() as b:
        a.start(_count_inside, subject.path / "counter", 60, unlock)
        b.start(_count_inside, subject.other / "counter", 60, unlock)
        a.result()
        b.result()
    with opened(subject.other / "counter") as descriptor:
        assert os.pread(descriptor, 20, 0) == b"120"
