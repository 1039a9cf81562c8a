"""Write-back: what is gathered, what is sent on when, order, bounds, and memory that comes back."""

import asyncio
import random
from collections.abc import Sequence

from fs_client.fuse.write_back import (
    AGE_MAX_S,
    FILE_BYTES_MAX,
    FILE_WRITES_MAX,
    MOVING_MAX,
    UPDATE_WORTH,
    WRITES_MAX,
    Dirty,
    WriteBack,
)
from fs_client.joined_writes import Piece
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
        self.stores = 0
        self.open = asyncio.Event()
        self.open.set()
        self.dirty = Dirty(limit)
        self.pool = BufferPool()
        self.back = WriteBack(chunk_size, self.dirty, self.pool, self._store, asyncio.ensure_future)

    async def _store(self, pieces: Sequence[Piece]) -> None:
        held = [(offset, bytes(data)) for offset, data in pieces]
        touched = {offset // self.back.piece_size for offset, data in pieces if len(pieces) > 1}
        assert len(touched) <= 1, "several pieces are of one chunk"
        await self.open.wait()
        assert held == [(offset, bytes(data)) for offset, data in pieces], "memory was given back too early"
        self.stored += held
        self.stores += 1

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


def test_writes_of_a_chunk_that_wait_go_as_one_store() -> None:
    """The first goes at once; what comes while it is on its way goes together, in order where it overlaps."""

    async def scenario() -> None:
        daemons = Daemons()
        daemons.open.clear()
        for place in range(1000):
            daemons.write(64 * place, b"%8d" % place)
        daemons.write(64 * 7 + 4, b"####XX")
        daemons.write(64 * 9, b"later")
        assert not daemons.pool.outstanding_bytes or daemons.pool.outstanding_bytes <= 2 * CHUNK
        daemons.open.set()
        await daemons.back.flush()
        assert daemons.stores == 2
        expected = b"".join((b"%8d" % place).ljust(64, b"\0") for place in range(1000))
        expected = (
            expected[: 64 * 7 + 4] + b"####XX" + expected[64 * 7 + 10 : 64 * 9] + b"later" + expected[64 * 9 + 5 :]
        )
        assert daemons.contents() == expected[: len(daemons.contents())] and len(daemons.contents()) == 999 * 64 + 8
        assert daemons.back.empty and not daemons.dirty.held and not daemons.dirty.writes
        assert not daemons.back.bytes_held and not daemons.back.writes

    run(scenario())


def test_far_apart_few_writes_go_one_by_one_in_their_order() -> None:
    """What lies between them would cost the chain more than the updates that are saved."""

    async def scenario() -> None:
        daemons = Daemons(chunk_size=4 * MIB)
        daemons.open.clear()
        far = UPDATE_WORTH + KIB
        for place in (0, 3 * far, far, 2 * far + 100):
            daemons.write(place, b"x")
        daemons.open.set()
        await daemons.back.flush()
        assert [offset for offset, _ in daemons.stored] == [0, 3 * far, far, 2 * far + 100]
        assert daemons.stores == 4

    run(scenario())


def test_writes_are_bounded_as_bytes_are() -> None:
    async def scenario() -> None:
        daemons = Daemons()
        daemons.open.clear()
        count = 0
        while not daemons.back.busy:
            daemons.write(count * 2 * CHUNK, b"x")
            count += 1
        assert count == FILE_WRITES_MAX + 1, "and one that is gathered"
        assert len(daemons.back._moving) == MOVING_MAX
        waiting = asyncio.ensure_future(daemons.back.room())
        await asyncio.sleep(0)
        assert not waiting.done()
        daemons.open.set()
        await waiting
        await daemons.back.flush()
        assert daemons.stores == count and not daemons.dirty.writes

    run(scenario())


def test_all_files_together_have_a_bound_of_writes() -> None:
    async def scenario() -> None:
        daemons = Daemons()
        daemons.open.clear()
        files = [WriteBack(CHUNK, daemons.dirty, daemons.pool, daemons._store, asyncio.ensure_future) for _ in range(5)]
        for back in files[:4]:
            for place in range(WRITES_MAX // 4):
                back.add(place * CHUNK, Data(b"x"), 0.0)
            back.push()
        assert daemons.dirty.full and files[4].busy and not files[4].writes
        waiting = asyncio.ensure_future(files[4].room())
        await asyncio.sleep(0)
        assert not waiting.done()
        daemons.open.set()
        await waiting
        for back in files:
            await back.flush()
        assert not daemons.dirty.writes and not daemons.dirty.held

    run(scenario())


def test_a_whole_chunk_over_one_that_is_on_its_way_waits_for_it() -> None:
    async def scenario() -> None:
        daemons = Daemons()
        daemons.open.clear()
        first = daemons.write(0, b"a" * CHUNK)
        second = daemons.write(0, b"b" * (2 * CHUNK))
        daemons.write(CHUNK + 5, b"c")
        assert daemons.back.overlaps(2 * CHUNK - 1, 2 * CHUNK) and not daemons.back.overlaps(2 * CHUNK, 3 * CHUNK)
        assert daemons.back.end == 2 * CHUNK
        daemons.open.set()
        await daemons.back.flush()
        assert daemons.contents() == b"b" * CHUNK + b"b" * 5 + b"c" + b"b" * (CHUNK - 6)
        assert first.released == second.released == 1

    run(scenario())


def test_a_flush_does_not_wait_for_what_comes_after_it() -> None:
    async def scenario() -> None:
        daemons = Daemons()
        daemons.open.clear()
        daemons.write(0, b"a")
        daemons.back.push()
        flushing = asyncio.ensure_future(daemons.back.flush())
        await asyncio.sleep(0)
        held, daemons.open = daemons.open, asyncio.Event()
        daemons.write(0, b"b")
        daemons.back.push()
        held.set()
        await flushing
        assert daemons.stored == [(0, b"a")] and not daemons.back.empty
        daemons.open.set()
        await daemons.back.flush()
        assert daemons.contents() == b"b"

    run(scenario())


def test_what_waits_can_be_given_up() -> None:
    async def scenario() -> None:
        daemons = Daemons()
        daemons.open.clear()
        datas = [daemons.write(0, b"a" * CHUNK), daemons.write(0, b"b" * CHUNK), daemons.write(CHUNK, b"c" * CHUNK)]
        daemons.write(2 * CHUNK, b"x")
        daemons.write(2 * CHUNK, b"y" * CHUNK)
        flushing = asyncio.ensure_future(daemons.back.flush())
        await asyncio.sleep(0)
        assert daemons.back.drop(lambda index: index == 0) == (CHUNK, 1)
        assert datas[1].released == 1 and not daemons.back.empty
        assert daemons.back.drop() == (CHUNK, 1)
        daemons.open.set()
        await flushing
        assert [(offset, data[:1]) for offset, data in daemons.stored] == [(0, b"a"), (CHUNK, b"c"), (2 * CHUNK, b"x")]
        assert daemons.back.empty and not daemons.dirty.held and not daemons.dirty.writes

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


def test_random_writes_while_stores_take_their_time() -> None:
    """Whatever waits, is joined and is awaited meanwhile: all is there in its order, and what a flush has waited for is
    stored when it returns."""

    async def scenario(seed: int) -> None:
        rng = random.Random(seed)
        daemons = Daemons()
        size = 6 * CHUNK
        expected = bytearray(size)
        for _ in range(300):
            length = rng.choice([1, 8, 700, CHUNK, 2 * CHUNK])
            offset = rng.choice([rng.randrange(size - length + 1), rng.randrange(5) * CHUNK])
            content = rng.randbytes(min(length, size - offset))
            expected[offset : offset + len(content)] = content
            daemons.write(offset, content)
            if rng.random() < 0.1:
                (daemons.open.clear, daemons.open.set)[rng.random() < 0.4]()
            if rng.random() < 0.2:
                await asyncio.sleep(0)
            if rng.random() < 0.03:
                start, end = sorted(rng.sample(range(size), 2))
                daemons.open.set()
                await daemons.back.flush(start, end)
                assert daemons.contents().ljust(size, b"\0")[start:end] == expected[start:end], f"seed {seed}"
        daemons.open.set()
        await daemons.back.flush()
        assert daemons.contents().ljust(size, b"\0") == expected, f"seed {seed}"
        assert daemons.back.empty and not daemons.dirty.held and not daemons.dirty.writes, f"seed {seed}"
        assert not daemons.back.bytes_held and not daemons.pool.outstanding_bytes, f"seed {seed}"

    for seed in range(30):
        run(scenario(seed))
