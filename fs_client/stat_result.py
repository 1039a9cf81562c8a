"""What `stat` returns."""

import errno
import os
import stat
from collections.abc import Iterator
from typing import Any

from fs_client.file_ref import FileRef, file_ref
from fs_common.layout import Layout
from fs_common.records.meta import Attributes, FileType

_TYPE_BITS = {
    FileType.FILE: stat.S_IFREG,
    FileType.DIRECTORY: stat.S_IFDIR,
    FileType.SYMLINK: stat.S_IFLNK,
    FileType.FIFO: stat.S_IFIFO,
    FileType.SOCKET: stat.S_IFSOCK,
    FileType.CHARACTER_DEVICE: stat.S_IFCHR,
    FileType.BLOCK_DEVICE: stat.S_IFBLK,
}
_NS = 1_000_000_000
BLOCK_SIZE = 512


class StatResult:
    """The fields of `os.stat_result`, and what only EmberFS knows: `inode`, `layout`, `ref`, `attributes`.

    Indexing and unpacking give the ten integers that `os.stat_result` gives.
    """

    __slots__ = ("attributes",)

    def __init__(self, attributes: Attributes) -> None:
        self.attributes = attributes

    @property
    def inode(self) -> int:
        return self.attributes.inode

    @property
    def type(self) -> FileType:
        return self.attributes.type

    @property
    def layout(self) -> Layout | None:
        """Of a file: where its chunks are. Of a directory: what its new children get. None for a symbolic link."""
        return self.attributes.layout

    @property
    def ref(self) -> FileRef:
        """A light reference for `read_ranges`; raises `IsADirectoryError` or `OSError` for what is not a file."""
        ref = file_ref(self.attributes)
        if ref is None:
            number = errno.EISDIR if self.attributes.type == FileType.DIRECTORY else errno.EINVAL
            what = f"inode {self.attributes.inode} is a {self.attributes.type.name.lower()}, not a file"
            raise OSError(number, f"{os.strerror(number)}: {what}")
        return ref

    @property
    def st_mode(self) -> int:
        return _TYPE_BITS[self.attributes.type] | self.attributes.mode

    @property
    def st_ino(self) -> int:
        return self.attributes.inode

    @property
    def st_dev(self) -> int:
        return 0

    @property
    def st_nlink(self) -> int:
        return self.attributes.links

    @property
    def st_uid(self) -> int:
        return self.attributes.uid

    @property
    def st_gid(self) -> int:
        return self.attributes.gid

    @property
    def st_size(self) -> int:
        return self.attributes.length

    @property
    def st_rdev(self) -> int:
        """Of a device: which one; see `os.major`."""
        return self.attributes.device

    @property
    def st_blksize(self) -> int:
        """The chunk size: the best size for one read or write."""
        return self.attributes.layout.chunk_size if self.attributes.layout is not None else 4096

    @property
    def st_blocks(self) -> int:
        """Length in blocks of 512 bytes; holes are counted."""
        return -(-self.attributes.length // BLOCK_SIZE)

    @property
    def st_atime(self) -> float:
        return self.attributes.atime_ns / _NS

    @property
    def st_mtime(self) -> float:
        return self.attributes.mtime_ns / _NS

    @property
    def st_ctime(self) -> float:
        return self.attributes.ctime_ns / _NS

    @property
    def st_birthtime(self) -> float:
        return self.attributes.btime_ns / _NS

    @property
    def st_atime_ns(self) -> int:
        return self.attributes.atime_ns

    @property
    def st_mtime_ns(self) -> int:
        return self.attributes.mtime_ns

    @property
    def st_ctime_ns(self) -> int:
        return self.attributes.ctime_ns

    def _fields(self) -> tuple[int, ...]:
        a = self.attributes
        times = (a.atime_ns // _NS, a.mtime_ns // _NS, a.ctime_ns // _NS)
        return (self.st_mode, a.inode, 0, a.links, a.uid, a.gid, a.length, *times)

    def __getitem__(self, index: int) -> int:
        return self._fields()[index]

    def __iter__(self) -> Iterator[int]:
        return iter(self._fields())

    def __len__(self) -> int:
        return 10

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StatResult) and self.attributes == other.attributes

    def __hash__(self) -> int:
        return hash(self.attributes)

    def __reduce__(self) -> tuple[Any, ...]:
        return (StatResult, (self.attributes,))

    def __repr__(self) -> str:
        a = self.attributes
        return (
            f"StatResult(type={a.type.name}, st_mode={self.st_mode:#o}, inode={a.inode}, st_nlink={a.links}, "
            f"st_uid={a.uid}, st_gid={a.gid}, st_size={a.length}, st_mtime_ns={a.mtime_ns})"
        )
