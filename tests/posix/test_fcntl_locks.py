"""Record locks: F_SETLK, F_SETLKW, F_GETLK, between processes and between mounts."""

import contextlib
import errno
import multiprocessing.connection
import os
import random
import signal
from pathlib import Path

import pytest

from tests.posix.files import DEADLINE_S, make, opened, refused
from tests.posix.locks import NONE, READ, WRITE, Lock, ask, lock, wait_lock
from tests.posix.people import actor
from tests.posix.subject import Subject
from tests.posix.test_flock import _ignore_loudly

BUSY = (errno.EAGAIN, errno.EACCES)


@pytest.fixture
def file(subject: Subject) -> Path:
    return make(subject.path / "f", bytes(1000))


@pytest.fixture
def other_name(subject: Subject, file: Path) -> Path:
    """The same file as another mount has it."""
    return subject.other / file.name


@pytest.mark.parametrize(
    ("first", "second", "fits"), [(READ, READ, True), (READ, WRITE, False), (WRITE, READ, False), (WRITE, WRITE, False)]
)
def test_between_processes(file: Path, other_name: Path, first: int, second: int, fits: bool) -> None:
    with actor() as other, opened(file, os.O_RDWR) as descriptor:
        theirs = other(os.open, other_name, os.O_RDWR)
        lock(descriptor, first, 100, 50)
        if fits:
            other(lock, theirs, second, 100, 50)
        else:
            with refused(*BUSY):
                other(lock, theirs, second, 120, 1)
            lock(descriptor, NONE, 100, 50)
            other(lock, theirs, second, 120, 1)


@pytest.mark.parametrize(
    ("start", "length", "fits"),
    [
        (0, 100, True),
        (0, 101, False),
        (99, 2, False),
        (149, 1, False),
        (150, 0, True),
        (0, 0, False),
        (120, 10, False),
        (150, 1, True),
    ],
)
def test_ranges(file: Path, start: int, length: int, fits: bool) -> None:
    with actor() as other, opened(file, os.O_RDWR) as descriptor:
        theirs = other(os.open, file, os.O_RDWR)
        lock(descriptor, WRITE, 100, 50)
        if fits:
            other(lock, theirs, WRITE, start, length)
        else:
            with refused(*BUSY):
                other(lock, theirs, WRITE, start, length)


def test_ranges_beyond_the_end(file: Path) -> None:
    """A lock may lie where the file has no bytes; length 0 reaches whatever comes."""
    with actor() as other, opened(file, os.O_RDWR) as descriptor:
        theirs = other(os.open, file, os.O_RDWR)
        lock(descriptor, WRITE, 5000, 0)
        other(lock, theirs, WRITE, 4000, 1000)
        for start in (5000, 1 << 40, (1 << 62)):
            with refused(*BUSY):
                other(lock, theirs, READ, start, 1)


def test_relative_to_position_and_end(file: Path) -> None:
    with actor() as other, opened(file, os.O_RDWR) as descriptor:
        theirs = other(os.open, file, os.O_RDWR)
        os.lseek(descriptor, 100, os.SEEK_SET)
        lock(descriptor, WRITE, 10, 5, os.SEEK_CUR)
        lock(descriptor, WRITE, -10, 5, os.SEEK_END)
        assert other(ask, theirs, WRITE, 0, 500) == Lock(WRITE, 110, 5, os.getpid())
        assert other(ask, theirs, WRITE, 500, 0) == Lock(WRITE, 990, 5, os.getpid())


def test_negative_length_reaches_backwards(file: Path) -> None:
    with actor() as other, opened(file, os.O_RDWR) as descriptor:
        theirs = other(os.open, file, os.O_RDWR)
        lock(descriptor, WRITE, 100, -10)
        assert other(ask, theirs, WRITE) == Lock(WRITE, 90, 10, os.getpid())


@pytest.mark.parametrize(("start", "length"), [(-1, 1), (5, -6)])
def test_before_the_start(file: Path, start: int, length: int) -> None:
    with opened(file, os.O_RDWR) as descriptor, refused(errno.EINVAL):
        lock(descriptor, WRITE, start, length)


def test_own_locks_are_never_in_the_way(file: Path) -> None:
    with opened(file, os.O_RDWR) as first, opened(file, os.O_RDWR) as second:
        lock(first, WRITE)
        lock(second, WRITE)
        assert ask(second, WRITE) is None


def test_split_and_joined(file: Path) -> None:
    with actor() as other, opened(file, os.O_RDWR) as descriptor:
        theirs = other(os.open, file, os.O_RDWR)
        lock(descriptor, WRITE, 0, 300)
        lock(descriptor, NONE, 100, 100)
        assert other(ask, theirs, WRITE, 0, 0) == Lock(WRITE, 0, 100, os.getpid())
        assert other(ask, theirs, WRITE, 100, 100) is None
        assert other(ask, theirs, WRITE, 100, 0) == Lock(WRITE, 200, 100, os.getpid())
        lock(descriptor, WRITE, 100, 100)
        assert other(ask, theirs, WRITE, 0, 0) == Lock(WRITE, 0, 300, os.getpid())


