"""Metadata operations a second: one client, 64 calls in flight.

`create` makes empty files, each one transaction that is synced before it is answered; its limit is LMDB alone, in one
process, storing the same records in groups of 64 with one sync each: that many creates can share a sync when 64 are in
flight. `stat` looks files up by path; its limit is our own RPC answering an empty call, 64 in flight: what remains
between the two is the service's own work. Directories hold a thousand files, as trees of samples do.
"""

import asyncio
import os
import secrets

import uvloop

from benchmarks.context import Context
from benchmarks.cpu import CpuMeter
from benchmarks.limits import echo
from benchmarks.limits.lmdb_groups import creates_per_s
from benchmarks.limits.process import Worker
from benchmarks.measure import Figure, Goal, Limit, Series, alternate
from fs_client.meta_client import MetaClient
from fs_client.options import Address, parse_cluster
from fs_common.ids import ROOT_INODE
from fs_common.methods import CREATE, MKDIR, PING, REMOVE_TREE, STAT
from fs_common.peers import PeerPool
from fs_common.records.meta import Create, Mkdir, RemoveTree, Stat
from fs_common.records.session import Hello, Ping

IN_FLIGHT = 64
FILES_PER_DIRECTORY = 1000
_TIMEOUT_S = 30.0


def run(context: Context) -> list[Figure]:
    creates, stats = context.count(16_000), context.count(40_000)
    cpu_create, cpu_stat = CpuMeter(context.processes), CpuMeter(context.processes)
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
    ]


async def _connect(cluster: str, echo_port: int) -> "_Bench":
    hello = Hello([1], "client", os.urandom(16))
    return _Bench(cluster, PeerPool(hello), Address("127.0.0.1", echo_port))


class _Bench:
    def __init__(self, cluster: str, pool: PeerPool, echo_address: Address) -> None:
        self._pool = pool
        self._meta = MetaClient(parse_cluster(cluster), pool, _TIMEOUT_S)
        self._echo_address = echo_address
        self._root = f"bench-metadata-{secrets.token_hex(4)}".encode()
        self._run = 0
        self._files = 0
        """Of the last run of creates."""

    async def creates_per_s(self, count: int) -> float:
        self._run += 1
        self._files = count
        for i in range(-(-count // FILES_PER_DIRECTORY)):
            path = b"%s/%d/%d" % (self._root, self._run, i)
            await self._meta.call(MKDIR, Mkdir(ROOT_INODE, path, 0o755, os.urandom(16), parents=True))
        return await echo.calls_per_s(self._create, count, IN_FLIGHT)

    async def stats_per_s(self, count: int) -> float:
        return await echo.calls_per_s(self._stat, count, IN_FLIGHT)

    async def echoes_per_s(self, count: int) -> float:
        return await echo.calls_per_s(self._ping, count, IN_FLIGHT)

    def _path(self, number: int) -> bytes:
        return b"%s/%d/%d/%d" % (self._root, self._run, number // FILES_PER_DIRECTORY, number)

    async def _create(self, number: int) -> None:
        await self._meta.call(CREATE, Create(ROOT_INODE, self._path(number), 0o644, os.urandom(16)))

    async def _stat(self, number: int) -> None:
        await self._meta.call(STAT, Stat(ROOT_INODE, self._path(number % self._files)))

    async def _ping(self, number: int) -> None:
        await self._pool.call(self._echo_address, PING, Ping(b"x" * 32), timeout=_TIMEOUT_S)

    async def close(self) -> None:
        await self._meta.call(REMOVE_TREE, RemoveTree(ROOT_INODE, self._root, os.urandom(16)))
        await self._pool.close()
