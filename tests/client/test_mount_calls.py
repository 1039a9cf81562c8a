"""What the mount asks of the client: reads that are reported one by one, chunks that are removed, chains that are
synced."""

import asyncio
import random

import pytest

from fs_client import FileSystem, aio
from fs_client.file_ref import FileRef
from fs_client.sync_chains import sync_file
from fs_common.errors import Code, EmberError
from fs_common.layout import stripe_chains
from fs_common.records.routing import PublicState
from tests.client.fake_cluster import CHUNK, FakeCluster
from tests.support import run

DATA = random.Random(5).randbytes(7 * CHUNK + 100)


async def read_each(
    fs: aio.AsyncFileSystem, ranges: list[tuple[FileRef, int, int]]
) -> tuple[list[bytes], dict[int, EmberError]]:
    """What was found at each place, and the errors; fails unless each range is reported exactly once."""
    places = [memoryview(bytearray(length)) for _, _, length in ranges]
    reported: dict[int, EmberError | None] = {}
    all_ended = asyncio.get_running_loop().create_future()
    tasks = []

    def ended(number: int, error: EmberError | None) -> None:
        assert number not in reported
        reported[number] = error
        if len(reported) == len(ranges):
            all_ended.set_result(None)

    fs.reader.start(ranges, places, ended, lambda coroutine: tasks.append(asyncio.ensure_future(coroutine)))
    await all_ended
    await asyncio.gather(*tasks)
    return [bytes(place) for place in places], {n: error for n, error in reported.items() if error is not None}


def test_each_range_lands_in_a_place_of_its_own(cluster: FakeCluster, fs: FileSystem) -> None:
    fs.write_file("/f", DATA)

    async def scenario() -> None:
        async with await aio.connect(cluster.address) as client:
            file = await client.ref("/f")
            found, errors = await read_each(client, [(file, 5, 100), (file, CHUNK - 3, 6), (file, 0, len(DATA))])
        assert not errors
        assert found == [DATA[5:105], DATA[CHUNK - 3 : CHUNK + 3], DATA]

    run(scenario())


def test_a_range_that_fails_fails_alone(cluster: FakeCluster, fs: FileSystem) -> None:
    fs.write_file("/f", DATA)
    for daemon in cluster.storage.values():
        daemon.read_fault = lambda item: EmberError(Code.DISK_FAILED, "gone") if item.index == 2 else None

    async def scenario() -> None:
        async with await aio.connect(cluster.address) as client:
            file = await client.ref("/f")
            ranges = [(file, index * CHUNK, 10) for index in range(5)]
            found, errors = await read_each(client, [*ranges, (file, 2 * CHUNK - 5, 10)])
        assert set(errors) == {2, 5}
        assert all(error.code is Code.DISK_FAILED for error in errors.values())
        assert [found[index] for index in (0, 1, 3, 4)] == [DATA[i * CHUNK : i * CHUNK + 10] for i in (0, 1, 3, 4)]

    run(scenario())


def test_what_one_replica_cannot_give_another_one_gives(cluster: FakeCluster, fs: FileSystem) -> None:
    fs.write_file("/f", DATA)
    cluster.storage[1].read_fault = lambda item: EmberError(Code.DISK_FAILED, "gone")

    async def scenario() -> None:
        async with await aio.connect(cluster.address) as client:
            file = await client.ref("/f")
            found, errors = await read_each(client, [(file, index * CHUNK, CHUNK) for index in range(7)])
        assert not errors and b"".join(found) == DATA[: 7 * CHUNK]

    run(scenario())


def test_removed_chunks_read_as_zeros_and_order_with_writes_holds(cluster: FakeCluster, fs: FileSystem) -> None:
    fs.write_file("/f", DATA)

    async def scenario() -> None:
        async with await aio.connect(cluster.address) as client:
            file = await client.ref("/f")
            removing = asyncio.ensure_future(client.writer.remove(file, range(1, 4)))
            await asyncio.sleep(0)
            await client.writer.write(file, 2 * CHUNK, memoryview(b"after"), lambda _: None)
            await removing
            (found,) = await client.read_ranges([(file, 0, len(DATA))])
        expected = bytearray(DATA)
        expected[CHUNK : 4 * CHUNK] = bytes(3 * CHUNK)
        expected[2 * CHUNK : 2 * CHUNK + 5] = b"after"
        assert found == expected

    run(scenario())


@pytest.mark.parametrize("indexes", [{0}, {0, 1, 2, 3, 4, 5}])
def test_chains_are_synced_on_all_replicas_that_serve(cluster: FakeCluster, fs: FileSystem, indexes: set[int]) -> None:
    fs.write_file("/f", b"")

    async def scenario() -> list[int]:
        async with await aio.connect(cluster.address) as client:
            file = await client.ref("/f")
            share = client.storage.unsynced.open(file.inode)
            for index in indexes:
                await client.writer.write(file, index * CHUNK, memoryview(b"x"), lambda _: None)
            # The client's routing is older than this change: it is told so, and asks again.
            cluster.set_chain(1, {3: PublicState.OFFLINE})
            await sync_file(client.storage, share, 10.0)
            assert not share.marks
            chains = stripe_chains(file.layout, [1, 2, 3])
            return sorted({chains[index % 3] for index in indexes})

    chains = run(scenario())
    for node, daemon in cluster.storage.items():
        synced = sorted({chain for chains in daemon.synced[-1:] for chain in chains})
        assert synced == [chain for chain in chains if (chain, node) != (1, 3)]
