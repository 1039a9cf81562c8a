"""Reads: what is not in memory, what is damaged, what is being read while it changes."""

import pytest

from fs_common.checksums import matches
from fs_common.errors import Code, EmberError
from fs_common.layout import Durability
from fs_common.rpc import FileRange
from fs_storage.engine.interface import ChunkRead, WouldBlock
from fs_storage.engine.store import EngineStore
from tests.storage.engine.simulated import BLOCKS, on_simulated, take_simulated
from tests.storage.engine.simulated_disk import SimulatedDisk
from tests.storage.engine.updates import CHUNK, PAGE, apply, disk_reader, prepared, received, write

MIB = 1 << 20
DATA = bytes(range(251)) * 4096
assert len(DATA) > MIB // 2


def flip(disk: SimulatedDisk, name: str, offset: int) -> None:
    content = disk.files[BLOCKS / name]
    (old,) = content.get(offset, 1)
    content.put(offset, bytes((old ^ 1,)))


def read(store: EngineStore, offset: int, length: int, *, blocking: bool = False, pending: bool = False) -> ChunkRead:
    buffer = memoryview(bytearray(length))
    method = store.read_blocking if blocking else store.read
    return method(CHUNK, offset, length, buffer, pending=pending)


def test_small_reads_are_copied_and_large_ones_are_ranges() -> None:
    disk = SimulatedDisk()

    async def case(store: EngineStore) -> None:
        await apply(store, write(1, DATA, chunk_size=MIB))
        small = read(store, PAGE, PAGE)
        assert isinstance(small.part, memoryview) and small.release is None
        assert len(small.checksums) == 4 and small.part == DATA[PAGE : 2 * PAGE]
        large = read(store, 0, MIB)
        assert isinstance(large.part, FileRange) and large.length == len(DATA)
        assert len(large.checksums) == 4, "one for the whole chunk, as it was written in one piece"
        assert received(large, disk_reader(disk)) == DATA
        unaligned = read(store, 100, 200_000)
        assert isinstance(unaligned.part, FileRange)
        data = received(unaligned, disk_reader(disk))
        assert data == DATA[100:200_100] and matches(memoryview(data), 100, MIB, unaligned.checksums)

    on_simulated(disk, case)


def test_appends_keep_one_checksum_for_the_whole_chunk_and_other_writes_lose_it() -> None:
    disk = SimulatedDisk()

    async def case(store: EngineStore) -> None:
        for version in range(4):
            payload = DATA[version * 100_000 : (version + 1) * 100_000]
            await apply(store, write(version + 1, payload, version * 100_000, chunk_size=MIB))
        answer = read(store, 0, MIB)
        assert len(answer.checksums) == 4
        assert matches(memoryview(received(answer, disk_reader(disk))), 0, MIB, answer.checksums)
        await apply(store, write(5, b"x", 5, chunk_size=MIB))
        answer = read(store, 0, MIB)
        assert len(answer.checksums) == 4 * 98
        assert received(answer, disk_reader(disk))[:6] == DATA[:5] + b"x"

    on_simulated(disk, case)


@pytest.mark.parametrize(("offset", "length"), [(0, PAGE), (10, 20), (0, 300_000), (10, 300_000)])
def test_what_is_not_in_memory_is_read_by_a_thread(offset: int, length: int) -> None:
    disk = SimulatedDisk()

    async def case(store: EngineStore) -> None:
        await apply(store, write(1, DATA, chunk_size=MIB))
        disk.uncached.add("1024k.0")
        with pytest.raises(WouldBlock):
            read(store, offset, length)
        answer = read(store, offset, length, blocking=True)
        data = received(answer, disk_reader(disk))
        assert data == DATA[offset : offset + length]
        assert matches(memoryview(data), offset, MIB, answer.checksums)
        assert received(read(store, offset, length), disk_reader(disk)) == data
        assert store.counters()["uncached_reads"] == 1

    on_simulated(disk, case)


