"""The collector: frees what has lost its last name.

Queue entries are made in the transaction that takes the name (or ends the last session) and deleted in the one that
frees the inode, so nothing is forgotten over a crash; every step may be repeated.

A file: (1) its chunks are removed on every chain of its layout, (2) one transaction deletes inode and queue entry.
Commit point: (2). A crash in (1) leaves the entry, and the next pass removes what is left.

A directory of a detached tree: transactions of at most `TREE_STEP` entries take its children apart: a file loses a link
as in unlink, a subdirectory becomes the root of a tree of its own with its own queue entry. The transaction that finds
it empty deletes inode and queue entry; it reads the range, so an entry that is made meanwhile (by someone who still
knows the inode) conflicts with it and is collected too, or its maker is told ESTALE.

What fails (a storage daemon is down) goes back into the queue `gc_retry_ms` later; the rest of the queue goes on.

Tasks: `run` is one task of the process; a pass frees up to `CONCURRENCY` things side by side and waits for them.

Source: DESIGN section 4; reference 1.4, 3.3.
"""

import asyncio
import logging
from typing import Final

from fs_common.errors import EmberError
from fs_common.records.meta import FileType
from fs_common.telemetry import Counters
from fs_meta import schema
from fs_meta.kv.interface import Transaction
from fs_meta.ops.context import Context
from fs_meta.ops.inodes import delete_inode, drop_link, has_sessions
from fs_meta.ops.remove_tree import detach
from fs_meta.ops.resolve import get_inode
from fs_meta.schema import Garbage, Inode

_log = logging.getLogger(__name__)

PAGE: Final = 256
"""Queue entries a pass looks at; the next pass follows at once while a page is full."""
CONCURRENCY: Final = 16
"""Things freed side by side."""
TREE_STEP: Final = 128
"""Entries of a directory for each transaction: about a millisecond of the store's writer."""
_NAME_OFFSET = len(schema.entry_key(0, b""))


class Collector:
    def __init__(self, context: Context, *, retry_ns: int, counters: Counters | None = None) -> None:
        self._context = context
        self._retry_ns = retry_ns
        self.counters = counters or Counters()
        """gc_files, gc_directories, gc_failures."""

    async def collect(self) -> int:
        """One pass over what is due: at most `PAGE` things. Returns how many of them were freed or taken a step."""
        due = await self._due()
        if due:
            # A relaxed removal that the machine's death undoes must not have cost the file its chunks.
            await self._context.kv.sync()
        done = 0
        turns = asyncio.Semaphore(CONCURRENCY)

        async def free(key: bytes, garbage: Garbage) -> None:
            nonlocal done
            async with turns:
                if await self._free(key, garbage):
                    done += 1

        async with asyncio.TaskGroup() as group:
            for key, garbage in due:
                group.create_task(free(key, garbage))
        return done

    async def run(self, stop: asyncio.Event, interval_s: float) -> None:
        """Pass after pass until `stop` is set, with a pause of `interval_s` when a pass found nothing to do."""
        while not stop.is_set():
            try:
                idle = await self.collect() == 0
            except (EmberError, ExceptionGroup):
                _log.exception("a pass of the collector failed; the next one comes in %s s", interval_s)
                idle = True
            if idle:
                try:
                    await asyncio.wait_for(stop.wait(), interval_s)
                except TimeoutError:
                    continue

    async def _due(self) -> list[tuple[bytes, Garbage]]:
        begin, end = schema.garbage_range(self._context.now_ns())

        async def look(txn: Transaction) -> list[tuple[bytes, bytes]]:
            return await txn.range(begin, end, PAGE)

        return [(key, schema.decode_garbage(value)) for key, value in await self._context.kv.read(look)]

    async def _free(self, key: bytes, garbage: Garbage) -> bool:
        """Free one thing, or put it back for later. Returns whether anything was done."""
        _, inode = schema.split_garbage_key(key)
        try:
            if garbage.type is FileType.DIRECTORY:
                await self._take_apart(key, inode)
            else:
                await self._free_file(key, inode)
            return True
        except (EmberError, schema.CorruptRecord) as error:
            self.counters.add("gc_failures")
            log = _log.warning if garbage.attempts == 0 else _log.debug
            log("inode %d cannot be freed now, tried again later: %s", inode, error)
            await self._put_back(key, inode, garbage)
            return False

    async def _free_file(self, key: bytes, inode: int) -> None:
        record = await self._look_at(inode)
        if record is not None and not record.links and record.layout is not None:
            await self._context.chunks.remove(inode, record.layout)

        async def finish(txn: Transaction) -> int:
            txn.delete(key)
            value = await txn.get(schema.inode_key(inode))
            if value is None or schema.decode_inode(value).links or await has_sessions(txn, inode):
                return 0  # freed by another server, or in use: the close of its last session queues it again
            delete_inode(txn, inode)
            return 1

        freed = await self._context.kv.transact(finish)
        self._context.inode_count.add(-freed)
        self.counters.add("gc_files", freed)

    async def _look_at(self, inode: int) -> Inode | None:
        async def look(txn: Transaction) -> Inode | None:
            value = await txn.get(schema.inode_key(inode))
            if value is None or await has_sessions(txn, inode):
                return None
            return schema.decode_inode(value)

        return await self._context.kv.read(look)

    async def _take_apart(self, key: bytes, directory: int) -> None:
        begin, end = schema.entries_range(directory)
        now_ns = self._context.now_ns()
        due_ns = now_ns + self._context.gc_delay_ns

        async def step(txn: Transaction) -> tuple[bool, int]:
            value = await txn.get(schema.inode_key(directory))
            if value is None or schema.decode_inode(value).links:
                txn.delete(key)
                return True, 0
            pairs = await txn.range(begin, end, TREE_STEP)
            if not pairs:
                delete_inode(txn, directory)
                txn.delete(key)
                return True, -1
            change = 0
            for name_key, entry_value in pairs:
                entry = schema.decode_entry(entry_value)
                txn.delete(name_key)
                if entry.type is FileType.DIRECTORY:
                    await detach(txn, entry.inode, now_ns)
                else:
                    record = await get_inode(txn, entry.inode)
                    change += await drop_link(txn, entry.inode, record, now_ns, due_ns)
            return False, change

        finished = False
        while not finished:
            finished, change = await self._context.kv.transact(step)
            self._context.inode_count.add(change)
        self.counters.add("gc_directories")

    async def _put_back(self, key: bytes, inode: int, garbage: Garbage) -> None:
        later = schema.garbage_key(self._context.now_ns() + self._retry_ns, inode)
        value = schema.encode(Garbage(garbage.type, garbage.removed_ns, garbage.attempts + 1))

        async def move(txn: Transaction) -> None:
            if await txn.get(key) is not None:
                txn.delete(key)
                txn.put(later, value)

        await self._context.kv.transact(move)
