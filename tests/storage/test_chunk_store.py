"""The contract of `ChunkStore`, on every implementation."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fs_common.checksums import page_checksums
from fs_common.errors import Code, EmberError
from fs_common.ids import chunk_id
from fs_common.layout import Durability
from fs_storage.engine.interface import (
    Answer,
    Checked,
    ChunkState,
    ChunkStore,
    Held,
    LastChunk,
    PendingUpdate,
    Prepared,
    Remembered,
)
from fs_storage.engine.memory_store import MemoryStore
from tests.storage.engine.quick import open_quick_store
from tests.storage.engine.updates import (
    CHUNK,
    CHUNK_SIZE,
    CLIENT,
    PAGE,
    apply,
    prepared,
    refused,
    remove,
    replace,
    take,
    truncate,
    write,
)
from tests.support import run

MIB = 1 << 20
OTHER = bytes(chunk_id(7, 1))


Case = Callable[[ChunkStore], Awaitable[None]]
Run = Callable[..., None]


@pytest.fixture(params=["memory", "engine", "engine, memory durability"])
def on_store(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    """Run a case on a fresh store of 64 MiB."""

    @asynccontextmanager
    async def opened():  # type: ignore[no-untyped-def]
        store: ChunkStore
        if request.param == "memory":
            store = MemoryStore(capacity_bytes=64 * MIB)
        else:
            store = await open_quick_store(tmp_path / "target", capacity_bytes=64 * MIB)
        try:
            yield store
        finally:
            await store.close()

    def run_case(case: Case) -> None:
        async def body() -> None:
            async with opened() as store:
                await case(store)

        run(body())

    run_case.durability = Durability.MEMORY if "durability" in request.param else Durability.DISK  # type: ignore[attr-defined]
    return run_case


def pattern(length: int, seed: int = 0) -> bytes:
    return bytes((seed * 37 + i * 7 + (i >> 8)) % 251 for i in range(length))


def test_the_position_grows_before_an_update_is_answered(on_store: Run) -> None:
    async def case(store: ChunkStore) -> None:
        position = store.position
        assert position >= store.recovered
        for version in (1, 2):
            update = write(version, b"data", durability=on_store.durability)  # type: ignore[attr-defined]
            assert await prepared(store, update) == [Prepared(version, 4)]
            assert store.position > position
            position = store.position
            await store.commit([(CHUNK, version)])

    on_store(case)


def test_a_sync_changes_nothing_that_shows(on_store: Run) -> None:
    async def case(store: ChunkStore) -> None:
        assert await prepared(store, write(1, b"data")) == [Prepared(1, 4)]
        await asyncio.gather(store.sync(), store.sync())
        await store.commit([(CHUNK, 1)])
        await store.sync()
        state = store.state(CHUNK)
        assert state is not None and (state.version, state.length, state.pending_version) == (1, 4, 0)

    on_store(case)


def test_a_write_is_pending_until_committed(on_store: Run) -> None:
    async def case(store: ChunkStore) -> None:
        assert store.state(CHUNK) is None
        data = pattern(10_000)
        assert await prepared(store, write(1, data, chain_version=9)) == [Prepared(1, 10_000)]
        assert store.state(CHUNK) == ChunkState(0, 0, False, 1, 10_000, 9)
        assert store.pending() == [CHUNK]
        with pytest.raises(EmberError) as error:
            take(store)
        assert error.value.code is Code.CHUNK_NOT_FOUND
        assert take(store, pending=True) == data
        await store.commit([(CHUNK, 1)])
        assert store.state(CHUNK) == ChunkState(1, 10_000, False, 0, 0, 9)
        assert store.pending() == []
        assert take(store) == data

    on_store(case)


def test_commit_again_does_nothing_and_commit_of_nothing_is_refused(on_store: Run) -> None:
    async def case(store: ChunkStore) -> None:
        await apply(store, write(1, b"one"))
        await apply(store, write(2, b"two"))
        await store.commit([(CHUNK, 2), (CHUNK, 1)])
        assert take(store) == b"two"
        with pytest.raises(EmberError) as error:
            await store.commit([(CHUNK, 3)])
        assert error.value.code is Code.UPDATE_MISSING

    on_store(case)


@pytest.mark.parametrize(
    ("offset", "length"),
    [
        (0, 1),
        (0, 50_000),
        (100, 50),
        (4096, 4096),
        (4000, 200),
        (49_000, 5000),
        (50_000, 100),
        (60_000, 5536),
        (8191, 2),
    ],
)
def test_a_write_over_a_chunk_changes_its_bytes_and_no_others(on_store: Run, offset: int, length: int) -> None:
    async def case(store: ChunkStore) -> None:
        durability = on_store.durability  # type: ignore[attr-defined]
        model = bytearray(pattern(50_000))
        await apply(store, write(1, bytes(model), durability=durability))
        payload = pattern(length, 3)
        await prepared(store, write(2, payload, offset, durability=durability))
        assert take(store) == model, "committed bytes stay readable"
        model.extend(bytes(max(0, offset + length - len(model))))
        model[offset : offset + length] = payload
        assert take(store, pending=True) == model
        await store.commit([(CHUNK, 2)])
        assert take(store) == model
        for start, size in [(0, 1), (4095, 2), (offset, length), (offset + length - 1, 4097), (1, 65_000)]:
            assert take(store, offset=start, length=size) == model[start : start + size]

    on_store(case)


def test_appends_grow_a_chunk_through_all_sizes(on_store: Run) -> None:
    async def case(store: ChunkStore) -> None:
        model = bytearray()
        for version, size in enumerate((1, 4095, 5000, 100, 40_000, 60_000, 300_000, 3, 700_000), 1):
            payload = pattern(size, version)
            await apply(store, write(version, payload, len(model), chunk_size=2 * MIB))
            model += payload
            assert take(store, length=2 * MIB, chunk_size=2 * MIB) == model

    on_store(case)


def test_a_gap_is_zeros_also_where_older_bytes_were(on_store: Run) -> None:
    async def case(store: ChunkStore) -> None:
        await apply(store, write(1, pattern(60_000)))
        await apply(store, truncate(2, 5000))
        assert take(store) == pattern(60_000)[:5000]
        await apply(store, write(3, b"end", 40_000))
        assert take(store) == pattern(60_000)[:5000] + bytes(35_000) + b"end"
        await apply(store, truncate(4, 100))
        await apply(store, truncate(5, CHUNK_SIZE))
        assert take(store) == pattern(60_000)[:100] + bytes(CHUNK_SIZE - 100)

    on_store(case)


def test_truncate_creates_cuts_and_empties(on_store: Run) -> None:
    async def case(store: ChunkStore) -> None:
        await apply(store, truncate(1, 9000))
        assert take(store) == bytes(9000)
        await apply(store, truncate(2, 9000))
        await apply(store, truncate(3, 0))
        assert store.state(CHUNK) == ChunkState(3, 0, False, 0, 0, 1)
        assert take(store) == b""
        await apply(store, write(4, b"x", 10))
        assert take(store) == bytes(10) + b"x"

    on_store(case)


def test_replace_takes_over_whatever_was_there(on_store: Run) -> None:
    async def case(store: ChunkStore) -> None:
        await apply(store, replace(7, b"seven"))
        assert store.state(CHUNK) == ChunkState(7, 5, False, 0, 0, 1)
        await prepared(store, write(8, b"EIGHT", client=CLIENT, channel=1, sequence=1))
        await prepared(store, replace(8, b"another eight"))
        await store.commit([(CHUNK, 8)])
        assert take(store) == b"another eight"
        answer = store.answer(CLIENT, 1)
        assert answer == Answer(1, CHUNK, 0, 0, False), "what was replaced is never committed"
        await apply(store, replace(3, b"older"))
        assert take(store) == b"older" and store.state(CHUNK).version == 3  # type: ignore[union-attr]
        await apply(store, replace(3, b"the same number, other bytes"))
        assert take(store) == b"the same number, other bytes"
        await apply(store, replace(4, b""))
        assert take(store) == b""

    on_store(case)


def test_remove_leaves_a_tombstone(on_store: Run) -> None:
    async def case(store: ChunkStore) -> None:
        await apply(store, write(1, b"data"))
        await prepared(store, remove(2))
        assert store.pending_update(CHUNK) == PendingUpdate(2, 0, True, CHUNK_SIZE, b"", 0, 0)
        assert take(store) == b"data"
        await store.commit([(CHUNK, 2)])
        assert store.state(CHUNK) == ChunkState(2, 0, True, 0, 0, 1)
        with pytest.raises(EmberError) as error:
            take(store)
        assert error.value.code is Code.CHUNK_NOT_FOUND
        assert (await refused(store, write(1, b"late"))).code is Code.UPDATE_MISSING
        await apply(store, write(3, b"over the tombstone", 5))
        assert take(store) == bytes(5) + b"over the tombstone"

    on_store(case)


def test_removing_a_missing_chunk_makes_a_version(on_store: Run) -> None:
    async def case(store: ChunkStore) -> None:
        await apply(store, remove(1))
        assert store.state(CHUNK) == ChunkState(1, 0, True, 0, 0, 1)
        await apply(store, remove(9))
        assert store.state(CHUNK).version == 9  # type: ignore[union-attr]

    on_store(case)


def test_abandon_forgets_the_bytes_and_keeps_the_sequence(on_store: Run) -> None:
    async def case(store: ChunkStore) -> None:
        await apply(store, write(1, b"first", client=CLIENT, channel=4, sequence=10))
        assert store.answer(CLIENT, 4) == Answer(10, CHUNK, 1, 5, True)
        await prepared(store, write(2, b"FI", client=CLIENT, channel=4, sequence=11))
        assert store.answer(CLIENT, 4) == Answer(11, CHUNK, 2, 5, False)
        await store.abandon(CHUNK, 2)
        await store.abandon(CHUNK, 2)
        assert store.answer(CLIENT, 4) == Answer(11, CHUNK, 0, 0, False)
        assert store.state(CHUNK) == ChunkState(1, 5, False, 0, 0, 1)
        await apply(store, write(2, b"SE", client=CLIENT, channel=5, sequence=1))
        assert store.answer(CLIENT, 4) == Answer(11, CHUNK, 0, 0, False)
        assert store.answer(CLIENT, 5) == Answer(1, CHUNK, 2, 5, True)
        assert take(store) == b"SErst"
        await prepared(store, write(1, b"new", chunk=OTHER))
        await store.abandon(OTHER, 1)
        assert store.state(OTHER) is None and store.pending() == []

    on_store(case)


def test_a_chunk_that_is_forgotten_is_as_one_never_heard_of(on_store: Run) -> None:
    async def case(store: ChunkStore) -> None:
        durability = on_store.durability  # type: ignore[attr-defined]
        gone = bytes(chunk_id(7, 2))
        await apply(store, write(1, pattern(9000), client=CLIENT, channel=1, sequence=1, durability=durability))
        await apply(store, write(2, pattern(90), 100, client=CLIENT, channel=1, sequence=2, durability=durability))
        await prepared(store, write(3, b"pending", client=CLIENT, channel=2, sequence=1, durability=durability))
        await apply(store, write(1, b"stays", chunk=OTHER), remove(1, chunk=gone))
        floor, used = store.floor, store.space().chunks
        await store.forget([CHUNK, gone, CHUNK, bytes(chunk_id(7, 9))])
        assert store.state(CHUNK) is None and store.state(gone) is None
        assert store.digest(CHUNK) == store.digest(CHUNK, pending=True) == 0
        assert [held.chunk for held in store.held(b"", 10)] == [OTHER]
        assert store.pending() == [] and store.chunks_of(7, 0, 9) == [OTHER]
        assert store.space().chunks == used - 1 and store.floor == floor
        assert store.answer(CLIENT, 1) == Answer(2, CHUNK, 2, 9000, True)
        assert store.answer(CLIENT, 2) == Answer(1, CHUNK, 0, 0, False)
        with pytest.raises(EmberError) as error:
            await store.commit([(CHUNK, 3)])
        assert error.value.code is Code.UPDATE_MISSING
        await store.forget([])
        # The numbers are free again, lower ones too.
        await apply(store, write(1, b"new", durability=durability), remove(7, chunk=gone))
        assert take(store) == b"new"
        assert store.answer(CLIENT, 2) == Answer(1, CHUNK, 0, 0, False)

    on_store(case)


def test_a_chunk_is_forgotten_after_what_is_under_way_on_it(on_store: Run) -> None:
    async def case(store: ChunkStore) -> None:
        first, second = write(1, pattern(9000)), write(1, pattern(70), chunk=OTHER)
        await asyncio.gather(store.prepare([first, second]), store.forget([CHUNK]), store.forget([CHUNK, OTHER]))
        assert store.state(CHUNK) is None and store.state(OTHER) is None
        await asyncio.gather(store.forget([CHUNK]), store.prepare([first]))
        await store.commit([(CHUNK, 1)])
        assert take(store) == pattern(9000)

    on_store(case)


def test_an_abandoned_append_does_not_show_in_the_next_one(on_store: Run) -> None:
    async def case(store: ChunkStore) -> None:
        durability = on_store.durability  # type: ignore[attr-defined]
        await apply(store, write(1, pattern(1000), durability=durability))
        await prepared(store, write(2, b"A" * 50_000, 1000, durability=durability))
        await store.abandon(CHUNK, 2)
        assert take(store) == pattern(1000)
        await apply(store, write(2, b"B" * 10, 3000, durability=durability))
        assert take(store) == pattern(1000) + bytes(2000) + b"B" * 10

    on_store(case)


def test_the_same_update_again_changes_nothing_and_another_is_refused(on_store: Run) -> None:
    async def case(store: ChunkStore) -> None:
        one = write(1, b"data", client=CLIENT, channel=1, sequence=5)
        assert await prepared(store, one) == [Prepared(1, 4)]
        assert await prepared(store, one) == [Prepared(1, 4)]
        other = write(1, b"other", client=CLIENT, channel=1, sequence=6)
        assert (await refused(store, other)).code is Code.UPDATE_MISSING
        assert (await refused(store, write(2, b"next"))).code is Code.UPDATE_MISSING
        assert take(store, pending=True) == b"data"
        assert store.answer(CLIENT, 1) == Answer(5, CHUNK, 1, 4, False)
        await store.commit([(CHUNK, 1)])
        assert store.answer(CLIENT, 1) == Answer(5, CHUNK, 1, 4, True)
        assert (await refused(store, one)).code is Code.UPDATE_MISSING
        assert (await refused(store, write(3, b"skips one"))).code is Code.UPDATE_MISSING

    on_store(case)


def test_an_older_update_of_a_channel_does_not_hide_its_newest(on_store: Run) -> None:
    async def case(store: ChunkStore) -> None:
        await apply(store, write(1, b"data", client=CLIENT, channel=1, sequence=8))
        await apply(store, replace(1, b"data", chunk=OTHER, client=CLIENT, channel=1, sequence=7))
        assert store.answer(CLIENT, 1) == Answer(8, CHUNK, 1, 4, True)
        assert store.answer(CLIENT, 2) is None
        assert store.answer(b"", 0) is None

    on_store(case)


def test_a_damaged_payload_leaves_no_trace_and_does_not_fail_its_neighbours(on_store: Run) -> None:
    async def case(store: ChunkStore) -> None:
        bad = write(1, pattern(9000), 100, client=CLIENT, channel=1, sequence=1)
        bad.payload = memoryview(pattern(9000, 1))
        good = write(1, b"good", chunk=OTHER)
        used = store.space().used_bytes
        first, second = await store.prepare([bad, good])
        assert isinstance(first, EmberError) and first.code is Code.CHECKSUM
        assert second == Prepared(1, 4)
        assert store.state(CHUNK) is None and store.answer(CLIENT, 1) is None
        await store.abandon(OTHER, 1)
        one_for_all = write(1, pattern(9000))
        one_for_all.checksums = page_checksums(memoryview(b"x" * 10), 0, CHUNK_SIZE)
        assert (await refused(store, one_for_all)).code is Code.CHECKSUM
        assert store.space().used_bytes <= used + PAGE

    on_store(case)


@pytest.mark.parametrize(
    "wrong",
    [
        write(1, b"x" * 10, CHUNK_SIZE - 9),
        write(1, b""),
        truncate(1, CHUNK_SIZE + 1),
        replace(1, b"x" * (CHUNK_SIZE + 1)),
        write(1, b"x", chunk=b"short"),
        write(1, b"x", chunk_size=100_000),
        write(0, b"x"),
        write(1, b"x", client=b"c" * 65),
    ],
    ids=lambda one: f"{one.kind.name} at {one.offset}, {len(one.payload)} bytes",
)
def test_a_malformed_update_is_invalid(on_store: Run, wrong) -> None:  # type: ignore[no-untyped-def]
    async def case(store: ChunkStore) -> None:
        assert (await refused(store, wrong)).code is Code.INVALID
        assert store.pending() == []

    on_store(case)


def test_pages_of_another_size_are_refused(on_store: Run) -> None:
    async def case(store: ChunkStore) -> None:
        await apply(store, write(1, b"x"))
        assert (await refused(store, write(2, b"x", chunk_size=64 * MIB))).code is Code.INVALID
        await apply(store, replace(2, pattern(100_000), chunk_size=64 * MIB))
        assert take(store, length=MIB, chunk_size=64 * MIB) == pattern(100_000)

    on_store(case)


def test_no_space_leaves_no_trace_and_removal_makes_room(on_store: Run) -> None:
    async def case(store: ChunkStore) -> None:
        payload = pattern(MIB // 16) * 64
        chunks = [bytes(chunk_id(9, index)) for index in range(17)]
        for chunk in chunks[:16]:
            await apply(store, write(1, payload, chunk=chunk, chunk_size=4 * MIB))
        space = store.space()
        assert (space.capacity_bytes, space.free_bytes, space.used_bytes, space.chunks) == (64 * MIB, 0, 64 * MIB, 16)
        full = write(1, payload, chunk=chunks[16], chunk_size=4 * MIB, client=CLIENT, channel=1, sequence=1)
        assert (await refused(store, full)).code is Code.NO_SPACE
        assert store.state(chunks[16]) is None and store.answer(CLIENT, 1) is None
        assert take(store, chunks[0], length=4 * MIB, chunk_size=4 * MIB) == payload
        await apply(store, remove(2, chunk=chunks[3]))
        await apply(store, full)
        assert take(store, chunks[16], length=4 * MIB, chunk_size=4 * MIB) == payload

    on_store(case)


def test_chunks_of_a_file(on_store: Run) -> None:
    async def case(store: ChunkStore) -> None:
        assert store.last_chunk(5) == LastChunk(-1, 0, 0, 0)
        assert store.chunks_of(5, 0, 10) == []
        ids = {index: bytes(chunk_id(5, index)) for index in (0, 3, 7, 300, 2**32 - 1)}
        for number, chunk in enumerate(ids.values(), 1):
            await apply(store, write(1, pattern(number * 10), chunk=chunk))
        for neighbour in (4, 6):
            await apply(store, write(1, b"x", chunk=bytes(chunk_id(neighbour, 3))))
        await prepared(store, write(1, b"only pending", chunk=bytes(chunk_id(5, 4))))
        assert store.last_chunk(5) == LastChunk(2**32 - 1, 50, 5, 150)
        assert store.chunks_of(5, 0, 10) == list(ids.values())
        assert store.chunks_of(5, 1, 2) == [ids[3], ids[7]]
        await apply(store, remove(2, chunk=ids[2**32 - 1]))
        await apply(store, truncate(2, 1, chunk=ids[300]))
        await apply(store, write(2, pattern(100), 10, chunk=ids[7]))
        assert store.last_chunk(5) == LastChunk(300, 1, 4, 10 + 20 + 110 + 1)
        assert store.chunks_of(5, 300, 10) == [ids[300]]
        assert store.chunks_of(5, 2**32, 1) == []

    on_store(case)


def test_reads_end_where_the_chunk_ends(on_store: Run) -> None:
    async def case(store: ChunkStore) -> None:
        data = pattern(100_000)
        await apply(store, write(1, data, chunk_size=MIB))
        for offset, length in [(0, 100_000), (99_999, 10), (100_000, 1), (500_000, 10), (0, 99_999), (5, 80_000)]:
            assert take(store, offset=offset, length=length, chunk_size=MIB) == data[offset : offset + length]

    on_store(case)


def test_a_batch_prepares_and_commits_together(on_store: Run) -> None:
    async def case(store: ChunkStore) -> None:
        chunks = [bytes(chunk_id(3, index)) for index in range(50)]
        await prepared(store, *[write(1, pattern(2000, i), chunk=chunk) for i, chunk in enumerate(chunks)])
        await store.commit([(chunk, 1) for chunk in chunks])
        for i, chunk in enumerate(chunks):
            assert take(store, chunk) == pattern(2000, i)

    on_store(case)


def test_a_digest_is_of_what_a_version_is_and_of_nothing_else(on_store: Run) -> None:
    async def case(store: ChunkStore) -> None:
        assert store.digest(CHUNK) == store.digest(CHUNK, pending=True) == 0
        await apply(store, write(1, b"some"), write(1, b"some", chunk=OTHER, client=CLIENT, channel=1, sequence=1))
        first = store.digest(CHUNK)
        assert first and first == store.digest(OTHER)
        await prepared(store, write(2, b"text", 4), replace(2, b"sometext", chunk=OTHER))
        second = store.digest(CHUNK, pending=True)
        assert (store.digest(CHUNK), second) == (first, store.digest(OTHER, pending=True)), "however it was made"
        await store.commit([(CHUNK, 2), (OTHER, 2)])
        assert store.digest(CHUNK) == second and not store.digest(CHUNK, pending=True)
        seen = {first, second}
        for other in (replace(3, b"sometext"), replace(2, b"sometexT"), replace(2, b"sometex"), replace(2, b"")):
            await apply(store, other)
            seen.add(store.digest(CHUNK))
        await apply(store, remove(3))
        seen.add(store.digest(CHUNK))
        assert len(seen) == 7 and 0 not in seen

    on_store(case)


def test_checksums_are_those_of_the_pages(on_store: Run) -> None:
    async def case(store: ChunkStore) -> None:
        data = bytes(range(256)) * (CHUNK_SIZE // 256)
        await apply(store, write(1, data))
        assert store.checksums(CHUNK) == page_checksums(memoryview(data), 0, CHUNK_SIZE)
        await prepared(store, write(2, b"patch", 5000))
        assert store.checksums(CHUNK) == page_checksums(memoryview(data), 0, CHUNK_SIZE), "of what is committed"
        await store.commit([(CHUNK, 2)])
        changed = memoryview(data[:5000] + b"patch" + data[5005:])
        assert store.checksums(CHUNK) == page_checksums(changed, 0, CHUNK_SIZE)
        await apply(store, remove(3))
        assert store.checksums(CHUNK) == store.checksums(OTHER) == b""

    on_store(case)


def test_what_is_held_is_listed_in_pages(on_store: Run) -> None:
    async def case(store: ChunkStore) -> None:
        ids = [bytes(chunk_id(3, index)) for index in range(9)]
        await apply(store, *(write(1, b"x" * (index + 1), chunk=chunk) for index, chunk in enumerate(ids)))
        await store.checkpoint()
        await apply(store, remove(2, chunk=ids[4]), write(2, b"yy", 1, chunk=ids[6]))
        await prepared(store, remove(2, chunk=ids[0]), write(2, b"z", 5, chunk=ids[2]))
        await prepared(store, write(1, b"gone", chunk=OTHER))
        await store.abandon(OTHER, 1)
        for limit in (1, 2, 4, 9, 100):
            listed: list[Held] = []
            while len(page := store.held(listed[-1].chunk if listed else b"", limit)) == limit:
                listed += page
            listed += page
            assert [one.chunk for one in listed] == ids
            for one in listed:
                state = store.state(one.chunk)
                assert state is not None
                assert (one.version, one.length, one.removed) == (state.version, state.length, state.removed)
                assert (one.pending_version, one.pending_length) == (state.pending_version, state.pending_length)
                assert one.digest == store.digest(one.chunk) and one.chunk_size == CHUNK_SIZE
                assert one.pending_digest == store.digest(one.chunk, pending=True)
                assert one.pending_removed == (one.chunk == ids[0])
                assert one.pending_chunk_size == (CHUNK_SIZE if one.pending_version else 0)
                assert store.holding(one.chunk) == one
        assert store.holding(OTHER) == Held(OTHER)

    on_store(case)


def test_answers_are_listed_and_adopted_and_never_go_back(on_store: Run) -> None:
    async def case(store: ChunkStore) -> None:
        for channel in range(5):
            chunk = bytes(chunk_id(3, channel))
            await apply(store, write(1, b"x" * 7, chunk=chunk, client=CLIENT, channel=channel, sequence=40 + channel))
            if channel == 2:
                await store.checkpoint()
        await prepared(store, write(1, b"y", client=CLIENT, channel=8, sequence=1))
        await apply(store, remove(2, chunk=bytes(chunk_id(3, 4))))
        for limit in (1, 2, 7):
            listed: list[Remembered] = []
            after = b""
            while True:
                page, after = store.remembered(after, limit)
                listed += page
                if not after:
                    break
            assert [(one.channel, one.sequence, one.version, one.length) for one in listed] == [
                (channel, 40 + channel, 1, 7) for channel in range(5)
            ], "what is pending is not among them"
        floor = store.floor
        mine, newer, new = listed[0], listed[1]._replace(sequence=99, version=3), listed[2]._replace(channel=77)
        dropped = listed[3]._replace(sequence=50, version=2)
        await prepared(store, write(2, b"z", chunk=dropped.chunk, client=CLIENT, channel=3, sequence=50))
        await store.abandon(dropped.chunk, 2)
        assert store.answer(CLIENT, 3) == Answer(50, dropped.chunk, 0, 0, False)
        store.adopt([mine._replace(sequence=1, version=9), newer, new, dropped], floor + 5)
        store.adopt([], 0)
        await store.checkpoint()
        assert store.floor == floor + 5
        assert store.answer(CLIENT, 0) == Answer(40, mine.chunk, 1, 7, True)
        assert store.answer(CLIENT, 1) == Answer(99, newer.chunk, 3, 7, True)
        assert store.answer(CLIENT, 3) == Answer(50, dropped.chunk, 2, 7, True)
        assert store.answer(CLIENT, 77) == Answer(42, new.chunk, 1, 7, True)

    on_store(case)


def test_an_answer_is_retracted_and_may_be_given_again(on_store: Run) -> None:
    async def case(store: ChunkStore) -> None:
        await apply(store, write(1, b"first", client=CLIENT, channel=1, sequence=5))
        await prepared(store, write(1, b"p", chunk=OTHER, client=CLIENT, channel=2, sequence=6))
        await store.checkpoint()
        first = Remembered(CLIENT, 1, 5, CHUNK, 1, 5)
        waits = Remembered(CLIENT, 2, 6, OTHER, 1, 1, False)
        assert store.remembered(b"", 9) == ([first], b"")
        assert store.remembered(b"", 9, every=True) == ([first, waits], b"")
        store.retract([first._replace(version=2), first._replace(sequence=4), first._replace(channel=9)])
        assert store.remembered(b"", 9)[0] == [first], "what is not remembered is not retracted"
        store.retract([first])
        assert store.remembered(b"", 9)[0] == []
        gone = first._replace(version=0, length=0, committed=False)
        assert store.remembered(b"", 9, every=True)[0] == [gone, waits]
        assert store.answer(CLIENT, 1) == Answer(5, CHUNK, 0, 0, False)
        assert take(store) == b"first"
        store.adopt([first], 0)
        assert store.answer(CLIENT, 1) == Answer(5, CHUNK, 1, 5, True)

    on_store(case)


def test_what_is_stored_is_checked_and_may_be_written_again(on_store: Run) -> None:
    async def case(store: ChunkStore) -> None:
        assert store.check_stored(CHUNK) is None
        data = pattern(10_000)
        await apply(store, write(1, data))
        digest = store.digest(CHUNK)
        found = store.check_stored(CHUNK)
        assert found == Checked(1, digest, len(data), CHUNK_SIZE, (), "")
        assert await store.restore(CHUNK, digest, memoryview(data), (0, 2))
        assert store.check_stored(CHUNK) == found and take(store) == data
        with pytest.raises(EmberError) as caught:
            await store.restore(CHUNK, digest, memoryview(data[:-1] + b"?"), (0,))
        assert caught.value.code is Code.CHECKSUM
        await apply(store, remove(2))
        assert store.check_stored(CHUNK) is None
        assert not await store.restore(CHUNK, digest, memoryview(data), (0,))

    on_store(case)
