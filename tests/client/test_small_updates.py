"""Small updates that share frames: how many frames, whose failure is whose, and who is given up."""

import asyncio
import random

import pytest

from fs_client import aio, write_path
from fs_client.file import AsyncFile
from fs_client.small_updates import FRAMES, ITEMS_MAX
from fs_common.errors import Code, EmberError
from tests.client.fake_cluster import CHUNK, FakeCluster
from tests.client.fake_storage import FakeStorage
from tests.client.test_read_ranges import on_servers
from tests.support import run

COUNT = 20
STRIPE = 3


def small(number: int) -> bytes:
    return random.Random(number).randbytes(500 + number)


def write(file: AsyncFile, number: int) -> "asyncio.Task[None]":
    """Begin to write the start of one chunk. All of them have the same head."""
    return asyncio.ensure_future(file.write_at(number * STRIPE * CHUNK, small(number)))


class Held:
    """The head's answers wait while the block runs, until `go`."""

    def __init__(self, cluster: FakeCluster) -> None:
        self._cluster = cluster

    async def __aenter__(self) -> "Held":
        async def close() -> None:
            for daemon in self._cluster.storage.values():
                daemon.gate = asyncio.Event()
                daemon.arrived.clear()

        await on_servers(self._cluster, close())
        return self

    async def arrived(self) -> FakeStorage:
        """Somebody's frame waits: the head."""

        async def wait() -> None:
            waits = [asyncio.ensure_future(daemon.arrived.wait()) for daemon in self._cluster.storage.values()]
            _, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for waiting in pending:
                waiting.cancel()

        await on_servers(self._cluster, wait())
        return next(daemon for daemon in self._cluster.storage.values() if daemon.arrived.is_set())

    async def go(self) -> None:
        async def open_() -> None:
            for daemon in self._cluster.storage.values():
                if daemon.gate is not None:
                    daemon.gate.set()
                    daemon.gate = None

        await on_servers(self._cluster, open_())

    async def __aexit__(self, *error: object) -> None:
        await self.go()


async def check_contents(fs: aio.AsyncFileSystem, numbers: range | list[int]) -> None:
    data = await fs.read_file("/f")
    for number in numbers:
        start = number * STRIPE * CHUNK
        assert data[start : start + len(small(number))] == small(number)


def test_what_gathers_while_the_head_is_busy_shares_a_frame(cluster: FakeCluster) -> None:
    async def main() -> None:
        async with await aio.connect(cluster.address) as fs, await fs.open("/f", "wb") as file:
            async with Held(cluster) as held:
                writes = [write(file, number) for number in range(COUNT)]
                head = await held.arrived()
                await held.go()
                await asyncio.gather(*writes)
            assert head.update_frames == FRAMES + 1
            assert len(head.updates) == COUNT
            await file.fsync()
            await check_contents(fs, range(COUNT))

    run(main())


def test_a_frame_has_a_bound(cluster: FakeCluster) -> None:
    async def main() -> None:
        async with await aio.connect(cluster.address) as fs, await fs.open("/f", "wb") as file:
            async with Held(cluster) as held:
                writes = [write(file, number) for number in range(FRAMES + ITEMS_MAX + 1)]
                head = await held.arrived()
                await held.go()
                await asyncio.gather(*writes)
            assert head.update_frames == FRAMES + 2

    run(main())


def test_a_larger_update_goes_alone(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_path, "SMALL_BYTES", 1000)

    async def main() -> None:
        async with await aio.connect(cluster.address) as fs, await fs.open("/f", "wb") as file:
            async with Held(cluster) as held:
                sizes = [1001] * (FRAMES + 2) + [1000] * (FRAMES + 2)
                writes = [
                    asyncio.ensure_future(file.write_at(number * STRIPE * CHUNK, bytes(size)))
                    for number, size in enumerate(sizes)
                ]
                head = await held.arrived()
                await held.go()
                await asyncio.gather(*writes)
            assert head.update_frames == FRAMES + 2 + FRAMES + 1

    run(main())


def test_a_failure_is_that_of_its_update_alone(cluster: FakeCluster) -> None:
    async def main() -> None:
        for daemon in cluster.storage.values():
            daemon.update_fault = lambda item: EmberError(Code.NO_SPACE, "full") if item.index == 9 * STRIPE else None
        async with await aio.connect(cluster.address) as fs:
            file = await fs.open("/f", "wb")
            async with Held(cluster) as held:
                writes = [write(file, number) for number in range(COUNT)]
                await held.arrived()
            results = await asyncio.gather(*writes, return_exceptions=True)
            assert [number for number, result in enumerate(results) if isinstance(result, BaseException)] == [9]
            assert isinstance(results[9], OSError) and "chunk 27" in str(results[9])
            await file.close()
            await check_contents(fs, [number for number in range(COUNT) if number != 9])

    run(main())


def test_a_shared_frame_whose_answer_is_lost_is_applied_once(cluster: FakeCluster) -> None:
    async def main() -> None:
        async with await aio.connect(cluster.address) as fs, await fs.open("/f", "wb") as file:
            async with Held(cluster) as held:
                writes = [write(file, number) for number in range(COUNT)]
                head = await held.arrived()
                head.lost_replies = FRAMES + 1
            await asyncio.gather(*writes)
            assert len(head.updates) == COUNT and head.duplicates == COUNT
            await file.fsync()
            await check_contents(fs, range(COUNT))

    run(main())


@pytest.mark.parametrize("given_up", [[0], [FRAMES], [FRAMES + 3, FRAMES + 4], list(range(FRAMES, COUNT))])
def test_who_is_given_up_takes_nobody_along(cluster: FakeCluster, given_up: list[int]) -> None:
    """While gathered: the first frames are still held. While in a shared frame: they have been answered."""

    async def main(shared: bool) -> None:
        async with await aio.connect(cluster.address) as fs:
            file = await fs.open("/f", "wb")
            async with Held(cluster) as held:
                writes = [write(file, number) for number in range(COUNT)]
                head = await held.arrived()
                if shared:
                    await held.go()
                    async with Held(cluster) as again:
                        if head.update_frames <= FRAMES:
                            await again.arrived()
                        for number in given_up:
                            writes[number].cancel()
                        await asyncio.wait([writes[number] for number in given_up])
                else:
                    for number in given_up:
                        writes[number].cancel()
                    await asyncio.wait([writes[number] for number in given_up])
                await held.go()
                await asyncio.gather(*(task for number, task in enumerate(writes) if number not in given_up))
            # An update of somebody who was given up may have been applied or not; of the others each once.
            for number in range(COUNT):
                count = sum(item.index == number * STRIPE for item in head.updates)
                assert count == 1 or (number in given_up and count == 0)
            assert not fs.writer._small._lanes[head.node].waiting
            assert fs.writer._small._lanes[head.node].frames == 0
            await file.close()
            await check_contents(fs, [number for number in range(COUNT) if number not in given_up])
            await fs.unlink("/f")
        for daemon in cluster.storage.values():
            daemon.updates.clear()
            daemon.update_frames = 0

    run(main(False))
    run(main(True))
