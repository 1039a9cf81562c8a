"""Chains that move by what nodes say: the manager on a store, with a clock that is set."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from fs_common.errors import Code, EmberError
from fs_common.records.chains import ChainView, Standing
from fs_common.records.routing import LocalState, PublicState, StoreVerdict
from fs_meta.kv.interface import KeyValueStore, TransactionFunction
from fs_meta.kv.memory_engine import MemoryStore
from fs_meta.manager.chains import Report
from fs_meta.manager.manager import NodeStream
from fs_meta.manager.membership import Beat, TargetReport
from fs_meta.manager.routing_state import load
from fs_meta.manager.stores import StoreReport
from tests.manager.cluster import Bench, Config, identity
from tests.support import run

T = TypeVar("T")
NAMES = {state: state.name[0] if state is not PublicState.SYNCING else "Y" for state in PublicState}
UP, ON, OPENING, OFFLINE = LocalState.UPTODATE, LocalState.ONLINE, LocalState.OPENING, LocalState.OFFLINE


class Machine:
    """A node with its stores: what a storage daemon says, and the lease that it gets."""

    def __init__(self, bench: Bench, node: int) -> None:
        self.bench = bench
        self.node = node
        self.openings = 0
        self.process = 0
        self.stream: NodeStream | None = None
        self.lost_power = False
        self.says: LocalState | None = None
        """None: as it is."""

    async def start(self) -> None:
        """A new process, whose stores are not open yet."""
        self.process += 1
        self.openings += 1
        self.says = OPENING
        who = identity(self.node, 1000 * self.node + self.process)
        self.stream = self.bench.manager.open_stream("test", who)
        await self.beat()

    async def open(self) -> None:
        self.says = None
        await self.beat()

    async def beat(self) -> None:
        assert self.stream is not None
        routing = self.bench.manager.routing
        targets, stores = {}, {}
        for chain in routing.chains:
            for member in chain.targets:
                if member.node != self.node:
                    continue
                serves = member.state is PublicState.SERVING and not self.lost_power
                state = self.says or (UP if serves else ON)
                report = Report(state, chain.version, not self.lost_power)
                targets[member.target] = TargetReport(report, 5, "it is broken" if state is OFFLINE else "")
                if state is not OPENING:
                    uuid = member.target.to_bytes(16, "big")
                    stores[member.target] = StoreReport(uuid, self.openings, 1 + self.lost_power)
        await self.stream.heartbeat(Beat(1000, 10, targets, routing.version, stores))

    def verdicts(self) -> set[StoreVerdict]:
        assert self.stream is not None
        return {judged.verdict for judged in self.stream.verdicts}

    def dies(self) -> None:
        assert self.stream is not None
        self.stream.close()
        self.bench.ports.refusing.add(9700 + self.node)


class Cluster:
    """Three machines, and a manager that has heard them."""

    def __init__(self, bench: Bench, nodes: int = 3) -> None:
        self.bench = bench
        self.machines = [Machine(bench, node) for node in range(1, nodes + 1)]

    async def up(self) -> None:
        for machine in self.machines:
            await machine.start()
        for machine in self.machines:
            await machine.open()

    def chain(self, chain: int = 1) -> str:
        """ "S1 O2": states and nodes in chain order."""
        found = self.bench.manager.routing.chains[chain - 1]
        return " ".join(f"{NAMES[member.state]}{member.node}" for member in found.targets)

    def version(self, chain: int = 1) -> int:
        return self.bench.manager.routing.chains[chain - 1].version

    async def later(self, seconds: float) -> None:
        """Time goes by; the manager looks."""
        self.bench.clock.now_s += seconds
        await self.bench.manager.look()

    async def beat(self, *nodes: int) -> None:
        for node in nodes:
            await self.machines[node - 1].beat()

    def view(self, chain: int = 1) -> ChainView:
        (view,) = self.bench.manager.list_chains([chain]).chains
        return view


def with_cluster(scenario: Callable[[Cluster], Awaitable[None]], config: Config | None = None) -> None:
    async def inner(bench: Bench) -> None:
        cluster = Cluster(bench)
        await cluster.up()
        await scenario(cluster)

    run(Bench(MemoryStore(), config).use(inner))


async def stored_chains(kv: KeyValueStore) -> list[object]:
    routing, _ = await kv.read(lambda txn: load(txn, "test", 3))
    return list(routing.chains)


def test_a_healthy_cluster_leaves_its_chains_alone() -> None:
    async def scenario(cluster: Cluster) -> None:
        version = cluster.bench.manager.routing.version
        for _ in range(20):
            await cluster.later(1.0)
            await cluster.beat(1, 2, 3)
        assert cluster.chain() == "S1 S2 S3" and cluster.version() == 1
        assert cluster.bench.manager.routing.version == version
        assert cluster.bench.manager.list_chains(degraded=True).chains == []

    with_cluster(scenario)


def test_a_process_that_is_gone_leaves_its_chains_at_once() -> None:
    """As soon as those that stay were heard after it."""

    async def scenario(cluster: Cluster) -> None:
        cluster.machines[0].dies()
        await cluster.later(0.1)
        assert cluster.chain() == "S1 S2 S3", "nobody knows whether the others are still there"
        await cluster.beat(2)
        assert cluster.chain() == "S2 S3 O1"
        await cluster.beat(3)
        assert [cluster.chain(number) for number in (1, 2, 3)] == ["S2 S3 O1", "S2 S3 O1", "S3 S2 O1"]
        assert cluster.version() == 2
        assert await stored_chains(cluster.bench.kv) == cluster.bench.manager.routing.chains

    with_cluster(scenario)


def test_a_silent_node_leaves_its_chains_when_its_time_is_over() -> None:
    async def scenario(cluster: Cluster) -> None:
        for _ in range(9):
            await cluster.later(1.0)
            await cluster.beat(2, 3)
        assert cluster.chain() == "S1 S2 S3"
        await cluster.later(1.0)
        await cluster.beat(2, 3)
        assert cluster.chain() == "S2 S3 O1"

    with_cluster(scenario)


def test_a_goodbye_moves_the_chains_at_once() -> None:
    async def scenario(cluster: Cluster) -> None:
        assert cluster.machines[1].stream is not None
        await cluster.machines[1].stream.leave()
        await cluster.beat(1, 3)
        assert cluster.chain() == "S1 S3 O2"

    with_cluster(scenario)


def test_two_deaths_at_once_leave_what_is_known_to_be_alive() -> None:
    """A node that has lost power is not taken for the survivor of another's death on its last word."""

    async def scenario(cluster: Cluster) -> None:
        cluster.machines[0].dies()  # node 2 has lost power a moment ago, and nobody knows
        cluster.machines[2].dies()
        await cluster.later(0.1)
        for _ in range(11):
            await cluster.later(1.0)
        assert cluster.chain() == "L1 L2 L3"
        cluster.bench.ports.refusing.clear()
        machine = cluster.machines[1]
        machine.lost_power = True
        await machine.start()
        await machine.open()
        assert cluster.chain() == "L1 L2 L3"
        await cluster.machines[0].start()
        await cluster.machines[0].open()
        await cluster.beat(2)
        assert cluster.chain() in ("S1 Y2 O3", "S1 O3 Y2")

    with_cluster(scenario)


