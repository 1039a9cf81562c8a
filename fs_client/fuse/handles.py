"""Open files and directories, by the number (`fh`) that the kernel knows them by.

Numbers are never used twice while a daemon lives, nor by the one that takes its place (`next_number` is handed over),
so a request of a handle that is gone is recognised.
"""

import asyncio
import os

from fs_client.fuse.files import File
from fs_client.fuse.listing import Listing
from fs_common.errors import Code, EmberError
from fs_common.records.meta import User


class Handle:
    """An open file description."""

    __slots__ = ("append", "direct", "error_seen", "file", "flags", "lock_owners", "number", "session", "user")

    def __init__(self, number: int, file: File, flags: int, user: User, session: bytes) -> None:
        self.number = number
        self.file = file
        self.flags = flags
        """`O_*`, as it was opened; what a write is asked for comes with it."""
        self.user = user
        """Who opened it."""
        self.session = session
        """Of the metadata service; empty: none (opened for reading, or ended by a flush until it writes again)."""
        self.direct = False
        """Reads and writes pass the kernel's page cache by."""
        self.append = bool(flags & os.O_APPEND)
        """It was opened for appending."""
        self.error_seen = file.error_count
        """Errors of the file up to this one are no concern of this handle."""
        self.lock_owners: set[tuple[int, int]] = set()
        """(kind, owner) of the locks that were taken through it."""

    @property
    def writable(self) -> bool:
        return self.flags & os.O_ACCMODE != os.O_RDONLY

    @property
    def readable(self) -> bool:
        return self.flags & os.O_ACCMODE != os.O_WRONLY


class DirectoryHandle:
    """An open directory."""

    __slots__ = ("ahead", "inode", "listing", "number", "parent", "user")

    def __init__(self, number: int, inode: int, user: User) -> None:
        self.number = number
        self.inode = inode
        self.user = user
        self.listing = Listing()
        """As of its last start (`rewinddir` begins another). The cookie of an entry is its place plus 3 (`.` is 1, and
        `..` 2): where the next one begins."""
        self.parent = 0
        """Inode of `..`; 0: not known yet."""
        self.ahead: asyncio.Task[None] | None = None
        """A task that fetches the next page."""

    def restart(self) -> None:
        self.listing = Listing()


class Handles:
    def __init__(self) -> None:
        self.next_number = 1
        self.files: dict[int, Handle] = {}
        self.directories: dict[int, DirectoryHandle] = {}

    def open_file(self, file: File, flags: int, user: User, session: bytes) -> Handle:
        number = self.next_number
        self.next_number += 1
        handle = self.files[number] = Handle(number, file, flags, user, session)
        file.handles.add(handle)
        return handle

    def open_directory(self, inode: int, user: User) -> DirectoryHandle:
        number = self.next_number
        self.next_number += 1
        handle = self.directories[number] = DirectoryHandle(number, inode, user)
        return handle

    def file(self, number: int) -> Handle:
        """Raises BAD_SESSION (EBADF)."""
        handle = self.files.get(number)
        if handle is None:
            raise EmberError(Code.BAD_SESSION, f"no open file has the handle {number}")
        return handle

    def directory(self, number: int) -> DirectoryHandle:
        handle = self.directories.get(number)
        if handle is None:
            raise EmberError(Code.BAD_SESSION, f"no open directory has the handle {number}")
        return handle
