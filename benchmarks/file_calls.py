"""System calls on files, timed: what the measurements of mounts have in common, whatever is mounted.

Each function works below a directory or on a path that it is given, and returns one value.
"""

import multiprocessing
import os
import secrets
import stat
import subprocess
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

from benchmarks.context import MIB

PROCESSES = 8
PIECE = MIB
"""Of reads and writes of a large file."""
_DATA = os.urandom(4096)
_TIMEOUT_S = 300.0


def fresh(top: Path) -> Path:
    directory = top / secrets.token_hex(4)
    directory.mkdir()
    return directory


def filled(top: Path, count: int) -> Path:
    directory = fresh(top)
    create(directory, count)
    return directory


def create(directory: Path, count: int) -> float:
    """Create, write 4 KiB, close: files a second."""
    start, end = _create(directory, count)
    return count / (end - start)


def _create(directory: Path, count: int) -> tuple[float, float]:
    """When it began and ended."""
    paths = [f"{directory}/{secrets.token_hex(4)}-{i}" for i in range(count)]
    start = time.perf_counter()
    for path in paths:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.write(file, _DATA)
        os.close(file)
    return start, time.perf_counter()


def create_side_by_side(top: Path, count: int, processes: int = PROCESSES) -> float:
    """`count` files by each process in a directory of its own: files a second of all together."""
    directories = [fresh(top) for _ in range(processes)]
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes)
    with context.Pool(processes, _set_barrier, (barrier,)) as pool:
        times = pool.starmap(_create_together, [(directory, count) for directory in directories], chunksize=1)
    # One clock for all processes of a machine.
    return processes * count / (max(end for _, end in times) - min(start for start, _ in times))


_barrier: Barrier


def _set_barrier(barrier: Barrier) -> None:
    global _barrier
    _barrier = barrier


def _create_together(directory: Path, count: int) -> tuple[float, float]:
    _barrier.wait(_TIMEOUT_S)
    return _create(directory, count)


def unlink(directory: Path) -> float:
    """All files of the directory: files a second."""
    paths = [entry.path for entry in os.scandir(directory)]
    start = time.perf_counter()
    for path in paths:
        os.unlink(path)
    return len(paths) / (time.perf_counter() - start)


def rename(directory: Path) -> float:
    """All files of the directory, within it: files a second."""
    paths = [(entry.path, f"{entry.path}.renamed") for entry in os.scandir(directory)]
    start = time.perf_counter()
    for old, new in paths:
        os.rename(old, new)
    return len(paths) / (time.perf_counter() - start)


def touch_samples(directory: Path, count: int) -> None:
    """A new directory with `count` empty files, for `stat_samples`."""
    directory.mkdir()
    for i in range(count):
        os.mknod(f"{directory}/sample-{i:06}", 0o644 | stat.S_IFREG)


def stat_samples(directory: Path, count: int) -> float:
    """The first `count` files of a directory with samples: stats a second."""
    paths = [f"{directory}/sample-{i:06}" for i in range(count)]
    start = time.perf_counter()
    for path in paths:
        os.stat(path)
    return count / (time.perf_counter() - start)


def seconds(command: list[str]) -> float:
    """Of a command whose output nobody reads."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=_TIMEOUT_S)
    return time.perf_counter() - start


def read_through(path: Path, size: int) -> float:
    """From start to end in pieces: GB/s. The file has `size` bytes."""
    buffer = [bytearray(PIECE)]
    start = time.perf_counter()
    file = os.open(path, os.O_RDONLY)
    offset = 0
    while count := os.preadv(file, buffer, offset):
        offset += count
    os.close(file)
    elapsed = time.perf_counter() - start
    assert offset == size, "the file was read to its end"
    return size / 1e9 / elapsed


def write_and_sync(path: Path, view: memoryview) -> float:
    """A new file in pieces, with one fsync: GB/s."""
    start = time.perf_counter()
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    for begin in range(0, len(view), PIECE):
        os.write(file, view[begin : begin + PIECE])
    os.fsync(file)
    os.close(file)
    return len(view) / 1e9 / (time.perf_counter() - start)
