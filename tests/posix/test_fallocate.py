"""fallocate and posix_fallocate: room, holes and zeros.

COLLAPSE_RANGE and INSERT_RANGE are optional: a file system that lacks them says EOPNOTSUPP and changes nothing.
"""

import errno
import os
from pathlib import Path

import pytest

from tests.posix import calls
from tests.posix.calls import (
    FALLOC_FL_COLLAPSE_RANGE,
    FALLOC_FL_INSERT_RANGE,
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
    FALLOC_FL_ZERO_RANGE,
    fallocate,
)
from tests.posix.files import make, opened, pattern, read_all, refused
from tests.posix.subject import Subject

SIZE = 3_000_000
PUNCH = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
RANGES = [
    (0, 1),
    (1, 4096),
    (4096, 4096),
    (4095, 4098),
    (65_536, 131_072),
    (100_001, 1),
    (0, SIZE),
    (1_048_576, 1_048_576),
    (1_000_000, 1_500_000),
    (SIZE - 1, 1),
]


def test_grows_the_file(directory: Path) -> None:
    with opened(make(directory / "f", b"abc"), os.O_RDWR) as descriptor:
        fallocate(descriptor, 0, 0, 10_000)
        assert os.fstat(descriptor).st_size == 10_000
        assert read_all(descriptor) == b"abc" + bytes(9_997)


def test_does_not_shrink_it(directory: Path) -> None:
    with opened(make(directory / "f", pattern(SIZE)), os.O_RDWR) as descriptor:
        fallocate(descriptor, 0, 10, 100)
        os.posix_fallocate(descriptor, 0, SIZE)
        assert read_all(descriptor) == pattern(SIZE)


def test_beyond_the_end(directory: Path) -> None:
    with opened(make(directory / "f", b"abc"), os.O_RDWR) as descriptor:
        os.posix_fallocate(descriptor, 100_000, 5)
        assert os.fstat(descriptor).st_size == 100_005
        assert read_all(descriptor) == b"abc" + bytes(100_002)


def test_keep_size(directory: Path) -> None:
    with opened(make(directory / "f", b"abc"), os.O_RDWR) as descriptor:
        fallocate(descriptor, FALLOC_FL_KEEP_SIZE, 0, 1 << 20)
        assert os.fstat(descriptor).st_size == 3
        os.pwrite(descriptor, b"x", 5000)
        assert read_all(descriptor) == b"abc" + bytes(4997) + b"x"


@pytest.mark.parametrize(("offset", "length"), RANGES)
def test_punch_hole(directory: Path, offset: int, length: int) -> None:
    with opened(make(directory / "f", pattern(SIZE)), os.O_RDWR) as descriptor:
        fallocate(descriptor, PUNCH, offset, length)
        expected = bytearray(pattern(SIZE))
        expected[offset : offset + length] = bytes(length)
        assert read_all(descriptor) == expected
    assert (directory / "f").read_bytes() == expected


def test_punch_across_the_end_keeps_the_length(directory: Path) -> None:
    with opened(make(directory / "f", pattern(10_000)), os.O_RDWR) as descriptor:
        fallocate(descriptor, PUNCH, 5000, 1 << 20)
        fallocate(descriptor, PUNCH, 1 << 30, 10)
        assert read_all(descriptor) == pattern(10_000)[:5000] + bytes(5000)


def test_punched_hole_is_written_again(directory: Path) -> None:
    with opened(make(directory / "f", pattern(SIZE)), os.O_RDWR) as descriptor:
        fallocate(descriptor, PUNCH, 0, SIZE)
        os.pwrite(descriptor, pattern(100, 5), 1_500_000)
        assert read_all(descriptor) == bytes(1_500_000) + pattern(100, 5) + bytes(SIZE - 1_500_100)


def test_punch_gives_room_back(directory: Path) -> None:
    with opened(make(directory / "f", pattern(8 << 20)), os.O_RDWR) as descriptor:
        os.fsync(descriptor)
        before = os.fstat(descriptor).st_blocks
        fallocate(descriptor, PUNCH, 0, 8 << 20)
        os.fsync(descriptor)
        assert before * 512 >= 8 << 20
        assert os.fstat(descriptor).st_blocks * 512 <= 1 << 20


def test_punch_needs_keep_size(directory: Path) -> None:
    with opened(make(directory / "f", pattern(1000)), os.O_RDWR) as descriptor:
        with refused(errno.EOPNOTSUPP):
            fallocate(descriptor, FALLOC_FL_PUNCH_HOLE, 0, 100)
        assert read_all(descriptor) == pattern(1000)


