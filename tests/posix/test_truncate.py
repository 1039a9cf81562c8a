"""truncate, ftruncate: lengths, the bytes that go and the zeros that come."""

import errno
import os
from pathlib import Path

import pytest

from tests.posix.files import exists, make, opened, pattern, read_all, refused
from tests.posix.people import ALICE, actor, as_user, needs_root


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 65536, 99_999, 100_000])
def test_cut(directory: Path, size: int) -> None:
    path = make(directory / "f", pattern(100_000))
    os.truncate(path, size)
    assert path.stat().st_size == size
    assert path.read_bytes() == pattern(100_000)[:size]


@pytest.mark.parametrize("size", [100_001, 131_072, 5_000_000])
def test_grow(directory: Path, size: int) -> None:
    path = make(directory / "f", pattern(100_000))
    os.truncate(path, size)
    assert path.stat().st_size == size
    assert path.read_bytes() == pattern(100_000) + bytes(size - 100_000)


@pytest.mark.parametrize("size", [0, 1, 5000, 65536, 70_000, 1 << 20, (1 << 20) + 5])
def test_cut_bytes_do_not_come_back(directory: Path, size: int) -> None:
    with opened(make(directory / "f", pattern(2_500_000)), os.O_RDWR) as descriptor:
        os.ftruncate(descriptor, size)
        os.ftruncate(descriptor, 2_500_000)
        assert read_all(descriptor) == pattern(2_500_000)[:size] + bytes(2_500_000 - size)


def test_cut_bytes_do_not_come_back_by_a_write(directory: Path) -> None:
    with opened(make(directory / "f", pattern(100_000)), os.O_RDWR) as descriptor:
        os.ftruncate(descriptor, 1000)
        os.pwrite(descriptor, b"x", 50_000)
        assert read_all(descriptor) == pattern(100_000)[:1000] + bytes(49_000) + b"x"


def test_cut_bytes_do_not_come_back_in_the_last_page(directory: Path) -> None:
    path = make(directory / "f", pattern(4000))
    os.truncate(path, 100)
    with opened(path, os.O_WRONLY | os.O_APPEND) as descriptor:
        os.write(descriptor, b"end")
    os.truncate(path, 4000)
    assert path.read_bytes() == pattern(4000)[:100] + b"end" + bytes(4000 - 103)


def test_again_and_again(directory: Path) -> None:
    model = bytearray()
    with opened(directory / "f", os.O_RDWR | os.O_CREAT) as descriptor:
        for step, size in enumerate((10, 5000, 4096, 70_000, 3, 131_072, 131_073, 1, 2_000_000, 1_048_576, 0, 8)):
            os.ftruncate(descriptor, size)
            del model[size:]
            model += bytes(size - len(model))
            if size:
                piece = pattern(min(size, 1000), step)
                os.pwrite(descriptor, piece, size - len(piece))
                model[size - len(piece) :] = piece
            assert read_all(descriptor) == model
    assert (directory / "f").read_bytes() == model


def test_same_length(directory: Path) -> None:
    path = make(directory / "f", b"abc")
    os.truncate(path, 3)
    assert path.read_bytes() == b"abc"


def test_position_stays(directory: Path) -> None:
    with opened(make(directory / "f", pattern(100)), os.O_RDWR) as descriptor:
        os.lseek(descriptor, 50, os.SEEK_SET)
        os.ftruncate(descriptor, 10)
        assert os.lseek(descriptor, 0, os.SEEK_CUR) == 50
        os.write(descriptor, b"x")
        assert read_all(descriptor) == pattern(100)[:10] + bytes(40) + b"x"


def test_seen_through_other_descriptors(directory: Path) -> None:
    path = make(directory / "f", pattern(10_000))
    with opened(path) as reader, opened(path, os.O_WRONLY) as writer:
        assert len(os.pread(reader, 10_000, 0)) == 10_000
        os.ftruncate(writer, 5000)
        assert os.fstat(reader).st_size == 5000
        assert os.pread(reader, 10_000, 0) == pattern(10_000)[:5000]
        os.truncate(path, 6000)
        assert os.pread(reader, 10_000, 4999) == pattern(10_000)[4999:5000] + bytes(1000)


def test_follows_symlinks(directory: Path) -> None:
    path = make(directory / "f", b"abcdef")
    (directory / "link").symlink_to("f")
    os.truncate(directory / "link", 2)
    assert path.read_bytes() == b"ab"
    assert (directory / "link").is_symlink()


def test_after_unlink(directory: Path) -> None:
    with opened(make(directory / "f", b"abcdef"), os.O_RDWR) as descriptor:
        (directory / "f").unlink()
        os.ftruncate(descriptor, 3)
        assert read_all(descriptor) == b"abc"


def test_creates_nothing(directory: Path) -> None:
    with refused(errno.ENOENT):
        os.truncate(directory / "missing", 0)
    assert not exists(directory / "missing")


def test_directory(directory: Path) -> None:
    with refused(errno.EISDIR):
        os.truncate(directory, 0)
    with opened(directory) as descriptor, refused(errno.EINVAL):
        os.ftruncate(descriptor, 0)


def test_fifo(directory: Path) -> None:
    os.mkfifo(directory / "fifo")
    with refused(errno.EINVAL):
        os.truncate(directory / "fifo", 0)


def test_negative_length(directory: Path) -> None:
    path = make(directory / "f", b"abc")
    with refused(errno.EINVAL):
        os.truncate(path, -1)
    with opened(path, os.O_RDWR) as descriptor, refused(errno.EINVAL):
        os.ftruncate(descriptor, -1)


def test_longer_than_any_file_may_be(directory: Path) -> None:
    """Some file systems have no limit below that of the offset type: those may do it."""
    path = make(directory / "f", b"abc")
    try:
        os.truncate(path, (1 << 63) - 1)
    except OSError as error:
        assert error.errno in (errno.EFBIG, errno.EINVAL)
        assert path.read_bytes() == b"abc"
    else:
        assert path.stat().st_size == (1 << 63) - 1


def test_needs_write_permission(directory: Path) -> None:
    path = make(directory / "f", b"abc", 0o644)
    with refused(errno.EACCES):
        as_user(os.truncate, path, 0)
    path.chmod(0o666)
    as_user(os.truncate, path, 1)
    assert path.read_bytes() == b"a"


def test_descriptor_keeps_its_right(directory: Path) -> None:
    """Permission is checked when a file is opened, not when it is used."""
    path = make(directory / "f", b"abc", 0o666)
    needs_root()
    with actor(uid=ALICE, gid=ALICE) as alice:
        descriptor = alice(os.open, path, os.O_RDWR)
        path.chmod(0o444)
        alice(os.ftruncate, descriptor, 1)
        with refused(errno.EACCES):
            alice(os.truncate, path, 0)
    assert path.read_bytes() == b"a"
