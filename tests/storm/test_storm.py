"""Short storms, as commands of their own; and storms over daemons with a defect, which have to be found."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 240.0
"""Of a storm that hangs in all of its bounds."""

pytestmark = [pytest.mark.system, pytest.mark.slow]


def storm(path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """What fails keeps its directory, which pytest keeps for a while; the output has seed, log and history."""
    return subprocess.run(
        [sys.executable, "-m", "tests.storm", "--dir", str(path / "storm"), *options],
        cwd=ROOT,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(("--minutes", "0.15"), id="everything that can be done here"),
        pytest.param(("--minutes", "0.1", "--plain", "--durability", "memory", "--no-mount"), id="on loopback"),
    ],
)
def test_nothing_is_lost_in_a_storm(tmp_path: Path, options: tuple[str, ...]) -> None:
    done = storm(tmp_path, *options)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "nothing lost, nothing wrong" in done.stdout


@pytest.mark.parametrize(
    ("defect", "only", "words"),
    [
        ("lost-commit", "kill", ("is not linearizable", "wrong from", "bytes are right", "ended with status 70")),
    ],
)
def test_a_defect_is_found(tmp_path: Path, defect: str, only: str, words: tuple[str, ...]) -> None:
    options = ("--minutes", "0.15", "--seed", "3", "--no-mount", "--patience", "20", "--calm-after", "3")
    done = storm(tmp_path, *options, "--planted", defect, "--only", only)
    assert done.returncode == 1, f"{done.stdout}\n{done.stderr}"
    assert any(word in done.stderr for word in words), f"{done.stdout}\n{done.stderr}"
    assert "seed 3" in done.stderr and (tmp_path / "storm" / "storm.log").exists()
