"""A cluster that grows, shrinks and is repaired: what operators ask, carried out by nodes that do as they are told."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from fs_common.errors import Code, EmberError
from fs_common.records.routing import LocalState, PublicState, StoreVerdict
from fs_common.records.targets import (
    AddTargets,
    CancelMoves,
    Drain,
    ForgetNode,
    MovesReply,
    Rebalance,
    ReplaceTarget,
)
from fs_meta.kv.memory_engine import MemoryStore
from fs_meta.manager.chains import Report
from fs_meta.manager.growth import Growth
from fs_meta.manager.manager import NodeStream
from fs_meta.manager.membership import Beat, TargetReport
from fs_meta.manager.planner import PlanReply, PlanRequest, compute_plan
from fs_meta.manager.stores import StoreReport
from tests.manager.cluster import Bench, Config, identity
from tests.support import run

SERVING = PublicState.SERVING


async def plan_here(request: PlanRequest) -> PlanReply:
    """Without a process of its own."""
    await asyncio.sleep(0)
    return compute_plan(request)


class Node:
    """What a storage daemon says, and does at the manager's word."""

    def __init__(self, bench: Bench, node: int, port: int = 0) -> None:
        self.bench = bench
        self.node = node
        self.port = port or 9700 + node
        self.process = 0
        self.stream: NodeStream | None = None
        self.stores: set[int] = set()
        self.open: set[int] = set()
        """Targets that this process has opened."""
        self.retired: set[int] = set()
        self.fills = True
        """A target that syncs here is filled up by the next heartbeat."""

    def start(self) -> None:
        self.process += 1
        self.open = set()
        who = identity(self.node, 1000 * self.node + self.process)._replace(port=self.port)
        self.stream = self.bench.manager.open_stream("test", who)
        self.bench.ports.refusing.discard(self.port)

    def die(self) -> None:
        assert self.stream is not None
        self.stream.close()
        self.stream = None
        self.bench.ports.refusing.add(self.port)

    async def beat(self) -> None:
        if self.stream is None:
            return
        routing = self.bench.manager.routing
        targets, stores = {}, {}
        mine = {
            member.target: (chain, member)
            for chain in routing.chains
            for member in chain.targets
            if member.node == self.node
        }
        self.open |= mine.keys()
        for target in self.stores | mine.keys():
            chain, member = mine.get(target, (None, None))
            serves = member is not None and member.state is SERVING
            if target in self.retired and not serves:
                self.retired.discard(target)
            state = LocalState.ONLINE
            if chain is None or target not in self.stores or target in self.retired:
                state = LocalState.OFFLINE
            elif serves or (member is not None and member.state is PublicState.SYNCING and self.fills):
                state = LocalState.UPTODATE
            version = chain.version if chain is not None else 0
            targets[target] = TargetReport(Report(state, version), 5)
            if target in self.open:
                uuid = target.to_bytes(16, "big") if target in self.stores else b""
                stores[target] = StoreReport(uuid, self.process, 1) if uuid else StoreReport(b"", 0, 0)
        await self.stream.heartbeat(Beat(1000, 10, targets, routing.version, stores))
        for judged in self.stream.verdicts:
            if judged.verdict is StoreVerdict.FORMAT:
                self.stores.add(judged.target)
            elif judged.verdict is StoreVerdict.RETIRE:
                if judged.remove and judged.target not in mine:
                    self.stores.discard(judged.target)
                else:
                    self.retired.add(judged.target)


