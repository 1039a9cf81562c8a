"""A file system in memory, with what datasets and the packer use of the real one."""

import io
from collections.abc import Callable, Sequence
from typing import Any

from fs_client.file_ref import FileRef
from fs_client.filesystem import FileSystem
from fs_client.options import make_options
from fs_client.read_ranges import RangeError
from fs_client.stat_result import StatResult
from fs_common.errors import Code, to_os_error
from fs_common.layout import Layout
from fs_common.methods import READDIR, Method
from fs_common.records.meta import Readdir, ReaddirReply, User
from tests.loader.fake_tree import FakeTree
from tests.support import run


class FakeFileSystem(FileSystem):
    """`contents`: absolute paths to bytes."""

    def __init__(self, contents: dict[str, bytes]) -> None:
        super().__init__(make_options("fake:1", None, "auto", 1.0))
        self.contents = contents
        self.batches: list[int] = []
        """Ranges of each `read_ranges`."""
        self.broken: dict[str, Code] = {}
        """Paths that cannot be read."""
        self.write_sizes: list[int] = []

    def __reduce__(self) -> tuple[Any, ...]:
        return (FakeFileSystem, (self.contents,))

    def _paths(self) -> list[str]:
        return sorted(self.contents)

    def ref(self, path: Any) -> FileRef:
        if path not in self.contents:
            raise FileNotFoundError(2, "no such file", path)
        return FileRef(100 + self._paths().index(path), len(self.contents[path]), Layout())

    def read_ranges(self, ranges: Sequence[tuple[Any, int, int]], into: Any = None) -> list[memoryview]:
        self.batches.append(len(ranges))
        buffer = memoryview(bytearray(sum(length for *_, length in ranges)) if into is None else into)
        views = []
        position = 0
        for number, (file, offset, length) in enumerate(ranges):
            path = self._paths()[file.inode - 100]
            if path in self.broken:
                error = RangeError(self.broken[path], f"range {number}: broken")
                error.number = number
                raise to_os_error(error) from error
            data = self.contents[path][offset : offset + length]
            buffer[position : position + len(data)] = data
            views.append(buffer[position : position + len(data)])
            position += length
        return views

    def open(self, path: Any, mode: str = "rb", *arguments: Any, **options: Any) -> Any:
        assert mode == "wb"
        return _FakeFile(self, path.decode())

    def rename(self, src: Any, dst: Any, **options: Any) -> None:
        self.contents[dst.decode()] = self.contents.pop(src.decode())

    def unlink(self, path: Any) -> None:
        if self.contents.pop(path.decode(), None) is None:
            raise FileNotFoundError(2, "no such file", path)

    def close(self) -> None:
        self.closed = True

    def _call(self, method: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        return run(method(_FakeCore(self), *arguments, **options))


class _FakeFile(io.BytesIO):
    def __init__(self, fs: FakeFileSystem, path: str) -> None:
        super().__init__()
        self._fs = fs
        self._path = path
        fs.contents[path] = b""

    def write(self, data: Any) -> int:
        self._fs.write_sizes.append(len(data))
        return super().write(data)

    def close(self) -> None:
        if not self.closed and self._path in self._fs.contents:
            self._fs.contents[self._path] = self.getvalue()
        super().close()


class _FakeCore:
    """The asynchronous face, as far as building an index goes."""

    user = User()

    def __init__(self, fs: FakeFileSystem) -> None:
        tree: dict[bytes, Any] = {}
        for path, data in fs.contents.items():
            *directories, name = path.encode().strip(b"/").split(b"/")
            directory = tree
            for part in directories:
                directory = directory.setdefault(part, {})
            directory[name] = len(data)
        self._tree = FakeTree(tree, inodes={path.encode(): 100 + i for i, path in enumerate(fs._paths())})

    async def stat(self, path: str) -> StatResult:
        found = self._tree.find(path.encode())
        if found is None:
            raise FileNotFoundError(2, "no such directory", path)
        return StatResult(found)

    async def meta_call(self, method: Method, request: Readdir, path: str) -> ReaddirReply:
        assert method is READDIR
        assert request.with_attributes
        return await self._tree.page(request.inode, request.after)
