"""Every file of a tree as one sample."""

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fs_client.aio import AsyncFileSystem
from fs_client.file_ref import FileRef
from fs_client.loader.dataset import Cluster, SampleDataset, Transform, join
from fs_client.loader.index import FileIndex, NameFilter, name_filter
from fs_client.loader.walk import walk
from fs_common import methods
from fs_common.errors import Code, EmberError, to_os_error
from fs_common.limits import READDIR_PAGE_MAX
from fs_common.records.meta import FileType, Readdir, ReaddirReply


class FileDataset(SampleDataset):
    """The files below a directory, in byte order of their paths; sample i is the whole content of file i.

    The index is made once, here, from pages of directory entries. A file that is made afterwards is not noticed; one
    that is cut or removed is an error when its bytes are gone, never zeros. Files of a dataset should not change while
    it is in use.
    """

    def __init__(
        self,
        cluster: Cluster,
        root: str | os.PathLike[str],
        *,
        transform: Transform | None = None,
        suffixes: str | Sequence[str] | None = None,
        pattern: str | None = None,
        holes: bool = False,
    ) -> None:
        """`root`: a directory. `suffixes`: only names that end so, as `".jpg"` or `(".jpg", ".jpeg")`.
        `pattern`: only paths (relative to `root`) that match, as `"train/*.png"`; `*` also matches `/`.

        `holes`: some files are sparse, so what was never written is zeros and no error.

        Symbolic links are not followed. Raises `OSError`: FileNotFoundError, NotADirectoryError, ...
        """
        super().__init__(cluster, transform)
        self.root = os.fspath(root)
        self._holes = holes
        try:
            self._index: FileIndex = self._fs._call(_read_index, self.root, name_filter(suffixes, pattern))
        except BaseException:
            self.close()
            raise

    @property
    def index(self) -> FileIndex:
        return self._index

    def __len__(self) -> int:
        return len(self._index)

    @property
    def total_bytes(self) -> int:
        """Of all samples together."""
        return self._index.total_bytes

    def path(self, i: int) -> str:
        return join(self.root, self._index.path(i))

    def _ranges(self, indices: NDArray[np.int64]) -> Sequence[tuple[FileRef, int, int]]:
        return [(file, 0, file.length) for file in self._index.refs(indices, self._holes)]

    def __repr__(self) -> str:
        return f"<FileDataset {self.root}, {len(self)} files>"


class _Pages:
    """Directory pages from a client."""

    def __init__(self, fs: AsyncFileSystem, root: str) -> None:
        self._fs = fs
        self._root = root

    async def page(self, inode: int, after: bytes) -> ReaddirReply:
        request = Readdir(inode, after, READDIR_PAGE_MAX, True, self._fs.user)
        reply: ReaddirReply = await self._fs.meta_call(methods.READDIR, request, self._root)
        if reply.entries and reply.entries[0].attributes is None:
            raise to_os_error(
                EmberError(Code.ACCESS_DENIED, "a directory below may be listed, not searched"), self._root
            )
        return reply


async def _read_index(fs: AsyncFileSystem, root: str, accept: NameFilter) -> FileIndex:
    found = await fs.stat(root)
    if found.type != FileType.DIRECTORY:
        raise to_os_error(EmberError(Code.NOT_DIRECTORY, "Not a directory"), root)
    return await walk(_Pages(fs, root), found.inode, accept)