def test_a_process_that_takes_over_at_once_serves_on() -> None:
    """Its chain waits for its store, which is whole: nothing is filled up."""

    async def scenario(cluster: Cluster) -> None:
        machine = cluster.machines[0]
        assert machine.stream is not None
        machine.stream.close()
        await machine.start()
        for _ in range(5):
            await cluster.later(1.0)
            await cluster.beat(1, 2, 3)
        assert cluster.chain() == "S1 S2 S3"
        await machine.open()
        assert machine.verdicts() == {StoreVerdict.SERVE}
        await cluster.beat(2, 3)
        assert cluster.chain() == "S1 S2 S3" and cluster.version() == 1

    with_cluster(scenario)


def test_one_that_is_not_whole_any_more_is_dropped_with_the_next_heartbeat_of_another() -> None:
    """It waits for that, and does not mend beside one that is whole."""

    async def scenario(cluster: Cluster) -> None:
        cluster.machines[2].lost_power = True
        await cluster.beat(3)
        assert cluster.chain() == "S1 S2 S3", "whether another is whole still is asked"
        await cluster.beat(1)
        assert cluster.chain() == "S1 S2 Y3"

    with_cluster(scenario)


def test_a_process_that_takes_over_and_has_lost_something_is_filled_up() -> None:
    async def scenario(cluster: Cluster) -> None:
        machine = cluster.machines[0]
        assert machine.stream is not None
        machine.stream.close()
        machine.lost_power = True
        await machine.start()
        await machine.open()
        await cluster.beat(2, 3)
        assert cluster.chain() == "S2 S3 Y1"

    with_cluster(scenario)


