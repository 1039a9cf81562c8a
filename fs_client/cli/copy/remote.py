"""A cluster as a `Place`."""

from collections.abc import AsyncGenerator

from fs_client.aio import AsyncFileSystem
from fs_client.cli.copy.place import SET_ID_BITS, Item, Type
from fs_client.cli.remote import RemotePath
from fs_client.file import AsyncFile
from fs_client.file_ref import FileRef
from fs_client.stat_result import StatResult
from fs_common.records.meta import FileType

_TYPES = {FileType.FILE: Type.FILE, FileType.DIRECTORY: Type.DIRECTORY, FileType.SYMLINK: Type.SYMLINK}


def _item(name: str, found: StatResult) -> Item:
    attributes = found.attributes
    return Item(
        name,
        _TYPES.get(attributes.type, Type.OTHER),
        attributes.length,
        attributes.mode,
        attributes.uid,
        attributes.gid,
        attributes.atime_ns,
        attributes.mtime_ns,
        (0, attributes.inode),
    )


class RemotePlace:
    """What is at `top` and below."""

    def __init__(self, fs: AsyncFileSystem, top: RemotePath) -> None:
        self._fs = fs
        self._top = top
        self.identity: object = top.cluster

    def show(self, path: str) -> str:
        return str(self._top._replace(path=path))

    def _is_top(self, path: str) -> bool:
        return path == self._top.path

    async def look(self, path: str, *, follow: bool) -> Item | None:
        try:
            follow = follow and self._is_top(path)
            return _item(path.rstrip("/").rpartition("/")[2], await self._fs.stat(path, follow_symlinks=follow))
        except FileNotFoundError:
            return None

    async def list(self, path: str) -> AsyncGenerator[Item, None]:
        async for page in self._fs.pages(path, attributes=True):
            for entry in page:
                assert entry.attributes is not None, "asked for with the page"
                yield _item(entry.name, entry.attributes)

    async def read_link(self, path: str) -> str:
        target: str = await self._fs.readlink(path)
        return target

    async def make_directory(self, path: str, mode: int) -> None:
        await self._fs.mkdir(path, mode | 0o700)

    async def make_symlink(self, target: str, path: str) -> None:
        await self._fs.symlink(target, path)

    async def open_to_read(self, path: str) -> "RemoteReader":
        ref = await self._fs.ref(path)
        if not self._is_top(path):
            found = await self._fs.stat(path, follow_symlinks=False)
            if found.attributes.inode != ref.inode:
                raise OSError("has become a symbolic link: it is not followed")
        return RemoteReader(self._fs, ref)

    async def open_to_write(self, path: str, mode: int, *, exclusive: bool) -> "RemoteWriter":
        how = "xb" if exclusive else "wb"
        if not exclusive and not self._is_top(path):
            present = await self.look(path, follow=False)
            if present is not None and present.type == Type.SYMLINK:
                await self._fs.unlink(path)
                present = None
            if present is None:
                how = "xb"
        return RemoteWriter(self, path, await self._fs.open(path, how, permissions=mode))

    async def remove(self, path: str) -> None:
        await self._fs.unlink(path)

    async def set_attributes(self, path: str, item: Item) -> None:
        follow = self._is_top(path) and item.type != Type.SYMLINK
        mode = item.mode
        try:
            await self._fs.chown(path, item.uid, item.gid, follow_symlinks=follow)
        except PermissionError:
            # As for local files: what runs with its owner's or group's rights must not get to run with ours.
            mode &= ~SET_ID_BITS
        if item.type != Type.SYMLINK:
            await self._fs.chmod(path, mode, follow_symlinks=follow)
        await self._fs.utime(path, ns=(item.atime_ns, item.mtime_ns), follow_symlinks=follow)


class RemoteReader:
    """Reads by reference: there is nothing to close."""

    def __init__(self, fs: AsyncFileSystem, ref: FileRef) -> None:
        self._fs = fs
        self._ref = ref
        self.size = ref.length

    async def read_into(self, offset: int, view: memoryview) -> int:
        (got,) = await self._fs.read_ranges([(self._ref, offset, len(view))], view)
        return len(got)

    async def close(self) -> None:
        pass


class RemoteWriter:
    def __init__(self, place: RemotePlace, path: str, file: AsyncFile) -> None:
        self._place = place
        self._path = path
        self._file = file

    async def write(self, offset: int, view: memoryview) -> None:
        await self._file.write_at(offset, view)

    async def finish(self) -> None:
        await self._file.close()

    async def set_attributes(self, item: Item) -> None:
        await self._place.set_attributes(self._path, item)

    async def close(self) -> None:
        await self._file.close()
