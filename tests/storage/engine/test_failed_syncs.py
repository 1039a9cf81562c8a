"""A sync that failed: Linux tells it once, calls the pages clean, and reads them back until it forgets them."""

import asyncio
import errno
import os
import threading
from pathlib import Path

import pytest

from fs_common.errors import Code, EmberError
from fs_common.ids import chunk_id
from fs_common.layout import Durability
from fs_storage.engine.store import EngineStore
from tests.storage.engine.quick import QuickDisk, open_quick_store
from tests.storage.engine.simulated import on_simulated, open_simulated, take_simulated
from tests.storage.engine.simulated_disk import SimulatedDisk
from tests.storage.engine.updates import CHUNK, apply, prepared, refused, write
from tests.storage.engine.virtual_loop import run_virtual
from tests.support import run


def chunk(index: int) -> bytes:
    return bytes(chunk_id(3, index))


def versions(store: EngineStore, of: bytes) -> tuple[int, int]:
    state = store.state(of)
    return (0, 0) if state is None else (state.version, state.pending_version)


@pytest.mark.parametrize("file", ["redo.0", "64k.0"])
def test_what_a_failed_sync_lost_is_not_believed_by_the_next_process_in_the_same_boot(file: str) -> None:
    disk = SimulatedDisk()
    large = bytes(range(256)) * 256

    async def case(store: EngineStore) -> None:
        await apply(store, write(1, large))
        await store.settle()
        disk.lose_syncs_of = {file}
        assert (await refused(store, write(1, large, chunk=chunk(1)))).code is Code.DISK_FAILED
        with pytest.raises(EmberError):
            await store.sync()

    on_simulated(disk, case)
    disk = disk.after_process_death()

    async def afterwards(store: EngineStore) -> None:
        assert disk.forgotten
        assert not store.whole and store.incarnation == 2
        assert versions(store, CHUNK) == (1, 0)
        assert take_simulated(store, disk) == large
        # It was never acknowledged, and the disk does not have it.
        assert versions(store, chunk(1)) == (0, 0)

    on_simulated(disk, afterwards)
    # Once is enough: the next opening has nothing to doubt but what is to be given back.
    before = disk.forgotten

    async def later(store: EngineStore) -> None:
        assert disk.forgotten == before
        assert not store.whole and store.incarnation == 2

    on_simulated(disk, later)


def test_a_sync_that_fails_at_an_opening_is_not_believed_by_the_next_one() -> None:
    disk = SimulatedDisk()

    async def life() -> None:
        store = await open_simulated(disk)
        await apply(store, write(1, b"x" * 65_000, durability=Durability.MEMORY))
        disk.crash_at = disk.steps
        await store.close()

    run_virtual(life())
    disk = disk.after_process_death()
    disk.lose_syncs_of = {"64k.0"}

    async def refused_opening() -> None:
        with pytest.raises(EmberError) as error:
            await open_simulated(disk)
        assert error.value.code is Code.DISK_FAILED

    run_virtual(refused_opening())

    async def afterwards(store: EngineStore) -> None:
        assert not store.whole and store.incarnation == 2
        assert versions(store, CHUNK) == (0, 0)

    on_simulated(disk, afterwards)


class Forgetful(QuickDisk):
    """The first sync of a block file fails, once; it ends when the writer has stored something beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.armed = False
        self.begun = threading.Event()
        self.appended = threading.Event()
        self.sync = self._sync
        self._blocks: set[int] = set()

    def open(self, path: Path, *, create: bool = False) -> int:
        file = super().open(path, create=create)
        if path.parent.name == "blocks":
            self._blocks.add(file)
        return file

    def _sync(self, file: int) -> None:
        if self.armed and file in self._blocks:
            self.armed = False
            self.begun.set()
            assert self.appended.wait(20)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def write(self, file: int, parts, offset: int) -> None:  # type: ignore[no-untyped-def]
        super().write(file, parts, offset)
        if self.begun.is_set() and file not in self._blocks:
            self.appended.set()


@pytest.mark.parametrize("kind", ["update", "sync"])
def test_an_error_that_the_checkpoint_met_reaches_the_writer_too(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        disk = Forgetful()
        store = await open_quick_store(tmp_path / "target", disk=disk, checkpoint_interval_s=1e9)
        await apply(store, write(1, b"x" * 65_000, durability=Durability.MEMORY))
        disk.armed = True
        checkpoint = asyncio.create_task(store.checkpoint())
        await asyncio.get_running_loop().run_in_executor(None, disk.begun.wait, 20)
        if kind == "update":
            outcome = (await store.prepare([write(1, bytes(65_000), chunk=chunk(1))]))[0]
        else:
            try:
                await prepared(store, write(1, b"x", chunk=chunk(1), durability=Durability.MEMORY))
                await store.sync()
                outcome = EmberError(Code.INTERNAL, "synced")
            except EmberError as error:
                outcome = error
        assert isinstance(outcome, EmberError) and outcome.code is Code.DISK_FAILED, outcome
        with pytest.raises(EmberError):
            await checkpoint
        await store.close()
        store = await open_quick_store(tmp_path / "target")
        assert not store.whole and store.incarnation == 2
        await store.close()

    run(body())


def test_nothing_succeeds_after_a_fence_although_its_own_sync_did() -> None:
    disk = SimulatedDisk()

    async def case(store: EngineStore) -> None:
        await apply(store, write(1, b"x"))
        waiting = asyncio.ensure_future(store.prepare([write(1, b"y", chunk=chunk(1))]))
        await asyncio.sleep(0)  # with the writer
        store._ledger.fence(EmberError(Code.DISK_FAILED, "a checkpoint failed"))
        outcome = (await waiting)[0]
        assert isinstance(outcome, EmberError) and outcome.code is Code.DISK_FAILED

    on_simulated(disk, case)
