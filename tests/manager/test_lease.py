"""The manager's lease among several servers on one store, with clocks that do not agree."""

from pathlib import Path

import pytest

from fs_common.errors import Code, EmberError
from fs_meta.kv.interface import Transaction
from fs_meta.kv.memory_engine import MemoryStore
from fs_meta.kv.open import open_store
from fs_meta.manager.lease import ManagerLease
from tests.support import run

LEASE_MS = 8_000


class Clock:
    def __init__(self, now_s: float) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


class Servers:
    """Two servers on one store; their clocks run alike and are hours apart."""

    def __init__(self) -> None:
        self.kv = MemoryStore(exclusive=False)
        self.clocks = [Clock(100.0), Clock(50_000.0)]
        self.one, self.two = (ManagerLease(self.kv, LEASE_MS, clock) for clock in self.clocks)

    def wait(self, seconds: float) -> None:
        for clock in self.clocks:
            clock.now_s += seconds

    async def may_write(self, lease: ManagerLease) -> bool:
        async def write(txn: Transaction) -> None:
            await lease.validate(txn)

        try:
            await self.kv.transact(write)
        except EmberError as error:
            assert error.code is Code.NOT_MANAGER
            return False
        return True


def test_the_first_has_it_and_keeps_it_by_renewing() -> None:
    async def scenario() -> None:
        servers = Servers()
        assert await servers.one.try_acquire() and servers.one.held()
        for _ in range(10):
            servers.wait(LEASE_MS / 1000 / 2)
            assert not await servers.two.try_acquire() and not servers.two.held()
            assert await servers.one.try_acquire() and servers.one.held()
        assert await servers.may_write(servers.one) and not await servers.may_write(servers.two)

    run(scenario())


def test_it_is_taken_over_after_it_has_stood_still_for_its_length() -> None:
    async def scenario() -> None:
        servers = Servers()
        assert await servers.one.try_acquire()
        servers.wait(1000)  # nobody looked: how long it has stood still is not known
        assert not await servers.two.try_acquire()
        servers.wait(LEASE_MS / 1000 - 0.001)
        assert not await servers.two.try_acquire()
        servers.wait(0.001)
        assert await servers.two.try_acquire() and servers.two.held()
        assert not servers.one.held()
        assert not await servers.may_write(servers.one) and await servers.may_write(servers.two)
        assert not await servers.one.try_acquire()

    run(scenario())


def test_its_owner_stops_believing_when_it_cannot_renew() -> None:
    async def scenario() -> None:
        servers = Servers()
        assert await servers.one.try_acquire()
        servers.wait(LEASE_MS / 1000 - 0.001)
        assert servers.one.held()
        servers.wait(0.001)
        assert not servers.one.held()
        assert await servers.may_write(servers.one), "nobody took it, so its writes are still the manager's"
        assert await servers.one.try_acquire() and servers.one.held()

    run(scenario())


def test_an_owner_that_lost_it_learns_so_at_its_next_write() -> None:
    async def scenario() -> None:
        servers = Servers()
        await servers.one.try_acquire()
        await servers.two.try_acquire()
        servers.clocks[1].now_s += LEASE_MS / 1000  # the other's clock is fast: it takes over too early
        assert await servers.two.try_acquire()
        assert servers.one.held()
        assert not await servers.may_write(servers.one)
        assert not servers.one.held()

    run(scenario())


def test_a_released_lease_is_free_at_once_and_only_its_owner_releases_it() -> None:
    async def scenario() -> None:
        servers = Servers()
        await servers.one.try_acquire()
        await servers.two.release()
        assert not await servers.two.try_acquire()
        await servers.one.release()
        assert not servers.one.held()
        assert await servers.two.try_acquire()

    run(scenario())


def test_a_store_that_one_process_has_for_itself_gives_the_lease_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        for _ in range(2):  # the first ends without releasing it
            kv = open_store(f"lmdb://{tmp_path}")
            clock = Clock(5.0)
            lease = ManagerLease(kv, LEASE_MS, clock)
            assert await lease.try_acquire()
            clock.now_s += 1e6
            assert lease.held(), "nobody else can open the store"
            await kv.transact(lease.validate)
            await kv.close()

    run(scenario())


def test_a_stranger_s_write_is_refused() -> None:
    async def scenario() -> None:
        kv = MemoryStore()
        with pytest.raises(EmberError):
            await kv.transact(ManagerLease(kv, LEASE_MS, Clock(0)).validate)

    run(scenario())
