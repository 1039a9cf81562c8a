"""`emberfs demo` as a user runs it: real daemons, real DataLoader workers, nothing left behind."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

pytestmark = [pytest.mark.system, pytest.mark.slow]
ROOT = Path(__file__).parent.parent.parent
EPOCH = re.compile(
    r"(tree|packed file) +epoch (\d): (\d+) samples, .*all equal to their sources.*[\d,]+ samples/s, [\d.]+ [KM]?i?B/s"
)


def emberfs(*arguments: str, temporary: Path) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "fs_client.cli", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def running_in(directory: Path) -> list[str]:
    """Command lines of processes that name the directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and entry.name != str(os.getpid()):
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(directory) in line:
                found.append(line)
    return found


def test_the_demo_holds_and_leaves_nothing(tmp_path: Path) -> None:
    result = emberfs("demo", "--seed", "7", temporary=tmp_path)
    assert result.returncode == 0, result.stderr
    *lines, last = result.stdout.splitlines()
    assert last == "OK"
    epochs = [match.groups() for match in map(EPOCH.match, lines) if match]
    assert [(title, epoch) for title, epoch, _ in epochs] == [
        ("tree", "0"),
        ("tree", "1"),
        ("packed file", "0"),
        ("packed file", "1"),
    ]
    assert len({count for *_, count in epochs}) == 1
    # How many there are depends on how Python is packed here.
    announced = re.search(r"source: (\d+) files", result.stdout + result.stderr)
    assert announced is not None
    assert int(epochs[0][2]) == int(announced[1]) > 100
    assert not running_in(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_kept_cluster_can_be_used_and_stopped_as_it_says(tmp_path: Path) -> None:
    options = ("--keep", "--storage", "1", "--epochs", "1", "--workers", "0", "--dir", str(tmp_path / "kept"))
    result = emberfs("demo", *options, temporary=tmp_path)
    assert result.returncode == 0, result.stderr
    words = dict(re.findall(r"(look|stop): +emberfs (.*)", result.stdout))
    try:
        listed = emberfs(*words["look"].split(), temporary=tmp_path)
        assert (listed.returncode, "abc.py" in listed.stdout) == (0, True)
    finally:
        stopped = emberfs(*words["stop"].split(), temporary=tmp_path)
    assert stopped.returncode == 0
    assert not running_in(tmp_path)
    assert (tmp_path / "kept" / "cluster.json").exists()
