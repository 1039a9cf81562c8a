"""Runs of all measurements on all systems, and what they gave: a table and JSON.

Systems take turns within a measurement, and measurements within a round, so that whatever else the machine does falls
on all of them. A system that fails is left out from then on; what it gave before stays.
"""

import functools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from benchmarks.context import say
from benchmarks.measure import Series
from benchmarks.peers.measurements import Measurement, Row, Sizes
from benchmarks.peers.system import System
from benchmarks.report import number

if TYPE_CHECKING:
    from rich.table import Table

FORMAT = 1


@dataclass(slots=True)
class Comparison:
    systems: list[System]
    """In the order of columns."""
    versions: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    """System to why."""
    values: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    """(row, system) to what each round gave."""

    def attempt(self, system: System, work: Callable[[System], None]) -> None:
        """Do it unless the system has failed; if it fails now, remember why."""
        if system.name in self.failed:
            return
        try:
            work(system)
        except Exception as error:
            # One that fails must not cost the figures of the others.
            self.failed[system.name] = f"{type(error).__name__}: {error}"
            say(f"{system.title} is left out: {self.failed[system.name]}")

    def run(self, measurements: Sequence[Measurement], sizes: Sizes, repeat: int, until: float) -> None:
        """`until`: a time of the monotonic clock after which no further measurement begins."""
        for round_index in range(repeat):
            for measurement in measurements:
                if time.monotonic() > until:
                    say(f"out of time in round {round_index + 1} of {repeat}, at {measurement.rows[0].name}")
                    return
                for system in turn(self.systems, round_index):
                    self.attempt(system, functools.partial(self._run_one, measurement, sizes))

    def _run_one(self, measurement: Measurement, sizes: Sizes, system: System) -> None:
        started = time.monotonic()
        for row, value in zip(measurement.rows, measurement.run(system, sizes), strict=True):
            self.values.setdefault((row.name, system.name), []).append(value)
        say(f"{measurement.rows[0].name:16} {system.name:10} {time.monotonic() - started:6.1f} s")

    def series(self, row: Row, system: System) -> Series | None:
        values = self.values.get((row.name, system.name))
        return Series(row.unit, tuple(values)) if values else None


def turn(systems: Sequence[System], round_index: int) -> list[System]:
    """Each round begins with another one: what the one before leaves to be written back does not fall on the same."""
    first = round_index % len(systems)
    return [*systems[first:], *systems[:first]]


def as_json(comparison: Comparison, rows: Sequence[Row], machine: dict[str, Any], settings: dict[str, Any]) -> str:
    report = {
        "format": FORMAT,
        "machine": machine,
        "settings": settings,
        "systems": [
            {"name": system.name, "title": system.title, "version": comparison.versions.get(system.name, "")}
            for system in comparison.systems
        ],
        "rows": [_row_as_json(comparison, row) for row in rows],
        "failed": comparison.failed,
    }
    return json.dumps(report, indent=2, allow_nan=False) + "\n"


def _row_as_json(comparison: Comparison, row: Row) -> dict[str, Any]:
    given = {system.name: comparison.series(row, system) for system in comparison.systems}
    return {
        "name": row.name,
        "title": row.title,
        "better": "less" if row.less_is_better else "more",
        "systems": {name: series.as_json() for name, series in given.items() if series},
    }


def as_table(
    comparison: Comparison,
    rows: Sequence[Row],
    machine: dict[str, Any],
    title: str = "EmberFS beside its peers, three copies each on one machine",
) -> "Table":
    """A line for each row, a column for each system: median, below it low and high."""
    from rich.table import Table

    place = f"{machine['cores']} cores {machine['cpu']}, Linux {machine['kernel']}, {machine['directory_filesystem']}"
    caption = f"median, low … high. {place}, load average {machine['load_average']:.1f} at the start"
    table = Table(title=title, caption=caption)
    table.add_column("what")
    for system in comparison.systems:
        table.add_column(system.title, justify="right")
    for row in rows:
        cells = (_cell(comparison.series(row, system)) for system in comparison.systems)
        table.add_row(f"{row.title}  [{row.unit}]".replace("[", r"\["), *cells)
    return table


def _cell(series: Series | None) -> str:
    if series is None:
        return "-"
    low, high = number(min(series.values)), number(max(series.values))
    return f"{number(series.median)}\n{low} … {high}"
