"""Values that a benchmark reports: series of runs, limits beside them, goals. Pure.

A figure and its limit are measured alternately (`alternate`), so that whatever else the machine does falls on both;
their ratio is the median of the ratios of neighbouring runs, not the ratio of medians, for the same reason.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Series:
    """The same quantity, measured several times."""

    unit: str
    values: tuple[float, ...]
    """At least one."""

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def as_json(self) -> dict[str, Any]:
        return {
            "unit": self.unit,
            "median": self.median,
            "low": min(self.values),
            "high": max(self.values),
            "runs": list(self.values),
        }


@dataclass(frozen=True, slots=True)
class Limit:
    """What the machine does in our place; same unit and same number of runs as the figure it stands beside."""

    title: str
    series: Series


@dataclass(frozen=True, slots=True)
class Goal:
    """What the figure is wished to reach. Shown, never asserted."""

    of: Literal["value", "ratio"]
    relation: Literal[">=", "<="]
    bound: float

    def is_met(self, actual: float) -> bool:
        return actual >= self.bound if self.relation == ">=" else actual <= self.bound


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the report."""

    name: str
    """`bench.what`, stable: reports are compared by it."""
    title: str
    ours: Series
    limits: tuple[Limit, ...] = ()
    """The goal's ratio is over the first."""
    goal: Goal | None = None
    note: str = ""

    def ratio(self, limit: Limit) -> float:
        """Ours over the limit, run by run: the median. Above 1 is more than the limit: for times that is worse."""
        pairs = zip(self.ours.values, limit.series.values, strict=True)
        return statistics.median(ours / theirs for ours, theirs in pairs)

    @property
    def met(self) -> bool | None:
        """None without a goal."""
        if self.goal is None:
            return None
        return self.goal.is_met(self.ours.median if self.goal.of == "value" else self.ratio(self.limits[0]))

    def as_json(self) -> dict[str, Any]:
        goal = self.goal
        return {
            "name": self.name,
            "title": self.title,
            **self.ours.as_json(),
            "limits": [
                {"title": limit.title, **limit.series.as_json(), "ratio": self.ratio(limit)} for limit in self.limits
            ],
            "goal": None if goal is None else {"of": goal.of, "relation": goal.relation, "bound": goal.bound},
            "met": self.met,
            "note": self.note,
        }


def alternate(repeat: int, *measurements: Callable[[], float]) -> list[tuple[float, ...]]:
    """Run all measurements once, then all again, `repeat` times; one tuple of values for each measurement.

    Every measurement is run once more before, and that value is dropped: it pays for first touches of memory, files,
    connections and code.
    """
    rounds: Sequence[list[float]] = [[measure() for measure in measurements] for _ in range(repeat + 1)]
    return [tuple(values) for values in zip(*rounds[1:], strict=True)]