class Cluster:
    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.nodes: dict[int, Node] = {}
        self.growth = Growth(bench.manager, plan_here)

    async def join(self, *nodes: int) -> None:
        for node in nodes:
            self.nodes[node] = Node(self.bench, node)
            self.nodes[node].start()
        await self.settle(3)

    async def settle(self, rounds: int = 40, seconds: float = 0.25) -> None:
        """Heartbeats come, and the manager looks."""
        for _ in range(rounds):
            for node in self.nodes.values():
                await node.beat()
            self.bench.clock.now_s += seconds
            await self.bench.manager.look()
            self.check()

    def check(self) -> None:
        for chain in self.bench.manager.routing.chains:
            serving = [member for member in chain.targets if member.state is SERVING]
            assert len(serving) >= self.least, f"chain {chain.chain} has fewer than it had"

    least = 0

    def chains(self) -> list[list[int]]:
        """The nodes of each, those that serve."""
        return [
            [member.node for member in chain.targets if member.state is SERVING]
            for chain in self.bench.manager.routing.chains
        ]

    def hosted(self) -> dict[int, int]:
        return dict(Counter(member.node for chain in self.bench.manager.routing.chains for member in chain.targets))

    def table(self) -> list[int]:
        return max(self.bench.manager.routing.tables, key=lambda table: table.version).chains

    async def refused(self, request: Awaitable[MovesReply]) -> str:
        with pytest.raises(EmberError) as caught:
            await request
        assert caught.value.code is Code.INVALID
        return caught.value.message


def with_cluster(scenario: Callable[[Cluster], Awaitable[None]], nodes: int = 3, **config: object) -> None:
    async def inner(bench: Bench) -> None:
        cluster = Cluster(bench)
        await cluster.join(*range(1, nodes + 1))
        await cluster.settle(5)
        assert [len(chain) for chain in cluster.chains()] == [3] * len(cluster.chains())
        cluster.least = 3
        await scenario(cluster)

    run(Bench(MemoryStore(), replace(Config(storage_nodes=nodes), **config)).use(inner))  # type: ignore[arg-type]


def test_a_node_that_joins_is_not_used_until_it_is_wanted() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.join(4)
        assert cluster.hosted() == {1: 3, 2: 3, 3: 3}
        (view,) = [node for node in cluster.growth.nodes().nodes if node.node == 4]
        assert view.targets == view.joining == 0
        dry = await cluster.growth.rebalance(Rebalance(dry_run=True))
        assert len(dry.moves) == dry.least_moves == 2 and len(dry.new_chains) == 1
        assert not cluster.growth.moves().moves
        reply = await cluster.growth.rebalance(Rebalance())
        assert [move.node for move in reply.moves] == [4, 4] and all(move.move for move in reply.moves)
        assert [move.joins for move in reply.moves] == [401, 402], "a dry run takes no id"
        await cluster.settle()
        assert cluster.hosted() == {1: 3, 2: 3, 3: 3, 4: 3}
        assert all(len(chain) == 3 for chain in cluster.chains())
        assert cluster.table() == [1, 2, 3, 4], "new files use the new chain"
        assert [table.version for table in cluster.bench.manager.routing.tables] == [1, 2]
        assert {move.state for move in cluster.growth.moves().moves} == {"done"}
        assert not (await cluster.growth.rebalance(Rebalance())).moves

    with_cluster(scenario)


def test_what_has_moved_away_is_removed() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.join(4)
        before = {node: set(each.stores) for node, each in cluster.nodes.items()}
        await cluster.growth.rebalance(Rebalance())
        await cluster.settle()
        left = {target for node in (1, 2, 3) for target in before[node] - cluster.nodes[node].stores}
        assert left == {move.leaves for move in cluster.growth.moves().moves}

    with_cluster(scenario)


def test_a_node_is_drained_and_forgotten() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.join(4)
        await cluster.growth.rebalance(Rebalance())
        await cluster.settle()
        reply = await cluster.growth.drain(Drain(node=2))
        assert len(reply.moves) == 3 and {move.source for move in reply.moves} == {2}
        await cluster.settle()
        assert 2 not in cluster.hosted() and all(len(chain) == 3 for chain in cluster.chains())
        assert (await cluster.growth.rebalance(Rebalance())).moves == [], "a drained node gets nothing"
        assert "is up" in await cluster.refused(cluster.growth.forget(ForgetNode(2)))
        cluster.nodes[2].die()
        await cluster.settle(2)
        await cluster.growth.forget(ForgetNode(2))
        assert [node.node for node in cluster.bench.manager.routing.nodes] == [1, 3, 4]
        cluster.nodes[2].start()
        with pytest.raises(EmberError) as caught:
            await cluster.nodes[2].beat()
        assert (
            caught.value.code is Code.INVALID
            and "new node id" in caught.value.message
            and "storage-2" in caught.value.message
        )
        del cluster.nodes[2]

    with_cluster(scenario)


