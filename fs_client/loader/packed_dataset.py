"""The samples of one packed file (`packed_format`, written by `packing.pack`)."""

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fs_client.file_ref import FileRef
from fs_client.filesystem import FileSystem
from fs_client.loader import packed_format
from fs_client.loader.dataset import Cluster, SampleDataset, Transform
from fs_client.loader.packed_format import Header, Offsets, PackedFormatError

_READ_BYTES = 16 << 20


class PackedDataset(SampleDataset):
    """The samples of a packed file, in the order they were packed.

    Opening it reads the header and the offsets (8 bytes a sample); the names are read when one is first asked for.
    """

    def __init__(self, cluster: Cluster, path: str | os.PathLike[str], *, transform: Transform | None = None) -> None:
        """Raises `OSError`, or `PackedFormatError` naming what is wrong with the file."""
        super().__init__(cluster, transform)
        self.file_path = os.fspath(path)
        try:
            found = self._fs.ref(self.file_path)
            # A packed file is written whole, so what is missing in it is damage.
            self._file = FileRef(found.inode, found.length, found.layout, holes=False)
            self._header = self._read_header()
            index = _read(self._fs, self._file, self._header.index_offset, self._header.index_size)
            self._offsets: Offsets = packed_format.decode_index(self._header, index)
        except BaseException:
            self.close()
            raise
        self._names: tuple[Offsets, bytes] | None = None

    def _read_header(self) -> Header:
        header = packed_format.decode_header(_read(self._fs, self._file, 0, packed_format.HEADER_SIZE))
        if header.file_size != self._file.length:
            raise PackedFormatError(
                f"packed file {self.file_path}: file_size = {header.file_size}, but it has {self._file.length} bytes"
            )
        return header

    def __len__(self) -> int:
        return self._header.count

    @property
    def total_bytes(self) -> int:
        """Of all samples together."""
        return int(self._offsets[-1] - self._offsets[0])

    def name(self, i: int) -> str | None:
        """The name sample `i` was packed under; None if the file holds no names."""
        if not self._header.names_offset:
            return None
        if self._names is None:
            data = _read(self._fs, self._file, self._header.names_offset, self._header.names_size)
            offsets, blob = packed_format.decode_names(self._header, data)
            self._names = offsets, bytes(blob)
        offsets, names = self._names
        return os.fsdecode(names[offsets[i] : offsets[i + 1]])

    def path(self, i: int) -> str:
        """The packed file and the sample's name in it, or its number."""
        name = self.name(i)
        return f"{self.file_path}#{i if name is None else name}"

    def _ranges(self, indices: NDArray[np.int64]) -> Sequence[tuple[FileRef, int, int]]:
        begins = self._offsets[indices]
        lengths = self._offsets[indices + 1] - begins
        file = self._file
        return [(file, begin, length) for begin, length in zip(begins.tolist(), lengths.tolist(), strict=True)]

    def __repr__(self) -> str:
        return f"<PackedDataset {self.file_path}, {len(self)} samples>"


def _read(fs: FileSystem, file: FileRef, offset: int, size: int) -> bytes:
    """Bytes of the file; fewer at its end."""
    begins = range(offset, offset + size, _READ_BYTES)
    views = fs.read_ranges([(file, begin, min(_READ_BYTES, offset + size - begin)) for begin in begins])
    return b"".join(views)
