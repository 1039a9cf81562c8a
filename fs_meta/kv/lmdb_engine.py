"""The embedded store: a journal and memtables over LMDB; one history, many transactions for each sync.

Owns: the queue of transactions, the order in which they take effect, and who may be answered when. Below it: the
memtables (`memtable`), the journal (`journal`), LMDB (`lmdb_file`), one thread that syncs the journal, one that begins
and commits LMDB's transactions. Page: `docs/concurrency/kv.md`.

How a transaction runs: `transact` queues the function. In the loop's next turn all queued functions run one after
another, each on an `Overlay` whose writes go into the active memtable when the function has succeeded. Then the batch's
changes are appended to the journal with one write. Relaxed callers are answered; the others when a sync, which a thread
makes for all who wait, has passed their batch. Now and then the active memtable is frozen and put into LMDB: a
checkpoint, after which its part of the journal is free.

Invariants:

* What a read or a later batch sees is in the journal: memtable and journal change in one step of the loop, or neither.
* A batch's outcomes, errors included, are told only after its write, and to callers that are not relaxed after its
  sync, whatever they wrote themselves: what they have seen is durable then.
* Frames of the journal that are not in LMDB are in a memtable.

Commit points. Of a batch: the journal's write (it survives the process), then its sync (it survives the machine). Of a
checkpoint: LMDB's meta page, written with the sequence of the last frame it holds.

    crash                                leaves
    before or in the write of a frame    nothing of the batch; nobody was answered
    between write and sync               of the process: the batch; of the machine: it, or not it nor any later one
    after the sync                       the batch
    in a checkpoint, before its commit   LMDB as it was, and a journal with everything since
    after the commit                     LMDB with the frozen memtable, whose frames are recognised as old
    after a write or sync that failed    the file `failed`: the next opening believes the disk, not the page cache

Space. A batch is written to the journal only when the disk has room for the checkpoint as well. If it has not, the
memtable is put into LMDB first, which may free some; then the batch itself is committed by LMDB, without the journal.
KV_FULL when that fails: nothing of the batch is applied and the store goes on.

When the journal cannot be written or synced, or LMDB fails for another reason than space, nobody knows what the disk
holds: those who wait for it get KV_MAYBE_COMMITTED and the store fences itself (every later call raises DISK_FAILED)
until it is opened again.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter_ns as clock_ns
from typing import Any, TypeVar

import lmdb

from fs_common.errors import Code, EmberError
from fs_common.latency import Latency
from fs_common.limits import MIB
from fs_meta.kv.directory import DATA_FILE, StoreDirectory, open_directory, require_store
from fs_meta.kv.disk import Disk, RealDisk
from fs_meta.kv.interface import TransactionFunction
from fs_meta.kv.journal import FILE_NAMES, NO_SPACE, Journal, make_journal
from fs_meta.kv.journal_format import Changes, JournalDamaged
from fs_meta.kv.lmdb_file import LmdbFile
from fs_meta.kv.memtable import Before, Memtable, Memtables
from fs_meta.kv.overlay import Overlay, Snapshot, drive
from fs_meta.kv.timings import Timings
from fs_meta.kv.worker import Thread, Worker, finished

T = TypeVar("T")
_log = logging.getLogger(__name__)

BATCH_S_MAX = 0.004
"""The loop executes a batch for about this long before it writes it: other work of the loop waits no longer."""

FRAME_BYTES_MAX = 64 * MIB
"""A larger batch goes to LMDB without the journal."""
SPACE_RESERVE_BYTES = 128 * 1024
"""Of the disk, left for LMDB's own pages."""
_SPACE_STEP_BYTES = 64 * MIB
"""The free space is looked at again when so much has been promised."""
SLICE_S = 0.0005
"""A checkpoint takes the loop for about this long at a time."""
SLICE_S_MAX = 0.002
"""The same when it has fallen behind."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """When the active memtable is frozen: at the first of these. At twice as much transactions wait for the checkpoint.

    Larger: fewer checkpoints, and keys that change often are put once. Smaller: less memory, less to read at an open.
    """

    changes: int = 20_000
    journal_bytes: int = 8 * MIB
    interval_s: float = 5.0
    """After the first change; what was relaxed becomes durable about then."""

    def reached_by(self, memtable: Memtable, times: int = 1) -> bool:
        return len(memtable.changes) >= self.changes * times or memtable.journal_bytes >= self.journal_bytes * times


class _Waiting:
    """A transaction on its way, or a sync."""

    __slots__ = ("error", "fn", "future", "relaxed", "result", "sequence", "told")

    def __init__(self, fn: TransactionFunction[Any] | None, relaxed: bool) -> None:
        self.fn = fn
        """None: a sync."""
        self.relaxed = relaxed
        self.future: asyncio.Future[Any] | None = None
        """What the caller awaits; None while it waits for nothing."""
        self.sequence = 0
        """The journal has to be synced up to here before the caller is told."""
        self.told = False
        self.result: Any = None
        self.error: BaseException | None = None
        """What the function raised, or why the batch failed."""

    def tell(self, failure: EmberError | None = None) -> None:
        """The outcome is known; `failure` is the batch's."""
        self.told = True
        if failure is not None:
            # Each caller raises an exception of its own: tracebacks grow where one is raised.
            self.error = EmberError(failure.code, failure.message)
        if self.future is not None and not self.future.done():  # done: the caller was cancelled
            self.future.set_result(None)

    async def outcome(self) -> Any:
        """Wait until it is told; return or raise it."""
        if not self.told:
            self.future = asyncio.get_running_loop().create_future()
            await self.future
        if self.error is not None:
            raise self.error
        return self.result


