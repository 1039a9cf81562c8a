"""Takes from dead clients what they had: locks are given up, sessions end, files without names are queued.

Each step is one transaction, so a crash leaves fewer of them, and the next process, which finds the rest in the store,
gives the client its full time again and goes on then. Every step looks once more whether the client is still away.

A write session ends as its close would have: the file's length is what storage has of it (`chunks.measure`), exactly,
and what else a write changes is changed, since nobody can tell any more whether it wrote. What cannot be done now (a
storage daemon is away) stays and is tried again, the rest goes on.

The session is kept as *pruned* for `KEEP_S` of the service's time: a client that was only cut off from here has it
again with its next fsync or close (`fs_meta.ops.sessions`), if the file is still there.

Tasks: `run` has one for locks and one for sessions; a pass works on up to `CONCURRENCY` sessions side by side and waits
for them. It may be cut at any point.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from fs_common.errors import EmberError
from fs_common.ids import InodeId, shown_client
from fs_common.telemetry import Counters
from fs_meta import schema
from fs_meta.background import passes
from fs_meta.clients import Clients
from fs_meta.kv.interface import Transaction
from fs_meta.locks.waits import get_locks, put_locks
from fs_meta.ops.context import Context
from fs_meta.ops.inodes import has_sessions, put_inode, queue_file
from fs_meta.ops.permission import without_set_id
from fs_meta.ops.sessions import Measured, MustMeasure, longer, measuring
from fs_meta.ops.xattrs import drop_capability
from fs_meta.schema import Pruned, Session

_log = logging.getLogger(__name__)

PAGE: Final = 256
"""Records a pass reads at once: some tenths of a millisecond, after which others get their turn."""
CONCURRENCY: Final = 16
"""Sessions ended side by side."""
RETRY_S: Final = 10.0
"""Pause before what could not be done is tried again."""
KEEP_S: Final = 24 * 3600.0
"""How long a pruned session is remembered: a notebook that slept over night has its files back."""
SWEEP_S: Final = 3600.0
"""How often pruned sessions are looked through for old ones."""
_NS: Final = 10**9


class Pruner:
    def __init__(
        self, context: Context, clients: Clients, clock: Callable[[], float], *, counters: Counters | None = None
    ) -> None:
        self._context = context
        self._clients = clients
        self._clock = clock
        """Seconds; that of the times `clients` is told."""
        self.counters = counters or Counters()
        """pruned_clients, pruned_sessions, pruned_locks, prune_failures."""
        self._learned = False
        """`_clients` knows everybody of whom the store had something when this process started."""
        self._unlocked: set[bytes] = set()
        """Dead clients that have no locks any more."""
        self._later: dict[bytes, float] = {}
        """Clients of whom something could not be taken, and when that is tried again."""
        self._sweep_at = 0.0

    async def run(self, stop: asyncio.Event, interval_s: float) -> None:
        """Look for dead clients every `interval_s` until `stop` is set. Locks do not wait for sessions, which may have
        to wait for storage."""
        async with asyncio.TaskGroup() as group:
            for part in (self.prune_locks, self.prune_sessions):
                group.create_task(passes(stop, lambda: interval_s, self._guarded(part)))

    async def learn(self) -> None:
        """Every client with a session or a lock has its time from now on, if it is not here already."""
        now = self._clock()
        async for _, session in self._sessions():
            self._clients.holds(session.client, now)
        async for _, locks in self._pages(schema.all_locks_range):
            for lock in schema.decode_locks(locks).held:
                self._clients.holds(lock.client, now)

    async def prune_locks(self) -> None:
        """Give up the locks of everybody who is dead. The first time, learn whom the store speaks of before."""
        if not self._learned:
            await self.learn()
            self._learned = True
        overdue = self._clients.overdue(self._clock())
        self._unlocked &= overdue
        dead = overdue - self._unlocked
        if not dead:
            return
        async for key, value in self._pages(schema.all_locks_range):
            if not any(lock.client in dead for lock in schema.decode_locks(value).held):
                continue
            inode = schema.split_locks_key(key)

            async def drop(txn: Transaction, inode: int = inode) -> int:
                held = await get_locks(txn, inode)
                left = [lock for lock in held if lock.client not in dead or not self._is_dead(lock.client)]
                if left != held:
                    put_locks(txn, inode, left)
                return len(held) - len(left)

            dropped = await self._context.kv.transact(drop, relaxed=True)
            self.counters.add("pruned_locks", dropped)
            await self._context.lock_waits.changed(self._context.kv, inode)
        self._unlocked |= {client for client in dead if self._is_dead(client)}

    async def prune_sessions(self) -> int:
        """End the sessions of everybody who is dead and has no locks any more, as far as it can be done now. Returns
        how many clients have nothing left: they are forgotten."""
        now = self._clock()
        overdue = self._clients.overdue(now)
        self._later = {client: when for client, when in self._later.items() if client in overdue}
        dead = {client for client in overdue & self._unlocked if self._later.get(client, now) <= now}
        if not dead:
            return 0
        failed = await self._end_sessions(dead)
        for client in dead:
            if client in failed:
                self._later[client] = self._clock() + RETRY_S
            elif self._is_dead(client):
                self._later.pop(client, None)
                self._unlocked.discard(client)
                self._clients.forget(client)
                self.counters.add("pruned_clients")
        await self._sweep()
        return len(dead) - len(failed)

    def _is_dead(self, client: bytes) -> bool:
        return self._clients.is_overdue(client, self._clock())

    @staticmethod
    def _guarded(part: Callable[[], Awaitable[object]]) -> Callable[[], Awaitable[bool]]:
        """A pass that survives its failures."""

        async def one_pass() -> bool:
            try:
                await part()
            except (EmberError, schema.CorruptRecord, ExceptionGroup):
                _log.exception("dead clients cannot be cleared up after now; it is tried again")
            return False

        return one_pass

    async def _end_sessions(self, dead: set[bytes]) -> set[bytes]:
        """Returns the clients of whom some are left."""
        failed: set[bytes] = set()
        turns = asyncio.Semaphore(CONCURRENCY)

        async def end(key: bytes, client: bytes) -> None:
            inode, session = schema.split_session_key(key)
            try:
                if await self._end(inode, session, client):
                    self.counters.add("pruned_sessions")
            except (EmberError, schema.CorruptRecord) as error:
                self.counters.add("prune_failures")
                log = _log.debug if client in self._later else _log.warning
                log("a session of the dead client %s on file %d stays for now: %s", shown_client(client), inode, error)
                failed.add(client)
            finally:
                turns.release()

        async with asyncio.TaskGroup() as group:
            async for key, session in self._sessions():
                if session.client in dead:
                    await turns.acquire()
                    group.create_task(end(key, session.client))
        return failed

    async def _end(self, inode: InodeId, session: bytes, client: bytes) -> bool:
        """End one session, unless it has ended or its client is back."""
        context = self._context

        async def attempt(measured: Measured | None) -> bool:
            async def apply(txn: Transaction) -> bool:
                key = schema.session_key(inode, session)
                value = await txn.get(key)
                if value is None or not self._is_dead(client):
                    return False
                ended = schema.decode_session(value)
                txn.delete(key)
                found = await txn.get(schema.inode_key(inode))
                if found is None:
                    return True
                record = schema.decode_inode(found)
                now_ns = context.now_ns()
                if not record.links and not await has_sessions(txn, inode):
                    # Nobody will look at its length again.
                    unnamed = record.flags & schema.UNNAMED
                    due_ns = context.service_time.now_ns() if unnamed else context.due_ns()
                    queue_file(txn, inode, record, now_ns, due_ns)
                    put_inode(txn, inode, record)
                    return True
                pruned = Pruned(client, inode, context.service_time.now_ns(), ended)
                txn.put(schema.pruned_key(session), schema.encode(pruned))
                if not ended.write:
                    return True
                if measured is None or measured.truncate_version != record.truncate_version:
                    raise MustMeasure(inode, record)
                longer(record, measured.length)
                record.mtime_ns = record.ctime_ns = now_ns
                record.version += 1
                record.mode = without_set_id(record, None)
                drop_capability(txn, inode, record)
                put_inode(txn, inode, record)
                return True

            return await context.kv.transact(apply, relaxed=True)

        return await measuring(context, attempt)

    async def _sweep(self) -> None:
        """Forget pruned sessions that nobody came back for."""
        if self._clock() < self._sweep_at:
            return
        self._sweep_at = self._clock() + SWEEP_S
        before_ns = self._context.service_time.now_ns() - int(KEEP_S * _NS)
        async for key, value in self._pages(schema.all_pruned_range):
            if schema.decode_pruned(value).pruned_ns < before_ns:

                async def forget(txn: Transaction, key: bytes = key) -> None:
                    txn.delete(key)

                await self._context.kv.transact(forget, relaxed=True)

    async def _sessions(self) -> AsyncIterator[tuple[bytes, Session]]:
        async for key, value in self._pages(schema.all_sessions_range):
            yield key, schema.decode_session(value)

    async def _pages(self, range_behind: Callable[[bytes], tuple[bytes, bytes]]) -> AsyncIterator[tuple[bytes, bytes]]:
        """A table's pairs, from one snapshot for each page; changes meanwhile may or may not be seen."""
        last = b""
        while True:
            begin, end = range_behind(last)

            async def page(txn: Transaction, begin: bytes = begin, end: bytes = end) -> list[tuple[bytes, bytes]]:
                return await txn.range(begin, end, PAGE)

            pairs = await self._context.kv.read(page)
            for pair in pairs:
                yield pair
            if len(pairs) < PAGE:
                return
            last = pairs[-1][0]
            await asyncio.sleep(0)
