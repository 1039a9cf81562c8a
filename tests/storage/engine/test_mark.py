"""The mark: which store this is, and after what it can still be believed."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fs_common.errors import Code, EmberError
from fs_storage.engine.mark import NO_BOOT, Mark, decode, encode, read_mark, write_mark
from fs_storage.engine.store import EngineStore
from tests.storage.engine.simulated import DIRECTORY, on_simulated, open_simulated, take_simulated
from tests.storage.engine.simulated_disk import SimulatedDisk
from tests.storage.engine.updates import apply, write
from tests.storage.engine.virtual_loop import run_virtual

MARK = Mark(101, bytes(range(16)), 7, 2, bytes(15) + b"\x05", clean=False, failed=True, whole=False)
GOLDEN = (
    b'{"format": 1, "target": 101, "uuid": "000102030405060708090a0b0c0d0e0f", "opening": 7, "incarnation": 2, '
    b'"boot": "00000000000000000000000000000005", "clean": false, "failed": true, "whole": false}\n7c86e66f\n'
)


def test_golden_bytes() -> None:
    assert encode(MARK) == GOLDEN
    assert decode(GOLDEN, Path("mark.json")) == MARK


@pytest.mark.parametrize("at", range(0, len(GOLDEN) - 1, 7))
def test_any_damage_is_an_error_that_names_the_file(at: int) -> None:
    damaged = bytearray(GOLDEN)
    damaged[at] ^= 4
    for data in (bytes(damaged), GOLDEN[:at], b""):
        with pytest.raises(EmberError) as error:
            decode(data, Path("somewhere/mark.json"))
        assert error.value.code is Code.DISK_FAILED and "somewhere/mark.json" in str(error.value)


def test_a_newer_format_asks_for_a_newer_program() -> None:
    line = GOLDEN.split(b"\n")[0].replace(b'"format": 1', b'"format": 9')
    data = encode(MARK).replace(GOLDEN.split(b"\n")[0], line)
    with pytest.raises(EmberError) as error:
        decode(data, Path("mark.json"))
    assert error.value.code is Code.DISK_FAILED  # the checksum speaks first
    from crc32c import crc32c

    with pytest.raises(EmberError) as error:
        decode(b"%s\n%08x\n" % (line, crc32c(line)), Path("mark.json"))
    assert error.value.code is Code.INVALID and "upgrade" in str(error.value)


class Seen:
    """What an opening found."""

    def __init__(self, store: EngineStore) -> None:
        self.identity = store.identity
        self.opening = store.opening
        self.incarnation = store.incarnation
        self.whole = store.whole


def opened(disk: SimulatedDisk, *, then_dies: bool = False) -> Seen:
    """Open, look, write something, close (or die)."""
    seen: Seen | None = None

    async def body() -> None:
        nonlocal seen
        store = await open_simulated(disk)
        seen = Seen(store)
        chunk = bytes(8) + store.opening.to_bytes(4, "big")
        await apply(store, write(1, b"x", chunk=chunk))
        if then_dies:
            disk.crash_at = disk.steps
        await store.close()

    run_virtual(body())
    assert seen is not None
    return seen


def next_boot(disk: SimulatedDisk, seed: int = 1) -> SimulatedDisk:
    return disk.after_power_loss(seed)


def test_a_store_keeps_its_identity_and_counts_its_openings() -> None:
    disk = SimulatedDisk()
    first = opened(disk)
    second = opened(disk)
    assert first.identity == second.identity and len(first.identity) == 16
    assert (first.opening, second.opening) == (1, 2)
    assert opened(SimulatedDisk()).identity != first.identity


def test_a_store_that_was_closed_in_order_has_lost_nothing_in_another_boot() -> None:
    disk = SimulatedDisk()
    first = opened(disk)
    second = opened(next_boot(disk))
    assert second.whole and second.incarnation == first.incarnation


def test_a_process_that_dies_loses_nothing() -> None:
    disk = SimulatedDisk()
    first = opened(disk, then_dies=True)
    second = opened(disk.after_process_death())
    assert second.whole and second.incarnation == first.incarnation and second.opening == first.opening + 1


def test_a_machine_that_goes_down_may_have_lost_something_until_the_chain_has_given_it_back() -> None:
    disk = SimulatedDisk()
    first = opened(disk, then_dies=True)
    disk = next_boot(disk)
    second = opened(disk)
    assert not second.whole and second.incarnation == first.incarnation + 1
    disk = next_boot(disk)  # closed in order, but nobody has given anything back
    third = opened(disk)
    assert not third.whole and third.incarnation == second.incarnation

    async def mended(store: EngineStore) -> None:
        await store.declare_whole()
        assert store.whole

    on_simulated(disk, mended)
    fourth = opened(disk)
    assert fourth.whole and fourth.incarnation == second.incarnation


def test_a_store_that_was_filled_up_is_another_incarnation_whether_or_not_it_was_whole() -> None:
    disk = SimulatedDisk()
    first = opened(disk)

    async def filled(store: EngineStore) -> None:
        await store.declare_filled()
        assert store.whole and store.incarnation == first.incarnation + 1

    on_simulated(disk, filled)
    second = opened(disk)
    assert second.whole and second.incarnation == first.incarnation + 1


def test_a_whole_store_that_was_declared_so_is_judged_anew_by_the_next_crash() -> None:
    disk = SimulatedDisk()
    opened(disk, then_dies=True)
    disk = next_boot(disk)

    async def mended() -> None:
        store = await open_simulated(disk)
        await store.declare_whole()
        disk.crash_at = disk.steps
        await store.close()

    run_virtual(mended())
    last = opened(next_boot(disk))
    assert not last.whole and last.incarnation == 3


def test_an_old_copy_gets_counters_beyond_what_was_known_of_it() -> None:
    disk = SimulatedDisk()
    first = opened(disk)

    async def renewed(store: EngineStore) -> None:
        await store.renew(17, 5)
        assert (store.opening, store.incarnation, store.whole) == (18, 6, False)
        await store.renew(3, 3)
        assert (store.opening, store.incarnation) == (19, 7)

    on_simulated(disk, renewed)
    after = opened(disk)
    assert (after.identity, after.opening, after.incarnation, after.whole) == (first.identity, 20, 7, False)


def test_a_failed_sync_is_remembered_by_the_next_process_in_the_same_boot(caplog: pytest.LogCaptureFixture) -> None:
    disk = SimulatedDisk()
    first = opened(disk)

    async def fails(store: EngineStore) -> None:
        disk.fail_syncs = True
        with pytest.raises(EmberError):
            await apply(store, write(1, b"y"))
        disk.fail_syncs = False

    on_simulated(disk, fails)
    second = opened(disk.after_process_death())
    assert not second.whole and second.incarnation == first.incarnation + 1


def make_version_1(disk: SimulatedDisk) -> None:
    """As the release before marks left it."""
    content = disk.files[DIRECTORY / "target.json"]
    marker = json.loads(content.get(0, content.size))
    del marker["uuid"]
    marker["format"] = 1
    content.pages.clear()
    content.size = 0
    content.put(0, json.dumps(marker).encode())
    content.sync()
    for files in (disk.files, disk.durable_files):
        files.pop(DIRECTORY / "mark.json", None)


@pytest.mark.parametrize("other_boot", [False, True])
def test_a_store_from_before_marks_is_taken_over_once(other_boot: bool) -> None:
    disk = SimulatedDisk()
    opened(disk, then_dies=True)
    disk = next_boot(disk) if other_boot else disk.after_process_death()
    make_version_1(disk)
    first = opened(disk)
    assert len(first.identity) == 16 and first.opening == 1
    assert first.whole is not other_boot
    second = opened(disk)
    assert second.identity == first.identity and second.opening == 2 and second.whole is not other_boot


def test_taking_over_may_be_interrupted_at_any_step() -> None:
    def old() -> SimulatedDisk:
        disk = SimulatedDisk()
        opened(disk, then_dies=True)
        disk = next_boot(disk)
        make_version_1(disk)
        return disk

    disk = old()
    before = disk.steps
    opened(disk)
    for crash_at in range(1, disk.steps - before):
        for power_loss in (False, True):
            disk = old()
            disk.crash_at = disk.steps + crash_at

            async def interrupted(disk: SimulatedDisk = disk) -> None:
                try:
                    store = await open_simulated(disk)
                    await store.close()
                except EmberError:
                    return

            run_virtual(interrupted())
            after = disk.after_power_loss(crash_at) if power_loss else disk.after_process_death()
            assert not opened(after).whole


def test_an_opening_may_be_interrupted_at_any_step_and_loss_is_not_forgotten() -> None:
    def lost() -> SimulatedDisk:
        disk = SimulatedDisk()
        opened(disk, then_dies=True)
        return next_boot(disk)

    disk = lost()
    before = disk.steps
    opened(disk)
    for crash_at in range(1, disk.steps - before):
        disk = lost()
        disk.crash_at = disk.steps + crash_at
        openings = [1]

        async def interrupted(disk: SimulatedDisk = disk, openings: list[int] = openings) -> None:
            try:
                store = await open_simulated(disk)
                openings.append(store.opening)
                await store.close()
            except EmberError:
                return

        run_virtual(interrupted())
        seen = opened(disk.after_power_loss(crash_at))
        assert not seen.whole and seen.incarnation >= 2
        assert seen.opening > openings[-1]


def test_a_store_without_its_mark_or_with_that_of_another_store_is_refused() -> None:
    disk = SimulatedDisk()
    opened(disk)
    mark = read_mark(disk, DIRECTORY, 101)

    async def refused(what: str) -> None:
        with pytest.raises(EmberError) as error:
            await open_simulated(disk)
        assert error.value.code is Code.DISK_FAILED and what in str(error.value)

    write_mark(disk, DIRECTORY, replace(mark, uuid=bytes(16)))
    run_virtual(refused("another store"))
    disk.remove(DIRECTORY / "mark.json")
    run_virtual(refused("no mark.json"))
    write_mark(disk, DIRECTORY, mark)
    assert opened(disk).opening == 2


def test_of_a_store_whose_boot_is_not_known_its_log_says_which_boot_wrote_it() -> None:
    disk = SimulatedDisk()
    opened(disk, then_dies=True)
    disk = disk.after_process_death()
    write_mark(disk, DIRECTORY, replace(read_mark(disk, DIRECTORY, 101), boot=NO_BOOT))
    assert opened(disk).whole


def test_data_is_there_after_the_mark_is_judged() -> None:
    """A store that is not whole still answers its chain."""
    disk = SimulatedDisk()

    async def life() -> None:
        store = await open_simulated(disk)
        await apply(store, write(1, b"durable"))
        disk.crash_at = disk.steps
        await store.close()

    run_virtual(life())
    disk = next_boot(disk)

    async def found(store: EngineStore) -> None:
        assert not store.whole
        for chunk in store.pending():
            await store.commit([(chunk, 1)])
        assert take_simulated(store, disk) == b"durable"

    on_simulated(disk, found)
