"""open(2), openat(2): flags, modes, and each way to be refused."""

import errno
import fcntl
import os
import stat
from pathlib import Path

import pytest

from tests.posix import calls
from tests.posix.files import exists, make, opened, pattern, read_all, refused, write_all
from tests.posix.people import ALICE, as_user

ACCESS_MODES = (os.O_RDONLY, os.O_WRONLY, os.O_RDWR)


def test_create_makes_an_empty_regular_file(directory: Path) -> None:
    with opened(directory / "f", os.O_RDWR | os.O_CREAT, 0o640) as descriptor:
        status = os.fstat(descriptor)
    assert stat.S_ISREG(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == 0o640
    assert (status.st_size, status.st_nlink) == (0, 1)
    assert (status.st_uid, status.st_gid) == (os.geteuid(), os.getegid())
    assert os.listdir(directory) == ["f"]


def test_create_of_an_existing_file_opens_it(directory: Path) -> None:
    make(directory / "f", b"content", 0o600)
    with opened(directory / "f", os.O_RDWR | os.O_CREAT, 0o777) as descriptor:
        assert read_all(descriptor) == b"content"
    assert stat.S_IMODE((directory / "f").stat().st_mode) == 0o600


def test_exclusive_create(directory: Path) -> None:
    with opened(directory / "f", os.O_RDWR | os.O_CREAT | os.O_EXCL):
        pass
    with refused(errno.EEXIST):
        os.open(directory / "f", os.O_RDWR | os.O_CREAT | os.O_EXCL)


@pytest.mark.parametrize("target", ["missing", "file", "."])
def test_exclusive_create_does_not_follow_a_symlink(directory: Path, target: str) -> None:
    make(directory / "file")
    (directory / "link").symlink_to(target)
    with refused(errno.EEXIST):
        os.open(directory / "link", os.O_RDWR | os.O_CREAT | os.O_EXCL)
    assert not exists(directory / "missing")


def test_exclusive_create_of_a_directory(directory: Path) -> None:
    (directory / "d").mkdir()
    with refused(errno.EEXIST):
        os.open(directory / "d", os.O_RDWR | os.O_CREAT | os.O_EXCL)


def test_create_follows_a_dangling_symlink(directory: Path) -> None:
    (directory / "link").symlink_to("made")
    with opened(directory / "link", os.O_RDWR | os.O_CREAT) as descriptor:
        write_all(descriptor, b"x")
    assert (directory / "made").read_bytes() == b"x"
    assert (directory / "link").is_symlink()


def test_missing_file(directory: Path) -> None:
    for flags in ACCESS_MODES:
        with refused(errno.ENOENT):
            os.open(directory / "missing", flags)
    with refused(errno.ENOENT):
        os.open(directory / "missing" / "f", os.O_RDWR | os.O_CREAT)


def test_create_with_a_trailing_slash(directory: Path) -> None:
    with refused(errno.EISDIR):
        os.open(f"{directory}/new/", os.O_RDWR | os.O_CREAT)
    assert not exists(directory / "new")


def test_file_with_a_trailing_slash(directory: Path) -> None:
    make(directory / "f")
    with refused(errno.ENOTDIR):
        os.open(f"{directory}/f/", os.O_RDONLY)


def test_directory_opens_for_reading_only(directory: Path) -> None:
    with opened(directory) as descriptor:
        assert stat.S_ISDIR(os.fstat(descriptor).st_mode)
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_CREAT):
        with refused(errno.EISDIR):
            os.open(directory, flags)


def test_truncate_of_a_directory(directory: Path) -> None:
    with refused(errno.EISDIR):
        os.open(directory, os.O_RDONLY | os.O_TRUNC)


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR])
def test_truncate(directory: Path, flags: int) -> None:
    path = make(directory / "f", b"content", 0o640)
    inode = path.stat().st_ino
    with opened(path, flags | os.O_TRUNC) as descriptor:
        assert os.fstat(descriptor).st_size == 0
    assert path.read_bytes() == b""
    assert path.stat().st_ino == inode
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_truncate_is_seen_by_who_has_the_file_open(directory: Path) -> None:
    path = make(directory / "f", pattern(10_000))
    with opened(path) as reader:
        assert len(os.read(reader, 100)) == 100
        with opened(path, os.O_WRONLY | os.O_TRUNC):
            pass
        assert os.read(reader, 100) == b""
        assert os.fstat(reader).st_size == 0


def test_create_with_truncate_of_a_new_file(directory: Path) -> None:
    with opened(directory / "f", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600) as descriptor:
        assert os.fstat(descriptor).st_size == 0


def test_mode_does_not_bind_who_creates(directory: Path) -> None:
    """The descriptor is writable although the mode says that nobody may write."""
    with opened(directory / "f", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0) as descriptor:
        write_all(descriptor, b"x")
        assert os.pread(descriptor, 1, 0) == b"x"
    assert stat.S_IMODE((directory / "f").stat().st_mode) == 0


