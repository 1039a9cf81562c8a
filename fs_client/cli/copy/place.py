"""What the copying engine needs of a file system. Both kinds raise `OSError`, with the path as its filename."""

import enum
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol


class Type(enum.Enum):
    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symbolic link"
    OTHER = "neither a file nor a directory nor a symbolic link"


@dataclass(frozen=True, slots=True)
class Item:
    """Something to copy."""

    name: str
    """The last component of its path."""
    type: Type
    size: int
    """Bytes; of a file."""
    mode: int
    """Permission bits, set-id bits included."""
    uid: int
    gid: int
    atime_ns: int
    mtime_ns: int
    identity: tuple[int, int]
    """(device, inode): equal for two names of one file of one `Place`."""


class Reader(Protocol):
    """An open file."""

    size: int
    """When it was opened."""

    async def read_into(self, offset: int, view: memoryview) -> int:
        """Fill `view` as far as the file goes; returns the bytes."""

    async def close(self) -> None: ...


SET_ID_BITS = 0o7000
"""Of a mode: what gives a file's owner and group to whoever runs it, and the sticky bit."""


class Writer(Protocol):
    async def write(self, offset: int, view: memoryview) -> None:
        """Write all of it; `view` is free again on return."""

    async def finish(self) -> None:
        """All is written. Raises if anything of it may not be there."""

    async def set_attributes(self, item: Item) -> None:
        """As `Place.set_attributes`, of the file that was written; after `finish`."""

    async def close(self) -> None: ...


class Place(Protocol):
    """A file system, as far as it is one side of a copy. Paths are absolute for a cluster, anything for the local one.

    What the user has named, the top, may be a symbolic link. Below it no call goes through one: who owns a directory
    in the tree may have put it there, or puts it there between two calls.
    """

    @property
    def identity(self) -> object:
        """Equal for two that are the same file system."""

    def show(self, path: str) -> str:
        """The path as the user would write it."""

    async def look(self, path: str, *, follow: bool) -> Item | None:
        """None: there is nothing. `follow` counts for the top alone."""

    def list(self, path: str) -> AsyncGenerator[Item, None]:
        """What is in a directory, symbolic links not followed."""

    async def read_link(self, path: str) -> str: ...

    async def make_directory(self, path: str, mode: int) -> None: ...

    async def make_symlink(self, target: str, path: str) -> None: ...

    async def open_to_read(self, path: str) -> Reader: ...

    async def open_to_write(self, path: str, mode: int, *, exclusive: bool) -> Writer:
        """Make the file, or empty the one that is there. Below the top a symbolic link in its place is replaced.

        `exclusive`: what is there, a link too, stays, and raises FileExistsError.
        """

    async def remove(self, path: str) -> None:
        """A file or a symbolic link."""

    async def set_attributes(self, path: str, item: Item) -> None:
        """Give it the item's owner and group as far as we may, then its permission bits, and its times.

        The set-id and sticky bits go with the owner and group: where these cannot be set, those are not.
        """
