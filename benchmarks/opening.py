"""How long a target of many chunks takes to open, and what its daemon does meanwhile: `python -m benchmarks.opening`.

A store with a million chunks of 4 KiB (`--chunks`) is made, closed, and opened again, first as it was left and then
with its index out of the page cache. Meanwhile the loop, on which a daemon sends its heartbeats, counts turns: a
heartbeat is due every two seconds, and the longest that it is held up is the second figure. The limit is reading the
file of the index.

`--directory DIR`: on the disk to be measured; everything made there is removed.
"""

import argparse
import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from benchmarks.context import say
from benchmarks.engine import KIB, TARGET, fill, resident_mib
from fs_storage.engine.store import open_store

FILE_CHUNKS = 100_000
TURN_S = 0.05


class Turns:
    """Turns of the loop, and the longest pause between two."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._task: asyncio.Task[None] | None = None

    async def _turn(self) -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(TURN_S)
            now = time.perf_counter()
            self.longest_s = max(self.longest_s, now - last - TURN_S)
            last = now

    async def __aenter__(self) -> "Turns":
        self._task = asyncio.get_running_loop().create_task(self._turn())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])


def read_through(path: Path) -> float:
    """Seconds."""
    started = time.perf_counter()
    with open(path, "rb", buffering=0) as file:
        while file.read(1 << 20):
            pass
    return time.perf_counter() - started


def forget(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(file)


async def measure(directory: Path, chunks: int) -> None:
    say(f"making {chunks:,} chunks")
    store = await open_store(directory / "target", target=TARGET)
    for inode, first in enumerate(range(0, chunks, FILE_CHUNKS), 2):
        await fill(store, inode, min(FILE_CHUNKS, chunks - first), 4 * KIB)
    await store.close()
    index = directory / "target" / "index" / "data.mdb"
    for what in ("warm", "cold"):
        if what == "cold":
            forget(index)
        started = time.perf_counter()
        cpu = time.process_time()
        async with Turns() as turns:
            store = await open_store(directory / "target", target=TARGET)
            await asyncio.sleep(2 * TURN_S)
        elapsed = time.perf_counter() - started - 2 * TURN_S
        cpu = time.process_time() - cpu
        await store.close()
        if what == "cold":
            forget(index)
        limit = read_through(index)
        print(
            f"opening a target of {chunks:,} chunks, {what}: {elapsed:.2f} s ({cpu:.2f} s of processor), "
            f"loop held up {turns.longest_s * 1000:.0f} ms at most; "
            f"reading {index.stat().st_size >> 20} MiB of index {limit:.2f} s",
            flush=True,
        )
    print(f"memory {resident_mib():.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--chunks", type=int, default=1_000_000)
    arguments = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="emberfs-opening-", dir=arguments.directory))
    run: Callable[[Awaitable[None]], None] = uvloop.run
    try:
        run(measure(directory, arguments.chunks))
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