def test_mode_does_not_bind_an_ordinary_user_who_creates(directory: Path) -> None:
    directory.chmod(0o777)

    def create() -> bytes:
        with opened(directory / "f", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o000) as descriptor:
            write_all(descriptor, b"x")
            return os.pread(descriptor, 1, 0)

    assert as_user(create) == b"x"
    with refused(errno.EACCES):
        as_user(os.open, directory / "f", os.O_RDONLY)


def test_exclusive_create_opens_a_read_only_mode_for_writing_once(directory: Path) -> None:
    """The idiom of lock files and of git's objects: mode 0444, written by who made it."""
    directory.chmod(0o777)

    def create() -> None:
        with opened(directory / "f", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o444) as descriptor:
            write_all(descriptor, b"object")

    as_user(create)
    assert (directory / "f").read_bytes() == b"object"
    with refused(errno.EACCES):
        as_user(os.open, directory / "f", os.O_WRONLY)


@pytest.mark.parametrize("flags", ACCESS_MODES)
def test_access_modes_bind_the_descriptor(directory: Path, flags: int) -> None:
    path = make(directory / "f", b"content")
    with opened(path, flags) as descriptor:
        if flags == os.O_WRONLY:
            with refused(errno.EBADF):
                os.read(descriptor, 1)
            with refused(errno.EBADF):
                os.pread(descriptor, 1, 0)
        else:
            assert os.read(descriptor, 7) == b"content"
        if flags == os.O_RDONLY:
            with refused(errno.EBADF):
                os.write(descriptor, b"x")
            with refused(errno.EBADF):
                os.pwrite(descriptor, b"x", 0)
            with refused(errno.EINVAL, errno.EBADF):
                os.ftruncate(descriptor, 0)
        else:
            assert os.pwrite(descriptor, b"X", 0) == 1


def test_each_open_has_its_own_position(directory: Path) -> None:
    path = make(directory / "f", b"abcdef")
    with opened(path) as first, opened(path) as second:
        assert os.read(first, 3) == b"abc"
        assert os.read(second, 2) == b"ab"
        assert os.read(first, 3) == b"def"
        duplicate = os.dup(second)
        try:
            assert os.read(duplicate, 1) == b"c"
            assert os.read(second, 1) == b"d"
        finally:
            os.close(duplicate)


