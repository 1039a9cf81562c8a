"""What TLS on the data plane costs: the same reads and writes in two clusters, of which one speaks TLS.

The limit is the cluster without TLS: the same daemons, files, batches and checksums. Both are read and written
alternately. On one machine TLS pays three times for each byte that three replicas store, all of it on the same
processors; its clients elsewhere pay once.
"""

import statistics
import time

import fs_client
from benchmarks.context import MIB, Context, cluster_in, tls_ca_in
from benchmarks.cpu import CpuMeter
from benchmarks.files import large_file
from benchmarks.limits.process import touched
from benchmarks.measure import Figure, Goal, Limit, Series, alternate
from benchmarks.read_large import read_pass
from benchmarks.read_one import LENGTH, times
from fs_client.file_ref import FileRef
from fs_client.filesystem import FileSystem

WRITE_BYTES = 256 * MIB
READS = 2000


def run(context: Context) -> list[Figure]:
    size = context.file_bytes
    into = memoryview(touched(size))
    written = into[: min(WRITE_BYTES, size)]
    offsets = [index * 7919 * LENGTH % size for index in range(context.count(READS))]
    with cluster_in(context.directory, tls=True) as (address, processes):
        with (
            fs_client.connect(address, tls_ca=tls_ca_in(context.directory)) as secure,
            fs_client.connect(context.cluster) as plain,
        ):
            sides = [(secure, CpuMeter(processes)), (plain, CpuMeter(context.processes))]
            files = [fs.ref(large_file(fs, context)) for fs, _ in sides]
            reads = alternate(
                context.repeat,
                *(
                    cpu.metered(lambda fs=fs, file=file: read_pass(fs, file, into), size // MIB)
                    for (fs, cpu), file in zip(sides, files, strict=True)
                ),
            )
            small = alternate(
                context.repeat,
                *(
                    lambda fs=fs, file=file: _median_us(fs, file, offsets, into[:LENGTH])
                    for (fs, _), file in zip(sides, files, strict=True)
                ),
            )
            writes = alternate(context.repeat, *(lambda fs=fs: _write(fs, written) for fs, _ in sides))
    notes = [cpu.note("MiB") for _, cpu in sides]
    return [
        _figure("read_large", "read_ranges, 1-MiB ranges, TLS", "GB/s", reads, 0.5, f"{notes[0]}; plain: {notes[1]}"),
        _figure("read_one", "one 4-KiB read, TLS", "us", small),
        _figure("write", "a file to three replicas, TLS", "GB/s", writes),
    ]


def _figure(
    name: str, title: str, unit: str, values: list[tuple[float, ...]], ratio: float | None = None, note: str = ""
) -> Figure:
    goal = None if ratio is None else Goal("ratio", ">=", ratio)
    ours, theirs = values
    return Figure(f"tls.{name}", title, Series(unit, ours), (Limit("plain TCP", Series(unit, theirs)),), goal, note)


def _median_us(fs: FileSystem, file: FileRef, offsets: list[int], into: memoryview) -> float:
    return statistics.median(times(fs, file, offsets, into)) * 1e6


def _write(fs: FileSystem, data: memoryview) -> float:
    """GB/s of a new file."""
    path = "/bench-tls-write"
    start = time.perf_counter()
    with fs.open(path, "wb") as file:
        for offset in range(0, len(data), 4 * MIB):
            file.write(data[offset : offset + 4 * MIB])
    taken_s = time.perf_counter() - start
    fs.unlink(path)
    return len(data) / 1e9 / taken_s
