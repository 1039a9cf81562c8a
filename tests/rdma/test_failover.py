"""A wire that loses packets or is cut while calls are under way: two pairs of devices, each at a cable.

Callers have rxe0 and rxe2, the server rxe1 and rxe3. The last test cuts a cable for good.
"""

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator, Iterator

import pytest

from fs_common.errors import Code, EmberError, Retry
from fs_common.methods import UPDATE_CHUNKS
from fs_common.peers import Address, PeerPool
from fs_common.records.storage import UpdateChunks
from fs_common.transports.choice import TransportChoice
from fs_common.transports.rdma import bindings
from tests.common.loopback import MIB, TIMEOUT, pattern, until
from tests.rdma.world import CLIENT, Store, World, goes_over, read
from tests.support import run

pytestmark = [pytest.mark.rdma(devices=4)]

CALLERS = TransportChoice("auto", ("rxe0", "rxe2"))
SERVERS = TransportChoice("auto", ("rxe1", "rxe3"))
LIMIT_S = 120.0


def shell(*words: str) -> None:
    subprocess.run(words, check=True)


@contextlib.contextmanager
def losing(loss: str) -> Iterator[None]:
    """The first cable loses so much in both directions."""
    for interface in ("eth0", "eth1"):
        shell("tc", "qdisc", "add", "dev", interface, "root", "netem", "loss", loss)
    try:
        yield
    finally:
        for interface in ("eth0", "eth1"):
            shell("tc", "qdisc", "del", "dev", interface, "root")


@contextlib.asynccontextmanager
async def connected(store: Store) -> AsyncIterator[tuple[World, PeerPool, Address]]:
    """Over the first pair."""
    here = World(bindings.load)
    try:
        address = await here.serve(store.service, SERVERS)
        pool = here.pool(CALLERS)
        assert goes_over(await pool.peer(address)) == "rdma"
        yield here, pool, address
    finally:
        await here.close()


def over(here: World) -> list[str]:
    """The callers' ports that connections go over."""
    rdma = here.transports[-1]._rdma
    assert rdma is not None
    return list(rdma.choice.connections)


async def update(pool: PeerPool, address: Address, data: bytes) -> None:
    await pool.call(address, UPDATE_CHUNKS, UpdateChunks(CLIENT, []), send=[data], timeout=TIMEOUT)


def test_lost_packets_are_sent_again() -> None:
    async def main() -> None:
        data = pattern(MIB, 5)
        store = Store(data)
        async with connected(store) as (here, pool, address):
            assert over(here) == ["rxe0:1"]
            with losing("2%"):
                assert await read(pool, address, len(data)) == data
                await update(pool, address, data)
            assert store.done == {CLIENT: data} and store.tried == 1
            assert over(here) == ["rxe0:1"]

    run(main(), timeout=LIMIT_S)


def test_a_wire_that_loses_everything_is_given_up_and_the_update_is_done_once() -> None:
    """The answer does not get through: nobody knows whether it was done. Under its id it is asked again, elsewhere."""

    async def main() -> None:
        data = pattern(MIB, 6)
        store = Store()
        async with connected(store) as (here, pool, address):
            store.go_on.clear()
            first = asyncio.ensure_future(update(pool, address, data))
            await until(lambda: store.tried)
            with losing("100%"):
                store.go_on.set()
                with pytest.raises(EmberError) as caught:
                    await first
                assert caught.value.code is Code.PEER_GONE and caught.value.retry is Retry.MAYBE_APPLIED
                while store.tried < 2:
                    with contextlib.suppress(EmberError):
                        await update(pool, address, data)
            assert store.done == {CLIENT: data}
            assert goes_over(await pool.peer(address)) == "rdma" and over(here) == ["rxe2:1"]

    run(main(), timeout=LIMIT_S)


def test_a_link_that_goes_down_in_the_middle_of_a_write() -> None:
    """The last one: the cable's addresses and routes go with it."""

    async def main() -> None:
        data = pattern(8 * MIB, 7)
        store = Store()
        async with connected(store) as (here, pool, address):
            (used,) = over(here)
            writing = asyncio.ensure_future(update(pool, address, data))
            read_bytes = here.servers[0].service.stats
            await until(lambda: read_bytes()["rdma_read_bytes"] or writing.done())
            shell("ip", "link", "set", "eth0" if used == "rxe0:1" else "eth2", "down")
            with contextlib.suppress(EmberError):
                await writing
            while not store.done:
                with contextlib.suppress(EmberError):
                    await update(pool, address, data)
            await update(pool, address, data)
            assert store.done == {CLIENT: data}
            peer = await pool.peer(address)
            assert (goes_over(peer), over(here)) == ("rdma", ["rxe2:1" if used == "rxe0:1" else "rxe0:1"])

    run(main(), timeout=LIMIT_S)
