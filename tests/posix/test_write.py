"""write, pwrite, writev, pwritev: bytes, lengths, holes, limits."""

import errno
import mmap
import os
import resource
import signal
from pathlib import Path

import pytest

from tests.posix.files import make, opened, pattern, read_all, refused, write_all
from tests.posix.people import actor

NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL


def test_write_moves_the_position_and_grows_the_file(directory: Path) -> None:
    with opened(directory / "f", NEW) as descriptor:
        assert os.write(descriptor, b"abc") == 3
        assert os.write(descriptor, b"def") == 3
        assert os.lseek(descriptor, 0, os.SEEK_CUR) == 6
        assert os.fstat(descriptor).st_size == 6
        assert read_all(descriptor) == b"abcdef"


def test_overwrite_keeps_what_is_beside_it(directory: Path) -> None:
    data = bytearray(pattern(200_000))
    with opened(make(directory / "f", bytes(data)), os.O_RDWR) as descriptor:
        for offset, size in ((0, 1), (4095, 2), (65_530, 12), (131_072, 4096), (199_999, 1), (100_001, 50_000)):
            piece = pattern(size, offset)
            assert os.pwrite(descriptor, piece, offset) == size
            data[offset : offset + size] = piece
        assert read_all(descriptor) == data
    assert (directory / "f").read_bytes() == data


def test_overwrite_across_the_end(directory: Path) -> None:
    with opened(make(directory / "f", pattern(5000)), os.O_RDWR) as descriptor:
        assert os.pwrite(descriptor, pattern(3000, 9), 4000) == 3000
        assert os.fstat(descriptor).st_size == 7000
        assert read_all(descriptor) == pattern(5000)[:4000] + pattern(3000, 9)


def test_pwrite_leaves_the_position(directory: Path) -> None:
    with opened(make(directory / "f", b"abcdef"), os.O_RDWR) as descriptor:
        assert os.pwrite(descriptor, b"XY", 2) == 2
        assert os.lseek(descriptor, 0, os.SEEK_CUR) == 0
        assert os.read(descriptor, 6) == b"abXYef"


def test_zero_bytes_change_nothing(directory: Path) -> None:
    with opened(make(directory / "f", b"abc"), os.O_RDWR) as descriptor:
        os.utime(descriptor, ns=(1_000, 2_000))
        assert os.write(descriptor, b"") == 0
        assert os.pwrite(descriptor, b"", 1 << 30) == 0
        assert os.writev(descriptor, [b"", b""]) == 0
        assert os.fstat(descriptor).st_size == 3
        assert os.fstat(descriptor).st_mtime_ns == 2_000


def test_beyond_the_end_leaves_a_hole(directory: Path) -> None:
    with opened(make(directory / "f", b"abc"), os.O_RDWR) as descriptor:
        assert os.pwrite(descriptor, b"xyz", 3_000_000) == 3
        assert os.fstat(descriptor).st_size == 3_000_003
        assert read_all(descriptor) == b"abc" + bytes(2_999_997) + b"xyz"


