"""stat, lstat, fstat, fstatat, statx: every field, for every type of file."""

import errno
import os
import stat
import time
from pathlib import Path

import pytest

from tests.posix import calls
from tests.posix.files import clock_moves, make, opened, pattern, refused


def make_one_of_each(directory: Path) -> dict[str, int]:
    """Name -> type bits."""
    make(directory / "file", b"abc")
    (directory / "directory").mkdir()
    (directory / "symlink").symlink_to("file")
    os.mkfifo(directory / "fifo")
    os.mknod(directory / "socket", stat.S_IFSOCK | 0o644)
    return {
        "file": stat.S_IFREG,
        "directory": stat.S_IFDIR,
        "symlink": stat.S_IFLNK,
        "fifo": stat.S_IFIFO,
        "socket": stat.S_IFSOCK,
    }


def test_types(directory: Path) -> None:
    for name, type_bits in make_one_of_each(directory).items():
        assert stat.S_IFMT(os.lstat(directory / name).st_mode) == type_bits
        assert stat.S_IFMT(calls.statx(directory / name, calls.AT_SYMLINK_NOFOLLOW).mode) == type_bits


def test_inode_numbers_differ_and_stay(directory: Path) -> None:
    types = make_one_of_each(directory)
    numbers = {name: os.lstat(directory / name).st_ino for name in types}
    assert len(set(numbers.values())) == len(types)
    (directory / "file").rename(directory / "renamed")
    assert os.lstat(directory / "renamed").st_ino == numbers["file"]
    assert all(os.lstat(directory / name).st_dev == directory.stat().st_dev for name in types if name != "file")


def test_stat_follows_and_lstat_does_not(directory: Path) -> None:
    make(directory / "file", b"abc")
    (directory / "link").symlink_to("file")
    assert os.stat(directory / "link").st_ino == os.stat(directory / "file").st_ino
    assert os.lstat(directory / "link").st_size == len("file")
    with opened(directory, os.O_RDONLY | os.O_DIRECTORY) as parent:
        assert stat.S_ISREG(os.stat("link", dir_fd=parent).st_mode)
        assert stat.S_ISLNK(os.stat("link", dir_fd=parent, follow_symlinks=False).st_mode)
        assert stat.S_ISDIR(calls.statx("", calls.AT_EMPTY_PATH, directory=parent).mode)


def test_all_ways_say_the_same(directory: Path) -> None:
    path = make(directory / "f", pattern(12_345), 0o640)
    with opened(path) as descriptor:
        by_descriptor, by_name, by_statx = os.fstat(descriptor), os.stat(path), calls.statx(path)
    assert by_descriptor == by_name
    assert (by_statx.inode, by_statx.mode, by_statx.links) == (by_name.st_ino, by_name.st_mode, by_name.st_nlink)
    assert (by_statx.uid, by_statx.gid) == (by_name.st_uid, by_name.st_gid)
    assert (by_statx.size, by_statx.blocks) == (by_name.st_size, by_name.st_blocks)
    assert by_statx.accessed == by_name.st_atime_ns
    assert by_statx.modified == by_name.st_mtime_ns
    assert by_statx.changed == by_name.st_ctime_ns
    assert by_statx.mask & calls.STATX_BASIC_STATS == calls.STATX_BASIC_STATS


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 4096, 100_001, 3_000_000])
def test_size(directory: Path, size: int) -> None:
    status = make(directory / "f", pattern(size)).stat()
    assert status.st_size == size


def test_blocks_grow_with_data(directory: Path) -> None:
    """Counted in 512 bytes; how a file system rounds is its own affair, and so is when it has counted."""
    with opened(directory / "f", os.O_RDWR | os.O_CREAT) as descriptor:
        assert os.fstat(descriptor).st_blocks == 0
        os.write(descriptor, pattern(1 << 20))
        os.fsync(descriptor)
        assert 1 << 20 <= os.fstat(descriptor).st_blocks * 512 <= 2 << 20
        assert os.fstat(descriptor).st_blksize >= 512


HOLED = {
    "written far out": lambda fd: os.pwrite(fd, pattern(5000), 60 << 20),
    "grown": lambda fd: os.ftruncate(fd, 60 << 20),
    "written, then punched": lambda fd: (
        os.pwrite(fd, pattern(8 << 20), 0),
        calls.fallocate(fd, calls.FALLOC_FL_PUNCH_HOLE | calls.FALLOC_FL_KEEP_SIZE, 1 << 20, 6 << 20),
    ),
}


