"""Record locks as fcntl(2) has them: packed, asked for, described."""

import fcntl
import os
import struct
from typing import NamedTuple

from tests.posix import calls

READ, WRITE, NONE = fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK
FLOCK = struct.Struct("=hh4xqqi4x")
"""struct flock on 64-bit Linux: type, whence, start, length, process"""


class Lock(NamedTuple):
    type: int
    start: int
    length: int
    """0: to the end of the file, however long it becomes"""
    pid: int


def lock(descriptor: int, kind: int, start: int = 0, length: int = 0, whence: int = os.SEEK_SET) -> None:
    """F_SETLK: at once or EAGAIN."""
    calls.fcntl(descriptor, fcntl.F_SETLK, FLOCK.pack(kind, whence, start, length, 0))


def wait_lock(descriptor: int, kind: int, start: int = 0, length: int = 0) -> None:
    """F_SETLKW: waits; EINTR at a signal."""
    calls.fcntl(descriptor, fcntl.F_SETLKW, FLOCK.pack(kind, os.SEEK_SET, start, length, 0))


def ask(descriptor: int, kind: int, start: int = 0, length: int = 0) -> Lock | None:
    """F_GETLK: one lock that is in the way, or None."""
    return _described(calls.fcntl(descriptor, fcntl.F_GETLK, FLOCK.pack(kind, os.SEEK_SET, start, length, 0)))


def ofd_lock(descriptor: int, kind: int, start: int = 0, length: int = 0) -> None:
    calls.fcntl(descriptor, calls.F_OFD_SETLK, FLOCK.pack(kind, os.SEEK_SET, start, length, 0))


def ofd_wait_lock(descriptor: int, kind: int, start: int = 0, length: int = 0) -> None:
    calls.fcntl(descriptor, calls.F_OFD_SETLKW, FLOCK.pack(kind, os.SEEK_SET, start, length, 0))


def ofd_ask(descriptor: int, kind: int, start: int = 0, length: int = 0) -> Lock | None:
    return _described(calls.fcntl(descriptor, calls.F_OFD_GETLK, FLOCK.pack(kind, os.SEEK_SET, start, length, 0)))


def _described(answer: bytes) -> Lock | None:
    kind, whence, start, length, pid = FLOCK.unpack(answer)
    if kind == NONE:
        return None
    assert whence == os.SEEK_SET
    return Lock(kind, start, length, pid)
