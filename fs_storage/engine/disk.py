"""The seam to the operating system: every call of the engine that touches files goes through a `Disk`.

`RealDisk` is the machine's. `tests/storage/engine/simulated_disk.py` is one that loses what was not synced.

Invariants the engine relies on:

* Bytes written are read back by the same boot of the machine, whatever becomes of the process.
* Bytes written before a `sync` of their file that succeeded are there after a crash; all others may be there, be lost
  or be torn, each write by itself, in any order. A file's name is durable after `sync_directory`.
* After a failed `sync` nothing is known: the caller fences.

Every method raises `OSError`.
"""

import ctypes
import errno
import fcntl
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

Bytes = bytes | bytearray | memoryview

IOVEC_MAX = 1024
"""Linux takes no more segments in one system call."""
NO_WAIT: int = getattr(os, "RWF_NOWAIT", 0)
PAGE = os.sysconf("SC_PAGE_SIZE")


class FileSystemSpace(NamedTuple):
    total_bytes: int
    free_bytes: int
    """What this process may still allocate."""


class Disk(Protocol):
    def probe(self, file: int) -> None:
        """Called once, with an open file, before the first read."""

    def boot_id(self) -> bytes:
        """16 bytes that change when the page cache is lost."""

    def exists(self, path: Path) -> bool: ...

    def list_directory(self, path: Path) -> list[str]: ...

    def make_directory(self, path: Path) -> None:
        """Existing is fine."""

    def open(self, path: Path, *, create: bool = False) -> int:
        """A descriptor for reading and writing."""

    def close(self, file: int) -> None: ...

    def size(self, file: int) -> int: ...

    def allocated_bytes(self, file: int) -> int:
        """What the file takes of the file system's space."""

    def read(self, file: int, buffers: Sequence[Any], offset: int, flags: int = 0) -> int:
        """`os.preadv`: bytes read; fewer where the file ends. With NO_WAIT: fewer, or BlockingIOError, where the
        bytes are not in memory."""

    def read_stored(self, file: int, buffer: memoryview, offset: int) -> int:
        """As `read` into one buffer, of what the device has and not of what is cached, where that is to be had.
        `buffer` and `offset` are aligned to `PAGE`, the buffer's length as well unless the file ends there."""

    def cached(self, file: int, offset: int, length: int) -> bool:
        """Whether reading would not wait for the device (as far as is known)."""

    def write(self, file: int, parts: Sequence[Bytes], offset: int) -> None:
        """Write all of `parts`, one after the other."""

    def start_writeback(self, file: int, offset: int, length: int) -> None:
        """A hint that the range will be synced soon."""

    def forget_cached(self, file: int) -> None:
        """Reads find what the device has, and no longer what the page cache has of writes that failed. The file is
        synced, and nobody has it mapped."""

    def allocate(self, file: int, offset: int, length: int) -> None:
        """Give the range storage; it reads as zeros where it had none. ENOSPC leaves the file's size as it was."""

    def punch(self, file: int, offset: int, length: int) -> None:
        """Take the range's storage away."""

    def truncate(self, file: int, length: int) -> None: ...

    def sync(self, file: int) -> None:
        """On return the file's bytes and its size are durable."""

    def sync_directory(self, path: Path) -> None: ...

    def rename(self, source: Path, target: Path) -> None: ...

    def remove(self, path: Path) -> None: ...

    def lock(self, file: int) -> None:
        """Exclusive for as long as the descriptor is open. BlockingIOError: another process has it."""

    def check_place(self, file: int, path: Path) -> None:
        """Raises `OSError` unless the open file is the one of that name, still or again."""

    def space(self, path: Path) -> FileSystemSpace: ...