@pytest.mark.parametrize("kind", HOLED)
def test_blocks_tell_of_holes_after_the_close_too(directory: Path, kind: str) -> None:
    """`cp` and `tar` look for holes only where there are fewer blocks than the length needs; `du` adds them up."""
    path = directory / "f"
    with opened(path, os.O_RDWR | os.O_CREAT) as descriptor:
        HOLED[kind](descriptor)
        os.fsync(descriptor)
    status = path.stat()
    assert status.st_blocks * 512 < status.st_size // 2
    assert calls.statx(path, calls.AT_STATX_FORCE_SYNC).blocks == status.st_blocks
    with os.scandir(directory) as entries:
        assert [entry.stat().st_blocks for entry in entries] == [status.st_blocks]
    with opened(path, os.O_WRONLY) as descriptor:
        os.pwrite(descriptor, bytes(status.st_size), 0)
        os.fsync(descriptor)
    assert path.stat().st_blocks * 512 >= status.st_size


def test_size_of_a_symlink_is_that_of_its_target(directory: Path) -> None:
    for target in ("x", "nowhere/at/all", "a" * 1000):
        (directory / f"link-{len(target)}").symlink_to(target)
        assert os.lstat(directory / f"link-{len(target)}").st_size == len(target)


def test_size_follows_every_write_at_once(directory: Path) -> None:
    path = directory / "f"
    with opened(path, os.O_RDWR | os.O_CREAT) as descriptor:
        for number in range(1, 100):
            os.write(descriptor, b"12345")
            assert os.fstat(descriptor).st_size == number * 5
            assert path.stat().st_size == number * 5


def test_birth_time(directory: Path) -> None:
    """The time of creation: it never changes, whatever is done to the file or to its times."""
    before = clock_moves(directory)
    path = make(directory / "f")
    born = calls.statx(path)
    assert born.mask & calls.STATX_BTIME
    after = clock_moves(directory)
    assert before <= born.born <= after
    make(path, b"content")
    os.utime(path, ns=(1, 1))
    path.chmod(0o600)
    path.rename(directory / "g")
    assert calls.statx(directory / "g").born == born.born
    clock_moves(directory)
    (directory / "d").mkdir()
    assert calls.statx(directory / "d").born >= after


def test_times_of_a_new_file_are_now(directory: Path) -> None:
    """Within the seconds by which the clock of a server may differ."""
    for name in make_one_of_each(directory):
        status = os.lstat(directory / name)
        for nanoseconds in (status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns):
            assert abs(nanoseconds - time.time_ns()) < 60_000_000_000


def test_missing(directory: Path) -> None:
    for call in (os.stat, os.lstat, calls.statx):
        with refused(errno.ENOENT):
            call(directory / "missing")
    with refused(errno.ENOENT):
        os.stat("")
    with refused(errno.EBADF):
        os.fstat(1_000_000)


def test_dangling_symlink(directory: Path) -> None:
    (directory / "link").symlink_to("missing")
    with refused(errno.ENOENT):
        os.stat(directory / "link")
    assert stat.S_ISLNK(os.lstat(directory / "link").st_mode)


def test_through_a_file(directory: Path) -> None:
    make(directory / "f")
    for path in (directory / "f" / "x", f"{directory}/f/", f"{directory}/f/."):
        with refused(errno.ENOTDIR):
            os.stat(path)


def test_dot_and_dot_dot(directory: Path) -> None:
    (directory / "a" / "b").mkdir(parents=True)
    assert os.stat(f"{directory}/a/.").st_ino == os.stat(directory / "a").st_ino
    assert os.stat(f"{directory}/a/b/..").st_ino == os.stat(directory / "a").st_ino
    assert os.stat(f"{directory}/a/b/../..").st_ino == directory.stat().st_ino


def test_deleted_file(directory: Path) -> None:
    with opened(make(directory / "f", b"abc")) as descriptor:
        (directory / "f").unlink()
        status = os.fstat(descriptor)
        assert (status.st_nlink, status.st_size) == (0, 3)


def test_deleted_directory(directory: Path) -> None:
    (directory / "d").mkdir()
    with opened(directory / "d") as descriptor:
        (directory / "d").rmdir()
        assert os.fstat(descriptor).st_nlink == 0


def test_statx_flags(directory: Path) -> None:
    path = make(directory / "f", b"abc")
    for sync in (0x2000, 0x4000):  # AT_STATX_FORCE_SYNC, AT_STATX_DONT_SYNC
        assert calls.statx(path, sync).size == 3
    with refused(errno.EINVAL):
        calls.statx(path, 0x6000)
    with refused(errno.EINVAL):
        calls.statx(path, mask=1 << 31)
