"""Pools and servers whose connections move to RDMA: when, over which device, and what happens when it fails."""

import asyncio
import errno

import pytest

from fs_common import peers
from fs_common.errors import Code, EmberError, Retry
from fs_common.methods import PING, UPDATE_CHUNKS
from fs_common.peers import PeerPool
from fs_common.records.session import Ping
from fs_common.records.storage import UpdateChunks
from fs_common.rpc import Service
from fs_common.transports import tcp
from fs_common.transports.choice import TransportChoice
from fs_common.transports.rdma import devices, process
from fs_common.transports.rdma.verbs import Kind
from tests.certificates import client_files, daemon_files
from tests.common.loopback import MIB, TIMEOUT, hello, pattern, service, until
from tests.rdma.world import AUTO, CLIENT, ONLY_RDMA, ONLY_TCP, Store, goes_over, read, world
from tests.support import run

# Which transport


@pytest.mark.parametrize(("client", "server"), [(AUTO, AUTO), (ONLY_RDMA, AUTO), (AUTO, ONLY_RDMA)])
def test_connections_go_over_rdma_where_both_sides_can(client: TransportChoice, server: TransportChoice) -> None:
    async def main() -> None:
        data = pattern(300_000)
        async with world("10.77.0.1") as here:
            assert here.fabric is not None
            address = await here.serve(Store(data).service, server)
            pool = here.pool(client)
            assert await read(pool, address, len(data)) == data
            assert goes_over(await pool.peer(address)) == "rdma"
            assert here.fabric.moved_bytes[Kind.WRITE] == len(data), "payload travels by WRITE"
            assert here.fabric.moved_bytes[Kind.SEND] < 4096, "and messages carry headers alone"
            assert here.servers[0].service.stats()["rdma_queue_pairs"] == 1
            assert not here.transports[-1].fallbacks

    run(main())


@pytest.mark.parametrize(("client", "server"), [(AUTO, ONLY_TCP), (ONLY_TCP, AUTO), (ONLY_TCP, ONLY_TCP)])
def test_connections_stay_on_tcp_where_one_side_does_not_want(client: TransportChoice, server: TransportChoice) -> None:
    async def main() -> None:
        data = pattern(5000)
        async with world("10.77.0.1") as here:
            address = await here.serve(Store(data).service, server)
            pool = here.pool(client)
            assert await read(pool, address, len(data)) == data
            assert goes_over(await pool.peer(address)) == "tcp"
            assert here.transports[-1].fallbacks == ({"there": 1} if client == AUTO else {})

    run(main())


def test_without_a_device_auto_is_tcp_and_rdma_says_why() -> None:
    async def main() -> None:
        data = pattern(5000)
        async with world() as here:
            address = await here.serve(Store(data).service)
            assert await read(here.pool(), address, len(data)) == data
            with pytest.raises(EmberError, match="this machine has no RDMA device") as caught:
                await read(here.pool(ONLY_RDMA), address, len(data))
            assert caught.value.code is Code.UNREACHABLE
            with pytest.raises(EmberError, match="transport 'rdma' cannot be used: this machine has no RDMA device"):
                here.transport(ONLY_RDMA).check()
            with pytest.raises(EmberError, match="transport 'rdma' cannot be used"):
                await here.serve(service(), ONLY_RDMA)

    run(main())


def test_a_server_that_does_not_offer_it_is_named() -> None:
    async def main() -> None:
        async with world("10.77.0.1") as here:
            host, port = await here.serve(Store().service, ONLY_TCP)
            with pytest.raises(EmberError, match=f"{host}:{port} is not reached by RDMA: the server does not offer it"):
                await here.pool(ONLY_RDMA).call((host, port), PING, Ping(), timeout=TIMEOUT)

    run(main())


def test_metadata_servers_are_spoken_to_over_tcp() -> None:
    async def main() -> None:
        async with world("10.77.0.1") as here:
            address = await here.serve(Service("meta", "test-cluster", 0), ONLY_TCP)
            pool = here.pool(ONLY_RDMA)
            assert await pool.call(address, PING, Ping(b"names"), timeout=TIMEOUT) == Ping(b"names")
            assert goes_over(await pool.peer(address)) == "tcp"

    run(main())


