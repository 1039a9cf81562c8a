"""copy_file_range(2)."""

import errno
import os
from pathlib import Path

import pytest

from tests.posix.calls import copy_file_range
from tests.posix.files import make, opened, pattern, read_all, refused

SIZE = 2_500_000


def copy_all(source: int, source_offset: int, target: int, target_offset: int, count: int) -> int:
    """A copy may stop early, as a read may; this goes on to the end."""
    done = 0
    while done < count:
        moved = copy_file_range(source, source_offset + done, target, target_offset + done, count - done)
        if moved == 0:
            break
        done += moved
    return done


@pytest.mark.parametrize(
    ("source_offset", "target_offset", "count"),
    [
        (0, 0, SIZE),
        (0, 0, 1),
        (1, 0, 5000),
        (4096, 8192, 65_536),
        (1_048_576, 0, 1_048_576),
        (999_999, 1_500_001, 1_400_000),
    ],
)
def test_between_files(directory: Path, source_offset: int, target_offset: int, count: int) -> None:
    make(directory / "source", pattern(SIZE))
    make(directory / "target", pattern(SIZE, 2))
    with opened(directory / "source") as source, opened(directory / "target", os.O_RDWR) as target:
        assert copy_all(source, source_offset, target, target_offset, count) == count
        expected = bytearray(pattern(SIZE, 2))
        expected[target_offset : target_offset + count] = pattern(SIZE)[source_offset : source_offset + count]
        assert read_all(target) == expected
        assert read_all(source) == pattern(SIZE)
    assert (directory / "target").read_bytes() == expected


def test_stops_at_the_end_of_the_source(directory: Path) -> None:
    make(directory / "source", pattern(10_000))
    with opened(directory / "source") as source, opened(directory / "target", os.O_RDWR | os.O_CREAT) as target:
        assert copy_all(source, 4000, target, 0, 1 << 20) == 6000
        assert read_all(target) == pattern(10_000)[4000:]
        assert copy_file_range(source, 10_000, target, 0, 100) == 0
        assert copy_file_range(source, 1 << 40, target, 0, 100) == 0
        assert os.fstat(target).st_size == 6000


def test_beyond_the_end_of_the_target(directory: Path) -> None:
    make(directory / "source", pattern(10_000))
    with opened(directory / "source") as source, opened(directory / "target", os.O_RDWR | os.O_CREAT) as target:
        assert copy_all(source, 0, target, 100_000, 10_000) == 10_000
        assert read_all(target) == bytes(100_000) + pattern(10_000)


def test_positions(directory: Path) -> None:
    """Without an offset the descriptor's position is used and moved; with one it stays."""
    make(directory / "source", pattern(10_000))
    with opened(directory / "source") as source, opened(directory / "target", os.O_RDWR | os.O_CREAT) as target:
        os.lseek(source, 1000, os.SEEK_SET)
        moved = copy_file_range(source, None, target, None, 3000)
        assert moved > 0
        assert os.lseek(source, 0, os.SEEK_CUR) == 1000 + moved
        assert os.lseek(target, 0, os.SEEK_CUR) == moved
        assert read_all(target) == pattern(10_000)[1000 : 1000 + moved]
        copy_file_range(source, 0, target, 0, 10)
        assert os.lseek(source, 0, os.SEEK_CUR) == 1000 + moved


def test_within_a_file(directory: Path) -> None:
    with opened(make(directory / "f", pattern(100_000)), os.O_RDWR) as first:
        assert copy_all(first, 0, first, 60_000, 30_000) == 30_000
        assert read_all(first) == pattern(100_000)[:60_000] + pattern(100_000)[:30_000] + pattern(100_000)[90_000:]


def test_overlap_within_a_file(directory: Path) -> None:
    with opened(make(directory / "f", pattern(10_000)), os.O_RDWR) as descriptor:
        with refused(errno.EINVAL):
            copy_file_range(descriptor, 0, descriptor, 100, 200)
        assert read_all(descriptor) == pattern(10_000)


