"""A cluster as a `Place`."""

from collections.abc import AsyncGenerator

from fs_client.aio import AsyncFileSystem
from fs_client.cli.copy.place import Item, Type
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
        attributes.atime_ns,
        attributes.mtime_ns,
        (0, attributes.inode),
    )


class RemotePlace:
    def __init__(self, fs: AsyncFileSystem, example: RemotePath) -> None:
        self._fs = fs
        self._example = example
        """Any path in it, for its prefix."""
        self.identity: object = example.cluster

    def show(self, path: str) -> str:
        return str(self._example._replace(path=path))

    async def look(self, path: str, *, follow: bool) -> Item | None:
        try:
            return _item(path.rpartition("/")[2], await self._fs.stat(path, follow_symlinks=follow))
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
        return RemoteReader(self._fs, await self._fs.ref(path))

    async def open_to_write(self, path: str, mode: int) -> "RemoteWriter":
        return RemoteWriter(await self._fs.open(path, "wb", permissions=mode))

    async def remove(self, path: str) -> None:
        await self._fs.unlink(path)

    async def set_attributes(self, path: str, item: Item) -> None:
        follow = item.type != Type.SYMLINK
        if follow:
            await self._fs.chmod(path, item.mode)
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
    def __init__(self, file: AsyncFile) -> None:
        self._file = file

    async def write(self, offset: int, view: memoryview) -> None:
        await self._file.write_at(offset, view)

    async def close(self) -> None:
        await self._file.close()