class RealDisk:
    """The operating system's files."""

    def __init__(self) -> None:
        self.read: Callable[..., int] = os.preadv
        self.size = _size
        self.sync = os.fdatasync
        self.close = os.close

    def probe(self, file: int) -> None:
        """Learn from an open, not empty file what this file system can do."""
        try:
            os.preadv(file, (bytearray(1),), 0, NO_WAIT)
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            self.read = self._read_if_cached

    def _read_if_cached(self, file: int, buffers: Sequence[Any], offset: int, flags: int = 0) -> int:
        """`read` for file systems (and kernels) that do not know NO_WAIT."""
        if flags & NO_WAIT and not self.cached(file, offset, sum(map(len, buffers))):
            raise BlockingIOError
        return os.preadv(file, buffers, offset)

    def read_stored(self, file: int, buffer: memoryview, offset: int) -> int:
        try:
            direct = os.open(f"/proc/self/fd/{file}", os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
        except OSError:  # a file system that has no direct reads
            return os.preadv(file, (buffer,), offset)
        try:
            return os.preadv(direct, (buffer,), offset)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        finally:
            os.close(direct)
        return os.preadv(file, (buffer,), offset)

    def boot_id(self) -> bytes:
        return bytes.fromhex(Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", ""))

    def exists(self, path: Path) -> bool:
        return path.exists()

    def list_directory(self, path: Path) -> list[str]:
        return os.listdir(path)

    def make_directory(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)

    def open(self, path: Path, *, create: bool = False) -> int:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o640)

    def allocated_bytes(self, file: int) -> int:
        return os.fstat(file).st_blocks * 512

    def cached(self, file: int, offset: int, length: int) -> bool:
        return _cached(file, offset, length)

    def write(self, file: int, parts: Sequence[Bytes], offset: int) -> None:
        for first in range(0, len(parts), IOVEC_MAX):
            some = parts[first : first + IOVEC_MAX]
            wanted = sum(map(len, some))
            written = os.pwritev(file, some, offset)
            offset += written
            if written < wanted:
                self._write_rest(file, some, written, offset)
                offset += wanted - written

    def _write_rest(self, file: int, parts: Sequence[Bytes], written: int, offset: int) -> None:
        """The kernel may take part of a write only (2 GiB at once, or the disk is nearly full)."""
        rest = memoryview(b"".join(parts))[written:]
        while rest:
            written = os.pwrite(file, rest, offset)
            if written == 0:
                raise OSError(errno.EIO, "nothing could be written")
            rest = rest[written:]
            offset += written

    def start_writeback(self, file: int, offset: int, length: int) -> None:
        if _sync_file_range is not None:
            _sync_file_range(file, offset, length, 2)  # SYNC_FILE_RANGE_WRITE

    def forget_cached(self, file: int) -> None:
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)

    def allocate(self, file: int, offset: int, length: int) -> None:
        before = _size(file)
        try:
            os.posix_fallocate(file, offset, length)
        except OSError:
            if before < offset + length and _size(file) > before:
                os.ftruncate(file, before)
            raise

    def punch(self, file: int, offset: int, length: int) -> None:
        if _fallocate is None:
            return
        if _fallocate(file, 1 | 2, offset, length):  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
            number = ctypes.get_errno()
            if number not in (errno.EOPNOTSUPP, errno.ENOSYS):
                raise OSError(number, os.strerror(number))

    def truncate(self, file: int, length: int) -> None:
        os.ftruncate(file, length)

    def sync_directory(self, path: Path) -> None:
        file = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(file)
        finally:
            os.close(file)

    def rename(self, source: Path, target: Path) -> None:
        os.replace(source, target)

    def remove(self, path: Path) -> None:
        os.unlink(path)

    def lock(self, file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def check_place(self, file: int, path: Path) -> None:
        if not os.path.samestat(os.stat(path), os.fstat(file)):
            raise OSError(errno.ESTALE, "another directory is in its place", os.fspath(path))

    def space(self, path: Path) -> FileSystemSpace:
        stats = os.statvfs(path)
        return FileSystemSpace(stats.f_blocks * stats.f_frsize, stats.f_bavail * stats.f_frsize)


def _size(file: int) -> int:
    return os.fstat(file).st_size


# --- system calls that Python does not have -------------------------------------------------------------------------

_CACHESTAT = 451


class _Range(ctypes.Structure):
    _fields_ = (("offset", ctypes.c_uint64), ("length", ctypes.c_uint64))


class _CacheStatus(ctypes.Structure):
    _fields_ = (
        ("cached", ctypes.c_uint64),
        ("dirty", ctypes.c_uint64),
        ("writeback", ctypes.c_uint64),
        ("evicted", ctypes.c_uint64),
        ("recently_evicted", ctypes.c_uint64),
    )


def _function(name: str, *types: Any) -> Any:
    """A function of the C library, or None where it has none of that name."""
    try:
        found = getattr(ctypes.CDLL(None, use_errno=True), name)
    except (OSError, AttributeError):
        return None
    found.argtypes = types
    return found


_off_t = ctypes.c_int64
_syscall = _function("syscall", ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint)
_sync_file_range = _function("sync_file_range", ctypes.c_int, _off_t, _off_t, ctypes.c_uint)
_fallocate = _function("fallocate", ctypes.c_int, ctypes.c_int, _off_t, _off_t)

_range = _Range()
_status = _CacheStatus()
_range_at = ctypes.addressof(_range)
_status_at = ctypes.addressof(_status)


def _cached_by_cachestat(file: int, offset: int, length: int) -> bool:
    """All pages are in the page cache. Called on the event loop only: the structures are shared."""
    _range.offset = offset
    _range.length = length
    if _syscall(_CACHESTAT, file, _range_at, _status_at, 0):
        return _cached_by_probe(file, offset, length)
    pages = (offset + length + PAGE - 1) // PAGE - offset // PAGE
    return bool(_status.cached >= pages)


def _cached_by_probe(file: int, offset: int, length: int) -> bool:
    """The first and the last byte are in the page cache, so the rest most likely is."""
    byte = bytearray(1)
    try:
        return bool(
            os.preadv(file, (byte,), offset, NO_WAIT) and os.preadv(file, (byte,), offset + length - 1, NO_WAIT)
        )
    except OSError:  # not in memory, or not to be known here
        return False


def _has_cachestat() -> bool:
    if _syscall is None:
        return False
    ctypes.set_errno(0)
    return not (_syscall(_CACHESTAT, -1, _range_at, _status_at, 0) and ctypes.get_errno() == errno.ENOSYS)


_cached = _cached_by_cachestat if _has_cachestat() else _cached_by_probe
