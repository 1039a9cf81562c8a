"""Makes a pending version of an update: verifies the payload, stores its bytes, computes checksums.

Runs in the writer thread. Nothing it does is visible or durable before the log has the record it returns: until then
its block is nobody's, or the bytes lie beyond what any version uses.

Cost: what the update changes. Only the first and last page of the changed range are read, and verified before they
are mixed with new bytes, so that damage is never given a new checksum.
"""

from functools import lru_cache

from crc32c import crc32c

from fs_common.checksums import whole_if_matches
from fs_common.errors import Code, EmberError
from fs_common.layout import Durability
from fs_common.records.storage import UpdateKind
from fs_storage.engine.contents import read_bytes, read_page
from fs_storage.engine.disk import Bytes, Disk
from fs_storage.engine.interface import Update
from fs_storage.engine.log_format import Prepare
from fs_storage.engine.plan import Place, Plan
from fs_storage.engine.versions import PAGE_SHIFTS, Block, Patch, Version, page_count

_COPY_BYTES = 1 << 20
_ZEROS = bytes(_COPY_BYTES)
_WRITEBACK_BYTES = 256 * 1024
"""From here on the device is told to begin before the sync."""


def make(disk: Disk, update: Update, base: Version | None, how: Plan, block: Block | None, when: int) -> "Made":
    """The version that `update` makes of `base`, with its bytes stored in `block` or in the record's patches.

    Raises `EmberError` (CHECKSUM, DISK_FAILED), with nothing stored that counts, and `OSError` from a failed write.
    """
    payload = update.payload
    matches, payload_whole = whole_if_matches(payload, how.payload_at, update.chunk_size, update.checksums)
    if not matches:
        raise EmberError(Code.CHECKSUM, f"chunk {update.chunk.hex()}: the payload does not match its checksums")
    chunk_bits = update.chunk_size.bit_length() - 1
    first_page, changed = _changed_checksums(disk, update, base, how)
    checksums = changed
    if how.builds_on:
        assert base is not None
        pages = page_count(how.length, chunk_bits)
        checksums = splice(base.checksums, first_page, changed, pages)
    patches: tuple[Patch, ...] = ()
    direct_start = direct_end = 0
    if how.place is Place.PATCH:
        patches = (Patch(how.start, bytes(how.payload_at - how.start) + bytes(payload)),)
    elif how.place is Place.DIRECT:
        assert block is not None
        if how.copies:
            assert base is not None
            _copy(disk, base, block, 0, how.start)
            _copy(disk, base, block, how.end, base.length)
            direct_end = how.length
        else:
            direct_start, direct_end = how.start, how.end
        disk.write(block.file.fd, [*_zeros(how.payload_at - how.start), payload], block.position + how.start)
        if update.durability == Durability.DISK and direct_end - direct_start >= _WRITEBACK_BYTES:
            disk.start_writeback(block.file.fd, block.position + direct_start, direct_end - direct_start)
        block.file.stored += 1
        block.file.touched += 1
    removed = update.kind == UpdateKind.REMOVE
    whole = _whole(update, base, how, checksums, payload_whole)
    kept = base.patches if base is not None and base.block == block and block is not None else ()
    version = Version(
        update.version,
        update.chain_version,
        chunk_bits,
        how.length,
        how.used,
        removed,
        0,
        block,
        checksums,
        whole,
        kept + patches,
    )
    record = Prepare(
        update.chunk,
        removed,
        how.builds_on,
        False,
        chunk_bits,
        block.size_class if block is not None else -1,
        block.slot if block is not None else 0,
        how.length,
        how.used,
        whole,
        first_page,
        changed,
        patches,
        direct_start,
        direct_end,
        update.client,
        update.channel,
        update.sequence,
        update.version,
        update.chain_version,
        when,
    )
    return Made(version, record)


class Made:
    """What `make` returns."""

    __slots__ = ("record", "version")

    def __init__(self, version: Version, record: Prepare) -> None:
        self.version = version
        self.record = record


def splice(old: bytes, first_page: int, changed: bytes, pages: int) -> bytes:
    """The checksums of `pages` pages: `changed` from `first_page` on, around them the `old` ones."""
    return old[: 4 * first_page] + changed + old[4 * first_page + len(changed) : 4 * pages]


def _changed_checksums(disk: Disk, update: Update, base: Version | None, how: Plan) -> tuple[int, bytes]:
    """(first page, checksums) of the pages that are not as in the committed version."""
    shift = PAGE_SHIFTS[update.chunk_size.bit_length() - 1]
    page = 1 << shift
    if how.start == how.end:
        pages = (how.length + page - 1) >> shift
        if base is None or how.length == base.length or not how.length % page:
            return pages, b""
        last = read_page(disk, base, pages - 1)[: how.length - ((pages - 1) << shift)]
        return pages - 1, _packed(crc32c(last))
    first = how.start >> shift
    last_page = (how.end - 1) >> shift
    payload_first = how.payload_at >> shift
    # Pages covered by the payload alone: their checksums came with it.
    full_first = (how.payload_at + page - 1) >> shift
    full_end = last_page + 1 if how.end == how.length else how.end >> shift
    parts: list[bytes] = []
    index = first
    while index <= last_page:
        if full_first <= index < full_end:
            parts.append(update.checksums[4 * (index - payload_first) : 4 * (full_end - payload_first)])
            index = full_end
            continue
        start = index << shift
        end = min(start + page, how.length)
        if start >= how.start and end <= how.payload_at:
            parts.append(_zero_checksum(end - start))
        else:
            parts.append(_mixed_checksum(disk, update, base, how, index, start, end))
        index += 1
    return first, b"".join(parts)


def _mixed_checksum(
    disk: Disk, update: Update, base: Version | None, how: Plan, index: int, start: int, end: int
) -> bytes:
    """Of a page with bytes of more than one origin: committed ones, zeros, payload."""
    data = bytearray(end - start)
    if how.builds_on and base is not None and start < base.length:
        old = read_page(disk, base, index)
        data[: len(old)] = old
    low = max(start, how.payload_at)
    high = min(end, how.end)
    if low < high:
        data[low - start : high - start] = update.payload[low - how.payload_at : high - how.payload_at]
    return _packed(crc32c(data))


def _whole(update: Update, base: Version | None, how: Plan, checksums: bytes, payload_whole: int | None) -> bytes:
    """One checksum for all bytes where it costs no more than one more pass over the payload; else b""."""
    if len(checksums) <= 4:
        return checksums
    if how.start == how.end:
        return base.whole if base is not None and base.length == how.length else b""
    if how.start != how.payload_at or how.end != how.length:
        return b""
    if how.start == 0:
        return _packed(crc32c(update.payload) if payload_whole is None else payload_whole)
    if base is not None and base.whole and how.start == base.length:
        return _packed(crc32c(update.payload, int.from_bytes(base.whole, "little")))
    return b""


@lru_cache(maxsize=64)
def _zero_checksum(length: int) -> bytes:
    return _packed(crc32c(bytes(length)))


def _packed(checksum: int) -> bytes:
    return checksum.to_bytes(4, "little")


def _zeros(length: int) -> list[Bytes]:
    whole, rest = divmod(length, _COPY_BYTES)
    return [*([_ZEROS] * whole), memoryview(_ZEROS)[:rest]]


def _copy(disk: Disk, base: Version, block: Block, start: int, end: int) -> None:
    """Copy committed bytes into a new block. They keep their checksums, so damage stays visible."""
    while start < end:
        stop = min(end, start + _COPY_BYTES)
        disk.write(block.file.fd, [read_bytes(disk, base, start, stop)], block.position + start)
        start = stop
