"""Opening: directories that are not ours, damaged files, formatting that was interrupted, locks."""

import asyncio
import json
import logging
from pathlib import Path

import pytest

from fs_common.errors import Code, EmberError
from fs_common.layout import Durability
from fs_storage.engine.store import open_store
from tests.storage.engine.quick import TARGET, open_quick_store
from tests.storage.engine.simulated import DIRECTORY, on_simulated, open_simulated, take_simulated
from tests.storage.engine.simulated_disk import SimulatedDisk
from tests.storage.engine.updates import CHUNK, CLIENT, apply, take, write
from tests.storage.engine.virtual_loop import run_virtual
from tests.support import run


async def refusal(directory: Path, target: int = TARGET) -> EmberError:
    with pytest.raises(EmberError) as error:
        await open_store(directory, target=target)
    assert "\n" not in str(error.value)
    return error.value


def test_a_store_opens_again_with_what_it_held(tmp_path: Path) -> None:
    async def body() -> None:
        store = await open_store(tmp_path / "new" / "target", target=TARGET)
        await apply(store, write(1, b"data", client=CLIENT, channel=1, sequence=9))
        await store.close()
        store = await open_store(tmp_path / "new" / "target", target=TARGET)
        assert take(store) == b"data"
        answer = store.answer(CLIENT, 1)
        assert answer is not None and answer.sequence == 9 and answer.committed
        assert store.space().chunks == 1
        await store.close()
        await store.close()

    run(body())


def test_only_one_process_opens_a_directory(tmp_path: Path) -> None:
    async def body() -> None:
        store = await open_quick_store(tmp_path)
        error = await refusal(tmp_path)
        assert error.code is Code.BUSY and "another process" in str(error)
        await store.close()
        await (await open_quick_store(tmp_path)).close()

    run(body())


def test_a_caller_that_gives_up_opening_leaves_the_directory_to_the_next(tmp_path: Path) -> None:
    async def body() -> None:
        task = asyncio.create_task(open_quick_store(tmp_path))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while True:
            try:
                store = await open_quick_store(tmp_path)
            except EmberError as error:
                assert error.code is Code.BUSY
            else:
                break
        await store.close()

    run(body())


def test_a_directory_of_something_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")

    async def body() -> None:
        error = await refusal(tmp_path)
        assert error.code is Code.INVALID and "thesis.tex" in str(error)
        assert [child.name for child in tmp_path.iterdir()] == ["thesis.tex"]

    run(body())


def test_a_target_without_its_marker_is_an_error(tmp_path: Path) -> None:
    async def body() -> None:
        await (await open_quick_store(tmp_path)).close()
        (tmp_path / "target.json").unlink()
        error = await refusal(tmp_path)
        assert error.code is Code.INVALID and "target.json is missing" in str(error)

    run(body())


@pytest.mark.parametrize(
    ("marker", "code", "what"),
    [
        ("", Code.DISK_FAILED, "is damaged"),
        ('{"format": 1}', Code.DISK_FAILED, "is damaged"),
        ('{"format": 2, "target": 101, "file_bytes": 1, "log_step_bytes": 1}', Code.DISK_FAILED, "is damaged"),
        ('{"format": 3, "target": 101, "file_bytes": 1, "log_step_bytes": 1}', Code.INVALID, "upgrade"),
    ],
)
def test_a_marker_that_cannot_be_used_is_an_error(tmp_path: Path, marker: str, code: Code, what: str) -> None:
    async def body() -> None:
        await (await open_quick_store(tmp_path)).close()
        (tmp_path / "target.json").write_text(marker)
        error = await refusal(tmp_path)
        assert error.code is code and what in str(error)

    run(body())


def test_another_targets_directory_is_an_error(tmp_path: Path) -> None:
    async def body() -> None:
        await (await open_quick_store(tmp_path)).close()
        error = await refusal(tmp_path, target=102)
        assert error.code is Code.INVALID and "holds target 101, not 102" in str(error)
        # And it is not kept locked.
        await (await open_quick_store(tmp_path)).close()

    run(body())


def test_the_marker_names_what_cannot_change(tmp_path: Path) -> None:
    run_close = open_quick_store

    async def body() -> None:
        await (await run_close(tmp_path)).close()

    run(body())
    marker = json.loads((tmp_path / "target.json").read_text())
    assert marker["format"] == 2 and marker["target"] == TARGET and marker["file_bytes"] == 4 << 30
    names = ["blocks", "index", "lock", "log", "mark.json", "target.json"]
    assert sorted(child.name for child in tmp_path.iterdir()) == names


def test_a_file_among_the_blocks_that_is_not_ours_is_an_error(tmp_path: Path) -> None:
    async def body() -> None:
        await (await open_quick_store(tmp_path)).close()
        (tmp_path / "blocks" / "notes.txt").write_text("x")
        error = await refusal(tmp_path)
        assert "notes.txt" in str(error)

    run(body())


