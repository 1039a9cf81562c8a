"""read, pread, readv, preadv, sendfile, readahead: what comes back, and when nothing does."""

import errno
import mmap
import os
import socket
from pathlib import Path

import pytest

from tests.posix.files import make, opened, pattern, refused

SIZE = 300_000
"""More than two pages of any kind, and no multiple of one."""


def test_read_moves_the_position(directory: Path) -> None:
    data = pattern(SIZE)
    with opened(make(directory / "f", data)) as descriptor:
        assert os.read(descriptor, 1000) == data[:1000]
        assert os.lseek(descriptor, 0, os.SEEK_CUR) == 1000
        assert os.read(descriptor, 1) == data[1000:1001]


def test_read_stops_at_the_end(directory: Path) -> None:
    data = pattern(SIZE)
    with opened(make(directory / "f", data)) as descriptor:
        os.lseek(descriptor, SIZE - 10, os.SEEK_SET)
        assert os.read(descriptor, 100) == data[-10:]
        assert os.read(descriptor, 100) == b""
        assert os.lseek(descriptor, 0, os.SEEK_CUR) == SIZE


def test_read_whole_in_one_call(directory: Path) -> None:
    data = pattern(3 << 20)
    with opened(make(directory / "f", data)) as descriptor:
        assert os.read(descriptor, 4 << 20) == data


def test_zero_bytes(directory: Path) -> None:
    with opened(make(directory / "f", b"content")) as descriptor:
        assert os.read(descriptor, 0) == b""
        assert os.pread(descriptor, 0, 3) == b""
        assert os.pread(descriptor, 0, 1 << 40) == b""


def test_pread_leaves_the_position(directory: Path) -> None:
    data = pattern(SIZE)
    with opened(make(directory / "f", data)) as descriptor:
        assert os.pread(descriptor, 5000, 4095) == data[4095:9095]
        assert os.lseek(descriptor, 0, os.SEEK_CUR) == 0


@pytest.mark.parametrize("offset", [SIZE, SIZE + 1, 1 << 32, (1 << 62)])
def test_beyond_the_end(directory: Path, offset: int) -> None:
    with opened(make(directory / "f", pattern(SIZE))) as descriptor:
        assert os.pread(descriptor, 10, offset) == b""


def test_negative_offset(directory: Path) -> None:
    with opened(make(directory / "f", b"content")) as descriptor:
        with refused(errno.EINVAL):
            os.pread(descriptor, 1, -1)


@pytest.mark.parametrize("offset", [0, 1, 4095, 4096, 4097, 65535, 65536, 131071, 131072, 262143])
@pytest.mark.parametrize("size", [1, 4095, 4096, 4097, 70_000])
def test_around_page_borders(directory: Path, offset: int, size: int) -> None:
    data = pattern(SIZE)
    with opened(make(directory / "f", data)) as descriptor:
        assert os.pread(descriptor, size, offset) == data[offset : offset + size]


def test_scattered(directory: Path) -> None:
    data = pattern(SIZE)
    with opened(make(directory / "f", data)) as descriptor:
        parts = [bytearray(100), bytearray(0), bytearray(10_000), bytearray(7)]
        assert os.readv(descriptor, parts) == 10_107
        assert b"".join(parts) == data[:10_107]
        assert os.preadv(descriptor, parts, SIZE - 5000) == 5000
        assert bytes(parts[0]) == data[SIZE - 5000 : SIZE - 4900]
        assert parts[2][:4900] == data[SIZE - 4900 :]
        assert os.lseek(descriptor, 0, os.SEEK_CUR) == 10_107


def test_too_many_parts(directory: Path) -> None:
    with opened(make(directory / "f", b"content")) as descriptor:
        with refused(errno.EINVAL):
            os.readv(descriptor, [bytearray(1)] * (os.sysconf("SC_IOV_MAX") + 1))


def test_directory(directory: Path) -> None:
    with opened(directory) as descriptor:
        with refused(errno.EISDIR):
            os.read(descriptor, 10)
        with refused(errno.EISDIR):
            os.pread(descriptor, 10, 0)


