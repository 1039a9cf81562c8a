"""Medians, ratios, goals and the order of runs."""

import pytest

from benchmarks.measure import Figure, Goal, Limit, Series, alternate


def figure(ours: tuple[float, ...], limit: tuple[float, ...], goal: Goal | None = None) -> Figure:
    return Figure("a.b", "title", Series("1/s", ours), (Limit("limit", Series("1/s", limit)),), goal)


def test_the_ratio_is_the_median_of_neighbouring_runs() -> None:
    """The machine became ten times faster in between: every pair says a half, medians would say a fifth."""
    drifting = figure((1.0, 2.0, 10.0, 50.0, 100.0), (2.0, 4.0, 20.0, 100.0, 200.0))
    assert drifting.ratio(drifting.limits[0]) == 0.5
    spike = figure((10.0, 1.0, 10.0), (20.0, 20.0, 20.0))
    assert spike.ratio(spike.limits[0]) == 0.5


def test_runs_of_figure_and_limit_have_to_be_pairs() -> None:
    unequal = figure((1.0, 2.0), (1.0,))
    with pytest.raises(ValueError, match="shorter"):
        unequal.ratio(unequal.limits[0])


@pytest.mark.parametrize(
    ("goal", "met"),
    [
        (None, None),
        (Goal("value", ">=", 20.0), True),
        (Goal("value", ">=", 20.1), False),
        (Goal("value", "<=", 20.0), True),
        (Goal("value", "<=", 19.9), False),
        (Goal("ratio", ">=", 0.5), True),
        (Goal("ratio", ">=", 0.51), False),
    ],
)
def test_goals(goal: Goal | None, met: bool | None) -> None:
    assert figure((10.0, 20.0, 30.0), (20.0, 40.0, 60.0), goal).met is met


def test_measurements_alternate_and_the_first_round_is_dropped() -> None:
    calls: list[str] = []

    def measure(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    values = alternate(2, lambda: measure("ours"), lambda: measure("limit"))
    assert calls == ["ours", "limit"] * 3
    assert values == [(3.0, 5.0), (4.0, 6.0)]
