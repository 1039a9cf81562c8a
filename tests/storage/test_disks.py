"""Disks that fail, vanish, fill up or forget: one target goes out of service with one line, the others go on."""

import asyncio
import errno
import os
import shutil
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import lmdb
import pytest

from fs_common.errors import Code
from fs_common.ids import chunk_id
from fs_common.methods import SPACE_INFO
from fs_common.records.routing import LocalState
from fs_common.records.storage import SpaceInfo, UpdateKind
from fs_storage import disks
from fs_storage.engine import index_guard
from fs_storage.engine.disk import RealDisk
from fs_storage.engine.index_format import IndexDamaged
from fs_storage.engine.interface import ChunkStore
from fs_storage.engine.store import EngineStore, open_store
from tests.storage.chain import TIMEOUT_S, ChainOfDaemons, chain_of, eventually
from tests.storage.engine.quick import open_quick_store
from tests.storage.engine.updates import apply, write
from tests.storage.refusals import refused
from tests.support import run

NAME = bytes(chunk_id(7, 0))


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disks, "ROUND_S", 0.01)
    monkeypatch.setattr(disks, "AGAIN_S_MIN", 0.02)


@asynccontextmanager
async def engines(
    directory: Path, replicas: int = 3, capacity_bytes: int = 1 << 30, **settings: object
) -> AsyncIterator[ChainOfDaemons]:
    async def make_store(target: int) -> ChunkStore:
        return await open_quick_store(directory / f"target-{target}", capacity_bytes=capacity_bytes)

    async with chain_of(directory, nodes=replicas, replicas=replicas, make_store=make_store, **settings) as chain:
        yield chain


def state_of(chain: ChainOfDaemons, node: int, target: int) -> LocalState:
    (found,) = [one for one in chain.daemons[node].status().targets if one.target == target]
    return found.state


def keep_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disks, "AGAIN_S_MIN", 1e6)


async def out_of_service(chain: ChainOfDaemons, node: int, target: int, why: str) -> None:
    """That target alone, of that node, with one line that says why."""
    troubles = chain.daemons[node].targets.troubles
    await eventually(lambda: target in troubles())
    assert why in troubles()[target] and "\n" not in troubles()[target]
    assert set(troubles()) == {target}
    assert state_of(chain, node, target) == LocalState.OFFLINE
    others = [one for one in chain.daemons[node].targets.all() if one.id != target]
    assert len(others) == 2 and all(one.serves for one in others)


def test_a_sync_that_fails_takes_one_target_out_of_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one of a checkpoint, that no update waits for."""
    keep_closed(monkeypatch)

    async def scenario() -> None:
        async with engines(tmp_path) as chain:
            await chain.update(b"kept")
            target = chain.target(1, 1)

            def broken(file: int) -> None:
                raise OSError(errno.EIO, os.strerror(errno.EIO))

            target.store._disk.sync = broken
            target.store._opened.syncs._disk.sync = broken
            with refused(Code.DISK_FAILED):
                await target.store.checkpoint()
            await out_of_service(chain, 2, target.id, "Input/output error")
            assert await chain.read(place=0, length=4) == b"kept"

    run(scenario())


def test_a_target_that_failed_is_opened_again_and_gets_back_what_it_lost(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with engines(tmp_path) as chain:
            await chain.update(b"kept")
            target = chain.target(1, 1)
            incarnation = target.store.incarnation
            target.store.fence("for a moment")
            await eventually(lambda: target.failed is not None)
            daemon = chain.daemons[2]
            await eventually(lambda: 1 in daemon.targets.by_chain and daemon.targets.by_chain[1] is not target)
            await chain.healed()
            store = chain.target(1, 1).store
            assert store.whole and store.incarnation > incarnation, "it may have lost something: its clients are told"
            assert daemon.service.counters["targets_synced"] == 1
            await chain.update(b"more", index=1)
            assert await chain.read_everywhere(length=4) == b"kept"

    run(scenario())


class Silent:
    """A disk that neither answers nor fails, until it is let go."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self._goes_on = threading.Event()

    def __call__(self, *arguments: object) -> None:
        self.asked.set()
        self._goes_on.wait()

    def go_on(self) -> None:
        self._goes_on.set()


