"""mkdir, rmdir."""

import errno
import os
import stat
from pathlib import Path

import pytest

from tests.posix.files import exists, make, opened, refused
from tests.posix.people import ALICE, BOB, as_user, needs_root


def test_new_directory_is_empty(directory: Path) -> None:
    path = directory / "d"
    path.mkdir(0o750)
    status = path.stat()
    assert status.st_mode == stat.S_IFDIR | 0o750
    assert (status.st_uid, status.st_gid) == (os.geteuid(), os.getegid())
    assert os.listdir(path) == []


def test_owner_is_who_makes_it(directory: Path) -> None:
    directory.chmod(0o777)
    as_user(os.mkdir, directory / "d", uid=ALICE, gid=BOB)
    assert ((directory / "d").stat().st_uid, (directory / "d").stat().st_gid) == (ALICE, BOB)


@pytest.mark.parametrize(
    ("asked", "mask", "got"), [(0o777, 0o022, 0o755), (0o777, 0, 0o777), (0o1777, 0, 0o1777), (0, 0, 0)]
)
def test_mode(directory: Path, asked: int, mask: int, got: int) -> None:
    os.umask(mask)
    os.mkdir(directory / "d", asked)
    assert stat.S_IMODE((directory / "d").stat().st_mode) == got


def test_set_id_bits_are_not_taken_from_the_argument(directory: Path) -> None:
    """Linux takes the permission bits and the sticky bit."""
    os.mkdir(directory / "d", 0o6755)
    assert stat.S_IMODE((directory / "d").stat().st_mode) == 0o755


@pytest.mark.parametrize("name", ["file", "directory", "symlink", "dangling", "."])
def test_name_is_taken(directory: Path, name: str) -> None:
    make(directory / "file")
    (directory / "directory").mkdir()
    (directory / "symlink").symlink_to("directory")
    (directory / "dangling").symlink_to("missing")
    with refused(errno.EEXIST):
        os.mkdir(f"{directory}/{name}")
    assert not exists(directory / "missing")


def test_trailing_slash(directory: Path) -> None:
    os.mkdir(f"{directory}/d/")
    assert (directory / "d").is_dir()


def test_parent_is_missing_or_no_directory(directory: Path) -> None:
    make(directory / "file")
    with refused(errno.ENOENT):
        os.mkdir(directory / "missing" / "d")
    with refused(errno.ENOTDIR):
        os.mkdir(directory / "file" / "d")


def test_parent_was_removed(directory: Path) -> None:
    (directory / "d").mkdir()
    with opened(directory / "d", os.O_RDONLY | os.O_DIRECTORY) as parent:
        (directory / "d").rmdir()
        with refused(errno.ENOENT):
            os.mkdir("x", dir_fd=parent)


def test_needs_write_and_search_permission(directory: Path) -> None:
    for mode in (0o755, 0o776, 0o771):
        directory.chmod(mode)
        with refused(errno.EACCES):
            as_user(os.mkdir, directory / "d")
    directory.chmod(0o773)
    as_user(os.mkdir, directory / "d")


def test_deep(directory: Path) -> None:
    path = directory / "/".join(["d"] * 100)
    path.mkdir(parents=True)
    make(path / "f", b"deep")
    assert (path / "f").read_bytes() == b"deep"


def test_remove(directory: Path) -> None:
    (directory / "d").mkdir()
    (directory / "d").rmdir()
    assert not exists(directory / "d")
    assert os.listdir(directory) == []
    with refused(errno.ENOENT):
        (directory / "d").rmdir()


@pytest.mark.parametrize("content", ["file", "directory", "symlink", "fifo"])
def test_remove_of_a_directory_that_is_not_empty(directory: Path, content: str) -> None:
    (directory / "d").mkdir()
    inside = directory / "d" / "x"
    {"file": make, "directory": os.mkdir, "symlink": lambda path: os.symlink("x", path), "fifo": os.mkfifo}[content](
        inside
    )
    with refused(errno.ENOTEMPTY, errno.EEXIST):
        (directory / "d").rmdir()
    assert exists(inside)


@pytest.mark.parametrize("kind", ["file", "symlink to a directory", "fifo"])
def test_remove_of_what_is_no_directory(directory: Path, kind: str) -> None:
    path = directory / "x"
    (directory / "d").mkdir()
    {"file": make, "symlink to a directory": lambda path: os.symlink("d", path), "fifo": os.mkfifo}[kind](path)
    with refused(errno.ENOTDIR):
        path.rmdir()
    assert exists(path)


def test_remove_by_dot_names(directory: Path) -> None:
    (directory / "d" / "e").mkdir(parents=True)
    with refused(errno.EINVAL):
        os.rmdir(f"{directory}/d/e/.")
    with refused(errno.ENOTEMPTY, errno.EEXIST):
        os.rmdir(f"{directory}/d/e/..")
    os.rmdir(f"{directory}/d/e/")
    assert not exists(directory / "d" / "e")


def test_remove_needs_permission_in_the_parent(directory: Path) -> None:
    needs_root()
    (directory / "d").mkdir()
    os.chown(directory / "d", ALICE, ALICE)
    with refused(errno.EACCES):
        as_user(os.rmdir, directory / "d", uid=ALICE)
    directory.chmod(0o777)
    as_user(os.rmdir, directory / "d", uid=BOB)


def test_remove_of_an_unreadable_directory(directory: Path) -> None:
    """Its own mode does not matter: the name is in the parent."""
    directory.chmod(0o777)
    (directory / "d").mkdir()
    (directory / "d").chmod(0)
    as_user(os.rmdir, directory / "d")


def test_removed_directory_that_is_open_is_empty(directory: Path) -> None:
    (directory / "d").mkdir()
    with opened(directory / "d", os.O_RDONLY | os.O_DIRECTORY) as descriptor:
        (directory / "d").rmdir()
        assert os.listdir(descriptor) == []
        assert os.fstat(descriptor).st_nlink == 0
        (directory / "d").mkdir()
        assert (directory / "d").stat().st_ino != os.fstat(descriptor).st_ino


def test_removed_working_directory(directory: Path) -> None:
    (directory / "d").mkdir()

    def run() -> None:
        os.chdir(directory / "d")
        os.rmdir(directory / "d")
        with refused(errno.ENOENT):
            os.getcwd()
        with refused(errno.ENOENT):
            os.mkdir("x")
        with refused(errno.ENOENT):
            os.open("x", os.O_CREAT | os.O_WRONLY)
        assert os.listdir(".") == []

    as_user(run, uid=0)


def test_made_and_removed_many_times(directory: Path) -> None:
    for _ in range(50):
        (directory / "d").mkdir()
        make(directory / "d" / "f")
        (directory / "d" / "f").unlink()
        (directory / "d").rmdir()
    assert os.listdir(directory) == []
