"""Metadata operations: how many a second with 64 calls in flight, and how long one takes by itself.

`create` makes empty files, each one transaction that is synced before it is answered; its limit is LMDB alone, in one
process, storing the same records in groups of 64 with one sync each: that many creates can share a sync when 64 are in
flight. `stat` looks files up by path; its limit is our own RPC answering an empty call, 64 in flight: what remains
between the two is the service's own work. Directories hold a thousand files, as trees of samples do.

One create at a time, durable: beside what the disk takes for an append with its sync, without a service before it, and
what LMDB takes for a commit. Relaxed, it waits for no disk: beside an empty call of our RPC, one at a time.
"""

import asyncio
import os
import secrets
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from benchmarks.context import Context
from benchmarks.cpu import CpuMeter
from benchmarks.limits import echo
from benchmarks.limits.lmdb_groups import creates_per_s
from benchmarks.limits.one_sync import append_us, commit_us
from benchmarks.limits.process import Worker
from benchmarks.measure import Figure, Goal, Limit, Series, alternate
from fs_client.credentials import Credentials
from fs_client.meta_client import MetaClient
from fs_client.options import Address, client_tls, make_options
from fs_common.ids import ROOT_INODE
from fs_common.methods import CREATE, MKDIR, PING, REMOVE_TREE, STAT
from fs_common.peers import PeerPool
from fs_common.records.meta import Create, Mkdir, RemoveTree, Stat
from fs_common.records.session import Hello, Ping

IN_FLIGHT = 64
FILES_PER_DIRECTORY = 1000
_TIMEOUT_S = 30.0


def run(context: Context) -> list[Figure]:
    creates, stats, singles = context.count(16_000), context.count(40_000), context.count(2000)
    cpu_create, cpu_stat = CpuMeter(context.processes), CpuMeter(context.processes)
    cpu_durable, cpu_relaxed = CpuMeter(context.processes), CpuMeter(context.processes)
    server = Worker(echo.serve)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            bench = runner.run(_connect(context.cluster, server.port))
            create, limit, stat, echoed = alternate(
                context.repeat,
                cpu_create.metered(lambda: runner.run(bench.creates_per_s(creates)), creates),
                lambda: creates_per_s(context.directory / "lmdb", creates),
                cpu_stat.metered(lambda: runner.run(bench.stats_per_s(stats)), stats),
                lambda: runner.run(bench.echoes_per_s(stats)),
            )
            durable, append, commit, relaxed, echoed_us = alternate(
                context.repeat,
                cpu_durable.metered(lambda: runner.run(bench.create_us(singles, relaxed=False)), singles),
                lambda: append_us(context.directory / "append", singles),
                lambda: commit_us(context.directory / "lmdb", singles),
                cpu_relaxed.metered(lambda: runner.run(bench.create_us(singles, relaxed=True)), singles),
                lambda: runner.run(bench.echo_us(singles)),
            )
            runner.run(bench.close())
    finally:
        server.stop()
    return [
        Figure(
            "metadata.create",
            "create, 64 in flight",
            Series("1/s", create),
            (Limit("LMDB, groups of 64, synced", Series("1/s", limit)),),
            Goal("value", ">=", 8000),
            cpu_create.note("create"),
        ),
        Figure(
            "metadata.stat",
            "stat by path, 64 in flight",
            Series("1/s", stat),
            (Limit("RPC echo, 64 in flight", Series("1/s", echoed)),),
            Goal("value", ">=", 20_000),
            cpu_stat.note("stat"),
        ),
        Figure(
            "metadata.create_durable",
            "one create at a time, durable",
            Series("us", durable),
            (Limit("append and fdatasync", Series("us", append)), Limit("LMDB commit", Series("us", commit))),
            None,
            cpu_durable.note("create"),
        ),
        Figure(
            "metadata.create_relaxed",
            "one create at a time, relaxed",
            Series("us", relaxed),
            (Limit("RPC echo, one at a time", Series("us", echoed_us)),),
            Goal("value", "<=", 150),
            cpu_relaxed.note("create"),
        ),
    ]


async def _median_us(call: Callable[[int], Awaitable[object]], count: int) -> float:
    times = []
    for number in range(count):
        start = time.perf_counter()
        await call(number)
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


async def _connect(cluster: str, echo_port: int) -> "_Bench":
    return _Bench(MetaCalls(cluster), Address("127.0.0.1", echo_port))


class MetaCalls:
    """A client that makes metadata calls and nothing else. Who it is and what it trusts, the environment says, where
    nothing else does."""

    def __init__(self, cluster: str, token_file: Path | None = None) -> None:
        options = make_options(cluster, None, "auto", _TIMEOUT_S, token_file=token_file)
        credentials = Credentials(options, Hello([1], "client", os.urandom(16)))
        self._pool = PeerPool(credentials, tls=client_tls(options.tls_ca))
        self._meta = MetaClient(options.addresses, self._pool, _TIMEOUT_S)
        self.call = self._meta.call

    async def close(self) -> None:
        await self._pool.close()


class _Bench:
    def __init__(self, meta: MetaCalls, echo_address: Address) -> None:
        self._pool = PeerPool(Hello([1], "client", os.urandom(16)))
        """To the echo."""
        self._meta = meta
        self._echo_address = echo_address
        self._root = f"bench-metadata-{secrets.token_hex(4)}".encode()
        self._run = 0
        self._files = 0
        """Of the last run of creates that a stat can look up."""

    async def creates_per_s(self, count: int) -> float:
        await self._new_directories(count)
        self._files = count
        return await echo.calls_per_s(self._create, count, IN_FLIGHT)

    async def create_us(self, count: int, *, relaxed: bool) -> float:
        """The median time of a create, one after the other."""
        await self._new_directories(count)
        return await _median_us(lambda number: self._create(number, relaxed), count)

    async def echo_us(self, count: int) -> float:
        return await _median_us(self._ping, count)

    async def _new_directories(self, count: int) -> None:
        self._run += 1
        for i in range(-(-count // FILES_PER_DIRECTORY)):
            path = b"%s/%d/%d" % (self._root, self._run, i)
            await self._meta.call(MKDIR, Mkdir(ROOT_INODE, path, 0o755, os.urandom(16), parents=True))

    async def stats_per_s(self, count: int) -> float:
        return await echo.calls_per_s(self._stat, count, IN_FLIGHT)

    async def echoes_per_s(self, count: int) -> float:
        return await echo.calls_per_s(self._ping, count, IN_FLIGHT)

    def _path(self, number: int) -> bytes:
        return b"%s/%d/%d/%d" % (self._root, self._run, number // FILES_PER_DIRECTORY, number)

    async def _create(self, number: int, relaxed: bool = False) -> None:
        request = Create(ROOT_INODE, self._path(number), 0o644, os.urandom(16), relaxed=relaxed)
        await self._meta.call(CREATE, request)

    async def _stat(self, number: int) -> None:
        await self._meta.call(STAT, Stat(ROOT_INODE, self._path(number % self._files)))

    async def _ping(self, number: int) -> None:
        await self._pool.call(self._echo_address, PING, Ping(b"x" * 32), timeout=_TIMEOUT_S)

    async def close(self) -> None:
        await self._meta.call(REMOVE_TREE, RemoveTree(ROOT_INODE, self._root, os.urandom(16)))
        await self._meta.close()
        await self._pool.close()
