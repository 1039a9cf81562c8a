"""Whether the stored bytes of a chunk are still what they were: read from the device, compared with the page checksums.

Belongs to a thread of its caller's, one at a time; the event loop goes on meanwhile. Reads go past the page cache where
the file system can do that: what counts is what the disk has, and what is cached for readers stays cached.

A chunk changes while it is read: a patch is written into the block, or the block gets another owner. So a block is
pinned, and what looks damaged counts only if the record is afterwards what it was before; otherwise it is read again.
"""

import mmap
import threading
from collections.abc import Sequence
from typing import NamedTuple

from fs_common.checksums import page_checksums
from fs_storage.engine.digest import digest_of
from fs_storage.engine.disk import PAGE, Disk
from fs_storage.engine.interface import Checked
from fs_storage.engine.slots import Slots
from fs_storage.engine.table import Table
from fs_storage.engine.versions import PAGE_SHIFTS, Patch, Version, overlay

STEP_BYTES = 1 << 20
"""Read at once; a multiple of every page size."""
_LOOKS_MAX = 5
"""Times that a chunk may change under the look before it is left for another time."""


class _Bad(NamedTuple):
    pages: list[int]
    reasons: list[str]


class Checker:
    """See the module."""

    def __init__(self, disk: Disk, table: Table, slots: Slots) -> None:
        self._disk = disk
        self._table = table
        self._slots = slots
        self._lock = threading.Lock()
        """Of the buffer."""
        self._buffer: mmap.mmap | None = None
        """Aligned as direct reads need it."""

    def check(self, chunk: bytes) -> Checked | None:
        """See `interface.ChunkStore.check_stored`."""
        with self._lock:
            for _ in range(_LOOKS_MAX):
                version = self._table.peek(chunk).committed
                if version is None or version.block is None:
                    return None
                block = version.block
                self._slots.pin(block.size_class, block.slot)
                try:
                    if not self._is_committed(chunk, version):
                        continue
                    bad = self._bad_pages(version)
                    if bad.pages and not self._is_committed(chunk, version):
                        continue
                finally:
                    self._slots.unpin(block.size_class, block.slot)
                digest = digest_of(version.number, version.length, version.removed, version.checksums)
                where = f"{bad.reasons[0]} (block {block.slot} of {block.file.name})" if bad.reasons else ""
                return Checked(version.number, digest, version.length, 1 << version.chunk_bits, tuple(bad.pages), where)
        return None

    def _is_committed(self, chunk: bytes, version: Version) -> bool:
        committed = self._table.peek(chunk).committed
        return (
            committed is not None
            and (committed.number, committed.block) == (version.number, version.block)
            and (committed.checksums, committed.patches) == (version.checksums, version.patches)
        )

    def _bad_pages(self, version: Version) -> _Bad:
        bad = _Bad([], [])
        for start in range(0, version.length, STEP_BYTES):
            length = min(STEP_BYTES, version.length - start)
            if not self._look(version, start, length, None):
                page = 1 << PAGE_SHIFTS[version.chunk_bits]
                for at in range(start, start + length, page):
                    self._look(version, at, min(page, version.length - at), bad)
        return bad

    def _look(self, version: Version, start: int, length: int, bad: _Bad | None) -> bool:
        """Whether those bytes are what they were; `start` at a page. If not, and `bad` is given, it is one page."""
        block = version.block
        assert block is not None
        shift = PAGE_SHIFTS[version.chunk_bits]
        if self._buffer is None:
            self._buffer = mmap.mmap(-1, STEP_BYTES)
        with memoryview(self._buffer) as whole:
            wanted = min(length + -length % PAGE, (1 << block.size_class) - start)
            reason = f"page {start >> shift} does not match its checksum"
            try:
                with whole[:wanted] as view:
                    count = self._disk.read_stored(block.file.fd, view, block.position + start)
            except OSError as error:
                count = 0
                reason = f"page {start >> shift} cannot be read: {error.strerror or error}"
            with whole[:length] as data:
                if count < length:
                    # A patch may cover what is not there.
                    data[count:] = bytes(length - count)
                overlay(data, start, version.patches)
                first = start >> shift
                stored = version.checksums[first << 2 : (start + length + (1 << shift) - 1) >> shift << 2]
                if page_checksums(data, start, 1 << version.chunk_bits) == stored:
                    return True
        if bad is not None:
            bad.pages.append(start >> shift)
            bad.reasons.append(reason)
        return False


def pieces_of(
    version: Version, pending: Version | None, payload: memoryview, pages: Sequence[int]
) -> tuple[Patch, ...]:
    """Those pages of a committed version without patches, to be written over what its block has.

    The last one is filled up to a page of the disk with zeros, so that nothing of it need be read, unless another
    version has bytes there.
    """
    shift = PAGE_SHIFTS[version.chunk_bits]
    pieces = []
    for number in pages:
        start = number << shift
        end = min(start + (1 << shift), version.length)
        data = bytes(payload[start:end])
        if end == version.length and version.used == end and pending is None:
            data += bytes(-end % PAGE)
        pieces.append(Patch(start, data))
    return tuple(pieces)
