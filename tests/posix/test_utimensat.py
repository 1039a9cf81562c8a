"""utimensat, futimens: nanoseconds, UTIME_NOW, UTIME_OMIT, and who may."""

import errno
import os
from pathlib import Path

import pytest

from tests.posix import calls
from tests.posix.calls import UTIME_NOW, UTIME_OMIT
from tests.posix.files import clock_moves, make, opened, refused
from tests.posix.people import ALICE, BOB, as_user, needs_root

S = 1_000_000_000
NOW, OMIT = (0, UTIME_NOW), (0, UTIME_OMIT)
FIRST, SECOND = (1_000_000_001, 123_456_789), (1_500_000_002, 987_654_321)


def times(path: Path) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_atime_ns, status.st_mtime_ns


def test_nanoseconds(directory: Path) -> None:
    path = make(directory / "f")
    calls.utimensat(path, FIRST, SECOND)
    assert times(path) == (1_000_000_001_123_456_789, 1_500_000_002_987_654_321)


@pytest.mark.parametrize("seconds", [0, 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, 9_000_000_000])
def test_range(directory: Path, seconds: int) -> None:
    path = make(directory / "f")
    calls.utimensat(path, (seconds, 1), (seconds, 999_999_999))
    assert times(path) == (seconds * S + 1, seconds * S + 999_999_999)


def test_before_1970(directory: Path) -> None:
    path = make(directory / "f")
    calls.utimensat(path, (-1000, 5), (-1, 999_999_999))
    assert times(path) == (-1000 * S + 5, -1)


def test_now(directory: Path) -> None:
    path = make(directory / "f")
    calls.utimensat(path, FIRST, SECOND)
    before = clock_moves(directory)
    calls.utimensat(path, NOW, NOW)
    after = clock_moves(directory)
    accessed, modified = times(path)
    assert before <= accessed <= after
    assert accessed == modified


def test_omit(directory: Path) -> None:
    path = make(directory / "f")
    calls.utimensat(path, FIRST, SECOND)
    calls.utimensat(path, OMIT, FIRST)
    assert times(path) == (FIRST[0] * S + FIRST[1], FIRST[0] * S + FIRST[1])
    calls.utimensat(path, SECOND, OMIT)
    assert times(path) == (SECOND[0] * S + SECOND[1], FIRST[0] * S + FIRST[1])
    calls.utimensat(path, OMIT, OMIT)
    assert times(path) == (SECOND[0] * S + SECOND[1], FIRST[0] * S + FIRST[1])


def test_one_now_and_one_given(directory: Path) -> None:
    path = make(directory / "f")
    before = clock_moves(directory)
    calls.utimensat(path, FIRST, NOW)
    assert times(path)[0] == FIRST[0] * S + FIRST[1]
    assert times(path)[1] >= before


def test_ctime_becomes_now(directory: Path) -> None:
    path = make(directory / "f")
    before = clock_moves(directory)
    calls.utimensat(path, FIRST, SECOND)
    assert path.stat().st_ctime_ns >= before


def test_omitting_both_leaves_ctime(directory: Path) -> None:
    path = make(directory / "f")
    changed = path.stat().st_ctime_ns
    clock_moves(directory)
    calls.utimensat(path, OMIT, OMIT)
    assert path.stat().st_ctime_ns == changed


def test_by_descriptor(directory: Path) -> None:
    path = make(directory / "f")
    with opened(path) as descriptor:
        calls.utimensat(None, FIRST, SECOND, directory=descriptor)
        assert times(path) == (FIRST[0] * S + FIRST[1], SECOND[0] * S + SECOND[1])
        path.unlink()
        os.utime(descriptor, ns=(5, 6))
        assert os.fstat(descriptor).st_mtime_ns == 6


def test_by_descriptor_after_a_write(directory: Path) -> None:
    """As `cp -p` and `tar` do: the time set last stays, also when written bytes reach the disk later."""
    path = directory / "f"
    with opened(path, os.O_WRONLY | os.O_CREAT) as descriptor:
        os.write(descriptor, b"x" * 100_000)
        calls.utimensat(None, FIRST, SECOND, directory=descriptor)
    assert path.stat().st_mtime_ns == SECOND[0] * S + SECOND[1]
    with opened(path) as descriptor:
        os.fsync(descriptor)
    assert path.stat().st_mtime_ns == SECOND[0] * S + SECOND[1]


def test_symlink_itself_and_its_target(directory: Path) -> None:
    path = make(directory / "f")
    (directory / "link").symlink_to("f")
    calls.utimensat(directory / "link", FIRST, SECOND)
    assert times(path) == (FIRST[0] * S + FIRST[1], SECOND[0] * S + SECOND[1])
    calls.utimensat(directory / "link", (7, 8), (9, 10), calls.AT_SYMLINK_NOFOLLOW)
    assert times(path) == (FIRST[0] * S + FIRST[1], SECOND[0] * S + SECOND[1])
    assert times(directory / "link") == (7 * S + 8, 9 * S + 10)


def test_directories_and_fifos(directory: Path) -> None:
    (directory / "d").mkdir()
    os.mkfifo(directory / "fifo")
    for name in ("d", "fifo"):
        calls.utimensat(directory / name, FIRST, SECOND)
        assert times(directory / name) == (FIRST[0] * S + FIRST[1], SECOND[0] * S + SECOND[1])


@pytest.mark.parametrize("nanoseconds", [-1, 1_000_000_000, UTIME_OMIT - 1, UTIME_NOW + 1])
def test_invalid_nanoseconds(directory: Path, nanoseconds: int) -> None:
    path = make(directory / "f")
    before = times(path)
    for given in (((0, nanoseconds), (0, 0)), ((0, 0), (0, nanoseconds))):
        with refused(errno.EINVAL):
            calls.utimensat(path, *given)
    assert times(path) == before


def test_missing(directory: Path) -> None:
    with refused(errno.ENOENT):
        calls.utimensat(directory / "missing", NOW, NOW)


def test_owner_may_set_any_time(directory: Path) -> None:
    needs_root()
    path = make(directory / "f", mode=0o444)
    os.chown(path, ALICE, ALICE)
    as_user(calls.utimensat, path, FIRST, SECOND, uid=ALICE)
    as_user(calls.utimensat, path, NOW, NOW, uid=ALICE)
    as_user(calls.utimensat, path, OMIT, SECOND, uid=ALICE)


def test_who_may_write_may_set_it_to_now(directory: Path) -> None:
    path = make(directory / "f", mode=0o666)
    before = clock_moves(directory)
    as_user(calls.utimensat, path, NOW, NOW, uid=BOB)
    assert times(path)[1] >= before
    for given in ((FIRST, SECOND), (NOW, OMIT), (OMIT, NOW), (NOW, SECOND)):
        with refused(errno.EPERM):
            as_user(calls.utimensat, path, *given, uid=BOB)


def test_who_may_only_read_may_not(directory: Path) -> None:
    path = make(directory / "f", mode=0o644)
    with refused(errno.EACCES):
        as_user(calls.utimensat, path, NOW, NOW, uid=BOB)
    with refused(errno.EPERM):
        as_user(calls.utimensat, path, FIRST, SECOND, uid=BOB)
