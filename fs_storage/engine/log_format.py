"""Bytes of the redo log: a file header, then frames of records. All integers little-endian.

File header, 4096 bytes, written once when the target is formatted:

    offset  size  field
    0       8     b"EMBERLOG"
    8       4     format version, 1
    12      4     CRC32C of bytes 0..11 and 16..23
    16      8     target id
    24      ...   0

Frame, at a multiple of 8; one for each group of changes that were stored together:

    0       4     b"EFL1"
    4       4     CRC32C of everything after it (rest of the header, and the body)
    8       4     body length
    12      4     number of records
    16      8     sequence: 1 more than the frame before, for the whole life of the target
    24      8     frames up to this sequence were on the disk when this one was written
    32      8     bytes that frames up to this sequence put into blocks were on the disk, too
    40      ...   body: records, one after the other; then zeros up to a multiple of 8

Record BEGIN, first in a file after it was emptied (20 bytes):

    0       1     4
    1       3     0
    4       16    boot id of the machine

Record PREPARE, a version became pending:

    0       1     1
    1       1     flags: 1 removal, 2 has a block, 4 has a whole checksum, 8 builds on the committed version,
                  16 the committed version is a tombstone that is forgotten (older versions wrote this)
    2       1     log2 of the chunk size
    3       1     log2 of the block size
    4       4     slot
    8       12    chunk id
    20      4     length
    24      4     used (see `versions.Version`)
    28      4     whole checksum
    32      4     first page whose checksum follows; earlier and later ones are those of the committed version
    36      4     number of checksums p
    40      4     number of patches n; they come after those of the committed version if the block is the same
    44      4     first byte of the block written by this update other than through a patch
    48      4     byte after the last such one; equal: none
    52      1     length of the client id c
    53      3     0
    56      8     version
    64      8     chain version
    72      8     channel
    80      8     sequence
    88      8     when, seconds of the store's odometer
    96      c     client id
    ...     4*p   page checksums
    ...     8+b   n times: offset (4), length b (4), bytes

Records COMMIT and ABANDON, the pending version became the committed one, or was dropped (32 bytes):

    0       1     2 or 3
    1       3     0
    4       12    chunk id
    16      8     version
    24      8     when, seconds of the store's odometer

Record FORGET, the chunk has neither a committed nor a pending version any more (16 bytes):

    0       1     5
    1       3     0
    4       12    chunk id
"""

import enum
import struct
from collections.abc import Iterator
from typing import NamedTuple

from crc32c import crc32c

from fs_storage.engine.disk import Bytes
from fs_storage.engine.versions import Patch

FORMAT = 1
FILE_HEADER_SIZE = 4096
FRAME_HEADER_SIZE = 40
ALIGNMENT = 8
BODY_SIZE_MAX = 1 << 30
_FILE_MAGIC = b"EMBERLOG"
_FRAME_MAGIC = b"EFL1"
_FILE = struct.Struct("<8sIIQ")
_FRAME = struct.Struct("<4sIIIQQQ")
_FRAME_REST = struct.Struct("<IIQQQ")
_PREPARE = struct.Struct("<BBBBI12sIIIIIIIIB3xQQQQQ")
_OUTCOME = struct.Struct("<B3x12sQQ")
_BEGIN = struct.Struct("<B3x16s")
_FORGET = struct.Struct("<B3x12s")
_PATCH = struct.Struct("<II")
assert _FILE.size == 24 and _FRAME.size == FRAME_HEADER_SIZE and _FRAME_REST.size == FRAME_HEADER_SIZE - 8
assert _PREPARE.size == 96 and _OUTCOME.size == 32 and _BEGIN.size == 20 and _PATCH.size == 8
assert _FORGET.size == 16

_REMOVED, _HAS_BLOCK, _HAS_WHOLE, _BUILDS_ON, _FORGETS = 1, 2, 4, 8, 16


class LogDamaged(Exception):
    """The log is not what was stored, in a place that was on the disk."""


class _Type(enum.IntEnum):
    PREPARE = 1
    COMMIT = 2
    ABANDON = 3
    BEGIN = 4
    FORGET = 5


