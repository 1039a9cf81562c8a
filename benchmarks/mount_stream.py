"""A large file through a mount, from start to end, beside the same through the client's API.

Reading: the mount is made anew before each run, so the kernel and the mount's daemon know nothing; the storage daemons
have the file in their page caches, as for the limit, `read_ranges` of the same file by one process. The second limit is
an empty FUSE server that answers from one buffer: what the kernel needs to hand the bytes over, and the reader to copy
them, whatever they come from. Writing: 1-MiB writes and one fsync, three replicas; the limit is the API's file written
in the same pieces with durability `disk`, after which as much is durable. Memory that was never touched: an array of
zeros in one call, which has no pages of its own yet; the limit is an array of ones of the same size.
"""

import secrets
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import fs_client
from benchmarks.alone import alone
from benchmarks.context import MIB, Context
from benchmarks.file_calls import PIECE, read_through, write_and_sync
from benchmarks.files import DIRECTORY, large_file, pattern
from benchmarks.limits import empty_fuse
from benchmarks.limits.process import Worker, touched
from benchmarks.measure import Figure, Goal, Limit, Series, alternate
from benchmarks.mounted import Mount, mounted
from benchmarks.read_large import read_pass
from benchmarks.space import Space
from benchmarks.warm_memory import WarmMemory
from fs_client.filesystem import FileSystem
from fs_common.layout import Durability

_COPIES = 3 + 1
"""Of the file in page caches while it is written through the mount."""
_ARRAY_BYTES = 64 * MIB
_ARRAYS = 5
"""Of each kind, for one value."""


def run(context: Context) -> list[Figure]:
    size = context.file_bytes
    into = memoryview(touched(size))
    space = Space(context.cluster)
    memory = WarmMemory((_COPIES + 1) * size)

    def prepared(measure: Callable[[], float]) -> Callable[[], float]:
        return alone(measure, space, memory)

    with fs_client.connect(context.cluster) as fs, mounted(context, "stream") as mount:
        name = large_file(fs, context)
        space = Space(context.cluster)
        file = fs.ref(name)
        read, ranges, empty = alternate(
            context.repeat,
            prepared(lambda: _read(mount, name.lstrip("/"), size)),
            prepared(lambda: read_pass(fs, file, into)),
            prepared(lambda: _read_empty(context.directory, size)),
        )
        data = into
        data[:] = pattern(size)
        directory = f"{DIRECTORY}/mount-stream-{secrets.token_hex(4)}"
        fs.makedirs(directory)
        fs.set_layout(directory, durability=Durability.DISK)
        write, api = alternate(
            context.repeat,
            prepared(lambda: _write(mount.path / directory.lstrip("/") / "file", data)),
            prepared(lambda: _write_api(fs, f"{directory}/api", data)),
        )
        arrays = mount.path / directory.lstrip("/")
        zeros, ones = alternate(
            context.repeat,
            prepared(lambda: _write_array(arrays / "zeros", np.zeros)),
            prepared(lambda: _write_array(arrays / "ones", np.ones)),
        )
        fs.rmtree(directory)
        space.wait_until_free()
    memory.release()
    return [
        Figure(
            "mount_stream.read",
            "cold sequential read through a mount",
            Series("GB/s", read),
            (
                Limit("read_ranges of the same file", Series("GB/s", ranges)),
                Limit("empty FUSE server", Series("GB/s", empty)),
            ),
            Goal("ratio", ">=", 0.75),
        ),
        Figure(
            "mount_stream.write",
            "sequential write and fsync through a mount, 3 replicas",
            Series("GB/s", write),
            (Limit("the client's API, durability disk", Series("GB/s", api)),),
            Goal("ratio", ">=", 0.75),
        ),
        Figure(
            "mount_stream.zeros",
            "numpy.zeros(64 MiB).tofile through a mount",
            Series("GB/s", zeros),
            (Limit("numpy.ones(64 MiB).tofile", Series("GB/s", ones)),),
            Goal("ratio", ">=", 0.83),
        ),
    ]


def _read(mount: Mount, name: str, size: int) -> float:
    """GB/s"""
    mount.again()
    return read_through(mount.path / name, size)


def _read_empty(directory: Path, size: int) -> float:
    """GB/s"""
    with tempfile.TemporaryDirectory(dir=directory) as place:
        server = Worker(empty_fuse.serve, place, size)
        try:
            return read_through(Path(place) / empty_fuse.NAME.decode(), size)
        finally:
            server.stop()


def _write(path: Path, data: memoryview) -> float:
    rate = write_and_sync(path, data)
    path.unlink()
    return rate


def _write_array(path: Path, make: Callable[[int, type], np.ndarray[Any, Any]]) -> float:
    """GB/s, the best of some."""
    best_s = float("inf")
    for _ in range(_ARRAYS):
        array = make(_ARRAY_BYTES, np.uint8)
        start = time.perf_counter()
        array.tofile(path)
        best_s = min(best_s, time.perf_counter() - start)
        path.unlink()
    return _ARRAY_BYTES / 1e9 / best_s


def _write_api(fs: FileSystem, path: str, data: memoryview) -> float:
    start = time.perf_counter()
    with fs.open(path, "wb") as file:
        for begin in range(0, len(data), PIECE):
            file.write(data[begin : begin + PIECE])
    rate = len(data) / 1e9 / (time.perf_counter() - start)
    fs.unlink(path)
    return rate
