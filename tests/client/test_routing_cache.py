import asyncio
import pickle
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

from fs_client import routing_cache
from fs_client.file_ref import FileRef
from fs_client.routing_cache import RoutingCache
from fs_common.errors import Code, EmberError
from fs_common.layout import Layout, stripe_chains
from fs_common.records.routing import Chain, ChainTable, ChainTarget, NodeInfo, NodeState, PublicState, Routing
from tests.storage.engine.virtual_loop import run_virtual
from tests.support import run

LAYOUT = Layout(stripe=3, table_version=1, first=1, seed=7)


def make_routing(version: int = 1, failed: int = 0, states: dict[int, PublicState] | None = None) -> Routing:
    nodes = [
        NodeInfo(node, "127.0.0.1", 9000 + node, NodeState.FAILED if node == failed else NodeState.UP)
        for node in (1, 2, 3)
    ]
    chains = []
    for chain in (1, 2, 3):
        members = [(chain - 1 + place) % 3 + 1 for place in range(3)]
        targets = [
            ChainTarget(node * 100 + chain, node, (states or {}).get(node, PublicState.SERVING)) for node in members
        ]
        chains.append(Chain(chain, version, targets))
    return Routing(version, "c", nodes, chains, [ChainTable(1, 1, [1, 2, 3])], 3)


def make_cache(routing: Routing) -> RoutingCache:
    async def no_fetch(known: int, timeout_s: float, wait_s: float) -> Routing | None:
        raise AssertionError("nothing is fetched")

    cache = RoutingCache(no_fetch)
    cache.adopt(routing)
    return cache


def nodes_of(cache: RoutingCache, file: FileRef, count: int) -> list[int]:
    plan = cache.plan(file)
    servers = [plan.route(file.inode, index).server for index in range(count)]
    return [server.node for server in servers if server is not None]


def test_chunks_are_on_the_chains_of_the_layout() -> None:
    cache = make_cache(make_routing())
    chains = stripe_chains(LAYOUT, [1, 2, 3])
    for inode in (1, 2, 50):
        plan = cache.plan(FileRef(inode, 0, LAYOUT))
        assert [plan.route(inode, index).chain for index in range(30)] == [chains[index % 3] for index in range(30)]


def test_reads_spread_over_all_replicas_and_stay_where_they_are() -> None:
    cache = make_cache(make_routing())
    file = FileRef(5, 0, LAYOUT)
    nodes = nodes_of(cache, file, 90)
    assert {node: nodes.count(node) for node in (1, 2, 3)} == {1: 30, 2: 30, 3: 30}
    for start in range(0, 90, 3):
        assert len(set(nodes[start : start + 3])) == 3, "consecutive chunks are on different servers"
    assert nodes_of(cache, FileRef(5, 0, LAYOUT), 90) == nodes
    assert nodes_of(cache, FileRef(6, 0, LAYOUT), 90) != nodes


def test_a_failed_node_serves_no_reads_but_stays_head() -> None:
    cache = make_cache(make_routing(failed=2))
    assert set(nodes_of(cache, FileRef(5, 0, LAYOUT), 60)) == {1, 3}
    heads = {route.chain: route.head.node for route in cache.plan(FileRef(5, 0, LAYOUT)).routes if route.head}
    assert heads == {1: 1, 2: 2, 3: 3}


def test_only_serving_targets_are_read_and_the_first_of_them_is_head() -> None:
    cache = make_cache(make_routing(states={1: PublicState.SYNCING}))
    assert set(nodes_of(cache, FileRef(5, 0, LAYOUT), 60)) == {2, 3}
    heads = {route.chain: route.head.node for route in cache.plan(FileRef(5, 0, LAYOUT)).routes if route.head}
    assert heads == {1: 2, 2: 2, 3: 3}


def test_a_chain_that_nobody_serves_has_no_server() -> None:
    offline = dict.fromkeys((1, 2, 3), PublicState.OFFLINE)
    route = make_cache(make_routing(states=offline)).plan(FileRef(5, 0, LAYOUT)).route(5, 0)
    assert route.server is None and route.head is None and route.replicas == ()


def test_a_suspect_is_left_out_until_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("fs_client.routing_cache.time.monotonic", lambda: now)
    cache = make_cache(make_routing())
    file = FileRef(5, 0, LAYOUT)
    cache.suspect(cache.servers[1])
    assert set(nodes_of(cache, file, 60)) == {2, 3}
    assert cache.plan(file).route(5, 0).replicas[-1].node == 1, "it is the last resort"
    now += 1.01
    cache.expire_suspects()
    assert set(nodes_of(cache, file, 60)) == {1, 2, 3}
    cache.suspect(cache.servers[1])
    now += 1.01
    cache.expire_suspects()
    assert set(nodes_of(cache, file, 60)) == {2, 3}, "the second time in a row it takes longer"
    cache.trust(cache.servers[1])
    assert set(nodes_of(cache, file, 60)) == {1, 2, 3}


def test_if_all_are_suspects_none_is() -> None:
    cache = make_cache(make_routing())
    for server in list(cache.servers.values()):
        cache.suspect(server)
    assert set(nodes_of(cache, FileRef(5, 0, LAYOUT), 60)) == {1, 2, 3}


def test_a_plan_is_remade_when_routing_changes() -> None:
    cache = make_cache(make_routing())
    file = FileRef(5, 0, LAYOUT)
    assert cache.plan(file) is cache.plan(file)
    assert cache.plan(file).routes[0].version == 1
    cache.adopt(make_routing(version=2))
    assert cache.plan(file).routes[0].version == 2


