"""What a client registers while it reads and writes over RDMA: its buffers, once, and no longer than they last."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial

import numpy as np
import pytest

from fs_client import aio
from fs_client.loader.batch import Batch
from fs_common.transports.choice import TransportChoice
from fs_common.transports.payload import PayloadTransport
from fs_common.transports.rdma.verbs import Kind
from tests.client.fake_cluster import CHUNK, FakeCluster
from tests.common.loopback import pattern
from tests.rdma.soft_verbs import Fabric
from tests.support import run

DAEMONS = 3


class Connected:
    def __init__(self, fabric: Fabric, fs: aio.AsyncFileSystem) -> None:
        self.fabric = fabric
        self.fs = fs

    def stat(self, name: str) -> int:
        return self.fs.transport.stats()[f"rdma_{name}"]


@pytest.fixture
def fabric(monkeypatch: pytest.MonkeyPatch) -> Fabric:
    """Whoever connects finds its devices."""
    fabric = Fabric({"soft0": "127.0.0.1"})
    monkeypatch.setattr(aio, "PayloadTransport", partial(PayloadTransport, find_binding=fabric.binding))
    return fabric


@contextlib.asynccontextmanager
async def connected(fabric: Fabric) -> AsyncIterator[Connected]:
    """A client of three daemons, all in this loop; it is connected to each."""
    cluster = FakeCluster(nodes=DAEMONS, replicas=1, stripe=DAEMONS)
    cluster._loop.close()
    cluster._loop = asyncio.get_running_loop()
    transports = []
    for daemon in cluster.storage.values():
        transport = PayloadTransport(TransportChoice("auto"), fabric.binding)
        transport.offer(daemon.service)
        transports.append(transport)
    await cluster._start()
    try:
        async with await aio.connect(cluster.address, transport="rdma") as fs:
            await fs.write_file("/warm", bytes(DAEMONS * CHUNK))
            yield Connected(fabric, fs)
    finally:
        await cluster._stop()
        for transport in transports:
            transport.close()
    assert not fabric.faults, "no region outlives its memory"
    assert not fabric.contexts


def test_a_registered_buffer_is_one_region_for_all_reads(fabric: Fabric) -> None:
    async def main() -> None:
        async with connected(fabric) as c:
            data = pattern(4 * DAEMONS * CHUNK)
            await c.fs.write_file("/f", data)
            arena = np.zeros(len(data), np.uint8)
            before, moved = c.stat("registrations"), fabric.moved_bytes[Kind.WRITE]
            with c.fs.register(arena):
                assert c.stat("registrations") == before + 1
                for _ in range(3):
                    arena[:] = 0
                    await c.fs.read_ranges([("/f", 0, len(data))], arena)
                    assert arena.tobytes() == data
                    await c.fs.read_ranges([("/f", i * CHUNK, 1000) for i in range(12)], memoryview(arena)[100:])
            assert c.stat("registrations") == before + 1
            assert fabric.moved_bytes[Kind.WRITE] - moved == 3 * (len(data) + 12 * 1000), "by WRITE, and nothing twice"

    run(main())


def test_a_buffer_is_registered_once_for_a_read_from_many(fabric: Fabric) -> None:
    async def main() -> None:
        async with connected(fabric) as c:
            data = pattern(4 * DAEMONS * CHUNK)
            await c.fs.write_file("/f", data)
            ranges = [("/f", at, CHUNK) for at in range(0, len(data), CHUNK)]
            regions, count = c.stat("regions"), c.stat("registrations")
            passing = bytearray(len(data))
            for _ in range(2):
                await c.fs.read_ranges(ranges, passing)
                assert passing == data
            assert (c.stat("regions"), c.stat("registrations")) == (regions, count + 2), "for each read, and no longer"
            passing.extend(b"resized")
            kept = np.zeros(len(data), np.uint8)
            for _ in range(2):
                await c.fs.read_ranges(ranges, kept)
                assert kept.tobytes() == data
            assert (c.stat("regions"), c.stat("registrations")) == (regions + 1, count + 3), "an array is kept"
            views = await c.fs.read_ranges(ranges)
            assert b"".join(views) == data
            assert (c.stat("regions"), c.stat("registrations")) == (regions + 1, count + 4), "so is one that is made"

    run(main())


def test_memory_by_address_is_read_into(fabric: Fabric) -> None:
    async def main() -> None:
        async with connected(fabric) as c:
            data = pattern(2 * DAEMONS * CHUNK)
            await c.fs.write_file("/f", data)
            owned = np.zeros(len(data), np.uint8)
            with c.fs.register_address(owned.ctypes.data, len(data)) as buffer:
                count = c.stat("registrations")
                views = await c.fs.read_ranges([("/f", 0, len(data))], buffer.view)
                assert c.stat("registrations") == count
                del views
            assert owned.tobytes() == data

    run(main())


def test_what_is_written_is_read_from_where_it_lies(fabric: Fabric) -> None:
    async def main() -> None:
        async with connected(fabric) as c:
            data = bytearray(pattern(2 * DAEMONS * CHUNK))
            regions, read = c.stat("regions"), fabric.moved_bytes[Kind.READ]
            await c.fs.write_file("/f", data)
            assert fabric.moved_bytes[Kind.READ] - read == len(data), "by READ, and nothing twice"
            assert c.stat("regions") == regions
            data.extend(b"resized")
            assert await c.fs.read_file("/f") == data[:-7]

    run(main())


def test_a_batch_of_a_loader_owns_its_arena_when_it_is_here(fabric: Fabric) -> None:
    async def main() -> None:
        async with connected(fabric) as c:
            data = pattern(2 * DAEMONS * CHUNK)
            await c.fs.write_file("/f", data)
            from fs_client.memory import allocate

            regions = c.stat("regions")
            arena = allocate(len(data))
            await c.fs.read_ranges([("/f", at, CHUNK) for at in range(0, len(data), CHUNK)], arena)
            batch = Batch.of(np.frombuffer(arena, np.uint8), np.full(2 * DAEMONS, CHUNK))
            assert c.stat("regions") == regions, "the arena is its own now"
            assert b"".join(sample.tobytes() for sample in batch) == data

    run(main())
