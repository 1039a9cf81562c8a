"""Disks that are full or fail."""

from pathlib import Path

import pytest

from fs_common.errors import Code, EmberError
from fs_common.ids import chunk_id
from fs_common.layout import Durability
from fs_storage.engine.index import Expiry
from fs_storage.engine.store import EngineStore
from tests.storage.engine.audit import audit
from tests.storage.engine.simulated import on_simulated, take_simulated
from tests.storage.engine.simulated_disk import SimulatedDisk, SimulatedIndex
from tests.storage.engine.updates import CHUNK, apply, prepared, refused, remove, write

MIB = 1 << 20


def chunk(index: int) -> bytes:
    return bytes(chunk_id(3, index))


async def everything_fails(store: EngineStore) -> None:
    assert store.failed and store.counters()["failed"] == 1
    with pytest.raises(EmberError) as error:
        store.read(CHUNK, 0, 1, memoryview(bytearray(1)))
    assert error.value.code is Code.DISK_FAILED
    assert (await refused(store, write(9, b"x"))).code is Code.DISK_FAILED
    with pytest.raises(EmberError):
        await store.commit([(CHUNK, 2)])
    with pytest.raises(EmberError):
        await store.abandon(CHUNK, 2)


def test_a_failed_sync_fences_the_store_and_what_it_acknowledged_is_there_afterwards() -> None:
    disk = SimulatedDisk()

    async def case(store: EngineStore) -> None:
        await apply(store, write(1, b"acknowledged"))
        disk.fail_syncs = True
        assert (await refused(store, write(2, b"never"))).code is Code.DISK_FAILED
        await everything_fails(store)

    on_simulated(disk, case)
    disk.fail_syncs = False
    disk = disk.after_power_loss(3)

    async def afterwards(store: EngineStore) -> None:
        state = store.state(CHUNK)
        assert state is not None
        if state.version == 0:
            await store.commit([(CHUNK, 1)])
        assert take_simulated(store, disk) == b"acknowledged"

    on_simulated(disk, afterwards)


@pytest.mark.parametrize("durability", [Durability.DISK, Durability.MEMORY])
def test_a_failed_write_fences_the_store(durability: int) -> None:
    disk = SimulatedDisk()

    async def case(store: EngineStore) -> None:
        await apply(store, write(1, b"x"))
        disk.fail_writes = True
        assert (await refused(store, write(2, b"y", durability=durability))).code is Code.DISK_FAILED
        await everything_fails(store)

    on_simulated(disk, case)


def test_a_failed_checkpoint_fences_the_store() -> None:
    disk = SimulatedDisk()

    class FailingIndex(SimulatedIndex):
        def apply(self, records, answers, sequence: int, expiry: Expiry) -> None:  # type: ignore[no-untyped-def]
            if records:
                raise OSError(5, "the index cannot be written")
            super().apply(records, answers, sequence, expiry)

    async def case(store: EngineStore) -> None:
        await apply(store, write(1, b"x"))
        with pytest.raises(EmberError) as error:
            await store.checkpoint()
        assert error.value.code is Code.DISK_FAILED
        await everything_fails(store)

    on_simulated(disk, case, open_index=lambda path: FailingIndex(disk))


def test_a_full_disk_refuses_data_takes_removals_and_is_usable_again() -> None:
    disk = SimulatedDisk(total_bytes=24 * MIB)
    payload = bytes(MIB)

    async def case(store: EngineStore) -> None:
        count = 0
        while True:
            (result,) = await store.prepare([write(1, payload, chunk=chunk(count), chunk_size=MIB)])
            if isinstance(result, EmberError):
                break
            await store.commit([(chunk(count), 1)])
            count += 1
        assert result.code is Code.NO_SPACE and count >= 16
        assert store.state(chunk(count)) is None
        assert disk.space(Path("/")).free_bytes < 4 * MIB
        audit(store)
        for index in range(count):
            await apply(store, remove(2, chunk=chunk(index), chunk_size=MIB))
        await store.checkpoint()
        audit(store)
        # The storage goes to another size of block: whole units change hands.
        for index in range(64):
            await apply(store, write(1, bytes(64 * 1024), chunk=chunk(1000 + index), chunk_size=MIB))
        for index in range(64):
            found = take_simulated(store, disk, chunk(1000 + index), 0, MIB, chunk_size=MIB)
            assert found == bytes(64 * 1024)
            await apply(store, remove(2, chunk=chunk(1000 + index), chunk_size=MIB))
        audit(store)

    on_simulated(disk, case)

    async def reopened(store: EngineStore) -> None:
        # Also what had storage when the store was opened, and belongs to nobody.
        assert store.space().free_bytes >= 20 * MIB
        for index in range(16):
            await apply(store, write(1, payload, chunk=chunk(2000 + index), chunk_size=MIB))
        audit(store)

    on_simulated(disk, reopened)


def test_a_full_log_makes_room_by_a_checkpoint() -> None:
    disk = SimulatedDisk(total_bytes=8 * MIB)

    async def case(store: EngineStore) -> None:
        await apply(store, write(1, bytes(60_000)))
        model = bytearray(60_000)
        for version in range(2, 200):
            payload = bytes([version % 251]) * 30_000
            await apply(store, write(version, payload, version * 100))
            model[version * 100 : version * 100 + 30_000] = payload
        assert take_simulated(store, disk) == model
        assert store.counters()["checkpoints"] > 0

    on_simulated(disk, case)


def test_an_index_that_cannot_grow_takes_no_new_blocks() -> None:
    disk = SimulatedDisk()
    index = SimulatedIndex(disk)

    async def case(store: EngineStore) -> None:
        await apply(store, write(1, bytes(60_000)))
        index.full = True
        await store.checkpoint()
        assert (await refused(store, write(1, b"x", chunk=chunk(1)))).code is Code.NO_SPACE
        await apply(store, remove(2))
        index.full = False
        await apply(store, write(1, b"x", chunk=chunk(1)))

    on_simulated(disk, case, open_index=lambda path: index)


def test_updates_that_are_refused_do_not_use_up_blocks() -> None:
    disk = SimulatedDisk()

    async def case(store: EngineStore) -> None:
        for _ in range(5):
            bad = write(1, bytes(60_000))
            bad.checksums = bytes(len(bad.checksums))
            assert (await refused(store, bad)).code is Code.CHECKSUM
        assert store.space().used_bytes == 0
        for _ in range(5):
            await prepared(store, write(1, bytes(60_000)))
            await store.abandon(CHUNK, 1)
        await store.checkpoint()
        assert store.space().used_bytes == 0
        audit(store)

    on_simulated(disk, case)
