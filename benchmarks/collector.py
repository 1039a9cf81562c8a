"""Freeing in the background: how fast a removed tree of small files goes, and what calls in the foreground notice.

A tree of files of 4 KiB, 500 in a directory, is removed by one call. While its files are freed on the metadata server
and all replicas, one caller looks a path up and makes an empty file, again and again with short pauses; its limit is
the same caller on the same cluster with nothing to free, just before. The slow ones are compared (95 of 100 are
faster), since those are the ones that meet a step of the collector.
"""

import asyncio
import os
import secrets
import time
from typing import NamedTuple

import uvloop

from benchmarks.context import Context
from benchmarks.cpu import CpuMeter
from benchmarks.measure import Figure, Goal, Limit, Series
from fs_client import aio
from fs_common.ids import ROOT_INODE
from fs_common.methods import CREATE, STAT, STATS
from fs_common.records.meta import Create, Stat
from fs_common.records.session import Empty

IN_FLIGHT = 64
FILES_PER_DIRECTORY = 500
IDLE_S = 2.0
PAUSE_S = 0.002
FREE_TIMEOUT_S = 300.0
_PAYLOAD = bytes(4096)


class _Round(NamedTuple):
    files_per_s: float
    idle_stat_us: float
    stat_us: float
    idle_create_us: float
    create_us: float


def run(context: Context) -> list[Figure]:
    count = context.count(20_000)
    cpu = CpuMeter(context.processes)
    rounds: list[_Round] = []
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        bench = _Bench(runner.run(aio.connect(context.cluster)))

        def freed() -> float:
            rounds.append(runner.run(bench.free(count)))
            return rounds[-1].files_per_s

        for _ in range(context.repeat + 1):
            runner.run(bench.fill(count))
            cpu.metered(freed, count)()
        runner.run(bench.close())
    del rounds[0]
    rates, idle_stats, stats, idle_creates, creates = (tuple(column) for column in zip(*rounds, strict=True))
    return [
        Figure("collector.files", "small files freed in the background", Series("1/s", rates), note=cpu.note("file")),
        Figure(
            "collector.stat",
            "stat meanwhile, 95 of 100 within",
            Series("us", stats),
            (Limit("with nothing to free", Series("us", idle_stats)),),
            Goal("ratio", "<=", 2.5),
        ),
        Figure(
            "collector.create",
            "create meanwhile, 95 of 100 within",
            Series("us", creates),
            (Limit("with nothing to free", Series("us", idle_creates)),),
            Goal("ratio", "<=", 2.5),
        ),
    ]


class _Bench:
    def __init__(self, fs: aio.AsyncFileSystem) -> None:
        self._fs = fs
        self._root = f"/bench-collector-{secrets.token_hex(4)}"
        self._made = 0

    async def fill(self, count: int) -> None:
        directories = -(-count // FILES_PER_DIRECTORY)
        for number in range(directories):
            await self._fs.makedirs(f"{self._root}/tree/{number}")
        numbers = iter(range(count))

        async def work() -> None:
            for number in numbers:
                await self._fs.write_file(f"{self._root}/tree/{number % directories}/{number}", _PAYLOAD)

        async with asyncio.TaskGroup() as group:
            for _ in range(IN_FLIGHT):
                group.create_task(work())

    async def free(self, count: int) -> _Round:
        idle_stat_us, idle_create_us = await self._latencies(asyncio.create_task(asyncio.sleep(IDLE_S)))
        goal = await self._freed() + count
        begun = time.perf_counter()
        await self._fs.rmtree(f"{self._root}/tree")
        waiting = asyncio.create_task(self._all_freed(goal))
        stat_us, create_us = await self._latencies(waiting)
        return _Round(count / (waiting.result() - begun), idle_stat_us, stat_us, idle_create_us, create_us)

    async def close(self) -> None:
        await self._fs.rmtree(self._root)
        await self._fs.close()

    async def _freed(self) -> int:
        reply = await self._fs.metadata.call(STATS, Empty())
        return int(reply.counters.get("gc_files", 0))

    async def _all_freed(self, goal: int) -> float:
        """When that was."""
        async with asyncio.timeout(FREE_TIMEOUT_S):
            while await self._freed() < goal:
                await asyncio.sleep(0.05)
        return time.perf_counter()

    async def _latencies(self, until: "asyncio.Task[object]") -> tuple[float, float]:
        """(stat, create) in microseconds: 95 of 100 are faster."""
        stats: list[float] = []
        creates: list[float] = []
        while not until.done():
            self._made += 1
            path = f"{self._root}/{self._made}".encode()
            begun = time.perf_counter()
            await self._fs.metadata.call(STAT, Stat(ROOT_INODE, self._root.encode()))
            looked = time.perf_counter()
            await self._fs.metadata.call(CREATE, Create(ROOT_INODE, path, 0o644, os.urandom(16), relaxed=True))
            made = time.perf_counter()
            stats.append(looked - begun)
            creates.append(made - looked)
            await asyncio.sleep(PAUSE_S)
        await until
        return _high_us(stats), _high_us(creates)


def _high_us(times: list[float]) -> float:
    return sorted(times)[min(len(times) - 1, len(times) * 95 // 100)] * 1e6
