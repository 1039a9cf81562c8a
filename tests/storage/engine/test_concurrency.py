"""Many callers at once, callers that give up, and what they share."""

import asyncio
import threading
from pathlib import Path

import pytest

from fs_common.errors import Code, EmberError
from fs_common.ids import chunk_id
from fs_common.layout import Durability
from fs_storage.engine.interface import Prepared
from fs_storage.engine.store import EngineStore
from fs_storage.engine.writer import Request
from tests.storage.engine.audit import audit
from tests.storage.engine.quick import QuickDisk, open_quick_store
from tests.storage.engine.simulated import on_simulated, take_simulated
from tests.storage.engine.simulated_disk import SimulatedDisk
from tests.storage.engine.updates import CHUNK, CHUNK_SIZE, apply, prepared, received, remove, take, write
from tests.support import run


def chunk(index: int) -> bytes:
    return bytes(chunk_id(3, index))


def test_callers_share_syncs(tmp_path: Path) -> None:
    async def body() -> None:
        disk = QuickDisk()
        store = await open_quick_store(tmp_path, disk=disk)
        syncing, go_on = threading.Event(), threading.Event()
        synced: list[int] = []

        def sync(file: int) -> None:
            synced.append(file)
            syncing.set()
            go_on.wait()

        disk.sync = sync
        first = asyncio.create_task(prepared(store, write(1, b"x" * 100, chunk=chunk(0))))
        await asyncio.to_thread(syncing.wait)
        # While the disk is busy with the first update, all of these arrive: they are stored together afterwards.
        rest = [asyncio.create_task(prepared(store, write(1, b"x" * 100, chunk=chunk(n)))) for n in range(1, 200)]
        await asyncio.sleep(0)
        before = len(synced)
        go_on.set()
        await asyncio.gather(first, *rest)
        assert store.counters()["prepared"] == 200
        assert len(synced) - before <= 8
        await store.close()

    run(body())


def test_all_of_one_chunk_at_once_happen_in_some_order(tmp_path: Path) -> None:
    async def body() -> None:
        store = await open_quick_store(tmp_path)
        one = write(1, bytes(50_000), client=b"c", channel=1, sequence=1)
        results = await asyncio.gather(store.prepare([one]), store.prepare([one, one]), store.prepare([one]))
        assert [result for batch in results for result in batch] == [Prepared(1, 50_000)] * 4
        (first,), (second,) = await asyncio.gather(
            store.prepare([write(1, b"x", chunk=chunk(1))]),
            store.prepare([write(1, b"y", chunk=chunk(1), client=b"c", channel=2, sequence=1)]),
        )
        assert first == Prepared(1, 1)
        assert isinstance(second, EmberError) and second.code is Code.UPDATE_MISSING
        # A commit that overtakes its prepare waits for it.
        three = asyncio.create_task(store.prepare([write(1, b"z", chunk=chunk(2))]))
        await asyncio.sleep(0)
        await store.commit([(chunk(2), 1)])
        assert take(store, chunk(2)) == b"z"
        await three
        four = asyncio.create_task(store.prepare([write(2, b"!", chunk=chunk(2))]))
        await asyncio.sleep(0)
        await store.abandon(chunk(2), 2)
        assert await four == [Prepared(2, 1)]
        assert store.state(chunk(2)).pending_version == 0  # type: ignore[union-attr]
        await store.close()

    run(body())


def test_a_caller_that_gives_up_keeps_its_buffer_stable_until_the_store_is_done() -> None:
    disk = SimulatedDisk()

    async def case(store: EngineStore) -> None:
        task = asyncio.create_task(store.prepare([write(1, bytes(50_000))]))
        await asyncio.sleep(0)
        assert CHUNK in store._ledger.busy
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert CHUNK not in store._ledger.busy, "the writer is done with the buffer"
        assert store.state(CHUNK).pending_version == 1  # type: ignore[union-attr]
        await store.commit([(CHUNK, 1)])
        assert take_simulated(store, disk) == bytes(50_000)

    on_simulated(disk, case)


