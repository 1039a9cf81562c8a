"""lseek: positions, and where data and holes are."""

import errno
import os
from pathlib import Path

import pytest

from tests.posix import calls
from tests.posix.files import make, opened, pattern, refused

MIB = 1 << 20


def test_positions(directory: Path) -> None:
    with opened(make(directory / "f", pattern(1000))) as descriptor:
        assert os.lseek(descriptor, 100, os.SEEK_SET) == 100
        assert os.lseek(descriptor, -20, os.SEEK_CUR) == 80
        assert os.lseek(descriptor, -10, os.SEEK_END) == 990
        assert os.read(descriptor, 100) == pattern(1000)[990:]
        assert os.lseek(descriptor, 50, os.SEEK_END) == 1050
        assert os.read(descriptor, 100) == b""


@pytest.mark.parametrize(("offset", "whence"), [(-1, os.SEEK_SET), (-11, os.SEEK_CUR), (-1001, os.SEEK_END)])
def test_before_the_start(directory: Path, offset: int, whence: int) -> None:
    with opened(make(directory / "f", pattern(1000))) as descriptor:
        os.lseek(descriptor, 10, os.SEEK_SET)
        with refused(errno.EINVAL):
            os.lseek(descriptor, offset, whence)
        assert os.lseek(descriptor, 0, os.SEEK_CUR) == 10


def test_unknown_whence(directory: Path) -> None:
    with opened(make(directory / "f")) as descriptor, refused(errno.EINVAL):
        os.lseek(descriptor, 0, 99)


def test_end_follows_the_file(directory: Path) -> None:
    path = make(directory / "f", b"abc")
    with opened(path) as reader, opened(path, os.O_WRONLY) as writer:
        assert os.lseek(reader, 0, os.SEEK_END) == 3
        os.pwrite(writer, b"x", 99)
        assert os.lseek(reader, 0, os.SEEK_END) == 100
        os.ftruncate(writer, 7)
        assert os.lseek(reader, 0, os.SEEK_END) == 7


def test_pipe(directory: Path) -> None:
    os.mkfifo(directory / "fifo")
    with opened(directory / "fifo", os.O_RDWR) as descriptor, refused(errno.ESPIPE):
        os.lseek(descriptor, 0, os.SEEK_SET)


def test_data_and_holes_of_a_dense_file(directory: Path) -> None:
    with opened(make(directory / "f", pattern(100_000))) as descriptor:
        for offset in (0, 1, 50_000, 99_999):
            assert os.lseek(descriptor, offset, os.SEEK_DATA) == offset
            assert os.lseek(descriptor, offset, os.SEEK_HOLE) == 100_000
            assert os.lseek(descriptor, 0, os.SEEK_CUR) == 100_000


@pytest.mark.parametrize("whence", [os.SEEK_DATA, os.SEEK_HOLE])
def test_no_data_and_no_hole_from_the_end_on(directory: Path, whence: int) -> None:
    with opened(make(directory / "f", pattern(1000))) as descriptor:
        for offset in (1000, 1001, 1 << 40):
            with refused(errno.ENXIO):
                os.lseek(descriptor, offset, whence)
    with opened(make(directory / "empty")) as descriptor:
        with refused(errno.ENXIO):
            os.lseek(descriptor, 0, whence)


@pytest.mark.parametrize("whence", [os.SEEK_DATA, os.SEEK_HOLE])
def test_data_and_holes_before_the_start(directory: Path, whence: int) -> None:
    with opened(make(directory / "f", pattern(1000))) as descriptor, refused(errno.ENXIO, errno.EINVAL):
        os.lseek(descriptor, -1, whence)


def segments(descriptor: int) -> list[tuple[int, int]]:
    """(start, end) of each run of data, as SEEK_DATA and SEEK_HOLE tell."""
    found = []
    end = 0
    while True:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError as error:
            assert error.errno == errno.ENXIO
            return found
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        assert start < end
        found.append((start, end))


def test_holes_between_writes(directory: Path) -> None:
    """How finely holes are kept is the file system's affair; what was written is never in one, and 4 MiB are found."""
    with opened(directory / "f", os.O_RDWR | os.O_CREAT) as descriptor:
        for offset in (4 * MIB, 12 * MIB):
            os.pwrite(descriptor, pattern(MIB), offset)
        os.ftruncate(descriptor, 20 * MIB)
        found = segments(descriptor)
        for offset in (4 * MIB, 12 * MIB):
            assert any(start <= offset and offset + MIB <= end for start, end in found), found
        assert all(end <= 20 * MIB for _, end in found)
        assert os.lseek(descriptor, 0, os.SEEK_HOLE) == 0
        assert 0 < os.lseek(descriptor, 0, os.SEEK_DATA) <= 4 * MIB
        assert 5 * MIB <= os.lseek(descriptor, 4 * MIB, os.SEEK_HOLE) < 9 * MIB
        with refused(errno.ENXIO):
            os.lseek(descriptor, 17 * MIB, os.SEEK_DATA)


def test_punched_hole_is_one(directory: Path) -> None:
    with opened(make(directory / "f", pattern(12 * MIB)), os.O_RDWR) as descriptor:
        mode = calls.FALLOC_FL_PUNCH_HOLE | calls.FALLOC_FL_KEEP_SIZE
        calls.fallocate(descriptor, mode, 4 * MIB, 4 * MIB)
        assert os.lseek(descriptor, 0, os.SEEK_HOLE) == 4 * MIB
        assert os.lseek(descriptor, 4 * MIB, os.SEEK_DATA) == 8 * MIB
        assert os.lseek(descriptor, 5 * MIB, os.SEEK_HOLE) == 5 * MIB


def test_unwritten_file_is_one_hole(directory: Path) -> None:
    with opened(directory / "f", os.O_RDWR | os.O_CREAT) as descriptor:
        os.ftruncate(descriptor, 10 * MIB)
        assert os.lseek(descriptor, 0, os.SEEK_HOLE) == 0
        with refused(errno.ENXIO):
            os.lseek(descriptor, 0, os.SEEK_DATA)


def test_bytes_that_are_still_in_memory_are_data(directory: Path) -> None:
    with opened(directory / "f", os.O_RDWR | os.O_CREAT) as descriptor:
        os.ftruncate(descriptor, 10 * MIB)
        os.pwrite(descriptor, b"x", 5 * MIB + 7)
        found = segments(descriptor)
        assert len(found) == 1
        assert found[0][0] <= 5 * MIB + 7 < found[0][1]