def test_a_forgotten_node_and_moves_under_way_are_known_to_the_next_manager() -> None:
    async def inner() -> None:
        kv = MemoryStore()
        first = Bench(kv)

        async def begin(bench: Bench) -> None:
            cluster = Cluster(bench)
            await cluster.join(1, 2, 3)
            await cluster.settle(3)
            await cluster.join(4, 5)
            cluster.nodes[5].die()
            await cluster.settle(2)
            await cluster.growth.forget(ForgetNode(5))
            cluster.nodes[4].fills = False
            await cluster.growth.rebalance(Rebalance())
            await cluster.settle(4)
            assert {move.state for move in cluster.growth.moves().moves} == {"filling"}

        async def go_on(bench: Bench) -> None:
            cluster = Cluster(bench)
            assert 5 not in cluster.bench.manager.membership.members
            for number in (1, 2, 3, 4):
                node = cluster.nodes[number] = Node(bench, number)
                node.process = 10
                node.stores = {
                    member.target
                    for chain in bench.manager.routing.chains
                    for member in chain.targets
                    if member.node == number
                }
                node.start()
            await cluster.settle()
            assert cluster.hosted() == {1: 3, 2: 3, 3: 3, 4: 3}
            assert {move.state for move in cluster.growth.moves().moves} == {"done"}

        await first.use(begin)
        second = Bench(kv)
        second.clock.now_s = first.clock.now_s + 100
        await second.use(go_on)

    run(inner())


def test_a_drain_that_leaves_too_few_nodes_is_refused() -> None:
    async def scenario(cluster: Cluster) -> None:
        message = await cluster.refused(cluster.growth.drain(Drain(node=3)))
        assert "2 other nodes" in message and "add a node first" in message
        assert not cluster.bench.manager.membership.members[3].drained
        assert "no other node" in await cluster.refused(cluster.growth.drain(Drain(target=301)))

    with_cluster(scenario)


def test_a_drain_is_undone() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.join(4)
        cluster.nodes[4].fills = False
        await cluster.growth.drain(Drain(node=3))
        await cluster.settle(4)
        assert cluster.hosted()[4] == 2, "two at a time"
        undone = await cluster.growth.drain(Drain(node=3, undo=True))
        assert len(undone.moves) == 3
        await cluster.settle(4)
        assert cluster.hosted() == {1: 3, 2: 3, 3: 3}
        assert not cluster.bench.manager.membership.members[3].drained
        assert not cluster.nodes[4].stores, "what had joined is removed"

    with_cluster(scenario)


def test_a_target_is_drained_elsewhere() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.join(4)
        (move,) = (await cluster.growth.drain(Drain(target=301))).moves
        assert (move.leaves, move.source, move.node) == (301, 3, 4)
        assert "already" in await cluster.refused(cluster.growth.drain(Drain(target=301)))
        await cluster.settle()
        assert cluster.hosted() == {1: 3, 2: 3, 3: 2, 4: 1}

    with_cluster(scenario)


def test_a_lost_disk_is_replaced_on_its_own_node() -> None:
    async def scenario(cluster: Cluster) -> None:
        cluster.least = 2
        lost = set(cluster.nodes[3].stores)
        cluster.nodes[3].die()
        await cluster.settle(3)
        cluster.nodes[3].stores.clear()
        cluster.nodes[3].start()
        await cluster.settle(3)
        assert {len(chain) for chain in cluster.chains()} == {2}, "an empty disk is not filled up by itself"
        for target in sorted(lost):
            (move,) = (await cluster.growth.replace(ReplaceTarget(target))).moves
            assert move.node == 3 and move.joins not in lost
        await cluster.settle()
        assert cluster.hosted() == {1: 3, 2: 3, 3: 3} and all(len(chain) == 3 for chain in cluster.chains())
        assert not cluster.nodes[3].stores & lost

    with_cluster(scenario)


