"""The report: JSON that any reader takes, a table with every figure and limit in it."""

import io
import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.machine import describe
from benchmarks.measure import Figure, Goal, Limit, Series
from benchmarks.report import as_json, as_table

FIGURES = [
    Figure(
        "read",
        "reading",
        Series("GB/s", (3.0, 1.0, 2.0)),
        (Limit("sockets", Series("GB/s", (4.0, 4.0, 4.0))), Limit("files", Series("GB/s", (1.0, 1.0, 1.0)))),
        Goal("ratio", ">=", 0.7),
        "a note",
    ),
    Figure("memory", "resident", Series("MB", (40.0,)), (), Goal("value", "<=", 120)),
]


def test_the_json_says_everything(tmp_path: Path) -> None:
    report = json.loads(as_json(FIGURES, describe(tmp_path), {"repeat": 3}, {"write": "OSError: no"}))
    assert report["format"] == 1
    assert report["machine"]["cores"] >= 1
    assert report["machine"]["python"].count(".") == 2
    assert report["failed"] == {"write": "OSError: no"}
    read, memory = report["figures"]
    assert (read["median"], read["low"], read["high"], read["runs"]) == (2.0, 1.0, 3.0, [3.0, 1.0, 2.0])
    assert [(limit["title"], limit["ratio"]) for limit in read["limits"]] == [("sockets", 0.5), ("files", 2.0)]
    assert (read["met"], memory["met"]) == (False, True)
    assert memory["limits"] == []


def test_numbers_that_json_does_not_know_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        as_json([Figure("x", "x", Series("s", (math.nan,)))], describe(tmp_path), {}, {})


def test_the_table_shows_figures_and_limits(tmp_path: Path) -> None:
    text = io.StringIO()
    Console(file=text, width=200).print(as_table(FIGURES, describe(tmp_path)))
    shown = text.getvalue()
    for part in ("reading", "2 GB/s", "1 … 3", "4  sockets", "0.50", "MISSED: >= 0.7 of the limit", "1  files", "2.00"):
        assert part in shown
    assert "met: <= 120" in shown
