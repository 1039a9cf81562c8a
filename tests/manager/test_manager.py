"""The manager's shell on a store, with a clock that is set and ports that are told."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest

from fs_common import endless
from fs_common.errors import Code, EmberError
from fs_common.records.routing import NodeState, Routing
from fs_meta.kv.interface import KeyValueStore, TransactionFunction
from fs_meta.kv.memory_engine import MemoryStore
from fs_meta.kv.open import open_store
from fs_meta.manager import manager as manager_module
from fs_meta.manager.manager import Manager
from fs_meta.manager.routing_state import load
from tests.manager.cluster import Bench, Config, beat, identity, states
from tests.support import run

T = TypeVar("T")
UP, FAILED, LEFT = NodeState.UP, NodeState.FAILED, NodeState.LEFT


def with_manager(scenario: Callable[[Bench], Awaitable[None]], config: Config | None = None) -> None:
    run(Bench(MemoryStore(), config).use(scenario))


async def stored(kv: KeyValueStore, config: Config) -> Routing:
    routing, _ = await kv.read(lambda txn: load(txn, config.cluster, config.replicas))
    return routing


async def refusal(call: Awaitable[object]) -> Code:
    with pytest.raises(EmberError) as refused:
        await call
    return refused.value.code


def test_the_first_table_is_made_when_enough_nodes_are_up_and_never_again() -> None:
    async def scenario(bench: Bench) -> None:
        manager = bench.manager
        ready = asyncio.create_task(manager.wait_ready())
        assert manager.routing.version == 0 and not manager.ready
        await bench.join(3)
        await bench.join(1)
        assert manager.routing.version == 2 and not manager.routing.tables and not ready.done()
        await bench.join(2)
        await ready
        assert manager.ready and manager.routing.version == 3
        assert [[target.target for target in chain.targets] for chain in manager.routing.chains] == [
            [101, 201, 301],
            [202, 302, 102],
            [303, 103, 203],
        ]
        assert [(table.table, table.version, table.chains) for table in manager.routing.tables] == [(1, 1, [1, 2, 3])]
        assert manager.routing.replicas == 3
        chains = manager.routing.chains
        await bench.join(4)
        assert manager.routing.version == 4 and manager.routing.chains == chains
        assert await stored(bench.kv, Config()) == _without_used(manager.routing)

    with_manager(scenario)


def _without_used(routing: Routing) -> Routing:
    """As the store keeps it."""
    nodes = [msgspec.structs.replace(node, used_bytes=0) for node in routing.nodes]
    return msgspec.structs.replace(routing, nodes=nodes)


def test_more_nodes_than_replicas_each_head_a_chain() -> None:
    async def scenario(bench: Bench) -> None:
        for node in range(1, 6):
            await bench.join(node)
        assert sorted(chain.targets[0].node for chain in bench.manager.routing.chains) == [1, 2, 3, 4, 5]
        assert all(len(chain.targets) == 2 for chain in bench.manager.routing.chains)

    with_manager(scenario, Config(storage_nodes=5, replicas=2))


def test_a_heartbeat_that_changes_nothing_makes_no_version_and_no_write() -> None:
    async def scenario(bench: Bench) -> None:
        kv = _CountingStore()
        counted = Bench(kv)

        async def inner(bench: Bench) -> None:
            stream = await bench.join(1)
            version, writes = bench.manager.routing.version, kv.transactions
            for used_bytes in range(10):
                await stream.heartbeat(beat(used_bytes))
            await bench.manager.look()
            assert (bench.manager.routing.version, kv.transactions) == (version, writes)
            assert bench.manager.routing.nodes[0].used_bytes == 9, "live figures"

        await counted.use(inner)

    with_manager(scenario)


class _CountingStore(MemoryStore):
    transactions = 0

    async def transact(self, fn: TransactionFunction[T], *, relaxed: bool = False) -> T:
        self.transactions += 1
        return await super().transact(fn, relaxed=relaxed)


def test_a_silent_node_fails_and_comes_back_when_it_speaks() -> None:
    async def scenario(bench: Bench) -> None:
        manager = bench.manager
        one, two = await bench.join(1), await bench.join(2)
        versions: list[int] = []
        manager.subscribe(lambda routing: versions.append(routing.version))
        bench.clock.now_s += 9.999
        await two.heartbeat(beat())
        await manager.look()
        assert states(manager.routing) == {1: UP, 2: UP} and versions == []
        bench.clock.now_s += 0.001
        await manager.look()
        assert states(manager.routing) == {1: FAILED, 2: UP}
        await one.heartbeat(beat())
        assert states(manager.routing) == {1: UP, 2: UP}
        assert versions == [3, 4]

    with_manager(scenario)


def test_a_node_whose_stream_broke_fails_once_its_port_refuses() -> None:
    async def scenario(bench: Bench) -> None:
        manager = bench.manager
        one = await bench.join(1)
        await bench.join(2)
        bench.ports.refusing = {9701, 9702}
        await manager.look()
        assert bench.ports.looked == [], "their streams are there"
        one.close()
        bench.ports.refusing = set()
        await manager.look()
        assert bench.ports.looked == [9701] and states(manager.routing) == {1: UP, 2: UP}
        bench.ports.refusing = {9701}
        await manager.look()
        assert states(manager.routing) == {1: FAILED, 2: UP}
        await bench.join(1, incarnation=77)
        assert states(manager.routing) == {1: UP, 2: UP}

    with_manager(scenario)


def test_a_node_that_comes_back_while_its_port_is_looked_at_stays_up() -> None:
    async def scenario(bench: Bench) -> None:
        one = await bench.join(1)
        one.close()
        bench.ports.refusing = {9701}
        look = asyncio.create_task(bench.manager.look())
        while not bench.ports.looked:
            await asyncio.sleep(0)
        await bench.join(1)
        await look
        assert states(bench.manager.routing) == {1: UP}

    with_manager(scenario)


@pytest.mark.parametrize("host", ["a..b", "x" * 300])
def test_a_host_that_cannot_be_asked_refuses_nothing(host: str) -> None:
    assert run(manager_module._refuses_connections(host, 1)) is False


def test_the_watch_outlives_its_defects(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that falls silent is failed after as before."""
    monkeypatch.setattr(endless, "PAUSE_S_MIN", 0.0)

    async def scenario(bench: Bench) -> None:
        await bench.join(1)
        (await bench.join(2)).close()

        async def refuses(host: str, port: int) -> bool:
            bench.manager._refuses = bench.ports.refuses
            raise UnicodeError("label empty or too long")

        bench.manager._refuses = refuses
        while bench.manager._refuses is refuses:
            await asyncio.sleep(0.001)
        bench.clock.now_s += 11.0
        while states(bench.manager.routing) != {1: FAILED, 2: FAILED}:
            await asyncio.sleep(0.001)

    run(Bench(MemoryStore(), Config(heartbeat_interval_ms=4)).use(scenario))
    assert "label empty or too long" in caplog.text