def test_nofollow(directory: Path) -> None:
    make(directory / "f", b"content")
    (directory / "link").symlink_to("f")
    with refused(errno.ELOOP):
        os.open(directory / "link", os.O_RDONLY | os.O_NOFOLLOW)
    with refused(errno.ELOOP):
        os.open(directory / "link", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
    with opened(directory / "f", os.O_RDONLY | os.O_NOFOLLOW) as descriptor:
        assert read_all(descriptor) == b"content"


def test_nofollow_binds_the_last_component_only(directory: Path) -> None:
    (directory / "d").mkdir()
    make(directory / "d" / "f", b"content")
    (directory / "link").symlink_to("d")
    with opened(directory / "link" / "f", os.O_RDONLY | os.O_NOFOLLOW) as descriptor:
        assert read_all(descriptor) == b"content"


def test_directory_flag(directory: Path) -> None:
    make(directory / "f")
    (directory / "to-file").symlink_to("f")
    (directory / "to-directory").symlink_to(".")
    for name in ("f", "to-file"):
        with refused(errno.ENOTDIR):
            os.open(directory / name, os.O_RDONLY | os.O_DIRECTORY)
    with opened(directory / "to-directory", os.O_RDONLY | os.O_DIRECTORY) as descriptor:
        assert os.fstat(descriptor).st_ino == directory.stat().st_ino
    with refused(errno.ENOTDIR, errno.ELOOP):
        os.open(directory / "to-directory", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)


def test_path_descriptor(directory: Path) -> None:
    """O_PATH names a file without opening it: it can be asked about and walked from, not read."""
    path = make(directory / "f", b"content", 0o000)
    with opened(path, os.O_PATH) as descriptor:
        assert os.fstat(descriptor).st_size == 7
        for call in (
            lambda: os.read(descriptor, 1),
            lambda: os.write(descriptor, b"x"),
            lambda: os.fchmod(descriptor, 0),
        ):
            with refused(errno.EBADF):
                call()
    (directory / "d").mkdir()
    make(directory / "d" / "f", b"inner")
    with opened(directory / "d", os.O_PATH | os.O_DIRECTORY) as parent:
        with opened("f", directory=parent) as descriptor:
            assert read_all(descriptor) == b"inner"


def test_path_descriptor_of_a_symlink(directory: Path) -> None:
    (directory / "link").symlink_to("anywhere")
    with opened(directory / "link", os.O_PATH | os.O_NOFOLLOW) as descriptor:
        assert stat.S_ISLNK(os.fstat(descriptor).st_mode)
        assert os.readlink("", dir_fd=descriptor) == "anywhere"


def test_path_descriptor_opens_again_through_proc(directory: Path) -> None:
    path = make(directory / "f", b"content")
    with opened(path, os.O_PATH) as named:
        path.rename(directory / "elsewhere")
        with opened(calls.procfd(named), os.O_RDWR) as descriptor:
            assert read_all(descriptor) == b"content"
            assert os.pwrite(descriptor, b"C", 0) == 1
    assert (directory / "elsewhere").read_bytes() == b"Content"


def test_relative_to_a_directory_descriptor(directory: Path) -> None:
    (directory / "d").mkdir()
    with opened(directory / "d", os.O_RDONLY | os.O_DIRECTORY) as parent:
        (directory / "d").rename(directory / "moved")
        with opened("f", os.O_WRONLY | os.O_CREAT, directory=parent) as descriptor:
            write_all(descriptor, b"x")
        assert (directory / "moved" / "f").read_bytes() == b"x"
        make(directory / "file")
        with opened(directory / "file") as file, refused(errno.ENOTDIR):
            os.open("f", os.O_RDONLY, dir_fd=file)


def test_in_a_directory_that_is_gone(directory: Path) -> None:
    (directory / "d").mkdir()
    with opened(directory / "d", os.O_RDONLY | os.O_DIRECTORY) as parent:
        (directory / "d").rmdir()
        with refused(errno.ENOENT):
            os.open("f", os.O_WRONLY | os.O_CREAT, dir_fd=parent)
        with refused(errno.ENOENT):
            os.open("f", os.O_RDONLY, dir_fd=parent)


def test_nonblock_and_noatime_and_cloexec_are_accepted(directory: Path) -> None:
    path = make(directory / "f", b"content")
    with opened(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOATIME | os.O_CLOEXEC | os.O_NOCTTY) as descriptor:
        assert read_all(descriptor) == b"content"


def test_noatime_is_for_owners(directory: Path) -> None:
    path = make(directory / "f", b"content", 0o644)
    with refused(errno.EPERM):
        as_user(os.open, path, os.O_RDONLY | os.O_NOATIME)
    os.chown(path, ALICE, -1)
    as_user(os.open, path, os.O_RDONLY | os.O_NOATIME)


@pytest.mark.parametrize("flag", [os.O_SYNC, os.O_DSYNC])
def test_synchronous_writes(directory: Path, flag: int) -> None:
    with opened(directory / "f", os.O_RDWR | os.O_CREAT | flag) as descriptor:
        write_all(descriptor, pattern(5000))
        assert os.fstat(descriptor).st_size == 5000
        assert (directory / "f").read_bytes() == pattern(5000)


def test_a_file_that_is_open_for_writing_cannot_be_executed(directory: Path) -> None:
    path = make(directory / "f", b"#!/bin/true\n", 0o755)
    with opened(path, os.O_WRONLY):
        with refused(errno.ETXTBSY):
            os.posix_spawn(path, [str(path)], os.environ)


def test_device_and_socket(directory: Path) -> None:
    os.mknod(directory / "socket", stat.S_IFSOCK | 0o666)
    with refused(errno.ENXIO):
        os.open(directory / "socket", os.O_RDONLY)


def test_fifo_without_a_reader(directory: Path) -> None:
    os.mkfifo(directory / "fifo")
    with refused(errno.ENXIO):
        os.open(directory / "fifo", os.O_WRONLY | os.O_NONBLOCK)
    with opened(directory / "fifo", os.O_RDONLY | os.O_NONBLOCK):
        pass


def test_descriptors_have_the_lowest_free_number(directory: Path) -> None:
    path = make(directory / "f")
    with opened(path) as first:
        pass
    with opened(path) as second:
        assert first == second


def test_close_twice(directory: Path) -> None:
    descriptor = os.open(make(directory / "f"), os.O_RDONLY)
    os.close(descriptor)
    with refused(errno.EBADF):
        os.close(descriptor)
    with refused(errno.EBADF):
        os.read(descriptor, 1)


def test_many_descriptors_of_one_file(directory: Path) -> None:
    path = make(directory / "f", b"content")
    descriptors = [os.open(path, os.O_RDWR) for _ in range(200)]
    try:
        for number, descriptor in enumerate(descriptors):
            os.pwrite(descriptor, bytes([number]), number)
        assert read_all(descriptors[0]) == bytes(range(200))
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def test_descriptor_flags_that_can_change(directory: Path) -> None:
    """fcntl(F_SETFL) changes O_APPEND; the access mode stays."""
    with opened(make(directory / "f", b"123"), os.O_RDWR) as descriptor:
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        assert flags & os.O_ACCMODE == os.O_RDWR
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_APPEND)
        os.write(descriptor, b"4")
        assert read_all(descriptor) == b"1234"
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags & ~os.O_APPEND)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, b"X")
        assert read_all(descriptor) == b"X234"
