"""The chunk engine behind `interface.ChunkStore`: decides on the event loop, stores in the writer thread.

Owned by the event loop: the table of records, the slots, and what is decided but not yet stored (`ledger`). The writer
thread gets immutable values and gives them back; the checkpoint thread gets a snapshot. So no lock is held across an
await; `Ledger.busy` is the named guard of a chunk whose update is with the writer.

When is an update visible, and what does a crash leave? `docs/concurrency/engine.md`.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from fs_common.checksums import page_checksums
from fs_common.errors import Code, EmberError
from fs_common.layout import Durability
from fs_common.records.storage import UpdateKind
from fs_storage.engine.admission import admit
from fs_storage.engine.blocks import BlockFiles
from fs_storage.engine.checking import Checker, pieces_of
from fs_storage.engine.checkpoint import Checkpointer
from fs_storage.engine.digest import NOTHING_DIGEST, digest_of
from fs_storage.engine.disk import Disk, FileSystemSpace, RealDisk
from fs_storage.engine.formatting import LOCK
from fs_storage.engine.index import Index
from fs_storage.engine.index_format import StoredAnswer, answer_key, split_answer_key
from fs_storage.engine.interface import (
    Answer,
    Checked,
    ChunkRead,
    ChunkState,
    Held,
    LastChunk,
    PendingUpdate,
    Prepared,
    Remembered,
    Space,
    Update,
)
from fs_storage.engine.ledger import PATCH_BYTES_HARD, Ledger
from fs_storage.engine.log_format import encode_abandon, encode_commit, encode_forget
from fs_storage.engine.opening import Opened, Settings, open_target
from fs_storage.engine.plan import plan
from fs_storage.engine.reader import Reader
from fs_storage.engine.transitions import commit
from fs_storage.engine.versions import NOTHING, PAGE_SHIFTS, Record, Version
from fs_storage.engine.whole_files import read_file, replace_file
from fs_storage.engine.writer import Request, Task

LIGHT_BYTES_MAX = 128 << 10
"""What the event loop may store itself: some tens of microseconds. A hand-over to the writer thread and back costs as
much when the processors are idle, and several times that when they are not."""
LIGHT_UPDATES_MAX = 16
NOTE = "note"
"""The file of `keep_note`."""
LIGHT_RECORD_BYTES = 2048
"""More than any record of the log has beside its payload."""


class EngineStore:
    """See the module. Made by `open_store`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        disk: Disk,
        directory: Path,
        opened: Opened,
        space: FileSystemSpace,
        threaded: bool,
    ) -> None:
        self._loop = loop
        self._threaded = threaded
        self._disk = disk
        self._directory = directory
        self._opened = opened
        self._now = opened.odometer.now
        self._table = opened.table
        self._slots = opened.slots
        self._blocks: BlockFiles = opened.blocks
        self._reader = Reader(disk, opened.table, opened.slots)
        self._checker = Checker(disk, opened.table, opened.slots)
        self._ledger = Ledger(loop, disk, directory, opened, self._consider, threaded=threaded)
        self._checkpointer = Checkpointer(self._ledger, opened, threaded=threaded)
        self._mark = opened.mark
        mark = opened.mark.mark
        self.identity = mark.uuid
        self.opening = mark.opening
        self.incarnation = mark.incarnation
        self.whole = mark.whole
        self.recovered = opened.recovered.sequence
        self.low_space = ""
        self._file_system = space
        """As `look` found it last: on the event loop nobody asks a disk that may not answer."""
        opened.table.damaged = self._on_damage
        self._closing = False
        self._committed = 0
        self._refused = 0

    @property
    def position(self) -> int:
        return self._opened.log.sequence

    @property
    def failed(self) -> bool:
        """The store is fenced (or closed)."""
        return self._ledger.failed

    @property
    def failure(self) -> EmberError | None:
        return self._ledger.failure

    @property
    def quiet(self) -> bool:
        return not self._slots.is_pinned

    def fence(self, reason: str) -> None:
        self._ledger.fence(EmberError(Code.DISK_FAILED, reason), noted=False)

    async def make_room(self) -> None:
        if self._ledger.failure is None:
            await self._checkpointer.make_room()

    def _on_damage(self, failure: EmberError) -> None:
        """The index is damaged. From any thread."""
        if self._threaded:
            self._loop.call_soon_threadsafe(self._ledger.fence, failure)
        else:
            self._ledger.fence(failure)

    def look(self) -> None:
        self._disk.check_place(self._opened.lock_file, self._directory / LOCK)
        self._file_system = self._disk.space(self._directory)

    @property
    def unanswered_s(self) -> float:
        return self._ledger.unanswered_s

    def _consider(self) -> None:
        self._checkpointer.consider()

    # -- what there is -----------------------------------------------------------------------------------------

    def state(self, chunk: bytes) -> ChunkState | None:
        committed, pending, _ = self._table.get(chunk)
        if committed is None and pending is None:
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

    @property
    def floor(self) -> int:
        return self._opened.index.floor

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

    def digest(self, chunk: bytes, *, pending: bool = False) -> int:
        record = self._table.get(chunk)
        return _digest(record.pending if pending else record.committed)

    def pending(self) -> list[bytes]:
        return list(self._table.pending)

    def last_chunk(self, inode: int) -> LastChunk:
        return self._table.last_chunk(inode.to_bytes(8, "big"))

    def chunks_of(self, inode: int, first: int, limit: int) -> list[bytes]:
        return self._table.chunks_of(inode.to_bytes(8, "big"), first, limit)

    def space(self) -> Space:
        slots = self._slots
        disk = self._file_system
        capacity = slots.capacity_bytes or disk.total_bytes
        # Storage that block files have and no block uses is free, too.
        free = disk.free_bytes + max(0, self._blocks.allocated_bytes() - slots.used_bytes)
        if slots.capacity_bytes:
            free = min(free, max(0, capacity - slots.used_bytes))
        return Space(capacity, free, slots.used_bytes, self._table.chunks)

    def counters(self) -> dict[str, int]:
        return {
            "stored_here": self._ledger.stored_here,
            "failed": int(self.failed),
            "prepared": self._ledger.prepared,
            "committed": self._committed,
            "refused": self._refused,
            "pending": len(self._table.pending),
            "patch_bytes": self._ledger.patch_bytes,
            "groups": self._ledger.writer.groups,
            "syncs": self._ledger.writer.syncs,
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
        if self._ledger.failure is not None:
            raise self._ledger.failure
        return self._reader.read(chunk, offset, length, buffer, pending)

    def read_blocking(
        self, chunk: bytes, offset: int, length: int, buffer: memoryview, *, pending: bool = False
    ) -> ChunkRead:
        if self._ledger.failure is not None:
            raise self._ledger.failure
        return self._reader.read_blocking(chunk, offset, length, buffer, pending)

    # -- damage ------------------------------------------------------------------------------------------------

    def check_stored(self, chunk: bytes) -> Checked | None:
        if self._ledger.failure is not None:
            raise self._ledger.failure
        return self._checker.check(chunk)

    async def restore(self, chunk: bytes, digest: int, payload: memoryview, bad_pages: Sequence[int]) -> bool:
        while True:
            while (busy := self._ledger.busy.get(chunk)) is not None:
                await busy.wait()
            if self._ledger.failure is not None:
                raise self._ledger.failure
            record = self._table.get(chunk)
            committed = record.committed
            if committed is None or committed.block is None or _digest(committed) != digest:
                return False
            if not committed.patches:
                break
            # The block may get the bytes of a version whose commit a crash cannot take back: then the log has no more
            # patches of it.
            await self._ledger.settle_patches()
        if page_checksums(payload, 0, 1 << committed.chunk_bits) != committed.checksums:
            raise EmberError(Code.CHECKSUM, f"these are not the bytes of version {committed.number} of {chunk.hex()}")
        pieces = pieces_of(committed, record.pending, payload, bad_pages)
        await self._ledger.write_over(chunk, committed._replace(patches=pieces))
        return True

    def kept_note(self) -> bytes:
        try:
            return read_file(self._disk, self._directory / NOTE)
        except OSError:
            return b""

    def keep_note(self, note: bytes) -> None:
        if self._ledger.failure is None:
            replace_file(self._disk, self._directory, NOTE, note)

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
                busy = self._ledger.busy.get(updates[i].chunk)
                if busy is not None:
                    others = busy
                    again.append(i)
                    continue
                try:
                    outcome = self._plan(updates[i], request)
                except EmberError as error:
                    if error.code is Code.NO_SPACE and not room_made and not self.low_space:
                        full.append(i)
                    else:
                        results[i] = error
                    continue
                except BaseException:
                    self._ledger.take_back(request)
                    raise
                if isinstance(outcome, Prepared):
                    results[i] = outcome
                else:
                    planned.append((i, outcome))
            if planned:
                self._ledger.store(request, _light_bytes(request))
                if not request.finished:
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
        if self._ledger.failure is not None:
            raise self._ledger.failure
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
            if self.low_space and base is None and update.kind != UpdateKind.REPLACE:
                raise EmberError(Code.NO_SPACE, self.low_space)
            if self._checkpointer.index_full:
                raise EmberError(Code.NO_SPACE, "the target's disk is full: its index cannot grow")
            slot, units = self._slots.take(how.new_class)
            request.backs += units
            block = self._blocks.locate(how.new_class, slot)
        elif how.has_block:
            assert base is not None
            block = base.block
        task = Task(update, base, how, block, self._now())
        self._ledger.put_task(request, task)
        return task

    async def commit(self, chunks: Sequence[tuple[bytes, int]]) -> None:
        for chunk, version in chunks:
            while (busy := self._ledger.busy.get(chunk)) is not None:
                await busy.wait()
            if self._ledger.failure is not None:
                raise self._ledger.failure
            record = self._table.get(chunk)
            pending = record.pending
            if pending is None or pending.number != version:
                if record.committed is None or record.committed.number < version:
                    raise EmberError(Code.UPDATE_MISSING, f"chunk {chunk.hex()} has no pending version {version}")
                continue
            when = self._now()
            self._ledger.note_commit(chunk, record, commit(record, when), encode_commit(chunk, version, when))
            self._committed += 1
        if self._ledger.patch_bytes > PATCH_BYTES_HARD:
            await self._ledger.settle()

    async def abandon(self, chunk: bytes, version: int) -> None:
        room_made = False
        while True:
            while (busy := self._ledger.busy.get(chunk)) is not None:
                await busy.wait()
            if self._ledger.failure is not None:
                raise self._ledger.failure
            committed, pending, _ = self._table.get(chunk)
            if pending is None or pending.number != version:
                return
            request = Request()
            if committed is not None and committed.block is not None:
                request.files.append(committed.block.file)  # what the chunk goes back to is durable as well
            request.dropped = chunk
            request.drops.append(encode_abandon(chunk, version, self._now()))
            request.durable = True
            self._ledger.busy[chunk] = request
            self._ledger.put(request)
            await request.wait()
            if request.failure is None:
                return
            if request.failure.code is not Code.NO_SPACE or room_made:
                raise request.failure
            await self._checkpointer.make_room()
            room_made = True

    async def forget(self, chunks: Sequence[bytes]) -> None:
        todo = list(dict.fromkeys(chunks))
        room_made = False
        while todo:
            if self._ledger.failure is not None:
                raise self._ledger.failure
            request = Request()
            busy: list[bytes] = []
            for chunk in todo:
                if chunk in self._ledger.busy:
                    busy.append(chunk)
                elif self._table.get(chunk) != NOTHING:
                    request.forgotten.append(chunk)
            for chunk in request.forgotten:
                request.drops.append(encode_forget(chunk))
                self._ledger.busy[chunk] = request
            if request.forgotten:
                request.durable = True
                self._ledger.put(request)
                await request.wait()
            elif busy:
                await self._ledger.busy[busy[0]].wait()
            todo = busy
            if request.failure is not None:
                if request.failure.code is not Code.NO_SPACE or room_made:
                    raise request.failure
                await self._checkpointer.make_room()
                room_made = True
                todo = request.forgotten + busy

    async def sync(self) -> None:
        if self._ledger.failure is not None:
            raise self._ledger.failure
        room_made = False
        while True:
            try:
                await self._ledger.sync()
                return
            except EmberError as error:
                if error.code is not Code.NO_SPACE or room_made:
                    raise
            await self._checkpointer.make_room()
            room_made = True

    async def settle(self) -> None:
        """Make every commit so far durable in the log."""
        await self._ledger.settle()

    async def checkpoint(self) -> None:
        """Move all changes so far from the log into the index."""
        await self._checkpointer.checkpoint()
        if self._ledger.failure is not None:
            raise self._ledger.failure

    # -- for other replicas ------------------------------------------------------------------------------------

    def holding(self, chunk: bytes) -> Held:
        return held_of(chunk, self._table.get(chunk))

    def checksums(self, chunk: bytes) -> bytes:
        committed = self._table.get(chunk).committed
        return committed.checksums if committed is not None else b""

    def held(self, after: bytes, limit: int) -> list[Held]:
        return [held_of(chunk, record) for chunk, record in self._table.listed(after, limit)]

    def remembered(self, after: bytes, limit: int, *, every: bool = False) -> tuple[list[Remembered], bytes]:
        page = self._table.listed_answers(after, limit)
        answers = []
        for key, (chunk, sequence, version, length, _) in page:
            client, channel = split_answer_key(key)
            committed = version != 0 and self._table.get(chunk).identity != (client, channel, sequence)
            if committed or every:
                answers.append(Remembered(client, channel, sequence, chunk, version, length, committed))
        return answers, page[-1][0] if len(page) == limit else b""

    def adopt(self, answers: Sequence[Remembered], floor: int) -> None:
        now = self._now()
        for answer in answers:
            key = answer_key(answer.client, answer.channel)
            last = self._table.answer(key)
            # What was dropped here, to make room for what the chain has, was committed there.
            if last is None or (last.sequence, last.version) < (answer.sequence, 1):
                stored = StoredAnswer(answer.chunk, answer.sequence, answer.version, answer.length, now)
                self._table.put_answer(key, stored)
        self._opened.index.raise_floor(floor)

    def retract(self, answers: Sequence[Remembered]) -> None:
        for answer in answers:
            key = answer_key(answer.client, answer.channel)
            last = self._table.answer(key)
            if last is not None and (last.sequence, last.chunk, last.version) == answer[2:5]:
                self._table.put_answer(key, last._replace(version=0, length=0))

    # -- what can be believed of it ----------------------------------------------------------------------------

    async def renew(self, opening: int, incarnation: int) -> None:
        self.whole = False
        await self._note(partial(self._mark.renew, opening, incarnation))
        self.opening = self._mark.mark.opening
        self.incarnation = self._mark.mark.incarnation

    async def declare_whole(self) -> None:
        await self._note(self._mark.declare_whole)
        self.whole = self._mark.mark.whole

    async def declare_filled(self) -> None:
        await self._note(self._mark.declare_filled)
        self.whole = self._mark.mark.whole
        self.incarnation = self._mark.mark.incarnation

    async def _note(self, change: Callable[[], None]) -> None:
        """Change the mark, which waits for the disk."""
        if self._ledger.failure is not None:
            raise self._ledger.failure
        try:
            if self._threaded:
                await self._loop.run_in_executor(None, change)
            else:
                change()
        except OSError as error:
            failure = EmberError(Code.DISK_FAILED, f"the target's mark cannot be written: {error.strerror or error}")
            self._ledger.fence(failure)
            raise failure from error

    async def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        await self._checkpointer.close()
        await self._ledger.close()
        if not self._ledger.fenced and not self._ledger.writer.failed:
            if self._threaded:
                await self._loop.run_in_executor(None, self._close_in_order)
            else:
                self._close_in_order()
        self._opened.close(self._disk)

    def _close_in_order(self) -> None:
        """All of the log is on the disk, so that the next opening is as far as this one was; the mark says so."""
        try:
            self._opened.log.sync()
        except OSError:
            return  # it is in the mark
        self._mark.close()


def held_of(chunk: bytes, record: Record) -> Held:
    committed, pending, _ = record
    return Held(
        chunk,
        committed.number if committed is not None else 0,
        _digest(committed),
        committed.length if committed is not None else 0,
        committed.removed if committed is not None else False,
        1 << committed.chunk_bits if committed is not None else 0,
        pending.number if pending is not None else 0,
        _digest(pending),
        pending.length if pending is not None else 0,
        pending.removed if pending is not None else False,
        1 << pending.chunk_bits if pending is not None else 0,
    )


def _digest(version: Version | None) -> int:
    if version is None:
        return NOTHING_DIGEST
    return digest_of(version.number, version.length, version.removed, version.checksums)


def _light_bytes(request: Request) -> int | None:
    """About what storing a request of updates writes, if it does nothing but write a little to the page cache: no
    storage is allocated, nothing is synced or read. None: it does more."""
    if request.backs or len(request.tasks) > LIGHT_UPDATES_MAX:
        return None
    size = 0
    for task in request.tasks:
        if task.update.durability != Durability.MEMORY or task.plan.builds_on:
            return None
        size += len(task.update.payload) + LIGHT_RECORD_BYTES
    return size if size <= LIGHT_BYTES_MAX else None


async def open_store(
    directory: str | Path,
    *,
    target: int,
    capacity_bytes: int = 0,
    disk: Disk | None = None,
    open_index: Callable[[Path], Index] | None = None,
    clock: Callable[[], float] = time.monotonic,
    records_cached: int = 16_384,
    checkpoint_interval_s: float = 10.0,
    make: bool = True,
    threaded: bool = True,
) -> EngineStore:
    """Open the target in `directory` and recover what it holds. If the directory is empty (or not there) it is made,
    or, with `make` False, `NoStore` raised.

    `capacity_bytes`: most bytes in blocks, 0: what the file system gives. `records_cached`: chunk records kept in
    memory beyond those that changed lately; one is about 1.5 KB. `threaded` False: the store does everything on the
    event loop in a reproducible order, for simulations. `disk`, `open_index`, `clock` (seconds, never set): seams.

    Raises `EmberError`, one line each: BUSY (another process has it), INVALID (the directory is not this target's),
    DISK_FAILED (its files are damaged or cannot be used), NO_SPACE (no room to make or recover it).
    """
    disk = disk if disk is not None else RealDisk()
    path = Path(directory)
    loop = asyncio.get_running_loop()
    settings = Settings(target, capacity_bytes, records_cached, checkpoint_interval_s, make)

    def open_and_look() -> tuple[Opened, FileSystemSpace]:
        opened = open_target(disk, path, settings, open_index, clock)
        try:
            return opened, disk.space(path)
        except OSError as error:
            opened.close(disk)
            raise EmberError(Code.DISK_FAILED, f"{path}: {error.strerror or error}") from None

    if threaded:
        opening = loop.run_in_executor(None, open_and_look)
        try:
            opened, space = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(partial(_close_unwanted, disk))
            raise
    else:
        opened, space = open_and_look()
    return EngineStore(loop, disk, path, opened, space, threaded)


def _close_unwanted(disk: Disk, opening: asyncio.Future[tuple[Opened, FileSystemSpace]]) -> None:
    """Whoever opened has given up meanwhile."""
    if opening.exception() is None:
        opening.result()[0].close(disk)
