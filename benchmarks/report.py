"""A finished run: as JSON for comparing, as a table for reading. The JSON's fields are stable under one `format`."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.measure import Figure, Limit, Series

if TYPE_CHECKING:
    from rich.table import Table

FORMAT = 1


def as_json(
    figures: Sequence[Figure], machine: dict[str, Any], settings: dict[str, Any], failed: dict[str, str]
) -> str:
    """The whole report. `failed`: benchmarks that did not finish, and why."""
    report = {
        "format": FORMAT,
        "machine": machine,
        "settings": settings,
        "figures": [figure.as_json() for figure in figures],
        "failed": failed,
    }
    return json.dumps(report, indent=2, allow_nan=False) + "\n"


def as_table(figures: Sequence[Figure], machine: dict[str, Any]) -> "Table":
    """One line for each figure, one below for each further limit."""
    from rich.table import Table

    place = f"{machine['cores']} cores {machine['cpu']}, Linux {machine['kernel']}, Python {machine['python']}"
    busy = f"load average {machine['load_average']:.1f} at the start"
    table = Table(title="EmberFS beside its limits", caption=f"medians; low and high of all runs. {place}, {busy}")
    for heading in ("what", "EmberFS", "low … high", "limit", "low … high", "ratio", "goal"):
        table.add_column(heading, justify="right" if heading in ("EmberFS", "ratio") else "left")
    for figure in figures:
        first, *others = figure.limits or (None,)
        ours = (figure.title, f"{number(figure.ours.median)} {figure.ours.unit}", _spread(figure.ours))
        table.add_row(*ours, *_limit_cells(figure, first), _goal(figure))
        for limit in others:
            table.add_row("", "", "", *_limit_cells(figure, limit), "")
    return table


def _limit_cells(figure: Figure, limit: Limit | None) -> tuple[str, str, str]:
    if limit is None:
        return "", "", ""
    return f"{number(limit.series.median)}  {limit.title}", _spread(limit.series), f"{figure.ratio(limit):.2f}"


def _goal(figure: Figure) -> str:
    goal = figure.goal
    if goal is None:
        return ""
    of = " of the limit" if goal.of == "ratio" else ""
    return f"{'met' if figure.met else 'MISSED'}: {goal.relation} {goal.bound:,g}{of}"


def _spread(series: Series) -> str:
    return f"{number(min(series.values))} … {number(max(series.values))}"


def number(value: float) -> str:
    """Three digits that matter; thousands in groups."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value >= 0.001 else f"{value:.2e}"
