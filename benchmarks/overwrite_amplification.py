"""4-KiB random overwrites in 1-MiB chunks: bytes that one replica writes to its disk for each byte changed.

An engine of its own in this process, on the disk under test. Counted is what reaches the disk: for each write call of
the engine the 4-KiB pages that it touches, once for each sync between (a page that is written twice before a sync is
one page), and what LMDB writes by itself. The kernel's own count (`write_bytes` of /proc/PID/io) is of no use: where
the page cache has large folios, a folio of a megabyte counts as written when 4 KiB of it change. On a loop device the
device's counter agrees with what is counted here.

Its limit is a copy-on-write of the whole chunk, which is what a store without partial updates has to do: 256.
"""

import asyncio
import os
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

from benchmarks.context import KIB, MIB, Context
from benchmarks.measure import Figure, Goal, Limit, Series
from fs_common.checksums import page_checksums
from fs_common.ids import chunk_id
from fs_common.layout import Durability
from fs_common.records.storage import UpdateKind
from fs_storage.engine.disk import PAGE, Bytes, RealDisk
from fs_storage.engine.interface import Update
from fs_storage.engine.store import EngineStore, open_store

CHUNKS = 64
OVERWRITES = 8000
SIZE = 4 * KIB


class CountingDisk(RealDisk):
    """Counts what reaches the device: pages written, once between two syncs of their file."""

    def __init__(self) -> None:
        super().__init__()
        self.called_bytes = 0
        """Given to write calls."""
        self.device_bytes = 0
        self._dirty: dict[int, set[int]] = {}
        self.sync = self._sync  # type: ignore[method-assign, assignment]

    def write(self, file: int, parts: Sequence[Bytes], offset: int) -> None:
        length = sum(map(len, parts))
        self.called_bytes += length
        self._dirty.setdefault(file, set()).update(range(offset // PAGE, -(-(offset + length) // PAGE)))
        super().write(file, parts, offset)

    def _sync(self, file: int) -> None:
        self.device_bytes += PAGE * len(self._dirty.pop(file, ()))
        os.fdatasync(file)


def run(context: Context) -> list[Figure]:
    figures = []
    for name, durability, together in (
        ("disk", Durability.DISK, 1),
        ("disk_batch", Durability.DISK, 16),
        ("memory", Durability.MEMORY, 16),
    ):
        ratios = tuple(
            asyncio.run(
                _amplification(context.directory / "overwrites", durability, together, context.count(OVERWRITES))
            )
            for _ in range(context.repeat)
        )
        words = "one at a time" if together == 1 else f"{together} at a time"
        figures.append(
            Figure(
                f"overwrite_amplification.{name}",
                f"disk bytes for each byte of a 4-KiB overwrite, {name.partition('_')[0]}, {words}",
                Series("x", ratios),
                (Limit("the whole chunk anew", Series("x", (MIB / SIZE,) * context.repeat)),),
                Goal("value", "<=", 8),
                "of one replica: the log, the block later, and the index",
            )
        )
    return figures


async def _amplification(directory: Path, durability: int, together: int, count: int) -> float:
    disk = CountingDisk()
    store = await open_store(directory, target=1, capacity_bytes=4 * CHUNKS * MIB, disk=disk)
    try:
        chunks = [bytes(chunk_id(7, index)) for index in range(CHUNKS)]
        content = os.urandom(MIB)
        await _apply(store, [_write(chunk, 1, content, 0, Durability.DISK) for chunk in chunks])
        await store.checkpoint()
        called, device, ours = disk.called_bytes, disk.device_bytes, _written()
        versions = [1] * CHUNKS
        pick = random.Random(1)
        for _ in range(count // together):
            updates = []
            for index in pick.sample(range(CHUNKS), together):
                versions[index] += 1
                offset = pick.randrange(MIB // SIZE) * SIZE
                updates.append(_write(chunks[index], versions[index], os.urandom(SIZE), offset, durability))
            await _apply(store, updates)
        await store.sync()
        await store.checkpoint()
        index_bytes = _written() - ours - (disk.called_bytes - called)
        return (disk.device_bytes - device + index_bytes) / (count // together * together * SIZE)
    finally:
        await store.close()
        shutil.rmtree(directory)


def _write(chunk: bytes, version: int, data: bytes, offset: int, durability: int) -> Update:
    view = memoryview(data)
    sums = page_checksums(view, offset, MIB)
    return Update(chunk, UpdateKind.WRITE, offset, view, sums, MIB, version, 1, durability, b"", 0, 0)


async def _apply(store: EngineStore, updates: list[Update]) -> None:
    for result in await store.prepare(updates):
        if isinstance(result, Exception):
            raise result
    await store.commit([(update.chunk, update.version) for update in updates])


def _written() -> int:
    """Bytes that this process has given to write calls, LMDB's among them."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["wchar"])