def test_holes_stay_zeros(directory: Path) -> None:
    with opened(directory / "source", os.O_RDWR | os.O_CREAT) as source:
        os.pwrite(source, pattern(1000), 2_000_000)
        os.ftruncate(source, 4_000_000)
        with opened(make(directory / "target", pattern(4_000_000)), os.O_RDWR) as target:
            assert copy_all(source, 0, target, 0, 4_000_000) == 4_000_000
            assert read_all(target) == bytes(2_000_000) + pattern(1000) + bytes(1_999_000)


def test_bytes_that_were_just_written(directory: Path) -> None:
    with (
        opened(directory / "source", os.O_RDWR | os.O_CREAT) as source,
        opened(directory / "target", os.O_RDWR | os.O_CREAT) as target,
    ):
        for number in range(5):
            os.pwrite(source, pattern(5000, number), number * 4000)
            assert copy_all(source, number * 4000, target, 0, 5000) == 5000
            assert os.pread(target, 5000, 0) == pattern(5000, number)


def test_nothing(directory: Path) -> None:
    make(directory / "source", b"abc")
    with opened(directory / "source") as source, opened(directory / "target", os.O_RDWR | os.O_CREAT) as target:
        assert copy_file_range(source, 0, target, 0, 0) == 0


def test_access_modes(directory: Path) -> None:
    make(directory / "a", b"abc")
    make(directory / "b", b"xyz")
    with opened(directory / "a", os.O_WRONLY) as source, opened(directory / "b", os.O_RDWR) as target:
        with refused(errno.EBADF):
            copy_file_range(source, 0, target, 0, 3)
    with opened(directory / "a") as source, opened(directory / "b") as target:
        with refused(errno.EBADF):
            copy_file_range(source, 0, target, 0, 3)
    with opened(directory / "a") as source, opened(directory / "b", os.O_RDWR | os.O_APPEND) as target:
        with refused(errno.EBADF):
            copy_file_range(source, 0, target, 0, 3)
    assert (directory / "b").read_bytes() == b"xyz"


def test_directories_and_fifos(directory: Path) -> None:
    make(directory / "a", b"abc")
    os.mkfifo(directory / "fifo")
    with opened(directory) as source, opened(directory / "a", os.O_RDWR) as target:
        with refused(errno.EISDIR):
            copy_file_range(source, 0, target, 0, 3)
    with opened(directory / "fifo", os.O_RDWR) as source, opened(directory / "a", os.O_RDWR) as target:
        with refused(errno.EINVAL, errno.ESPIPE):
            copy_file_range(source, None, target, 0, 3)


def test_unknown_flags(directory: Path) -> None:
    make(directory / "source", b"abc")
    with opened(directory / "source") as source, opened(directory / "target", os.O_RDWR | os.O_CREAT) as target:
        with refused(errno.EINVAL):
            copy_file_range(source, 0, target, 0, 3, 0x80)


def test_negative_offset(directory: Path) -> None:
    make(directory / "source", b"abc")
    with opened(directory / "source") as source, opened(directory / "target", os.O_RDWR | os.O_CREAT) as target:
        with refused(errno.EINVAL, errno.EOVERFLOW):
            copy_file_range(source, -1, target, 0, 3)
        assert os.fstat(target).st_size == 0


def test_to_another_file_system(directory: Path) -> None:
    """EXDEV or a copy: both are allowed; a wrong copy is not."""
    make(directory / "source", pattern(10_000))
    other = os.memfd_create("target")
    try:
        with opened(directory / "source") as source:
            try:
                moved = copy_all(source, 0, other, 0, 10_000)
            except OSError as error:
                assert error.errno in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP)
            else:
                assert moved == 10_000
                assert os.pread(other, 10_000, 0) == pattern(10_000)
    finally:
        os.close(other)
