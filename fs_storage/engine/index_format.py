"""Index values: one record for each chunk, one for each (client, channel).

All integers little-endian. A value that does not decode raises `IndexDamaged`, which names the field.

Chunk record, key = chunk id (12 bytes):

    offset  size  field
    0       4     CRC32C of the bytes from offset 4 on
    4       1     format version, 1
    5       1     flags: 1 a committed version follows, 2 a pending version follows
    6       2     0
    then, for each version present, committed first:
    0       1     flags: 1 removed, 2 has a block, 4 has a whole checksum
    1       1     log2 of the chunk size
    2       1     log2 of the block size
    3       1     0
    4       4     slot
    8       4     length
    12      4     used
    16      4     whole checksum
    20      4     number of page checksums p
    24      4     number of patches n
    28      4     0
    32      8     version
    40      8     chain version
    48      8     removed at, seconds of the store's odometer
    56      4*p   page checksums
    ...     8+b   n times: offset (4), length b (4), bytes
    then, if there is a pending version, its identity:
    0       1     length of the client id c
    1       c     client id
    ...     8     channel
    ...     8     sequence

Answer, key = client id + channel (8 bytes, big-endian):

    0       4     CRC32C of the bytes from offset 4 on
    4       12    chunk id
    16      8     sequence
    24      8     version; 0: the update was dropped
    32      4     length
    36      8     when, seconds of the store's odometer
"""

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from crc32c import crc32c

from fs_storage.engine.versions import NOBODY, Block, Identity, Patch, Record, Version, page_count

FORMAT = 1
_HEAD = struct.Struct("<IBBH")
_VERSION = struct.Struct("<BBBBIIIIIIIQQQ")
_PATCH = struct.Struct("<II")
_CHANNEL = struct.Struct("<QQ")
_ANSWER = struct.Struct("<I12sQQIQ")
_CHANNEL_KEY = struct.Struct(">Q")
assert _HEAD.size == 8 and _VERSION.size == 56 and _PATCH.size == 8 and _CHANNEL.size == 16 and _ANSWER.size == 44

TOMBSTONE_BYTES = _HEAD.size + _VERSION.size
"""Of the value of a tombstone with nothing pending. (An empty chunk's has as many.)"""

_COMMITTED, _PENDING = 1, 2
_REMOVED, _HAS_BLOCK, _HAS_WHOLE = 1, 2, 4

Locate = Callable[[int, int], Block]
"""(log2 of the block size, slot) -> the block."""


class IndexDamaged(Exception):
    """A value of the index is not what was stored."""


class StoredAnswer(NamedTuple):
    """What a channel did last."""

    chunk: bytes
    sequence: int
    version: int
    """0: the update was dropped; it will never be applied."""
    length: int
    when: int
    """Seconds of the store's odometer."""


def encode_record(record: Record) -> bytes:
    parts = [b"", b""]
    flags = 0
    if record.committed is not None:
        flags |= _COMMITTED
        _append_version(parts, record.committed)
    if record.pending is not None:
        flags |= _PENDING
        _append_version(parts, record.pending)
        client, channel, sequence = record.identity
        parts.append(bytes((len(client),)) + client + _CHANNEL.pack(channel, sequence))
    parts[1] = _HEAD.pack(0, FORMAT, flags, 0)[4:]
    return _sealed(b"".join(parts))


def _sealed(body: bytes) -> bytes:
    crc: int = crc32c(body)
    return crc.to_bytes(4, "little") + body


def _append_version(parts: list[bytes], version: Version) -> None:
    block = version.block
    flags = (
        (_REMOVED if version.removed else 0)
        | (_HAS_BLOCK if block is not None else 0)
        | (_HAS_WHOLE if version.whole else 0)
    )
    parts.append(
        _VERSION.pack(
            flags,
            version.chunk_bits,
            block.size_class if block is not None else 0,
            0,
            block.slot if block is not None else 0,
            version.length,
            version.used,
            int.from_bytes(version.whole, "little"),
            len(version.checksums) // 4,
            len(version.patches),
            0,
            version.number,
            version.chain_version,
            version.removed_at,
        )
    )
    parts.append(version.checksums)
    for offset, data in version.patches:
        parts.append(_PATCH.pack(offset, len(data)))
        parts.append(data)


