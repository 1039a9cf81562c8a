"""The exerciser on the subjects, and the proof that it notices what it is there for."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.posix import calls
from tests.posix.exerciser import run
from tests.posix.exerciser.operations import Chooser, Operation
from tests.posix.exerciser.player import Mismatch
from tests.posix.exerciser.tree import TreeExerciser
from tests.posix.subject import Subject

COUNT = 1500


@pytest.fixture
def settings(subject: Subject) -> run.Settings:
    return run.Settings((subject.path,))


@pytest.mark.parametrize("seed", [1, 2])
def test_contents(settings: run.Settings, seed: int) -> None:
    run.exercise(settings, seed, COUNT)


@pytest.mark.parametrize("seed", [3, 4])
def test_contents_through_two_mounts(subject: Subject, seed: int) -> None:
    run.exercise(run.Settings((subject.path, subject.other)), seed, COUNT)


def test_contents_under_locks(subject: Subject) -> None:
    run.exercise(run.Settings((subject.path, subject.other), locks=True), 5, COUNT)


@pytest.mark.parametrize("seed", [1, 2])
def test_tree(subject: Subject, seed: int) -> None:
    TreeExerciser((subject.path,), "tree", seed).run(COUNT)


def test_tree_through_two_mounts(subject: Subject) -> None:
    TreeExerciser((subject.path, subject.other), "tree", 3).run(COUNT)


def test_same_seed_same_operations() -> None:
    def some(seed: int) -> list[Operation]:
        chooser = Chooser(seed, run.SIZE_MAX)
        return [chooser.next() for _ in range(200)]

    assert some(7) == some(7)
    assert some(7) != some(8)
    assert all(Operation.from_line(one.to_line()) == one for one in some(7))


def test_written_operations_play_again(tmp_path: Path) -> None:
    replay = tmp_path / "replay"
    run.exercise(run.Settings((tmp_path,)), 9, 300, replay=replay)
    operations = run.load(replay)
    assert len(operations) == 300
    run.play(run.Settings((tmp_path,)), operations)


_pwrite, _ftruncate, _fallocate, _unlink, _pread = os.pwrite, os.ftruncate, calls.fallocate, os.unlink, os.pread


def _write_loses_a_byte(descriptor: int, data: bytes, offset: int) -> int:
    written = _pwrite(descriptor, data, offset)
    if offset > 1 << 19 and written > 5000:
        _pwrite(descriptor, b"\0", offset + 4999)
    return written


def _truncate_leaves_the_page(descriptor: int, size: int) -> None:
    """What a file system does that forgets to zero the rest of the last page."""
    old = _pread(descriptor, 4096, size)
    _ftruncate(descriptor, size)
    if old.strip(b"\0"):
        _pwrite(descriptor, old, size)
        _ftruncate(descriptor, size + len(old))


def _punch_rounds(descriptor: int, mode: int, offset: int, length: int) -> None:
    if mode & calls.FALLOC_FL_PUNCH_HOLE:
        offset, length = offset & -4096, length + (offset & 4095)
    _fallocate(descriptor, mode, offset, length)


@pytest.mark.parametrize(
    ("module", "name", "fault"),
    [
        (os, "pwrite", _write_loses_a_byte),
        (os, "ftruncate", _truncate_leaves_the_page),
        (calls, "fallocate", _punch_rounds),
        (os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(errno.EIO, "no"))),
    ],
)
def test_faults_are_found_and_thinned_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: object, name: str, fault: Callable[..., object]
) -> None:
    monkeypatch.setattr(module, name, fault)
    settings, replay = run.Settings((tmp_path,), 1 << 20), tmp_path / "replay"
    with pytest.raises(run.Failure) as caught:
        run.exercise(settings, 1, 5000, replay=replay)
    assert str(replay) in str(caught.value)
    fewest = run.thin_out(settings, run.load(replay), report=lambda text: None)
    assert 1 <= len(fewest) <= 4
    with pytest.raises(run.Failure):
        run.play(settings, fewest)


def test_tree_finds_a_lost_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = calls.renameat2
    monkeypatch.setattr(calls, "renameat2", lambda old, new, flags: original(old, new, flags & ~calls.RENAME_NOREPLACE))
    exerciser = TreeExerciser((tmp_path,), "tree", 1)
    with pytest.raises(Mismatch):
        exerciser.run(5000)
    assert exerciser.log


def test_tree_finds_a_wrong_count_of_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def copied(old: Path, new: Path, *, follow_symlinks: bool) -> None:
        if os.path.lexists(new) or not os.path.lexists(old) or not os.path.isfile(old):
            os_link(old, new, follow_symlinks=follow_symlinks)
        else:
            new.write_bytes(old.read_bytes())

    os_link = os.link
    monkeypatch.setattr(os, "link", copied)
    with pytest.raises(Mismatch):
        TreeExerciser((tmp_path,), "tree", 1).run(5000)
