"""Writing packed files: a stream of samples in, one file out, with memory for one buffer and the index.

Steps, each complete before the next begins:

1. samples, index and names are written to `PATH.partial-XXXXXXXX`, whose header is zeros (a crash leaves a file that
   `PackedDataset` refuses as unfinished, and that can be removed);
2. the header is written (commit point of the file's contents);
3. the file is closed, so its length is exact, and renamed to PATH (commit point: until then PATH is what it was).

Any failure before the rename removes the partial file.
"""

import contextlib
import os
import secrets
import sys
from array import array
from collections.abc import Iterable, Iterator
from typing import IO, TYPE_CHECKING, NamedTuple, TypeAlias

from crc32c import crc32c

from fs_client.loader.packed_format import (
    DATA_OFFSET,
    HEADER_SIZE,
    Header,
    align,
    encode_header,
)

if TYPE_CHECKING:
    from fs_client.filesystem import FileSystem

BUFFER_BYTES = 16 << 20
"""Samples are gathered into writes of this size, so that each write keeps many chunks of the file in flight."""

Content: TypeAlias = bytes | bytearray | memoryview | os.PathLike[str]
"""A sample's bytes, or the local file that has them."""


class Packed(NamedTuple):
    """What was written."""

    samples: int
    sample_bytes: int
    """Of all samples together."""
    file_bytes: int


def pack(
    fs: "FileSystem", sources: Iterable[tuple[str | bytes, Content]], path: str | bytes, *, names: bool = True
) -> Packed:
    """Write the samples of `sources`, pairs of (name, content), to the packed file `path`, in their order.

    `sources` is consumed as it goes and may be a generator; content is not kept after the next one is asked for.
    With `names` false the names are left out. On return the file is complete, visible under `path`, and as durable as
    its directory's layout says. Raises `OSError` of the file system or of a local file; then `path` is unchanged.
    """
    final = os.fsencode(path)
    partial = final + b".partial-" + secrets.token_hex(4).encode()
    try:
        with fs.open(partial, "wb") as file:
            written = _write(file, sources, names)
        fs.rename(partial, final)
    except BaseException:
        with contextlib.suppress(OSError):
            fs.unlink(partial)
        raise
    return written


def _write(file: IO[bytes], sources: Iterable[tuple[str | bytes, Content]], with_names: bool) -> Packed:
    offsets = array("q", [DATA_OFFSET])
    names = bytearray()
    name_offsets = array("q", [0])
    out = _Gathered(file)
    out.append(bytes(DATA_OFFSET))
    for name, content in sources:
        for piece in _pieces(content):
            out.append(piece)
        offsets.append(out.position)
        if with_names:
            names += os.fsencode(name)
            name_offsets.append(len(names))
    index_offset = out.pad()
    index = _little_endian(offsets)
    out.append(index)
    names_offset, names_size, names_crc = 0, 0, 0
    if with_names:
        names_offset = out.pad()
        starts = _little_endian(name_offsets)
        out.append(starts)
        out.append(names)
        names_size = len(starts) + len(names)
        names_crc = crc32c(names, crc32c(starts))
    out.flush()
    header = Header(
        count=len(offsets) - 1,
        index_offset=index_offset,
        index_crc=crc32c(index),
        names_offset=names_offset,
        names_size=names_size,
        names_crc=names_crc,
        file_size=out.position,
    )
    file.seek(0)
    file.write(encode_header(header))
    return Packed(header.count, offsets[-1] - DATA_OFFSET, header.file_size)


def _pieces(content: Content) -> Iterator[bytes | bytearray | memoryview]:
    if not isinstance(content, os.PathLike):
        yield content
        return
    with open(content, "rb", buffering=0) as source:
        while piece := source.read(BUFFER_BYTES):
            yield piece


def _little_endian(numbers: "array[int]") -> bytes:
    if sys.byteorder == "big":
        numbers = array("q", numbers)
        numbers.byteswap()
    return numbers.tobytes()


class _Gathered:
    """Appends to a file in large writes."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._buffer = bytearray()
        self.position = 0
        """Of the file, everything appended counted in."""

    def append(self, data: bytes | bytearray | memoryview) -> None:
        self.position += memoryview(data).nbytes
        self._buffer += data
        if len(self._buffer) >= BUFFER_BYTES:
            self.flush()

    def pad(self) -> int:
        """Zeros up to the next section border; its offset."""
        self.append(bytes(align(self.position) - self.position))
        return self.position

    def flush(self) -> None:
        """Everything appended has been stored when this returns."""
        if self._buffer:
            self._file.write(self._buffer)
            self._buffer = bytearray()
        self._file.flush()


assert HEADER_SIZE <= DATA_OFFSET, "the header lies before the first sample"
