"""The collector: frees what has lost its last name, in the background.

Queue entries are made in the transaction that takes the name (or ends the last session) and deleted in the one that
frees the inode, so nothing is forgotten over a crash; every step may be repeated.

Files go in batches: (1) one snapshot says which of them nobody has open, (2) their chunks are removed, chain by chain
with many files in a request; files that were never open for writing have none, (3) one transaction deletes inodes and
queue entries. Commit point: (3). A crash in (2) leaves the entries, and the next pass removes what is left.

A directory of a detached tree: transactions of at most `STEP` entries take its children apart (`fs_meta.trees`): a
file loses a link as in unlink, a subdirectory becomes the top of a tree of its own with its own queue entry, what the
remover may not remove goes to the orphans. The transaction that finds
it empty deletes inode and queue entry; it reads the range, so an entry that is made meanwhile (by someone who still
knows the inode) conflicts with it and is collected too, or its maker is told ESTALE.

What fails (a storage daemon is down) goes back into the queue `gc_retry_ms` later; the rest of the queue goes on.

Freeing is never urgent: all steps together take at most `SHARE` of the loop (`fs_meta.pace`), each a millisecond or
two, so calls in the foreground wait for one step at most. Storage daemons have one batch at a time to remove, and as
long a rest after each.

Its transactions are relaxed: an inode that comes back after the machine's death has its queue entry with it. The
removal itself is made durable before any chunk is taken away, since a name that comes back must find its bytes, and so
is the service's time by which the file is due (`fs_meta.service_time`).

Tasks: `run` is one task of the process; a pass works on up to `CONCURRENCY` batches and directories side by side and
waits for them. It may be cut at any point.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Final, NamedTuple, TypeVar

import msgspec

from fs_common.errors import EmberError
from fs_common.ids import InodeId
from fs_common.layout import Layout
from fs_common.limits import REMOVE_FILES_MAX
from fs_common.records.meta import FileType
from fs_common.telemetry import Counters
from fs_meta import schema
from fs_meta.background import passes
from fs_meta.kv.interface import Transaction
from fs_meta.ops.context import Context
from fs_meta.ops.inodes import delete_inode, has_sessions, put_inode
from fs_meta.pace import Pace
from fs_meta.schema import CorruptRecord, Garbage, Inode
from fs_meta.trees import ORPHANS, NeedsInode, Taken, take_entries

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

PAGE: Final = 512
"""Queue entries a pass looks at; the next pass follows at once while there is something to do."""
BATCH: Final = REMOVE_FILES_MAX
"""Files that share requests to storage, and there a replicated batch and its sync."""
STEP: Final = 32
"""Files for each snapshot and transaction, entries of a directory for each transaction: a millisecond of the loop."""
CONCURRENCY: Final = 4
"""Batches and directories worked on side by side, so that the answers of storage need not be waited for one by one."""
TREE_STEPS: Final = 32
"""Steps a pass takes in one directory, so that a large one does not keep others waiting."""
STORAGE_REST_S_MAX: Final = 0.2
"""A batch that took longer has waited for something else than its work."""
SHARE: Final = 1 / 3
"""Of the loop's time, at most."""


class _Due(NamedTuple):
    key: bytes
    inode: InodeId
    garbage: Garbage


