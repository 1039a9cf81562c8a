"""Reads: one pass over a batch of any size, on any of this daemon's targets.

An item of a chunk with nothing pending, whose bytes are in the page cache, is answered in the loop's turn it arrives
in: no task, no thread. Small items share one pooled buffer, end to end; large ones are ranges of block files that the
transport sends by `sendfile`. What is left goes on together in one task:

* items whose bytes are not cached are read by threads, many at a time; the loop never waits for a disk;
* items of chunks with a version pending: one question to each chain's tail, then exactly the version it committed.

Cost: docs/concurrency/storage.md. Linearizability: `craq/apportion.py`.
"""

import asyncio
import logging
import struct
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from time import perf_counter_ns as clock_ns
from typing import NamedTuple

from fs_common.buffers import Buffer, BufferPool
from fs_common.errors import Code, EmberError
from fs_common.limits import PAYLOAD_BYTES_MAX, READ_ITEMS_MAX
from fs_common.records.storage import ItemError, ReadChunks, ReadChunksReply, ReadItem
from fs_common.rpc import Call, FileRange, Part, Reply
from fs_common.telemetry import Counters
from fs_storage.craq.apportion import Serve, Told, serve
from fs_storage.engine.interface import ChunkRead, WouldBlock
from fs_storage.forward import Forwarder
from fs_storage.target import Target
from fs_storage.targets import Targets

logger = logging.getLogger(__name__)

ASK_S_MAX = 5.0
"""A tail that does not say within this time what is committed is not waited for: the reader tries another replica."""
DAMAGE = frozenset((Code.CHECKSUM, Code.DISK_FAILED))
"""What a store raises when the bytes of one chunk are not what they were, or cannot be read."""
ROUNDS_MAX = 8
"""Times that a chunk may change under a read which asks the tail, before the reader is sent away."""
_pack_chunk_id = struct.Struct(">QI").pack


class _Left(NamedTuple):
    """An item that cannot be answered at once."""

    at: int
    """Its place in the request."""
    target: Target
    chunk: bytes
    start: int
    """Of its space in the buffer; `length` bytes are kept for it."""
    ask: bool
    """The tail has to be asked; otherwise only its bytes are not in memory."""


class _Batch:
    """The answer of one request while it forms."""

    __slots__ = ("buffer", "checksums", "errors", "items", "lengths", "parts", "releases", "view")

    def __init__(self, items: Sequence[ReadItem], buffer: Buffer) -> None:
        self.items = items
        self.buffer = buffer
        self.view = buffer.view
        self.lengths = [0] * len(items)
        self.checksums = [b""] * len(items)
        self.parts: list[Part | None] = [None] * len(items)
        """None where nothing is sent, and before it is known."""
        self.releases: list[Callable[[], None]] = [buffer.release]
        """To be called once the answer is sent or dropped."""
        self.errors: list[ItemError] = []

    def put(self, index: int, read: ChunkRead) -> None:
        self.lengths[index] = read.length
        self.checksums[index] = read.checksums
        if read.length:
            self.parts[index] = read.part
        if read.release is not None:
            self.releases.append(read.release)

    def fail(self, index: int, error: EmberError) -> None:
        self.errors.append(ItemError(index, error.code.value.number, error.message))

    def release(self) -> None:
        for release in self.releases:
            release()

    def reply(self) -> Reply:
        parts = [part for part in self.parts if part is not None]
        return Reply(ReadChunksReply(self.lengths, self.checksums, self.errors), parts, self.release)


