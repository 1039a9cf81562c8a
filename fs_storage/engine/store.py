"""The chunk engine behind `interface.ChunkStore`: decides on the event loop, stores in the writer thread.

Owned by the event loop: the table of records, the slots, and what is decided but not yet stored. The writer thread
gets immutable values and gives them back; the checkpoint thread gets a snapshot. So no lock is held across an await;
`_busy` is the named guard of a chunk whose update is with the writer.

When is an update visible, and what does a crash leave? `docs/concurrency/engine.md`.

Source: DESIGN section 6.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from fs_common.errors import Code, EmberError
from fs_storage.engine.admission import TOMBSTONE_S, admit
from fs_storage.engine.blocks import BlockFiles
from fs_storage.engine.checkpoint import Checkpointer
from fs_storage.engine.disk import Disk, RealDisk
from fs_storage.engine.index import Index
from fs_storage.engine.index_format import StoredAnswer, answer_key
from fs_storage.engine.interface import (
    Answer,
    ChunkRead,
    ChunkState,
    LastChunk,
    PendingUpdate,
    Prepared,
    Space,
    Update,
)
from fs_storage.engine.log_format import encode_abandon, encode_commit
from fs_storage.engine.opening import Opened, Settings, open_target
from fs_storage.engine.plan import plan
from fs_storage.engine.reader import Reader
from fs_storage.engine.transitions import commit, drop_pending, dropped_answer, dropped_blocks, make_pending, succeeds
from fs_storage.engine.versions import NOBODY, NOTHING, PAGE_SHIFTS, Identity, Patch, Record, Version
from fs_storage.engine.writer import Request, Task, Writer

logger = logging.getLogger(__name__)

FLUSH_S = 0.01
"""How long a commit may wait for company before it goes into the log: nobody waits for it."""
PATCH_BYTES_SOFT = 8 << 20
"""Patches in memory from which on they are written into their blocks without waiting for a reason."""
PATCHES_SOFT = 32
"""The same for the patches of one chunk: each read of it lays them over what it finds."""
PATCH_BYTES_HARD = 64 << 20
"""Patches in memory from which on commits wait."""


class EngineStore:
    """See the module. Made by `open_store`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        disk: Disk,
        directory: Path,
        opened: Opened,
        clock: Callable[[], float],
        threaded: bool,
    ) -> None:
        self._loop = loop
        self._disk = disk
        self._directory = directory
        self._opened = opened
        self._clock = clock
        self._table = opened.table
        self._slots = opened.slots
        self._blocks: BlockFiles = opened.blocks
        self._reader = Reader(disk, opened.table, opened.slots)
        self._threaded = threaded
        self._writer = Writer(
            disk, opened.log, opened.blocks, f"engine-{directory.name}", self._give_back, threaded=threaded
        )
        self._checkpointer = Checkpointer(self, opened, clock, threaded=threaded)
        self._busy: dict[bytes, Request] = {}
        """Chunks whose record the writer's answer will change. Nothing else changes it meanwhile."""
        self._notes: list[bytes] = []
        """Encoded commits that the log does not have yet."""
        self._settles: dict[bytes, Version] = {}
        """Committed versions with patches whose commit is in `_notes`."""
        self._logged_settles: dict[bytes, Version] = {}
        """The same once the log has the commit, but not durably."""
        self._patch_bytes = 0
        """In committed versions."""
        self._many_patches = False
        """Some chunk has more of them than is good for reads."""
        self._flush_timer: asyncio.TimerHandle | None = None
        self._failure: EmberError | None = None
        """Why the store does nothing any more."""
        self._closing = False
        self._prepared = 0
        self._committed = 0
        self._refused = 0
        self._writer.start()

    @property
    def failed(self) -> bool:
        """The store is fenced (or closed)."""
        return self._failure is not None

    # -- what there is -----------------------------------------------------------------------------------------

    def state(self, chunk: bytes) -> ChunkState | None:
        record = self._table.get(chunk)
        committed, pending, _ = record
        if (committed is None and pending is None) or self._expired(record):
            return None
        newest = pending or committed
        assert newest is not None
        return ChunkState(
            committed.number if committed is not None else 0,
            committed.length if committed is not None else 0,
            committed.removed if committed is not None else False,
            pending.number if pending is not None else 0,
            pending.length if pending is not None else 0,
            newest.chain_version,
        )

    def _expired(self, record: Record) -> bool:
        """It is a tombstone that is as good as gone. While something is pending a tombstone stays: that builds on its
        version."""
        committed = record.committed
        return (
            committed is not None
            and committed.removed
            and record.pending is None
            and self._clock() >= committed.removed_at + TOMBSTONE_S
        )

    def answer(self, client: bytes, channel: int) -> Answer | None:
        if not client:
            return None
        stored = self._table.answer(answer_key(client, channel))
        if stored is None:
            return None
        committed = stored.version != 0
        if committed:
            committed = self._table.get(stored.chunk).identity != (client, channel, stored.sequence)
        return Answer(stored.sequence, stored.chunk, stored.version, stored.length, committed)

    def pending_update(self, chunk: bytes) -> PendingUpdate | None:
        record = self._table.get(chunk)
        pending = record.pending
        if pending is None:
            return None
        return PendingUpdate(pending.number, pending.length, pending.removed, 1 << pending.chunk_bits, *record.identity)

    def pending(self) -> list[bytes]:
        return list(self._table.pending)

    def last_chunk(self, inode: int) -> LastChunk:
        return self._table.last_chunk(inode.to_bytes(8, "big"))

    def chunks_of(self, inode: int, first: int, limit: int) -> list[bytes]:
        return self._table.chunks_of(inode.to_bytes(8, "big"), first, limit)

    def space(self) -> Space:
        slots = self._slots
        disk = self._disk.space(self._directory)
        capacity = slots.capacity_bytes or disk.total_bytes
        # Storage that is allocated to block files and free inside of them is free, too.
        free = disk.free_bytes + slots.backed_free_bytes
        if slots.capacity_bytes:
            free = min(free, max(0, capacity - slots.used_bytes))
        return Space(capacity, free, slots.used_bytes, self._table.chunks)

    def counters(self) -> dict[str, int]:
        return {
            "failed": int(self._failure is not None),
            "prepared": self._prepared,
            "committed": self._committed,
            "refused": self._refused,
            "pending": len(self._table.pending),
            "patch_bytes": self._patch_bytes,
            "groups": self._writer.groups,
            "syncs": self._writer.syncs,
            "log_bytes": self._opened.log.bytes_used,
            "checkpoints": self._checkpointer.count,
            "records_in_memory": len(self._table.hot),
            "small_reads": self._reader.small,
            "large_reads": self._reader.large,
            "uncached_reads": self._reader.would_block,
            "damaged_reads": self._reader.damaged,
        }

    # -- reads -------------------------------------------------------------------------------------------------

    def read(self, chunk: bytes, offset: int, length: int, buffer: memoryview, *, pending: bool = False) -> ChunkRead:
        if self._failure is not None:
            raise self._failure
        return self._reader.read(chunk, offset, length, buffer, pending)

    def read_blocking(
        self, chunk: bytes, offset: int, length: int, buffer: memoryview, *, pending: bool = False
    ) -> ChunkRead:
        if self._failure is not None:
            raise self._failure
        return self._reader.read_blocking(chunk, offset, length, buffer, pending)

    # -- updates -----------------------------------------------------------------------------------------------

    async def prepare(self, updates: Sequence[Update]) -> list[Prepared | EmberError]:
        results: dict[int, Prepared | EmberError] = {}
        todo = list(range(len(updates)))
        room_made = False
        while todo:
            request = Request()
            again: list[int] = []
            full: list[int] = []
            others: Request | None = None
            planned: list[tuple[int, Task]] = []
            for i in todo:
                busy = self._busy.get(updates[i].chunk)
                if busy is not None:
                    others = busy
                    again.append(i)
                    continue
                try:
                    outcome = self._plan(updates[i], request)
                except EmberError as error:
                    if error.code is Code.NO_SPACE and not room_made:
                        full.append(i)
                    else:
                        results[i] = error
                    continue
                except BaseException:
                    self._unplan(request)
                    raise
                if isinstance(outcome, Prepared):
                    results[i] = outcome
                else:
                    planned.append((i, outcome))
            if planned:
                self.put(request)
                await request.wait()
                for i, task in planned:
                    refusal = task.refusal or request.failure
                    if refusal is None:
                        results[i] = Prepared(updates[i].version, task.plan.length)
                    elif refusal.code is Code.NO_SPACE and not room_made:
                        full.append(i)
                    else:
                        results[i] = refusal
            elif others is not None:
                await others.wait()
            if full:
                await self._checkpointer.make_room()
                room_made = True
            todo = again + full
        self._refused += sum(1 for result in results.values() if isinstance(result, EmberError))
        return [results[i] for i in range(len(updates))]

    def _plan(self, update: Update, request: Request) -> Prepared | Task:
        """A task for the writer, added to `request`; or the answer, if the update is pending already."""
        if self._failure is not None:
            raise self._failure
        chunk = update.chunk
        record = self._table.get(chunk)
        base = record.committed
        if base is not None and base.removed:
            base = None
        page_bytes = 1 << PAGE_SHIFTS[base.chunk_bits] if base is not None else None
        if not admit(update, self.state(chunk), self.pending_update(chunk), page_bytes):
            assert record.pending is not None
            return Prepared(record.pending.number, record.pending.length)
        how = plan(update, base)
        block = None
        if how.new_class is not None:
            if self._checkpointer.index_full:
                raise EmberError(Code.NO_SPACE, "the target's disk is full: its index cannot grow")
            slot, units = self._slots.take(how.new_class)
            request.backs += units
            block = self._blocks.locate(how.new_class, slot)
        elif how.has_block:
            assert base is not None
            block = base.block
        task = Task(update, base, how, block, int(self._clock()), self._expired(record))
        request.tasks.append(task)
        self._busy[chunk] = request
        return task

    def _unplan(self, request: Request) -> None:
        """The request is not put after all."""
        self._slots.backing_failed(request.backs)
        for task in request.tasks:
            del self._busy[task.update.chunk]
            self._put_back(task)

    def _put_back(self, task: Task) -> None:
        """The task's update is not stored: its new block is free."""
        if task.plan.new_class is not None:
            assert task.block is not None
            self._slots.put_back(task.block.size_class, task.block.slot)

    async def commit(self, chunks: Sequence[tuple[bytes, int]]) -> None:
        for chunk, version in chunks:
            while (busy := self._busy.get(chunk)) is not None:
                await busy.wait()
            if self._failure is not None:
                raise self._failure
            record = self._table.get(chunk)
            pending = record.pending
            if pending is None or pending.number != version:
                if record.committed is None or record.committed.number < version:
                    raise EmberError(Code.UPDATE_MISSING, f"chunk {chunk.hex()} has no pending version {version}")
                continue
            when = int(self._clock())
            self._notes.append(encode_commit(chunk, version, when))
            if pending.patches:
                self._settles[chunk] = pending
            self._publish(chunk, record, commit(record, when))
            self._committed += 1
            if len(pending.patches) > PATCHES_SOFT:
                self._many_patches = True
        if self._flush_timer is None and self._notes:
            self._flush_timer = self._loop.call_later(FLUSH_S, self._flush)
        if self._patch_bytes > PATCH_BYTES_HARD:
            await self.settle()

    async def abandon(self, chunk: bytes, version: int) -> None:
        room_made = False
        while True:
            while (busy := self._busy.get(chunk)) is not None:
                await busy.wait()
            if self._failure is not None:
                raise self._failure
            committed, pending, _ = self._table.get(chunk)
            if pending is None or pending.number != version:
                return
            request = Request()
            if committed is not None and committed.block is not None:
                request.files.append(committed.block.file)  # what the chunk goes back to is durable as well
            request.dropped = chunk
            request.drops.append(encode_abandon(chunk, version, int(self._clock())))
            request.durable = True
            self._busy[chunk] = request
            self.put(request)
            await request.wait()
            if request.failure is None:
                return
            if request.failure.code is not Code.NO_SPACE or room_made:
                raise request.failure
            await self._checkpointer.make_room()
            room_made = True

    async def settle(self) -> None:
        """Make every commit so far durable, and hand its patches to the writer."""
        request = Request()
        request.durable = True
        self.put(request)
        await request.wait()

    async def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        await self._checkpointer.close()
        if self._flush_timer is not None:
            self._flush_timer.cancel()
        closed = EmberError(Code.CLOSING, "the store is closed")
        self._failure = self._failure or closed
        if self._threaded:
            await self._loop.run_in_executor(None, self._writer.stop)
        else:
            self._writer.stop()
        self._opened.close(self._disk)

    # -- to the writer and back --------------------------------------------------------------------------------

    def put(self, request: Request) -> None:
        """Hand over, with everything that was decided before."""
        request.notes = self._notes
        request.settles = self._settles
        self._notes = []
        self._settles = {}
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None
        self._writer.put(request)
        if not self._threaded:
            self._loop.call_soon(self._writer.pump)

    def _flush(self) -> None:
        self._flush_timer = None
        if self._notes:
            self.put(Request())

    def _give_back(self, group: list[Request]) -> None:
        """Called by the writer."""
        if self._threaded:
            self._loop.call_soon_threadsafe(self._finished, group)
        else:
            self._finished(group)

    def _finished(self, group: list[Request]) -> None:
        for request in group:
            self._finish(request)
        if self._logged_settles and (self._patch_bytes > PATCH_BYTES_SOFT or self._many_patches):
            self._many_patches = False
            request = Request()
            request.durable = True
            self.put(request)
        self._checkpointer.consider()

    def _finish(self, request: Request) -> None:
        failure = request.failure
        if failure is not None:
            if failure.code is Code.NO_SPACE:
                self._notes[:0] = request.notes
                self._settles = {**request.settles, **self._settles}
            else:
                self.fence(failure)
        if request.unbacked:
            self._slots.backing_failed(request.unbacked)
        for task in request.tasks:
            chunk = task.update.chunk
            del self._busy[chunk]
            if failure is None and task.made is not None:
                self._publish_prepared(task)
            else:
                self._put_back(task)
        if request.dropped is not None:
            del self._busy[request.dropped]
            if failure is None:
                record = self._table.get(request.dropped)
                self._drop_answer(request.dropped, record.identity)
                self._publish(request.dropped, record, drop_pending(record))
        if failure is None:
            self._logged_settles.update(request.settles)
            if request.synced and self._logged_settles:
                self._apply_patches()
            for chunk, version in request.applies:
                self._strip(chunk, version)
        if request.on_cut is not None and request.cut is not None:
            request.on_cut(request.cut)
        request.finish()

    def _publish_prepared(self, task: Task) -> None:
        made = task.made
        assert made is not None
        update, base, version = task.update, task.base, made.version
        record = self._table.get(update.chunk)
        if base is not None and base.patches and version.block == base.block:
            # Patches may have reached the block while the update was with the writer.
            assert record.committed is not None
            version = version._replace(patches=record.committed.patches + version.patches[len(base.patches) :])
        if record.pending is not None:
            self._drop_answer(update.chunk, record.identity)
        identity = Identity(update.client, update.channel, update.sequence)
        self._publish(update.chunk, record, make_pending(record, version, identity, task.forgets))
        self._prepared += 1
        if update.client:
            key = answer_key(update.client, update.channel)
            answer = StoredAnswer(update.chunk, update.sequence, update.version, version.length, task.when)
            if succeeds(answer, self._table.answer(key)):
                self._table.put_answer(key, answer)

    def _publish(self, chunk: bytes, before: Record, after: Record) -> None:
        """The chunk's record is now `after`."""
        if after.committed is None and after.pending is None:
            after = NOTHING
        if before.committed is not after.committed or before.pending is not after.pending:
            for block in dropped_blocks(before, after):
                self._slots.drop(block.size_class, block.slot)
            self._patch_bytes += _patch_bytes(after.committed) - _patch_bytes(before.committed)
        self._table.put(chunk, after)

    def _drop_answer(self, chunk: bytes, identity: Identity) -> None:
        if identity == NOBODY:
            return
        key = answer_key(identity.client, identity.channel)
        dropped = dropped_answer(self._table.answer(key), chunk, identity)
        if dropped is not None:
            self._table.put_answer(key, dropped)

    def fence(self, failure: EmberError) -> None:
        """Nothing is answered any more: what the disk holds is not known."""
        if self._failure is None:
            logger.error("%s: %s; the target is out of service until it is opened again", self._directory, failure)
            self._failure = failure

    # -- patches -----------------------------------------------------------------------------------------------

    def _apply_patches(self) -> None:
        """All commits in `_logged_settles` are durable: their patches may go into the blocks."""
        request = Request()
        for chunk, version in self._logged_settles.items():
            committed = self._table.get(chunk).committed
            if committed is None or committed.block != version.block:
                continue  # its block belongs to no version that counts any more
            left = _among(version.patches, committed.patches)
            if left:
                request.applies.append((chunk, version._replace(patches=left)))
        self._logged_settles = {}
        if request.applies:
            self.put(request)

    def _strip(self, chunk: bytes, applied: Version) -> None:
        """The patches of `applied` are in the block."""
        record = self._table.get(chunk)
        done = {id(patch) for patch in applied.patches}
        committed, pending = (
            version._replace(patches=tuple(patch for patch in version.patches if id(patch) not in done))
            if version is not None and version.patches and version.block == applied.block
            else version
            for version in (record.committed, record.pending)
        )
        if committed is not record.committed or pending is not record.pending:
            self._publish(chunk, record, Record(committed, pending, record.identity))