def test_a_chain_does_not_wait_for_ever_for_a_store_that_opens() -> None:
    async def scenario(cluster: Cluster) -> None:
        machine = cluster.machines[0]
        assert machine.stream is not None
        machine.stream.close()
        await machine.start()
        for _ in range(2):
            await cluster.later(1.0)
            await cluster.beat(1, 2, 3)
        assert cluster.chain() == "S1 S2 S3"
        await cluster.later(1.0)
        await cluster.beat(1, 2, 3)
        assert cluster.chain() == "S2 S3 O1"
        assert "goes on without it" in cluster.view().targets[2].reason
        await machine.open()
        assert cluster.chain() == "S2 S3 Y1"

    with_cluster(scenario, Config(opening_ms=3_000))


def test_a_chain_of_which_nobody_is_able_waits_for_stores_that_open() -> None:
    async def scenario(cluster: Cluster) -> None:
        for machine in cluster.machines:
            assert machine.stream is not None
            machine.stream.close()
            await machine.start()
        for _ in range(20):
            await cluster.later(1.0)
            await cluster.beat(1, 2, 3)
        for machine in cluster.machines:
            await machine.open()
        assert cluster.chain() == "S1 S2 S3" and cluster.version() == 1

    with_cluster(scenario, Config(opening_ms=3_000))


def test_a_target_that_says_offline_leaves() -> None:
    async def scenario(cluster: Cluster) -> None:
        cluster.machines[2].says = OFFLINE
        await cluster.beat(3, 1, 2)
        assert cluster.chain() == "S1 S2 O3"
        assert cluster.view().targets[2].reason == "it is broken"

    with_cluster(scenario)


def test_who_comes_back_is_filled_up_and_serves_when_it_says_so() -> None:
    async def scenario(cluster: Cluster) -> None:
        machine = cluster.machines[0]
        machine.dies()
        await cluster.later(0.1)
        await cluster.beat(2, 3)
        cluster.bench.ports.refusing.clear()
        await machine.start()
        assert cluster.chain() == "S2 S3 O1"
        await machine.open()
        assert cluster.chain() == "S2 S3 Y1" and cluster.version() == 3
        machine.says = UP
        await machine.beat()
        assert cluster.chain() == "S2 S3 S1" and cluster.version() == 4

    with_cluster(scenario)


def test_a_heartbeat_is_answered_with_the_chains_by_which_its_node_was_judged() -> None:
    """It comes while a change is being stored that takes its target off: no lease with the chains of before."""

    async def scenario(bench: Bench) -> None:
        cluster = Cluster(bench, nodes=2)
        await cluster.up()
        machine = cluster.machines[1]
        machine.says = OFFLINE
        await machine.beat()
        held.stored.clear()
        moving = asyncio.create_task(cluster.beat(1))
        await held.begun.wait()
        heartbeat = asyncio.create_task(machine.beat())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not heartbeat.done() and cluster.chain() == "S1 S2"
        held.stored.set()
        await heartbeat
        assert cluster.chain() == "S1 O2"
        await moving

    held = _HeldStore()
    run(Bench(held, Config(storage_nodes=2, replicas=2)).use(scenario))


class _HeldStore(MemoryStore):
    """Transactions end when they may."""

    def __init__(self) -> None:
        super().__init__()
        self.stored = asyncio.Event()
        self.stored.set()
        self.begun = asyncio.Event()

    async def transact(self, fn: TransactionFunction[T], *, relaxed: bool = False) -> T:
        if not self.stored.is_set():
            self.begun.set()
        await self.stored.wait()
        return await super().transact(fn, relaxed=relaxed)


# --- a manager that begins ----------------------------------------------------------------------------------------