def test_leaving_is_published() -> None:
    async def scenario(bench: Bench) -> None:
        one = await bench.join(1)
        stranger = bench.manager.open_stream("test", identity(1, incarnation=5))
        assert await refusal(stranger.leave()) is Code.NODE_TAKEN
        assert await refusal(bench.manager.open_stream("test", identity(2)).leave()) is Code.NODE_UNKNOWN
        assert states(bench.manager.routing) == {1: UP}
        await one.leave()
        assert states(bench.manager.routing) == {1: LEFT}
        assert await refusal(one.heartbeat(beat())) is Code.NODE_UNKNOWN

    with_manager(scenario)


def test_who_is_refused_changes_nothing() -> None:
    async def scenario(bench: Bench) -> None:
        manager = bench.manager
        await bench.join(1)
        version = manager.routing.version
        with pytest.raises(EmberError, match="belongs to cluster 'other', this manager to 'test'"):
            manager.open_stream("other", identity(2))
        second = manager.open_stream("test", identity(1, incarnation=5))
        assert await refusal(second.heartbeat(beat())) is Code.NODE_TAKEN
        second.close()
        assert manager.routing.version == version
        assert [member.streams for member, _ in manager.nodes()] == [1]

    with_manager(scenario)


def test_those_who_wait_see_the_next_version_and_the_end() -> None:
    async def scenario(bench: Bench) -> None:
        manager = bench.manager
        waiting = asyncio.create_task(manager.wait_newer(0))
        await asyncio.sleep(0)
        one = await bench.join(1)
        assert (await waiting).version == 1
        assert (await manager.wait_newer(0)).version == 1
        waiting = asyncio.create_task(manager.wait_newer(1))
        await asyncio.sleep(0)
        await manager.close()
        assert await refusal(waiting) is Code.CLOSING
        assert await refusal(one.leave()) is Code.CLOSING
        with pytest.raises(EmberError):
            manager.open_stream("test", identity(1))

    with_manager(scenario)