def test_far_beyond_the_end(directory: Path) -> None:
    """A file of one TiB that holds two blocks."""
    offset = 1 << 40
    with opened(directory / "f", NEW) as descriptor:
        os.pwrite(descriptor, b"far", offset)
        os.pwrite(descriptor, b"near", 0)
        status = os.fstat(descriptor)
        assert status.st_size == offset + 3
        assert status.st_blocks * 512 < 64 << 20
        assert os.pread(descriptor, 10, offset - 2) == b"\0\0far"
        assert os.pread(descriptor, 10, offset // 2) == bytes(10)


def test_position_beyond_the_end(directory: Path) -> None:
    with opened(directory / "f", NEW) as descriptor:
        assert os.lseek(descriptor, 100, os.SEEK_SET) == 100
        assert os.fstat(descriptor).st_size == 0
        os.write(descriptor, b"x")
        assert os.fstat(descriptor).st_size == 101
        assert read_all(descriptor) == bytes(100) + b"x"


def test_negative_offset(directory: Path) -> None:
    with opened(directory / "f", NEW) as descriptor:
        with refused(errno.EINVAL):
            os.pwrite(descriptor, b"x", -1)
        assert os.fstat(descriptor).st_size == 0


def test_offset_at_the_limit_of_offsets(directory: Path) -> None:
    """Every file system has a largest file; a write that begins beyond it is refused."""
    with opened(directory / "f", NEW) as descriptor:
        with refused(errno.EFBIG, errno.EINVAL):
            os.pwrite(descriptor, b"xx", (1 << 63) - 1)
        assert os.fstat(descriptor).st_size == 0


def test_file_size_limit(directory: Path) -> None:
    """RLIMIT_FSIZE: what fits is written, then EFBIG and SIGXFSZ."""
    with actor() as one:
        one(signal.signal, signal.SIGXFSZ, signal.SIG_IGN)
        one(resource.setrlimit, resource.RLIMIT_FSIZE, (10_000, 10_000))
        descriptor = one(os.open, directory / "f", NEW)
        assert one(os.write, descriptor, pattern(8000)) == 8000
        assert one(os.write, descriptor, pattern(8000)) == 2000
        with refused(errno.EFBIG):
            one(os.write, descriptor, b"x")
        with refused(errno.EFBIG):
            one(os.ftruncate, descriptor, 10_001)
        one(os.ftruncate, descriptor, 10_000)
        assert one(os.pwrite, descriptor, b"x", 0) == 1
    assert (directory / "f").stat().st_size == 10_000


def test_file_size_limit_kills(directory: Path) -> None:
    def grow() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        with opened(directory / "f", NEW) as descriptor:
            os.pwrite(descriptor, b"x", 100)

    pid = os.fork()
    if pid == 0:
        try:
            grow()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGXFSZ
    assert (directory / "f").stat().st_size == 0


def test_gathered(directory: Path) -> None:
    with opened(directory / "f", NEW) as descriptor:
        assert os.writev(descriptor, [b"one", b"", pattern(5000), b"two"]) == 5006
        assert os.pwritev(descriptor, [b"ONE", b"!"], 0) == 4
        assert read_all(descriptor) == b"ONE!" + pattern(5000)[1:] + b"two"
        assert os.lseek(descriptor, 0, os.SEEK_CUR) == 5006


def test_too_many_parts(directory: Path) -> None:
    with opened(directory / "f", NEW) as descriptor:
        with refused(errno.EINVAL):
            os.writev(descriptor, [b"x"] * (os.sysconf("SC_IOV_MAX") + 1))
        assert os.writev(descriptor, [b"x"] * os.sysconf("SC_IOV_MAX")) == os.sysconf("SC_IOV_MAX")


def test_one_large_write(directory: Path) -> None:
    data = pattern(5_000_001)
    with opened(directory / "f", NEW) as descriptor:
        assert os.write(descriptor, data) == len(data)
    assert (directory / "f").read_bytes() == data


def test_many_small_writes(directory: Path) -> None:
    pieces = [pattern(1 + number % 200, number) for number in range(2000)]
    with opened(directory / "f", NEW) as descriptor:
        for piece in pieces:
            assert os.write(descriptor, piece) == len(piece)
    assert (directory / "f").read_bytes() == b"".join(pieces)


def test_backwards(directory: Path) -> None:
    """Written from the end to the start: holes that are filled later."""
    data = pattern(400_000)
    with opened(directory / "f", NEW) as descriptor:
        for offset in range(390_000, -1, -10_000):
            os.pwrite(descriptor, data[offset : offset + 10_000], offset)
            assert os.pread(descriptor, 10_000, offset) == data[offset : offset + 10_000]
            if offset:
                assert os.pread(descriptor, 100, offset - 100) == bytes(100)
        assert read_all(descriptor) == data


def test_two_writers_in_turn(directory: Path) -> None:
    path = make(directory / "f")
    with opened(path, os.O_RDWR) as first, opened(path, os.O_RDWR) as second:
        for number in range(40):
            writer, reader = (first, second) if number % 2 else (second, first)
            os.pwrite(writer, pattern(3000, number), number * 2000)
            assert os.pread(reader, 3000, number * 2000) == pattern(3000, number)
            assert os.fstat(reader).st_size == number * 2000 + 3000


def test_after_unlink(directory: Path) -> None:
    with opened(directory / "f", NEW) as descriptor:
        (directory / "f").unlink()
        write_all(descriptor, pattern(100_000))
        assert read_all(descriptor) == pattern(100_000)
        assert os.fstat(descriptor).st_nlink == 0


def test_direct(directory: Path) -> None:
    data = pattern(131072)
    with mmap.mmap(-1, 131072) as memory, opened(directory / "f", NEW | os.O_DIRECT) as descriptor:
        memory[:] = data
        assert os.pwritev(descriptor, [memory], 0) == 131072
        assert os.pwritev(descriptor, [memoryview(memory)[:4096]], 65536) == 4096
        assert os.fstat(descriptor).st_size == 131072
    assert (directory / "f").read_bytes() == data[:65536] + data[:4096] + data[69632:]


def test_direct_is_seen_through_the_cache(directory: Path) -> None:
    path = make(directory / "f", pattern(65536))
    with mmap.mmap(-1, 4096) as memory, opened(path, os.O_RDWR | os.O_DIRECT) as direct, opened(path) as cached:
        for number in range(5):
            assert len(os.pread(cached, 65536, 0)) == 65536
            memory[:] = pattern(4096, number + 60)
            assert os.pwritev(direct, [memory], number * 4096) == 4096
            assert os.pread(cached, 4096, number * 4096) == memory[:]


def test_append_flag_of_one_call(directory: Path) -> None:
    with opened(make(directory / "f", b"abc"), os.O_RDWR) as descriptor:
        assert os.pwritev(descriptor, [b"def"], 0, os.RWF_APPEND) == 3
        assert read_all(descriptor) == b"abcdef"


@pytest.mark.parametrize("flag", [os.RWF_SYNC, os.RWF_DSYNC])
def test_synchronous_flag_of_one_call(directory: Path, flag: int) -> None:
    with opened(make(directory / "f", b"abc"), os.O_RDWR) as descriptor:
        assert os.pwritev(descriptor, [b"XY"], 1, flag) == 2
        assert read_all(descriptor) == b"aXY"


def test_source_is_a_mapping_of_the_same_file(directory: Path) -> None:
    """A write whose source is a page of the file itself, which has to be read in first."""
    with opened(make(directory / "f", pattern(16384)), os.O_RDWR) as descriptor:
        with mmap.mmap(descriptor, 16384) as memory:
            assert os.pwrite(descriptor, memoryview(memory)[8192:12288], 0) == 4096
            assert memory[:4096] == pattern(16384)[8192:12288]
        assert read_all(descriptor) == pattern(16384)[8192:12288] + pattern(16384)[4096:]
