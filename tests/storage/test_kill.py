"""Real daemons that are killed (SIGKILL) while clients write and read: nothing acknowledged is lost, nothing old seen.

Chains go on without who was killed, and fill it up when it is back. Each chunk has one writer, so that what a reader
may see is known exactly: at least what was acknowledged when the read began, at most what had been sent when it ended,
and never less than a read before it.
"""

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from fs_client.cli.local.launch import LaunchedCluster
from fs_common.checksums import matches, page_checksums
from fs_common.errors import Code, EmberError, Retry
from fs_common.methods import GET_ROUTING, READ_CHUNKS, UPDATE_CHUNKS
from fs_common.peers import PeerPool
from fs_common.records.routing import GetRouting, Routing
from fs_common.records.session import Hello
from fs_common.records.storage import ReadChunks, ReadItem, UpdateChunks, UpdateItem, UpdateKind
from tests.support import run

CHUNK = 1 << 20
KILLS = 6
SIZES = (10, 5_000, 70_000, CHUNK)


class Register:
    """One chunk, its writer and its readers."""

    def __init__(self, world: "World", number: int) -> None:
        self.world = world
        self.inode = 1000 + number
        self.chain = number % 3 + 1
        self.client = os.urandom(16)
        self.acknowledged = 0
        """The newest value that was acknowledged; 0: none."""
        self.sent = 0
        self.seen = 0
        """The newest value any reader has got."""

    def content(self, value: int) -> bytes:
        """8 bytes of value, then a pattern of it; its length depends on it too."""
        size = SIZES[value % len(SIZES)]
        return value.to_bytes(8, "big") + bytes([value % 251]) * (size - 8)

    async def write(self) -> None:
        while not self.world.over:
            value = self.sent + 1
            data = self.content(value)
            if len(data) < len(self.content(value - 1)):
                # A shorter value needs two updates; the first of them leaves the old value in place.
                value = await self.update(UpdateKind.TRUNCATE, b"", len(data), value)
            await self.update(UpdateKind.WRITE, data, 0, value)
            self.acknowledged = value

    async def update(self, kind: UpdateKind, data: bytes, offset: int, value: int) -> int:
        item = UpdateItem(
            self.chain,
            0,
            self.inode,
            0,
            kind,
            offset,
            len(data),
            CHUNK,
            1,
            value * 2 + (kind is UpdateKind.WRITE),
            page_checksums(memoryview(data), offset, CHUNK) if data else b"",
            self.world.durability,
        )
        if kind is UpdateKind.WRITE:
            self.sent = value
        while True:
            item = msgspec.structs.replace(item, chain_version=self.world.version(self.chain))
            try:
                reply = await self.world.call(self.chain, 0, UPDATE_CHUNKS, UpdateChunks(self.client, [item]), [data])
            except EmberError as error:
                assert error.retry is not Retry.FINAL, error
            else:
                if not reply.errors:
                    return value
                assert reply.errors[0].code not in (
                    Code.UPDATE_STALE.value.number,
                    Code.UPDATE_MISSING.value.number,
                    Code.CHECKSUM.value.number,
                ), reply.errors[0]
                self.world.refusals += 1
            await self.world.look()

    async def read(self) -> None:
        while not self.world.over:
            await self.read_once(self.world.random.randrange(3))

    async def read_once(self, place: int) -> bool:
        """One read; whether it was answered."""
        into = memoryview(bytearray(CHUNK))
        item = ReadItem(self.chain, self.world.version(self.chain), self.inode, 0, 0, CHUNK, CHUNK)
        least = max(self.acknowledged, self.seen)
        try:
            reply = await self.world.call(self.chain, place, READ_CHUNKS, ReadChunks([item]), (), [into])
        except EmberError:
            await self.world.look()
            return False
        if reply.errors:
            code = reply.errors[0].code
            if code == Code.CHUNK_NOT_FOUND.value.number:
                assert least == 0, "a chunk that was written is not found"
                return True
            assert code != Code.CHECKSUM.value.number, reply.errors[0]
            await self.world.look()
            return False
        data = bytes(into[: reply.lengths[0]])
        if data and not matches(memoryview(data), 0, CHUNK, reply.checksums[0]):
            self.world.torn += 1
            return False  # the block changed while it was being sent; a client reads again
        value = int.from_bytes(data[:8], "big")
        assert least <= value <= self.sent, (least, value, self.sent)
        whole = self.content(value)
        assert data == whole or (len(data) < len(whole) and data == whole[: len(data)]), "bytes of two values"
        self.seen = max(self.seen, value)
        self.world.reads += 1
        return True


class World:
    def __init__(self, cluster: LaunchedCluster, durability: int, seed: int) -> None:
        self.cluster = cluster
        self.durability = durability
        self.random = random.Random(seed)
        self.pool = PeerPool(Hello([1], "client", os.urandom(16)))
        self.over = False
        self.reads = 0
        self.refusals = 0
        self.torn = 0
        self.routing: Routing
        self.tasks: list[asyncio.Task[None]] = []

    async def call(self, chain, place, method, request, send=(), into=()):  # type: ignore[no-untyped-def]
        target = self.routing.chains[chain - 1].targets[place]
        (node,) = [node for node in self.routing.nodes if node.node == target.node]
        return await self.pool.call((node.host, node.port), method, request, send=send, into=into, timeout=3.0)

    def version(self, chain: int) -> int:
        return self.routing.chains[chain - 1].version

    async def look(self) -> None:
        """A pause, then the chains as they are."""
        await asyncio.sleep(0.02)
        host, port = self.cluster.address.split(":")
        reply = await self.pool.call((host, int(port)), GET_ROUTING, GetRouting(), timeout=10.0)
        self.routing = reply.routing

    async def live(self) -> None:
        await self.look()
        registers = [Register(self, number) for number in range(6)]
        tasks = self.tasks = [asyncio.create_task(register.write()) for register in registers]
        tasks += [asyncio.create_task(register.read()) for register in registers for _ in range(2)]
        try:
            for _ in range(KILLS):
                await self.progress(registers)
                victims = self.random.sample([1, 2, 3], self.random.choice([1, 1, 2, 3]))
                for victim in victims:
                    await self.kill(victim)
            await self.progress(registers)
            self.over = True
            await asyncio.gather(*tasks)
            for register in registers:
                for place in range(3):
                    register.seen = max(register.seen, register.acknowledged)
                    while not await register.read_once(place):
                        pass
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.pool.close()

    async def progress(self, registers: list[Register]) -> None:
        """Wait until every register was written and read anew: the cluster works."""
        before = [register.acknowledged for register in registers]
        reads = self.reads
        while self.reads < reads + 30 or any(
            register.acknowledged <= old + 1 for register, old in zip(registers, before, strict=True)
        ):
            for task in self.tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(0.01)

    async def kill(self, node: int) -> None:
        """SIGKILL; the supervisor starts it again."""
        (daemon,) = [daemon for daemon in self.cluster.record.storage if daemon.node == node]
        if daemon.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(daemon.process.pid, signal.SIGKILL)
        await asyncio.sleep(self.random.random() * 0.3)


@pytest.mark.system
@pytest.mark.slow
@pytest.mark.parametrize("durability", ["disk", "memory"])
def test_killing_daemons_under_load(
    tmp_path: Path, fresh_cluster: Callable[..., LaunchedCluster], durability: str
) -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    print("seed", seed)
    cluster = fresh_cluster("kill", durability=durability, restart=True)
    world = World(cluster, 0 if durability == "disk" else 1, seed)
    run(world.live(), timeout=240.0)
    assert world.reads > 100
    assert world.torn < world.reads / 10
