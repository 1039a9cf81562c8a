"""A wire that loses packets or is cut while calls are under way: two pairs of devices, each at a cable.

Callers have rxe0 and rxe2, the server rxe1 and rxe3.
"""

import asyncio
import contextlib
import re
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from fs_common.errors import Code, EmberError, Retry
from fs_common.methods import UPDATE_CHUNKS
from fs_common.peers import Address, PeerPool
from fs_common.records.storage import UpdateChunks
from fs_common.transports.choice import TransportChoice
from fs_common.transports.rdma import bindings
from tests.common.loopback import MIB, TIMEOUT, pattern, until
from tests.rdma.world import CLIENT, Store, World, goes_over, read
from tests.support import PATIENCE, run

pytestmark = [pytest.mark.rdma(devices=4)]

T = TypeVar("T")
CALLERS = TransportChoice("auto", ("rxe0", "rxe2"))
SERVERS = TransportChoice("auto", ("rxe1", "rxe3"))
LIMIT_S = 60.0 * PATIENCE


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


class Cable:
    """Between the interfaces of two devices, as `guest/init.sh` lays it: `first` is 0 or 2."""

    def __init__(self, first: int) -> None:
        self.ends = [f"eth{first}", f"eth{first + 1}"]
        self.devices = [f"rxe{first}", f"rxe{first + 1}"]
        self._tables = [str(101 + first), str(102 + first)]
        self._routes = [lines("ip", "route", "show", "table", table) for table in self._tables]
        self._neighbours = [lines("ip", "-4", "neigh", "show", "dev", end, "nud", "permanent") for end in self.ends]

    def cut(self) -> None:
        shell("ip", "link", "set", self.ends[0], "down")

    def mend(self) -> None:
        """As it was: what the kernel forgets of an interface that is down is said again."""
        shell("ip", "link", "set", self.ends[0], "up")
        for end, table, routes, neighbours in zip(self.ends, self._tables, self._routes, self._neighbours, strict=True):
            for route in routes:
                shell("ip", "route", "replace", *route.split(), "table", table)
            for neighbour in neighbours:
                address, _, hardware, *_ = neighbour.split()
                shell("ip", "neigh", "replace", address, "lladdr", hardware, "dev", end)
        # Devices follow their interfaces a moment later.
        ends = time.monotonic() + LIMIT_S
        while not all(map(works, self.devices)):
            assert time.monotonic() < ends, f"{self.devices} do not come back"


def works(device: str) -> bool:
    port = Path("/sys/class/infiniband") / device / "ports/1"
    mapped = (path.read_text() for path in (port / "gids").iterdir())
    return port.joinpath("state").read_text().startswith("4") and any(":ffff:0a4d:" in gid for gid in mapped)


def lines(*words: str) -> list[str]:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()


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


async def answered(call: Callable[[], Awaitable[T]]) -> T:
    """As every caller does: made again, by its class, until it is answered."""
    while True:
        try:
            return await call()
        except EmberError as error:
            assert error.retry in (Retry.MAYBE_APPLIED, Retry.SAFE), error


def dropped(interface: str) -> int:
    (count,) = re.findall(r"\(dropped (\d+),", "".join(lines("tc", "-s", "qdisc", "show", "dev", interface, "root")))
    return int(count)


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
                # The devices send again what is lost; where they give up, which takes seven tries, callers do.
                assert await answered(lambda: read(pool, address, len(data))) == data
                await answered(lambda: update(pool, address, data))
                lost = sum(map(dropped, ("eth0", "eth1")))
            assert lost > 0
            assert store.done == {CLIENT: data}

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
    cables = {"rxe0:1": Cable(0), "rxe2:1": Cable(2)}

    async def main() -> None:
        data = pattern(8 * MIB, 7)
        store = Store()
        async with connected(store) as (here, pool, address):
            (used,) = over(here)
            writing = asyncio.ensure_future(update(pool, address, data))
            read_bytes = here.servers[0].service.stats
            await until(lambda: read_bytes()["rdma_read_bytes"] or writing.done())
            cables[used].cut()
            with contextlib.suppress(EmberError):
                await writing
            await answered(lambda: update(pool, address, data))
            assert store.done == {CLIENT: data}
            peer = await pool.peer(address)
            assert (goes_over(peer), over(here)) == ("rdma", ["rxe2:1" if used == "rxe0:1" else "rxe0:1"])

    try:
        run(main(), timeout=LIMIT_S)
    finally:
        for cable in cables.values():
            cable.mend()