class Collector:
    def __init__(
        self, context: Context, *, retry_ns: int, interval_s: float = 1.0, counters: Counters | None = None
    ) -> None:
        self._context = context
        self.retry_ns = retry_ns
        """Pause before what could not be freed is tried again; may be changed."""
        self.interval_s = interval_s
        """Pause after a pass that found nothing to do; may be changed."""
        self._pace = Pace(SHARE)
        self._removing = asyncio.Lock()
        """One batch at a time is removed from storage, which rests for as long as that took."""
        self.counters = counters or Counters()
        """gc_files, gc_directories, gc_failures."""

    async def collect(self) -> int:
        """One pass over what is due: at most `PAGE` things. Returns how many of them were freed or taken a step."""
        due = await self._due()
        if not due:
            return 0
        # Whether a file is kept is a question of the time, in the process that comes after this one, too: so what makes
        # files due is durable before any chunk of theirs is taken.
        await self._context.service_time.keep()
        await self._context.kv.sync()
        files = [item for item in due if item.garbage.type is not FileType.DIRECTORY]
        works: list[Callable[[], Awaitable[int]]] = []
        for start in range(0, len(files), BATCH):
            batch = files[start : start + BATCH]
            works.append(lambda batch=batch: self._free_files(batch))  # type: ignore[misc]
        for item in due:
            if item.garbage.type is FileType.DIRECTORY:
                works.append(lambda item=item: self._free_directory(item))  # type: ignore[misc]
        done = 0
        turns = asyncio.Semaphore(CONCURRENCY)

        async def in_turn(work: Callable[[], Awaitable[int]]) -> None:
            nonlocal done
            async with turns:
                freed = await work()
                done += freed

        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(in_turn(work))
        return done

    async def run(self, stop: asyncio.Event) -> None:
        """Pass after pass until `stop` is set, with a pause of `interval_s` when a pass found nothing to do."""

        async def one_pass() -> bool:
            try:
                return await self.collect() > 0
            except (EmberError, CorruptRecord, ExceptionGroup):
                _log.exception("a pass of the collector failed; the next one comes in %s s", self.interval_s)
                return False

        await passes(stop, lambda: self.interval_s, one_pass)

    async def _due(self) -> list[_Due]:
        begin, end = schema.garbage_range(self._context.service_time.now_ns())

        async def look(txn: Transaction) -> list[tuple[bytes, bytes]]:
            return await txn.range(begin, end, PAGE)

        return [
            _Due(key, schema.split_garbage_key(key)[1], schema.decode_garbage(value))
            for key, value in await self._context.kv.read(look)
        ]

    # Files

    async def _free_files(self, batch: Sequence[_Due]) -> int:
        """Free what can be freed now, put the rest back for later. Returns how many were freed."""
        failures: dict[InodeId, Exception] = {}
        with_chunks: list[tuple[InodeId, Layout]] = []
        for step in _steps(batch):
            with_chunks += await self._look_at(step, failures)
        if with_chunks:
            outcomes = await self._remove_chunks(with_chunks)
            for (inode, _), failure in zip(with_chunks, outcomes, strict=True):
                if failure is not None:
                    failures[inode] = failure
        for step in _steps([item for item in batch if item.inode not in failures]):
            freed = await self._transact(lambda txn, step=step: _delete(txn, step))  # type: ignore[misc]
            self._context.inode_count.add(-freed)
            self.counters.add("gc_files", freed)
        for item in batch:
            if item.inode in failures:
                await self._put_back(item, failures[item.inode])
        return len(batch) - len(failures)

    async def _remove_chunks(self, files: Sequence[tuple[InodeId, Layout]]) -> list[EmberError | None]:
        async with self._removing:
            begun = time.perf_counter()
            outcomes = await self._context.chunks.remove(files)
            await asyncio.sleep(min(time.perf_counter() - begun, STORAGE_REST_S_MAX))
        return outcomes

    async def _look_at(self, batch: Sequence[_Due], failures: dict[InodeId, Exception]) -> list[tuple[InodeId, Layout]]:
        """Those that may have chunks and that nobody needs any more; the ones that cannot be read join `failures`."""

        async def look(txn: Transaction) -> list[tuple[InodeId, Layout]]:
            found = []
            for _, inode, _ in batch:
                value = await txn.get(schema.inode_key(inode))
                if value is None or await has_sessions(txn, inode):
                    continue
                try:
                    record = schema.decode_inode(value)
                except CorruptRecord as error:
                    failures[inode] = error
                    continue
                if not record.links and record.layout is not None and _may_have_chunks(record):
                    found.append((inode, record.layout))
            return found

        begun = time.perf_counter()
        found = await self._context.kv.read(look)
        await self._rest(time.perf_counter() - begun)
        return found

    # Trees

    async def _free_directory(self, item: _Due) -> int:
        """Some steps of taking it apart. Returns how many."""
        steps = 0
        spare: InodeId | None = None
        try:
            while steps < TREE_STEPS:
                try:
                    finished, taken = await self._transact(partial(self._take_step, item, spare))
                except NeedsInode:
                    spare = await self._context.inode_ids.take()
                    continue
                spare = None  # it is used up, or not needed any more; an id is never given to two
                self._context.inode_count.add(taken.change)
                for path, reason in taken.kept:
                    _log.warning("%r could not be removed and was put into %r: %s", path, ORPHANS, reason)
                steps += 1
                if finished:
                    self.counters.add("gc_directories")
                    break
        except (EmberError, CorruptRecord) as error:
            await self._put_back(item, error)
        return steps

    async def _take_step(self, item: _Due, spare: InodeId | None, txn: Transaction) -> tuple[bool, Taken]:
        """(it is gone, what came of some of its entries)"""
        directory = item.inode
        value = await txn.get(schema.inode_key(directory))
        record = None if value is None else schema.decode_inode(value)
        if record is None or record.links:
            txn.delete(item.key)
            return True, Taken()
        begin, end = schema.entries_range(directory)
        pairs = await txn.range(begin, end, STEP)
        if not pairs:
            delete_inode(txn, directory)
            txn.delete(item.key)
            return True, Taken(-1)
        context = self._context
        service_ns = context.service_time.now_ns()
        return False, await take_entries(
            txn, directory, record, item.garbage, pairs, context.now_ns(), service_ns, context.due_ns(), spare
        )

    # Both

    async def _put_back(self, item: _Due, error: Exception) -> None:
        """Try it again later."""
        key, inode, garbage = item
        self.counters.add("gc_failures")
        log = _log.warning if garbage.attempts == 0 else _log.debug
        log("inode %d cannot be freed now, tried again later: %s", inode, error)
        later = schema.garbage_key(self._context.service_time.now_ns() + self.retry_ns, inode)
        value = schema.encode(msgspec.structs.replace(garbage, attempts=garbage.attempts + 1))

        async def move(txn: Transaction) -> None:
            if await txn.get(key) is not None:
                txn.delete(key)
                txn.put(later, value)

        await self._transact(move)

    async def _transact(self, fn: Callable[[Transaction], Awaitable[_T]]) -> _T:
        """A transaction, and a rest after it."""
        worked_s = 0.0

        async def timed(txn: Transaction) -> _T:
            nonlocal worked_s
            begun = time.perf_counter()
            result = await fn(txn)
            worked_s += time.perf_counter() - begun
            return result

        result = await self._context.kv.transact(timed, relaxed=True)
        # What the function has put is written by the store for about as long again.
        await self._rest(2 * worked_s)
        return result

    async def _rest(self, worked_s: float) -> None:
        await asyncio.sleep(self._pace.pause_s(worked_s, time.perf_counter()))


def _steps(items: Sequence[_Due]) -> Iterator[Sequence[_Due]]:
    for start in range(0, len(items), STEP):
        yield items[start : start + STEP]


def _may_have_chunks(record: Inode) -> bool:
    return bool(record.flags & schema.WRITTEN or record.length)


async def _delete(txn: Transaction, items: Sequence[_Due]) -> int:
    """Delete the inodes that nobody has come to need, and all queue entries. Returns how many inodes."""
    freed = 0
    for key, inode, _ in items:
        txn.delete(key)
        value = await txn.get(schema.inode_key(inode))
        if value is None:
            continue  # freed by another server
        record = schema.decode_inode(value)
        if record.links or await has_sessions(txn, inode):
            # In use: the close of its last session queues it again.
            record.due_ns = 0
            put_inode(txn, inode, record)
            continue
        delete_inode(txn, inode)
        freed += 1
    return freed