class Begin(NamedTuple):
    boot_id: bytes


class Prepare(NamedTuple):
    chunk: bytes
    removed: bool
    builds_on: bool
    forgets: bool
    chunk_bits: int
    size_class: int
    """With `slot`, the block; -1: it has none."""
    slot: int
    length: int
    used: int
    whole: bytes
    first_page: int
    checksums: bytes
    patches: tuple[Patch, ...]
    direct_start: int
    direct_end: int
    client: bytes
    channel: int
    sequence: int
    version: int
    chain_version: int
    when: int


class Commit(NamedTuple):
    chunk: bytes
    version: int
    when: int


class Abandon(NamedTuple):
    chunk: bytes
    version: int
    when: int


class Forget(NamedTuple):
    chunk: bytes


LogRecord = Begin | Prepare | Commit | Abandon | Forget


class Frame(NamedTuple):
    sequence: int
    log_synced: int
    data_synced: int
    records: list[LogRecord]
    end: int
    """Offset where the next frame begins."""


def encode_file_header(target: int) -> bytes:
    head = _FILE.pack(_FILE_MAGIC, FORMAT, 0, target)
    crc = crc32c(head[16:], crc32c(head[:12]))
    return _FILE.pack(_FILE_MAGIC, FORMAT, crc, target).ljust(FILE_HEADER_SIZE, b"\0")


def check_file_header(data: bytes, target: int) -> None:
    """Raise `LogDamaged` unless `data` is the header of a log of `target`."""
    if len(data) < _FILE.size:
        raise LogDamaged("the log has no header")
    magic, form, crc, owner = _FILE.unpack_from(data)
    if magic != _FILE_MAGIC or crc32c(data[16:24], crc32c(data[:12])) != crc:
        raise LogDamaged("the log's header is damaged")
    if form != FORMAT:
        raise LogDamaged(f"the log has format version {form}, this program knows {FORMAT}")
    if owner != target:
        raise LogDamaged(f"the log belongs to target {owner}")


def encode_frame(sequence: int, log_synced: int, data_synced: int, count: int, body: list[Bytes]) -> list[Bytes]:
    """The parts of a frame of `count` records whose encoded parts are `body` (not copied)."""
    length = sum(map(len, body))
    rest = _FRAME_REST.pack(length, count, sequence, log_synced, data_synced)
    crc = crc32c(rest)
    for part in body:
        crc = crc32c(part, crc)
    return [_FRAME_MAGIC + crc.to_bytes(4, "little") + rest, *body, bytes(-length % ALIGNMENT)]


def encode_begin(boot_id: bytes) -> bytes:
    return _BEGIN.pack(_Type.BEGIN, boot_id)


def encode_prepare(record: Prepare) -> list[Bytes]:
    parts: list[Bytes] = [
        _PREPARE.pack(
            _Type.PREPARE,
            (_REMOVED if record.removed else 0)
            | (_HAS_BLOCK if record.size_class >= 0 else 0)
            | (_HAS_WHOLE if record.whole else 0)
            | (_BUILDS_ON if record.builds_on else 0)
            | (_FORGETS if record.forgets else 0),
            record.chunk_bits,
            max(record.size_class, 0),
            record.slot,
            record.chunk,
            record.length,
            record.used,
            int.from_bytes(record.whole, "little"),
            record.first_page,
            len(record.checksums) // 4,
            len(record.patches),
            record.direct_start,
            record.direct_end,
            len(record.client),
            record.version,
            record.chain_version,
            record.channel,
            record.sequence,
            record.when,
        )
        + record.client,
        record.checksums,
    ]
    for offset, data in record.patches:
        parts.append(_PATCH.pack(offset, len(data)))
        parts.append(data)
    return parts


def encode_commit(chunk: bytes, version: int, when: int) -> bytes:
    return _OUTCOME.pack(_Type.COMMIT, chunk, version, when)


def encode_abandon(chunk: bytes, version: int, when: int) -> bytes:
    return _OUTCOME.pack(_Type.ABANDON, chunk, version, when)


