"""Replicas that die, stop or are slow during reads: others are asked, and a late answer goes nowhere."""

import asyncio
import random
import threading
from collections.abc import Callable, Iterator

import pytest

from fs_client import FileSystem, aio, flights, routing_cache
from fs_client.flights import ChainFlight, Flight, Flights
from fs_client.options import Address
from fs_client.routing_cache import SLOW_AVOIDED_S, SLOW_S, RoutingCache, Server
from fs_common.errors import Code, EmberError
from fs_common.records.routing import PublicState
from tests.client.fake_cluster import CHUNK, FakeCluster
from tests.client.test_read_ranges import on_servers
from tests.client.test_routing_cache import make_cache, make_routing
from tests.storage.engine.virtual_loop import run_virtual
from tests.support import run

DATA = random.Random(1).randbytes(10 * CHUNK + 777)


@pytest.fixture(autouse=True)
def long_suspicion(monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than any test takes."""
    monkeypatch.setattr(routing_cache, "SUSPECT_FIRST_S", 600.0)
    monkeypatch.setattr(routing_cache, "SUSPECT_MAX_S", 600.0)


def stop(cluster: FakeCluster, *nodes: int) -> None:
    """These daemons answer nothing any more; their connections stay."""

    def close_gates() -> None:
        for node in nodes:
            cluster.storage[node].gate = asyncio.Event()
            cluster.storage[node].arrived.clear()

    cluster.call(close_gates)


def go_on(cluster: FakeCluster, *nodes: int) -> None:
    def open_gates() -> None:
        for node in nodes:
            gate = cluster.storage[node].gate
            assert gate is not None
            gate.set()

    cluster.call(open_gates)


@pytest.fixture
def file(fs: FileSystem) -> str:
    fs.write_file("/f", DATA)
    return "/f"


@pytest.mark.parametrize("node", [1, 2, 3])
def test_the_head_dies_during_reads_and_clients_go_on(
    cluster: FakeCluster, fs: FileSystem, file: str, node: int
) -> None:
    """Each node is the head of one chain, the middle of another and the tail of the third. Its process ends while it
    has reads to answer, the manager takes it from its chains, and later reads do not ask it."""
    stop(cluster, node)
    daemon = cluster.storage[node]

    async def die() -> None:
        await daemon.arrived.wait()
        server, daemon.server = daemon.server, None
        assert server is not None
        await server.close(grace_s=0)

    dying = asyncio.run_coroutine_threadsafe(die(), cluster._loop)
    assert fs.read_file(file) == DATA
    dying.result(10)
    for chain in cluster.chains:
        cluster.set_chain(chain, {node: PublicState.OFFLINE})
    asked = daemon.read_frames
    for _ in range(10):
        assert fs.read_file(file) == DATA
    assert daemon.read_frames == asked
    heads = {chain.targets[0].node for chain in cluster.chains.values()}
    assert node not in heads


@pytest.mark.parametrize("node", [1, 2, 3])
def test_a_replica_that_stops_is_not_waited_for(cluster: FakeCluster, fs: FileSystem, file: str, node: int) -> None:
    stop(cluster, node)
    assert fs.read_file(file) == DATA
    assert cluster.storage[node].read_frames > 0, "it was asked"
    asked = cluster.storage[node].read_frames
    assert fs.read_file(file) == DATA
    assert cluster.storage[node].read_frames == asked, "it is remembered"
    assert fs._connected is not None
    assert [server.outstanding for server in fs._connected.core.routing.servers.values()] == [0, 0, 0]


def test_a_hedge_is_hedged(cluster: FakeCluster, fs: FileSystem, file: str) -> None:
    """Who is asked for what a stopped one has not answered has stopped as well."""
    stop(cluster, 1, 2)
    assert fs.read_file(file) == DATA


def test_the_late_answer_does_not_reach_the_callers_buffer(cluster: FakeCluster) -> None:
    async def main() -> None:
        async with await aio.connect(cluster.address) as fs:
            await fs.write_file("/f", DATA)
            daemon = cluster.storage[2]

            async def close_gate() -> None:
                daemon.gate = asyncio.Event()
                daemon.arrived.clear()

            async def open_gate() -> None:
                assert daemon.gate is not None
                daemon.gate.set()

            await on_servers(cluster, close_gate())
            into = bytearray(len(DATA))
            await fs.read_ranges([("/f", 0, len(DATA))], into)
            assert into == DATA
            into[:] = bytes(len(DATA))
            await on_servers(cluster, open_gate())
            # The late answers come before the next one, on the same connection.
            server = fs.routing.servers[2]
            fs.routing.trust(server)
            assert await fs.read_file("/f") == DATA
            assert daemon.read_frames > 1 and into == bytes(len(DATA))

    run(main())


def test_who_is_cancelled_leaves_no_hedge_behind(cluster: FakeCluster) -> None:
    async def main() -> None:
        async with await aio.connect(cluster.address) as fs:
            await fs.write_file("/f", DATA)

            async def close(*nodes: int) -> None:
                for node in nodes:
                    cluster.storage[node].gate = asyncio.Event()
                    cluster.storage[node].arrived.clear()

            async def arrived(node: int) -> None:
                await cluster.storage[node].arrived.wait()

            ref = await fs.ref("/f")
            await on_servers(cluster, close(1, 2, 3))
            into = bytearray(CHUNK)
            reading = asyncio.ensure_future(fs.read_ranges([(ref, 0, CHUNK)], into))
            for node in (1, 2, 3):
                await on_servers(cluster, arrived(node))  # the planned one; then the others, as hedges
            reading.cancel()
            await asyncio.wait([reading])
            assert reading.cancelled() and into == bytes(CHUNK)
            assert [server.outstanding for server in fs.routing.servers.values()] == [0, 0, 0]

    run(main())


def test_if_no_other_is_well_the_first_is_waited_for(cluster: FakeCluster, fs: FileSystem, file: str) -> None:
    """All are slow: asking all of them for everything would make them slower."""
    ref = fs.ref(file)
    stop(cluster, 1, 2, 3)
    opening = cluster.after(_all_asked(cluster), lambda: go_on(cluster, 1, 2, 3))
    assert bytes(fs.read_ranges([(ref, 0, 10)])[0]) == DATA[:10]
    opening.join()
    assert sum(daemon.read_frames for daemon in cluster.storage.values()) == 3


def _all_asked(cluster: FakeCluster) -> threading.Event:
    event = threading.Event()

    async def wait() -> None:
        for daemon in cluster.storage.values():
            await daemon.arrived.wait()
        event.set()

    asyncio.run_coroutine_threadsafe(wait(), cluster._loop)
    return event


def test_holes_are_known_from_another_replica_too(cluster: FakeCluster, fs: FileSystem) -> None:
    with fs.open("/h", "wb") as file:
        file.write(b"a" * 10)
        file.seek(4 * CHUNK)
        file.write(b"b" * 10)
    stop(cluster, 1)
    assert fs.read_file("/h") == b"a" * 10 + bytes(4 * CHUNK - 10) + b"b" * 10


def test_damage_elsewhere_does_not_end_the_wait_for_the_first(cluster: FakeCluster, fs: FileSystem, file: str) -> None:
    for node in (2, 3):
        cluster.storage[node].corrupt.update(cluster.storage[node].chunks)
    ref = fs.ref(file)
    stop(cluster, 1)
    asked = [cluster.storage[node].read_frames for node in (2, 3)]

    def others_were_asked() -> bool:
        return [cluster.storage[node].read_frames for node in (2, 3)] > asked

    # Whatever others say, the first one's answer counts when it comes.
    event = _asked(cluster, 1)
    opening = cluster.after(event, lambda: go_on(cluster, 1))
    assert bytes(fs.read_ranges([(ref, 0, len(DATA))])[0]) == DATA
    opening.join()
    assert others_were_asked()


def _asked(cluster: FakeCluster, node: int) -> threading.Event:
    event = threading.Event()

    async def wait() -> None:
        await cluster.storage[node].arrived.wait()
        event.set()

    asyncio.run_coroutine_threadsafe(wait(), cluster._loop)
    return event


# Updates


def test_an_update_that_hangs_goes_to_the_new_head(
    cluster: FakeCluster, fs: FileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old head was stopped with the update in its hands; when it goes on it has no say any more."""
    monkeypatch.setattr(flights, "NEWS_LOOKS", 1)
    stop(cluster, 1)

    def drop() -> None:
        for chain in cluster.chains:
            cluster.set_chain(chain, {1: PublicState.OFFLINE})

    dropping = cluster.after(cluster.metadata.held_back, drop)
    fs.write_file("/f", DATA)
    dropping.join()
    assert fs.read_file("/f") == DATA
    go_on(cluster, 1)
    assert fs.read_file("/f") == DATA
    items = [item for node in (2, 3) for item in cluster.storage[node].updates]
    assert sorted(item.index for item in items) == list(range(11)) and not cluster.storage[1].updates


# Looks


class Watched:
    """Flights in virtual time, with what comes set by the test."""

    def __init__(self) -> None:
        self.received: dict[Address, int] = {}
        self.cache: RoutingCache = make_cache(make_routing())
        self.news = 0
        self.cache.watch = self._watch  # type: ignore[method-assign]
        self.flights = Flights(self.cache, lambda address: self.received.get(address, 0))

    def _watch(self, time_s: float) -> None:
        self.news += 1


def watched(scenario: Callable[[Watched], Iterator[float]]) -> None:
    """Runs the scenario's steps, each after so many seconds."""

    async def main() -> None:
        watched = Watched()
        for pause_s in scenario(watched):
            await asyncio.sleep(pause_s)
        watched.flights.close()

    run_virtual(main())


def test_silence_is_counted_in_looks() -> None:
    def scenario(watched: Watched) -> Iterator[float]:
        server = watched.cache.servers[1]
        first = Flight(server)
        watched.flights.begin(first)
        yield flights.LOOK_S * 4.5
        assert (first.looks, first.quiet) == (4, 3), "what had come before the first look is not known"
        watched.received[server.address] = 1
        yield flights.LOOK_S
        assert first.quiet == 0
        yield flights.LOOK_S * 30
        assert watched.news > 0
        watched.flights.end(first)
        yield flights.LOOK_S * 2
        assert watched.flights._timer is None, "nobody looks at nothing"

    watched(scenario)


def test_a_process_that_was_stopped_has_looked_once() -> None:
    def scenario(watched: Watched) -> Iterator[float]:
        flight = Flight(watched.cache.servers[1])
        watched.flights.begin(flight)
        yield flights.LOOK_S * 1.5
        asyncio.get_running_loop().now += 60  # type: ignore[attr-defined]
        yield 0.0
        yield 0.0
        assert flight.quiet <= 1

    watched(scenario)


def test_a_routing_that_sends_a_call_elsewhere_ends_it() -> None:
    async def main() -> None:
        watched = Watched()
        servers = watched.cache.servers
        loop = asyncio.get_running_loop()

        def fly(server: Server, chains: list[int], head: bool) -> Flight:
            flight = ChainFlight(server, chains, head=head)
            flight.waits_for = loop.create_future()
            watched.flights.begin(flight)
            return flight

        stays, replica, head = fly(servers[2], [2], True), fly(servers[1], [1, 3], False), fly(servers[3], [3], True)
        watched.cache.adopt(make_routing(version=2))
        assert not any(flight.waits_for.done() for flight in (stays, replica, head))  # type: ignore[union-attr]
        watched.cache.adopt(make_routing(version=3, states={1: PublicState.OFFLINE}))
        assert replica.waits_for is not None and head.waits_for is not None and stays.waits_for is not None
        with pytest.raises(EmberError) as caught:
            await replica.waits_for
        assert caught.value.code is Code.CHAIN_BROKEN
        assert not stays.waits_for.done() and not head.waits_for.done()
        watched.cache.adopt(make_routing(version=4, states={3: PublicState.SYNCING}))
        with pytest.raises(EmberError):
            await head.waits_for
        watched.flights.close()

    run(main())


# Slow replicas


def test_a_slow_replica_is_left_out_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("fs_client.routing_cache.time.monotonic", lambda: now)
    cache = make_cache(make_routing())
    one, two, three = (cache.servers[node] for node in (1, 2, 3))
    for _ in range(20):
        cache.answered(one, 4 * SLOW_S)
        cache.answered(two, SLOW_S / 10)
        cache.answered(three, SLOW_S / 10)
    assert [server.is_well(now) for server in (one, two, three)] == [False, True, True]
    generation = cache.generation
    now += SLOW_AVOIDED_S + 0.01
    cache.expire_suspects()
    assert one.is_well(now) and cache.generation != generation, "it is asked again"
    cache.answered(one, SLOW_S / 10)
    assert one.is_well(now), "and stays, as it is fast now"
    cache.answered(one, 4 * SLOW_S)
    assert not one.is_well(now)


def test_where_all_are_slow_none_is(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = make_cache(make_routing())
    for _ in range(20):
        for server in cache.servers.values():
            cache.answered(server, 4 * SLOW_S)
    # The first ones were compared with others that had not answered yet.
    for server in cache.servers.values():
        server.slow_until = 0.0
    for _ in range(20):
        for server in cache.servers.values():
            cache.answered(server, 4 * SLOW_S)
    assert all(server.slow_until == 0.0 for server in cache.servers.values())


def test_a_node_that_is_up_again_is_not_suspected_any_more() -> None:
    cache = make_cache(make_routing())
    cache.suspect(cache.servers[1])
    cache.adopt(make_routing(version=2, failed=1))
    assert cache.servers[1].suspect_until > 0
    cache.adopt(make_routing(version=3))
    assert cache.servers[1].suspect_until == 0.0 and cache.servers[1].failures == 0
