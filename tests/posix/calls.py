"""System calls that Python's `os` lacks, or lacks a part of. All raise OSError with the kernel's errno."""

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.posix.files import AnyPath

_libc = ctypes.CDLL(None, use_errno=True)

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_EACCESS = 0x200
AT_REMOVEDIR = 0x200
AT_SYMLINK_FOLLOW = 0x400
AT_STATX_FORCE_SYNC = 0x2000
AT_EMPTY_PATH = 0x1000
RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_COLLAPSE_RANGE = 0x01, 0x02, 0x08
FALLOC_FL_ZERO_RANGE, FALLOC_FL_INSERT_RANGE, FALLOC_FL_UNSHARE_RANGE = 0x10, 0x20, 0x40
UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2
STATX_MODE, STATX_BASIC_STATS, STATX_BTIME = 0x2, 0x7FF, 0x800
F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW = 36, 37, 38
FS_IOC_GETFLAGS, FS_IOC_SETFLAGS = 0x80086601, 0x40086602
FS_IMMUTABLE_FL, FS_APPEND_FL = 0x10, 0x20
NUMBERS = {"fcntl": 72, "flock": 73, "openat": 257, "read": 0, "open": 2}
"""Of system calls, as /proc/PID/syscall tells them (x86-64)."""

_SYS_STATX, _SYS_FACCESSAT2, _SYS_FCHMODAT2 = 332, 439, 452


def _checked(result: int, path: AnyPath | None = None) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), None if path is None else os.fspath(path))
    return result


def _bytes(path: AnyPath) -> bytes:
    return os.fsencode(path)


def renameat2(
    old: AnyPath, new: AnyPath, flags: int, old_directory: int = AT_FDCWD, new_directory: int = AT_FDCWD
) -> None:
    _checked(_libc.renameat2(old_directory, _bytes(old), new_directory, _bytes(new), ctypes.c_uint(flags)), old)


def linkat(
    old: AnyPath, new: AnyPath, flags: int = 0, *, old_directory: int = AT_FDCWD, new_directory: int = AT_FDCWD
) -> None:
    _checked(_libc.linkat(old_directory, _bytes(old), new_directory, _bytes(new), flags), old)


def unlinkat(path: AnyPath, flags: int, directory: int = AT_FDCWD) -> None:
    _checked(_libc.unlinkat(directory, _bytes(path), flags), path)


def fallocate(descriptor: int, mode: int, offset: int, length: int) -> None:
    _checked(_libc.fallocate(descriptor, mode, ctypes.c_int64(offset), ctypes.c_int64(length)))


def copy_file_range(
    source: int, source_offset: int | None, target: int, target_offset: int | None, count: int, flags: int = 0
) -> int:
    offsets = [None if one is None else ctypes.byref(ctypes.c_int64(one)) for one in (source_offset, target_offset)]
    call = _libc.copy_file_range
    call.restype = ctypes.c_ssize_t
    return _checked(call(source, offsets[0], target, offsets[1], ctypes.c_size_t(count), ctypes.c_uint(flags)))


def utimensat(
    path: AnyPath | None,
    accessed: tuple[int, int],
    modified: tuple[int, int],
    flags: int = 0,
    directory: int = AT_FDCWD,
) -> None:
    """Times are (seconds, nanoseconds or UTIME_NOW or UTIME_OMIT); without a path, of the descriptor `directory`."""
    times = (ctypes.c_long * 4)(*accessed, *modified)
    if path is None:
        _checked(_libc.futimens(directory, times))
    else:
        _checked(_libc.utimensat(directory, _bytes(path), times, flags), path)


def faccessat2(path: AnyPath, mode: int, flags: int = 0, directory: int = AT_FDCWD) -> None:
    _checked(_libc.syscall(_SYS_FACCESSAT2, directory, _bytes(path), mode, flags), path)


def fchmodat2(path: AnyPath, mode: int, flags: int = 0, directory: int = AT_FDCWD) -> None:
    _checked(_libc.syscall(_SYS_FCHMODAT2, directory, _bytes(path), mode, flags), path)


def syncfs(descriptor: int) -> None:
    _checked(_libc.syncfs(descriptor))


