"""link, linkat: several names of one file, and their count."""

import errno
import os
import stat
from pathlib import Path

import pytest

from tests.posix import calls
from tests.posix.files import exists, make, opened, refused
from tests.posix.people import ALICE, as_user, needs_root
from tests.posix.subject import Subject


def links(path: Path) -> int:
    return os.lstat(path).st_nlink


def test_two_names_one_file(directory: Path) -> None:
    make(directory / "a", b"abc", 0o640)
    os.link(directory / "a", directory / "b")
    assert (directory / "a").samefile(directory / "b")
    assert links(directory / "a") == links(directory / "b") == 2
    with opened(directory / "b", os.O_RDWR) as descriptor:
        os.pwrite(descriptor, b"XYZ!", 0)
    assert (directory / "a").read_bytes() == b"XYZ!"
    (directory / "a").chmod(0o600)
    assert stat.S_IMODE((directory / "b").stat().st_mode) == 0o600


def test_count_follows_every_change(directory: Path) -> None:
    path = make(directory / "f", b"abc")
    (directory / "d").mkdir()
    for number in range(20):
        os.link(path, directory / "d" / f"{number}")
        assert links(path) == number + 2
    for number in range(20):
        (directory / "d" / f"{number}").unlink()
        assert links(path) == 20 - number
    assert path.read_bytes() == b"abc"


def test_first_name_goes_the_file_stays(directory: Path) -> None:
    make(directory / "a", b"abc")
    os.link(directory / "a", directory / "b")
    (directory / "a").unlink()
    assert (directory / "b").read_bytes() == b"abc"
    assert links(directory / "b") == 1


def test_count_of_an_open_file(directory: Path) -> None:
    with opened(make(directory / "a")) as descriptor:
        os.link(directory / "a", directory / "b")
        assert os.fstat(descriptor).st_nlink == 2
        (directory / "a").unlink()
        assert os.fstat(descriptor).st_nlink == 1
        (directory / "b").unlink()
        assert os.fstat(descriptor).st_nlink == 0


def test_rename_over_a_name_lowers_the_count(directory: Path) -> None:
    make(directory / "a")
    os.link(directory / "a", directory / "b")
    make(directory / "c")
    (directory / "c").rename(directory / "b")
    assert links(directory / "a") == 1


def test_directories_count_their_subdirectories(directory: Path) -> None:
    """Or always say 1, as some file systems do."""
    path = directory / "d"
    path.mkdir()
    if links(path) == 1:
        (path / "sub").mkdir()
        assert links(path) == 1
        return
    assert links(path) == 2
    for number in range(5):
        (path / f"{number}").mkdir()
        make(path / f"file-{number}")
        assert links(path) == 3 + number
    (path / "0").rmdir()
    assert links(path) == 6
    (directory / "e").mkdir()
    (path / "1").rename(directory / "e" / "1")
    assert (links(path), links(directory / "e")) == (5, 3)
    (path / "2").rename(path / "renamed")
    assert links(path) == 5
    (path / "3").rename(path / "4")
    assert links(path) == 4
    calls.renameat2(path / "4", path / "file-0", calls.RENAME_EXCHANGE)
    assert links(path) == 4
    calls.renameat2(path / "file-0", directory / "e" / "1", calls.RENAME_EXCHANGE)
    assert (links(path), links(directory / "e")) == (4, 3)
    make(directory / "e" / "f")
    calls.renameat2(path / "file-0", directory / "e" / "f", calls.RENAME_EXCHANGE)
    assert (links(path), links(directory / "e")) == (3, 4)


def test_exchange_of_a_file_and_a_directory_moves_a_link(directory: Path) -> None:
    a, b = directory / "a", directory / "b"
    (a / "x").mkdir(parents=True)
    b.mkdir()
    make(b / "x")
    if links(directory) == 1:
        return
    assert (links(a), links(b)) == (3, 2)
    for expected in ((2, 3), (3, 2), (2, 3)):
        calls.renameat2(a / "x", b / "x", calls.RENAME_EXCHANGE)
        assert (links(a), links(b)) == expected