def test_checkpoints_run_beside_updates(tmp_path: Path) -> None:
    async def body() -> None:
        store = await open_quick_store(tmp_path, checkpoint_interval_s=0.0, capacity_bytes=64 << 20)
        models = {chunk(index): b"" for index in range(12)}

        async def update(name: bytes, seed: int) -> None:
            for version in range(1, 39):
                payload = bytes([seed, version]) * (1000 + 700 * (version % 9))
                if version % 13 == 0:
                    await apply(store, remove(version, chunk=name))
                    models[name] = b""
                    continue
                offset = (version * 1234) % 40_000 if version % 3 else 0
                durability = (Durability.DISK, Durability.MEMORY)[version % 2]
                await apply(store, write(version, payload, offset, chunk=name, durability=durability))
                old = models[name].ljust(offset, b"\0")
                models[name] = old[:offset] + payload + old[offset + len(payload) :]
                # A thread reads while the writer applies patches and blocks change hands.
                found = await asyncio.to_thread(
                    store.read_blocking, name, 0, CHUNK_SIZE, memoryview(bytearray(CHUNK_SIZE))
                )
                assert received(found) == models[name]

        await asyncio.gather(*(update(name, seed) for seed, name in enumerate(models)))
        assert store.counters()["checkpoints"] > 1
        for name, model in models.items():
            assert take(store, name) == model
        await store.checkpoint()
        audit(store)
        await store.close()
        store = await open_quick_store(tmp_path)
        for name, model in models.items():
            assert take(store, name) == model
        audit(store)
        await store.close()

    run(body())


def test_commits_wait_when_patches_would_fill_the_memory() -> None:
    disk = SimulatedDisk()

    async def case(store: EngineStore) -> None:
        size = 8 << 20
        await apply(store, write(1, bytes(size), chunk_size=size, durability=Durability.MEMORY))
        most = 0
        for version in range(2, 60):
            one = write(version, bytes([version]) * (2 << 20), 0, chunk_size=size, durability=Durability.MEMORY)
            await apply(store, one)
            most = max(most, store.counters()["patch_bytes"])
        assert 0 < most <= 70 << 20
        found = take_simulated(store, disk, CHUNK, 0, size, chunk_size=size)
        assert found == bytes([59]) * (2 << 20) + bytes(6 << 20)

    on_simulated(disk, case)


def test_records_are_evicted_and_found_again(tmp_path: Path) -> None:
    async def body() -> None:
        store = await open_quick_store(tmp_path, records_cached=10)
        await prepared(store, *[write(1, b"%d" % index, chunk=chunk(index)) for index in range(300)])
        await store.commit([(chunk(index), 1) for index in range(300)])
        assert store.counters()["records_in_memory"] == 300
        await store.checkpoint()
        assert store.counters()["records_in_memory"] <= 10
        for index in range(300):
            assert take(store, chunk(index)) == b"%d" % index
        assert store.counters()["records_in_memory"] <= 80
        assert store.last_chunk(3).chunks == 300
        await store.close()

    run(body())


def test_a_checkpoint_finds_all_patches_in_their_blocks(tmp_path: Path) -> None:
    """Those whose commit is on its way to the log at that moment, too."""

    async def body() -> None:
        begun, go_on = threading.Event(), threading.Event()
        disk = QuickDisk()
        store = await open_quick_store(tmp_path, disk=disk, checkpoint_interval_s=1e9)
        await prepared(store, *[write(1, b"%d" % index, chunk=chunk(index)) for index in range(30)])
        await store.commit([(chunk(index), 1) for index in range(30)])
        append = store._opened.log.append

        def slow(body: list[bytes], count: int) -> int:
            begun.set()
            go_on.wait()
            return append(body, count)  # type: ignore[arg-type]

        store._opened.log.append = slow  # type: ignore[method-assign, assignment]
        store._ledger.put(Request())
        await asyncio.to_thread(begun.wait)
        checkpoint = asyncio.create_task(store.checkpoint())
        await asyncio.to_thread(store._checkpointer._executor.submit(lambda: None).result)  # type: ignore[union-attr]
        await asyncio.sleep(0)
        go_on.set()
        await checkpoint
        assert store.counters()["patch_bytes"] == 0 and not store._table.changes
        await store.close()

    run(body())
