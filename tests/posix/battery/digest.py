"""A tree as lines that say everything about it that a copy has to keep, so that two trees can be compared.

Times of directories and files in nanoseconds, modes, owners, contents, targets, devices, extended attributes, and which
names are one file. Not kept by copies, so not compared: inode numbers, ctime, atime, blocks.
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

_PIECE = 1 << 20


def describe(root: Path, *, times: bool = True, owners: bool = True) -> list[str]:
    """One line for each name below `root` and for `root` itself, sorted by name."""
    groups: dict[tuple[int, int], str] = {}
    lines = []
    for path in sorted(_walk(root)):
        status = os.lstat(path)
        name = os.path.relpath(path, os.fsencode(root))
        words = [repr(name), f"{stat.filemode(status.st_mode)}", f"{stat.S_IMODE(status.st_mode):o}"]
        if owners:
            words.append(f"{status.st_uid}:{status.st_gid}")
        if times:
            words.append(f"mtime={status.st_mtime_ns}")
        words += _content(path, status)
        words += [f"{key}={os.getxattr(path, key, follow_symlinks=False)!r}" for key in _attributes(path)]
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            words.append(f"same-as={groups.setdefault((status.st_dev, status.st_ino), repr(name))}")
        lines.append(" ".join(words))
    return lines


def difference(first: list[str], second: list[str], shown: int = 10) -> str | None:
    """What is in one and not in the other, or None."""
    gone, new = sorted(set(first) - set(second)), sorted(set(second) - set(first))
    if not gone and not new:
        return None
    return "\n".join([*(f"- {line}" for line in gone[:shown]), *(f"+ {line}" for line in new[:shown])])


def _walk(root: Path) -> Iterator[bytes]:
    waiting = [os.fsencode(root)]
    while waiting:
        path = waiting.pop()
        yield path
        if stat.S_ISDIR(os.lstat(path).st_mode):
            waiting += [os.path.join(path, name) for name in os.listdir(path)]


def _content(path: bytes, status: os.stat_result) -> list[str]:
    match stat.S_IFMT(status.st_mode):
        case stat.S_IFREG:
            digest = hashlib.sha256()
            with open(path, "rb", buffering=0) as file:
                while piece := file.read(_PIECE):
                    digest.update(piece)
            return [f"size={status.st_size}", digest.hexdigest()]
        case stat.S_IFLNK:
            return [f"to={os.readlink(path)!r}"]
        case stat.S_IFCHR | stat.S_IFBLK:
            return [f"device={status.st_rdev}"]
        case _:
            return []


def _attributes(path: bytes) -> list[str]:
    return sorted(name for name in os.listxattr(path, follow_symlinks=False) if name.startswith(("user.", "trusted.")))
