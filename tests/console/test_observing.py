"""Rounds of questions to the daemons, and looks at the cluster: what is asked when, and what is made of silence."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fs_common.errors import Code, EmberError
from fs_common.methods import LOCK, SLOW_OPERATIONS, SPACE_INFO, STAT, STATS, UNLINK, Method
from fs_common.peers import PeerPool
from fs_common.records.chains import ChainView, ListChainsReply
from fs_common.records.routing import Chain, NodeInfo, NodeState, Routing
from fs_common.records.session import Stats
from fs_common.records.slow import SlowOperation, SlowOperationsReply
from fs_common.records.storage import SpaceInfoReply
from fs_meta.http.history import META
from fs_meta.http.observing import ASKED_AT_ONCE, CHAINS_IN_A_ROW, SHARE, Observer
from tests.support import run

SLOW = SlowOperation(operation="read_chunks", trace="0000002a", ended_s=1.0, took_ms=2000.0)


class PlayedDaemons:
    """What is asked of them, and who does not answer."""

    def __init__(self) -> None:
        self.counters: dict[int, dict[str, int]] = {}
        self.silent: set[int] = set()
        self.asked: list[tuple[int, Method]] = []
        self.at_once = self.most_at_once = 0

    async def call(self, address: tuple[str, int], method: Method, request: object, *, timeout: float) -> object:
        port = address[1]
        self.asked.append((port, method))
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        if port in self.silent:
            raise EmberError(Code.TIMED_OUT)
        if method is STATS:
            return Stats(self.counters.get(port, {}))
        if method is SLOW_OPERATIONS:
            return SlowOperationsReply([SLOW])
        return SpaceInfoReply(100, 60, [])

    def of(self, method: Method) -> list[int]:
        return sorted(port for port, asked in self.asked if asked is method)


class PlayedManager:
    def __init__(self, clock: "Clock") -> None:
        self.clock = clock
        self.asked: list[list[int]] = []
        self.each_s = 0.0
        self.manages = True

    def list_chains(self, chains: Sequence[int] = (), *, degraded: bool = False) -> ListChainsReply:
        assert degraded
        if not self.manages:
            raise EmberError(Code.NOT_MANAGER)
        self.asked.append(list(chains))
        self.clock.now_s += self.each_s * len(chains)
        return ListChainsReply(5, [ChainView(chain, 1, []) for chain in chains if chain and chain % 100 == 0], True)

    def nodes(self) -> list[Any]:
        return [(SimpleNamespace(identity=SimpleNamespace(node=1)), 250)]

    def listed(self) -> str:
        return "targets"


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Bench:
    def __init__(self, nodes: int = 3, chains: int = 0) -> None:
        self.clock = Clock()
        self.daemons = PlayedDaemons()
        self.manager = PlayedManager(self.clock)
        self.stats = {"rpc_stat_calls": 0, "rpc_unlink_calls": 0, "inodes_in_use": 7, "clients": 2}
        infos = [NodeInfo(n, "h", n, NodeState.UP, 100, 40) for n in range(1, nodes + 1)]
        self.routing = Routing(5, "c", infos, [Chain(c, 1, []) for c in range(1, chains + 1)], [], 3)
        self.observer = Observer(
            routing=lambda: self.routing,
            pool=cast(PeerPool, self.daemons),
            stats=lambda: dict(self.stats),
            slow=lambda: [],
            clients=lambda: [],
            operations=(STAT, UNLINK, LOCK),
            clock=self.clock,
        )
        self.observer.manage(cast(Any, self.manager), cast(Any, self.manager))

    def down(self, node: int) -> None:
        nodes = [
            NodeInfo(n.node, n.host, n.port, NodeState.FAILED if n.node == node else n.state, 100, 40)
            for n in self.routing.nodes
        ]
        self.routing = Routing(self.routing.version + 1, "c", nodes, self.routing.chains, [], 3)

    async def round(self, seconds: float = 3.0) -> None:
        self.clock.now_s += seconds
        await self.observer.round()


def last(bench: Bench) -> dict[str, float | None]:
    piece = bench.observer.history.since(bench.observer.history.taken - 1)
    return {name: values[0] for name, values in piece.series.items()}


def test_a_round_makes_a_sample_of_what_everybody_has_counted() -> None:
    async def body() -> None:
        bench = Bench()
        await bench.round()
        for node in (1, 2, 3):
            bench.daemons.counters[node] = {
                "bytes_read": 300,
                "rpc_read_chunks_ns": 6_000_000,
                "rpc_read_chunks_calls": 3,
            }
        bench.stats |= {"rpc_stat_calls": 30, "rpc_unlink_calls": 6, "rpc_lock_calls": 3, "rpc_lock_ns": 9 * 10**9}
        bench.stats |= {"rpc_stat_ns": 36_000_000}
        await bench.round()
        seen = last(bench)
        assert seen["read_bytes"] == 300.0 and seen["read_ms"] == 2.0
        assert seen["looks"] == 10.0 and seen["changes"] == 3.0
        assert seen["metadata_ms"] == 1.0, "how long a lock was waited for says nothing"
        assert (seen["inodes"], seen["clients"], seen["used_bytes"], seen["capacity_bytes"]) == (7, 2, 120, 300)
        assert bench.observer.history.rates[META]["rpc_lock_calls"] == 1.0

    run(body())


def test_who_is_down_is_not_asked_and_who_is_silent_is_told() -> None:
    async def body() -> None:
        bench = Bench()
        bench.down(2)
        bench.daemons.silent = {3}
        await bench.round()
        assert bench.daemons.of(STATS) == [1, 3]
        seen = await bench.observer.look()
        assert seen.unheard == {3} and seen.spaces == [None, None, None]

    run(body())


def test_space_and_what_was_slow_are_asked_for_while_somebody_looks() -> None:
    async def body() -> None:
        bench = Bench()
        await bench.round()
        assert bench.daemons.of(SPACE_INFO) == []
        await bench.observer.look()
        bench.daemons.counters[2] = {"slow_operations": 1}
        await bench.round()
        assert bench.daemons.of(SPACE_INFO) == [1, 2, 3] and bench.daemons.of(SLOW_OPERATIONS) == [2]
        seen = await bench.observer.look()
        assert [space is not None for space in seen.spaces] == [True, True, True]
        assert seen.slow == [(2, SLOW)]
        await bench.round()
        assert bench.daemons.of(SLOW_OPERATIONS) == [2], "nothing was slow since"
        await bench.round(60.0)
        assert len(bench.daemons.of(SPACE_INFO)) == 6, "nobody has looked for a minute"

    run(body())


def test_few_are_asked_at_a_time() -> None:
    async def body() -> None:
        bench = Bench(nodes=50)
        await bench.round()
        assert bench.daemons.most_at_once == ASKED_AT_ONCE and len(bench.daemons.of(STATS)) == 50

    run(body())


def test_chains_are_looked_at_in_slices_and_not_all_the_time() -> None:
    async def body() -> None:
        bench = Bench(chains=220)
        bench.manager.each_s = 0.001
        seen = await bench.observer.look()
        assert seen.chains is not None and [view.chain for view in seen.chains.chains] == [100, 200]
        assert seen.chains.resting and seen.silent_ms == {1: 250} and cast(Any, seen.targets) == "targets"
        slices = bench.manager.asked[1:]
        assert max(map(len, slices)) == CHAINS_IN_A_ROW and sum(map(len, slices)) == 220
        asked = len(bench.manager.asked)
        bench.clock.now_s += 0.22 * SHARE / 2
        assert (await bench.observer.look()).chains == seen.chains and len(bench.manager.asked) == asked
        bench.clock.now_s += 0.22 * SHARE
        await bench.observer.look()
        assert len(bench.manager.asked) == 2 * asked

    run(body())


def test_who_is_not_the_manager_says_nothing_of_chains() -> None:
    async def body() -> None:
        bench = Bench(chains=3)
        bench.manager.manages = False
        seen = await bench.observer.look()
        assert seen.chains is None and seen.targets is None and seen.silent_ms == {}
        bench.manager.manages = True
        assert (await bench.observer.look()).chains is not None

    run(body())


def test_a_look_waits_for_news(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fs_meta.http.observing.LOOK_S", 3600.0)

    async def body() -> None:
        bench = Bench()
        await bench.round()
        first = await bench.observer.look()
        taken = first.samples.first + len(first.samples.at_s)
        look = asyncio.create_task(bench.observer.look(known_version=5, known_taken=taken))
        await asyncio.sleep(0)
        assert not look.done()
        bench.down(1)
        bench.observer.tell()
        assert (await look).routing.version == 6
        look = asyncio.create_task(bench.observer.look(known_version=6, known_taken=taken))
        await asyncio.sleep(0)
        await bench.round()
        assert (await look).samples.at_s[-1] == bench.clock.now_s

    run(body())


def test_rounds_go_on_and_the_first_look_brings_one_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fs_meta.http.observing.INTERVAL_S", 3600.0)

    async def body() -> None:
        bench = Bench()
        stop = asyncio.Event()
        running = asyncio.create_task(bench.observer.run(stop))
        while not bench.observer.history.taken:
            await asyncio.sleep(0)
        await bench.observer.look()
        while bench.observer.history.taken < 2:
            await asyncio.sleep(0)
        stop.set()
        await running

    run(body())
