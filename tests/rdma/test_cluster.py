"""A whole cluster over real queue pairs: reads, replicated writes, the death of a daemon, its return, a loader's epoch.

The tests share one cluster and go on from each other in order: starting one takes most of a minute in the guest.
"""

import asyncio
import mmap
from collections.abc import Iterator
from pathlib import Path

import pytest

from fs_client import aio, connect, storage_client
from fs_client.loader import ElasticBatchSampler, FileDataset
from fs_client.read_ranges import RangeReader
from fs_common import methods
from fs_common.peers import PeerPool
from fs_common.records.routing import PublicState
from fs_common.records.session import Empty, Stats
from tests.common.loopback import pattern
from tests.rdma.cluster import GuestCluster
from tests.rdma.nursery import be_patient
from tests.support import run

pytestmark = [pytest.mark.rdma, pytest.mark.system]

KIB = 1 << 10
SIZE = 768 * KIB
"""Of the first file: three chunks, one of each chain."""
CHUNK = 256 * KIB
LIMIT_S = 300.0


@pytest.fixture(scope="module")
def guest(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuestCluster]:
    with GuestCluster(tmp_path_factory.mktemp("guest") / "cluster") as running:
        yield running
        if request.session.testsfailed:
            for daemon in running.record.daemons:
                print(f"--- {daemon.name}\n{running.log(daemon)[-4000:]}")


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """An emulated machine with others beside it may take for a call what it has a whole try for elsewhere."""
    monkeypatch.setattr(storage_client, "UPDATE_TRY_S", 60.0)
    monkeypatch.setattr(storage_client, "READ_TRY_S", 60.0)
    # Nor is a read asked of a second replica, whose answer would be counted as well.
    monkeypatch.setattr(RangeReader, "_hedge", lambda *_: None)
    be_patient(PeerPool)


async def connected(guest: GuestCluster) -> aio.AsyncFileSystem:
    return await aio.connect(guest.address, transport="rdma", timeout_s=180)


async def counted(fs: aio.AsyncFileSystem) -> dict[int, dict[str, int]]:
    """What each storage daemon has counted."""
    found = {}
    for node in fs.routing.routing.nodes:
        stats: Stats = await fs.pool.call((node.host, node.port), methods.STATS, Empty(), timeout=30)
        found[node.node] = stats.counters
    return found


def difference(before: dict[int, dict[str, int]], after: dict[int, dict[str, int]], name: str) -> int:
    """Over all daemons."""
    return sum(after[node].get(name, 0) - before.get(node, {}).get(name, 0) for node in after)


def packets() -> int:
    """That the devices of this machine have sent."""
    return sum(
        int((path / "ports/1/hw_counters/sent_pkts").read_text()) for path in Path("/sys/class/infiniband").iterdir()
    )


