"""`emberfs bench PATH...`: the calls of `peers.measurements` in any directory, side by side, as a table to send to us.

Works below a directory of its own in each PATH, which is removed at the end. Nothing has to be EmberFS.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.context import say
from benchmarks.machine import describe
from benchmarks.mounted import drop_local_caches
from benchmarks.peers.comparison import Comparison, as_json, as_table
from benchmarks.peers.measurements import FULL, MEASUREMENTS, QUICK, fill


class Place:
    """One PATH."""

    def __init__(self, number: int, path: Path) -> None:
        self.name = f"path{number}"
        self.title = str(path)
        self._above = path
        self.path = path
        self._made: Path | None = None

    def start(self) -> str:
        self._made = Path(tempfile.mkdtemp(prefix=".emberfs-bench-", dir=self._above))
        self.path = self._made
        return str(describe(self._made)["directory_filesystem"] or "")

    def cold(self) -> None:
        """Files leave the page cache, and names the kernel's other caches, as far as this user may ask for that. What
        servers keep in their memory they keep."""
        for name in ("stream", "random"):
            file = os.open(self.path / name, os.O_RDONLY)
            try:
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(file)
        if os.access("/proc/sys/vm/drop_caches", os.W_OK):
            drop_local_caches()

    def stop(self) -> None:
        if self._made is not None:
            shutil.rmtree(self._made, ignore_errors=True)


def measure(paths: Sequence[Path], repeat: int, quick: bool) -> tuple[Comparison, str, dict[str, Any]]:
    """What was measured, the same as JSON, and the machine."""
    sizes = QUICK if quick else FULL
    machine = describe(paths[0])
    comparison = Comparison([Place(number, path) for number, path in enumerate(paths, 1)])
    try:
        for place in comparison.systems:
            say(f"filling {place.title}")
            comparison.attempt(place, lambda place: comparison.versions.__setitem__(place.name, place.start()))
            comparison.attempt(place, lambda place: fill(place, sizes))
        comparison.run(MEASUREMENTS, sizes, repeat, time.monotonic() + 24 * 3600)
    finally:
        for place in comparison.systems:
            say(f"removing what was made in {place.title}")
            place.stop()
    rows = [row for measurement in MEASUREMENTS for row in measurement.rows]
    settings = {"repeat": repeat, "quick": quick, "dropped_caches": os.access("/proc/sys/vm/drop_caches", os.W_OK)}
    return comparison, as_json(comparison, rows, machine, settings), machine


def show(comparison: Comparison, machine: dict[str, Any], terminal: bool) -> None:
    """The table, on stdout."""
    from rich.console import Console

    rows = [row for measurement in MEASUREMENTS for row in measurement.rows]
    console = Console(width=None if terminal else 170)
    console.print(as_table(comparison, rows, machine, title="The same calls in each directory"))
    for place in comparison.systems:
        kind = comparison.versions.get(place.name)
        console.print(f"{place.title}: {kind or 'unknown file system'}", highlight=False, markup=False)
    if not os.access("/proc/sys/vm/drop_caches", os.W_OK):
        console.print("not root: names were not dropped from the kernel's caches before what is called cold")
    for name, why in comparison.failed.items():
        console.print(f"{name} failed: {why}", highlight=False, markup=False)