def test_tls_stays_on_tcp() -> None:
    """Whatever the settings let through: nothing that was encrypted goes on in the clear."""

    async def main() -> None:
        async with world("10.77.0.1") as here:
            offered = Store(b"x" * 5000).service
            here.transport(AUTO).offer(offered)
            server = await tcp.serve(offered, "127.0.0.1", 0, tls=daemon_files("storage-7"))
            here.servers.append(server)
            pool = PeerPool(hello(), transport=here.transport(AUTO), tls=client_files(), connect_timeout_s=TIMEOUT)
            here.pools.append(pool)
            assert await read(pool, ("127.0.0.1", server.port), 5000) == b"x" * 5000
            peer = await pool.peer(("127.0.0.1", server.port))
            assert goes_over(peer) != "rdma" and peer.certificate_ends_s is not None

    run(main())


# Which device


def test_connections_are_spread_over_devices() -> None:
    async def main() -> None:
        async with world("10.77.0.1", "10.77.0.2") as here:
            addresses = [await here.serve(Store().service) for _ in range(4)]
            pool = here.pool()
            for address in addresses:
                await pool.call(address, PING, Ping(), timeout=TIMEOUT)
            rdma = here.transports[-1]._rdma
            assert rdma is not None
            assert rdma.choice.connections == {"soft0:1": 2, "soft1:1": 2}
            await pool.close()
            assert rdma.choice.connections == {}

    run(main())


def test_the_server_answers_in_the_callers_network() -> None:
    async def main() -> None:
        async with world("10.77.0.1", "10.78.0.1") as here:
            address = await here.serve(Store().service)
            server = here.transports[-1]
            for device in ("soft0", "soft1"):
                pool = here.pool(TransportChoice("rdma", rdma_devices=(device,)))
                await pool.call(address, PING, Ping(), timeout=TIMEOUT)
            assert server._rdma is not None
            assert server._rdma.choice.connections == {"soft0:1": 1, "soft1:1": 1}

    run(main())


def test_networks_that_do_not_meet() -> None:
    async def main() -> None:
        async with world("10.77.0.1", "10.78.0.1") as here:
            address = await here.serve(Store().service, TransportChoice("auto", rdma_subnets=("10.77.0.0/16",)))
            pool = here.pool(TransportChoice("auto", rdma_devices=("soft1",)))
            await pool.call(address, PING, Ping(), timeout=TIMEOUT)
            assert goes_over(await pool.peer(address)) == "tcp"
            assert here.transports[-1].fallbacks == {"between": 1}
            with pytest.raises(EmberError, match="none of this server's RDMA devices is in its network"):
                await here.pool(TransportChoice("rdma", rdma_devices=("soft1",))).peer(address)

    run(main())


# Failures


def test_a_device_that_fails_in_flight_is_not_the_next_connections() -> None:
    """The update is under way when its queue pair breaks. It is tried again under its id, over the other device, and
    done once."""

    async def main() -> None:
        data = pattern(2 * MIB)
        async with world("10.77.0.1", "10.77.0.2") as here:
            assert here.fabric is not None
            store = Store()
            address = await here.serve(store.service)
            pool = here.pool()
            first = await pool.peer(address)
            store.go_on.clear()
            call = asyncio.ensure_future(
                pool.call(address, UPDATE_CHUNKS, UpdateChunks(CLIENT, []), send=[data], timeout=TIMEOUT)
            )
            await until(lambda: store.tried)
            rdma = here.transports[-1]._rdma
            assert rdma is not None
            ((used, _),) = rdma.choice.connections.items()
            device = used.partition(":")[0]
            here.fabric.port_down(device)
            store.go_on.set()
            with pytest.raises(EmberError) as caught:
                await call
            assert caught.value.code is Code.PEER_GONE and caught.value.retry is Retry.MAYBE_APPLIED
            assert first.closed
            await pool.call(address, UPDATE_CHUNKS, UpdateChunks(CLIENT, []), send=[data], timeout=TIMEOUT)
            assert goes_over(await pool.peer(address)) == "rdma"
            assert list(rdma.choice.connections) == ["soft1:1" if device == "soft0" else "soft0:1"]
            assert store.done == {CLIENT: data} and store.tried == 2

    run(main())


def test_with_no_device_left_it_goes_on_over_tcp() -> None:
    async def main() -> None:
        data = pattern(300_000)
        async with world("10.77.0.1") as here:
            assert here.fabric is not None
            address = await here.serve(Store(data).service)
            pool = here.pool()
            assert await read(pool, address, len(data)) == data
            here.fabric.port_down("soft0")
            with pytest.raises(EmberError):
                await read(pool, address, len(data))
            assert await read(pool, address, len(data)) == data
            assert goes_over(await pool.peer(address)) == "tcp"

    run(main())


