"""Rules that protect against crashes which random worlds meet too seldom: one story for each."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from fs_common.errors import Code, EmberError
from fs_common.layout import Durability
from fs_storage.engine.store import EngineStore
from fs_storage.engine.transitions import drop_pending
from fs_storage.engine.versions import Block, BlockFile, Identity, Record, Version
from tests.storage.engine.simulated import open_simulated, take_simulated
from tests.storage.engine.simulated_disk import SimulatedDisk
from tests.storage.engine.updates import CHUNK, CLIENT, apply, prepared, replace, truncate, write
from tests.storage.engine.virtual_loop import run_virtual

OLD = b"a" * 40_000
MEMORY = Durability.MEMORY


def live(disk: SimulatedDisk, story: Callable[[EngineStore], Awaitable[None]]) -> None:
    """A life that ends with the death of the machine, at the latest when the story is told."""

    async def body() -> None:
        try:
            store = await open_simulated(disk)
        except EmberError:
            assert disk.dead
            return
        try:
            await story(store)
        except EmberError:
            assert disk.dead
        if not disk.dead:
            disk.crash_at = disk.steps
        await store.close()

    run_virtual(body())


def contents(disk: SimulatedDisk) -> bytes:
    """Of the chunk's committed version, every byte verified."""
    found = b""

    async def body() -> None:
        nonlocal found
        store = await open_simulated(disk)
        found = take_simulated(store, disk)
        await store.close()

    run_virtual(body())
    return found


@pytest.mark.parametrize("seed", range(8))
def test_a_patch_waits_for_the_bytes_its_version_stands_on(seed: int) -> None:
    """Otherwise the crash takes those, and the version to fall back to has the patch over it."""
    disk = SimulatedDisk()
    appended = OLD + b"b" * 20_000
    patched = b"a" * 5000 + b"c" * 100 + appended[5100:]

    async def story(store: EngineStore) -> None:
        await apply(store, write(1, OLD))
        await store.checkpoint()
        await apply(store, write(2, b"b" * 20_000, len(OLD), durability=MEMORY))
        await apply(store, write(3, b"c" * 100, 5000, durability=MEMORY))
        await store.settle()
        await store.settle()
        assert store.counters()["patch_bytes"] == 0

    live(disk, story)
    assert contents(disk.after_power_loss(seed)) in (OLD, appended, patched)


@pytest.mark.parametrize("seed", range(2))
def test_recovery_makes_the_log_durable_before_it_applies_patches(seed: int) -> None:
    """The process dies with its log in the page cache; then the machine dies while the next one recovers."""
    patched = b"a" * 5000 + b"c" * 100 + OLD[5100:]

    def killed() -> SimulatedDisk:
        disk = SimulatedDisk()

        async def story(store: EngineStore) -> None:
            await apply(store, write(1, OLD))
            await store.checkpoint()
            await apply(store, write(2, b"c" * 100, 5000, durability=MEMORY))
            await asyncio.sleep(1)  # virtual: the commit is in the log now, and nothing is synced

        live(disk, story)
        return disk.after_process_death()

    async def nothing(store: EngineStore) -> None:
        pass

    recovered = killed()
    live(recovered, nothing)
    for crash_at in range(1, recovered.steps + 1):
        disk = killed()
        disk.crash_at = crash_at
        live(disk, nothing)
        assert contents(disk.after_power_loss(seed)) in (OLD, patched)


@pytest.mark.parametrize("seed", range(5))
def test_a_block_has_no_new_owner_before_the_loss_of_the_old_one_is_durable(seed: int) -> None:
    disk = SimulatedDisk()
    other = bytes(11) + b"\x09"

    async def story(store: EngineStore) -> None:
        await apply(store, write(1, OLD, durability=MEMORY))
        await store.checkpoint()
        for version in range(2, 9):
            await apply(store, write(version, bytes([version]) * 40_000, durability=MEMORY))
            await apply(store, write(version - 1, b"z" * 40_000, chunk=other, durability=MEMORY))

    live(disk, story)
    found = contents(disk.after_power_loss(seed))
    assert found in (OLD, *(bytes([version]) * 40_000 for version in range(2, 9)))


