"""Write-back: what is gathered, what is sent on when, order, bounds, and memory that comes back."""

import asyncio
import random

from fs_client.fuse.write_back import AGE_MAX_S, FILE_BYTES_MAX, Dirty, WriteBack
from fs_common.buffers import BufferPool
from fs_common.limits import KIB, MIB
from tests.support import run

CHUNK = 64 * KIB


class Data:
    """Memory that knows whether it was given back."""

    def __init__(self, content: bytes) -> None:
        self.view = memoryview(bytearray(content))
        self.released = 0

    def release(self) -> None:
        self.released += 1
        self.view[:] = b"\xee" * len(self.view)


class Daemons:
    """Takes what is stored; holds stores back while `open` is not set."""

    def __init__(self, chunk_size: int = CHUNK, limit: int = 1 << 30) -> None:
        self.stored: list[tuple[int, bytes]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.dirty = Dirty(limit)
        self.pool = BufferPool()
        self.back = WriteBack(chunk_size, self.dirty, self.pool, self._store, asyncio.ensure_future)

    async def _store(self, offset: int, view: memoryview) -> None:
        await self.open.wait()
        self.stored.append((offset, bytes(view)))

    def write(self, offset: int, content: bytes, now: float = 0.0) -> Data:
        data = Data(content)
        self.back.add(offset, data, now)
        return data

    def contents(self) -> bytes:
        file = bytearray()
        for offset, data in self.stored:
            file.extend(bytes(max(offset + len(data) - len(file), 0)))
            file[offset : offset + len(data)] = data
        return bytes(file)


def test_small_writes_in_sequence_become_whole_chunks() -> None:
    async def scenario() -> None:
        daemons = Daemons()
        content = random.Random(1).randbytes(3 * CHUNK + 100)
        for start in range(0, len(content), 1000):
            assert daemons.write(start, content[start : start + 1000]).released == 1
        await daemons.back.flush()
        assert [(offset, len(data)) for offset, data in daemons.stored] == [
            (0, CHUNK),
            (CHUNK, CHUNK),
            (2 * CHUNK, CHUNK),
            (3 * CHUNK, 100),
        ]
        assert daemons.contents() == content
        assert daemons.back.empty and not daemons.dirty.held and not daemons.pool.outstanding_bytes

    run(scenario())


def test_a_whole_chunk_is_sent_in_the_memory_it_came_in() -> None:
    async def scenario() -> None:
        daemons = Daemons()
        daemons.open.clear()
        data = daemons.write(CHUNK, b"x" * CHUNK)
        assert data.released == 0 and not daemons.pool.outstanding_bytes
        daemons.open.set()
        await daemons.back.flush()
        assert data.released == 1
        assert daemons.stored == [(CHUNK, b"x" * CHUNK)]

    run(scenario())


def test_a_write_elsewhere_sends_off_what_was_gathered_and_rewriting_does_not() -> None:
    async def scenario() -> None:
        daemons = Daemons()
        daemons.write(100, b"abcdef")
        daemons.write(102, b"CD")
        daemons.write(5000, b"x")
        await daemons.back.flush()
        assert daemons.stored == [(100, b"abCDef"), (5000, b"x")]

    run(scenario())


def test_flush_of_a_range_waits_for_that_range_only() -> None:
    async def scenario() -> None:
        daemons = Daemons()
        daemons.write(10, b"gathered")
        await daemons.back.flush(100, 200)
        assert not daemons.stored and daemons.back.overlaps(17, 100) and not daemons.back.overlaps(18, 100)
        await daemons.back.flush(0, 11)
        assert daemons.stored == [(10, b"gathered")]
        assert daemons.back.end == 0

    run(scenario())


def test_flush_waits_for_what_is_on_its_way() -> None:
    async def scenario() -> None:
        daemons = Daemons()
        daemons.open.clear()
        daemons.write(0, b"x" * CHUNK)
        flushing = asyncio.ensure_future(daemons.back.flush())
        await asyncio.sleep(0)
        assert not flushing.done()
        daemons.open.set()
        await flushing
        assert daemons.stored

    run(scenario())


def test_what_is_old_is_sent_off() -> None:
    async def scenario() -> None:
        daemons = Daemons()
        daemons.write(0, b"x", now=50.0)
        daemons.write(1, b"y", now=50.5)
        daemons.dirty.push_old(50.0 + AGE_MAX_S - 0.1)
        assert daemons.dirty.gathering
        daemons.dirty.push_old(50.0 + AGE_MAX_S)
        assert not daemons.dirty.gathering
        await daemons.back.flush()
        assert daemons.stored == [(0, b"xy")]

    run(scenario())


def test_a_writer_waits_at_the_bounds_and_goes_on_below_them() -> None:
    async def scenario() -> None:
        daemons = Daemons(chunk_size=MIB, limit=4 * MIB)
        daemons.open.clear()
        for place in range(4):
            assert not daemons.back.busy
            daemons.write(place * MIB, bytes(MIB))
        assert daemons.back.busy
        waiting = asyncio.ensure_future(daemons.back.room())
        await asyncio.sleep(0)
        assert not waiting.done()
        daemons.open.set()
        await waiting
        assert not daemons.back.busy
        await daemons.back.flush()
        assert not daemons.dirty.held

    run(scenario())


def test_gathered_bytes_of_other_files_make_room() -> None:
    """All of the room is taken by bytes that nobody has sent off: who wants room sends them."""

    async def scenario() -> None:
        daemons = Daemons(limit=100)
        other = WriteBack(CHUNK, daemons.dirty, daemons.pool, daemons._store, asyncio.ensure_future)
        other.add(0, Data(b"x" * 100), 0.0)
        await daemons.back.room()
        assert daemons.stored == [(0, b"x" * 100)]

    run(scenario())


def test_one_file_has_a_bound_of_its_own() -> None:
    async def scenario() -> None:
        daemons = Daemons(chunk_size=4 * MIB)
        daemons.open.clear()
        for start in range(0, FILE_BYTES_MAX, 4 * MIB):
            daemons.write(start, bytes(4 * MIB))
        assert daemons.back.busy and not daemons.dirty.full
        daemons.open.set()
        await daemons.back.room()
        await daemons.back.flush()

    run(scenario())


def test_random_writes_are_all_there_in_their_order() -> None:
    async def scenario(seed: int) -> None:
        rng = random.Random(seed)
        daemons = Daemons()
        expected = bytearray(4 * CHUNK)
        written: list[Data] = []
        for _ in range(200):
            size = rng.choice([1, 100, 4096, CHUNK, rng.randint(1, CHUNK)])
            offset = rng.choice([rng.randrange(4 * CHUNK - size + 1), rng.randrange(4) * CHUNK])
            size = min(size, len(expected) - offset)
            content = rng.randbytes(size)
            expected[offset : offset + size] = content
            written.append(daemons.write(offset, content))
            if rng.random() < 0.05:
                await daemons.back.flush(*sorted(rng.sample(range(4 * CHUNK), 2)))
        await daemons.back.flush()
        assert daemons.contents().ljust(len(expected), b"\0") == expected, f"seed {seed}"
        assert all(data.released == 1 for data in written)
        assert not daemons.dirty.held and not daemons.back.bytes_held and not daemons.pool.outstanding_bytes

    for seed in range(20):
        run(scenario(seed))