def test_changed_in_the_middle(file: Path) -> None:
    with actor() as other, opened(file, os.O_RDWR) as descriptor:
        theirs = other(os.open, file, os.O_RDWR)
        lock(descriptor, WRITE, 0, 300)
        lock(descriptor, READ, 100, 100)
        other(lock, theirs, READ, 100, 100)
        for start in (99, 200):
            with refused(*BUSY):
                other(lock, theirs, READ, start, 1)


def test_question_finds_no_lock_that_fits(file: Path) -> None:
    with actor() as other, opened(file, os.O_RDWR) as descriptor:
        theirs = other(os.open, file, os.O_RDWR)
        lock(descriptor, READ, 10, 10)
        assert other(ask, theirs, READ) is None
        assert other(ask, theirs, WRITE) == Lock(READ, 10, 10, os.getpid())
        assert other(ask, theirs, WRITE, 20, 5) is None


def test_close_of_any_descriptor_releases_all(file: Path) -> None:
    """POSIX's trap: a process that closes one of its descriptors of the file loses all its locks on it."""
    with actor() as other, opened(file, os.O_RDWR) as descriptor:
        theirs = other(os.open, file, os.O_RDWR)
        lock(descriptor, WRITE)
        with refused(*BUSY):
            other(lock, theirs, WRITE)
        with opened(file):
            pass
        other(lock, theirs, WRITE)


def test_close_of_a_duplicate_releases_all(file: Path) -> None:
    with actor() as other, opened(file, os.O_RDWR) as descriptor:
        theirs = other(os.open, file, os.O_RDWR)
        lock(descriptor, WRITE)
        os.close(os.dup(descriptor))
        other(lock, theirs, WRITE)


def test_close_of_another_file_releases_nothing(file: Path) -> None:
    with actor() as other, opened(file, os.O_RDWR) as descriptor:
        theirs = other(os.open, file, os.O_RDWR)
        lock(descriptor, WRITE)
        with opened(make(file.parent / "another")):
            pass
        with refused(*BUSY):
            other(lock, theirs, WRITE)


def test_released_when_the_process_is_killed(file: Path, other_name: Path) -> None:
    with actor() as other, opened(file, os.O_RDWR) as descriptor:
        theirs = other(os.open, other_name, os.O_RDWR)
        other(lock, theirs, WRITE)
        with refused(*BUSY):
            lock(descriptor, WRITE)
        other.kill()
        wait_lock(descriptor, WRITE)


def test_not_inherited_by_children(file: Path) -> None:
    with opened(file, os.O_RDWR) as descriptor:
        lock(descriptor, WRITE, 5, 10)
        with actor() as child:
            theirs = child(os.open, file, os.O_RDWR)
            assert child(ask, theirs, WRITE) == Lock(WRITE, 5, 10, os.getpid())


def test_child_that_closes_its_copy_releases_nothing(file: Path) -> None:
    with actor() as other, opened(file, os.O_RDWR) as descriptor:
        theirs = other(os.open, file, os.O_RDWR)
        lock(descriptor, WRITE)
        with actor(once=(os.close, (descriptor,))) as child:
            child.result()
        with refused(*BUSY):
            other(lock, theirs, WRITE)


def test_waits_until_it_is_free(file: Path, other_name: Path) -> None:
    with actor() as other, opened(file, os.O_RDWR) as descriptor:
        theirs = other(os.open, other_name, os.O_RDWR)
        lock(descriptor, WRITE)
        other.start(wait_lock, theirs, WRITE, 10, 10)
        other.wait_in("fcntl")
        assert not other.finished()
        lock(descriptor, NONE, 0, 15)
        assert not other.finished()
        lock(descriptor, NONE, 15, 0)
        other.result()
        found = ask(descriptor, WRITE)
        assert found is not None
        assert found[:3] == (WRITE, 10, 10)


def test_waiter_gets_it_when_the_holder_closes(file: Path, other_name: Path) -> None:
    with actor() as other:
        theirs = other(os.open, other_name, os.O_RDWR)
        with opened(file, os.O_RDWR) as descriptor:
            lock(descriptor, WRITE)
            other.start(wait_lock, theirs, WRITE)
            other.wait_in("fcntl")
        other.result()


def test_several_readers_get_it_together(file: Path) -> None:
    with actor() as a, actor() as b, opened(file, os.O_RDWR) as descriptor:
        lock(descriptor, WRITE)
        for one in (a, b):
            theirs = one(os.open, file, os.O_RDWR)
            one.start(wait_lock, theirs, READ)
            one.wait_in("fcntl")
        lock(descriptor, NONE)
        a.result()
        b.result()


