"""The local file system as a `Place`: every call that may wait for a disk runs in a thread.

A cancelled call raises only when its thread is done with it: until then the caller's memory and descriptor are in use.
"""

import contextlib
import errno
import itertools
import os
import stat
from collections.abc import AsyncGenerator, Iterator
from typing import Any

from fs_client.cli.copy.beneath import directory_beneath
from fs_client.cli.copy.place import SET_ID_BITS, Item, Type
from fs_client.cli.copy.uninterrupted import in_thread

NOT_OURS_TO_GIVE = frozenset({errno.EPERM, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
"""Errors of a change of owner: we may not, the owner is nobody here (a user namespace), the disk knows no owners."""
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
        found.st_uid,
        found.st_gid,
        found.st_atime_ns,
        found.st_mtime_ns,
        (found.st_dev, found.st_ino),
    )


class LocalPlace:
    """What is at `top` and below. Every call below it goes through directories alone, see `beneath`."""

    identity = "local"

    def __init__(self, top: str) -> None:
        self.top = top

    def show(self, path: str) -> str:
        return path

    async def look(self, path: str, *, follow: bool) -> Item | None:
        def stat_it() -> os.stat_result:
            with self._at(path) as (directory, name):
                return os.stat(name, dir_fd=directory, follow_symlinks=follow and directory is None)

        try:
            return _item(os.path.basename(path.rstrip("/")), await in_thread(stat_it))
        except FileNotFoundError:
            return None

    async def list(self, path: str) -> AsyncGenerator[Item, None]:
        descriptor = await in_thread(self._open_directory, path)
        try:
            entries = await in_thread(os.scandir, descriptor)
            with entries:
                while batch := await in_thread(_next_items, entries):
                    for item in batch:
                        yield item
        finally:
            os.close(descriptor)

    async def read_link(self, path: str) -> str:
        with self._at(path) as (directory, name):
            return os.readlink(name, dir_fd=directory)

    async def make_directory(self, path: str, mode: int) -> None:
        def make() -> None:
            with self._at(path) as (directory, name):
                # The copy has to be able to write into it, whatever the original allows.
                os.mkdir(name, mode | 0o700, dir_fd=directory)

        await in_thread(make)

    async def make_symlink(self, target: str, path: str) -> None:
        def make() -> None:
            with self._at(path) as (directory, name):
                os.symlink(target, name, dir_fd=directory)

        await in_thread(make)

    async def open_to_read(self, path: str) -> "LocalFile":
        # A fifo that has come in the place of the file must not stop us.
        return await in_thread(self._open_file, path, os.O_RDONLY | os.O_NONBLOCK)

    async def open_to_write(self, path: str, mode: int, *, exclusive: bool) -> "LocalFile":
        def make() -> LocalFile:
            flags = os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | (os.O_EXCL if exclusive else 0)
            try:
                file = self._open_file(path, flags, mode)
            except OSError as error:
                if error.errno != errno.ELOOP or exclusive:
                    raise
                with self._at(path) as (directory, name):
                    if directory is None:
                        raise  # a circle of links at the top
                    os.unlink(name, dir_fd=directory)
                file = self._open_file(path, flags | os.O_EXCL, mode)
            file.empty()
            return file

        return await in_thread(make)

    async def remove(self, path: str) -> None:
        def unlink() -> None:
            with self._at(path) as (directory, name):
                os.unlink(name, dir_fd=directory)

        await in_thread(unlink)

    async def set_attributes(self, path: str, item: Item) -> None:
        def apply() -> None:
            times = (item.atime_ns, item.mtime_ns)
            with self._at(path) as (directory, name):
                if item.type == Type.SYMLINK:
                    try:
                        os.chown(name, item.uid, item.gid, dir_fd=directory, follow_symlinks=False)
                    except OSError as error:
                        if error.errno not in NOT_OURS_TO_GIVE:
                            raise
                    os.utime(name, ns=times, dir_fd=directory, follow_symlinks=False)
                    return
            descriptor = self._open_directory(path, os.O_PATH)
            try:
                # Only so can a descriptor be used that needs no right to read.
                _set_attributes(f"/proc/self/fd/{descriptor}", item)
            finally:
                os.close(descriptor)

        await in_thread(apply)

    # In threads

    @contextlib.contextmanager
    def _at(self, path: str) -> Iterator[tuple[int | None, str]]:
        """(directory, name) of what is at `path`; no directory for the top itself. Errors are given the whole path."""
        top = self.top if self.top.endswith("/") else self.top + "/"
        try:
            if not path.startswith(top) or len(path) == len(top):
                yield None, path
                return
            folder, _, name = path[len(top) :].rpartition("/")
            with directory_beneath(self.top, folder) as directory:
                yield directory, name
        except OSError as error:
            error.filename = path
            raise

    def _open_directory(self, path: str, how: int = os.O_RDONLY) -> int:
        with self._at(path) as (directory, name):
            flags = how | os.O_DIRECTORY | os.O_CLOEXEC
            return os.open(name, flags if directory is None else flags | os.O_NOFOLLOW, dir_fd=directory)

    def _open_file(self, path: str, flags: int, mode: int = 0o666) -> "LocalFile":
        with self._at(path) as (directory, name):
            flags |= os.O_CLOEXEC if directory is None else os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(name, flags, mode, dir_fd=directory)
            try:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise OSError(errno.EINVAL, "is no regular file any more")
                return LocalFile(path, descriptor)
            except BaseException:
                os.close(descriptor)
                raise


def _set_attributes(file: int | str, item: Item) -> None:
    """Of an open file or directory. The owner first: changing it takes set-id bits away."""
    mode = item.mode
    try:
        os.chown(file, item.uid, item.gid)
    except OSError as error:
        if error.errno not in NOT_OURS_TO_GIVE:
            raise
        # It is ours and stays ours. What runs with its owner's or group's rights must not get to run with these.
        mode &= ~SET_ID_BITS
    os.chmod(file, mode)
    os.utime(file, ns=(item.atime_ns, item.mtime_ns))


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
    """An open descriptor, which it owns."""

    def __init__(self, path: str, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size

    def empty(self) -> None:
        """In a thread: what was in it goes."""
        with self._named():
            try:
                os.ftruncate(self._descriptor, 0)
            except BaseException:
                os.close(self._descriptor)
                raise

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

    async def finish(self) -> None:
        """Network file systems tell when a descriptor is closed that they could not store what they took."""
        with self._named():
            await in_thread(lambda: os.close(os.dup(self._descriptor)))

    async def set_attributes(self, item: Item) -> None:
        with self._named():
            await in_thread(_set_attributes, self._descriptor, item)

    async def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with self._named():
                await in_thread(os.close, descriptor)
