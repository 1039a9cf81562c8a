"""Chains of real daemons whose members die, hang and come back: what is public after each step is what
docs/concurrency/chains.md says, clients go on, and in the end all replicas serve and are the same.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import pytest

from fs_client import aio
from fs_common.errors import EmberError
from fs_common.layout import stripe_chains
from fs_common.records.routing import PublicState, Routing
from tests.storm.cluster import CHUNK_BYTES, Member
from tests.storm.history import FOREVER, Operation, violation
from tests.support import run
from tests.system.healing import HealingCluster, healing_cluster

pytestmark = [pytest.mark.system, pytest.mark.slow]

FILE = "/file"
CHUNKS = 6
TIMEOUT_S = 240.0


class Traffic:
    """Registers, one in each chunk of a file, that a client writes and reads all the time; and readers that learn no
    newer routing. `check` says whether somebody saw what nobody may see."""

    def __init__(self, cluster: HealingCluster, fs: aio.AsyncFileSystem) -> None:
        self.cluster = cluster
        self.fs = fs
        self.histories: list[list[Operation]] = [[] for _ in range(CHUNKS)]
        self.reads = self.writes = 0
        self.old_reads = 0
        """Reads that a replica answered although the reader's routing was that of before."""
        self._values = count(1)

    @staticmethod
    def block(value: int) -> bytes:
        return value.to_bytes(8, "big") * 512

    async def write(self) -> None:
        async with await self.fs.open(FILE, "r+b") as file:
            while True:
                for index in range(CHUNKS):
                    value, start = next(self._values), time.monotonic()
                    end = FOREVER
                    try:
                        data = self.block(value)
                        assert await file.write_at(index * CHUNK_BYTES, data) == len(data)
                        end = time.monotonic()
                        self.writes += 1
                    finally:
                        self.histories[index].append(Operation(start, end, True, value))
                await asyncio.sleep(0.001)

    async def read(self, ref: aio.FileRef) -> None:
        while True:
            for index in range(CHUNKS):
                start = time.monotonic()
                (view,) = await self.fs.read_ranges([(ref, index * CHUNK_BYTES, 4096)])
                self._saw(index, start, bytes(view))
            self.reads += 1
            await asyncio.sleep(0.001)

    async def read_of(self, routing: Routing, ref: aio.FileRef, node: int) -> None:
        """From the targets of that node, under that routing for ever."""
        table = next(t for t in routing.tables if (t.table, t.version) == (ref.layout.table, ref.layout.table_version))
        chains = stripe_chains(ref.layout, table.chains)
        by_number = {chain.chain: chain for chain in routing.chains}
        places = [
            (index, target.target)
            for index in range(CHUNKS)
            for target in by_number[chains[index % len(chains)]].targets
            if target.node == node
        ]
        while True:
            for index, target in places:
                start = time.monotonic()
                try:
                    data = await self.cluster.read_at(routing, ref, index, target, 4096, 20.0)
                except EmberError:
                    continue
                self._saw(index, start, data)
                self.old_reads += 1
            await asyncio.sleep(0.001)

    def _saw(self, index: int, start: float, data: bytes) -> None:
        end = time.monotonic()
        assert data == data[:8] * 512, "bytes of two values"
        self.histories[index].append(Operation(start, end, False, int.from_bytes(data[:8], "big")))

    async def goes_on(self) -> None:
        """Until each register was written and read anew."""
        writes, reads = self.writes, self.reads
        async with asyncio.timeout(60):
            while self.writes < writes + 2 * CHUNKS or self.reads < reads + 3:
                await asyncio.sleep(0.005)

    def check(self) -> None:
        for index, history in enumerate(self.histories):
            assert (found := violation(history)) is None, (index, found)


@asynccontextmanager
async def traffic(cluster: HealingCluster) -> AsyncIterator[Traffic]:
    """While it lasts, registers are written and read. At its end nobody has seen what nobody may see, all targets
    serve, and all replicas are the same."""
    async with await aio.connect(cluster.address, timeout_s=60) as fs:
        async with await fs.open(FILE, "wb") as file:
            for index in range(CHUNKS):
                await file.write_at(index * CHUNK_BYTES, Traffic.block(0))
            await file.truncate(CHUNKS * CHUNK_BYTES)
        made = Traffic(cluster, fs)
        ref = await fs.ref(FILE)
        tasks = [asyncio.create_task(work) for work in (made.write(), made.read(ref))]
        try:
            await made.goes_on()
            yield made
            await cluster.until_whole()
            await made.goes_on()
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if not isinstance(result, asyncio.CancelledError):
                raise AssertionError("a client failed") from result  # type: ignore[misc]
        made.check()
        for index in range(CHUNKS):
            start = time.monotonic()
            (view,) = await fs.read_ranges([(ref, index * CHUNK_BYTES, 4096)])
            made._saw(index, start, bytes(view))
        made.check()
    await cluster.assert_same()


async def hurt(members: list[Member]) -> None:
    await asyncio.gather(*(member.kill() for member in members))