def test_contents_travel_by_one_sided_reads_and_writes(guest: GuestCluster) -> None:
    async def main() -> None:
        data = pattern(SIZE, 3)
        async with await connected(guest) as fs:
            before, sent = await counted(fs), packets()
            await fs.write_file(Path("/file"), data)
            written, packets_written = await counted(fs), packets()
            assert await fs.read_file(Path("/file")) == data
            read, packets_read = await counted(fs), packets()
            storage = {(node.host, node.port) for node in fs.routing.routing.nodes}
            assert {fs.pool.transports()[where] for where in storage} == {"rdma"}
            assert {fs.pool.transports()[where] for where in fs.options.addresses} == {"tcp"}
        # The head fetches what a client's call brings, which comes again where it is late; each of two others what its
        # predecessor forwards, once.
        brought = difference(before, written, "bytes_written")
        again = difference(before, written, "forward_retries") * CHUNK
        fetched = difference(before, written, "rdma_read_bytes")
        assert brought >= len(data)
        assert brought + 2 * len(data) <= fetched <= brought + 2 * len(data) + again
        assert difference(before, written, "rdma_written_bytes") == 0
        answered = difference(written, read, "rdma_written_bytes")
        assert answered == difference(written, read, "bytes_read") >= len(data)
        assert difference(written, read, "rdma_read_bytes") == 0
        # Messages had no room for it.
        for earlier, later, contents in ((before, written, fetched // 3), (written, read, answered)):
            messages = difference(earlier, later, "rdma_messages_sent") + difference(
                earlier, later, "rdma_messages_received"
            )
            assert messages < 90 * contents / len(data), "8 KiB each, and few of them full: not three times 768 KiB"
        # And the devices have sent it: 4,096 bytes in a packet at most.
        assert packets_written - sent >= 3 * len(data) // 4096
        assert packets_read - packets_written >= len(data) // 4096

    run(main(), timeout=LIMIT_S)


def test_many_small_reads_are_one_frame_for_each_server(guest: GuestCluster) -> None:
    async def main() -> None:
        async with await connected(guest) as fs:
            ref = await fs.ref(Path("/file"))
            await fs.read_ranges([(ref, 0, 4096)])
            before = await counted(fs)
            into = bytearray(90 * 4096)
            await fs.read_ranges([(ref, index * 8192, 4096) for index in range(90)], into=into)
            after = await counted(fs)
            data = pattern(SIZE, 3)
            assert into == b"".join(data[index * 8192 : index * 8192 + 4096] for index in range(90))
            assert difference(before, after, "rdma_written_bytes") == len(into)
            assert difference(before, after, "rpc_read_chunks_calls") <= len(guest.storage)

    run(main(), timeout=LIMIT_S)


def test_a_registered_buffer_is_pinned_once_and_given_back(guest: GuestCluster) -> None:
    def locked_kib() -> int:
        """By devices, as the kernel counts it."""
        (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmPin:"))
        return int(line.split()[1])

    async def main() -> None:
        data = pattern(SIZE, 3)
        async with await connected(guest) as fs:
            ranges = [(await fs.ref(Path("/file")), 0, SIZE)]
            arena = mmap.mmap(-1, SIZE)
            await fs.read_ranges(ranges, arena)
            locked, count = locked_kib(), fs.transport.stats()["rdma_registrations"]
            assert fs.transport._rdma is not None
            # The callers' connections may go over several.
            devices = len(fs.transport._rdma.opened)
            with fs.register(arena):
                assert locked_kib() == locked + devices * SIZE // KIB
                for _ in range(2):
                    arena[:] = bytes(SIZE)
                    await fs.read_ranges(ranges, arena)
                    assert arena[:] == data
                assert fs.transport.stats()["rdma_registrations"] == count + devices
            assert locked_kib() == locked

    run(main(), timeout=LIMIT_S)


def test_an_epoch_of_a_loader(guest: GuestCluster) -> None:
    with connect(guest.address, transport="rdma", timeout_s=180) as fs:
        fs.makedirs("/samples")
        samples = {f"{number:03}": pattern(3000 + number, number) for number in range(24)}
        for name, data in samples.items():
            fs.write_file(f"/samples/{name}", data)
        dataset = FileDataset(fs, "/samples")
        seen: list[bytes] = []
        for indices in ElasticBatchSampler(len(dataset), 8, seed=1):
            seen += [bytes(sample) for sample in dataset.__getitems__(list(indices))]
        assert sorted(seen) == sorted(samples.values())
        assert set(fs._connection().core.pool.transports().values()) == {"rdma", "tcp"}


def test_a_daemon_dies_and_comes_back(guest: GuestCluster) -> None:
    """Reads and writes go on with two replicas; the third is filled up over RDMA when it is back."""
    dead = guest.storage[-1]

    async def states(fs: aio.AsyncFileSystem) -> set[PublicState]:
        await fs.routing.refresh_if_possible(fs.routing.routing.version, 10)
        return {target.state for chain in fs.routing.routing.chains for target in chain.targets}

    async def main() -> None:
        data = pattern(512 * KIB, 7)
        async with await connected(guest) as fs:
            assert await states(fs) == {PublicState.SERVING}
            write = asyncio.ensure_future(fs.write_file(Path("/while"), data))
            await asyncio.sleep(0)
            await asyncio.to_thread(guest.kill, dead)
            await write
            assert await fs.read_file(Path("/while")) == data
            assert await fs.read_file(Path("/file")) == pattern(SIZE, 3)
            await fs.write_file(Path("/after"), data[::-1])
            await asyncio.to_thread(guest.start, dead)
            while await states(fs) != {PublicState.SERVING}:
                await asyncio.sleep(0.2)
            counters = (await counted(fs))[dead.node]
            assert counters["rdma_read_bytes"] >= 512 * KIB, "what it missed came by RDMA"
            assert counters["connections_rdma"] >= 1
            assert await fs.read_file(Path("/after")) == data[::-1]

    run(main(), timeout=LIMIT_S)