@pytest.mark.parametrize("name", ["file", "directory", "symlink", "dangling"])
def test_name_is_taken(directory: Path, name: str) -> None:
    make(directory / "a")
    make(directory / "file")
    (directory / "directory").mkdir()
    (directory / "symlink").symlink_to("file")
    (directory / "dangling").symlink_to("missing")
    with refused(errno.EEXIST):
        os.link(directory / "a", directory / name)
    assert links(directory / "a") == 1


def test_to_itself(directory: Path) -> None:
    path = make(directory / "a")
    with refused(errno.EEXIST):
        os.link(path, path)


def test_directory(directory: Path) -> None:
    (directory / "d").mkdir()
    with refused(errno.EPERM):
        os.link(directory / "d", directory / "e")


def test_missing(directory: Path) -> None:
    make(directory / "a")
    with refused(errno.ENOENT):
        os.link(directory / "missing", directory / "b")
    with refused(errno.ENOENT):
        os.link(directory / "a", directory / "missing" / "b")
    with refused(errno.ENOTDIR):
        os.link(directory / "a" / "x", directory / "b")
    with refused(errno.ENOTDIR):
        os.link(directory / "a", directory / "a" / "b")


def test_symlinks_are_linked_themselves(directory: Path) -> None:
    make(directory / "f")
    (directory / "link").symlink_to("f")
    calls.linkat(directory / "link", directory / "same")
    assert os.readlink(directory / "same") == "f"
    assert links(directory / "link") == 2
    assert links(directory / "f") == 1


def test_symlinks_are_followed_when_told_to(directory: Path) -> None:
    make(directory / "f")
    (directory / "link").symlink_to("f")
    calls.linkat(directory / "link", directory / "same", calls.AT_SYMLINK_FOLLOW)
    assert (directory / "same").samefile(directory / "f")
    assert not (directory / "same").is_symlink()


def test_by_descriptor(directory: Path) -> None:
    with opened(make(directory / "f", b"abc")) as descriptor:
        calls.linkat("", directory / "g", calls.AT_EMPTY_PATH, old_directory=descriptor)
        calls.linkat(calls.procfd(descriptor), directory / "h", calls.AT_SYMLINK_FOLLOW)
        assert os.fstat(descriptor).st_nlink == 3
    assert (directory / "g").read_bytes() == b"abc"


def test_by_descriptor_of_a_deleted_file(directory: Path) -> None:
    with opened(make(directory / "f", b"abc")) as descriptor:
        (directory / "f").unlink()
        with refused(errno.ENOENT):
            calls.linkat(calls.procfd(descriptor), directory / "back", calls.AT_SYMLINK_FOLLOW)


def test_unknown_flags(directory: Path) -> None:
    make(directory / "f")
    with refused(errno.EINVAL):
        calls.linkat(directory / "f", directory / "g", 0x1)


def test_to_another_file_system(subject: Subject) -> None:
    make(subject.path / "f")
    with refused(errno.EXDEV):
        os.link(subject.path / "f", subject.elsewhere())


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFSOCK])
def test_special_files(directory: Path, kind: int) -> None:
    os.mknod(directory / "a", kind | 0o600)
    os.link(directory / "a", directory / "b")
    assert os.lstat(directory / "b").st_ino == os.lstat(directory / "a").st_ino
    assert links(directory / "a") == 2


def test_needs_permission_where_the_name_goes(directory: Path) -> None:
    needs_root()
    (directory / "closed").mkdir(0o755)
    (directory / "open").mkdir()
    (directory / "open").chmod(0o777)
    make(directory / "f")
    os.chown(directory / "f", ALICE, ALICE)
    with refused(errno.EACCES):
        as_user(os.link, directory / "f", directory / "closed" / "f", uid=ALICE)
    as_user(os.link, directory / "f", directory / "open" / "f", uid=ALICE)
    (directory / "private").mkdir(0o700)
    make(directory / "private" / "f", mode=0o666)
    with refused(errno.EACCES):
        as_user(os.link, directory / "private" / "f", directory / "open" / "g", uid=ALICE)
    assert not exists(directory / "open" / "g")


def test_many_names(directory: Path) -> None:
    path = make(directory / "f", b"abc")
    for number in range(300):
        os.link(path, directory / f"name-{number}")
    assert links(path) == 301
    assert len({os.lstat(directory / name).st_ino for name in os.listdir(directory)}) == 1
