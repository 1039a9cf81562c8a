"""The embedded store: LMDB, one writer, many transactions for each sync.

Owns: the LMDB environment, the open write transaction, the queue of transactions that wait for it, and the writer
thread. Page: `docs/concurrency/kv.md`.

How a transaction runs: `transact` queues the function. The loop runs the queued functions one after another inside
the one open LMDB write transaction, each on an `Overlay` that is applied when the function has succeeded. Then the
writer thread commits (two syncs: data, then the meta page) and opens the next write transaction, while the loop
collects the next batch. When it is back, all futures of the batch are resolved together.

Functions run on the loop and only the commit in a thread, because LMDB drops the GIL at each call: a thread that
runs transactions beside a busy loop loses the GIL at every get and put (measured: 450 transactions/s, against
50,000/s on the loop). LMDB wants begin, commit and abort from one thread (its lock has an owner), gets and puts from
any; so the writer thread does the first three, and the loop uses the transaction only between them.

Invariants:

* `_write` is used by the loop while `_committing` is false, by the writer thread while it is true; never by both.
* A batch's outcomes, errors included, are told only after its commit: an error may stem from what an earlier
  transaction of the batch wrote.
* Reads see committed state only, and all that was acknowledged.

Commit point: the write of LMDB's meta page, after the data pages are synced. A crash before it leaves the state of
the batch before; a crash after it leaves the whole batch, acknowledged or not.

When a commit fails for want of space nothing of the batch is applied and the store goes on (KV_FULL). When it fails
in any other way nobody knows what the disk holds: the batch gets KV_MAYBE_COMMITTED and the store fences itself
(every later call raises DISK_FAILED) until it is opened again.
"""

import asyncio
import contextlib
import enum
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import lmdb

from fs_common.checks import check
from fs_common.errors import Code, EmberError
from fs_common.limits import MIB
from fs_meta.kv.directory import DATA_FILE, StoreDirectory, open_directory
from fs_meta.kv.interface import TransactionFunction
from fs_meta.kv.overlay import Overlay, Snapshot, drive

T = TypeVar("T")
_log = logging.getLogger(__name__)

BATCH_S_MAX = 0.004
"""The loop executes a batch for about this long before it commits: other work of the loop waits no longer, and the
sync (about 1 ms) still costs less than the work."""

DISK_FULL_BYTES = 4 * MIB
"""A commit that fails while less than this is free failed for want of space."""


class _Waiting:
    """A transaction on its way: the function, and the future its caller awaits."""

    __slots__ = ("error", "fn", "future", "result")

    def __init__(self, fn: TransactionFunction[Any], future: "asyncio.Future[Any]") -> None:
        self.fn = fn
        self.future = future
        self.result: Any = None
        self.error: BaseException | None = None
        """What the function raised."""

    def tell(self, failure: EmberError | None) -> None:
        """Resolve the future; `failure` is the batch's."""
        if self.future.done():  # the caller was cancelled
            return
        error = failure or self.error
        if error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(self.result)


class _Outcome(enum.Enum):
    """What a step of the writer thread means for its batch."""

    COMMITTED = enum.auto()
    RUN_AGAIN = enum.auto()
    """Nothing of it is committed; a fresh write transaction is open."""
    MAP_FULL = enum.auto()
    """Nothing of it is committed; the map is too small, and no write transaction is open."""


