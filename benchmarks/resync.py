"""A replica that was away is filled up: how fast, how fast when nothing has changed, and what readers notice.

A cluster of its own with two daemons and two replicas, default settings, durability `memory`. One daemon is stopped,
what it is to miss is written, and it is started again. What counts is the time from the first routing in which a chain
has a syncing target until all targets of all chains serve: comparing, sending, syncing its store to the disk, and two
words with the manager.

The limit of the rate is a plain copy of the same bytes: through one socket into a file that is synced at the end. For
readers it is their own rate while the daemon was away, a moment before. For a replica that missed nothing there is
none: 100,000 chunks are compared, and nothing is sent.
"""

import asyncio
import os
import secrets
import signal
import time
from collections.abc import Callable

import uvloop

from benchmarks.context import MIB, Context, say
from benchmarks.files import pattern
from benchmarks.limits.chain import SYNC, Chain
from benchmarks.measure import Figure, Goal, Limit, Series
from benchmarks.warm_memory import WarmMemory
from fs_client import aio
from fs_client.cli.local.configuration import Options
from fs_client.cli.local.launch import LaunchedCluster, launch
from fs_client.file_ref import FileRef
from fs_common.layout import Durability, Layout
from fs_common.records.routing import PublicState

STORAGE = 2
MOVED_S = 120.0
"""For the manager to take a daemon from its chains, and to have it back in all of them."""
LOOK_S = 0.02
TELL_S = 1.0
"""How often the supervisor is told to start what has ended."""
CHUNKS = 100_000
CHUNK_SIZE = 64 << 10
"""The smallest: chunks as such are compared, whatever is in them."""
WRITES_AT_ONCE = 256
READ_BYTES = 64 * MIB
RANGE = MIB
READ_S = 3.0
"""How long readers are measured, before and (at most) during."""
_SETTINGS = ("meta.gc_delay_ms=0", "meta.gc_interval_ms=100")


class _Bench:
    def __init__(self, fs: aio.AsyncFileSystem, cluster: LaunchedCluster) -> None:
        self._fs = fs
        self._cluster = cluster

    # -- one daemon goes and comes back --------------------------------------------------------------------------

    async def stop(self) -> None:
        """The second daemon ends in order, and all chains are without it."""
        daemon = self._cluster.record.storage[1]
        assert daemon.process is not None
        os.kill(daemon.process.pid, signal.SIGTERM)
        await self._until(lambda: not self._has(daemon.node, PublicState.SERVING), "the chains are without the daemon")

    async def start(self) -> None:
        """It is back, and something is filled up. (Where that takes no time, it may be over.)"""
        node = self._cluster.record.storage[1].node
        told_s = 0.0

        def is_back() -> bool:
            nonlocal told_s
            if time.monotonic() > told_s + TELL_S:
                # It may still have been ending when it was told before.
                told_s = time.monotonic()
                self._cluster.send_signal(signal.SIGUSR1)
            return self._has(node, PublicState.SYNCING) or self._has(node, PublicState.SERVING)

        await self._until(is_back, "it is syncing")

    async def filled(self) -> None:
        await self._until(self.whole, "all chains are whole")

    def whole(self) -> bool:
        return all(
            target.state is PublicState.SERVING for chain in self._fs.routing.routing.chains for target in chain.targets
        )

    def _has(self, node: int, state: PublicState) -> bool:
        return any(
            target.node == node and target.state is state
            for chain in self._fs.routing.routing.chains
            for target in chain.targets
        )

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + MOVED_S
        while not condition():
            if time.monotonic() > deadline:
                raise RuntimeError(f"not within {MOVED_S:g} s: {what}")
            routing = self._fs.routing
            await routing.newer(routing.routing.version, LOOK_S)

    # -- measurements --------------------------------------------------------------------------------------------

    async def missed(self, data: memoryview) -> float:
        """GB/s at which `data`, written while the daemon was away, comes to it."""
        await self.stop()
        path = await self._write(data)
        os.sync()
        await self.start()
        began = time.monotonic()
        await self.filled()
        rate = len(data) / 1e9 / (time.monotonic() - began)
        await self._fs.unlink(path)
        return rate

    async def nothing(self) -> float:
        """Seconds until a daemon that missed nothing is back in all chains."""
        await self.stop()
        os.sync()
        await self.start()
        began = time.monotonic()
        await self.filled()
        return time.monotonic() - began

    async def beside_reads(self, data: memoryview) -> tuple[float, float]:
        """GB/s of one reader while the daemon is filled up, and before."""
        hot = await self._write(data[:READ_BYTES])
        await self.stop()
        path = await self._write(data)
        os.sync()
        ref = await self._fs.ref(hot)
        into = memoryview(bytearray(min(READ_BYTES, len(data))))
        await self._read(ref, into, READ_S / 3, lambda: True)
        before = await self._read(ref, into, READ_S, lambda: True)
        await self.start()
        during = await self._read(ref, into, READ_S, lambda: not self.whole())
        await self.filled()
        await self._fs.unlink(path)
        await self._fs.unlink(hot)
        return during, before

    async def many_chunks(self, count: int) -> None:
        """A file of so many chunks, with a few bytes in each."""
        layout = Layout(chunk_size=CHUNK_SIZE, stripe=STORAGE, durability=Durability.MEMORY)
        async with await self._fs.open("/chunks", "wb", layout=layout) as file:
            for start in range(0, count, WRITES_AT_ONCE):
                chunks = range(start, min(start + WRITES_AT_ONCE, count))
                await asyncio.gather(*(file.write_at(chunk * CHUNK_SIZE, b"a few bytes") for chunk in chunks))

    async def _write(self, data: memoryview) -> str:
        path = f"/{secrets.token_hex(4)}"
        await self._fs.write_file(path, data)
        return path

    async def _read(self, ref: FileRef, into: memoryview, seconds: float, goes_on: Callable[[], bool]) -> float:
        ranges = [(ref, offset, RANGE) for offset in range(0, len(into), RANGE)]
        began = time.monotonic()
        count = 0
        while (took := time.monotonic() - began) < seconds and goes_on():
            await self._fs.read_ranges(ranges, into)
            count += 1
        return count * len(into) / 1e9 / took


