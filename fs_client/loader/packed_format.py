"""The packed file: many samples in one file, with an index. Format version 1. Pure.

All numbers are little-endian. Sections follow each other in this order, with zeros up to each section's offset:

    header   at 0        128 bytes
    samples  at 4096     one after another, dense: sample i is bytes [offsets[i], offsets[i+1]) of the file
    index                offsets: int64[count + 1]
    names                only if flag 1 is set: int64[count + 1] offsets into the bytes that follow them, then those
                         bytes; name i is [name_offsets[i], name_offsets[i+1]) of them

    header:
    offset  size  field
    0       8     magic            89 45 4D 42 50 41 4B 0A  ("\\x89EMBPAK\\n")
    8       4     version          1
    12      4     flags            bit 0: names present; others 0
    16      8     count            samples, 0 .. 2**40
    24      8     index_offset     bytes, multiple of 4096; samples end at or before it
    32      8     index_size       8 * (count + 1)
    40      8     names_offset     bytes, multiple of 4096; 0 without names
    48      8     names_size       bytes; 0 without names
    56      8     file_size        bytes; the end of the last section
    64      4     index_crc        CRC32C of the index section
    68      4     names_crc        CRC32C of the names section; 0 without names
    72      52    reserved         zeros
    124     4     header_crc       CRC32C of bytes 0 .. 123

Samples are dense, not aligned to pages: a reader gets exactly the bytes it asks for either way (data lands in its
buffer, the daemons read from their page cache), and alignment would cost half a page for every sample: nothing at
1 MB, twice the space and the network's read-ahead at 2 KB. What dense costs is one more checksum page now and then.

The writer's commit point is the header: it is written last, after everything it describes. A file without it (a
writer that died) has zeros there and is refused as unfinished. Sample bytes have no checksum of their own: the file
system checks every read against the checksums of the chunks.
"""

import struct
from dataclasses import dataclass

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from fs_common.errors import Code, EmberError

MAGIC = b"\x89EMBPAK\n"
VERSION = 1
HEADER_SIZE = 128
DATA_OFFSET = 4096
SECTION_ALIGNMENT = 4096
COUNT_MAX = 2**40
FLAG_NAMES = 1

_HEADER = struct.Struct("<8sIIQQQQQQII52xI")
_BODY_SIZE = HEADER_SIZE - 4
assert _HEADER.size == HEADER_SIZE, "the header's byte table and its struct differ"

Offsets = NDArray[np.int64]


class PackedFormatError(EmberError):
    """The bytes are no packed file of this version. The message names the field."""

    def __init__(self, message: str) -> None:
        super().__init__(Code.INVALID, message)

    def __reduce__(self) -> tuple[type["PackedFormatError"], tuple[str]]:
        return (type(self), (self.message,))


@dataclass(frozen=True, slots=True)
class Header:
    """What the first 128 bytes say; consistent in itself."""

    count: int
    index_offset: int
    index_crc: int
    names_offset: int
    """0: no names."""
    names_size: int
    names_crc: int
    file_size: int

    @property
    def index_size(self) -> int:
        return 8 * (self.count + 1)