@pytest.mark.parametrize("seed", range(5))
def test_a_cut_chunk_can_grow_back_to_what_it_was_until_the_cut_is_durable(seed: int) -> None:
    disk = SimulatedDisk()

    async def story(store: EngineStore) -> None:
        await apply(store, write(1, OLD))
        await store.checkpoint()
        await apply(store, truncate(2, 1000, durability=MEMORY))
        await apply(store, write(3, b"d" * 30_000, 1000, durability=MEMORY))

    live(disk, story)
    found = contents(disk.after_power_loss(seed))
    assert found in (OLD, OLD[:1000], OLD[:1000] + b"d" * 30_000)


def test_the_tail_that_a_dropped_version_wrote_is_not_written_again_in_place() -> None:
    block = Block(16, 0, BlockFile(-1, "64k.0"), 0)
    committed = Version(1, 1, 16, 100, 100, False, 0, block, bytes(4), b"", ())
    pending = committed._replace(number=2, length=5000, used=5000, checksums=bytes(8))
    after = drop_pending(Record(committed, pending, Identity(b"c", 1, 1)))
    assert after == Record(committed._replace(used=5000), None, Identity(b"", 0, 0))
    elsewhere = pending._replace(block=block._replace(slot=1))
    assert drop_pending(Record(committed, elsewhere, Identity(b"c", 1, 1))).committed == committed


@pytest.mark.parametrize("patched", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_a_sync_makes_what_memory_held_durable(seed: int, patched: bool) -> None:
    """Block, log and commit of updates that were acknowledged from memory."""
    disk = SimulatedDisk()
    expected = OLD + b"t" * 2000

    async def story(store: EngineStore) -> None:
        await apply(store, write(1, OLD, durability=MEMORY))
        await apply(store, write(2, b"t" * 2000, len(OLD), durability=MEMORY))
        await store.sync()
        if patched:
            await apply(store, write(3, b"c" * 100, 5000, durability=MEMORY))
            await store.sync()

    live(disk, story)
    if patched:
        expected = b"a" * 5000 + b"c" * 100 + expected[5100:]
    assert contents(disk.after_power_loss(seed)) == expected


def test_a_durable_update_makes_what_it_builds_on_durable() -> None:
    for seed in range(20):
        disk = SimulatedDisk()

        async def story(store: EngineStore) -> None:
            await apply(store, write(1, OLD, durability=MEMORY))
            await prepared(store, write(2, b"c" * 100, 5000))

        live(disk, story)
        after = disk.after_power_loss(seed)

        async def judge(disk: SimulatedDisk = after) -> None:
            store = await open_simulated(disk)
            assert store.state(CHUNK) is not None
            assert take_simulated(store, disk, pending=True) == b"a" * 5000 + b"c" * 100 + OLD[5100:]
            await store.close()

        run_virtual(judge())


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_what_was_forgotten_does_not_come_back_and_what_follows_falls_back_to_nothing(
    seed: int, checkpointed: bool
) -> None:
    """The bytes of what came after are lost with the machine: before it there is nothing, not what was forgotten."""
    disk = SimulatedDisk()
    new = b"n" * 40_000

    async def story(store: EngineStore) -> None:
        await apply(store, write(1, OLD, client=CLIENT, channel=1, sequence=1))
        if checkpointed:
            await store.checkpoint()
        await prepared(store, write(2, b"p" * 100, 5000, client=CLIENT, channel=2, sequence=1))
        await store.forget([CHUNK])
        await apply(store, replace(1, new, durability=MEMORY))

    live(disk, story)
    after = disk.after_power_loss(seed)

    async def judge() -> None:
        store = await open_simulated(after)
        known, dropped = store.answer(CLIENT, 1), store.answer(CLIENT, 2)
        assert known is not None and (known.version, known.committed) == (1, True)
        assert dropped is not None and (dropped.version, dropped.committed) == (0, False)
        for pending in (False, True):
            try:
                assert take_simulated(store, after, pending=pending) == new
            except EmberError as error:
                assert error.code is Code.CHUNK_NOT_FOUND
        await store.close()

    run_virtual(judge())
