"""Files of a cluster's directory that are ours: not another user's, and not behind a symbolic link.

Whoever may put names into the directory decides what is written where, and `cluster.json` names the processes that
`emberfs down` ends. So the directory and what is read and written in it belong to the effective user, and nobody else
may make names in it. Then nothing changes between a look and an open.

Called by: the modules of this folder, and `up`.
"""

import os
import stat
from pathlib import Path

from fs_client.cli.failure import Failure


def require_our_directory(path: Path) -> None:
    """Raise `Failure` unless `path` is (or leads to) a directory of the effective user that others cannot write.

    A path that is not there is left to the caller. Raises `OSError`.
    """
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return
    _require_owner(path, found)
    if found.st_mode & stat.S_IWOTH:
        raise Failure(f"{path} can be written by everybody: `chmod o-w {path}`, or pick another with --dir DIR")


def require_our_name(path: Path) -> None:
    """Raise `Failure` if `path`, or the symbolic link in its place, is another user's. Raises `OSError`."""
    try:
        _require_owner(path, os.lstat(path))
    except FileNotFoundError:
        return


def make_our_directory(path: Path) -> None:
    """Make it, or check that it is ours and no symbolic link. Raises `Failure`, `OSError`."""
    path.mkdir(exist_ok=True)
    found = os.lstat(path)
    _require_owner(path, found)
    if not stat.S_ISDIR(found.st_mode):
        raise Failure(f"{path} is a symbolic link: remove it, or pick another directory with --dir DIR")


def open_ours(path: Path, flags: int) -> int:
    """A descriptor of a regular file of the effective user. Raises `Failure`, `OSError`."""
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o644)
    except OSError:
        if path.is_symlink():
            raise Failure(f"{path} is a symbolic link: remove it, or pick another directory with --dir DIR") from None
        raise
    try:
        found = os.fstat(descriptor)
        _require_owner(path, found)
        if not stat.S_ISREG(found.st_mode):
            raise Failure(f"{path} is not a file: remove it, or pick another directory with --dir DIR")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_ours(path: Path) -> bytes:
    """Raises `Failure`, `OSError`."""
    with open(open_ours(path, os.O_RDONLY), "rb") as file:
        return file.read()


def create_ours(path: Path) -> int:
    """A descriptor of a new, empty file in the place of whatever was there. Raises `OSError`."""
    path.unlink(missing_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)


def append_ours(path: Path) -> int:
    """A descriptor that appends to a file, made if it is missing. Raises `Failure`, `OSError`."""
    return open_ours(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def _require_owner(path: Path, found: os.stat_result) -> None:
    if found.st_uid != os.geteuid():
        raise Failure(
            f"{path} belongs to user {found.st_uid}, and this runs as user {os.geteuid()}: run it as that user, or "
            "pick another with --dir DIR"
        )