class _View:
    """An LMDB transaction as the `Below` of an overlay."""

    __slots__ = ("_txn", "get")

    def __init__(self, txn: Any) -> None:
        self._txn = txn
        self.get: Callable[[bytes], bytes | None] = self._txn.get

    def scan(self, begin: bytes, end: bytes, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        with self._txn.cursor() as cursor:
            if not reverse:
                if cursor.set_range(begin):
                    for pair in cursor.iternext():
                        if pair[0] >= end:
                            return
                        yield pair
                return
            # The last key below `end`: one back from the first at or above it, or the very last.
            found = cursor.prev() if cursor.set_range(end) else cursor.last()
            if found:
                for pair in cursor.iterprev():
                    if pair[0] < begin:
                        return
                    yield pair


class LmdbStore:
    """A `KeyValueStore` in one directory. All methods are called on one event loop."""

    exclusive = True

    def __init__(self, directory: StoreDirectory, environment: lmdb.Environment, map_size_bytes: int) -> None:
        self._directory = directory
        self._environment = environment
        self._map_size_bytes = map_size_bytes
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="kv-writer")
        self._write: lmdb.Transaction | None = None
        """The open write transaction; None before the first batch and after a failure."""
        self._queue: deque[_Waiting] = deque()
        self._scheduled = False
        """`_execute` is about to be called by the loop."""
        self._committing = False
        self._closing = False
        self._idle: asyncio.Future[None] | None = None
        """Set by `close`, resolved when nothing is queued or committing."""
        self.failure: EmberError | None = None
        """Why the store is fenced."""

    @classmethod
    def open(cls, path: Path, *, map_size_bytes: int) -> "LmdbStore":
        """Open or make the store. Raises `EmberError`: INVALID (directory or format), BUSY (open elsewhere)."""
        directory = open_directory(path)
        try:
            if directory.has_format:
                directory.check_format()
            environment = _open_environment(directory.path, map_size_bytes, directory.has_format)
            try:
                if not directory.has_format:
                    if environment.info()["last_txnid"] != 0:
                        raise EmberError(
                            Code.INVALID,
                            f"metadata store {path} holds data but no FORMAT file: restore the file, or use another "
                            "directory",
                        )
                    directory.write_format()
            except BaseException:
                environment.close()
                raise
        except BaseException:
            directory.close()
            raise
        return cls(directory, environment, environment.info()["map_size"])

    async def transact(self, fn: TransactionFunction[T], *, relaxed: bool = False) -> T:
        """All are synced before they are answered, the relaxed ones too."""
        self._check_usable()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._queue.append(_Waiting(fn, future))
        self._schedule(loop)
        return await future

    async def read(self, fn: TransactionFunction[T]) -> T:
        self._check_usable()
        txn = self._environment.begin()  # a spare one, renewed: no allocation, no system call
        try:
            return drive(fn, Snapshot(_View(txn)))
        finally:
            txn.abort()

    async def sync(self) -> None:
        self._check_usable()

    async def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        loop = asyncio.get_running_loop()
        if self._queue or self._committing:
            self._idle = loop.create_future()
            await self._idle
        await loop.run_in_executor(self._writer, self._release)
        self._writer.shutdown()
        self._directory.close()

    # --- on the loop -----------------------------------------------------------------------------------------

    def _check_usable(self) -> None:
        if self._closing:
            raise EmberError(Code.CLOSING, f"metadata store {self._directory.path} is closed")
        if self.failure is not None:
            raise self._fenced()

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._scheduled and not self._committing:
            # In the next turn, so that all requests this turn brings share the batch.
            self._scheduled = True
            loop.call_soon(self._execute, loop)

    def _execute(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run queued transactions in the write transaction, then hand it to the writer thread."""
        self._scheduled = False
        check(not self._committing, "one batch at a time")
        if self._write is None:
            self._in_writer(loop, self._begin, [])
            return
        batch: list[_Waiting] = []
        wrote = False
        deadline_s = time.monotonic() + BATCH_S_MAX  # uvloop's own time stands still within a turn
        view = _View(self._write)
        try:
            while self._queue and time.monotonic() < deadline_s:
                waiting = self._queue.popleft()
                if waiting.future.cancelled():
                    continue  # nothing has run: as if it had never been asked
                batch.append(waiting)
                wrote = self._run(waiting, view, self._write) or wrote
        except lmdb.MapFullError:
            self._in_writer(loop, self._drop_for_growth, batch)
        except lmdb.Error as error:
            # LMDB found its own data impossible. Nothing of the batch is committed.
            self._fence(error)
            self._in_writer(loop, self._drop, batch)
        else:
            if wrote:
                self._in_writer(loop, self._commit, batch)
                return
            # Nothing to commit, and what these have seen is committed: the write transaction stays open.
            self._tell(batch, None)
            self._next(loop)

    @staticmethod
    def _run(waiting: _Waiting, view: _View, write: lmdb.Transaction) -> bool:
        """Run one function and apply its writes; True if there are any. Raises only LMDB's own errors."""
        overlay = Overlay(view)
        waiting.error = None
        try:
            waiting.result = drive(waiting.fn, overlay)
        except lmdb.Error:
            raise
        except BaseException as error:
            waiting.error = error
            return False
        for key, value in overlay.writes.items():
            if value is None:
                write.delete(key)
            else:
                write.put(key, value)
        return bool(overlay.writes)

    def _in_writer(
        self, loop: asyncio.AbstractEventLoop, step: Callable[[], "_Outcome"], batch: list[_Waiting]
    ) -> None:
        """Lend the write transaction to the writer thread for one step, on behalf of `batch`."""
        self._committing = True

        def done(future: "asyncio.Future[_Outcome]") -> None:
            self._committing = False
            try:
                outcome = future.result()
                if outcome is _Outcome.MAP_FULL:
                    self._grow_map()
            except EmberError as failure:
                _log.error("metadata transactions failed: %s", failure)
                self._tell(batch, failure)
            else:
                if outcome is _Outcome.COMMITTED:
                    self._tell(batch, None)
                else:
                    self._queue.extendleft(reversed(batch))
            self._next(loop)

        loop.run_in_executor(self._writer, step).add_done_callback(done)

    def _grow_map(self) -> None:
        """Double the map; KV_FULL when the disk is the limit.

        On the loop, where no read can be under way, because the map moves.
        """
        check(self._write is None, "the map grows while no transaction is open")
        disk = os.statvfs(self._directory.path)
        used_bytes = (self._directory.path / DATA_FILE).stat().st_blocks * 512
        most_bytes = used_bytes + disk.f_bavail * disk.f_frsize
        size_bytes = min(self._map_size_bytes * 2, most_bytes - most_bytes % MIB)
        if size_bytes <= self._map_size_bytes:
            raise self._full(f"{most_bytes} bytes can be used")
        self._environment.set_mapsize(size_bytes)
        self._map_size_bytes = size_bytes

    @staticmethod
    def _tell(batch: list[_Waiting], failure: EmberError | None) -> None:
        for waiting in batch:
            # Each caller raises an exception of its own: tracebacks grow where one is raised.
            waiting.tell(EmberError(failure.code, failure.message) if failure is not None else None)

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        """The write transaction is the loop's: go on with what waits for it."""
        if self.failure is not None:
            while self._queue:
                self._queue.popleft().tell(self._fenced())
        if self._queue:
            self._schedule(loop)
        elif self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def _fenced(self) -> EmberError:
        return EmberError(
            Code.DISK_FAILED,
            f"metadata store {self._directory.path} has stopped ({self.failure}): check its disk, then start the "
            "metadata service again",
        )

    # --- in the writer thread --------------------------------------------------------------------------------

    def _begin(self) -> "_Outcome":
        try:
            self._write = self._environment.begin(write=True)
        except lmdb.Error as error:
            raise self._fence(error) from error
        return _Outcome.RUN_AGAIN

    def _commit(self) -> "_Outcome":
        """Commit the batch and open the next write transaction. Raises KV_FULL, KV_MAYBE_COMMITTED."""
        write, self._write = self._write, None
        assert write is not None
        try:
            self._commit_transaction(write)
        except lmdb.MapFullError:
            self._abort(write)
            return _Outcome.MAP_FULL
        except lmdb.Error as error:
            self._abort(write)
            if not self._is_full(error):
                raise self._fence(error) from error
            # LMDB gave up before it wrote the meta page, and the state before the batch stands. Had it come later,
            # the environment would refuse the next transaction (PanicError), which fences the store.
            self._begin()
            raise self._full(error) from error
        self._begin()
        return _Outcome.COMMITTED

    def _commit_transaction(self, write: lmdb.Transaction) -> None:
        """The commit itself: where tests put failing disks."""
        write.commit()

    def _drop(self) -> "_Outcome":
        """The store is fenced before anything of the batch was committed."""
        self._release_write()
        raise self._fenced()

    def _drop_for_growth(self) -> "_Outcome":
        self._release_write()
        return _Outcome.MAP_FULL

    def _is_full(self, error: lmdb.Error) -> bool:
        """Whether a commit failed for want of space. LMDB reports a write that was cut short as an I/O error."""
        if isinstance(error, lmdb.DiskError | lmdb.TxnFullError):
            return True
        disk = os.statvfs(self._directory.path)
        return type(error) is lmdb.Error and disk.f_bavail * disk.f_frsize < DISK_FULL_BYTES

    def _full(self, detail: object) -> EmberError:
        return EmberError(
            Code.KV_FULL, f"metadata store {self._directory.path} has no space: free some on its disk ({detail})"
        )

    def _fence(self, error: Exception) -> EmberError:
        self.failure = EmberError(Code.KV_MAYBE_COMMITTED, f"metadata store {self._directory.path} failed: {error}")
        return self.failure

    def _release_write(self) -> None:
        if self._write is not None:
            self._abort(self._write)
            self._write = None

    @staticmethod
    def _abort(write: lmdb.Transaction) -> None:
        """After a failed commit as well: then it only gives up what the binding holds."""
        with contextlib.suppress(lmdb.Error):
            write.abort()

    def _release(self) -> None:
        self._release_write()
        self._environment.close()


def _open_environment(path: Path, map_size_bytes: int, exists: bool) -> lmdb.Environment:
    if exists and not (path / DATA_FILE).exists():
        raise EmberError(Code.INVALID, f"metadata store {path} has lost its {DATA_FILE}: restore it from a backup")
    # A file larger than the map is mapped whole, so a map that has grown is as large after the next open.
    file_bytes = (path / DATA_FILE).stat().st_size if (path / DATA_FILE).exists() else 0
    try:
        return lmdb.open(
            str(path),
            map_size=max(map_size_bytes, file_bytes),
            max_dbs=0,
            mode=0o600,
            readahead=False,  # keys are read at random
            meminit=False,  # slack in pages is never read back
            max_spare_txns=4,
        )
    except lmdb.Error as error:
        raise EmberError(Code.INVALID, f"metadata store {path} cannot be opened: {error}") from error
