"""Stored bytes that are not what they were: found on the disk, and written again."""

import os
from pathlib import Path

import pytest

from fs_common.errors import Code
from fs_common.layout import Durability
from fs_storage.engine.interface import Checked
from fs_storage.engine.store import EngineStore
from tests.storage.engine.quick import open_quick_store
from tests.storage.engine.simulated import BLOCKS, on_simulated, take_simulated
from tests.storage.engine.simulated_disk import SimulatedDisk
from tests.storage.engine.updates import CHUNK, CHUNK_SIZE, PAGE, apply, prepared, remove, take, truncate, write
from tests.storage.refusals import refused
from tests.support import run

MIB = 1 << 20
DATA = bytes(range(251)) * 250
FILE = "64k.0"
LAST = (len(DATA) - 1) // PAGE


def flip(disk: SimulatedDisk, offset: int, name: str = FILE) -> None:
    content = disk.files[BLOCKS / name]
    (old,) = content.get(offset, 1)
    content.put(offset, bytes((old ^ 0x10,)))


def checked(store: EngineStore) -> Checked:
    found = store.check_stored(CHUNK)
    assert found is not None
    return found


@pytest.mark.parametrize("pages", [(0,), (3, 7), (LAST,), tuple(range(LAST + 1))])
def test_flipped_bits_are_found_and_written_again(pages: tuple[int, ...]) -> None:
    disk = SimulatedDisk()

    async def case(store: EngineStore) -> None:
        await apply(store, write(1, DATA))
        assert checked(store) == Checked(1, store.digest(CHUNK), len(DATA), CHUNK_SIZE, (), "")
        for page in pages:
            flip(disk, page * PAGE + 5)
        found = checked(store)
        assert found.bad_pages == pages
        assert f"page {pages[0]} does not match its checksum" in found.reason and FILE in found.reason
        before = store.state(CHUNK)
        assert await store.restore(CHUNK, found.digest, memoryview(DATA), found.bad_pages)
        assert checked(store).bad_pages == () and take_simulated(store, disk) == DATA
        assert store.state(CHUNK) == before and store.digest(CHUNK) == found.digest

    on_simulated(disk, case)


def test_what_cannot_be_read_is_damage_too() -> None:
    disk = SimulatedDisk()

    async def case(store: EngineStore) -> None:
        await apply(store, write(1, DATA))
        disk.unreadable.add(FILE)
        found = checked(store)
        assert found.bad_pages == tuple(range(LAST + 1)) and "cannot be read" in found.reason
        disk.unreadable.clear()
        assert checked(store).bad_pages == ()

    on_simulated(disk, case)


def test_only_that_very_version_is_written_over() -> None:
    disk = SimulatedDisk()

    async def case(store: EngineStore) -> None:
        await apply(store, write(1, DATA))
        digest = store.digest(CHUNK)
        with refused(Code.CHECKSUM):
            await store.restore(CHUNK, digest, memoryview(DATA[:-1] + b"?"), (0,))
        await apply(store, write(2, b"newer"))
        assert not await store.restore(CHUNK, digest, memoryview(DATA), (0,))
        assert take_simulated(store, disk) == b"newer" + DATA[5:]
        await apply(store, remove(3))
        assert store.check_stored(CHUNK) is None
        assert not await store.restore(CHUNK, digest, memoryview(DATA), (0,))

    on_simulated(disk, case)


def test_patches_that_are_not_in_the_block_yet_are_no_damage_and_are_there_before_it_is_written_over() -> None:
    disk = SimulatedDisk()

    async def case(store: EngineStore) -> None:
        await apply(store, write(1, DATA))
        await apply(store, write(2, b"patched", 10))
        assert store.counters()["patch_bytes"] == 7
        assert checked(store).bad_pages == ()
        now = DATA[:10] + b"patched" + DATA[17:]
        flip(disk, 100)
        found = checked(store)
        assert found.bad_pages == (0,)
        assert await store.restore(CHUNK, found.digest, memoryview(now), found.bad_pages)
        assert store.counters()["patch_bytes"] == 0
        assert checked(store).bad_pages == () and take_simulated(store, disk) == now

    on_simulated(disk, case)


