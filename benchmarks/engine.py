"""What the chunk engine costs by itself, each figure beside what the plain system calls cost in the same run.

`python -m benchmarks.engine [--directory DIR]`: DIR is on the disk to be measured; everything made there is removed.
"""

import argparse
import asyncio
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from fs_common.checksums import page_checksums
from fs_common.ids import chunk_id
from fs_common.layout import Durability
from fs_common.records.storage import UpdateKind
from fs_common.rpc import FileRange
from fs_storage.engine.disk import NO_WAIT
from fs_storage.engine.interface import Update
from fs_storage.engine.store import EngineStore, open_store

KIB = 1024
MIB = 1024 * KIB
TARGET = 101


def write(chunk: bytes, version: int, payload: memoryview, checksums: bytes, offset: int, durability: int) -> Update:
    return Update(
        chunk,
        UpdateKind.WRITE,
        offset,
        payload,
        checksums,
        MIB,
        version,
        1,
        durability,
        b"benchmark client",
        1,
        version,
    )


async def apply(store: EngineStore, updates: list[Update]) -> None:
    for result in await store.prepare(updates):
        if isinstance(result, Exception):
            raise result
    await store.commit([(update.chunk, update.version) for update in updates])


async def fill(
    store: EngineStore, inode: int, count: int, size: int, durability: int = Durability.MEMORY
) -> list[bytes]:
    payload = memoryview(os.urandom(size))
    checksums = page_checksums(payload, 0, MIB)
    chunks = [bytes(chunk_id(inode, index)) for index in range(count)]
    for first in range(0, count, 64):
        some = chunks[first : first + 64]
        await apply(store, [write(chunk, 1, payload, checksums, 0, durability) for chunk in some])
    return chunks


def per_second(count: int, started: float) -> float:
    return count / (time.perf_counter() - started)


