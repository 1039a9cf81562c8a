"""unlink, unlinkat, and files that live on because they are open."""

import errno
import os
import stat
from pathlib import Path

import pytest

from tests.posix import calls
from tests.posix.files import exists, make, opened, pattern, read_all, refused, write_all
from tests.posix.people import ALICE, actor, as_user, needs_root
from tests.posix.subject import Subject


@pytest.mark.parametrize("kind", [stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK])
def test_every_type(directory: Path, kind: int) -> None:
    os.mknod(directory / "x", kind | 0o600)
    (directory / "x").unlink()
    assert not exists(directory / "x")
    assert os.listdir(directory) == []


def test_symlink_not_its_target(directory: Path) -> None:
    make(directory / "f")
    (directory / "link").symlink_to("f")
    (directory / "link").unlink()
    assert os.listdir(directory) == ["f"]


def test_directory(directory: Path) -> None:
    (directory / "d").mkdir()
    with refused(errno.EISDIR):
        os.unlink(directory / "d")
    calls.unlinkat(directory / "d", calls.AT_REMOVEDIR)
    assert not exists(directory / "d")


def test_missing(directory: Path) -> None:
    make(directory / "f")
    with refused(errno.ENOENT):
        os.unlink(directory / "missing")
    with refused(errno.ENOTDIR):
        os.unlink(directory / "f" / "x")
    with refused(errno.ENOTDIR):
        os.unlink(f"{directory}/f/")
    with refused(errno.ENOTDIR):
        calls.unlinkat(directory / "f", calls.AT_REMOVEDIR)
    with refused(errno.EINVAL):
        calls.unlinkat(directory / "f", 0x1)


def test_twice(directory: Path) -> None:
    make(directory / "f").unlink()
    with refused(errno.ENOENT):
        os.unlink(directory / "f")


def test_name_is_free_at_once(directory: Path) -> None:
    inodes = set()
    with opened(make(directory / "f", b"old")) as old:
        (directory / "f").unlink()
        make(directory / "f", b"new")
        inodes = {os.fstat(old).st_ino, (directory / "f").stat().st_ino}
        assert read_all(old) == b"old"
    assert len(inodes) == 2
    assert (directory / "f").read_bytes() == b"new"


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR])
def test_open_file_lives_on(directory: Path, flags: int) -> None:
    with opened(make(directory / "f", pattern(3_000_000)), flags) as descriptor:
        (directory / "f").unlink()
        assert os.listdir(directory) == []
        assert os.fstat(descriptor).st_nlink == 0
        assert read_all(descriptor) == pattern(3_000_000)
        if flags == os.O_RDWR:
            os.ftruncate(descriptor, 1000)
            os.pwrite(descriptor, b"end", 2000)
            os.fsync(descriptor)
            assert read_all(descriptor) == pattern(3_000_000)[:1000] + bytes(1000) + b"end"
            os.fchmod(descriptor, 0o600)
            os.utime(descriptor, ns=(1, 2))
            assert os.fstat(descriptor).st_mtime_ns == 2


def test_open_file_lives_on_in_several_descriptors(directory: Path) -> None:
    path = make(directory / "f", b"abc")
    with opened(path) as first:
        with opened(path, os.O_RDWR) as second:
            path.unlink()
            write_all(second, b"ABC")
        assert read_all(first) == b"ABC"
        with opened(calls.procfd(first), os.O_RDWR) as again:
            write_all(again, b"xyz")
        assert read_all(first) == b"xyz"


def test_open_file_lives_on_in_another_process(directory: Path) -> None:
    path = make(directory / "f", pattern(100_000))
    with actor() as other:
        descriptor = other(os.open, path, os.O_RDONLY)
        path.unlink()
        assert other(read_all, descriptor) == pattern(100_000)


def test_replaced_open_file_lives_on(directory: Path) -> None:
    path = make(directory / "f", b"old contents")
    with opened(path) as descriptor:
        make(directory / "new", b"new").rename(path)
        assert read_all(descriptor) == b"old contents"
        assert os.fstat(descriptor).st_nlink == 0
        assert path.read_bytes() == b"new"


def test_directory_is_removable_while_a_deleted_file_in_it_is_open(directory: Path) -> None:
    (directory / "d").mkdir()
    with opened(make(directory / "d" / "f", b"abc")) as descriptor:
        (directory / "d" / "f").unlink()
        (directory / "d").rmdir()
        assert read_all(descriptor) == b"abc"


def test_needs_permission_in_the_directory_not_of_the_file(directory: Path) -> None:
    needs_root()
    make(directory / "f", mode=0o666)
    os.chown(directory / "f", ALICE, ALICE)
    with refused(errno.EACCES):
        as_user(os.unlink, directory / "f", uid=ALICE)
    make(directory / "g", mode=0)
    directory.chmod(0o777)
    as_user(os.unlink, directory / "g", uid=ALICE)


def test_room_comes_back(subject: Subject) -> None:
    """A file system may take its time, so this waits for the space of a large file, not for the exact figure."""
    path = subject.path / "f"
    make(path, pattern(32 << 20))
    with opened(path) as descriptor:
        os.fsync(descriptor)
        assert os.fstat(descriptor).st_blocks * 512 >= 32 << 20
        path.unlink()
        assert os.pread(descriptor, 100, 31 << 20) == pattern(32 << 20)[31 << 20 : (31 << 20) + 100]


def test_many(directory: Path) -> None:
    for number in range(500):
        make(directory / f"f{number}")
    for number in range(0, 500, 2):
        (directory / f"f{number}").unlink()
    assert set(os.listdir(directory)) == {f"f{number}" for number in range(1, 500, 2)}