def test_load_and_health_outlive_a_routing() -> None:
    cache = make_cache(make_routing())
    cache.servers[1].outstanding = 5
    cache.suspect(cache.servers[2])
    cache.adopt(make_routing(version=2))
    assert cache.servers[1].outstanding == 5 and cache.servers[2].suspect_until > 0


def test_an_unknown_chain_table_asks_for_a_refresh() -> None:
    with pytest.raises(EmberError, match="chain table 1 version 2") as caught:
        make_cache(make_routing()).plan(FileRef(5, 0, Layout(table_version=2)))
    assert caught.value.code is Code.CHAIN_UNKNOWN


def test_concurrent_refreshes_share_one_fetch() -> None:
    async def main() -> None:
        fetched: list[int] = []

        async def fetch(known: int, timeout_s: float, wait_s: float) -> Routing | None:
            fetched.append(known)
            await asyncio.sleep(0)
            return make_routing(version=known + 1)

        cache = RoutingCache(fetch)
        await asyncio.gather(*(cache.refresh(0, 1.0) for _ in range(5)))
        assert fetched == [0] and cache.routing.version == 1
        await cache.refresh(1, 1.0)
        assert cache.routing.version == 2

    run(main())


def test_a_file_ref_pickles_without_its_plan() -> None:
    file = FileRef(5, 10, LAYOUT)
    make_cache(make_routing()).plan(file)
    copy = pickle.loads(pickle.dumps(file))
    assert copy == file and copy.plan is None


def test_files_in_ever_other_orders_of_chains_do_not_fill_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing_cache, "PLANS_MAX", 4)
    cache = make_cache(make_routing())
    for seed in range(200):
        layout = Layout(stripe=3, table_version=1, first=seed % 3, seed=seed)
        assert len(cache.plan(FileRef(5, 0, layout)).routes) >= 3
        assert len(cache._plans) <= 4


class Service:
    """Holds questions back until `publish`."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, float]] = []
        self.version = 1
        self.published = asyncio.Event()
        self.failing = 0

    def publish(self) -> None:
        self.version += 1
        self.published.set()
        self.published = asyncio.Event()

    async def fetch(self, known: int, timeout_s: float, wait_s: float) -> Routing | None:
        self.asked.append((known, wait_s))
        if self.failing:
            self.failing -= 1
            raise EmberError(Code.UNREACHABLE, "the service is away")
        try:
            async with asyncio.timeout(wait_s):
                while self.version <= known:
                    await self.published.wait()
        except TimeoutError:
            return None
        return make_routing(version=self.version)


def watched(scenario: Callable[[RoutingCache, Service], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        clock = SimpleNamespace(monotonic=asyncio.get_running_loop().time)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(routing_cache, "time", clock)
            service = Service()
            cache = RoutingCache(service.fetch)
            cache.adopt(make_routing())
            await scenario(cache, service)
            await cache.close()

    run_virtual(main())


def test_who_waits_for_newer_routing_has_it_when_it_is_there() -> None:
    async def scenario(cache: RoutingCache, service: Service) -> None:
        began = asyncio.get_running_loop().time()
        waiting = [asyncio.ensure_future(cache.newer(1, 30.0)) for _ in range(10)]
        await asyncio.sleep(2)
        assert not any(task.done() for task in waiting)
        service.publish()
        assert await asyncio.gather(*waiting) == [True] * 10
        assert asyncio.get_running_loop().time() - began < 2.01 and cache.routing.version == 2
        assert service.asked == [(1, routing_cache.WATCH_S)], "one question of all"
        assert await cache.newer(1, 0.0), "who knows an older one need not wait"

    watched(scenario)


def test_nobody_waits_for_routing_beyond_its_time() -> None:
    async def scenario(cache: RoutingCache, service: Service) -> None:
        began = asyncio.get_running_loop().time()
        assert not await cache.newer(1, 0.5)
        assert asyncio.get_running_loop().time() - began < 0.51
        await asyncio.sleep(60)
        assert len(service.asked) == 1, "nobody asks when nobody waits"

    watched(scenario)


def test_a_service_that_is_away_is_asked_again() -> None:
    async def scenario(cache: RoutingCache, service: Service) -> None:
        service.failing = 3
        service.publish()
        assert await cache.newer(1, 30.0)
        assert len(service.asked) == 4

    watched(scenario)


def test_what_nobody_serves_says_which_nodes_to_bring_back() -> None:
    states = {1: PublicState.LASTSRV, 2: PublicState.OFFLINE, 3: PublicState.LASTSRV}
    error = make_cache(make_routing(states=states)).lost(1)
    assert error.code is Code.CHAIN_LOST
    assert "chain 1 has no serving replica: bring one of those back that served it last" in error.message
    assert "node 1 (127.0.0.1:9001), node 3 (127.0.0.1:9003)" in error.message and "node 2" not in error.message
    error = make_cache(
        make_routing(states={1: PublicState.OFFLINE, 2: PublicState.LASTSRV, 3: PublicState.WAITING})
    ).lost(2)
    assert "bring node 2 (127.0.0.1:9002) back" in error.message
    error = make_cache(make_routing(states=dict.fromkeys((1, 2, 3), PublicState.WAITING))).lost(2)
    assert "none of its replicas has everything" in error.message