def test_a_device_that_cannot_be_opened_leaves_tcp() -> None:
    async def main() -> None:
        async with world("10.77.0.1") as here:
            assert here.fabric is not None
            address = await here.serve(Store().service)
            here.fabric.refuse("queue_pair", errno.ENOMEM)
            pool = here.pool()
            await pool.call(address, PING, Ping(), timeout=TIMEOUT)
            assert goes_over(await pool.peer(address)) == "tcp"
            assert here.transports[-1].fallbacks == {"between": 1}

    run(main())


def test_a_caller_whose_device_fails_halfway_tries_its_next_one() -> None:
    """The server has a queue pair ready for the first by then: it is given up."""

    async def main() -> None:
        async with world("10.77.0.1", "10.77.0.2") as here:
            assert here.fabric is not None
            address = await here.serve(Store().service)
            here.fabric.refuse("connect", errno.EINVAL, after=1)
            pool = here.pool()
            await pool.call(address, PING, Ping(), timeout=TIMEOUT)
            assert goes_over(await pool.peer(address)) == "rdma"
            assert len(here.fabric.queue_pairs) == 2
            for transport in here.transports:
                assert transport._rdma is not None and sum(transport._rdma.choice.connections.values()) == 1

    run(main())


def test_a_connection_that_fell_back_moves_when_it_can_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls under way over TCP meanwhile are answered there."""
    monkeypatch.setattr(peers, "ANOTHER_TRY_S", 0.02)
    monkeypatch.setattr(devices, "PENALTY_S", 0.0)
    monkeypatch.setattr(process, "DEVICES_AGE_S", 0.0)

    async def main() -> None:
        data = pattern(300_000)
        async with world("10.77.0.1") as here:
            assert here.fabric is not None
            store = Store(data)
            address = await here.serve(store.service)
            here.fabric.refuse("queue_pair", errno.ENOMEM, times=2)
            pool = here.pool()
            store.go_on.clear()
            under_way = asyncio.ensure_future(
                pool.call(address, UPDATE_CHUNKS, UpdateChunks(CLIENT, []), send=[data], timeout=TIMEOUT)
            )
            await until(lambda: store.tried)
            first = await pool.peer(address)
            assert goes_over(first) == "tcp"
            await until(lambda: pool.transports().get(address) == "rdma")
            assert await read(pool, address, len(data)) == data
            assert not first.closed
            store.go_on.set()
            await under_way
            assert store.tried == 1
            await until(lambda: first.closed)

    run(main())


@pytest.mark.parametrize("side", ["client", "server"])
def test_where_memory_cannot_be_registered_it_goes_on_over_tcp(side: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        data = pattern(300_000)
        async with world("10.77.0.1") as here:
            fabric = here.fabric
            assert fabric is not None
            address = await here.serve(Store(data).service)
            pool = here.pool()
            await pool.call(address, PING, Ping(), timeout=TIMEOUT)
            first = await pool.peer(address)
            assert goes_over(first) == "rdma"
            # The client registers first, then the server.
            fabric.refuse("register", errno.ENOMEM, after=0 if side == "client" else 1)
            with pytest.raises(EmberError) as caught:
                await read(pool, address, len(data))
            assert caught.value.code is (Code.UNREACHABLE if side == "client" else Code.PEER_GONE)
            await until(lambda: first.closed)
            assert await read(pool, address, len(data)) == data
            assert goes_over(await pool.peer(address)) == "tcp"
            lines = [record.message for record in caplog.records if "over TCP" in record.message]
            assert len(lines) == 1 and "293 KiB of memory cannot be registered" in lines[0]

    run(main())


def test_where_rdma_is_demanded_a_refusal_of_memory_is_told_to_the_call_alone() -> None:
    async def main() -> None:
        data = pattern(300_000)
        async with world("10.77.0.1") as here:
            assert here.fabric is not None
            address = await here.serve(Store(data).service)
            pool = here.pool(ONLY_RDMA)
            await pool.call(address, PING, Ping(), timeout=TIMEOUT)
            here.fabric.refuse("register", errno.ENOMEM)
            with pytest.raises(EmberError, match="memory cannot be registered"):
                await read(pool, address, len(data))
            assert await read(pool, address, len(data)) == data
            assert goes_over(await pool.peer(address)) == "rdma"

    run(main())