def align(offset: int) -> int:
    """The next section border at or after `offset`."""
    return -(-offset // SECTION_ALIGNMENT) * SECTION_ALIGNMENT


def encode_header(header: Header) -> bytes:
    """The 128 bytes of a header."""
    fields = (
        MAGIC,
        VERSION,
        FLAG_NAMES if header.names_offset else 0,
        header.count,
        header.index_offset,
        header.index_size,
        header.names_offset,
        header.names_size,
        header.file_size,
        header.index_crc,
        header.names_crc,
    )
    body = _HEADER.pack(*fields, 0)[:_BODY_SIZE]
    return body + struct.pack("<I", crc32c(body))


def decode_header(data: bytes) -> Header:
    """The header in the first 128 bytes of `data`. Raises `PackedFormatError` naming the field that is wrong."""
    if len(data) < HEADER_SIZE:
        raise PackedFormatError(f"packed file of {len(data)} bytes: shorter than its header of {HEADER_SIZE}")
    data = bytes(data[:HEADER_SIZE])
    if not any(data):
        raise PackedFormatError("packed file without a header: its writer did not finish; pack it again")
    magic, version, flags, count, *places, index_crc, names_crc, header_crc = _HEADER.unpack(data)
    index_offset, index_size, names_offset, names_size, file_size = places
    _expect(magic == MAGIC, "magic", magic)
    _expect(version == VERSION, "version", version)
    _expect(header_crc == crc32c(data[:_BODY_SIZE]), "header_crc", header_crc)
    _expect(flags in (0, FLAG_NAMES), "flags", flags)
    _expect(count <= COUNT_MAX, "count", count)
    _expect(index_offset >= DATA_OFFSET and index_offset % SECTION_ALIGNMENT == 0, "index_offset", index_offset)
    _expect(index_size == 8 * (count + 1), "index_size", index_size)
    index_end = index_offset + index_size
    if flags & FLAG_NAMES:
        _expect(names_offset == align(index_end), "names_offset", names_offset)
        _expect(names_size >= index_size, "names_size", names_size)
        end = names_offset + names_size
    else:
        _expect(names_offset == 0, "names_offset", names_offset)
        _expect(names_size == 0, "names_size", names_size)
        _expect(names_crc == 0, "names_crc", names_crc)
        end = index_end
    _expect(file_size == end and end < 2**63, "file_size", file_size)
    _expect(not any(data[_BODY_SIZE - 52 : _BODY_SIZE]), "reserved", data[_BODY_SIZE - 52 : _BODY_SIZE].hex())
    return Header(count, index_offset, index_crc, names_offset, names_size, names_crc, file_size)


def decode_index(header: Header, data: bytes | bytearray | memoryview) -> Offsets:
    """Sample offsets, int64[count + 1], read-only, without copying `data` (which must not change afterwards).

    Raises `PackedFormatError` unless they grow from 4096 to at most the index's own offset.
    """
    _expect(len(data) == header.index_size, "index_size", len(data))
    _expect(crc32c(data) == header.index_crc, "index_crc", header.index_crc)
    offsets = _offsets(data)
    _expect(int(offsets[0]) == DATA_OFFSET, "offsets[0]", int(offsets[0]))
    _expect(int(offsets[-1]) <= header.index_offset, "offsets[count]", int(offsets[-1]))
    _check_growing(offsets, "offsets")
    return offsets


def decode_names(header: Header, data: bytes | bytearray | memoryview) -> tuple[Offsets, memoryview]:
    """(offsets int64[count + 1], the names' bytes). Raises `PackedFormatError`; only for a header with names."""
    _expect(len(data) == header.names_size, "names_size", len(data))
    _expect(crc32c(data) == header.names_crc, "names_crc", header.names_crc)
    offsets = _offsets(memoryview(data)[: header.index_size])
    blob = memoryview(data)[header.index_size :]
    _expect(int(offsets[0]) == 0, "name_offsets[0]", int(offsets[0]))
    _expect(int(offsets[-1]) == len(blob), "name_offsets[count]", int(offsets[-1]))
    _check_growing(offsets, "name_offsets")
    return offsets, blob


def _offsets(data: bytes | bytearray | memoryview) -> Offsets:
    offsets = np.frombuffer(data, "<i8").astype(np.int64, copy=False)
    offsets.flags.writeable = False
    return offsets


def _check_growing(offsets: Offsets, field: str) -> None:
    falls = np.flatnonzero(offsets[1:] < offsets[:-1])
    if falls.size:
        i = int(falls[0]) + 1
        raise PackedFormatError(f"bad packed file: {field}[{i}] = {int(offsets[i])} is before the one before it")


def _expect(condition: bool, field: str, value: object) -> None:
    if not condition:
        raise PackedFormatError(f"bad packed file: {field} = {value!r}")
