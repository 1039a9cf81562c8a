"""symlink, readlink."""

import errno
import os
import stat
from pathlib import Path

import pytest

from tests.posix.files import exists, make, opened, refused
from tests.posix.people import ALICE, as_user, needs_root


@pytest.mark.parametrize(
    "target", ["x", "../..", "/absolute/path", "with space", "nowhere/", "a//b", ".", "\u00fc\u4e2d"]
)
def test_target_is_kept_as_it_is(directory: Path, target: str) -> None:
    os.symlink(target, directory / "link")
    assert os.readlink(directory / "link") == target
    status = os.lstat(directory / "link")
    assert stat.S_ISLNK(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == 0o777
    assert (status.st_size, status.st_nlink) == (len(os.fsencode(target)), 1)


def test_any_bytes(directory: Path) -> None:
    target = bytes(set(range(1, 256)))
    os.symlink(target, os.fsencode(directory / "link"))
    assert os.readlink(os.fsencode(directory / "link")) == target


def test_longest_target(directory: Path) -> None:
    for length in (255, 256, 1023, 4094, 4095):
        target = "a" * length
        os.symlink(target, directory / f"link-{length}")
        assert os.readlink(directory / f"link-{length}") == target
    with refused(errno.ENAMETOOLONG):
        os.symlink("a" * 4096, directory / "too-long")


def test_empty_target(directory: Path) -> None:
    with refused(errno.ENOENT):
        os.symlink("", directory / "link")


@pytest.mark.parametrize("name", ["file", "directory", "symlink", "dangling"])
def test_name_is_taken(directory: Path, name: str) -> None:
    make(directory / "file")
    (directory / "directory").mkdir()
    (directory / "symlink").symlink_to("file")
    (directory / "dangling").symlink_to("missing")
    with refused(errno.EEXIST):
        os.symlink("x", directory / name)


def test_parents(directory: Path) -> None:
    make(directory / "file")
    with refused(errno.ENOENT):
        os.symlink("x", directory / "missing" / "link")
    with refused(errno.ENOTDIR):
        os.symlink("x", directory / "file" / "link")
    with refused(errno.EACCES):
        as_user(os.symlink, "x", directory / "link")
    with refused(errno.ENOENT, errno.ENOTDIR):
        os.symlink("x", f"{directory}/new/")


def test_readlink_of_what_is_none(directory: Path) -> None:
    make(directory / "file")
    for path in (directory / "file", directory):
        with refused(errno.EINVAL):
            os.readlink(path)
    with refused(errno.ENOENT):
        os.readlink(directory / "missing")
    with refused(errno.ENOTDIR):
        os.readlink(directory / "file" / "x")


def test_readlink_needs_no_permission_of_the_link(directory: Path) -> None:
    needs_root()
    os.symlink("target", directory / "link")
    os.lchown(directory / "link", ALICE, ALICE)
    assert as_user(os.readlink, directory / "link") == "target"
    directory.chmod(0o700)
    with refused(errno.EACCES):
        as_user(os.readlink, directory / "link")


def test_owner(directory: Path) -> None:
    directory.chmod(0o777)
    as_user(os.symlink, "x", directory / "link", uid=ALICE)
    assert os.lstat(directory / "link").st_uid == ALICE


def test_relative_targets_start_at_the_link(directory: Path) -> None:
    (directory / "a" / "b").mkdir(parents=True)
    make(directory / "f", b"found")
    (directory / "a" / "b" / "link").symlink_to("../../f")
    assert (directory / "a" / "b" / "link").read_bytes() == b"found"
    (directory / "a" / "b" / "link").rename(directory / "link")
    with refused(errno.ENOENT):
        os.stat(directory / "link")


def test_absolute_target(directory: Path) -> None:
    make(directory / "f", b"found")
    (directory / "link").symlink_to(directory / "f")
    assert (directory / "link").read_bytes() == b"found"


def test_chain(directory: Path) -> None:
    make(directory / "l0", b"end")
    for number in range(1, 41):
        (directory / f"l{number}").symlink_to(f"l{number - 1}")
    assert (directory / "l40").read_bytes() == b"end"
    (directory / "l41").symlink_to("l40")
    with refused(errno.ELOOP):
        os.open(directory / "l41", os.O_RDONLY)


def test_loop(directory: Path) -> None:
    (directory / "a").symlink_to("b")
    (directory / "b").symlink_to("a")
    (directory / "self").symlink_to("self")
    for name in ("a", "self", "a/x"):
        with refused(errno.ELOOP):
            os.stat(directory / name)
        with refused(errno.ELOOP):
            os.open(directory / name, os.O_RDWR | os.O_CREAT)
    assert os.readlink(directory / "a") == "b"


def test_directory_through_a_link(directory: Path) -> None:
    (directory / "d").mkdir()
    (directory / "link").symlink_to("d")
    make(directory / "link" / "f", b"abc")
    assert (directory / "d" / "f").read_bytes() == b"abc"
    assert os.listdir(directory / "link") == ["f"]
    with refused(errno.ENOTDIR):
        os.rmdir(directory / "link")
    with refused(errno.ENOTDIR):
        os.unlink(f"{directory}/link/")
    (directory / "link").unlink()
    assert exists(directory / "d" / "f")


def test_replaced_target(directory: Path) -> None:
    """The idiom of deployments: a new link is renamed over the old one."""
    for number in range(20):
        make(directory / f"v{number}", b"%d" % number)
        os.symlink(f"v{number}", directory / "next")
        os.rename(directory / "next", directory / "current")
        assert os.readlink(directory / "current") == f"v{number}"
        assert (directory / "current").read_bytes() == b"%d" % number


def test_open_descriptor_of_a_link_reads_the_target(directory: Path) -> None:
    os.symlink("target", directory / "link")
    with opened(directory / "link", os.O_PATH | os.O_NOFOLLOW) as descriptor:
        (directory / "link").unlink()
        assert os.readlink("", dir_fd=descriptor) == "target"
