"""The battery's trials on the subjects, for some seconds each; and the proof that the digest sees what copies lose."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.posix.battery.__main__ import TRIALS, place_in
from tests.posix.battery.digest import describe, difference
from tests.posix.battery.place import Failed, Place, Skipped, need
from tests.posix.battery.trees import rich_tree
from tests.posix.subject import Subject

PROGRAMS = {
    "stress-ng": "stress-ng",
    "dbench": "dbench",
    "fio": "fio",
    "rsync": "rsync",
    "git": "git",
    "make": "gcc",
}
SECONDS = 3
NOT_HERE = {"stress-ng", "venv"}
"""They take minutes: `python -m tests.posix.battery` has them."""
ON_A_MOUNT = {"tar", "rsync"}
"""The others move so much that they take minutes there, too."""


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in TRIALS if name not in NOT_HERE])
def test_trial(subject: Subject, name: str, ends_in_time: Callable[[int], None]) -> None:
    if subject.kind == "disk":
        pytest.skip("what trials are worth, tmpfs shows faster")
    if subject.kind == "mount" and name not in ON_A_MOUNT:
        pytest.skip("takes minutes: python -m tests.posix.battery DIR")
    if name in PROGRAMS and not shutil.which(PROGRAMS[name]):
        pytest.skip(f"{PROGRAMS[name]} is not installed")
    ends_in_time(600)
    with place_in(subject.path, name, SECONDS) as place:
        TRIALS[name](place)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    rich_tree(tmp_path / "tree")
    return tmp_path / "tree"


def test_same_tree_same_digest(tree: Path, tmp_path: Path) -> None:
    rich_tree(tmp_path / "again")
    assert difference(describe(tree), describe(tmp_path / "again")) is None


FILE = Path("directory-2/inner/file-4")
LOSSES: dict[str, Callable[[Path], object]] = {
    "a byte": lambda tree: os.truncate(tree / FILE, 70_000),
    "a nanosecond": lambda tree: os.utime(tree / FILE, ns=(0, os.stat(tree / FILE).st_mtime_ns + 1)),
    "a mode bit": lambda tree: os.chmod(tree / FILE, os.stat(tree / FILE).st_mode ^ 0o4000),
    "a directory's time": lambda tree: os.utime(tree / "special"),
    "an attribute": lambda tree: os.removexattr(tree / "special" / "one", "user.empty"),
    "a name": lambda tree: os.unlink(tree / "special" / "dangling"),
    "an empty directory": lambda tree: os.rename(tree / "directory-1", tree / "directory-x"),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_digest_sees(tree: Path, loss: str) -> None:
    before = describe(tree)
    LOSSES[loss](tree)
    assert difference(before, describe(tree)) is not None


def test_digest_sees_a_broken_hard_link(tree: Path) -> None:
    before = describe(tree)
    two = tree / "special" / "two"
    shutil.copy2(two, tree / "copy")
    os.rename(tree / "copy", two)
    assert "same-as" in (difference(before, describe(tree)) or "")


def test_failing_program_fails_its_trial(tmp_path: Path) -> None:
    place = Place(tmp_path, tmp_path, 1)
    with pytest.raises(Failed, match="exit code 3"):
        place.run("sh", "-c", "exit 3")
    with pytest.raises(Failed, match="did not end"):
        place.run("sleep", "100", timeout_s=0.2)


def test_missing_program_is_installed_or_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(Skipped, match="no-such-package"):
        need("no-such-program", "no-such-package")