def test_a_disk_that_does_not_answer_takes_its_target_out_of_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else waits for it: not the daemon, not the other targets."""
    keep_closed(monkeypatch)
    monkeypatch.setattr(disks, "ANSWER_S", 0.01)

    async def scenario() -> None:
        silent = Silent()
        async with engines(tmp_path) as chain:
            await chain.update(b"kept")
            target = chain.target(1, 1)
            disk = target.store._disk
            try:
                target.store._disk = SimpleNamespace(check_place=silent, space=silent, read=disk.read)
                await eventually(silent.asked.is_set)
                chain.daemons[2]._disks._questions[target]._asked_s -= disks.SILENT_S
                await out_of_service(chain, 2, target.id, "has not answered for")
                assert await chain.read(place=0, length=4) == b"kept"
            finally:
                target.store._disk = disk
                silent.go_on()

    run(scenario())


def test_a_disk_that_stores_nothing_takes_its_target_out_of_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chain goes on without it; when the disk goes on, it is opened again, and gets back what it lost."""

    async def scenario() -> None:
        silent = Silent()
        async with engines(tmp_path) as chain:
            await chain.update(b"kept")
            target = chain.target(1, 1)
            disk = target.store._opened.syncs._disk
            try:
                target.store._opened.syncs._disk = SimpleNamespace(sync=silent)
                update = asyncio.create_task(chain.update(b"more", index=1))
                await eventually(silent.asked.is_set)
                target.store._ledger._got_on_s -= disks.SILENT_S
                await out_of_service(chain, 2, target.id, "and does not fail")
                assert chain.advance()
                assert (await update)[0] == 1
            finally:
                target.store._opened.syncs._disk = disk
                silent.go_on()
            await chain.healed()
            assert chain.target(1, 1) is not target
            assert await chain.read_everywhere(length=4, index=1) == b"more"

    run(scenario())


def test_a_directory_that_is_gone_and_comes_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with engines(tmp_path) as chain:
            await chain.update(b"kept")
            target = chain.target(1, 2)
            lost: list[str] = []
            fail = target.fail
            target.fail = lambda reason: (lost.append(reason), fail(reason))
            (tmp_path / f"target-{target.id}").rename(tmp_path / "elsewhere")
            await eventually(lambda: bool(lost))
            assert "its directory is not there any more" in lost[0] and f"target-{target.id}" in lost[0]
            shutil.rmtree(tmp_path / f"target-{target.id}", ignore_errors=True)
            for _ in range(200):
                # The test's stores are made anew where there is none; that one is not ours.
                try:
                    (tmp_path / "elsewhere").rename(tmp_path / f"target-{target.id}")
                    break
                except OSError:
                    shutil.rmtree(tmp_path / f"target-{target.id}", ignore_errors=True)
            await eventually(lambda: chain.daemons[3].targets.by_chain.get(1) not in (None, target))
            await chain.healed()
            assert await chain.read_everywhere(length=4) == b"kept"

    run(scenario())


def test_another_directory_in_its_place_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_closed(monkeypatch)

    async def scenario() -> None:
        async with engines(tmp_path) as chain:
            target = chain.target(1, 2)
            path = tmp_path / f"target-{target.id}"
            shutil.copytree(path, tmp_path / "copy")
            path.rename(tmp_path / "elsewhere")
            (tmp_path / "copy").rename(path)
            await out_of_service(chain, 3, target.id, "another directory is in its place")

    run(scenario())


def spoil(directory: Path, chunk: bytes) -> None:
    """The record of a chunk in the index, as a flipped bit does."""
    environment = lmdb.open(os.fspath(directory / "index"), max_dbs=4, map_size=1 << 30)
    with environment.begin(write=True) as transaction:
        records = environment.open_db(b"records", txn=transaction)
        value = bytearray(transaction.get(chunk, db=records))
        value[10] ^= 1
        transaction.put(chunk, bytes(value), db=records)
    environment.close()


@pytest.mark.parametrize("meets", ["read", "update", "list"])
def test_a_damaged_index_takes_one_target_out_of_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meets: str
) -> None:
    keep_closed(monkeypatch)

    async def scenario() -> None:
        async with engines(tmp_path) as chain:
            await chain.update(b"kept")
            target = chain.target(1, 1)
            await target.store.checkpoint()
            index = target.store._opened.index
            with index._environment.begin(write=True) as transaction:
                value = bytearray(transaction.get(NAME, db=index._records))
                value[10] ^= 1
                transaction.put(NAME, bytes(value), db=index._records)
            target.store._table.hot.clear()
            if meets == "read":
                with refused(Code.DISK_FAILED):
                    await chain.read(place=1, length=4)
            elif meets == "update":
                # It waits for the replica, which the chain has to go on without.
                update = asyncio.ensure_future(chain.update(b"other", timeout=2))
                await asyncio.gather(update, return_exceptions=True)
            else:
                with refused(Code.DISK_FAILED):
                    target.store.held(b"", 10)
            await out_of_service(chain, 2, target.id, "the target's index is damaged")
            assert await chain.read(place=2, length=4) == b"kept"

    run(scenario())


async def refusal_of(directory: Path) -> str:
    with refused(Code.DISK_FAILED) as caught:
        await (await open_store(directory, target=101, make=False)).close()
    assert "\n" not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize("damage", ["record", "cut", "zeros", "text"])