def test_sparse_parts_read_as_zeros(directory: Path) -> None:
    with opened(directory / "f", os.O_RDWR | os.O_CREAT) as descriptor:
        os.pwrite(descriptor, b"start", 0)
        os.pwrite(descriptor, b"end", 5_000_000)
        assert os.pread(descriptor, 20, 0) == b"start" + bytes(15)
        assert os.pread(descriptor, 2 << 20, 1 << 20) == bytes(2 << 20)
        assert os.pread(descriptor, 10, 4_999_998) == b"\0\0end"


def test_written_bytes_are_read_at_once(directory: Path) -> None:
    path = directory / "f"
    with opened(path, os.O_WRONLY | os.O_CREAT) as writer, opened(path) as reader:
        for number in range(50):
            piece = pattern(1000, number)
            assert os.write(writer, piece) == 1000
            assert os.read(reader, 2000) == piece
        assert os.fstat(reader).st_size == 50_000


def test_sendfile(directory: Path) -> None:
    data = pattern(100_000)
    ours, theirs = socket.socketpair()
    with ours, theirs, opened(make(directory / "f", data)) as descriptor:
        assert os.sendfile(ours.fileno(), descriptor, 5000, 40_000) == 40_000
        assert theirs.recv(40_000, socket.MSG_WAITALL) == data[5000:45_000]
        assert os.lseek(descriptor, 0, os.SEEK_CUR) == 0


def test_splice_to_a_pipe(directory: Path) -> None:
    data = pattern(100_000)
    reader, writer = os.pipe()
    try:
        with opened(make(directory / "f", data)) as descriptor:
            moved = os.splice(descriptor, writer, 8000, offset_src=10_000)
            assert os.read(reader, 8000) == data[10_000 : 10_000 + moved]
    finally:
        os.close(reader)
        os.close(writer)


def test_advice_changes_nothing(directory: Path) -> None:
    data = pattern(SIZE)
    with opened(make(directory / "f", data)) as descriptor:
        for advice in (os.POSIX_FADV_SEQUENTIAL, os.POSIX_FADV_RANDOM, os.POSIX_FADV_WILLNEED, os.POSIX_FADV_DONTNEED):
            os.posix_fadvise(descriptor, 0, 0, advice)
            assert os.pread(descriptor, SIZE, 0) == data


def test_direct(directory: Path) -> None:
    """O_DIRECT with everything aligned; the piece at the end is short."""
    data = pattern(SIZE)
    path = make(directory / "f", data)
    with mmap.mmap(-1, 1 << 20) as memory, opened(path, os.O_RDONLY | os.O_DIRECT) as descriptor:
        assert os.preadv(descriptor, [memoryview(memory)[:65536]], 65536) == 65536
        assert memory[:65536] == data[65536:131072]
        assert os.preadv(descriptor, [memory], 0) == SIZE
        assert memory[:SIZE] == data
        assert os.preadv(descriptor, [memory], 1 << 20) == 0


def test_direct_sees_what_was_written_through_the_cache(directory: Path) -> None:
    path = make(directory / "f", pattern(65536))
    with (
        mmap.mmap(-1, 65536) as memory,
        opened(path, os.O_RDONLY | os.O_DIRECT) as direct,
        opened(path, os.O_RDWR) as cached,
    ):
        for number in range(5):
            os.pwrite(cached, pattern(100, number + 7), number * 4096 + 5)
            assert os.preadv(direct, [memory], 0) == 65536
            assert memory[number * 4096 + 5 : number * 4096 + 105] == pattern(100, number + 7)


def test_no_wait_gives_the_bytes_or_eagain(directory: Path) -> None:
    data = pattern(10_000)
    with opened(make(directory / "f", data)) as descriptor:
        buffer = bytearray(100)
        try:
            got = os.preadv(descriptor, [buffer], 50, os.RWF_NOWAIT)
        except OSError as error:
            assert error.errno in (errno.EAGAIN, errno.EOPNOTSUPP)
        else:
            assert buffer[:got] == data[50 : 50 + got]
