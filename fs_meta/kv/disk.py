"""The seam to the operating system for the journal's files. `RealDisk` is the machine's.

Invariants the journal relies on:

* Bytes written are read back by the same boot of the machine, whatever becomes of the process.
* Bytes written before a `sync` of their file that succeeded are there after a crash of the machine; all others may be
  there, be lost or be torn, each write by itself, in any order. A file's name is durable after `sync_directory`.
* After a failed `sync` nothing is known: the caller fences.

Every method raises `OSError`.
"""

import errno
import os
from pathlib import Path
from typing import Protocol


class Disk(Protocol):
    def open(self, path: Path, *, create: bool = False) -> int:
        """A descriptor for reading and writing. `create`: made, or emptied."""

    def close(self, file: int) -> None: ...

    def size(self, file: int) -> int: ...

    def read(self, file: int, length: int, offset: int) -> bytes:
        """Fewer bytes only where the file ends."""

    def write(self, file: int, data: bytes, offset: int) -> None:
        """Write all of it, with one system call. ENOSPC: a part of it may be written."""

    def sync(self, file: int) -> None:
        """On return the file's bytes and its size are durable."""

    def sync_directory(self, path: Path) -> None: ...

    def forget_cached(self, file: int) -> None:
        """Reads find what the device has, and no longer what the page cache has of writes that failed. The file is
        synced, and nobody has it mapped."""

    def free_bytes(self, path: Path) -> int:
        """What this process may still allocate on the file system of `path`."""


class RealDisk:
    """The operating system's files."""

    def open(self, path: Path, *, create: bool = False) -> int:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT | os.O_TRUNC if create else 0), 0o600)

    def close(self, file: int) -> None:
        os.close(file)

    def size(self, file: int) -> int:
        return os.fstat(file).st_size

    def read(self, file: int, length: int, offset: int) -> bytes:
        parts = []
        while length > 0:
            part = os.pread(file, length, offset)
            if not part:
                break
            parts.append(part)
            length -= len(part)
            offset += len(part)
        return b"".join(parts)

    def write(self, file: int, data: bytes, offset: int) -> None:
        if os.pwrite(file, data, offset) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def sync(self, file: int) -> None:
        os.fdatasync(file)

    def sync_directory(self, path: Path) -> None:
        file = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(file)
        finally:
            os.close(file)

    def forget_cached(self, file: int) -> None:
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)

    def free_bytes(self, path: Path) -> int:
        stats = os.statvfs(path)
        return stats.f_bavail * stats.f_frsize
