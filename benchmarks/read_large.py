"""`read_ranges` of 1-MiB ranges: what one client gets of a file that the daemons have in their page caches.

The file (1 GiB) is read once from its start to its end, 64 ranges a call, into a buffer of its size, so that every byte
comes from and goes to other memory than the one before; every byte is verified against its checksum. The limit is
three processes that send a third of as many bytes each from their memory, received by epoll and `recv_into` into the
same buffer: the same number of processes, connections and bytes, without records, routing and checksums.
"""

import time

import fs_client
from benchmarks.context import MIB, Context
from benchmarks.cpu import CpuMeter
from benchmarks.files import large_file
from benchmarks.limits.process import touched
from benchmarks.limits.senders import Senders
from benchmarks.measure import Figure, Goal, Limit, Series, alternate
from fs_client.file_ref import FileRef
from fs_client.filesystem import FileSystem

RANGE = MIB
RANGES_PER_CALL = 64
SENDERS = 3


def run(context: Context) -> list[Figure]:
    size = context.file_bytes
    cpu = CpuMeter(context.processes)
    into = memoryview(touched(size))
    with fs_client.connect(context.cluster) as fs, Senders(SENDERS, -(-size // SENDERS)) as senders:
        file = fs.ref(large_file(fs, context))
        share = size // SENDERS * SENDERS
        ours, limit = alternate(
            context.repeat,
            cpu.metered(lambda: read_pass(fs, file, into), size // MIB),
            lambda: share / 1e9 / senders.stream(into[:share], RANGE),
        )
    return [
        Figure(
            "read_large",
            "read_ranges, 1-MiB ranges",
            Series("GB/s", ours),
            (Limit(f"sockets from {SENDERS} processes", Series("GB/s", limit)),),
            Goal("ratio", ">=", 0.7),
            cpu.note("MiB"),
        )
    ]


def read_pass(fs: FileSystem, file: FileRef, into: memoryview) -> float:
    """GB/s of one pass over the file."""
    size = len(into)
    step = RANGE * RANGES_PER_CALL
    start = time.perf_counter()
    for begin in range(0, size, step):
        end = min(begin + step, size)
        ranges = [(file, offset, min(RANGE, size - offset)) for offset in range(begin, end, RANGE)]
        fs.read_ranges(ranges, into=into[begin:end])
    return size / 1e9 / (time.perf_counter() - start)
