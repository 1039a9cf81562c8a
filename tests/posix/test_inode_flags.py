"""Immutable and append-only files: the flags that chattr(1) sets. Without them it is ENOTTY or EOPNOTSUPP."""

import contextlib
import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.posix.calls import FS_APPEND_FL, FS_IMMUTABLE_FL, FS_IOC_GETFLAGS, FS_IOC_SETFLAGS
from tests.posix.files import make, opened, read_all, refused
from tests.posix.people import ALICE, as_user, needs_root
from tests.posix.subject import Subject


def flags_of(path: Path) -> int:
    with opened(path) as descriptor:
        return int(struct.unpack("l", fcntl.ioctl(descriptor, FS_IOC_GETFLAGS, bytes(8)))[0]) & 0xFFFFFFFF


def set_flags(path: Path, flags: int) -> None:
    with opened(path) as descriptor:
        fcntl.ioctl(descriptor, FS_IOC_SETFLAGS, struct.pack("l", flags))


@contextlib.contextmanager
def flagged(subject: Subject, path: Path, flag: int) -> Iterator[None]:
    needs_root()
    try:
        before = flags_of(path)
        set_flags(path, before | flag)
    except OSError as error:
        if subject.kind != "mount" and error.errno in (errno.ENOTTY, errno.EOPNOTSUPP):
            pytest.skip("this file system has no such flags")
        raise
    try:
        yield
    finally:
        set_flags(path, before)


def test_immutable_file(subject: Subject) -> None:
    path = make(subject.path / "f", b"abc")
    with flagged(subject, path, FS_IMMUTABLE_FL):
        assert flags_of(path) & FS_IMMUTABLE_FL
        assert path.read_bytes() == b"abc"
        for call in (
            lambda: os.open(path, os.O_WRONLY),
            lambda: os.truncate(path, 0),
            lambda: os.unlink(path),
            lambda: os.rename(path, subject.path / "g"),
            lambda: os.link(path, subject.path / "g"),
            lambda: os.chmod(path, 0o600),
            lambda: os.chown(path, ALICE, ALICE),
            lambda: os.utime(path, (1, 1)),
            lambda: os.setxattr(path, "user.x", b"1"),
        ):
            with refused(errno.EPERM, errno.EACCES):
                call()
    path.unlink()


def test_append_only_file(subject: Subject) -> None:
    path = make(subject.path / "f", b"abc")
    with flagged(subject, path, FS_APPEND_FL):
        for call in (lambda: os.open(path, os.O_WRONLY), lambda: os.truncate(path, 0), lambda: os.unlink(path)):
            with refused(errno.EPERM):
                call()
        with refused(errno.EPERM):
            os.open(path, os.O_WRONLY | os.O_APPEND | os.O_TRUNC)
        with opened(path, os.O_RDWR | os.O_APPEND) as descriptor:
            os.write(descriptor, b"def")
            assert read_all(descriptor) == b"abcdef"
    path.unlink()


def test_immutable_directory(subject: Subject) -> None:
    path = subject.path / "d"
    path.mkdir()
    make(path / "f", b"abc")
    with flagged(subject, path, FS_IMMUTABLE_FL):
        for call in (lambda: make(path / "g"), lambda: os.unlink(path / "f"), lambda: os.mkdir(path / "h")):
            with refused(errno.EPERM, errno.EACCES):
                call()
        with opened(path / "f", os.O_WRONLY) as descriptor:
            os.write(descriptor, b"A")
    assert (path / "f").read_bytes() == b"Abc"


def test_set_by_root_alone(subject: Subject) -> None:
    needs_root()
    path = make(subject.path / "f")
    os.chown(path, ALICE, ALICE)
    with flagged(subject, path, 0):
        with refused(errno.EPERM):
            as_user(set_flags, path, flags_of(path) | FS_IMMUTABLE_FL, uid=ALICE)


def test_unknown_ioctl(subject: Subject) -> None:
    with opened(make(subject.path / "f")) as descriptor, refused(errno.ENOTTY, errno.ENOSYS, errno.EOPNOTSUPP):
        fcntl.ioctl(descriptor, 0x4004DEAD, bytes(4))
