"""What a command costs before it does anything, and what importing the client costs. Limit: a bare interpreter."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.context import Context
from benchmarks.measure import Figure, Goal, Limit, Series, alternate

_RUNS = 3
"""Of each command in one value, which is their median."""


def run(context: Context) -> list[Figure]:
    environment = os.environ | {"EMBERFS_CLUSTER": context.cluster, "PYTHONPATH": _path()}
    # As it is after `pip install`: compiled once. The first runs, which `alternate` leaves out, see to that.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    cli = [sys.executable, "-m", "fs_client.cli"]
    bare, import_client, import_loader, show_help, ls = alternate(
        context.repeat,
        lambda: _ms([sys.executable, "-c", "pass"], environment),
        lambda: _ms([sys.executable, "-c", "import fs_client; fs_client.connect"], environment),
        lambda: _ms([sys.executable, "-c", "import fs_client.loader.file_dataset"], environment),
        lambda: _ms([*cli, "--help"], environment),
        lambda: _ms([*cli, "ls", "ember:/"], environment),
    )
    limit = (Limit("bare interpreter", Series("ms", bare)),)
    goal = Goal("value", "<=", 300)
    return [
        Figure(
            "start_time.import",
            "import fs_client, connect",
            Series("ms", tuple(ours - theirs for ours, theirs in zip(import_client, bare, strict=True))),
            limit,
            Goal("value", "<=", 150),
            "without the interpreter",
        ),
        Figure("start_time.loader", "python -c 'import the loader'", Series("ms", import_loader), limit),
        Figure("start_time.help", "emberfs --help", Series("ms", show_help), limit, goal),
        Figure("start_time.ls", "emberfs ls", Series("ms", ls), limit, goal),
    ]


def _ms(command: Sequence[str], environment: dict[str, str]) -> float:
    return statistics.median(_one_ms(command, environment) for _ in range(_RUNS))


def _one_ms(command: Sequence[str], environment: dict[str, str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - start) * 1e3


def _path() -> str:
    """Where our packages are, for interpreters that are started elsewhere."""
    return os.pathsep.join([str(Path(__file__).parent.parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