def test_damage_is_noticed_by_whoever_can_notice_it() -> None:
    disk = SimulatedDisk()

    async def case(store: EngineStore) -> None:
        await apply(store, write(1, DATA, chunk_size=MIB))
        flip(disk, "1024k.0", PAGE + 7)
        for blocking in (False, True):
            # A page that is sent whole is the client's to verify.
            answer = read(store, PAGE, PAGE, blocking=blocking)
            assert not matches(memoryview(received(answer)), PAGE, MIB, answer.checksums)
            for offset, length in [(PAGE + 100, 10), (PAGE + 1, PAGE), (10, PAGE), (100, 100_000)]:
                if offset == 100:
                    answer = read(store, offset, length, blocking=blocking)
                    data = received(answer, disk_reader(disk))
                    assert not matches(memoryview(data), offset, MIB, answer.checksums)
                    continue
                with pytest.raises(EmberError) as error:
                    read(store, offset, length, blocking=blocking)
                assert error.value.code is Code.CHECKSUM
        with pytest.raises(EmberError):
            read(store, PAGE + 100, 100_000)
        assert read(store, 0, PAGE).part == DATA[:PAGE]
        assert store.counters()["damaged_reads"] > 0

    on_simulated(disk, case)


def test_damage_is_not_given_a_new_checksum_by_a_write_over_it() -> None:
    disk = SimulatedDisk()

    async def case(store: EngineStore) -> None:
        await apply(store, write(1, DATA, chunk_size=MIB))
        flip(disk, "1024k.0", PAGE + 7)
        (refusal,) = await store.prepare([write(2, b"x" * 10, PAGE + 50, chunk_size=MIB)])
        assert isinstance(refusal, EmberError) and refusal.code is Code.CHECKSUM
        await apply(store, write(2, DATA[PAGE : 2 * PAGE], PAGE, chunk_size=MIB))
        assert take_simulated(store, disk, CHUNK, 0, MIB, chunk_size=MIB) == DATA

    on_simulated(disk, case)


def test_an_unreadable_disk_fails_reads_and_not_the_store() -> None:
    disk = SimulatedDisk()

    async def case(store: EngineStore) -> None:
        await apply(store, write(1, DATA, chunk_size=MIB))
        disk.unreadable.add("1024k.0")
        for blocking in (False, True):
            with pytest.raises(EmberError) as error:
                read(store, 10, 10, blocking=blocking)
            assert error.value.code is Code.DISK_FAILED
        disk.unreadable.clear()
        assert read(store, 10, 10).part == DATA[10:20]

    on_simulated(disk, case)


def test_a_block_is_not_used_again_while_it_is_being_sent() -> None:
    disk = SimulatedDisk()

    async def case(store: EngineStore) -> None:
        await apply(store, write(1, DATA, chunk_size=MIB))
        slow = read(store, 0, MIB)
        for version in range(2, 12):
            await apply(store, write(version, bytes(len(DATA)), chunk_size=MIB))
            await store.checkpoint()
        used = store.space().used_bytes
        assert received(slow, disk_reader(disk)) == DATA
        await apply(store, write(12, bytes(len(DATA)), chunk_size=MIB))
        assert store.space().used_bytes <= used, "the block is used again after its release"

    on_simulated(disk, case)


@pytest.mark.parametrize("durability", [Durability.DISK, Durability.MEMORY])
def test_reads_see_patches_before_during_and_after_they_reach_the_block(durability: int) -> None:
    disk = SimulatedDisk()

    async def case(store: EngineStore) -> None:
        model = bytearray(DATA)
        await apply(store, write(1, DATA, chunk_size=MIB, durability=durability))
        for version in range(2, 60):
            offset = version * 9000
            payload = bytes([version]) * (version * 100)
            await prepared(store, write(version, payload, offset, chunk_size=MIB, durability=durability))
            model[offset : offset + len(payload)] = payload
            for start, length in [(offset - 5, 100), (0, MIB), (offset & -PAGE, PAGE)]:
                seen = take_simulated(store, disk, CHUNK, start, length, chunk_size=MIB, pending=True)
                assert seen == model[start : start + length]
            await store.commit([(CHUNK, version)])
            if version % 7 == 0:
                await store.settle()
            assert take_simulated(store, disk, CHUNK, 0, MIB, chunk_size=MIB) == model
        await store.settle()
        await store.settle()
        assert store.counters()["patch_bytes"] == 0
        assert isinstance(read(store, 0, MIB).part, FileRange)

    on_simulated(disk, case)
