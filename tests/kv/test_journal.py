"""The journal's two files on a disk that loses what was not synced."""

import errno
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from fs_meta.kv.journal import FILE_NAMES, STEP_BYTES, Journal, make_journal
from fs_meta.kv.journal_format import FILE_HEADER_SIZE, Changes, JournalDamaged
from tests.kv.simulated import SimulatedDisk

ONE, TWO = FILE_NAMES


def _change(number: int, size: int = 50) -> Changes:
    return {b"k%04d" % number: b"%d" % (number % 10) * size}


class Bench:
    """A journal, opened again and again."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.disk = SimulatedDisk()
        make_journal(self.disk, directory)
        self.journal = Journal(self.disk, directory)
        self.journal.open()
        assert list(self.journal.read(0)) == []

    def append(self, *numbers: int, size: int = 50) -> None:
        for number in numbers:
            self.journal.append(self.journal.next_frame(_change(number, size)))
            assert self.journal.sequence == number

    def sync(self) -> None:
        sequence = self.journal.sequence
        for file in self.journal.unsynced_files():
            self.disk.sync(file)
        self.journal.files_synced(sequence)

    def checkpoint(self) -> int:
        sequence = self.journal.checkpoint_begins()
        self.journal.checkpoint_is_durable(sequence)
        return sequence

    def content(self, name: str) -> bytearray:
        return self.disk.files[name].content()

    def find(self, number: int) -> tuple[str, int]:
        """File and offset of the key of a change."""
        for name in FILE_NAMES:
            offset = self.content(name).find(b"k%04d" % number)
            if offset >= 0:
                return name, offset
        raise AssertionError(f"change {number} is in no file")

    def damage(self, number: int) -> None:
        name, offset = self.find(number)
        file = self.disk.files[name]
        file.durable, file.unsynced = file.content(), []
        file.durable[offset] ^= 0xFF

    def again(self, applied: int = 0) -> list[int]:
        """The numbers of the changes that a new process finds; it goes on from there."""
        self.journal = Journal(self.disk, self.directory)
        self.journal.open()
        found = list(self.journal.read(applied))
        numbers = [int(next(iter(changes))[1:]) for changes in found]
        assert found == [
            _change(number, len(changes[b"k%04d" % number] or b""))
            for number, changes in zip(numbers, found, strict=True)
        ]
        assert numbers == list(range(applied + 1, self.journal.sequence + 1))
        return numbers


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_what_was_appended_is_read_and_gone_on_from(bench: Bench) -> None:
    bench.append(1, 2, 3)
    assert bench.again() == [1, 2, 3]
    bench.append(4)
    assert bench.again() == [1, 2, 3, 4]
    assert bench.again(applied=2) == [3, 4]
    assert bench.again(applied=4) == []


def test_a_frame_is_one_write(bench: Bench) -> None:
    bench.append(1)  # the file grows
    before = bench.disk.writes
    bench.append(2, 3)
    assert bench.disk.writes == before + 2


def test_the_files_take_turns_and_are_used_again(bench: Bench) -> None:
    applied = 0
    for first in range(1, 40, 4):
        bench.append(first, first + 1)
        sequence = bench.journal.checkpoint_begins()
        bench.append(first + 2, first + 3)
        assert bench.again(applied)[-1] == first + 3, "while the checkpoint is under way both files are needed"
        bench.journal.checkpoint_begins()
        bench.journal.checkpoint_is_durable(sequence)
        applied = sequence
        assert bench.again(applied)[-1] == first + 3
    for name in FILE_NAMES:
        assert len(bench.content(name)) == FILE_HEADER_SIZE + STEP_BYTES


def test_a_file_that_is_needed_is_not_switched_to(bench: Bench) -> None:
    bench.append(1, 2)
    bench.journal.checkpoint_begins()  # and fails
    bench.append(3)
    sequence = bench.journal.checkpoint_begins()
    bench.append(4)
    assert bench.again() == [1, 2, 3, 4]
    bench.journal.checkpoint_is_durable(sequence)
    assert bench.again(sequence) == [4]
    bench.append(5)
    assert bench.again(sequence) == [4, 5]


def test_after_a_checkpoint_of_everything_a_file_starts_again(bench: Bench) -> None:
    for number in range(1, 500):
        bench.append(number, size=4000)
        bench.checkpoint()
    assert bench.again(499) == []
    assert len(bench.content(ONE)) + len(bench.content(TWO)) == 2 * (FILE_HEADER_SIZE + STEP_BYTES)


def test_a_torn_tail_is_dropped(bench: Bench) -> None:
    bench.append(1, 2)
    bench.sync()
    bench.append(3)
    bench.damage(3)
    assert bench.again() == [1, 2]
    bench.append(3, 4)
    assert bench.again() == [1, 2, 3, 4]


def test_a_frame_behind_a_lost_one_never_comes_back(bench: Bench) -> None:
    """Neither was synced. The new third frame is as long as the old one, so the old fourth would follow it."""
    bench.append(1, 2, 3, 4)
    bench.damage(3)
    assert bench.again() == [1, 2]
    bench.append(3)
    assert bench.again() == [1, 2, 3]
    bench.disk = bench.disk.after_power_loss(random.Random(1))
    assert bench.again() in ([1, 2], [1, 2, 3])


def test_a_frame_in_the_other_file_behind_a_lost_one_is_dropped_too(bench: Bench) -> None:
    bench.append(1, 2)
    bench.journal.checkpoint_begins()
    bench.append(3, 4)
    bench.damage(2)
    assert bench.again() == [1]
    bench.append(2)
    assert bench.again() == [1, 2]


@pytest.mark.parametrize("switch", [False, True], ids=["one file", "two files"])
def test_damage_in_what_was_on_the_disk_is_reported(bench: Bench, switch: bool) -> None:
    bench.append(1, 2, 3)
    bench.sync()
    if switch:
        bench.journal.checkpoint_begins()
    bench.append(4)
    bench.damage(2)
    with pytest.raises(JournalDamaged, match=r"frame 2 of the journal is damaged or missing, and frame 4 says"):
        bench.again()
    assert bench.again(applied=2) == [3, 4], "what the checkpoint has is not missed"


def test_damage_in_what_a_checkpoint_has_is_nothing(bench: Bench) -> None:
    bench.append(1, 2, 3)
    bench.sync()
    sequence = bench.journal.checkpoint_begins()
    bench.journal.checkpoint_is_durable(sequence)
    bench.append(4)
    bench.damage(2)
    assert bench.again(sequence) == [4]


def test_what_is_synced_is_there_after_a_power_loss(bench: Bench) -> None:
    for seed in range(60):
        bench.append(bench.journal.sequence + 1, bench.journal.sequence + 2)
        if seed % 3 == 0:
            bench.journal.checkpoint_begins()
            bench.append(bench.journal.sequence + 1)
        bench.sync()
        synced = bench.journal.sequence
        assert bench.journal.synced == synced
        bench.append(synced + 1, synced + 2, synced + 3)
        bench.disk = bench.disk.after_power_loss(random.Random(seed))
        left = len(bench.again())
        assert synced <= left <= synced + 3


def test_after_reopening_nothing_counts_as_synced(bench: Bench) -> None:
    """The process has died, the machine may yet: what was read may be in memory only."""
    bench.append(1)
    bench.journal.checkpoint_begins()
    bench.append(2)
    assert bench.again() == [1, 2]
    assert bench.journal.synced == 0 and len(bench.journal.unsynced_files()) == 2
    bench.sync()
    bench.disk = bench.disk.after_power_loss(random.Random(1))
    assert bench.again() == [1, 2]


def test_no_space_to_grow_is_no_error_while_the_frame_fits(bench: Bench) -> None:
    bench.append(1)
    bench.disk.full = True
    number = 1
    with pytest.raises(OSError) as refused:
        while True:
            bench.append(number + 1, size=20_000)
            number += 1
    assert refused.value.errno == errno.ENOSPC
    assert number * 20_000 > STEP_BYTES - 30_000, "all of the file is used"
    assert bench.again() == list(range(1, number + 1)), "a part of the last one is written: it is no frame"
    bench.disk.full = False
    bench.append(number + 1)
    assert len(bench.again()) == number + 1


def _other_store(bench: Bench, directory: Path) -> None:
    other = SimulatedDisk()
    make_journal(other, directory)
    bench.disk.files[TWO] = other.files[TWO]


def _no_header(bench: Bench, directory: Path) -> None:
    bench.disk.files[ONE].durable[:24] = bytes(24)


def _cut(bench: Bench, directory: Path) -> None:
    del bench.disk.files[TWO].durable[10:]


@pytest.mark.parametrize(
    "change, message",
    [(_other_store, "different stores"), (_no_header, "journal.0: its header"), (_cut, "journal.1: it has no header")],
)
def test_files_that_are_no_journal_are_refused(
    bench: Bench, tmp_path: Path, change: Callable[[Bench, Path], None], message: str
) -> None:
    change(bench, tmp_path)
    with pytest.raises(JournalDamaged, match=message):
        bench.again()
