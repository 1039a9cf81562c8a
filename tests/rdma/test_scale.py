"""docs/SCALE.md says what queue pairs and registered memory come to: computed here from the code's constants."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from fs_client.fuse import channel, mount
from fs_common import limits
from fs_common.limits import KIB, MIB
from fs_common.methods import PING
from fs_common.records.session import Ping
from fs_common.settings import StorageSettings
from fs_common.transports.rdma import endpoint, memory, slabs
from fs_storage import service
from tests.common.loopback import TIMEOUT, until
from tests.rdma.world import Store, world
from tests.support import run

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "SCALE.md").read_text()
PLACES = 3
"""In the longest chain that the page speaks of."""
PAYLOAD_BYTES = next(
    one.default for one in msgspec.structs.fields(StorageSettings) if one.name == "payload_memory_bytes"
)
POOLS_BYTES = slabs.POOL_BYTES_MAX + service.POOL_KEPT_BYTES + PLACES * PAYLOAD_BYTES


def rows(first: str) -> Iterator[list[str]]:
    """Cells of the rows that begin so."""
    for line in TEXT.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if re.fullmatch(first, cells[0]):
            yield cells


def mib(size: float) -> str:
    return f"{size / MIB:.1f} MiB"


def test_of_a_connection() -> None:
    told = {cells[0]: cells[1] for cells in rows(".*(slots for|outstanding|lent to).*")}
    assert list(told.values()) == [
        f"{endpoint.SLOTS_BYTES // KIB} KiB",
        str(endpoint.SEND_DEPTH),
        f"{limits.BYTES_IN_FLIGHT_MAX // MIB} MiB",
    ]


def test_of_a_client() -> None:
    found = list(rows("[0-9]+ daemons"))
    assert len(found) == 3
    for cells in found:
        count = int(cells[0].split()[0])
        slots = count * endpoint.SLOTS_BYTES
        kept = memory.CACHE_BYTES_MAX
        assert cells[1:] == [str(count), mib(slots), f"{kept // MIB} MiB", mib(slots + kept)]
    assert f"{memory.CACHE_REGIONS_MAX:,} regions, each for {memory.CACHE_AGE_S:.0f} seconds" in TEXT
    payload = inspect.signature(channel.Channel).parameters["payload_bytes_max"].default
    mounted = f"{(payload + mount.POOL_BYTES_MAX) // MIB} MiB more at most: {payload // MIB} MiB for the data of writes"
    assert mounted in TEXT
    assert f"and {mount.POOL_BYTES_MAX // MIB} MiB of recycled buffers" in TEXT


def test_of_a_daemon() -> None:
    found = list(rows("[0-9]+ clients"))
    assert len(found) == 3
    for cells in found:
        count = int(cells[0].split()[0])
        slots = count * endpoint.SLOTS_BYTES
        assert cells[1:] == [str(count), mib(slots), f"{POOLS_BYTES // MIB} MiB", mib(slots + POOLS_BYTES)]
    assert f"{slabs.POOL_BYTES_MAX // MIB} MiB of slabs" in TEXT
    assert f"{service.POOL_KEPT_BYTES // MIB} MiB of recycled buffers; payload" in TEXT
    assert f"{PAYLOAD_BYTES // MIB} MiB (`payload_memory_bytes`)" in TEXT


def test_of_daemons_among_themselves() -> None:
    sources = (Path(service.__file__).parent).glob("*.py")
    fixed = sum(len(re.findall(r"= make_pool\(\)", path.read_text())) for path in sources)
    each = fixed + PLACES - 1
    assert f"at most {each} in each direction with chains of three replicas" in TEXT
    pairs = each * 2 * 199
    assert f"{pairs:,} queue pairs more and {mib(pairs * endpoint.SLOTS_BYTES)} of slots" in TEXT


def test_connections_have_what_is_said_of_them_and_give_it_back() -> None:
    async def main() -> None:
        async with world("10.77.0.1") as here:
            fabric = here.fabric
            assert fabric is not None
            addresses = [await here.serve(Store().service) for _ in range(7)]
            pool = here.pool()
            for address in addresses:
                await pool.call(address, PING, Ping(), timeout=TIMEOUT)
            client = here.transports[-1].stats()
            assert client["rdma_queue_pairs"] == client["rdma_regions"] == 7
            assert client["rdma_registered_bytes"] == 7 * endpoint.SLOTS_BYTES
            others = [here.pool() for _ in range(4)]
            for other in others:
                await other.call(addresses[0], PING, Ping(), timeout=TIMEOUT)
            daemon = here.servers[0].service.stats()
            assert daemon["rdma_queue_pairs"] == daemon["rdma_regions"] == 5
            assert daemon["rdma_registered_bytes"] == 5 * endpoint.SLOTS_BYTES
            await pool.close()
            assert here.transports[7].stats()["rdma_registered_bytes"] == 0
            await until(lambda: here.servers[0].service.stats()["rdma_registered_bytes"] == 4 * endpoint.SLOTS_BYTES)

    run(main())
