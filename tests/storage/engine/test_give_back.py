"""Storage that goes back to the file system: when, how much, and who has to wait for it."""

import asyncio
import errno
import threading
from pathlib import Path

import pytest

from fs_common.errors import Code, EmberError
from fs_common.ids import chunk_id
from fs_common.layout import Durability
from fs_storage.engine import give_back
from fs_storage.engine.store import EngineStore
from tests.storage.engine.audit import audit
from tests.storage.engine.quick import QuickDisk, open_quick_store
from tests.storage.engine.simulated import on_simulated
from tests.storage.engine.simulated_disk import SimulatedDisk
from tests.storage.engine.updates import apply, refused, remove, write
from tests.support import run

MIB = 1 << 20
PAYLOAD = bytes(MIB)


def chunk(index: int) -> bytes:
    return bytes(chunk_id(3, index))


async def fill(store: EngineStore, count: int, version: int) -> None:
    for index in range(count):
        one = write(version, PAYLOAD, chunk=chunk(index), chunk_size=MIB, durability=Durability.MEMORY)
        await apply(store, one)


async def empty(store: EngineStore, count: int, version: int) -> None:
    for index in range(count):
        await apply(store, remove(version, chunk=chunk(index), chunk_size=MIB))
    await store.checkpoint()


def test_storage_that_nothing_needs_goes_back_to_the_file_system() -> None:
    disk = SimulatedDisk()

    async def case(store: EngineStore) -> None:
        before = disk.space(Path("/")).free_bytes
        await fill(store, 200, 1)
        assert disk.space(Path("/")).free_bytes < before - 190 * MIB
        await empty(store, 200, 2)
        assert disk.space(Path("/")).free_bytes < before - 190 * MIB
        assert store.space().free_bytes > before - 20 * MIB, "it can be used, where it is"
        await asyncio.sleep(give_back.INTERVAL_S + 1)
        assert disk.space(Path("/")).free_bytes > before - 90 * MIB
        assert store.space().free_bytes > before - 20 * MIB
        audit(store)
        await fill(store, 200, 3)
        audit(store)

    on_simulated(disk, case)


def test_files_that_come_and_go_use_the_same_storage_again() -> None:
    class Counting(SimulatedDisk):
        changes = 0

        def allocate(self, file: int, offset: int, length: int) -> None:
            self.changes += 1
            super().allocate(file, offset, length)

        def punch(self, file: int, offset: int, length: int) -> None:
            self.changes += 1
            super().punch(file, offset, length)

    disk = Counting()

    async def case(store: EngineStore) -> None:
        await fill(store, 150, 1)
        await empty(store, 150, 2)
        before = disk.changes
        for version in range(3, 15, 2):
            await asyncio.sleep(give_back.INTERVAL_S * 0.7)
            await fill(store, 150, version)
            await empty(store, 150, version + 1)
        assert disk.changes == before
        await asyncio.sleep(give_back.INTERVAL_S * 2 + 1)
        assert disk.changes > before

    on_simulated(disk, case)


class SlowPunches(QuickDisk):
    """Punches begin when they may."""

    def __init__(self) -> None:
        super().__init__()
        self.may = threading.Event()
        self.punching = threading.Event()
        self.punched = 0
        self.failure: OSError | None = None

    def punch(self, file: int, offset: int, length: int) -> None:
        self.punching.set()
        self.may.wait()
        if self.failure is not None:
            raise self.failure
        super().punch(file, offset, length)
        self.punched += 1


async def giving_back(directory: Path, disk: SlowPunches) -> EngineStore:
    """A store at the moment when it begins to punch."""
    store = await open_quick_store(directory, disk=disk, checkpoint_interval_s=1e9)
    await fill(store, 100, 1)
    await empty(store, 100, 2)
    await asyncio.to_thread(disk.punching.wait)
    return store


def test_updates_do_not_wait_for_storage_that_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(give_back, "INTERVAL_S", 0.0)

    async def body() -> None:
        disk = SlowPunches()
        store = await giving_back(tmp_path, disk)
        try:
            await fill(store, 100, 3)
            assert disk.punched == 0
        finally:
            disk.may.set()
            await store.close()
        assert 0 < disk.punched <= give_back.ROUND_UNITS, "closing waits for what has begun and begins no more"

    run(body())


def test_who_needs_room_waits_for_all_of_it_without_pauses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(give_back, "INTERVAL_S", 0.0)
    monkeypatch.setattr(give_back, "PAUSE_S_MIN", 1e6)
    monkeypatch.setattr(give_back, "ROUND_UNITS", 1)

    async def body() -> None:
        disk = SlowPunches()
        store = await giving_back(tmp_path, disk)
        disk.may.set()
        await store._checkpointer._give_back.finish()
        assert disk.punched >= 5
        await fill(store, 100, 3)
        audit(store)
        await store.close()

    run(body())


def test_storage_that_cannot_be_given_back_fences_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(give_back, "INTERVAL_S", 0.0)

    async def body() -> None:
        disk = SlowPunches()
        disk.failure = OSError(errno.EIO, "the device is gone")
        store = await giving_back(tmp_path, disk)
        disk.may.set()
        await store._checkpointer._give_back.finish()
        assert store.failed
        assert (await refused(store, write(9, b"x"))).code is Code.DISK_FAILED
        with pytest.raises(EmberError):
            await store.sync()
        await store.close()

    run(body())
