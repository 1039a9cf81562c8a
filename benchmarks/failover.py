"""The longest pause of reads and writes when a storage daemon is killed, or stopped, and comes back.

A cluster of its own with three daemons, three replicas and default settings (`cut_off` has one in which a daemon is cut
off the network). Several callers read, others overwrite,
one 64-KiB piece after another, all over the chains. One daemon after the other is killed (SIGKILL) and started again
when writes have gone on, or stopped (SIGSTOP) and let go on; each chain has it as head, middle or tail. From the signal
until all chains are whole again, no caller may see an error, and its longest time without a completed call counts: that
of the worst of the callers, so that others which are served do not hide it.

The limit of writes is how long the manager took to publish chains without the daemon: nobody can write before.
"""

import asyncio
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import uvloop

from benchmarks.context import Context, say
from benchmarks.measure import Figure, Goal, Limit, Series
from fs_client import aio
from fs_client.cli.local.configuration import Options
from fs_client.cli.local.launch import LaunchedCluster, launch
from fs_common.records.routing import PublicState

STORAGE = 3
CALLERS = 2
"""Of each kind."""
PIECE = 64 << 10
PIECES = 256
DROPPED_S = 60.0
"""For the manager to take a daemon from its chains."""
WHOLE_S = 120.0
"""For all chains to be whole again."""
STEADY_S = 1.0
"""How long calls have to go well before and after."""
STOPPED_S_MIN = 12.0
"""So long a stopped daemon stays stopped at least: it is dropped, and its calls have ended."""
LOOK_S = 0.05


class Pauses(NamedTuple):
    reads_s: float
    writes_s: float
    dropped_s: float
    """From the signal to chains without the daemon."""
    whole_s: float
    """From its return to chains that are whole."""


class _Caller:
    """Calls one after another; the longest time without a completed one."""

    def __init__(self, call: Callable[[], Awaitable[None]]) -> None:
        self._call = call
        self.count = 0
        self._last_s = time.monotonic()
        self._longest_s = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self._call()
            now = time.monotonic()
            self._longest_s = max(self._longest_s, now - self._last_s)
            self._last_s = now
            self.count += 1

    def begin(self) -> None:
        self._longest_s = 0.0

    def longest_s(self) -> float:
        return max(self._longest_s, time.monotonic() - self._last_s)


class Hurt(NamedTuple):
    """What is done to one daemon."""

    node: int
    name: str
    begin: Callable[[], object]
    end: Callable[[], object]
    """It comes back."""
    lasts_s: float
    """At least."""


class Bench:
    """Callers of a cluster, and how long they wait when a daemon is hurt."""

    def __init__(self, fs: aio.AsyncFileSystem) -> None:
        self._fs = fs
        self._stop = asyncio.Event()
        self._readers: list[_Caller] = []
        self._writers: list[_Caller] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        chance = random.Random(1)
        data = chance.randbytes(PIECE)
        await self._fs.write_file("/read", data * PIECES)
        ref = await self._fs.ref("/read")
        for number in range(CALLERS):
            into = memoryview(bytearray(PIECE))

            async def read(into: memoryview = into) -> None:
                await self._fs.read_ranges([(ref, chance.randrange(PIECES) * PIECE, PIECE)], into)
                if into != data:
                    raise RuntimeError("a read gave other bytes than were written")

            file = await self._fs.open(f"/written-{number}", "wb")

            async def write(file: aio.AsyncFile = file) -> None:
                await file.write_at(chance.randrange(PIECES) * PIECE, data)

            self._readers.append(_Caller(read))
            self._writers.append(_Caller(write))
        callers = [*self._readers, *self._writers]
        self._tasks = [asyncio.ensure_future(caller.run(self._stop)) for caller in callers]

    async def close(self) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)
        await self._fs.close()

    async def incident(self, hurt: Hurt) -> Pauses:
        """One daemon goes and comes back."""
        await self._steady()
        for caller in (*self._readers, *self._writers):
            caller.begin()
        began = time.monotonic()
        hurt.begin()
        try:
            await self._until(lambda: not self._serves(hurt.node), DROPPED_S, f"{hurt.name} is dropped")
            dropped_s = time.monotonic() - began
            await self._steady()
            await asyncio.sleep(max(began + hurt.lasts_s - time.monotonic(), 0.0))
        finally:
            back = time.monotonic()
            hurt.end()
        await self._until(self._whole, WHOLE_S, "all chains are whole")
        whole_s = time.monotonic() - back
        await self._steady()
        reads_s = max(caller.longest_s() for caller in self._readers)
        writes_s = max(caller.longest_s() for caller in self._writers)
        return Pauses(reads_s, writes_s, dropped_s, whole_s)

    async def _steady(self) -> None:
        """Until every caller has gone on for a while."""
        counts = [caller.count for caller in (*self._readers, *self._writers)]
        await asyncio.sleep(STEADY_S)
        await self._until(
            lambda: all(
                caller.count > count for caller, count in zip((*self._readers, *self._writers), counts, strict=True)
            ),
            DROPPED_S,
            "every caller goes on",
        )

    async def _until(self, condition: Callable[[], bool], time_s: float, what: str) -> None:
        deadline = time.monotonic() + time_s
        while not condition():
            for task in self._tasks:
                if task.done():
                    task.result()
                    raise RuntimeError("a caller has ended")
            if time.monotonic() > deadline:
                raise RuntimeError(f"not within {time_s:g} s: {what}")
            routing = self._fs.routing
            await routing.newer(routing.routing.version, LOOK_S)

    def _serves(self, node: int) -> bool:
        return any(
            target.node == node and target.state is PublicState.SERVING
            for chain in self._fs.routing.routing.chains
            for target in chain.targets
        )

    def _whole(self) -> bool:
        return all(
            target.state is PublicState.SERVING for chain in self._fs.routing.routing.chains for target in chain.targets
        )