def test_a_manager_that_begins_moves_nothing_before_nodes_have_had_their_time() -> None:
    async def scenario() -> None:
        kv = MemoryStore()
        first = Bench(kv)
        await first.manager.start()
        await Cluster(first).up()
        await first.manager.close()
        bench = Bench(kv)
        bench.ports.refusing = {9701, 9702, 9703}
        await bench.manager.start()
        try:
            cluster = Cluster(bench)
            await cluster.later(5.0)
            assert cluster.chain() == "S1 S2 S3", "they refuse connections because they have not been started yet"
            bench.ports.refusing.clear()
            for machine in cluster.machines[:2]:
                machine.openings, machine.process = 5, 5
                await machine.start()
                await machine.open()
            assert cluster.chain() == "S1 S2 S3"
            await cluster.later(5.0)
            await cluster.beat(1, 2)
            assert cluster.chain() == "S1 S2 O3"
        finally:
            await bench.manager.close()

    run(scenario())


# --- a rest -------------------------------------------------------------------------------------------------------


def test_a_cluster_that_rests_comes_back_as_it_was() -> None:
    async def scenario() -> None:
        kv = MemoryStore()
        first = Bench(kv)
        await first.manager.start()
        cluster = Cluster(first)
        await cluster.up()
        await first.manager.rest()
        for machine in cluster.machines:
            assert machine.stream is not None
            await machine.stream.leave()
            await first.manager.look()
        await cluster.later(100.0)
        assert cluster.chain() == "S1 S2 S3" and first.manager.list_chains().resting
        await first.manager.close()

        bench = Bench(kv)
        await bench.manager.start()
        try:
            again = Cluster(bench)
            await again.later(100.0)
            for machine in again.machines:
                machine.openings, machine.process = 5, 5
                await machine.start()
                await again.later(3.0)
            for machine in again.machines:
                await machine.open()
            await again.later(0.1)
            assert again.chain() == "S1 S2 S3" and again.version() == 1
            assert not bench.manager.list_chains().resting
            again.machines[0].dies()
            await again.later(0.1)
            await again.beat(2, 3)
            assert again.chain() == "S2 S3 O1", "chains change again"
        finally:
            await bench.manager.close()

    run(scenario())


def test_who_does_not_come_back_from_a_rest_is_missed_after_a_while() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.bench.manager.rest()
        for machine in cluster.machines:
            assert machine.stream is not None
            await machine.stream.leave()
        for machine in cluster.machines[1:]:
            await machine.start()
            await machine.open()
        for _ in range(9):
            await cluster.later(1.0)
            await cluster.beat(2, 3)
        assert cluster.chain() == "S1 S2 S3"
        await cluster.later(1.0)
        await cluster.beat(2, 3)
        assert cluster.chain() == "S2 S3 O1"

    with_cluster(scenario)


def test_a_cluster_that_is_not_taken_down_after_all_rests_no_longer_than_a_while() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.bench.manager.rest()
        for _ in range(10):
            await cluster.later(1.0)
            await cluster.beat(1, 2, 3)
        await cluster.later(0.1)
        assert not cluster.bench.manager.list_chains().resting

    with_cluster(scenario)


# --- what an operator gives up ------------------------------------------------------------------------------------


async def two_lost_power(cluster: Cluster) -> None:
    """Node 3 is gone for good, the others have lost power."""
    for machine in cluster.machines:
        machine.dies()
    await cluster.later(0.1)
    cluster.bench.ports.refusing = {9703}
    for machine in cluster.machines[:2]:
        machine.lost_power = True
        await machine.start()
        await machine.open()
    assert cluster.chain() == "L1 L2 L3"


def test_a_chain_is_rotated_on_the_word_that_loss_is_accepted() -> None:
    async def scenario(cluster: Cluster) -> None:
        await two_lost_power(cluster)
        manager = cluster.bench.manager
        reply = await manager.rotate(1, 0, accept_loss=False)
        assert reply.given_up == [301] and "was not synced may be lost" in reply.loses
        assert cluster.chain() == "L1 L2 L3", "only said"
        assert (await manager.rotate(1, 0, accept_loss=True)).chain.version == 3
        assert cluster.chain() == "S1 S2 O3" and cluster.chain(2).startswith("L")
        assert await stored_chains(cluster.bench.kv) == manager.routing.chains
        await cluster.beat(1, 2)
        assert cluster.chain() == "S1 S2 O3", "they make each other whole"

    with_cluster(scenario)