def run(context: Context) -> list[Figure]:
    size = context.file_bytes
    data = pattern(size)
    options = Options(port=0, storage=STORAGE, replicas=STORAGE, durability="memory", settings=_SETTINGS)
    ours: list[float] = []
    plain: list[float] = []
    during: list[float] = []
    before: list[float] = []
    nothing: list[float] = []
    memory = WarmMemory(2 * size)
    with (
        launch(context.directory / "resync", options, restart=False) as cluster,
        Chain(1, size, SYNC, context.directory) as copy,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        fs = runner.run(aio.connect(cluster.address))
        bench = _Bench(fs, cluster)
        for turn in range(context.repeat + 1):
            with memory.lent():
                rate = runner.run(bench.missed(data))
            os.sync()
            with memory.lent():
                limit = size / 1e9 / copy.send(data)
            if turn:  # the first one pays for first touches
                ours.append(rate)
                plain.append(limit)
            say(f"  round {turn}: {rate:.2f} GB/s, a plain copy {limit:.2f}")
        memory.release()
        for turn in range(context.repeat):
            beside, alone = runner.run(bench.beside_reads(data))
            during.append(beside)
            before.append(alone)
            say(f"  round {turn + 1}: reads {beside:.2f} GB/s beside it, {alone:.2f} before")
        runner.run(bench.many_chunks(context.count(CHUNKS)))
        for turn in range(context.repeat):
            nothing.append(runner.run(bench.nothing()))
            say(f"  round {turn + 1}: nothing has changed: {nothing[-1]:.2f} s")
        runner.run(fs.close())
    count = context.count(CHUNKS)
    return [
        Figure(
            "resync.missed",
            f"fill up a replica that missed {size // MIB} MiB",
            Series("GB/s", tuple(ours)),
            (Limit("a plain copy, synced", Series("GB/s", tuple(plain))),),
            Goal("ratio", ">=", 0.7),
        ),
        Figure(
            "resync.reads",
            "1-MiB reads while a replica is filled up",
            Series("GB/s", tuple(during)),
            (Limit("before", Series("GB/s", tuple(before))),),
            Goal("ratio", ">=", 0.8),
        ),
        Figure(
            "resync.nothing",
            f"fill up a replica that missed nothing, {count:,} chunks",
            Series("s", tuple(nothing)),
            goal=Goal("value", "<=", 3.0),
        ),
    ]
