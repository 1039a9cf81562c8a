"""Writing a 1-GiB file to three replicas, until it is closed.

The file gets its bytes in one call, as the limits do.

With durability `memory` every byte is in the page cache of three daemons when the write returns; its limit is the same
bytes sent down a row of three processes over plain sockets, each keeping them in its memory and passing them on. The
second limit also writes them to a file without syncing: what a page cache costs that a replica must fill.

With durability `disk` every byte is on three "disks" (here: three files on one) when the write returns; its limit is
the row of processes that write them with `pwrite` and sync each file once at the end. Our daemons sync many times,
because they answer every write, not the last one.

Every run finds warm memory for its pages (`warm_memory`), nothing left to write back from earlier runs (`sync`), and
the blocks of the file before it free again.
"""

import secrets
import time
from collections.abc import Callable

import fs_client
from benchmarks.alone import alone
from benchmarks.context import MIB, Context
from benchmarks.cpu import CpuMeter
from benchmarks.files import DIRECTORY, pattern
from benchmarks.limits.chain import FILE, MEMORY, SYNC, Chain
from benchmarks.measure import Figure, Goal, Limit, Series, alternate
from benchmarks.space import Space
from benchmarks.warm_memory import WarmMemory
from fs_client.filesystem import FileSystem
from fs_common.layout import Durability

LINKS = 3


def run(context: Context) -> list[Figure]:
    size = context.file_bytes
    data = pattern(size)
    cpu_memory, cpu_disk = CpuMeter(context.processes), CpuMeter(context.processes)
    space = Space(context.cluster)
    memory = WarmMemory((LINKS + 1) * size)

    def prepared(measure: Callable[[], float]) -> Callable[[], float]:
        return alone(measure, space, memory)

    with fs_client.connect(context.cluster) as fs:
        with (
            Chain(LINKS, size, MEMORY, context.directory) as sockets_only,
            Chain(LINKS, size, FILE, context.directory) as file,
        ):
            ours_memory, sockets, cached = alternate(
                context.repeat,
                prepared(cpu_memory.metered(lambda: _write(fs, data, Durability.MEMORY), size // MIB)),
                prepared(lambda: size / 1e9 / sockets_only.send(data)),
                prepared(lambda: size / 1e9 / file.send(data)),
            )
        with Chain(LINKS, size, SYNC, context.directory) as synced:
            ours_disk, disk = alternate(
                context.repeat,
                prepared(cpu_disk.metered(lambda: _write(fs, data, Durability.DISK), size // MIB)),
                prepared(lambda: size / 1e9 / synced.send(data)),
            )
    memory.release()
    return [
        Figure(
            "write.memory",
            "write a file, 3 replicas, durability memory",
            Series("GB/s", ours_memory),
            (
                Limit("sockets through 3 processes", Series("GB/s", sockets)),
                Limit("the same and pwrite", Series("GB/s", cached)),
            ),
            Goal("ratio", ">=", 0.5),
            cpu_memory.note("MiB"),
        ),
        Figure(
            "write.disk",
            "write a file, 3 replicas, durability disk",
            Series("GB/s", ours_disk),
            (Limit("sockets, pwrite, one fdatasync", Series("GB/s", disk)),),
            note=cpu_disk.note("MiB"),
        ),
    ]


def _write(fs: FileSystem, data: memoryview, durability: int) -> float:
    """GB/s from open to close. The file is removed afterwards; the collector frees its blocks."""
    directory = f"{DIRECTORY}/write-{durability}"
    if not fs.exists(directory):
        fs.makedirs(directory)
        fs.set_layout(directory, durability=durability)
    path = f"{directory}/{secrets.token_hex(4)}"
    start = time.perf_counter()
    with fs.open(path, "wb", buffering=0) as file:
        file.write(data)
    rate = len(data) / 1e9 / (time.perf_counter() - start)
    fs.unlink(path)
    return rate