def zero_range(subject: Subject, descriptor: int, mode: int, offset: int, length: int) -> None:
    """tmpfs does not have it."""
    try:
        fallocate(descriptor, FALLOC_FL_ZERO_RANGE | mode, offset, length)
    except OSError as error:
        if calls.unsupported(error) and subject.kind != "mount":
            pytest.skip("this file system has no ZERO_RANGE")
        raise


@pytest.mark.parametrize(("offset", "length"), RANGES)
def test_zero_range(subject: Subject, offset: int, length: int) -> None:
    path = make(subject.path / "f", pattern(SIZE))
    with opened(path, os.O_RDWR) as descriptor:
        zero_range(subject, descriptor, 0, offset, length)
        expected = bytearray(pattern(SIZE))
        expected[offset : offset + length] = bytes(length)
        assert read_all(descriptor) == expected
    assert path.read_bytes() == expected


def test_zero_range_across_the_end(subject: Subject) -> None:
    with opened(make(subject.path / "f", pattern(10_000)), os.O_RDWR) as descriptor:
        zero_range(subject, descriptor, FALLOC_FL_KEEP_SIZE, 9000, 5000)
        assert read_all(descriptor) == pattern(10_000)[:9000] + bytes(1000)
        zero_range(subject, descriptor, 0, 8000, 10_000)
        assert read_all(descriptor) == pattern(10_000)[:8000] + bytes(10_000)


@pytest.mark.parametrize("mode", [FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_INSERT_RANGE])
def test_moving_ranges_work_or_are_refused(directory: Path, mode: int) -> None:
    block = 1 << 16
    with opened(make(directory / "f", pattern(4 * block)), os.O_RDWR) as descriptor:
        try:
            fallocate(descriptor, mode, block, block)
        except OSError as error:
            assert error.errno == errno.EOPNOTSUPP
            assert read_all(descriptor) == pattern(4 * block)
            return
        old = pattern(4 * block)
        if mode == FALLOC_FL_COLLAPSE_RANGE:
            assert read_all(descriptor) == old[:block] + old[2 * block :]
        else:
            assert read_all(descriptor) == old[:block] + bytes(block) + old[block:]


def test_unknown_mode(directory: Path) -> None:
    with opened(make(directory / "f", b"abc"), os.O_RDWR) as descriptor, refused(errno.EOPNOTSUPP):
        fallocate(descriptor, 0x4000, 0, 10)


def test_contradicting_modes(directory: Path) -> None:
    with opened(make(directory / "f", b"abc"), os.O_RDWR) as descriptor:
        with refused(errno.EOPNOTSUPP, errno.EINVAL):
            fallocate(descriptor, PUNCH | FALLOC_FL_ZERO_RANGE, 0, 10)
        assert read_all(descriptor) == b"abc"


@pytest.mark.parametrize(("offset", "length"), [(0, 0), (0, -1), (-1, 10), (10, 0)])
def test_invalid_range(directory: Path, offset: int, length: int) -> None:
    with opened(make(directory / "f", b"abc"), os.O_RDWR) as descriptor:
        for mode in (0, FALLOC_FL_KEEP_SIZE, PUNCH):
            with refused(errno.EINVAL):
                fallocate(descriptor, mode, offset, length)
        assert read_all(descriptor) == b"abc"


def test_beyond_the_largest_file(directory: Path) -> None:
    with opened(make(directory / "f", b"abc"), os.O_RDWR) as descriptor:
        with refused(errno.EFBIG, errno.ENOSPC):
            fallocate(descriptor, 0, (1 << 63) - 10, 20)
        assert os.fstat(descriptor).st_size == 3


def test_needs_a_writable_descriptor(directory: Path) -> None:
    with opened(make(directory / "f", b"abc")) as descriptor:
        for mode in (0, PUNCH):
            with refused(errno.EBADF):
                fallocate(descriptor, mode, 0, 10)


def test_needs_a_regular_file(directory: Path) -> None:
    os.mkfifo(directory / "fifo")
    with opened(directory / "fifo", os.O_RDWR) as descriptor, refused(errno.ESPIPE):
        fallocate(descriptor, 0, 0, 10)
    with opened(directory) as descriptor, refused(errno.EBADF, errno.EISDIR):
        fallocate(descriptor, 0, 0, 10)


def test_punch_is_seen_through_a_mapping_and_other_descriptors(directory: Path) -> None:
    path = make(directory / "f", pattern(100_000))
    with opened(path) as reader, opened(path, os.O_RDWR) as writer:
        assert len(os.pread(reader, 100_000, 0)) == 100_000
        fallocate(writer, PUNCH, 10_000, 20_000)
        assert os.pread(reader, 100_000, 0) == pattern(100_000)[:10_000] + bytes(20_000) + pattern(100_000)[30_000:]