def _hurt(cluster: LaunchedCluster, number: int, *, stopped: bool) -> Hurt:
    daemon = cluster.record.storage[number]
    assert daemon.process is not None
    pid = daemon.process.pid
    if stopped:
        return Hurt(
            daemon.node,
            daemon.name,
            lambda: os.kill(pid, signal.SIGSTOP),
            lambda: os.kill(pid, signal.SIGCONT),
            STOPPED_S_MIN,
        )
    start_again = signal.SIGUSR1  # what has ended
    return Hurt(
        daemon.node, daemon.name, lambda: os.kill(pid, signal.SIGKILL), lambda: cluster.send_signal(start_again), 0.0
    )


def run(context: Context) -> list[Figure]:
    rounds = 1 if context.quick else context.repeat
    path = context.directory / "failover"
    options = Options(port=0, storage=STORAGE, replicas=STORAGE)
    killed: list[Pauses] = []
    stopped: list[Pauses] = []
    with launch(path, options, restart=False) as cluster, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        bench = Bench(runner.run(aio.connect(cluster.address)))
        runner.run(bench.start())
        for turn in range(rounds):
            for kind, pauses in (("killed", killed), ("stopped", stopped)):
                for number in range(1 if context.quick else STORAGE):
                    hurt = _hurt(cluster, number, stopped=kind == "stopped")
                    pauses.append(runner.run(bench.incident(hurt)))
                    say(f"  round {turn + 1}: {hurt.name} {kind}: {shown(pauses[-1])}")
        runner.run(bench.close())
    return [*figures_of("killed", killed, 2.0), *figures_of("stopped", stopped, 13.0)]


def figures_of(kind: str, pauses: list[Pauses], writes_goal_s: float) -> list[Figure]:
    """Medians, and the worst beside the goals."""
    dropped = tuple(pause.dropped_s for pause in pauses)
    figures = []
    for what, goal_s, values in (
        ("reads", 1.0, tuple(pause.reads_s for pause in pauses)),
        ("writes", writes_goal_s, tuple(pause.writes_s for pause in pauses)),
    ):
        limits = (Limit("until the chains were without it", Series("s", dropped)),) if what == "writes" else ()
        title = f"a daemon {kind}: longest pause of {what}"
        figures.append(Figure(f"failover.{kind}.{what}", title, Series("s", values), limits))
        worst = Series("s", (max(values),))
        figures.append(
            Figure(f"failover.{kind}.{what}.worst", f"{title}, worst", worst, goal=Goal("value", "<=", goal_s))
        )
    whole = tuple(pause.whole_s for pause in pauses)
    figures.append(Figure(f"failover.{kind}.whole", f"a daemon {kind}: back in all chains after", Series("s", whole)))
    return figures


def shown(pauses: Pauses) -> str:
    return (
        f"reads paused {pauses.reads_s:.2f} s, writes {pauses.writes_s:.2f} s; dropped after {pauses.dropped_s:.2f} s,"
        f" whole {pauses.whole_s:.2f} s after its return"
    )