def test_an_index_that_is_damaged_is_refused_with_one_line(tmp_path: Path, damage: str) -> None:
    async def scenario() -> None:
        directory = tmp_path / "target"
        store = await open_store(directory, target=101)
        for version in range(1, 4):
            await apply(store, write(version, b"x" * 5000))
        await store.close()
        path = directory / "index" / "data.mdb"
        size = path.stat().st_size
        if damage == "record":
            spoil(directory, NAME)
            # One that opening does not read is found when it is used.
            again = await open_store(directory, target=101)
            with refused(Code.DISK_FAILED):
                again.state(NAME)
            await eventually(lambda: again.failure is not None)
            await again.close()
            return
        if damage == "cut":
            os.truncate(path, 3 * 4096)
        else:
            path.write_bytes((b"\0" if damage == "zeros" else b"text") * (size // 4))
        message = await refusal_of(directory)
        assert "index" in message
        assert not (directory / index_guard.OPENING).exists()

    run(scenario())


def test_an_index_that_kills_who_reads_it_is_tried_by_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        directory = tmp_path / "target"
        await (await open_store(directory, target=101)).close()
        # As a process leaves it that dies while it opens.
        (directory / index_guard.OPENING).touch()
        await (await open_store(directory, target=101)).close()
        assert not (directory / index_guard.OPENING).exists()
        (directory / index_guard.OPENING).touch()
        dying = tmp_path / "dying"
        dying.write_text("#!/bin/sh\nkill -SEGV $$\n")
        dying.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(dying))
        assert "kills a process (signal 11)" in await refusal_of(directory)

    run(scenario())


def test_the_other_process_says_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"nothing of LMDB" * 1000)
    with pytest.raises(IndexDamaged, match="cannot be opened"):
        index_guard._try_elsewhere(tmp_path)
    with pytest.raises(IndexDamaged):
        (tmp_path / index_guard.OPENING).touch()
        index_guard.begin(RealDisk(), tmp_path, tmp_path)


def test_little_space_refuses_new_chunks_and_nothing_else(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with engines(tmp_path, capacity_bytes=8 << 20, low_space_bytes=5 << 20) as chain:
            await chain.update(b"there" * 1000)
            target = chain.target(1, 2)
            await eventually(lambda: target.store.low_space == "")
            for index in range(10, 13):
                await chain.update(bytes(1 << 20), index=index)
            stores = [chain.target(1, place).store for place in range(3)]
            await eventually(lambda: all(store.low_space for store in stores))
            with refused(Code.NO_SPACE) as caught:
                await chain.update(b"new", index=2)
            assert f"target {chain.target(1, 0).id} is low on space" in caught.value.message
            assert "remove files or add targets" in caught.value.message
            with refused(Code.NO_SPACE):
                await chain.update(kind=UpdateKind.TRUNCATE, offset=10, index=2)
            space = await chain.pool.call(chain.address(1), SPACE_INFO, SpaceInfo(), timeout=TIMEOUT_S)
            assert any("is low on space" in warning.reason for warning in space.warnings) and not space.troubles
            # What is there can be written over, appended to, cut and removed.
            await chain.update(b"over", offset=1)
            await chain.update(b"more" * 5000, offset=5000)
            await chain.update(kind=UpdateKind.TRUNCATE, offset=100)
            assert await chain.read_everywhere(length=5) == b"tover"
            for index in range(10, 13):
                await chain.update(kind=UpdateKind.REMOVE, index=index)
            for store in stores:
                await store.checkpoint()
            await eventually(lambda: not any(store.low_space for store in stores))
            await chain.update(b"new", index=2)

    run(scenario())


def test_the_marks_are_apart(tmp_path: Path) -> None:
    """A target at the edge does not take and refuse in turns."""

    async def scenario() -> None:
        async with engines(tmp_path, low_space_bytes=1000) as chain:
            target = chain.target(1, 0)
            watch = chain.daemons[1]._disks
            free = [5000]
            space = target.store.space

            def fake():  # type: ignore[no-untyped-def]
                return space()._replace(free_bytes=free[0])

            target.store.space = fake
            seen = []
            for free[0] in (1000, 999, 1001, 1249, 1250, 1000, 999):
                watch._look_at_space(target)
                seen.append(bool(target.store.low_space))
            assert seen == [False, True, True, True, False, False, True]

    run(scenario())


def test_what_is_being_sent_keeps_its_files(tmp_path: Path) -> None:
    """A target that failed is not closed under a reader's range of its file."""

    async def scenario() -> None:
        async with engines(tmp_path) as chain:
            data = bytes(range(256)) * 1024
            await chain.update(data)
            target = chain.target(1, 1)
            store: EngineStore = target.store
            answer = store.read(NAME, 0, len(data), memoryview(bytearray(len(data))))
            store.fence("for a moment")
            await eventually(lambda: target.failed is not None)
            rounds = chain.daemons[2]._disks
            seen = rounds._rounds
            await eventually(lambda: rounds._rounds > seen + 20)
            assert chain.daemons[2].targets.by_chain[1] is target
            part = answer.part
            assert os.pread(part.file, part.length, part.offset) == data  # type: ignore[union-attr]
            assert answer.release is not None
            answer.release()
            await eventually(lambda: chain.daemons[2].targets.by_chain.get(1) not in (None, target))
            await chain.healed()

    run(scenario())