def encode_forget(chunk: bytes) -> bytes:
    return _FORGET.pack(_Type.FORGET, chunk)


def decode_frame(data: memoryview, offset: int) -> Frame | None:
    """The frame at `offset` of a log file, or None: there is no (whole, undamaged) frame."""
    if offset + FRAME_HEADER_SIZE > len(data) or data[offset : offset + 4] != _FRAME_MAGIC:
        return None
    _, crc, length, count, sequence, log_synced, data_synced = _FRAME.unpack_from(data, offset)
    start = offset + FRAME_HEADER_SIZE
    if length > BODY_SIZE_MAX or start + length > len(data) or crc32c(data[offset + 8 : start + length]) != crc:
        return None
    records = list(_decode_records(data[start : start + length], count))
    return Frame(sequence, log_synced, data_synced, records, start + length + -length % ALIGNMENT)


def find_frame(data: memoryview, offset: int) -> Frame | None:
    """The first whole frame at or after `offset`. Only for judging damage: it tries every place."""
    raw = data.obj if isinstance(data.obj, bytes | bytearray) else bytes(data)
    while True:
        offset = raw.find(_FRAME_MAGIC, offset)
        if offset < 0:
            return None
        frame = decode_frame(data, offset) if offset % ALIGNMENT == 0 else None
        if frame is not None:
            return frame
        offset += 1


def _decode_records(body: memoryview, count: int) -> Iterator[LogRecord]:
    offset = 0
    try:
        for _ in range(count):
            kind = body[offset]
            if kind == _Type.PREPARE:
                record, offset = _decode_prepare(body, offset)
                yield record
            elif kind in (_Type.COMMIT, _Type.ABANDON):
                _, chunk, version, when = _OUTCOME.unpack_from(body, offset)
                yield Commit(chunk, version, when) if kind == _Type.COMMIT else Abandon(chunk, version, when)
                offset += _OUTCOME.size
            elif kind == _Type.BEGIN:
                _, boot_id = _BEGIN.unpack_from(body, offset)
                yield Begin(boot_id)
                offset += _BEGIN.size
            elif kind == _Type.FORGET:
                _, chunk = _FORGET.unpack_from(body, offset)
                yield Forget(chunk)
                offset += _FORGET.size
            else:
                raise LogDamaged(f"record type {kind} is unknown")
    except (struct.error, IndexError) as error:
        raise LogDamaged("a frame ends within a record") from error
    if offset != len(body):
        raise LogDamaged("a frame has bytes after its last record")


def _decode_prepare(body: memoryview, offset: int) -> tuple[Prepare, int]:
    (
        _,
        flags,
        chunk_bits,
        size_class,
        slot,
        chunk,
        length,
        used,
        whole,
        first_page,
        checksum_count,
        patch_count,
        direct_start,
        direct_end,
        client_size,
        version,
        chain_version,
        channel,
        sequence,
        when,
    ) = _PREPARE.unpack_from(body, offset)
    offset += _PREPARE.size
    client = bytes(body[offset : offset + client_size])
    offset += client_size
    checksums = bytes(body[offset : offset + 4 * checksum_count])
    offset += 4 * checksum_count
    patches = []
    for _ in range(patch_count):
        at, size = _PATCH.unpack_from(body, offset)
        offset += _PATCH.size
        patches.append(Patch(at, bytes(body[offset : offset + size])))
        offset += size
    if offset > len(body):
        raise LogDamaged("a frame ends within a record")
    return (
        Prepare(
            chunk,
            bool(flags & _REMOVED),
            bool(flags & _BUILDS_ON),
            bool(flags & _FORGETS),
            chunk_bits,
            size_class if flags & _HAS_BLOCK else -1,
            slot,
            length,
            used,
            whole.to_bytes(4, "little") if flags & _HAS_WHOLE else b"",
            first_page,
            checksums,
            tuple(patches),
            direct_start,
            direct_end,
            client,
            channel,
            sequence,
            version,
            chain_version,
            when,
        ),
        offset,
    )