class Reads:
    """The handler of READ_CHUNKS."""

    def __init__(
        self, targets: Targets, forwarder: Forwarder, pool: BufferPool, threads: Executor, counters: Counters
    ) -> None:
        self._targets = targets
        self._forwarder = forwarder
        self._pool = pool
        self._threads = threads
        self._counters = counters
        self._tasks: set[asyncio.Task[Reply]] = set()

    def read(self, call: Call) -> Reply | Awaitable[Reply]:
        """READ_CHUNKS. Each item succeeds or fails by itself."""
        request: ReadChunks = call.request
        items = request.items
        wanted = [item.length for item in items]
        if not 1 <= len(items) <= READ_ITEMS_MAX:
            raise EmberError(Code.INVALID, f"{len(items)} reads in one request; 1 to {READ_ITEMS_MAX}")
        if min(wanted) < 1 or (total := sum(wanted)) > PAYLOAD_BYTES_MAX:
            raise EmberError(Code.INVALID, f"reads of {min(wanted)} to {max(wanted)} bytes; 1 to {PAYLOAD_BYTES_MAX}")
        buffer = self._pool.take(total)
        try:
            return self._read(call, items, buffer)
        except BaseException:
            buffer.release()
            raise

    def _read(self, call: Call, items: Sequence[ReadItem], buffer: Buffer) -> Reply | Awaitable[Reply]:
        # Flat, and with the targets' gates taken once: a batch of 4-KiB reads costs what this loop costs.
        batch = _Batch(items, buffer)
        view = batch.view
        lengths = batch.lengths
        checksums = batch.checksums
        parts = batch.parts
        left: list[_Left] = []
        gates: dict[int, Target] = {}
        position = 0
        in_buffer = 0
        for index, item in enumerate(items):
            chain = item.chain
            target = gates.get(chain)
            try:
                if target is None:
                    target = self._targets.require(chain)
                    target.require(item.chain_version)
                    gates[chain] = target
                elif target.position.version != item.chain_version:  # type: ignore[union-attr]
                    target.require(item.chain_version)
                if item.offset < 0:
                    raise EmberError(Code.INVALID, f"offset {item.offset} is negative")
                chunk = _pack_chunk_id(item.inode, item.index)
                if chunk in target.uncertain:
                    left.append(_Left(index, target, chunk, position, True))
                    position += item.length
                    continue
                length, checksums[index], part, release = target.store.read(
                    chunk, item.offset, item.length, view[position : position + item.length]
                )
            except WouldBlock:
                assert target is not None
                left.append(_Left(index, target, chunk, position, False))
                position += item.length
                continue
            except EmberError as error:
                if error.code in DAMAGE and target is not None:
                    self._targets.suspect(target, chunk)
                batch.fail(index, error)
                continue
            except struct.error:
                batch.fail(index, EmberError(Code.INVALID, f"inode {item.inode} chunk {item.index} is no chunk"))
                continue
            if release is not None:
                batch.releases.append(release)
            if length:
                lengths[index] = length
                parts[index] = part
                if type(part) is not FileRange:
                    position += length
                    in_buffer += 1
        counters = self._counters
        counters.add("reads", len(items))
        if left:
            return self._finish(call, batch, left)
        counters.add("bytes_read", sum(lengths))
        body = ReadChunksReply(lengths, checksums, batch.errors)
        if in_buffer and in_buffer == len(items) - lengths.count(0):
            # All of it lies end to end in the buffer: one part.
            return Reply(body, (view[:position],), buffer.release if len(batch.releases) == 1 else batch.release)
        return Reply(body, [part for part in parts if part is not None], batch.release)

    async def _finish(self, call: Call, batch: _Batch, left: list[_Left]) -> Reply:
        """What could not be answered at once. Threads write into the buffer, so it outlives a caller who gives up."""
        task = asyncio.get_running_loop().create_task(self._answer(call, batch, left))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_drop)
            raise

    async def close(self) -> None:
        """Wait for what threads are reading."""
        while self._tasks:
            await asyncio.wait(list(self._tasks))

    async def _answer(self, call: Call, batch: _Batch, left: list[_Left]) -> Reply:
        try:
            blocked = [item for item in left if not item.ask]
            chains: dict[int, list[_Left]] = {}
            for item in left:
                if item.ask:
                    chains.setdefault(item.target.id, []).append(item)
            self._counters.add("reads_blocked", len(blocked))
            self._counters.add("reads_asked", len(left) - len(blocked))
            began_ns = clock_ns()
            times = {"disk": 0, "forward": 0}
            call.times = lambda: times

            async def timed(name: str, work: Awaitable[None]) -> None:
                await work
                times[name] = clock_ns() - began_ns

            await asyncio.gather(
                *(timed("disk", self._read_blocked(batch, item)) for item in blocked),
                *(timed("forward", self._read_asked(call, batch, group)) for group in chains.values()),
            )
        except BaseException:
            batch.release()
            raise
        self._counters.add("bytes_read", sum(batch.lengths))
        return batch.reply()

    async def _read_blocked(self, batch: _Batch, left: _Left) -> None:
        try:
            batch.put(left.at, await self._in_thread(batch, left, pending=False))
        except EmberError as error:
            self._fail(batch, left, error)

    def _fail(self, batch: _Batch, left: _Left, error: EmberError) -> None:
        if error.code in DAMAGE:
            self._targets.suspect(left.target, left.chunk)
        batch.fail(left.at, error)

    async def _in_thread(self, batch: _Batch, left: _Left, *, pending: bool) -> ChunkRead:
        item = batch.items[left.at]
        view = batch.view[left.start : left.start + item.length]

        def read() -> ChunkRead:
            return left.target.store.read_blocking(left.chunk, item.offset, item.length, view, pending=pending)

        return await asyncio.get_running_loop().run_in_executor(self._threads, read)

    async def _read_asked(self, call: Call, batch: _Batch, group: list[_Left]) -> None:
        """Items of one target whose chunks had a version pending."""
        loop = asyncio.get_running_loop()
        target = group[0].target
        for _ in range(ROUNDS_MAX):
            chunks = list({left.chunk for left in group})
            before = [target.store.state(chunk) for chunk in chunks]
            try:
                position = target.position
                if position is None:
                    raise EmberError(Code.NOT_SERVING, target.why_not())
                timeout = min(call.deadline - loop.time(), ASK_S_MAX)
                told = await self._forwarder.committed_versions(position, chunks, timeout)
            except EmberError as error:
                for left in group:
                    batch.fail(left.at, error)
                return
            committed = {
                chunk: (state.version if state is not None else 0, tail)
                for chunk, state, tail in zip(chunks, before, told, strict=True)
            }
            changed = await asyncio.gather(*(self._read_told(batch, left, *committed[left.chunk]) for left in group))
            group = [left for left, again in zip(group, changed, strict=True) if again]
            if not group:
                return
        for left in group:
            batch.fail(left.at, EmberError(Code.BUSY, f"chunk {left.chunk.hex()} changes faster than it is read"))

    async def _read_told(self, batch: _Batch, left: _Left, committed_before: int, tail: Told) -> bool:
        """Serve the version the tail committed. True: the chunk changed meanwhile; ask again."""
        item = batch.items[left.at]
        target = left.target
        try:
            target.require(item.chain_version)
            state = target.store.state(left.chunk)
            digests = target.store.digest(left.chunk), target.store.digest(left.chunk, pending=True)
            left_pending = target.store.pending_update(left.chunk)
            removing = left_pending is not None and left_pending.removed
            choice = serve(committed_before, state, digests, tail, removing=removing)
            if choice is Serve.GONE:
                raise EmberError(Code.CHUNK_NOT_FOUND, f"chunk {left.chunk.hex()} has been removed")
            if choice is Serve.BEHIND:
                message = f"target {target.id} misses version {tail.version} of chunk {left.chunk.hex()}"
                logger.error("%s, which the tail has committed", message)
                raise EmberError(Code.NOT_SERVING, message)
            pending = choice is Serve.PENDING
            try:
                view = batch.view[left.start : left.start + item.length]
                batch.put(left.at, target.store.read(left.chunk, item.offset, item.length, view, pending=pending))
                return False
            except WouldBlock:
                pass
            try:
                read = await self._in_thread(batch, left, pending=pending)
            except EmberError:
                if pending and target.store.state(left.chunk) != state:
                    return True  # what was pending is committed by now, and was not found where it had been
                raise
            if pending and target.store.state(left.chunk) != state:
                # It may have read a later pending version than the one that was asked about.
                if read.release is not None:
                    read.release()
                return True
            batch.put(left.at, read)
        except EmberError as error:
            self._fail(batch, left, error)
        return False


def _drop(task: "asyncio.Task[Reply]") -> None:
    """Nobody sends this answer."""
    if not task.cancelled() and task.exception() is None:
        release = task.result().release
        if release is not None:
            release()