def decode_record(value: Any, locate: Locate) -> Record:
    """The inverse of `encode_record`. `value`: bytes, or a view of the index's memory (nothing of it is kept)."""
    try:
        crc, form, flags, _ = _HEAD.unpack_from(value, 0)
        if crc32c(memoryview(value)[4:]) != crc:
            raise IndexDamaged("checksum of the record")
        if form != FORMAT:
            raise IndexDamaged(f"format version {form}")
        offset = _HEAD.size
        committed = pending = None
        identity = NOBODY
        if flags & _COMMITTED:
            committed, offset = _read_version(value, offset, locate)
        if flags & _PENDING:
            pending, offset = _read_version(value, offset, locate)
            size = value[offset]
            client = bytes(value[offset + 1 : offset + 1 + size])
            identity = Identity(client, *_CHANNEL.unpack_from(value, offset + 1 + size))
    except (struct.error, IndexError) as error:
        raise IndexDamaged(f"record of {len(value)} bytes is cut short") from error
    return Record(committed, pending, identity)


def _read_version(value: Any, offset: int, locate: Locate) -> tuple[Version, int]:
    (
        flags,
        chunk_bits,
        size_class,
        _,
        slot,
        length,
        used,
        whole,
        pages,
        patch_count,
        _,
        number,
        chain_version,
        removed_at,
    ) = _VERSION.unpack_from(value, offset)
    if chunk_bits > 26 or pages != page_count(length, chunk_bits):
        raise IndexDamaged("number of page checksums")
    offset += _VERSION.size
    checksums = bytes(value[offset : offset + 4 * pages])
    offset += 4 * pages
    patches = []
    for _ in range(patch_count):
        at, size = _PATCH.unpack_from(value, offset)
        offset += _PATCH.size
        patches.append(Patch(at, bytes(value[offset : offset + size])))
        offset += size
    version = Version(
        number,
        chain_version,
        chunk_bits,
        length,
        used,
        bool(flags & _REMOVED),
        removed_at,
        locate(size_class, slot) if flags & _HAS_BLOCK else None,
        checksums,
        whole.to_bytes(4, "little") if flags & _HAS_WHOLE else b"",
        tuple(patches),
    )
    return version, offset


class Glance(NamedTuple):
    """What lists, sweeps and the allocator need of a record."""

    present: bool
    """There is a committed version with data."""
    length: int
    """Of that."""
    unsettled: bool
    """It has a pending version, or patches: worth decoding in full."""
    removed_at: int
    """0: the committed version is not a removal."""
    size_class: int
    """With `slot`, the block of the committed version; 0: it has none."""
    slot: int
    number: int
    """Of the committed version; 0: there is none."""


def glance(value: Any) -> Glance:
    """What `value` says, without decoding or verifying all of it."""
    flags = value[5]
    if not flags & _COMMITTED:
        return Glance(False, 0, True, 0, 0, 0, 0)
    made = _VERSION.unpack_from(value, _HEAD.size)
    unsettled = bool(flags & _PENDING or made[9])
    if made[0] & _REMOVED:
        return Glance(False, 0, unsettled, made[13], 0, 0, made[11])
    return Glance(True, made[5], unsettled, 0, made[2] if made[0] & _HAS_BLOCK else 0, made[4], made[11])


def answer_key(client: bytes, channel: int) -> bytes:
    return client + _CHANNEL_KEY.pack(channel)


def split_answer_key(key: bytes) -> tuple[bytes, int]:
    return key[:-8], int.from_bytes(key[-8:], "big")


def encode_answer(answer: StoredAnswer) -> bytes:
    return _sealed(_ANSWER.pack(0, *answer)[4:])


def decode_answer(value: Any) -> StoredAnswer:
    if len(value) != _ANSWER.size:
        raise IndexDamaged(f"an answer has {_ANSWER.size} bytes, not {len(value)}")
    crc, *fields = _ANSWER.unpack(value)
    if crc32c(memoryview(value)[4:]) != crc:
        raise IndexDamaged("checksum of the answer")
    return StoredAnswer(*fields)