def fcntl(descriptor: int, command: int, argument: bytes) -> bytes:
    """Unlike Python's it is not called again after a signal, so EINTR can be seen."""
    memory = ctypes.create_string_buffer(argument, len(argument))
    _checked(_libc.fcntl(descriptor, command, memory))
    return memory.raw


def flock(descriptor: int, operation: int) -> None:
    """Not called again after a signal."""
    _checked(_libc.flock(descriptor, operation))


class Statx(NamedTuple):
    mask: int
    block_size: int
    attributes: int
    links: int
    uid: int
    gid: int
    mode: int
    inode: int
    size: int
    blocks: int
    accessed: int
    """ns, as the three below"""
    born: int
    changed: int
    modified: int


_STATX = struct.Struct("=IIQIIIH2xQQQQ" + "qI4x" * 4)


def statx(
    path: AnyPath, flags: int = 0, mask: int = STATX_BASIC_STATS | STATX_BTIME, directory: int = AT_FDCWD
) -> Statx:
    memory = ctypes.create_string_buffer(256)
    _checked(_libc.syscall(_SYS_STATX, directory, _bytes(path), flags, mask, memory), path)
    fields = _STATX.unpack_from(memory)
    times = fields[11:]
    nanoseconds = [times[i] * 1_000_000_000 + times[i + 1] for i in range(0, 8, 2)]
    mask_, block_size, attributes, links, uid, gid, mode, inode, size, blocks, _ = fields[:11]
    return Statx(mask_, block_size, attributes, links, uid, gid, mode, inode, size, blocks, *nanoseconds)


class _Dirent(ctypes.Structure):
    _fields_ = [
        ("inode", ctypes.c_uint64),
        ("offset", ctypes.c_int64),
        ("length", ctypes.c_ushort),
        ("type", ctypes.c_ubyte),
        ("name", ctypes.c_char * 256),
    ]


class Entry(NamedTuple):
    name: bytes
    inode: int
    type: int
    """DT_REG and so on"""


class DirectoryStream:
    """opendir(3) and what belongs to it, with the position that Python hides."""

    def __init__(self, path: AnyPath) -> None:
        _libc.opendir.restype = ctypes.c_void_p
        stream = _libc.opendir(_bytes(path))
        if stream is None:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), os.fspath(path))
        self._stream = ctypes.c_void_p(stream)

    def read(self) -> Entry | None:
        """The next entry, None at the end."""
        _libc.readdir64.restype = ctypes.POINTER(_Dirent)
        ctypes.set_errno(0)
        found = _libc.readdir64(self._stream)
        if not found:
            if number := ctypes.get_errno():
                raise OSError(number, os.strerror(number))
            return None
        entry = found.contents
        return Entry(ctypes.string_at(ctypes.addressof(entry) + _Dirent.name.offset), entry.inode, entry.type)

    def rest(self) -> Iterator[Entry]:
        while (entry := self.read()) is not None:
            yield entry

    def tell(self) -> int:
        _libc.telldir.restype = ctypes.c_long
        return _checked(_libc.telldir(self._stream))

    def seek(self, position: int) -> None:
        _libc.seekdir(self._stream, ctypes.c_long(position))

    def rewind(self) -> None:
        _libc.rewinddir(self._stream)

    def close(self) -> None:
        if self._stream:
            _checked(_libc.closedir(self._stream))
            self._stream = ctypes.c_void_p()

    def __enter__(self) -> "DirectoryStream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def getdents(descriptor: int, size: int) -> bytes:
    """Raw entries: the memory that the kernel filled."""
    memory = ctypes.create_string_buffer(size)
    got = _checked(_libc.syscall(217, descriptor, memory, ctypes.c_uint(size)))
    return memory.raw[:got]


def raw_open(path: bytes, flags: int, mode: int = 0) -> int:
    """open(2) with the bytes and flags as they are (Python adds O_CLOEXEC and checks for NUL)."""
    return _checked(_libc.open(path, flags, mode))


def unsupported(error: OSError) -> bool:
    """The file system says that it does not have this operation at all."""
    return error.errno in (errno.EOPNOTSUPP, errno.ENOSYS)


def procfd(descriptor: int) -> Path:
    return Path(f"/proc/self/fd/{descriptor}")
