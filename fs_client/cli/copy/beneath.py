"""Opening what is below a directory without ever leaving it: no component of the way there is a symbolic link.

Whoever may write into a tree that somebody else copies can put a link where a directory was, between any two looks at
it. So nothing below the top of a copy is named by its whole path: its directory is opened from the top, component by
component (the kernel does that in one call where it can), and the last name is used relative to that.
"""

import contextlib
import ctypes
import errno
import os
import struct
from collections.abc import Iterator

_OPENAT2 = 437
"""The number of the system call, the same on every architecture."""
_RESOLVE = 0x02 | 0x04 | 0x08
"""RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH."""
_HOW = struct.Struct("=QQQ")
"""`struct open_how`: flags, mode, resolve."""
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_REFUSALS = frozenset({errno.ENOSYS, errno.EPERM, errno.EINVAL, errno.E2BIG, errno.EAGAIN, errno.ENAMETOOLONG})
"""Errors of openat2 after which the way is walked: an old kernel, a sandbox, a path that is too long for one call."""
_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def directory_beneath(top: str, path: str) -> Iterator[int]:
    """A descriptor (`O_PATH`) of the directory `path`, relative to `top`; empty: `top` itself, which may be a link.

    Raises `OSError`: ELOOP or ENOTDIR where a symbolic link or a file stands in the way.
    """
    descriptor = os.open(top, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if path:
            at_top, descriptor = descriptor, -1
            try:
                descriptor = _open_beneath(at_top, path)
            finally:
                os.close(at_top)
        yield descriptor
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _open_beneath(at: int, path: str) -> int:
    try:
        return _openat2(at, path)
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
    return _walk(at, path)


def _openat2(at: int, path: str) -> int:
    how = _HOW.pack(_DIRECTORY, 0, _RESOLVE)
    opened = _libc.syscall(_OPENAT2, at, os.fsencode(path), how, ctypes.c_size_t(len(how)))
    if opened < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(opened)


def _walk(at: int, path: str) -> int:
    """As `_openat2`, one component after the other."""
    descriptor = os.dup(at)
    try:
        for name in path.split("/"):
            if name in ("", "."):
                continue
            if name == "..":
                raise OSError(errno.EXDEV, "leads out of the tree")
            below = os.open(name, _DIRECTORY, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
