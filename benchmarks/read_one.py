"""One 4-KiB read at a time through the blocking interface: the median of its times.

The limit is a request and a 4-KiB answer between two processes over plain blocking sockets: two wake-ups and two
copies, which no server can do without.
"""

import random
import statistics
import time

import fs_client
from benchmarks.context import Context
from benchmarks.cpu import CpuMeter
from benchmarks.files import large_file
from benchmarks.limits.process import touched
from benchmarks.limits.senders import Senders
from benchmarks.measure import Figure, Goal, Limit, Series, alternate
from fs_client.file_ref import FileRef
from fs_client.filesystem import FileSystem

LENGTH = 4096


def run(context: Context) -> list[Figure]:
    reads = context.count(4000)
    cpu = CpuMeter(context.processes)
    chance = random.Random(1)
    into = memoryview(touched(LENGTH))
    offsets = [chance.randrange(context.file_bytes // LENGTH) * LENGTH for _ in range(reads)]
    with fs_client.connect(context.cluster) as fs, Senders(1, context.file_bytes) as sender:
        file = fs.ref(large_file(fs, context))
        ours, limit = alternate(
            context.repeat,
            cpu.metered(lambda: statistics.median(times(fs, file, offsets, into)) * 1e6, reads),
            lambda: statistics.median(sender.ping_pong(offsets, LENGTH, into)) * 1e6,
        )
    return [
        Figure(
            "read_one",
            "one 4-KiB read, blocking, median",
            Series("us", ours),
            (Limit("socket ping-pong", Series("us", limit)),),
            Goal("value", "<=", 250),
            cpu.note("read"),
        )
    ]


def times(fs: FileSystem, file: FileRef, offsets: list[int], into: memoryview) -> list[float]:
    times = []
    for offset in offsets:
        start = time.perf_counter()
        fs.read_ranges([(file, offset, LENGTH)], into=into)
        times.append(time.perf_counter() - start)
    return times