def test_state_survives_a_restart_and_nodes_get_a_whole_failure_time(tmp_path: Path) -> None:
    async def scenario() -> None:
        async def first(bench: Bench) -> None:
            for node in (1, 2):
                await bench.join(node)
            await (await bench.join(3)).leave()

        async def second(bench: Bench) -> None:
            manager = bench.manager
            assert manager.ready and states(manager.routing) == {1: UP, 2: UP, 3: LEFT}
            version, chains = manager.routing.version, manager.routing.chains
            assert version == 4 and len(chains) == 3
            bench.clock.now_s += 9.999
            await manager.look()
            assert manager.routing.version == version
            await bench.join(1)
            assert manager.routing.version == version, "the same process, still up"
            bench.clock.now_s += 0.001
            await manager.look()
            assert states(manager.routing) == {1: UP, 2: FAILED, 3: LEFT} and manager.routing.chains == chains

        for part in (first, second):
            kv = open_store(f"lmdb://{tmp_path}/kv")
            await Bench(kv).use(part)
            await kv.close()

    run(scenario())


def test_a_process_that_restarted_while_the_manager_was_away_is_taken_at_once() -> None:
    async def scenario() -> None:
        kv = MemoryStore()

        async def first(bench: Bench) -> None:
            await bench.join(1)

        async def second(bench: Bench) -> None:
            await bench.join(1, incarnation=77)
            assert states(bench.manager.routing) == {1: UP}
            assert bench.manager.routing.version == 1, "nothing that the routing tells has changed"

        async def third(bench: Bench) -> None:
            """What the store says of incarnations is current: the old process does not come back."""
            await bench.join(1, incarnation=77)
            stale = bench.manager.open_stream("test", identity(1))
            assert await refusal(stale.heartbeat(beat())) is Code.NODE_TAKEN

        for part in (first, second, third):
            await Bench(kv).use(part)

    run(scenario())


@pytest.mark.parametrize(
    ("change", "code", "names"),
    [(Config(cluster="other"), Code.WRONG_CLUSTER, "'test'"), (Config(replicas=2), Code.INVALID, "replicas")],
)
def test_a_store_of_another_setting_is_refused(change: Config, code: Code, names: str) -> None:
    async def scenario() -> None:
        kv = MemoryStore()

        async def first(bench: Bench) -> None:
            for node in (1, 2, 3):
                await bench.join(node)

        await Bench(kv).use(first)
        with pytest.raises(EmberError, match=names) as refused:
            await Manager(kv, change).start()
        assert refused.value.code is code

    run(scenario())


