"""Bytes of the journal: a file header, then frames. All integers little-endian. Pure.

File header, 4096 bytes, written once when the store is made:

    offset  size  field
    0       8     b"EMBERKVJ"
    8       4     format version, 1
    12      4     CRC32C of bytes 0..11 and 16..23
    16      8     journal id: chosen at random, the same in both files and in every frame
    24      ...   0

Frame, at a multiple of 8; one for each batch of transactions:

    0       4     b"EKJ1"
    4       4     CRC32C of everything after it (rest of the header, and the body)
    8       4     body length
    12      4     number of changes n, at least 1
    16      8     sequence: 1 more than the frame before, for the whole life of the store
    24      8     frames up to this sequence were durable when this one was written
    32      8     journal id
    40      2*n   lengths of the keys, each 1..510
    ...     4*n   lengths of the values; 0xffffffff: the key is deleted
    ...           the keys, one after the other
    ...           the values, one after the other; then zeros up to a multiple of 8

Values are what callers make them, so one may look like a frame. It is not taken for one by a search for frames: it does
not hold the journal id, which nobody is told.
"""

import struct
from itertools import accumulate
from typing import NamedTuple

from crc32c import crc32c

from fs_meta.kv.interface import KEY_BYTES_MAX

FORMAT = 1
FILE_HEADER_SIZE = 4096
FRAME_HEADER_SIZE = 40
ALIGNMENT = 8
BODY_SIZE_MAX = 1 << 30
ID_SIZE = 8
_FILE_MAGIC = b"EMBERKVJ"
_FRAME_MAGIC = b"EKJ1"
_DELETED = 0xFFFFFFFF
_FILE = struct.Struct("<8sII8s")
_FRAME = struct.Struct("<4sIIIQQ8s")
_FRAME_REST = struct.Struct("<IIQQ8s")
_CRC = struct.Struct("<I")
assert _FILE.size == 24 and _FRAME.size == FRAME_HEADER_SIZE and _FRAME_REST.size == FRAME_HEADER_SIZE - 8

Changes = dict[bytes, bytes | None]
"""Key to new value; None: deleted."""


class JournalDamaged(Exception):
    """The journal is not what was written, in a place that was on the disk."""


class Frame(NamedTuple):
    """A frame whose checksum is right."""

    sequence: int
    synced: int
    change_count: int
    body: memoryview
    start: int
    """Its offset in the file."""
    end: int
    """Offset where the next frame begins."""

    def changes(self) -> Changes:
        """What it holds. Raises `JournalDamaged` when its content cannot be: no crash leaves that."""
        return _decode_changes(self.body, self.change_count, self.sequence)


def encode_file_header(journal_id: bytes) -> bytes:
    crc = crc32c(journal_id, crc32c(_FILE.pack(_FILE_MAGIC, FORMAT, 0, journal_id)[:12]))
    return _FILE.pack(_FILE_MAGIC, FORMAT, crc, journal_id).ljust(FILE_HEADER_SIZE, b"\0")


def decode_file_header(data: bytes) -> bytes:
    """The journal id. Raises `JournalDamaged`."""
    if len(data) < _FILE.size:
        raise JournalDamaged("it has no header")
    magic, form, crc, journal_id = _FILE.unpack_from(data)
    if magic != _FILE_MAGIC or crc32c(data[16:24], crc32c(data[:12])) != crc:
        raise JournalDamaged("its header is damaged")
    if form != FORMAT:
        raise JournalDamaged(f"it has format version {form}, this program knows {FORMAT}")
    return bytes(journal_id)


def encode_frame(journal_id: bytes, sequence: int, synced: int, changes: Changes) -> bytes:
    """One frame, its padding included."""
    count = len(changes)
    # Lengths in two runs, then all bytes in one join: what is done for each change is done in C.
    values = [b"" if value is None else value for value in changes.values()]
    value_lengths = [_DELETED if value is None else len(value) for value in changes.values()]
    lengths = struct.pack(f"<{count}H{count}I", *map(len, changes), *value_lengths)
    body = b"".join((lengths, *changes, *values))
    rest = _FRAME_REST.pack(len(body), count, sequence, synced, journal_id)
    crc = crc32c(body, crc32c(rest))
    return b"".join((_FRAME_MAGIC, _CRC.pack(crc), rest, body, bytes(-len(body) % ALIGNMENT)))


def decode_frame(data: memoryview, offset: int, journal_id: bytes) -> Frame | None:
    """The frame at `offset` of a file, or None: there is no (whole, undamaged) one of this journal."""
    start = offset + FRAME_HEADER_SIZE
    if start > len(data) or data[offset : offset + 4] != _FRAME_MAGIC:
        return None
    _, crc, length, count, sequence, synced, owner = _FRAME.unpack_from(data, offset)
    end = start + length
    if owner != journal_id or length > BODY_SIZE_MAX or end > len(data) or crc32c(data[offset + 8 : end]) != crc:
        return None
    return Frame(sequence, synced, count, data[start:end], offset, end + -length % ALIGNMENT)


def find_frame(data: memoryview, offset: int, journal_id: bytes) -> Frame | None:
    """The first whole frame at or after `offset`."""
    raw = data.obj if isinstance(data.obj, bytes | bytearray) and len(data.obj) == len(data) else bytes(data)
    while (offset := raw.find(_FRAME_MAGIC, offset)) >= 0:
        if offset % ALIGNMENT == 0 and (frame := decode_frame(data, offset, journal_id)) is not None:
            return frame
        offset += 1
    return None


def _decode_changes(body: memoryview, count: int, sequence: int) -> Changes:
    keys_start = count * 6
    if count == 0 or keys_start > len(body):
        raise JournalDamaged(f"frame {sequence} says it has {count} changes in {len(body)} bytes")
    lengths = struct.unpack_from(f"<{count}H{count}I", body)
    key_lengths, value_lengths = lengths[:count], lengths[count:]
    if not all(0 < length <= KEY_BYTES_MAX for length in key_lengths):
        raise JournalDamaged(f"frame {sequence} has a key of a length that keys do not have")
    keys = list(accumulate(key_lengths, initial=keys_start))
    sizes = [0 if length == _DELETED else length for length in value_lengths]
    values = list(accumulate(sizes, initial=keys[-1]))
    if values[-1] != len(body):
        raise JournalDamaged(f"frame {sequence} has changes of {values[-1]} bytes in a body of {len(body)}")
    raw = bytes(body)
    changes: Changes = {}
    for i in range(count):
        value = None if value_lengths[i] == _DELETED else raw[values[i] : values[i + 1]]
        changes[raw[keys[i] : keys[i + 1]]] = value
    if len(changes) != count:
        raise JournalDamaged(f"frame {sequence} changes a key twice")
    return changes