def reads(store: EngineStore, chunks: list[bytes], size: int, count: int) -> float:
    """Reads/s of `size` bytes at page borders, on the event loop."""
    buffer = memoryview(bytearray(size))
    read = store.read
    plan = [(chunks[i % len(chunks)], (i * 37 % (MIB // size)) * size) for i in range(count)]
    started = time.perf_counter()
    for chunk, offset in plan:
        answer = read(chunk, offset, size, buffer)
        if answer.release is not None:
            answer.release()
    return per_second(count, started)


def plain_reads(file: int, size: int, count: int) -> float:
    buffer = memoryview(bytearray(size))
    started = time.perf_counter()
    for i in range(count):
        os.preadv(file, (buffer,), (i * 37 % (MIB // size)) * size, NO_WAIT)
    return per_second(count, started)


async def writes(store: EngineStore, inode: int, batch: int, in_flight: int, total: int, durability: int) -> float:
    """Bytes/s of 1-MiB chunks, `in_flight` callers with `batch` chunks each."""
    payload = memoryview(os.urandom(MIB))
    checksums = page_checksums(payload, 0, MIB)
    following = iter(range(0, total, batch))

    async def caller() -> None:
        for first in following:
            chunks = [bytes(chunk_id(inode, index)) for index in range(first, min(first + batch, total))]
            await apply(store, [write(chunk, 1, payload, checksums, 0, durability) for chunk in chunks])

    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(in_flight)))
    return per_second(total * MIB, started)


def plain_writes(directory: Path, total: int, sync_each: int) -> float:
    """Bytes/s of 1-MiB writes with checksums to a preallocated file; a sync after each `sync_each` (0: none)."""
    payload = memoryview(os.urandom(MIB))
    file = os.open(directory / "plain", os.O_RDWR | os.O_CREAT)
    os.posix_fallocate(file, 0, total * MIB)
    started = time.perf_counter()
    for i in range(total):
        page_checksums(payload, 0, MIB)
        os.pwrite(file, payload, i * MIB)
        if sync_each and (i + 1) % sync_each == 0:
            os.fdatasync(file)
    rate = per_second(total * MIB, started)
    os.close(file)
    os.unlink(directory / "plain")
    return rate


async def overwrites(store: EngineStore, chunks: list[bytes], count: int, durability: int) -> float:
    """4-KiB overwrites/s, one caller for each chunk."""
    payload = memoryview(os.urandom(4 * KIB))
    checksums = page_checksums(payload, 0, MIB)
    each = count // len(chunks)

    async def caller(chunk: bytes) -> None:
        state = store.state(chunk)
        assert state is not None
        version = state.version
        for i in range(each):
            version += 1
            await apply(store, [write(chunk, version, payload, checksums, (i * 37 % 256) * 4 * KIB, durability)])

    started = time.perf_counter()
    await asyncio.gather(*(caller(chunk) for chunk in chunks))
    return per_second(each * len(chunks), started)


def plain_syncs(directory: Path, count: int) -> float:
    """Syncs/s of a 4-KiB write over existing bytes."""
    file = os.open(directory / "plain", os.O_RDWR | os.O_CREAT)
    os.pwrite(file, bytes(MIB), 0)
    os.fsync(file)
    started = time.perf_counter()
    for i in range(count):
        os.pwrite(file, bytes(4 * KIB), (i % 256) * 4 * KIB)
        os.fdatasync(file)
    rate = per_second(count, started)
    os.close(file)
    os.unlink(directory / "plain")
    return rate


def resident_mib() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def line(what: str, figure: str, limit: str = "") -> None:
    print(f"{what:<58} {figure:>16}   {limit}", flush=True)


async def measure(directory: Path) -> None:
    before = resident_mib()
    store = await open_store(directory / "a", target=TARGET)
    line("memory of an open, empty store", f"{resident_mib() - before:.1f} MiB")
    chunks = await fill(store, 1, 64, MIB)
    buffer = memoryview(bytearray(MIB))
    part = store.read(chunks[0], 0, MIB, buffer).part
    assert isinstance(part, FileRange)
    for size in (4 * KIB, 32 * KIB):
        limit = plain_reads(part.file, size, 50_000)
        line(
            f"reads of {size // KIB} KiB from the page cache",
            f"{reads(store, chunks, size, 50_000):,.0f}/s",
            f"preadv alone {limit:,.0f}/s",
        )
    line("reads of 1 MiB as file ranges", f"{reads(store, chunks, MIB, 50_000):,.0f}/s")
    for name, durability, sync_each in (("memory", Durability.MEMORY, 0), ("disk", Durability.DISK, 8)):
        limit = plain_writes(directory, 512, sync_each)
        for batch, in_flight in ((1, 1), (1, 8), (8, 4)):
            rate = await writes(
                store, 10 + batch * 100 + in_flight * 10 + durability, batch, in_flight, 512, durability
            )
            line(
                f"1-MiB chunks, durability {name}, {in_flight} callers x {batch}",
                f"{rate / 1e9:.2f} GB/s",
                f"checksums and pwrite alone{', sync each 8 MiB' if sync_each else ''}: {limit / 1e9:.2f} GB/s",
            )
    syncs = plain_syncs(directory, 500)
    for name, durability in (("disk", Durability.DISK), ("memory", Durability.MEMORY)):
        for in_flight in (1, 64):
            rate = await overwrites(store, chunks[:in_flight], 500 if in_flight == 1 else 20_000, durability)
            line(
                f"4-KiB overwrites, durability {name}, {in_flight} in flight", f"{rate:,.0f}/s", f"syncs {syncs:,.0f}/s"
            )
    await store.close()
    store = await open_store(directory / "b", target=TARGET)
    started = time.perf_counter()
    await fill(store, 5, 100_000, 4 * KIB)
    line("new chunks of 4 KiB, durability memory, batches of 64", f"{per_second(100_000, started):,.0f}/s")
    started = time.perf_counter()
    found = store.last_chunk(5)
    line(f"last chunk of a file of {found.chunks:,} chunks", f"{(time.perf_counter() - started) * 1e3:.1f} ms")
    started = time.perf_counter()
    await store.close()
    line("closing after 100,000 new chunks", f"{time.perf_counter() - started:.2f} s")
    started = time.perf_counter()
    store = await open_store(directory / "b", target=TARGET)
    line("opening with 100,000 chunks", f"{time.perf_counter() - started:.2f} s")
    await store.close()
    line("most memory used", f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()))
    directory = Path(tempfile.mkdtemp(prefix="emberfs-engine-", dir=parser.parse_args().directory))
    run: Callable[[Awaitable[None]], None] = uvloop.run
    try:
        run(measure(directory))
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
