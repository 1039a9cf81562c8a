"""What `guest.sh` refuses before it starts anything."""

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "guest.sh"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "which command?"),
        (["--nics", "3", "true"], "--nics is 1, 2 or 4"),
        (["--nics"], "--nics takes a value"),
        (["--speed", "9", "true"], "no such option: --speed"),
        (["--read-only", "/nowhere/at/all", "true"], "there is no folder /nowhere/at/all"),
        (["--tree", "/usr", "--host-python", "true"], "--host-python: there is no /usr/.venv/bin/python"),
    ],
)
def test_bad_options_are_refused_in_one_line(arguments: list[str], line: str) -> None:
    done = subprocess.run(["bash", str(SCRIPT), *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 126
    assert done.stderr.splitlines()[-1].removeprefix("guest: ").startswith(line)
    assert done.stdout == ""
