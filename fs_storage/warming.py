"""Chunks read into the page cache of this node ahead of their readers, and sent to nobody.

A few threads of their own read, after everybody else's reads of the disk, so that warming a whole data set holds up no
reader. Where a page cache is too small for what was asked, the last chunks stay; nothing here knows how large it is.

Called by: the service.
"""

import asyncio
import mmap
import struct
import threading
from concurrent.futures import ThreadPoolExecutor

from fs_common.errors import Code, EmberError
from fs_common.limits import CHUNK_SIZE_MAX, MIB, WARM_ITEMS_MAX
from fs_common.records.storage import ItemError, WarmChunks, WarmChunksReply, WarmItem
from fs_common.rpc import Call, Reply
from fs_common.telemetry import Counters
from fs_storage.giving_way import give_way
from fs_storage.into_memory import read_into
from fs_storage.reads import DAMAGE
from fs_storage.target import Target
from fs_storage.targets import Targets

THREADS = 4
"""Enough for a disk that answers several reads at once, and few beside those for readers."""
PIECE_BYTES = MIB
"""Memory of one thread; the bytes land there and are forgotten."""
_pack_chunk_id = struct.Struct(">QI").pack


class Warming:
    """The handler of WARM_CHUNKS."""

    def __init__(self, targets: Targets, counters: Counters) -> None:
        self._targets = targets
        self._counters = counters
        self._memory = threading.local()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="warm", initializer=give_way)

    async def warm(self, call: Call) -> Reply:
        """WARM_CHUNKS. Each item succeeds or fails by itself; what a caller who gave up asked for is read no more."""
        request: WarmChunks = call.request
        items = request.items
        if not 1 <= len(items) <= WARM_ITEMS_MAX:
            raise EmberError(Code.INVALID, f"{len(items)} chunks in one request; 1 to {WARM_ITEMS_MAX}")
        lengths = [0] * len(items)
        errors: list[ItemError] = []

        async def one(at: int, item: WarmItem) -> None:
            try:
                lengths[at] = await self._warm(item)
            except EmberError as error:
                errors.append(ItemError(at, error.code.value.number, error.message))

        await asyncio.gather(*(one(at, item) for at, item in enumerate(items)))
        self._counters.add("bytes_warmed", sum(lengths))
        return Reply(WarmChunksReply(lengths, sorted(errors, key=lambda error: error.index)))

    def close(self) -> None:
        """Wait for what threads are reading."""
        self._threads.shutdown(cancel_futures=True)

    async def _warm(self, item: WarmItem) -> int:
        target = self._targets.require(item.chain)
        target.require(item.chain_version)
        if not 1 <= item.length <= CHUNK_SIZE_MAX:
            raise EmberError(Code.INVALID, f"{item.length} bytes of a chunk; 1 to {CHUNK_SIZE_MAX}")
        try:
            chunk = _pack_chunk_id(item.inode, item.index)
        except struct.error:
            raise EmberError(Code.INVALID, f"inode {item.inode} chunk {item.index} is no chunk") from None
        if chunk in target.uncertain:
            return 0
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._threads, self._read, target, chunk, item.length
            )
        except EmberError as error:
            if error.code in DAMAGE:
                self._targets.suspect(target, chunk)
            raise

    def _read(self, target: Target, chunk: bytes, length: int) -> int:
        """In a thread. Bytes that were read."""
        memory: memoryview | None = getattr(self._memory, "view", None)
        if memory is None:
            memory = self._memory.view = memoryview(mmap.mmap(-1, PIECE_BYTES))
        done = 0
        while done < length:
            piece = memory[: min(length - done, PIECE_BYTES)]
            read = read_into(target.store, chunk, done, piece)
            if read.release is not None:
                read.release()
            done += read.length
            if read.length < len(piece):
                break
        return done