@pytest.mark.parametrize("count", [2, 3])
def test_deadlock_is_refused(file: Path, count: int) -> None:
    """Each has what the next one waits for: whoever closes the circle gets EDEADLK, and the others get their locks once
    it has given up its own."""
    with contextlib.ExitStack() as stack:
        ring = [stack.enter_context(actor()) for _ in range(count)]
        descriptors = [one(os.open, file, os.O_RDWR) for one in ring]
        for place, (one, descriptor) in enumerate(zip(ring, descriptors, strict=True)):
            one(lock, descriptor, WRITE, place, 1)
        for place, (one, descriptor) in enumerate(zip(ring, descriptors, strict=True)):
            one.start(_try_wait_lock, descriptor, WRITE, (place + 1) % count, 1)
        refusals = 0
        waiting = list(range(count))
        while waiting:
            multiprocessing.connection.wait([ring[index].channel for index in waiting], DEADLINE_S)
            ended = [index for index in waiting if ring[index].finished()]
            assert ended, "nobody was refused: they wait for each other for ever"
            for index in ended:
                refusals += ring[index].result() == errno.EDEADLK
                ring[index](lock, descriptors[index], NONE)
                waiting.remove(index)
        assert refusals == 1


def _try_wait_lock(*arguments: int) -> int:
    """The errno, 0 without one."""
    try:
        wait_lock(*arguments)
    except OSError as error:
        return error.errno or 0
    return 0


def test_wait_ends_at_a_signal(file: Path) -> None:
    with actor() as other, opened(file, os.O_RDWR) as descriptor:
        theirs = other(os.open, file, os.O_RDWR)
        other(_ignore_loudly)
        lock(descriptor, WRITE)
        other.start(wait_lock, theirs, WRITE)
        other.wait_in("fcntl")
        other.kill(signal.SIGUSR1)
        with refused(errno.EINTR):
            other.result()
        lock(descriptor, NONE)
        lock(descriptor, WRITE)
        other(_ignore_loudly)


def test_interrupted_wait_leaves_no_lock(file: Path) -> None:
    with actor() as other, actor() as third, opened(file, os.O_RDWR) as descriptor:
        theirs, thirds = other(os.open, file, os.O_RDWR), third(os.open, file, os.O_RDWR)
        other(_ignore_loudly)
        lock(descriptor, WRITE)
        other.start(wait_lock, theirs, WRITE)
        other.wait_in("fcntl")
        other.kill(signal.SIGUSR1)
        with refused(errno.EINTR):
            other.result()
        lock(descriptor, NONE)
        third(wait_lock, thirds, WRITE)


def test_wait_ends_when_killed(file: Path) -> None:
    with opened(file, os.O_RDWR) as descriptor:
        lock(descriptor, WRITE)
        with actor() as other:
            theirs = other(os.open, file, os.O_RDWR)
            other.start(wait_lock, theirs, WRITE)
            other.wait_in("fcntl")
            other.kill()
            assert os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        lock(descriptor, NONE)
        with actor() as third:
            thirds = third(os.open, file, os.O_RDWR)
            third(wait_lock, thirds, WRITE)


def test_access_mode(file: Path) -> None:
    with opened(file, os.O_RDONLY) as descriptor:
        lock(descriptor, READ)
        with refused(errno.EBADF):
            lock(descriptor, WRITE)
    with opened(file, os.O_WRONLY) as descriptor:
        lock(descriptor, WRITE)
        with refused(errno.EBADF):
            lock(descriptor, READ)


def test_unknown_type(file: Path) -> None:
    with opened(file, os.O_RDWR) as descriptor:
        with refused(errno.EINVAL):
            lock(descriptor, 77)
        with refused(errno.EINVAL):
            ask(descriptor, NONE)


def test_locks_do_not_hinder_reading_and_writing(file: Path) -> None:
    """They are advisory."""
    with actor() as other, opened(file, os.O_RDWR) as descriptor:
        lock(descriptor, WRITE)
        theirs = other(os.open, file, os.O_RDWR | os.O_TRUNC)
        assert other(os.write, theirs, b"abc") == 3
        assert os.pread(descriptor, 10, 0) == b"abc"


def test_random_histories(file: Path, other_name: Path) -> None:
    """Two processes lock and unlock ranges at random; a model of bytes says who may have what."""
    chance = random.Random(5)
    size = 40
    held: dict[int, list[int]] = {0: [NONE] * size, 1: [NONE] * size}
    with actor() as a, actor() as b:
        fds = [a(os.open, file, os.O_RDWR), b(os.open, other_name, os.O_RDWR)]
        for _ in range(250):
            who = chance.randrange(2)
            start = chance.randrange(size)
            length = chance.randrange(1, size - start + 1)
            kind = chance.choice((READ, WRITE, NONE))
            theirs = held[1 - who][start : start + length]
            fits = kind == NONE or all(one == NONE or (one == READ and kind == READ) for one in theirs)
            try:
                (a, b)[who](lock, fds[who], kind, start, length)
            except OSError as error:
                assert error.errno in BUSY
                assert not fits, (who, kind, start, length, theirs)
            else:
                assert fits, (who, kind, start, length, theirs)
                held[who][start : start + length] = [kind] * length
