"""`read_ranges` of 256 random 4-KiB ranges: reads a second.

One batch after another from one client, as one loader worker does; and four batches at a time from one event loop, as
several threads would. The file is in the daemons' page caches. The limit is three processes that send 4-KiB pieces of
their memory, from the same random places, for one request each a batch: the same messages, bytes and processes.
"""

import asyncio
import random
import time
from collections.abc import Sequence

import uvloop

import fs_client
from benchmarks.context import Context
from benchmarks.cpu import CpuMeter
from benchmarks.files import large_file
from benchmarks.limits.process import touched
from benchmarks.limits.senders import Senders
from benchmarks.measure import Figure, Goal, Limit, Series, alternate
from fs_client import aio
from fs_client.file_ref import FileRef
from fs_client.filesystem import FileSystem

BATCH = 256
LENGTH = 4096
IN_FLIGHT = 4
SENDERS = 3
Offsets = Sequence[Sequence[int]]


def run(context: Context) -> list[Figure]:
    batches = context.count(400)
    cpu, cpu_several = CpuMeter(context.processes), CpuMeter(context.processes)
    chance = random.Random(1)
    share = context.file_bytes // SENDERS
    into = memoryview(touched(BATCH * LENGTH))
    offsets = offsets_of(chance, batches, context.file_bytes)
    within_share = offsets_of(chance, batches, share)
    with (
        fs_client.connect(context.cluster) as fs,
        Senders(SENDERS, share) as senders,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        file = fs.ref(large_file(fs, context))
        client = runner.run(aio.connect(context.cluster))
        one, several, limit = alternate(
            context.repeat,
            cpu.metered(lambda: read_batches(fs, file, offsets, into), batches * BATCH),
            cpu_several.metered(lambda: runner.run(_read_several(client, file, offsets)), batches * BATCH),
            lambda: batches * BATCH / senders.batches(within_share, LENGTH, into),
        )
        runner.run(client.close())
    sockets = Limit(f"sockets, {SENDERS} processes", Series("1/s", limit))
    return [
        Figure(
            "read_small",
            "read_ranges, 256 x 4 KiB, one batch at a time",
            Series("1/s", one),
            (sockets,),
            Goal("value", ">=", 100_000),
            cpu.note("read"),
        ),
        Figure(
            "read_small.in_flight",
            f"read_ranges, 256 x 4 KiB, {IN_FLIGHT} batches at a time",
            Series("1/s", several),
            (sockets,),
            note=cpu_several.note("read"),
        ),
    ]


def offsets_of(chance: random.Random, batches: int, size: int) -> Offsets:
    """Random places of whole pages."""
    return [[chance.randrange(size // LENGTH) * LENGTH for _ in range(BATCH)] for _ in range(batches)]


def read_batches(fs: FileSystem, file: FileRef, offsets: Offsets, into: memoryview) -> float:
    """Reads a second."""
    start = time.perf_counter()
    for batch in offsets:
        fs.read_ranges([(file, offset, LENGTH) for offset in batch], into=into)
    return len(offsets) * BATCH / (time.perf_counter() - start)


async def _read_several(client: aio.AsyncFileSystem, file: FileRef, offsets: Offsets) -> float:
    batches = iter(offsets)

    async def lane() -> None:
        into = memoryview(bytearray(BATCH * LENGTH))
        for batch in batches:
            await client.read_ranges([(file, offset, LENGTH) for offset in batch], into=into)

    start = time.perf_counter()
    await asyncio.gather(*(lane() for _ in range(IN_FLIGHT)))
    return len(offsets) * BATCH / (time.perf_counter() - start)