def _patch_bytes(version: Version | None) -> int:
    return sum(len(patch.data) for patch in version.patches) if version is not None and version.patches else 0


def _among(patches: tuple[Patch, ...], others: tuple[Patch, ...]) -> tuple[Patch, ...]:
    """Those of `patches` that are in `others`, too: the very same ones."""
    known = {id(patch) for patch in others}
    return tuple(patch for patch in patches if id(patch) in known)


async def open_store(
    directory: str | Path,
    *,
    target: int,
    capacity_bytes: int = 0,
    disk: Disk | None = None,
    open_index: Callable[[Path], Index] | None = None,
    clock: Callable[[], float] = time.time,
    records_cached: int = 16_384,
    checkpoint_interval_s: float = 10.0,
    threaded: bool = True,
) -> EngineStore:
    """Open the target in `directory`, making it if the directory is empty (or not there), and recover what it holds.

    `capacity_bytes`: most bytes in blocks, 0: what the file system gives. `records_cached`: chunk records kept in
    memory beyond those that changed lately; one is about 1.5 KB. `threaded` False: the store does everything on the
    event loop in a reproducible order, for simulations. `disk`, `open_index`, `clock` (seconds since the epoch): seams.

    Raises `EmberError`, one line each: BUSY (another process has it), INVALID (the directory is not this target's),
    DISK_FAILED (its files are damaged or cannot be used), NO_SPACE (no room to make or recover it).
    """
    disk = disk if disk is not None else RealDisk()
    path = Path(directory)
    loop = asyncio.get_running_loop()
    settings = Settings(target, capacity_bytes, records_cached, checkpoint_interval_s)
    if threaded:
        opened = await loop.run_in_executor(None, open_target, disk, path, settings, open_index, clock)
    else:
        opened = open_target(disk, path, settings, open_index, clock)
    return EngineStore(loop, disk, path, opened, clock, threaded)