def test_a_target_that_serves_is_not_replaced_in_its_place() -> None:
    async def scenario(cluster: Cluster) -> None:
        assert "serves" in await cluster.refused(cluster.growth.replace(ReplaceTarget(301, node=3)))
        assert "has a replica" in await cluster.refused(cluster.growth.replace(ReplaceTarget(301, node=1)))
        assert "no target 999" in await cluster.refused(cluster.growth.replace(ReplaceTarget(999)))
        assert "no node 9" in await cluster.refused(cluster.growth.replace(ReplaceTarget(301, node=9)))

    with_cluster(scenario)


def test_nothing_is_moved_from_a_chain_that_nobody_serves() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.join(4)
        cluster.least = 0
        for node in (1, 2, 3):
            cluster.nodes[node].die()
        await cluster.settle(3)
        message = await cluster.refused(cluster.growth.replace(ReplaceTarget(101)))
        assert "no survivor" in message
        assert "nodes can take targets" in await cluster.refused(cluster.growth.rebalance(Rebalance()))

    with_cluster(scenario)


def test_a_daemon_that_is_gone_for_good_is_replaced_by_itself() -> None:
    async def scenario(cluster: Cluster) -> None:
        cluster.least = 2
        cluster.nodes[4].die()
        await cluster.settle(8, 1.0)
        assert {len(chain) for chain in cluster.chains()} == {2, 3}, "it may come back"
        await cluster.settle(30, 1.0)
        assert 4 not in cluster.hosted()
        assert all(len(chain) == 3 for chain in cluster.chains())
        assert {move.cause for move in cluster.growth.moves().moves} == {"lost"}
        # It comes back after all: what it had is not needed any more.
        cluster.nodes[4].start()
        await cluster.settle(4)
        assert not cluster.nodes[4].stores and 4 not in cluster.hosted()
        await cluster.growth.add(AddTargets(4))
        await cluster.settle()
        assert cluster.hosted() == {1: 3, 2: 3, 3: 3, 4: 3}

    with_cluster(scenario, nodes=4, replace_lost_after_ms=20_000)


def test_one_node_gets_its_share() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.join(4, 5)
        reply = await cluster.growth.add(AddTargets(4))
        assert {move.node for move in reply.moves} == {4} and not reply.new_chains
        await cluster.settle()
        assert 5 not in cluster.hosted() and cluster.hosted()[4] == len(reply.moves)
        cluster.nodes[5].die()
        await cluster.settle(2)
        assert "not up" in await cluster.refused(cluster.growth.add(AddTargets(5)))

    with_cluster(scenario)


def test_moves_are_cancelled() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.join(4)
        cluster.nodes[4].fills = False
        await cluster.growth.rebalance(Rebalance())
        await cluster.settle(4)
        assert "no move 77" in await cluster.refused(cluster.growth.cancel(CancelMoves([77])))
        assert len((await cluster.growth.cancel(CancelMoves())).moves) == 2
        await cluster.settle(4)
        assert {move.state for move in cluster.growth.moves().moves} == {"cancelled"}
        assert all(len(chain) == 3 for chain in cluster.chains())

    with_cluster(scenario)


def test_a_plan_for_chains_that_have_changed_is_asked_for_again() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.join(4)

        async def slow(request: PlanRequest) -> PlanReply:
            await cluster.growth.drain(Drain(target=301))
            return compute_plan(request)

        with pytest.raises(EmberError) as caught:
            await Growth(cluster.bench.manager, slow).rebalance(Rebalance())
        assert caught.value.code is Code.BUSY
        assert len(cluster.growth.moves().moves) == 1

    with_cluster(scenario)


def test_a_new_cluster_may_have_more_targets_on_a_node() -> None:
    async def scenario(cluster: Cluster) -> None:
        assert cluster.hosted() == dict.fromkeys((1, 2, 3, 4), 6)
        assert len(cluster.chains()) == 8

    with_cluster(scenario, nodes=4, targets_per_node=6)