class LmdbStore:
    """A `KeyValueStore` in one directory. All methods are called on one event loop."""

    exclusive = True

    def __init__(
        self,
        directory: StoreDirectory,
        below: LmdbFile,
        journal: Journal,
        changes: Changes,
        disk: Disk,
        bounds: Bounds,
        writer: Worker,
        syncer: Worker,
        clock: Callable[[], float],
    ) -> None:
        self._clock = clock
        """Seconds; uvloop's own time stands still within a turn."""
        self._directory = directory
        self._below = below
        self._journal = journal
        self._disk = disk
        self._bounds = bounds
        self._writer = writer
        """Begins and commits LMDB's transactions."""
        self._syncer = syncer
        """Syncs the journal."""
        self._memtables = Memtables(below)
        self._memtables.active = Memtable(changes, journal.recovered_bytes)
        self._queue: deque[_Waiting] = deque()
        self._scheduled = False
        """`_execute` is about to be called by the loop."""
        self._turn_taken = False
        """A relaxed transaction has run at once in this turn of the loop."""
        self._blocked = False
        """Nothing is executed until the checkpoint or direct commit under way has ended."""
        self._held: list[_Waiting] = []
        """The batch for which the journal has no room: it runs again after the checkpoint, or is committed directly."""
        self._unsynced: deque[_Waiting] = deque()
        """Executed and written, to be told when `sequence` is synced; ascending by it."""
        self._syncing = False
        self._task: asyncio.Task[EmberError | None] | None = None
        """The checkpoint or direct commit under way."""
        self._timer: asyncio.TimerHandle | None = None
        """Starts the next checkpoint; set while there is something to put into one."""
        self._room_bytes = 0
        """The disk had so much room for checkpoints when it was last asked."""
        self._cramped = False
        """The last checkpoint has failed for want of space: nothing is added to the journal until one succeeds."""
        self._closing = False
        self._idle: asyncio.Future[None] | None = None
        """Set by `close`, resolved when nothing is under way."""
        self.failure: EmberError | None = None
        """Why the store is fenced."""
        self._durable, self._relaxed, self._synced = Latency(), Latency(), Latency()
        """How long transactions took, by what they wait for, and syncs of the journal."""

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        map_size_bytes: int,
        bounds: Bounds | None = None,
        disk: Disk | None = None,
        lmdb_file: type[LmdbFile] = LmdbFile,
        new_thread: Callable[[str], Worker] = Thread,
        clock: Callable[[], float] = time.monotonic,
        make: bool = True,
    ) -> "LmdbStore":
        """Open the store, or make it if `make`. Raises `EmberError`: INVALID (directory, format, damage, no store),
        BUSY (open elsewhere).

        The journal's frames that LMDB does not have are read into the active memtable; nothing else is done to recover.
        `disk`, `lmdb_file`, `new_thread` and `clock` are for tests.
        """
        disk = disk or RealDisk()
        if not make:
            require_store(path)
        with contextlib.ExitStack() as opened:
            directory = open_directory(path)
            opened.callback(directory.close)
            if directory.has_format:
                directory.check_format()
                directory.check_files((DATA_FILE, *FILE_NAMES))
            failed = directory.has_failed
            if failed:
                _forget_cached(disk, path)
            writer = new_thread("kv-writer")
            below = lmdb_file.open(directory.path, map_size_bytes=map_size_bytes, writer=writer, clock=clock)
            opened.callback(below.close)
            if not directory.has_format:
                if not below.is_empty:
                    raise EmberError(
                        Code.INVALID,
                        f"metadata store {path} holds data but no FORMAT file: restore the file, or use another "
                        "directory",
                    )
                make_journal(disk, path)
                directory.write_format()
            journal = Journal(disk, path)
            opened.callback(journal.close)
            try:
                changes = _recover(journal, below, path)
            except EmberError:
                directory.note_failure()  # it may have been a sync
                raise
            if failed:
                directory.forget_failure()
            opened.pop_all()
        return cls(directory, below, journal, changes, disk, bounds or Bounds(), writer, new_thread("kv-syncer"), clock)

    async def transact(self, fn: TransactionFunction[T], *, relaxed: bool = False) -> T:
        self._check_usable()
        loop = asyncio.get_running_loop()
        waiting = _Waiting(fn, relaxed)
        began_ns = clock_ns()
        if relaxed and not (self._turn_taken or self._queue or self._blocked):
            # The first of a turn waits for nobody. Those that follow it in the same turn share a batch.
            self._turn_taken = True
            loop.call_soon(self._turn_over)
            self._run_batch(loop, deque((waiting,)))
        else:
            self._queue.append(waiting)
            self._schedule(loop)
        result: T = await waiting.outcome()
        elapsed_ns = clock_ns() - began_ns
        latency = self._relaxed if relaxed else self._durable
        latency.buckets[elapsed_ns.bit_length()] += 1
        latency.total_ns += elapsed_ns
        return result

    def timings(self) -> Timings:
        waiting = len(self._queue) + len(self._unsynced) + len(self._held)
        memtables = self._memtables
        frozen_bytes = memtables.frozen.journal_bytes if memtables.frozen is not None else 0
        journal_bytes = memtables.active.journal_bytes + frozen_bytes
        return Timings(self._durable, self._relaxed, self._synced, waiting, journal_bytes)

    async def sync(self) -> None:
        self._check_usable()
        sequence = self._journal.sequence
        if self._journal.synced >= sequence:
            return
        waiting = _Waiting(None, False)
        waiting.sequence = sequence
        self._unsynced.append(waiting)
        self._sync_journal(asyncio.get_running_loop())
        await waiting.outcome()

    async def read(self, fn: TransactionFunction[T]) -> T:
        self._check_usable()
        return drive(fn, Snapshot(self._memtables))

    @property
    def path(self) -> Path:
        """Its directory."""
        return self._directory.path

    async def checkpoint(self) -> None:
        """Put everything that was acknowledged before the call into LMDB. Raises KV_FULL: there is no room for it."""
        for _ in range(2):  # one may be under way, which began before the call
            self._check_usable()
            if self._task is None and self._memtables.active.changes:
                self._begin_checkpoint(asyncio.get_running_loop())
            if self._task is None:
                return
            error = await asyncio.shield(self._task)
            if error is not None:
                raise error

    async def close(self) -> None:
        """As the interface says; what is in memtables is put into LMDB, so that the next open reads no journal."""
        if self._closing:
            return
        self._closing = True
        self._stop_timer()
        loop = asyncio.get_running_loop()
        await self._until_idle(loop)
        if self.failure is None and self._memtables.active.changes:
            self._begin_checkpoint(loop)
            await self._until_idle(loop)
        if self.failure is None and self._journal.unsynced_files():
            with contextlib.suppress(OSError):  # nobody waits for it, and the process's death loses nothing
                files = self._journal.unsynced_files()
                await finished(self._syncer, lambda: self._sync_files(files))
        self._syncer.close()
        self._writer.close()
        self._journal.close()
        self._below.close()
        self._directory.close()

    # --- executing --------------------------------------------------------------------------------------------

    def _check_usable(self) -> None:
        if self._closing:
            raise EmberError(Code.CLOSING, f"metadata store {self._directory.path} is closed")
        if self.failure is not None:
            raise self._fenced()

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._scheduled and not self._blocked:
            # In the next turn, so that all requests this turn brings share the batch.
            self._scheduled = True
            loop.call_soon(self._execute, loop)

    def _turn_over(self) -> None:
        self._turn_taken = False

    def _execute(self, loop: asyncio.AbstractEventLoop) -> None:
        self._scheduled = False
        if not self._blocked:
            self._run_batch(loop, self._queue)

    def _run_batch(self, loop: asyncio.AbstractEventLoop, queue: deque[_Waiting]) -> None:
        """Run queued transactions, write what they changed to the journal, answer those who need not wait."""
        batch: list[_Waiting] = []
        before: Before = {}
        deadline_s = self._clock() + BATCH_S_MAX
        try:
            while queue:
                waiting = queue.popleft()
                if waiting.future is not None and waiting.future.cancelled():
                    continue  # nothing has run: as if it had never been asked
                batch.append(waiting)
                self._run(waiting, before)
                # Last: one runs however slow the machine is, or a transaction that runs at once would be forgotten.
                if self._clock() >= deadline_s:
                    break
        except lmdb.Error as error:
            # LMDB found its own data impossible.
            self._memtables.active.undo(before)
            self._tell(batch, self._fence(error))
        else:
            if not before or self._write(loop, batch, before):
                self._answer(loop, batch)
        self._next(loop)

    def _run(self, waiting: _Waiting, before: Before) -> None:
        """Run one function and apply its writes. Raises only LMDB's own errors."""
        assert waiting.fn is not None
        overlay = Overlay(self._memtables)
        waiting.error = None
        try:
            waiting.result = drive(waiting.fn, overlay)
        except lmdb.Error:
            raise
        except BaseException as error:
            waiting.error = error
            return
        if overlay.writes:
            self._memtables.active.apply(overlay.writes, before)

    def _write(self, loop: asyncio.AbstractEventLoop, batch: list[_Waiting], before: Before) -> bool:
        """Append the batch to the journal. False: it is undone, and told or held until there is room."""
        active = self._memtables.active
        changes = active.of_batch(before)
        try:
            written = self._append(changes)
        except Exception as error:
            active.undo(before)
            self._tell(batch, self._fence(error))
            return False
        if written:
            if self._task is None:
                if self._bounds.reached_by(active):
                    self._begin_checkpoint(loop)
            elif self._bounds.reached_by(active, 2):
                self._blocked = True
            return True
        active.undo(before)
        self._blocked = True
        self._held = batch
        if self._task is None:
            if active.changes:
                self._begin_checkpoint(loop)
            else:
                self._begin_task(loop, self._commit_directly(changes), direct=True)
        return False

    def _append(self, changes: Changes) -> bool:
        """Write a frame; False: there is no room for it."""
        frame = self._journal.next_frame(changes)
        if not self._has_room(len(frame)):
            return False
        try:
            self._journal.append(frame)
        except OSError as error:
            if error.errno in NO_SPACE:
                return False
            raise
        self._memtables.active.journal_bytes += len(frame)
        return True

    def _has_room(self, frame_bytes: int) -> bool:
        """Whether the journal may promise that what is in memtables and this frame will go into LMDB."""
        if self._cramped or frame_bytes > FRAME_BYTES_MAX:
            return False
        needed = self._memtables.space_bytes + 3 * frame_bytes
        if needed > self._room_bytes:
            free = self._disk.free_bytes(self._directory.path) - SPACE_RESERVE_BYTES
            self._room_bytes = min(free, needed + _SPACE_STEP_BYTES)
        return needed <= self._room_bytes

    def _answer(self, loop: asyncio.AbstractEventLoop, batch: list[_Waiting]) -> None:
        """The batch is in the journal, or has written nothing."""
        sequence = self._journal.sequence
        synced = self._journal.synced >= sequence
        for waiting in batch:
            if synced or waiting.relaxed:
                waiting.tell()
            else:
                waiting.sequence = sequence
                self._unsynced.append(waiting)
        self._sync_journal(loop)

    @staticmethod
    def _tell(batch: Iterable[_Waiting], failure: EmberError | None) -> None:
        for waiting in batch:
            waiting.tell(failure)

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        """Something has ended: go on with what waits for it."""
        if self.failure is not None:
            while self._queue:
                self._queue.popleft().tell(self._fenced())
        elif self._timer is None and self._task is None and self._memtables.active.changes and not self._closing:
            self._timer = loop.call_later(self._bounds.interval_s, self._interval_over, loop)
        if self._queue:
            self._schedule(loop)
        elif self._idle is not None and not self._idle.done() and self._is_idle():
            self._idle.set_result(None)

    def _is_idle(self) -> bool:
        return not (self._queue or self._unsynced or self._syncing or self._task is not None)

    async def _until_idle(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._is_idle():
            self._idle = loop.create_future()
            await self._idle

    # --- syncing ----------------------------------------------------------------------------------------------

    def _sync_journal(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start a sync for all who wait, unless one is under way: then the next follows it."""
        if self._syncing or not self._unsynced:
            return
        self._syncing = True
        sequence = self._journal.sequence
        files = self._journal.unsynced_files()
        began_ns = clock_ns()

        def done(error: BaseException | None) -> None:
            self._syncing = False
            self._synced.add(clock_ns() - began_ns)
            if error is not None:
                failure = self._fence(error)
                while self._unsynced:
                    self._unsynced.popleft().tell(failure)
            else:
                self._journal.files_synced(sequence)
                self._answer_synced(loop)
            self._next(loop)

        self._syncer.start(lambda: self._sync_files(files), done)

    def _sync_files(self, files: list[int]) -> None:
        """In the thread."""
        try:
            for file in files:
                self._disk.sync(file)
        except BaseException:
            self._directory.note_failure()
            raise

    def _answer_synced(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._unsynced and self._unsynced[0].sequence <= self._journal.synced:
            self._unsynced.popleft().tell()
        self._sync_journal(loop)

    # --- checkpoints ------------------------------------------------------------------------------------------

    def _interval_over(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        if self._task is None and self.failure is None and self._memtables.active.changes:
            self._begin_checkpoint(loop)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _begin_checkpoint(self, loop: asyncio.AbstractEventLoop) -> None:
        """Freeze the active memtable and put it into LMDB."""
        self._stop_timer()
        sequence = self._journal.checkpoint_begins()
        frozen = self._memtables.freeze()
        self._begin_task(loop, self._checkpoint(frozen, sequence))

    def _begin_task(
        self, loop: asyncio.AbstractEventLoop, step: Coroutine[Any, Any, EmberError | None], *, direct: bool = False
    ) -> None:
        self._task = loop.create_task(step, name="kv: checkpoint")
        self._task.add_done_callback(lambda task: self._task_ended(loop, task, direct))

    async def _checkpoint(self, frozen: Memtable, sequence: int) -> EmberError | None:
        """Returns why it has failed."""
        try:
            await self._below.apply(frozen.changes, sequence, self._journal.id, self._slice_s)
        except EmberError as failure:
            self._memtables.thaw()
            self._cramped = True
            return self._below_failed(failure)
        self._memtables.frozen = None
        self._cramped = False
        self._journal.checkpoint_is_durable(sequence)
        return None

    async def _commit_directly(self, changes: Changes) -> EmberError | None:
        """Commit the batch held, for which the journal has no room. Nothing is in a memtable. Returns why it failed."""
        sequence = self._journal.sequence
        try:
            await self._below.apply(changes, sequence, self._journal.id, self._slice_s)
        except EmberError as failure:
            return self._below_failed(failure)
        self._journal.checkpoint_is_durable(sequence)
        return None

    def _below_failed(self, failure: EmberError) -> EmberError:
        if failure.code is not Code.KV_FULL:
            return self._fence(failure)
        _log.error("metadata transactions wait for space: %s", failure)
        return failure

    def _task_ended(
        self, loop: asyncio.AbstractEventLoop, task: "asyncio.Task[EmberError | None]", direct: bool
    ) -> None:
        self._task = None
        self._blocked = False
        self._room_bytes = 0  # what is free has changed
        if task.cancelled():
            failure: EmberError | None = self._fence(asyncio.CancelledError("its checkpoint was cancelled"))
        elif (error := task.exception()) is not None:
            _log.error("a checkpoint of the metadata store ended unexpectedly", exc_info=error)
            failure = self._fence(error)
        else:
            failure = task.result()
        held, self._held = self._held, []
        if failure is None and not direct:
            self._queue.extendleft(reversed(held))  # there may be room now
        else:
            self._tell(held, failure)
        self._answer_synced(loop)
        self._next(loop)

    def _slice_s(self) -> float:
        """For how long the checkpoint may take the loop at a time."""
        behind = self._blocked or self._bounds.reached_by(self._memtables.active)
        return SLICE_S_MAX if behind else SLICE_S

    # --- failing ----------------------------------------------------------------------------------------------

    def _fence(self, error: BaseException) -> EmberError:
        """Nothing works any more; returns what those are told who wait for what has failed."""
        failure = (
            error
            if isinstance(error, EmberError)
            else EmberError(Code.KV_MAYBE_COMMITTED, f"metadata store {self._directory.path} failed: {error}")
        )
        if self.failure is None:
            self._directory.note_failure()
            _log.error("%s", failure)
            self.failure = failure
        return failure

    def _fenced(self) -> EmberError:
        return EmberError(
            Code.DISK_FAILED,
            f"metadata store {self._directory.path} has stopped ({self.failure}): check its disk, then start the "
            "metadata service again",
        )


def _forget_cached(disk: Disk, path: Path) -> None:
    """What is read from here on is what the disk has. INVALID: it still does not take what it is given."""
    _log.warning("metadata store %s: a write or sync had failed; what the disk really has is read", path)
    try:
        for name in (DATA_FILE, *FILE_NAMES):
            file = disk.open(path / name)
            try:
                disk.sync(file)
                disk.forget_cached(file)
            finally:
                disk.close(file)
    except OSError as error:
        raise EmberError(Code.INVALID, f"metadata store {path} still fails: {error}; check its disk") from error


def _recover(journal: Journal, below: LmdbFile, path: Path) -> Changes:
    """What the journal has and LMDB has not. INVALID: they do not belong together, or the journal is damaged."""
    changes: Changes = {}
    try:
        journal.open()
        applied, journal_id = below.applied()
        if journal_id not in (b"", journal.id):
            raise EmberError(
                Code.INVALID, f"metadata store {path}: its journal belongs to another store; restore both from a backup"
            )
        for batch in journal.read(applied):
            changes.update(batch)
    except JournalDamaged as error:
        raise EmberError(Code.INVALID, f"metadata store {path} has a damaged journal: {error}") from error
    except OSError as error:
        raise EmberError(Code.INVALID, f"metadata store {path} cannot read its journal: {error}") from error
    return changes