def test_a_replica_that_was_left_behind_serves_on_an_operators_word() -> None:
    async def scenario(cluster: Cluster) -> None:
        cluster.machines[0].dies()
        await cluster.later(0.1)
        await cluster.beat(2, 3)
        for machine in cluster.machines[1:]:
            machine.dies()
        await cluster.later(0.1)
        cluster.bench.ports.refusing.discard(9701)
        await cluster.machines[0].start()
        await cluster.machines[0].open()
        assert cluster.chain() == "L2 L3 W1"
        manager = cluster.bench.manager
        reply = await manager.rotate(1, 0, accept_loss=True)
        assert reply.given_up == [201, 301] and "all that was written since target 101 left" in reply.loses
        assert cluster.chain() == "S1 O2 O3"

    with_cluster(scenario)


def test_an_operator_who_goes_away_does_not_tear_a_change_apart() -> None:
    async def scenario(bench: Bench) -> None:
        cluster = Cluster(bench)
        await cluster.up()
        await two_lost_power(cluster)
        for call in (bench.manager.rotate(1, 0, accept_loss=True), bench.manager.rest()):
            held.stored.clear()
            held.begun.clear()
            asking = asyncio.create_task(call)  # type: ignore[arg-type]
            await held.begun.wait()
            asking.cancel()
            await asyncio.wait([asking])
            held.stored.set()
            await asyncio.wait(bench.manager._publications)
        assert cluster.chain() == "S1 S2 O3" and bench.manager.list_chains().resting
        assert await stored_chains(held) == bench.manager.routing.chains

    held = _HeldStore()
    run(Bench(held).use(scenario))


def test_no_chain_is_rotated_that_need_not_be() -> None:
    async def scenario(cluster: Cluster) -> None:
        manager = cluster.bench.manager

        async def refused(chain: int = 1, target: int = 0) -> str:
            with pytest.raises(EmberError) as error:
                await manager.rotate(chain, target, accept_loss=True)
            assert error.value.code is Code.INVALID
            return error.value.message

        assert "there is no chain 9" in await refused(9)
        assert "it serves" in await refused()
        for machine in cluster.machines:
            machine.dies()
        await cluster.later(0.1)
        assert cluster.chain() == "L1 L2 L3"
        assert "no target of chain 1 is alive" in await refused()
        assert "not alive" in await refused(target=201)
        cluster.bench.ports.refusing.clear()
        await cluster.machines[0].start()
        assert "wait for target 101: its store is being opened" in await refused()
        cluster.machines[0].lost_power = True
        await cluster.machines[0].open()
        assert "target 201 is no last replica of chain 1 that is alive" in await refused(target=201)
        assert cluster.chain() == "L1 L2 L3"

    with_cluster(scenario)


# --- what is told -------------------------------------------------------------------------------------------------


def test_what_is_told_of_a_chain() -> None:
    async def scenario(cluster: Cluster) -> None:
        cluster.machines[0].dies()
        await cluster.later(0.1)
        stands = [(target.node, target.standing, target.reason) for target in cluster.view().targets]
        assert stands[0] == (1, Standing.DEAD, "node 1 has failed")
        assert stands[1] == (2, Standing.HELD, "node 2 is asked whether it is still there")
        await cluster.beat(2, 3)
        stands = [(target.node, target.standing, target.reason) for target in cluster.view().targets]
        assert stands == [
            (2, Standing.ABLE, ""),
            (3, Standing.ABLE, ""),
            (1, Standing.DEAD, "node 1 has failed"),
        ]
        assert [view.chain for view in cluster.bench.manager.list_chains(degraded=True).chains] == [1, 2, 3]

    with_cluster(scenario)


def test_an_old_copy_that_was_put_back_is_waited_for() -> None:
    async def scenario(cluster: Cluster) -> None:
        machine = cluster.machines[0]
        assert machine.stream is not None
        machine.stream.close()
        machine.openings -= 1  # the copy of an earlier opening was put back
        await machine.start()
        await machine.open()
        await cluster.beat(2, 3)
        assert machine.verdicts() == {StoreVerdict.ROLLED_BACK}
        assert cluster.chain() == "S1 S2 S3"
        assert cluster.view().targets[0].standing is Standing.HELD

    with_cluster(scenario)
