"""Answers reads. The fast path is flat on purpose: a 4-KiB read from the page cache costs 3 us of Python.

A read sees the version that is committed (or pending) at its start. Three ways, by what is asked:

* small, or a version with patches: copied from the page cache into the caller's buffer;
* large: a range of the block file, which the transport sends by `sendfile`; the block is pinned until `release`;
* not in the page cache: `WouldBlock`, and the same again from a thread.

Pages that are read whole are not verified here: their stored checksums travel with them, and the client verifies what
it got. Of a page that is read in part the whole is read and verified, and the part gets a checksum of its own.

A patch that is applied while an older version of its block is being sent shows as a checksum that does not match: the
client repeats the read. Versions that still have the patch lay it over whatever they read, so they never see half.
"""

from collections.abc import Callable
from functools import partial

from crc32c import crc32c

from fs_common.checksums import page_checksums
from fs_common.errors import Code, EmberError
from fs_common.rpc import FileRange
from fs_storage.engine.contents import damaged
from fs_storage.engine.disk import NO_WAIT, Disk
from fs_storage.engine.interface import ChunkRead, WouldBlock
from fs_storage.engine.slots import Slots
from fs_storage.engine.table import Table
from fs_storage.engine.versions import PAGE_SHIFTS, Block, Record, Version, overlay

LARGE_BYTES = 64 * 1024
"""From here on `sendfile` beats a copy through memory."""