class _FaultyStore(MemoryStore):
    """Fails the next transactions with these errors; `applied`: after doing them."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[EmberError] = []
        self.applied = False

    async def transact(self, fn: TransactionFunction[T], *, relaxed: bool = False) -> T:
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None and not self.applied:
            raise fault
        result = await super().transact(fn, relaxed=relaxed)
        if fault is not None:
            raise fault
        return result


def test_a_change_that_could_not_be_stored_is_not_published_and_is_stored_later() -> None:
    async def scenario(bench: Bench) -> None:
        kv, manager = bench.kv, bench.manager
        assert isinstance(kv, _FaultyStore)
        kv.faults = [EmberError(Code.KV_FULL)]
        assert await refusal(bench.join(1)) is Code.KV_FULL
        assert manager.routing.version == 0
        await manager.look()
        assert states(manager.routing) == {1: UP} == states(await stored(kv, Config()))

    run(Bench(_FaultyStore()).use(scenario))


@pytest.mark.parametrize("applied", [False, True])
def test_after_an_unknown_outcome_the_store_is_asked(applied: bool) -> None:
    async def scenario() -> None:
        kv = _FaultyStore()
        kv.applied = applied
        bench = Bench(kv, Config(heartbeat_interval_ms=4))

        async def inner(bench: Bench) -> None:
            manager = bench.manager
            kv.faults = [EmberError(Code.KV_MAYBE_COMMITTED)]
            stream = manager.open_stream("test", identity(1))
            assert await refusal(stream.heartbeat(beat())) is Code.KV_MAYBE_COMMITTED
            assert await refusal(stream.heartbeat(beat())) is Code.NOT_MANAGER
            while not manager._loaded:  # by the watching task
                await asyncio.sleep(0.001)
            assert manager.routing.version == (1 if applied else 0)
            assert await refusal(stream.heartbeat(beat())) is Code.NOT_MANAGER, "of the time before"
            stream.close()
            await bench.join(1)
            assert states(manager.routing) == {1: UP} and manager.routing.version == 1
            assert [member.streams for member, _ in manager.nodes()] == [1]

        await bench.use(inner)

    run(scenario())


def test_a_caller_that_goes_away_does_not_tear_a_publication_apart() -> None:
    async def scenario(bench: Bench) -> None:
        for node in range(1, 20):
            joining = asyncio.create_task(bench.join(node))
            for _ in range(node % 6):
                await asyncio.sleep(0)
            joining.cancel()
            await asyncio.wait([joining])
        await bench.manager.look()
        routing = await stored(bench.kv, Config())
        assert _without_used(bench.manager.routing) == routing
        assert routing.version >= len(routing.nodes) >= 14

    with_manager(scenario)


def test_of_two_servers_one_is_the_manager_and_the_other_follows_and_takes_over() -> None:
    async def scenario() -> None:
        kv = MemoryStore(exclusive=False)
        quick = Config(heartbeat_interval_ms=4, lease_ms=40, failure_ms=50)
        one, two = Bench(kv, quick), Bench(kv, quick)
        for bench in (one, two):
            await bench.manager.start()
        try:
            await one.join(1)
            assert await refusal(two.join(2)) is Code.NOT_MANAGER
            while two.manager.routing.version < 1:
                two.clock.now_s += 0.01  # it looks at the store each quarter of a lease
                one.clock.now_s += 0.01
                await asyncio.sleep(0.001)
            assert states(two.manager.routing) == {1: UP}
            await one.manager.close()
            while not two.manager._loaded:
                two.clock.now_s += 0.01
                await asyncio.sleep(0.001)
            await two.join(2)
            assert states(two.manager.routing)[2] is UP
        finally:
            await one.manager.close()
            await two.manager.close()

    run(scenario())


def test_a_manager_that_was_replaced_publishes_nothing_more() -> None:
    async def scenario() -> None:
        kv = MemoryStore(exclusive=False)
        one, two = Bench(kv), Bench(kv)
        await one.manager.start()
        await one.join(1)
        await two.manager.start()
        two.clock.now_s += 8
        assert await two.manager.lease.try_acquire()
        assert await refusal(one.join(2)) is Code.NOT_MANAGER
        assert states(await stored(kv, Config())) == {1: UP} == states(one.manager.routing)
        assert await refusal(one.join(1)) is Code.NOT_MANAGER
        await one.manager.close()
        await two.manager.close()

    run(scenario())