def test_formatting_may_be_interrupted_at_any_step() -> None:
    steps = 0

    async def count() -> None:
        nonlocal steps
        disk = SimulatedDisk()
        await (await open_simulated(disk)).close()
        steps = disk.steps

    run_virtual(count())
    assert steps > 10
    for crash_at in range(1, steps + 1):
        for power_loss in (False, True):
            disk = SimulatedDisk()
            disk.crash_at = crash_at

            async def interrupted(disk: SimulatedDisk = disk) -> None:
                try:
                    store = await open_simulated(disk)
                except EmberError:
                    return
                await store.close()

            run_virtual(interrupted())
            after = disk.after_power_loss(crash_at) if power_loss else disk.after_process_death()

            async def again(disk: SimulatedDisk = after) -> None:
                store = await open_simulated(disk)
                await apply(store, write(1, b"x"))
                assert take_simulated(store, disk) == b"x"
                await store.close()

            run_virtual(again())
            assert "formatting" not in after.list_directory(DIRECTORY)


def test_recovery_may_be_interrupted_at_any_step() -> None:
    """And does the same again."""

    def crashed(seed: int) -> SimulatedDisk:
        disk = SimulatedDisk()

        async def life() -> None:
            store = await open_simulated(disk)
            for index in range(4):
                chunk = bytes(11) + bytes((index,))
                await apply(store, write(1, bytes([index]) * 60_000, chunk=chunk, durability=index % 2))
                await apply(store, write(2, b"patch", 10_000, chunk=chunk))
            disk.crash_at = disk.steps
            await store.close()

        run_virtual(life())
        return disk.after_power_loss(seed)

    def judge(disk: SimulatedDisk) -> None:
        async def found() -> None:
            store = await open_simulated(disk)
            for index in range(4):
                chunk = bytes(11) + bytes((index,))
                if store.pending_update(chunk) is not None:
                    await store.commit([(chunk, 2)])
                model = bytearray([index]) * 60_000
                model[10_000:10_005] = b"patch"
                assert take_simulated(store, disk, chunk) == model
            await store.close()

        run_virtual(found())

    untouched = crashed(5)
    before = untouched.steps
    judge(untouched)
    total = untouched.steps - before
    for crash_at in range(1, total, 3):
        disk = crashed(5)
        disk.crash_at = disk.steps + crash_at

        async def interrupted(disk: SimulatedDisk = disk) -> None:
            try:
                store = await open_simulated(disk)
            except EmberError:
                return
            await store.close()

        run_virtual(interrupted())
        judge(disk.after_power_loss(crash_at))


def test_a_log_damaged_where_it_was_on_the_disk_is_an_error() -> None:
    disk = SimulatedDisk()

    async def life() -> None:
        store = await open_simulated(disk)
        await apply(store, write(1, b"one"))
        await apply(store, write(2, b"two"))
        await apply(store, write(3, b"three"))
        disk.crash_at = disk.steps
        await store.close()

    run_virtual(life())
    disk = disk.after_process_death()
    content = disk.files[DIRECTORY / "log" / "redo.0"]
    position = content.get(0, content.size).find(b"two")
    content.put(position, b"owt")

    async def again() -> None:
        with pytest.raises(EmberError) as error:
            await open_simulated(disk)
        assert error.value.code is Code.DISK_FAILED
        assert "damaged or missing" in str(error.value) and "other replicas" in str(error.value)

    run_virtual(again())


def test_a_damaged_index_record_is_an_error_where_it_is_used(caplog: pytest.LogCaptureFixture) -> None:
    disk = SimulatedDisk()

    async def life(store: object) -> None:
        await apply(store, write(1, b"x"))  # type: ignore[arg-type]

    on_simulated(disk, life)
    value = bytearray(disk.index.records[CHUNK])
    value[20] ^= 1
    disk.index.records[CHUNK] = bytes(value)

    async def again() -> None:
        store = await open_simulated(disk)
        with pytest.raises(EmberError) as error:
            take_simulated(store, disk)
        assert error.value.code is Code.DISK_FAILED and "index is damaged" in str(error.value)
        await store.close()

    with caplog.at_level(logging.CRITICAL):
        run_virtual(again())


def test_recovery_after_the_death_of_the_process_verifies_nothing_and_after_a_power_loss_only_what_was_not_synced() -> (
    None
):
    def verified(durability: int, *, power_loss: bool) -> int:
        disk = SimulatedDisk()

        async def life() -> None:
            store = await open_simulated(disk)
            for version in range(1, 6):
                await apply(store, write(version, bytes([version]) * 65_000, durability=durability))
            await store.settle()
            disk.crash_at = disk.steps
            await store.close()

        run_virtual(life())
        after = disk.after_power_loss(1) if power_loss else disk.after_process_death()
        found = 0

        async def again() -> None:
            nonlocal found
            store = await open_simulated(after)
            found = store._opened.recovered.verified_bytes
            await store.close()

        run_virtual(again())
        return found

    assert verified(Durability.MEMORY, power_loss=False) == 0
    assert verified(Durability.MEMORY, power_loss=True) >= 65_000
    assert verified(Durability.DISK, power_loss=True) <= 65_000
