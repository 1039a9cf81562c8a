"""The ring of samples: rates out of counters that grow, stop, and begin anew."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fs_meta.http.history import META, History, Level, Mean, Rate

SERIES = {
    None: {"bytes": Rate(("read", "written")), "each_ms": Mean(("spent_us",), ("done",), 0.001)},
    META: {"calls": Rate(("rpc_stat_calls",)), "used": Level()},
}


def history(samples_max: int = 5, span_s: float = 100.0) -> History:
    return History(SERIES, samples_max=samples_max, span_s=span_s)


def test_rates_are_made_of_what_the_counters_grew() -> None:
    kept = history()
    kept.add(10.0, {1: {"read": 100, "other": 7}, 2: {"written": 50}, META: {"rpc_stat_calls": 5}}, {"used": 9.0})
    kept.add(12.0, {1: {"read": 300, "other": 9}, 2: {"written": 60}, META: {"rpc_stat_calls": 25}}, {"used": 8.0})
    piece = kept.since(0)
    assert piece.first == 0 and piece.at_s == [10.0, 12.0]
    # Nobody knows what was done before the first reading.
    assert piece.series == {"bytes": [None, 105.0], "each_ms": [None, None], "calls": [None, 10.0], "used": [9.0, 8.0]}
    assert kept.rates == {1: {"read": 100.0}, 2: {"written": 5.0}, META: {"rpc_stat_calls": 10.0}}


def test_a_daemon_that_has_started_anew_has_counted_from_nothing() -> None:
    kept = history()
    kept.add(0.0, {1: {"read": 1000, "written": 10}})
    kept.add(1.0, {1: {"read": 30, "written": 20}})  # one that grew all the same
    assert kept.since(1).series["bytes"] == [50.0]
    kept.add(2.0, {1: {"read": 31, "written": 20}})
    assert kept.since(2).series["bytes"] == [1.0]


def test_a_counter_that_is_not_there_any_more_was_of_another_process() -> None:
    kept = history()
    kept.add(0.0, {1: {"read": 1000, "written": 10}})
    kept.add(1.0, {1: {"written": 12}})
    assert kept.since(1).series["bytes"] == [12.0]


def test_who_does_not_answer_is_left_out_and_catches_up() -> None:
    kept = history()
    kept.add(0.0, {1: {"read": 0}, 2: {"read": 0}})
    kept.add(1.0, {1: {"read": 10}})
    kept.add(2.0, {})
    kept.add(3.0, {1: {"read": 40}, 2: {"read": 90}})
    assert kept.since(1).series["bytes"] == [10.0, None, 15.0 + 30.0]
    assert kept.rates == {1: {"read": 15.0}, 2: {"read": 30.0}}


def test_a_daemon_without_work_does_nothing_which_is_not_the_same_as_unknown() -> None:
    kept = history()
    kept.add(0.0, {1: {}})
    kept.add(1.0, {1: {}})
    assert kept.since(0).series["bytes"] == [None, 0.0]
    assert kept.since(0).series["each_ms"] == [None, None], "there is no mean of nothing"


def test_a_mean_is_over_what_was_done_since() -> None:
    kept = history()
    kept.add(0.0, {1: {"spent_us": 1_000_000, "done": 1000}, 2: {"spent_us": 0, "done": 0}})
    kept.add(1.0, {1: {"spent_us": 1_003_000, "done": 1001}, 2: {"spent_us": 1000, "done": 1}})
    assert kept.since(1).series["each_ms"] == [2.0]


def test_sources_that_were_asked_for_whole_tell_all_their_rates() -> None:
    kept = history()
    kept.add(0.0, {META: {"rpc_open_calls": 1}}, whole=(META,))
    kept.add(2.0, {META: {"rpc_open_calls": 5}}, whole=(META,))
    assert kept.rates == {META: {"rpc_open_calls": 2.0}}


def test_two_readings_at_one_time_give_no_rate() -> None:
    kept = history()
    kept.add(1.0, {1: {"read": 1}})
    kept.add(1.0, {1: {"read": 9}})
    assert kept.since(1).series["bytes"] == [None]


def test_memory_is_bounded() -> None:
    kept = history(samples_max=5, span_s=3.0)
    for second in range(12):
        kept.add(float(second), {second: {"read": second}, 99: {"read": second}})
    piece = kept.since(0)
    assert kept.taken == 12
    assert piece.first == 7 and piece.at_s == [7.0, 8.0, 9.0, 10.0, 11.0]
    assert all(len(values) == 5 for values in piece.series.values())
    assert set(kept._readings) == {8, 9, 10, 11, 99}
    assert all(len(ring) == 5 for ring in kept._values.values())


def test_who_has_seen_all_gets_nothing() -> None:
    kept = history()
    kept.add(0.0, {})
    assert kept.since(1).at_s == [] and kept.since(7).at_s == []


@given(st.lists(st.dictionaries(st.integers(1, 3), st.integers(0, 50), max_size=3), max_size=20), st.integers(1, 6))
def test_no_rate_is_negative_and_every_sample_has_its_number(rounds: list[dict[int, int]], samples_max: int) -> None:
    kept = history(samples_max)
    for second, counters in enumerate(rounds):
        kept.add(float(second), {source: {"read": count} for source, count in counters.items()})
    piece = kept.since(0)
    assert piece.first + len(piece.at_s) == kept.taken == len(rounds)
    assert all(value is None or value >= 0 for value in piece.series["bytes"])
    assert piece.at_s == [float(second) for second in range(piece.first, len(rounds))]


@pytest.mark.parametrize("seed", range(5))
def test_what_is_drawn_adds_up_to_what_was_counted(seed: int) -> None:
    random_ = random.Random(seed)
    kept = history(samples_max=100, span_s=1000.0)
    count, at_s = 0, 0.0
    kept.add(at_s, {1: {"read": count}})
    for _ in range(50):
        at_s += random_.choice((1.0, 2.5, 7.0))
        count += random_.randrange(100)
        kept.add(at_s, {1: {"read": count}} if random_.random() < 0.7 else {})
    if kept.since(50).series["bytes"] == [None]:
        kept.add(at_s + 1, {1: {"read": count}})
    # A share that came late is spread over the time since the reading before it.
    piece = kept.since(0)
    total, last_s = 0.0, 0.0
    for moment_s, value in zip(piece.at_s, piece.series["bytes"], strict=True):
        if value is not None:
            total += value * (moment_s - last_s)
            last_s = moment_s
    assert total == pytest.approx(count)
