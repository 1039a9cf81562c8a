"""Payload of a SCATTER update: bytes for several places of one chunk, which change together.

| bytes           | field                                            |
| --------------- | ------------------------------------------------ |
| 0 to 4          | count, 1 to `PIECES_MAX`                         |
| 4 + 8i to 8 + 8i | offset of piece i in the chunk, in bytes        |
| 8 + 8i to 12 + 8i | length of piece i, in bytes, at least 1        |
| the rest        | the pieces' bytes, end to end                    |

Numbers are little-endian uint32. Pieces ascend and do not overlap. The item's `offset` is the first piece's, its
`length` that of this payload, and its `checksums` one CRC32C over all of it.

Pure.
"""

import struct
from collections.abc import Sequence

from fs_common.errors import Code, EmberError

PIECES_MAX = 4096
"""Of one update. The table of the longest takes 32 KiB."""

Piece = tuple[int, memoryview]
"""Offset in the chunk, bytes."""

_COUNT = struct.Struct("<I")
_PLACE = struct.Struct("<II")
assert (_COUNT.size, _PLACE.size) == (4, 8)


def pack(pieces: Sequence[Piece]) -> bytes:
    """`pieces`: 1 to `PIECES_MAX`, ascending, without overlap."""
    numbers = [number for offset, data in pieces for number in (offset, len(data))]
    table = struct.pack(f"<I{len(numbers)}I", len(pieces), *numbers)
    return b"".join((table, *(data for _, data in pieces)))


def unpack(payload: memoryview, chunk_size: int) -> list[Piece]:
    """The pieces, as slices of `payload`. Raises INVALID, naming what is wrong."""
    if len(payload) < _COUNT.size:
        raise _invalid(f"{len(payload)} bytes, less than a count")
    (count,) = _COUNT.unpack_from(payload)
    position = _COUNT.size + count * _PLACE.size
    if not 1 <= count <= PIECES_MAX or position > len(payload):
        raise _invalid(f"{count} pieces in {len(payload)} bytes; 1 to {PIECES_MAX}, each in the table")
    pieces = []
    end = 0
    for offset, length in _PLACE.iter_unpack(payload[_COUNT.size : position]):
        if not length or offset < end or offset + length > chunk_size:
            raise _invalid(f"piece {offset}+{length}: empty, behind {end}, or beyond the chunk's {chunk_size} bytes")
        end = offset + length
        pieces.append((offset, payload[position : position + length]))
        position += length
    if position != len(payload):
        raise _invalid(f"its pieces take {position} of {len(payload)} bytes")
    return pieces


def _invalid(what: str) -> EmberError:
    return EmberError(Code.INVALID, f"a scattered update: {what}")
