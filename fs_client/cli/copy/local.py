"""The local file system as a `Place`: every call that may wait for a disk runs in a thread.

A cancelled call raises only when its thread is done with it: until then the caller's memory and descriptor are in use.
"""

import contextlib
import itertools
import os
import stat
from collections.abc import AsyncGenerator, Iterator
from typing import Any

from fs_client.cli.copy.place import Item, Type
from fs_client.cli.copy.uninterrupted import in_thread

_BATCH = 512
"""Entries fetched by one hand-over to a thread."""


def _type(mode: int) -> Type:
    match stat.S_IFMT(mode):
        case stat.S_IFREG:
            return Type.FILE
        case stat.S_IFDIR:
            return Type.DIRECTORY
        case stat.S_IFLNK:
            return Type.SYMLINK
        case _:
            return Type.OTHER


def _item(name: str, found: os.stat_result) -> Item:
    return Item(
        name,
        _type(found.st_mode),
        found.st_size,
        stat.S_IMODE(found.st_mode),
        found.st_atime_ns,
        found.st_mtime_ns,
        (found.st_dev, found.st_ino),
    )


class LocalPlace:
    identity = "local"

    def show(self, path: str) -> str:
        return path

    async def look(self, path: str, *, follow: bool) -> Item | None:
        try:
            return _item(os.path.basename(path), await in_thread(os.stat, path, follow_symlinks=follow))
        except FileNotFoundError:
            return None

    async def list(self, path: str) -> AsyncGenerator[Item, None]:
        entries = await in_thread(os.scandir, path)
        with entries:
            while batch := await in_thread(_next_items, entries):
                for item in batch:
                    yield item

    async def read_link(self, path: str) -> str:
        return os.readlink(path)

    async def make_directory(self, path: str, mode: int) -> None:
        # The copy has to be able to write into it, whatever the original allows.
        await in_thread(os.mkdir, path, mode | 0o700)

    async def make_symlink(self, target: str, path: str) -> None:
        await in_thread(os.symlink, target, path)

    async def open_to_read(self, path: str) -> "LocalFile":
        return await in_thread(LocalFile, path, os.O_RDONLY | os.O_CLOEXEC)

    async def open_to_write(self, path: str, mode: int) -> "LocalFile":
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        return await in_thread(LocalFile, path, flags, mode)

    async def remove(self, path: str) -> None:
        await in_thread(os.unlink, path)

    async def set_attributes(self, path: str, item: Item) -> None:
        def apply() -> None:
            if item.type != Type.SYMLINK:
                os.chmod(path, item.mode)
            os.utime(path, ns=(item.atime_ns, item.mtime_ns), follow_symlinks=item.type != Type.SYMLINK)

        await in_thread(apply)


def _next_items(entries: Any) -> list[Item]:
    """The next entries; those that vanished in between are left out."""
    items = []
    for entry in itertools.islice(entries, _BATCH):
        try:
            items.append(_item(entry.name, entry.stat(follow_symlinks=False)))
        except FileNotFoundError:
            continue
    return items


class LocalFile:
    """An open descriptor."""

    def __init__(self, path: str, flags: int, mode: int = 0o666) -> None:
        self._path = path
        self._descriptor = os.open(path, flags, mode)
        self.size = os.fstat(self._descriptor).st_size

    async def read_into(self, offset: int, view: memoryview) -> int:
        return await in_thread(self._read, offset, view)

    def _read(self, offset: int, view: memoryview) -> int:
        done = 0
        with self._named():
            while done < len(view):
                got = os.preadv(self._descriptor, [view[done:]], offset + done)
                if got == 0:
                    break
                done += got
        return done

    async def write(self, offset: int, view: memoryview) -> None:
        await in_thread(self._write, offset, view)

    def _write(self, offset: int, view: memoryview) -> None:
        done = 0
        with self._named():
            while done < len(view):
                done += os.pwritev(self._descriptor, [view[done:]], offset + done)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Errors of a descriptor do not know the file's name."""
        try:
            yield
        except OSError as error:
            error.filename = self._path
            raise

    async def close(self) -> None:
        """Network file systems tell here that they could not store what they took."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with self._named():
                await in_thread(os.close, descriptor)