@pytest.mark.parametrize("committed", [True, False])
def test_a_pending_version_in_the_same_block_is_not_touched(committed: bool) -> None:
    disk = SimulatedDisk()

    async def case(store: EngineStore) -> None:
        await apply(store, write(1, DATA[:6000], durability=Durability.MEMORY))
        await prepared(store, write(2, DATA[6000:9000], 6000, durability=Durability.MEMORY))
        flip(disk, PAGE + 3, "8k.0")
        found = checked(store)
        assert found.bad_pages == (1,) and found.length == 6000
        assert await store.restore(CHUNK, found.digest, memoryview(DATA[:6000]), found.bad_pages)
        if committed:
            await store.commit([(CHUNK, 2)])
            assert take_simulated(store, disk) == DATA[:9000]
        else:
            await store.abandon(CHUNK, 2)
            assert take_simulated(store, disk) == DATA[:6000]
        assert checked(store).bad_pages == ()

    on_simulated(disk, case)


def test_a_crash_after_it_changes_nothing() -> None:
    for seed in range(20):
        disk = SimulatedDisk()

        async def before(store: EngineStore, disk: SimulatedDisk = disk) -> None:
            await apply(store, write(1, DATA))
            await apply(store, truncate(2, len(DATA)))
            await apply(store, write(3, b"patched", 10))
            flip(disk, 2 * PAGE)
            now = DATA[:10] + b"patched" + DATA[17:]
            found = checked(store)
            assert await store.restore(CHUNK, found.digest, memoryview(now), found.bad_pages)
            disk.crash_at = disk.steps

        on_simulated(disk, before)
        disk = disk.after_power_loss(seed)

        async def after(store: EngineStore, disk: SimulatedDisk = disk) -> None:
            state = store.state(CHUNK)
            assert state is not None and max(state.version, state.pending_version) == 3
            if state.pending_version:
                await store.commit([(CHUNK, 3)])
            found = checked(store)
            # What was written over may be lost with the power, or torn: then that page is damaged as before.
            assert set(found.bad_pages) <= {2}
            assert take_simulated(store, disk, length=2 * PAGE) == (DATA[:10] + b"patched" + DATA[17:])[: 2 * PAGE]

        on_simulated(disk, after)


def test_on_a_real_disk_what_the_device_has_counts(tmp_path: Path) -> None:
    async def case() -> None:
        store = await open_quick_store(tmp_path / "target-1", capacity_bytes=64 * MIB)
        try:
            data = os.urandom(3 * MIB + 777)
            await apply(store, write(1, data, chunk_size=4 * MIB))
            assert checked(store).bad_pages == ()
            (file,) = (tmp_path / "target-1" / "blocks").glob("4096k.0")
            for offset in (2 * MIB + 9, 3 * MIB + 776):
                with open(file, "r+b") as handle:
                    handle.seek(offset)
                    (old,) = handle.read(1)
                    handle.seek(offset)
                    handle.write(bytes((old ^ 1,)))
            found = checked(store)
            assert len(found.bad_pages) == 2
            assert await store.restore(CHUNK, found.digest, memoryview(data), found.bad_pages)
            assert checked(store).bad_pages == ()
            assert take(store, length=4 * MIB, chunk_size=4 * MIB) == data
        finally:
            await store.close()

    run(case())


def test_a_disk_that_takes_no_writes_is_fenced(tmp_path: Path) -> None:
    disk = SimulatedDisk()

    async def case(store: EngineStore) -> None:
        await apply(store, write(1, DATA))
        flip(disk, 0)
        found = checked(store)
        disk.fail_writes = True
        with refused(Code.DISK_FAILED):
            await store.restore(CHUNK, found.digest, memoryview(DATA), found.bad_pages)
        assert store.failed

    on_simulated(disk, case)