class Reader:
    """See the module. `read` belongs to the event loop, `read_blocking` to any thread."""

    def __init__(self, disk: Disk, table: Table, slots: Slots) -> None:
        self._disk = disk
        self._table = table
        self._slots = slots
        self._hot = table.hot
        self._read = disk.read
        self.small = 0
        self.large = 0
        self.would_block = 0
        self.damaged = 0

    def read(self, chunk: bytes, offset: int, length: int, buffer: memoryview, pending: bool) -> ChunkRead:
        record = self._hot.get(chunk)
        if record is None:
            record = self._table.get(chunk)
        version = record.pending if pending else record.committed
        if version is None or version.removed:
            raise EmberError(Code.CHUNK_NOT_FOUND, f"chunk {chunk.hex()} has no data")
        total = version.length
        end = offset + length
        if end > total:
            end = total
            length = end - offset
            if length <= 0:
                return ChunkRead(0, b"", buffer[:0], None)
        shift = PAGE_SHIFTS[version.chunk_bits]
        mask = (1 << shift) - 1
        block = version.block
        if version.patches or block is None or offset & mask or (end & mask and end != total):
            return self._read_slowly(version, offset, length, buffer, NO_WAIT, self._disk.cached)
        if length == total and version.whole:
            checksums = version.whole
        else:
            checksums = version.checksums[(offset >> shift) << 2 : ((end + mask) >> shift) << 2]
        if length < LARGE_BYTES:
            part = buffer[:length]
            try:
                if self._read(block.file.fd, (part,), block.position + offset, NO_WAIT) == length:
                    self.small += 1
                    return ChunkRead(length, checksums, part, None)
            except BlockingIOError:
                pass
            except OSError as error:
                raise _unreadable(block, error) from error
            self.would_block += 1
            raise WouldBlock
        if not self._disk.cached(block.file.fd, block.position + offset, length):
            self.would_block += 1
            raise WouldBlock
        return self._range(block, offset, length, checksums)

    def read_blocking(self, chunk: bytes, offset: int, length: int, buffer: memoryview, pending: bool) -> ChunkRead:
        while True:
            record = self._table.peek(chunk)
            version = record.pending if pending else record.committed
            if version is None or version.removed:
                raise EmberError(Code.CHUNK_NOT_FOUND, f"chunk {chunk.hex()} has no data")
            wanted = min(length, version.length - offset)
            block = version.block
            if wanted <= 0 or block is None:
                return ChunkRead(0, b"", buffer[:0], None)
            self._slots.pin(block.size_class, block.slot)
            try:
                if _still(self._table.peek(chunk), version):
                    return self._read_slowly(version, offset, wanted, buffer, 0, self._warm(buffer))
            except EmberError:
                if _still(self._table.peek(chunk), version):
                    raise
            finally:
                self._slots.unpin(block.size_class, block.slot)

    # -- inside ------------------------------------------------------------------------------------------------

    def _read_slowly(
        self,
        version: Version,
        offset: int,
        length: int,
        buffer: memoryview,
        flags: int,
        cached: Callable[[int, int, int], bool],
    ) -> ChunkRead:
        """Any read. `flags`: NO_WAIT or 0; `cached`: whether a range may be sent as it is."""
        block = version.block
        assert block is not None
        shift = PAGE_SHIFTS[version.chunk_bits]
        page = 1 << shift
        end = offset + length
        first = offset >> shift
        last = (end - 1) >> shift
        head = offset - (first << shift)
        tail = min((last + 1) << shift, version.length) - end
        if version.patches:
            return self._read_patched(version, offset, length, head, tail, buffer, flags)
        if length >= LARGE_BYTES:
            if not cached(block.file.fd, block.position + offset, length):
                self.would_block += 1
                raise WouldBlock
            checksums = bytearray(version.checksums[first << 2 : (last + 1) << 2])
            if head:
                whole = self._page(version, first, flags)
                checksums[:4] = crc32c(whole[head:]).to_bytes(4, "little")
            if tail:
                whole = self._page(version, last, flags)
                checksums[-4:] = crc32c(whole[: len(whole) - tail]).to_bytes(4, "little")
            if length == version.length and version.whole:
                checksums[:] = version.whole
            return self._range(block, offset, length, bytes(checksums))
        part = buffer[:length]
        before = bytearray(head)
        after = bytearray(tail)
        self._fill((before, part, after), head + length + tail, block, block.position + offset - head, flags)
        checksums = bytearray(version.checksums[first << 2 : (last + 1) << 2])
        if first == last:
            if head or tail:
                self._judge(version, first, crc32c(after, crc32c(part, crc32c(before))))
                checksums[:] = crc32c(part).to_bytes(4, "little")
        else:
            if head:
                piece = part[: page - head]
                self._judge(version, first, crc32c(piece, crc32c(before)))
                checksums[:4] = crc32c(piece).to_bytes(4, "little")
            if tail:
                piece = part[(last << shift) - offset :]
                self._judge(version, last, crc32c(after, crc32c(piece)))
                checksums[-4:] = crc32c(piece).to_bytes(4, "little")
        if length == version.length and version.whole:
            checksums[:] = version.whole
        self.small += 1
        return ChunkRead(length, bytes(checksums), part, None)

    def _read_patched(
        self, version: Version, offset: int, length: int, head: int, tail: int, buffer: memoryview, flags: int
    ) -> ChunkRead:
        """Block bytes with patches over them; every page is verified, as there is no telling which are mixed."""
        block = version.block
        assert block is not None
        data = memoryview(bytearray(head + length + tail))
        start = offset - head
        if not any(at <= start and start + len(data) <= at + len(bytes_) for at, bytes_ in version.patches):
            self._fill((data,), len(data), block, block.position + start, flags)
        overlay(data, start, version.patches)
        shift = PAGE_SHIFTS[version.chunk_bits]
        first = start >> shift
        stored = version.checksums[first << 2 : (first << 2) + 4 * ((len(data) + (1 << shift) - 1) >> shift)]
        if page_checksums(data, start, 1 << version.chunk_bits) != stored:
            self.damaged += 1
            raise damaged(version, f"pages {first} and following do not match their checksums")
        part = buffer[:length]
        part[:] = data[head : head + length]
        self.small += 1
        return ChunkRead(length, page_checksums(part, offset, 1 << version.chunk_bits), part, None)

    def _page(self, version: Version, index: int, flags: int) -> memoryview:
        """One page, verified. The version has no patches."""
        block = version.block
        assert block is not None
        shift = PAGE_SHIFTS[version.chunk_bits]
        start = index << shift
        data = memoryview(bytearray(min(1 << shift, version.length - start)))
        self._fill((data,), len(data), block, block.position + start, flags)
        self._judge(version, index, crc32c(data))
        return data

    def _judge(self, version: Version, index: int, checksum: int) -> None:
        if checksum.to_bytes(4, "little") != version.checksums[index << 2 : (index << 2) + 4]:
            self.damaged += 1
            raise damaged(version, f"page {index} does not match its checksum")

    def _fill(
        self, buffers: tuple[bytearray | memoryview, ...], length: int, block: Block, position: int, flags: int
    ) -> None:
        try:
            count = self._read(block.file.fd, buffers, position, flags)
        except BlockingIOError:
            count = -1
        except OSError as error:
            raise _unreadable(block, error) from error
        if count == length:
            return
        if flags:
            self.would_block += 1
            raise WouldBlock
        raise EmberError(Code.CHECKSUM, f"{block.file.name} ends before {position + length}: its bytes are lost")

    def _range(self, block: Block, offset: int, length: int, checksums: bytes) -> ChunkRead:
        self._slots.pin(block.size_class, block.slot)
        self.large += 1
        return ChunkRead(
            length,
            checksums,
            FileRange(block.file.fd, block.position + offset, length),
            partial(self._slots.unpin, block.size_class, block.slot),
        )

    def _warm(self, buffer: memoryview) -> Callable[[int, int, int], bool]:
        """Bring a range into the page cache by reading it, which is what makes it 'cached'."""

        def warm(file: int, offset: int, length: int) -> bool:
            try:
                count = self._read(file, (buffer[:length],), offset)
            except OSError as error:
                raise EmberError(Code.DISK_FAILED, f"a block file cannot be read: {error.strerror}") from error
            if count < length:
                raise EmberError(Code.CHECKSUM, f"a block file ends before {offset + length}: its bytes are lost")
            return True

        return warm


def _still(record: Record, version: Version) -> bool:
    """The version is one of the record's, so its block is not free."""
    return any(
        one is not None and one.number == version.number and one.block == version.block
        for one in (record.committed, record.pending)
    )


def _unreadable(block: Block, error: OSError) -> EmberError:
    return EmberError(Code.DISK_FAILED, f"{block.file.name} cannot be read: {error.strerror}")
