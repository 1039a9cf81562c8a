"""Paths: what every call that takes one says to the same mistakes."""

import ctypes
import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.posix import calls
from tests.posix.files import make, refused
from tests.posix.people import as_user

CALLS: dict[str, Callable[[Any, Path], object]] = {
    "open": lambda path, here: os.open(path, os.O_RDONLY),
    "open-create": lambda path, here: os.close(os.open(path, os.O_WRONLY | os.O_CREAT)),
    "open-directory": lambda path, here: os.open(path, os.O_RDONLY | os.O_DIRECTORY),
    "open-path": lambda path, here: os.open(path, os.O_PATH),
    "stat": lambda path, here: os.stat(path),
    "lstat": lambda path, here: os.lstat(path),
    "statx": lambda path, here: calls.statx(path),
    "access": lambda path, here: calls.faccessat2(path, os.F_OK),
    "truncate": lambda path, here: os.truncate(path, 0),
    "chmod": lambda path, here: os.chmod(path, 0o600),
    "chown": lambda path, here: os.chown(path, -1, -1),
    "lchown": lambda path, here: os.lchown(path, -1, -1),
    "utimensat": lambda path, here: os.utime(path),
    "mkdir": lambda path, here: os.mkdir(path),
    "rmdir": lambda path, here: os.rmdir(path),
    "mkfifo": lambda path, here: os.mkfifo(path),
    "mknod": lambda path, here: os.mknod(path, stat.S_IFREG | 0o600),
    "symlink": lambda path, here: os.symlink("target", path),
    "readlink": lambda path, here: os.readlink(path),
    "unlink": lambda path, here: os.unlink(path),
    "link-from": lambda path, here: os.link(path, here / "new"),
    "link-to": lambda path, here: os.link(here / "file", path),
    "rename-from": lambda path, here: os.rename(path, here / "new"),
    "rename-to": lambda path, here: os.rename(here / "file", path),
    "exchange": lambda path, here: calls.renameat2(path, here / "file", calls.RENAME_EXCHANGE),
    "listdir": lambda path, here: os.listdir(path),
    "statvfs": lambda path, here: os.statvfs(path),
    "getxattr": lambda path, here: os.getxattr(path, "user.x"),
    "setxattr": lambda path, here: os.setxattr(path, "user.x", b"x"),
    "listxattr": lambda path, here: os.listxattr(path),
    "removexattr": lambda path, here: os.removexattr(path, "user.x"),
}
MAKES_NAMES = {"open-create", "mkdir", "mkfifo", "mknod", "symlink", "link-to", "rename-to"}
"""Succeed when the last component is missing."""

every_call = pytest.mark.parametrize("name", CALLS)


@pytest.fixture(autouse=True)
def scene(directory: Path) -> None:
    make(directory / "file")
    (directory / "loop").symlink_to("loop")
    (directory / "to-file").symlink_to("file")


@every_call
def test_component_is_missing(directory: Path, name: str) -> None:
    with refused(errno.ENOENT):
        CALLS[name](directory / "missing" / "x", directory)


@every_call
def test_last_component_is_missing(directory: Path, name: str) -> None:
    if name in MAKES_NAMES:
        CALLS[name](directory / "missing", directory)
    else:
        with refused(errno.ENOENT):
            CALLS[name](directory / "missing", directory)


@every_call
def test_empty_path(directory: Path, name: str) -> None:
    with refused(errno.ENOENT):
        CALLS[name]("", directory)


@every_call
@pytest.mark.parametrize("way", ["file/x", "to-file/x", "file/x/y", "file/."])
def test_component_is_a_file(directory: Path, name: str, way: str) -> None:
    with refused(errno.ENOTDIR):
        CALLS[name](f"{directory}/{way}", directory)


@every_call
def test_component_is_a_loop(directory: Path, name: str) -> None:
    with refused(errno.ELOOP):
        CALLS[name](directory / "loop" / "x", directory)


@every_call
def test_component_is_too_long(directory: Path, name: str) -> None:
    for path in ("n" * 256, "n" * 256 + "/x", "n" * 1000):
        with refused(errno.ENAMETOOLONG):
            CALLS[name](f"{directory}/{path}", directory)


@every_call
def test_longest_component_is_not_too_long(directory: Path, name: str) -> None:
    path = directory / ("n" * 255)
    if name in MAKES_NAMES:
        CALLS[name](path, directory)
    else:
        with refused(errno.ENOENT):
            CALLS[name](path, directory)


@every_call
def test_path_is_too_long(directory: Path, name: str) -> None:
    """PATH_MAX is 4096 with the NUL at the end."""
    path = f"{directory}/" + "./" * 2100 + "x"
    with refused(errno.ENAMETOOLONG):
        CALLS[name](path, directory)


@every_call
def test_long_path_that_fits(directory: Path, name: str) -> None:
    path = f"{directory}/" + "./" * 1950 + "missing"
    assert len(path) < 4096
    if name in MAKES_NAMES:
        CALLS[name](path, directory)
    else:
        with refused(errno.ENOENT):
            CALLS[name](path, directory)


@every_call
def test_component_may_not_be_searched(directory: Path, name: str) -> None:
    (directory / "closed").mkdir(0o700)
    make(directory / "closed" / "x")
    directory.chmod(0o777)
    with refused(errno.EACCES):
        as_user(CALLS[name], directory / "closed" / "x", directory)


@every_call
def test_slashes_and_dots_on_the_way(directory: Path, name: str) -> None:
    (directory / "sub").mkdir()
    path = f"{directory}//.///sub/..//sub/./../missing"
    if name in MAKES_NAMES:
        CALLS[name](path, directory)
    else:
        with refused(errno.ENOENT):
            CALLS[name](path, directory)


def test_deep_tree_by_relative_steps(directory: Path) -> None:
    """A tree whose whole path is longer than PATH_MAX, built and taken down from inside."""

    def run() -> None:
        os.chdir(directory)
        for _ in range(30):
            os.mkdir("d" * 200)
            os.chdir("d" * 200)
        make(Path("f"), b"deep")
        with open("f", "rb") as file:
            assert file.read() == b"deep"
        with refused(errno.ENAMETOOLONG, errno.ERANGE):
            os.stat(str(directory) + ("/" + "d" * 200) * 30)
        os.unlink("f")
        for _ in range(30):
            os.chdir("..")
            os.rmdir("d" * 200)

    as_user(run, uid=0)
    assert set(os.listdir(directory)) == {"file", "loop", "to-file"}


def test_bad_address(directory: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    for call in (
        lambda: libc.open(1, 0),
        lambda: libc.mkdir(1, 0o700),
        lambda: libc.unlink(1),
        lambda: libc.rename(1, 1),
    ):
        assert call() == -1
        assert ctypes.get_errno() == errno.EFAULT


def test_root_of_the_file_system_stays(directory: Path) -> None:
    """A mount point or a working directory's `..`: what cannot be removed or replaced from inside is not."""
    for path in (".", "..", f"{directory}/.", f"{directory}/.."):
        with refused(errno.EINVAL, errno.ENOTEMPTY, errno.EBUSY):
            os.rmdir(path)
