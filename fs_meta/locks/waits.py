"""Waiting for locks on the event loop: futures and timers around the queues of `fs_meta.locks.queues`.

A waiter joins before it looks at the store for the last time, and its signal is armed before each look, so a lock that
is given up after the look wakes it: no wake-up is lost. A wake-up only says that it may be worth looking again; what
a waiter gets is decided by its transaction.

Called by: `fs_meta.ops.lock` (joins), everything that changes locks (`changed`), the service (`caller_lost`), the
server (`close`). Page: docs/concurrency/meta.md.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from fs_common.errors import Code, EmberError
from fs_common.limits import CALLS_IN_FLIGHT_MAX
from fs_meta import schema
from fs_meta.kv.interface import KeyValueStore, Transaction
from fs_meta.locks.queues import LockQueues, Waiter
from fs_meta.schema import HeldLock

WAITS_MAX: Final = CALLS_IN_FLIGHT_MAX // 2
"""Of one caller: its other calls, which may give up what is waited for, need room on the connection, too."""


async def get_locks(txn: Transaction, inode: int) -> list[HeldLock]:
    value = await txn.get(schema.locks_key(inode))
    return [] if value is None else schema.decode_locks(value).held


def put_locks(txn: Transaction, inode: int, held: list[HeldLock]) -> None:
    """No record where there are none."""
    if held:
        txn.put(schema.locks_key(inode), schema.encode(schema.Locks(held)))
    else:
        txn.delete(schema.locks_key(inode))


class Wait(Waiter):
    """One call's wait."""

    __slots__ = ("_error", "_loop", "_signal", "caller")

    def __init__(self, inode: int, wanted: HeldLock, request: bytes, caller: object) -> None:
        super().__init__(inode, wanted, request)
        self.caller = caller
        """Whose loss ends it."""
        self._loop = asyncio.get_running_loop()
        self._signal: asyncio.Future[None] = self._loop.create_future()
        self._error: EmberError | None = None

    def arm(self) -> None:
        """What happens from here on ends the next `woken`."""
        self._signal = self._loop.create_future()
        if self._error is not None:
            self.wake()

    def wake(self) -> None:
        if not self._signal.done():
            self._signal.set_result(None)

    def end(self, error: EmberError) -> None:
        """`woken` raises it."""
        self._error = error
        self.wake()

    async def woken(self, until: float) -> None:
        """Return once it is worth looking again, at `until` (on the loop's clock) at the latest.

        Raises CANCELLED (its caller is gone), CLOSING.
        """
        timer = self._loop.call_at(until, self.wake)
        try:
            await self._signal
        finally:
            timer.cancel()
        if self._error is not None:
            raise self._error


class LockWaits:
    """Of one process."""

    def __init__(self) -> None:
        self._queues = LockQueues()
        self._count: Counter[object] = Counter()
        """Waits of each caller that has any."""
        self._closing: EmberError | None = None

    def is_queued(self, inode: int) -> bool:
        """Whether anybody waits for a lock on the file."""
        return inode in self._queues

    @contextmanager
    def joined(self, inode: int, wanted: HeldLock, request: bytes, caller: object) -> Iterator[Wait]:
        """A place at the end of the file's queue for the length of the block. Raises BUSY: the caller has too many."""
        if self._count[caller] >= WAITS_MAX:
            raise EmberError(Code.BUSY, f"{WAITS_MAX} locks are waited for on this connection")
        wait = Wait(inode, wanted, request, caller)
        if self._closing is not None:
            wait.end(self._closing)
        self._queues.join(wait)
        self._count[caller] += 1
        try:
            yield wait
        finally:
            self._queues.leave(wait)
            self._count[caller] -= 1
            if not self._count[caller]:
                del self._count[caller]
            self._wake(self._queues.ready(inode))

    def waits_for(self, inode: int, request: bytes) -> bool:
        """Whether a copy of this request waits."""
        return bool(self._queues.copies(inode, request))

    def is_held_back(self, wait: Wait) -> bool:
        return self._queues.is_held_back(wait)

    def is_deadlock(self, wait: Wait) -> bool:
        """Whether it waits in a circle of owners who hold what the next one wants."""
        return self._queues.deadlock(wait)

    def untangle(self, wait: Wait) -> None:
        """A wait has begun: whoever is held back by it no longer, because it waits for them, is woken."""
        self._wake(self._queues.untangle(wait))

    async def changed(self, kv: KeyValueStore, inode: int) -> None:
        """A transaction that is acknowledged now may have changed the locks of a file: wake who can have one."""
        if inode not in self._queues:
            return
        # Read anew instead of taking what the transaction left: acknowledgements may overtake each other.
        held = await kv.read(lambda txn: get_locks(txn, inode))
        self._queues.learn(inode, held)
        self._wake(self._queues.ready(inode))

    def answered(self, inode: int, request: bytes) -> None:
        """The request has its answer: other copies of it find that instead of waiting on."""
        self._wake(self._queues.copies(inode, request))

    def caller_lost(self, caller: object) -> None:
        """Nobody can be told of the outcome any more: its waits end."""
        error = EmberError(Code.CANCELLED, "the connection that the lock was waited for on is gone")
        for waiter in self._queues:
            if isinstance(waiter, Wait) and waiter.caller is caller:
                waiter.end(error)

    def close(self) -> None:
        """All waits end, also those to come."""
        self._closing = EmberError(Code.CLOSING, "the server is shutting down; ask for the lock again")
        for waiter in self._queues:
            if isinstance(waiter, Wait):
                waiter.end(self._closing)

    @staticmethod
    def _wake(waiters: list[Waiter]) -> None:
        for waiter in waiters:
            if isinstance(waiter, Wait):
                waiter.wake()
