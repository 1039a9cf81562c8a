"""security.capability: kept, and gone when the bytes or the owner of the file change."""

import errno
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.posix.files import make, opened, refused
from tests.posix.people import ALICE, as_user, needs_root
from tests.posix.subject import Subject

NAME = "security.capability"
NET_BIND_SERVICE = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
"""Version 2, effective: one permitted capability."""


def capable(path: Path) -> Path:
    needs_root()
    make(path, b"#!/bin/true\n", 0o777)
    os.setxattr(path, NAME, NET_BIND_SERVICE)
    return path


def test_kept(subject: Subject) -> None:
    path = capable(subject.path / "f")
    assert os.getxattr(path, NAME) == NET_BIND_SERVICE
    assert os.getxattr(subject.other / "f", NAME) == NET_BIND_SERVICE
    os.chmod(path, 0o755)
    os.utime(path)
    path.rename(subject.path / "g")
    assert os.getxattr(subject.path / "g", NAME) == NET_BIND_SERVICE
    os.removexattr(subject.path / "g", NAME)
    with refused(errno.ENODATA):
        os.getxattr(subject.path / "g", NAME)


def test_only_who_may_sets_them(directory: Path) -> None:
    path = capable(directory / "f")
    os.chown(path, ALICE, ALICE)
    with refused(errno.EPERM):
        as_user(os.setxattr, path, NAME, NET_BIND_SERVICE)


def write(path: Path, flags: int = 0) -> None:
    with opened(path, os.O_WRONLY | flags) as descriptor:
        os.write(descriptor, b"x")


def write_and_read(path: Path) -> None:
    with opened(path, os.O_RDWR) as descriptor:
        os.pwrite(descriptor, b"x", 3)


CHANGES: dict[str, Callable[[Path], object]] = {
    "write": write,
    "write to who reads too": write_and_read,
    "append": lambda path: write(path, os.O_APPEND),
    "truncate": lambda path: os.truncate(path, 3),
    "open to truncate": lambda path: write(path, os.O_TRUNC),
}


@pytest.mark.parametrize("privileged", [False, True])
@pytest.mark.parametrize("change", list(CHANGES))
def test_gone_when_the_bytes_change(directory: Path, change: str, privileged: bool) -> None:
    path = capable(directory / "f")
    if privileged:
        CHANGES[change](path)
    else:
        as_user(CHANGES[change], path)
    with refused(errno.ENODATA):
        os.getxattr(path, NAME)


def test_gone_when_the_owner_changes(directory: Path) -> None:
    path = capable(directory / "f")
    os.chown(path, ALICE, -1)
    with refused(errno.ENODATA):
        os.getxattr(path, NAME)
