"""Directory entries: what a listing told of one name, and for programs what `os.DirEntry` has.

A listing tells the type of the entry itself. What a symbolic link leads to is looked up when it is asked for
(`DirEntry`), or page by page (`AsyncDirEntry`, whose `is_dir` and `is_file` are no coroutines for that reason).
"""

import os
from typing import TYPE_CHECKING, Any

from fs_client.stat_result import StatResult
from fs_common.records.meta import DirectoryEntry, FileType

if TYPE_CHECKING:
    from fs_client.blocking_names import BlockingNames
    from fs_client.namespace import Namespace


class ListedEntry:
    """One name of a directory, as listed."""

    __slots__ = ("_entry", "_folder", "name")

    def __init__(self, entry: DirectoryEntry, folder: str | bytes) -> None:
        self._entry = entry
        self._folder = folder
        self.name: Any = entry.name if isinstance(folder, bytes) else os.fsdecode(entry.name)
        """`str`, or `bytes` where the directory was named in bytes."""

    @property
    def path(self) -> Any:
        return os.path.join(self._folder, self.name)

    def inode(self) -> int:
        return self._entry.inode

    @property
    def type(self) -> FileType:
        """Of the entry itself: symbolic links are not followed."""
        return self._entry.type

    @property
    def attributes(self) -> StatResult | None:
        """As of the listing; None where it was not asked to bring attributes. Symbolic links are not followed."""
        return None if self._entry.attributes is None else StatResult(self._entry.attributes)

    def is_symlink(self) -> bool:
        return self._entry.type == FileType.SYMLINK

    def is_junction(self) -> bool:
        """As on every system that has none."""
        return False

    def __fspath__(self) -> Any:
        return self.path

    def __repr__(self) -> str:
        return f"<DirEntry {self.name!r}>"


class DirEntry(ListedEntry):
    """What `scandir` gives: an `os.DirEntry`, which remembers what it looked up, and `type` and `attributes`."""

    __slots__ = ("_fs", "_lstat", "_stat")

    def __init__(self, entry: ListedEntry, fs: "BlockingNames") -> None:
        super().__init__(entry._entry, entry._folder)
        self._fs = fs
        self._lstat = entry.attributes
        self._stat: StatResult | None = None

    def stat(self, *, follow_symlinks: bool = True) -> StatResult:
        """Without a call, as of the listing, where that brought attributes and there is no link to follow."""
        if follow_symlinks and self.is_symlink():
            if self._stat is None:
                self._stat = self._fs.stat(self.path)
            return self._stat
        if self._lstat is None:
            self._lstat = self._fs.stat(self.path, follow_symlinks=False)
        return self._lstat

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        return self._type(follow_symlinks) == FileType.DIRECTORY

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        return self._type(follow_symlinks) == FileType.FILE

    def _type(self, follow: bool) -> FileType | None:
        """None: a link that leads nowhere. A loop of links is an error, as for `os`."""
        if not follow or not self.is_symlink():
            return self._entry.type
        try:
            return self.stat().type
        except FileNotFoundError:
            return None


class AsyncDirEntry(ListedEntry):
    """What the asynchronous `scandir` gives: only `stat` is awaited."""

    __slots__ = ("_fs", "_target")

    def __init__(self, entry: ListedEntry, fs: "Namespace", target: StatResult | None) -> None:
        super().__init__(entry._entry, entry._folder)
        self._fs = fs
        self._target = target
        """Of a symbolic link: what it leads to. None: nothing, or nothing that may be seen."""

    async def stat(self, *, follow_symlinks: bool = True) -> StatResult:
        """Without a call, as of the listing, where that brought attributes and there is no link to follow."""
        listed = self.attributes
        if listed is not None and not (follow_symlinks and self.is_symlink()):
            return listed
        return await self._fs.stat(self.path, follow_symlinks=follow_symlinks)

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        return self._type(follow_symlinks) == FileType.DIRECTORY

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        return self._type(follow_symlinks) == FileType.FILE

    def _type(self, follow: bool) -> FileType | None:
        if not follow or not self.is_symlink():
            return self._entry.type
        return None if self._target is None else self._target.type
