"""The redo log: what is read back after which damage."""

from pathlib import Path

import pytest

from fs_common.checks import InvariantViolation
from fs_storage.engine.log import RedoLog, format_log
from fs_storage.engine.log_format import (
    FILE_HEADER_SIZE,
    Abandon,
    Begin,
    Commit,
    LogDamaged,
    encode_abandon,
    encode_commit,
)
from fs_storage.engine.syncing import Syncs
from tests.storage.engine.simulated_disk import SimulatedDisk

DIRECTORY = Path("/log")
STEP = 64 * 1024
CHUNK = bytes(12)


def made(disk: SimulatedDisk) -> RedoLog:
    format_log(disk, DIRECTORY, 101, STEP)
    return opened(disk)


def opened(disk: SimulatedDisk, target: int = 101) -> RedoLog:
    log = RedoLog(disk, Syncs(disk, lambda: None), DIRECTORY, target, STEP)
    log.open()
    return log


def append(log: RedoLog, version: int) -> int:
    return log.append([encode_commit(CHUNK, version, 5)], 1)


def versions(disk: SimulatedDisk, after: int = 0) -> list[int]:
    return [
        entry.version
        for frame in opened(disk).read(after)
        for entry in frame.records
        if isinstance(entry, Commit | Abandon)
    ]


def damage(disk: SimulatedDisk, name: str, offset: int) -> None:
    content = disk.files[DIRECTORY / name]
    (old,) = content.get(offset, 1)
    content.put(offset, bytes((old ^ 0x40,)))
    content.sync()


def test_frames_come_back_in_order_with_what_was_known() -> None:
    disk = SimulatedDisk()
    log = made(disk)
    assert list(log.read(0)) == []
    log.begin(0)
    assert append(log, 1) == 2
    log.sync()
    log.data_synced = 2
    log.append([encode_commit(CHUNK, 2, 7), encode_abandon(CHUNK, 3, 8)], 2)
    frames = list(opened(disk).read(0))
    assert [(frame.sequence, frame.log_synced, frame.data_synced) for frame in frames] == [
        (1, 0, 0),
        (2, 0, 0),
        (3, 2, 2),
    ]
    assert frames[0].records == [Begin((1).to_bytes(16, "big"))]
    assert frames[2].records == [Commit(CHUNK, 2, 7), Abandon(CHUNK, 3, 8)]
    assert [frame.sequence for frame in opened(disk).read(2)] == [3]


def test_files_take_turns_and_old_frames_are_not_taken_for_new_ones() -> None:
    disk = SimulatedDisk()
    log = made(disk)
    log.begin(0)
    for version in range(1, 40):
        append(log, version)
    cut = log.switch()
    append(log, 40)
    assert versions(disk) == list(range(1, 41))
    assert versions(disk, after=cut) == [40]
    cut = log.switch()
    append(log, 41)
    # The first file begins with the new frames; behind them lie the old ones, which a checkpoint holds.
    assert versions(disk, after=cut) == [41]


def test_a_torn_tail_is_cut() -> None:
    disk = SimulatedDisk()
    log = made(disk)
    log.begin(0)
    append(log, 1)
    log.sync()
    end = FILE_HEADER_SIZE + log.bytes_used
    append(log, 2)
    damage(disk, "redo.0", end + 50)
    assert versions(disk) == [1]


def test_a_lost_frame_hides_those_behind_it_and_their_sequences_are_not_used_again() -> None:
    disk = SimulatedDisk()
    log = made(disk)
    log.begin(0)
    append(log, 1)
    log.sync()
    end = FILE_HEADER_SIZE + log.bytes_used
    append(log, 2)
    append(log, 3)
    damage(disk, "redo.0", end + 50)
    again = opened(disk)
    assert [frame.sequence for frame in again.read(0)] == [1, 2]
    assert again.highest == 4
    with pytest.raises(InvariantViolation, match="a sequence is not used twice"):
        again.begin(2)
    again.begin(4)
    assert append(again, 9) == 6


@pytest.mark.parametrize("offset", [0, 8, 30, 41, 60])
def test_damage_in_what_was_on_the_disk_is_an_error(offset: int) -> None:
    disk = SimulatedDisk()
    log = made(disk)
    log.begin(0)
    start = FILE_HEADER_SIZE + log.bytes_used
    append(log, 1)
    append(log, 2)
    log.sync()
    append(log, 3)
    damage(disk, "redo.0", start + offset)
    with pytest.raises(LogDamaged, match="frame 2 was on the disk, and is damaged"):
        versions(disk)


def test_damage_in_the_first_file_is_proved_by_the_second() -> None:
    disk = SimulatedDisk()
    log = made(disk)
    log.begin(0)
    append(log, 1)
    start = FILE_HEADER_SIZE + log.bytes_used
    append(log, 2)
    log.switch()
    append(log, 3)
    damage(disk, "redo.0", start + 45)
    with pytest.raises(LogDamaged, match="frame"):
        versions(disk)


@pytest.mark.parametrize("offset", [0, 9, 13, 17])
def test_a_damaged_file_header_is_an_error(offset: int) -> None:
    disk = SimulatedDisk()
    made(disk).close()
    damage(disk, "redo.1", offset)
    with pytest.raises(LogDamaged, match=r"/log/redo\.1: the log"):
        opened(disk)


def test_another_targets_log_is_an_error() -> None:
    disk = SimulatedDisk()
    made(disk).close()
    with pytest.raises(LogDamaged, match="belongs to target 101"):
        opened(disk, target=102)


def test_a_full_disk_leaves_the_log_as_it_was() -> None:
    disk = SimulatedDisk(total_bytes=2 * STEP + 4096)
    log = made(disk)
    log.begin(0)
    append(log, 1)
    with pytest.raises(OSError, match="No space"):
        log.append([bytes(STEP)], 1)
    assert log.is_full
    append(log, 2)
    assert versions(disk) == [1, 2]
    log.switch()
    assert not log.is_full