@pytest.mark.parametrize(
    ("order", "back"),
    [
        pytest.param((1, 2, 3), 0, id="head to tail, and come back in that order"),
        pytest.param((3, 2, 1), 1, id="tail to head, and come back in the other order"),
    ],
)
def test_all_die_one_after_the_other(tmp_path: Path, order: tuple[int, ...], back: int) -> None:
    """The last one that served is the one that may serve alone; who was dropped before it is filled up."""

    async def body() -> None:
        async with healing_cluster(tmp_path / "cluster") as cluster, traffic(cluster) as clients:
            first, second, last = order
            survivors = [1, 2, 3]
            await hurt([cluster[first]])
            survivors.remove(first)
            await cluster.until_states(f"{survivors[0]}S {survivors[1]}S {first}O")
            await clients.goes_on()
            await hurt([cluster[second]])
            await cluster.until_states(f"{last}S {first}O {second}O", f"{last}S {second}O {first}O")
            await clients.goes_on()
            await hurt([cluster[last]])
            await cluster.until_states(f"{last}L {first}O {second}O", f"{last}L {second}O {first}O")
            returning = order if back == 0 else tuple(reversed(order))
            for node in returning:
                await cluster[node].start()
                if node == last and back == 1:
                    await cluster.until_states(f"{last}S {first}O {second}O", f"{last}S {second}O {first}O")
                    await clients.goes_on()
                elif back == 0 and node != last:
                    others = [other for other in returning if other != last]
                    waiting = [other for other in others if returning.index(other) <= returning.index(node)]
                    assert await cluster.until_states(
                        *(
                            f"{last}L " + " ".join(f"{one}{'W' if one in waiting else 'O'}" for one in pair)
                            for pair in (others, others[::-1])
                        )
                    )

    run(body(), TIMEOUT_S)


def test_all_die_at_once(tmp_path: Path) -> None:
    async def body() -> None:
        async with healing_cluster(tmp_path / "cluster") as cluster, traffic(cluster) as clients:
            await hurt(cluster.cluster.storage)
            await cluster.until(
                lambda routing: all(
                    target.state is not PublicState.SERVING for chain in routing.chains for target in chain.targets
                ),
                "nobody serves",
            )
            for node in (3, 2, 1):
                await cluster[node].start()
                await cluster[node].ready()
            await cluster.until_whole()
            await clients.goes_on()

    run(body(), TIMEOUT_S)


def test_the_head_dies_while_clients_read(tmp_path: Path) -> None:
    """They go on without anybody's help, and with it back, too."""

    async def body() -> None:
        async with healing_cluster(tmp_path / "cluster") as cluster, traffic(cluster) as clients:
            for node in (1, 2, 3):
                await hurt([cluster[node]])
                await clients.goes_on()
                await cluster[node].start()
                await cluster.until_whole()

    run(body(), TIMEOUT_S)


def test_a_tail_that_committed_and_died_before_it_answered_comes_back_without_help(tmp_path: Path) -> None:
    """What it has committed beside the others is what they agree on: the serving side wins."""

    async def body() -> None:
        words = ("dies-committed",)
        path = tmp_path / "cluster"
        async with healing_cluster(path, module="tests.storm.planted", words=words) as cluster:
            async with traffic(cluster) as clients:
                for node in (3, 2, 1):  # each is the tail of one chain
                    word = cluster[node].directory / "die"
                    word.touch()
                    await asyncio.wait_for(cluster[node].gone(), 60)
                    word.unlink()
                    await clients.goes_on()
                    await cluster[node].start()
                    await cluster.until_whole()

    run(body(), TIMEOUT_S)


def test_a_syncing_target_always_ends_up_serving(tmp_path: Path) -> None:
    """Whoever dies while it is filled up: it, the one that fills it, or the manager."""

    async def body() -> None:
        async with healing_cluster(tmp_path / "cluster") as cluster, traffic(cluster):
            async with await aio.connect(cluster.address, timeout_s=60) as fs:
                order = [1, 2, 3]
                for victim in ("it", "its source", "the manager"):
                    syncing, head, tail = order
                    await hurt([cluster[syncing]])
                    await cluster.until_states(f"{head}S {tail}S {syncing}O")
                    for number in range(20):
                        await fs.write_file(f"/{victim}-{number}", number.to_bytes(1, "big") * 200_000)
                    await cluster[syncing].start()
                    await cluster.until_states(f"{head}S {tail}S {syncing}Y", f"{head}S {tail}S {syncing}S")
                    members = {"it": cluster[syncing], "its source": cluster[tail], "the manager": cluster.cluster.meta}
                    await hurt([members[victim]])
                    await members[victim].start()
                    await cluster.until_whole()
                    for number in range(20):
                        content = await fs.read_file(f"/{victim}-{number}")
                        assert content == number.to_bytes(1, "big") * 200_000
                    order = [int(word[0]) for word in (await cluster.states()).split()]

    run(body(), TIMEOUT_S)


def serves(routing: Routing, node: int) -> bool:
    return any(
        target.node == node and target.state is PublicState.SERVING
        for chain in routing.chains
        for target in chain.targets
    )


@pytest.mark.parametrize(("how", "node"), [("stopped", 1), ("cut off from the manager", 3)])
def test_who_is_left_behind_answers_nothing_old(tmp_path: Path, how: str, node: int) -> None:
    """Asked all the time by a reader that knows no newer routing: what waits in its sockets while it is stopped is
    answered when it goes on, and all that time its clients reach it when only the manager does not."""

    async def body() -> None:
        async with healing_cluster(tmp_path / "cluster") as cluster, traffic(cluster) as clients:
            routing, ref = await cluster.routing(), await clients.fs.ref(FILE)
            old = asyncio.create_task(clients.read_of(routing, ref, node))
            line = cluster.lines[cluster[node].name]
            try:
                while not clients.old_reads:
                    await asyncio.sleep(0.005)
                if how == "stopped":
                    cluster[node].stop()
                else:
                    line.cut()
                await cluster.until(lambda routing: not serves(routing, node), "it is dropped")
                await clients.goes_on()
                if how == "stopped":
                    cluster[node].go_on()
                else:
                    line.mend()
                await cluster.until_whole()
                assert not old.done(), old.exception()
            finally:
                cluster[node].go_on()
                old.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await old

    run(body(), TIMEOUT_S)
