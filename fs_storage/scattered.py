"""SCATTER at the head of a chain: bytes for several places of a chunk become one plain WRITE.

The head reads what lies between the first piece and the last, puts the pieces over it, and goes on with that: behind
it nobody knows of pieces. It does so when the update has the chunk (no other update is under way, and what was left
pending is settled), so what it reads is what the update changes.

Bytes that were read are verified before they get new checksums: damage is never stored as if it were right.

Called by: `updates`.
"""

import asyncio
from concurrent.futures import Executor

from crc32c import crc32c

from fs_common.checksums import matches, page_checksums
from fs_common.errors import Code, EmberError
from fs_common.records import scattered
from fs_common.records.storage import UpdateItem, UpdateKind
from fs_storage.engine.interface import ChunkStore
from fs_storage.into_memory import read_into
from fs_storage.payload import Payload, PayloadMemory

READ_TRIES = 3
"""A block that an earlier update is being put into shows as damaged for a moment."""
HEAD = 0
"""Position on the chain."""


class Joiner:
    """See the module. `memory`: counted where updates enter the chain; `threads`: reads from disks."""

    def __init__(self, memory: PayloadMemory, threads: Executor) -> None:
        self._memory = memory
        self._threads = threads

    async def join(
        self, store: ChunkStore, chunk: bytes, item: UpdateItem, payload: memoryview
    ) -> tuple[UpdateItem, Payload]:
        """The WRITE that `item` comes to, and its payload, which the caller drops.

        Raises CHECKSUM, INVALID, BUSY (no memory), DISK_FAILED (what is stored is damaged); nothing was changed.
        """
        if item.checksums != crc32c(payload).to_bytes(4, "little"):
            raise EmberError(Code.CHECKSUM, "the payload does not match its checksum")
        pieces = scattered.unpack(payload, item.chunk_size)
        start = pieces[0][0]
        end = pieces[-1][0] + len(pieces[-1][1])
        joined = self._memory.take(HEAD, end - start)
        try:
            view = joined[0]
            await self._read(store, chunk, start, view, item.chunk_size)
            for offset, data in pieces:
                view[offset - start : offset - start + len(data)] = data
            write = UpdateItem(
                item.chain,
                item.chain_version,
                item.inode,
                item.index,
                UpdateKind.WRITE,
                start,
                end - start,
                item.chunk_size,
                item.channel,
                item.sequence,
                page_checksums(view, start, item.chunk_size),
                item.durability,
            )
        except BaseException:
            joined.drop()
            raise
        return write, joined

    async def _read(self, store: ChunkStore, chunk: bytes, offset: int, view: memoryview, chunk_size: int) -> None:
        """What is stored from `offset` on into `view`; zeros behind the chunk's end."""
        loop = asyncio.get_running_loop()
        for _ in range(READ_TRIES):
            state = store.state(chunk)
            length, sums = 0, b""
            if state is not None and not state.removed and state.length > offset:
                read = await loop.run_in_executor(self._threads, read_into, store, chunk, offset, view)
                if read.release is not None:
                    read.release()
                length, sums = read.length, read.checksums
            if matches(view[:length], offset, chunk_size, sums):
                view[length:] = bytes(len(view) - length)
                return
        raise EmberError(Code.DISK_FAILED, f"what is stored of chunk {chunk.hex()} does not match its checksums")
