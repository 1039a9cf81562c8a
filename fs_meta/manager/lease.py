"""Which of several metadata servers is the manager: a lease record in the store.

Invariant: a server acts as the manager only while its own record is in the store, which every write transaction of
the manager checks (`validate`); so two servers may both believe for a moment, but only one of them can change
anything. A server stops believing when its last renewal was sent `lease_ms` ago by its own clock.

No clocks are compared: who wants the lease watches the record stand still for the record's `lease_ms`, by its own
clock, and takes it in a transaction that finds the record unchanged. On a store that only one process can open
(`exclusive`) the old owner is over, and the lease is taken at once and needs no renewals.
"""

import os
from collections.abc import Callable

from fs_common.errors import Code, EmberError
from fs_meta.kv.interface import KeyValueStore, Transaction
from fs_meta.manager.records import LEASE_KEY, Lease, decode, encode


class ManagerLease:
    """One server's side of the lease. `clock` is monotonic, in seconds."""

    def __init__(self, kv: KeyValueStore, lease_ms: int, clock: Callable[[], float]) -> None:
        self._kv = kv
        self._lease_ms = lease_ms
        self._clock = clock
        self._owner = os.urandom(16)
        self._seen: Lease | None = None
        """The record at the last look."""
        self._seen_since_s = 0.0
        """When the record was first seen as it is."""
        self._held_until_s = float("-inf")

    def held(self) -> bool:
        """Whether this server is the manager, as far as it can know without asking."""
        return self._clock() < self._held_until_s

    async def try_acquire(self) -> bool:
        """Take the lease if it is free, or renew it; call it again and again. False: another server has it."""
        asked_s = self._clock()
        until_s = float("inf") if self._kv.exclusive else asked_s + self._lease_ms / 1000

        async def take(txn: Transaction) -> Lease:
            value = await txn.get(LEASE_KEY)
            found = decode(LEASE_KEY, value, Lease) if value is not None else None
            if found is not None and not self._may_take(found, asked_s):
                return found
            mine = Lease(self._owner, found.renewal + 1 if found is not None else 1, self._lease_ms)
            txn.put(LEASE_KEY, encode(mine))
            return mine

        record = await self._kv.transact(take)
        if record != self._seen:
            self._seen, self._seen_since_s = record, asked_s
        if record.owner != self._owner:
            self._held_until_s = float("-inf")
            return False
        self._held_until_s = until_s
        return True

    def _may_take(self, found: Lease, now_s: float) -> bool:
        if found.owner == self._owner or self._kv.exclusive:
            return True
        return found == self._seen and now_s - self._seen_since_s >= found.lease_ms / 1000

    async def validate(self, txn: Transaction) -> None:
        """Part of every write transaction of the manager. Raises NOT_MANAGER."""
        value = await txn.get(LEASE_KEY)
        if value is None or decode(LEASE_KEY, value, Lease).owner != self._owner:
            self._held_until_s = float("-inf")
            raise EmberError(Code.NOT_MANAGER, "another metadata server has become the manager")

    async def release(self) -> None:
        """Give the lease up, so that another server need not wait for its end."""
        self._held_until_s = float("-inf")

        async def drop(txn: Transaction) -> None:
            value = await txn.get(LEASE_KEY)
            if value is not None and decode(LEASE_KEY, value, Lease).owner == self._owner:
                txn.delete(LEASE_KEY)

        await self._kv.transact(drop)
