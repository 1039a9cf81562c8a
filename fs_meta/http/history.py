"""What the cluster did over the last hour: a ring of samples. Pure: times and readings come in.

A *reading* is what one process (a source) has counted since its start; a *sample* is what all of them did between their
last readings and these, in units a second. Rates are made here, once, so everybody who looks sees the same figures.

Invariants:

* Memory is bounded: `samples_max` numbers for each series, one reading for each source, and a source that was not read
  for `span_s` is forgotten.
* No rate is negative. A process whose counters went back has started anew, and has counted all of it since: what it did
  between the last reading and its end is not known, and left out.
* What nobody could tell is None, not 0: sources that did not answer are left out of a sum, and a sum of none is None. A
  source that answers again after a while has its share spread over that while.
* Times are of one monotonic clock. A gap between samples (a process that was stopped) stays one.

Called by: `sampling`.
"""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from math import isnan, nan
from typing import NamedTuple

Source = int
"""A node's id; 0: the metadata server."""
META: Source = 0


class Rate(NamedTuple):
    """How much a second: the sum of these counters, of all sources that have one of them."""

    counters: tuple[str, ...]


class Mean(NamedTuple):
    """How much each time: the sum of some counters over the sum of others, of what happened since the last sample."""

    totals: tuple[str, ...]
    counts: tuple[str, ...]
    scale: float = 1.0
    """What one unit of `totals` is, in the series' unit."""


class Level(NamedTuple):
    """What is given with each sample."""


class Piece(NamedTuple):
    """Consecutive samples."""

    first: int
    """Number of the first one; every sample ever taken has one, from 0."""
    at_s: list[float]
    series: dict[str, list[float | None]]
    """As long as `at_s` each."""


class _Reading(NamedTuple):
    at_s: float
    counters: Mapping[str, int]


class History:
    def __init__(
        self,
        series: Mapping[Source | None, Mapping[str, Rate | Mean | Level]],
        *,
        samples_max: int,
        span_s: float,
    ) -> None:
        """`series`: by name, of the metadata server (`META`) and of all other sources together (None)."""
        self._series = {name: (source, how) for source, some in series.items() for name, how in some.items()}
        self._samples_max = samples_max
        self._span_s = span_s
        self.taken = 0
        """Samples ever."""
        self._at_s = array("d")
        self._values = {name: array("d") for name in self._series}
        """Rings: sample n is at n mod `samples_max`; nan: None."""
        self._readings: dict[Source, _Reading] = {}
        self.rates: dict[Source, dict[str, float]] = {}
        """What each source that answered did in the last sample: rates by counter."""
        self._wanted = {
            source: frozenset(
                counter for name, (of, how) in self._series.items() if of == source for counter in _counters_of(how)
            )
            for source in (META, None)
        }

    def add(
        self,
        at_s: float,
        readings: Mapping[Source, Mapping[str, int]],
        levels: Mapping[str, float] | None = None,
        *,
        whole: Iterable[Source] = (),
    ) -> None:
        """Take a sample. `readings`: of those that answered. `whole`: sources whose every counter gets a rate in
        `rates`, also those that no series has."""
        keep_all = set(whole)
        changes: dict[Source, tuple[float, dict[str, int]]] = {}
        self.rates = {}
        for source, counters in readings.items():
            if source not in keep_all:
                wanted = self._wanted[META if source == META else None]
                counters = {name: value for name, value in counters.items() if name in wanted}
            before = self._readings.get(source)
            self._readings[source] = _Reading(at_s, counters)
            if before is None or at_s <= before.at_s:
                continue
            elapsed_s = at_s - before.at_s
            change = _change(before.counters, counters)
            changes[source] = (elapsed_s, change)
            self.rates[source] = {name: amount / elapsed_s for name, amount in change.items()}
        for source in [s for s, reading in self._readings.items() if at_s - reading.at_s > self._span_s]:
            del self._readings[source]
        self._put(at_s, changes, levels or {})

    def _put(
        self, at_s: float, changes: Mapping[Source, tuple[float, dict[str, int]]], levels: Mapping[str, float]
    ) -> None:
        own = _Together(changes[source] for source in changes if source == META)
        others = _Together(changes[source] for source in changes if source != META)
        place = self.taken % self._samples_max
        _store(self._at_s, place, at_s)
        for name, (source, how) in self._series.items():
            some = own if source == META else others
            match how:
                case Rate(counters):
                    value = some.rate(counters)
                case Mean(totals, counts, scale):
                    value = some.mean(totals, counts, scale)
                case Level():
                    value = levels.get(name)
            _store(self._values[name], place, nan if value is None else value)
        self.taken += 1

    def since(self, number: int) -> Piece:
        """The samples from `number` on that are kept."""
        kept = min(self.taken, self._samples_max)
        first = max(number, self.taken - kept)
        places = [n % self._samples_max for n in range(first, self.taken)]
        return Piece(
            first,
            [self._at_s[place] for place in places],
            {name: _seen(values, places) for name, values in self._values.items()},
        )


def _counters_of(how: Rate | Mean | Level) -> tuple[str, ...]:
    match how:
        case Rate(counters):
            return counters
        case Mean(totals, counts):
            return totals + counts
        case Level():
            return ()


def _change(before: Mapping[str, int], now: Mapping[str, int]) -> dict[str, int]:
    """How much each counter grew. If one went back the process is another one: all have counted from 0."""
    if any(now.get(name, 0) < value for name, value in before.items()):
        return dict(now)
    return {name: value - before.get(name, 0) for name, value in now.items()}


class _Together:
    """What some sources did since their readings before, by counter: added up once, for all series."""

    def __init__(self, changes: Iterable[tuple[float, dict[str, int]]]) -> None:
        self._rates: dict[str, float] = {}
        self._amounts: dict[str, int] = {}
        self._sources = 0
        for elapsed_s, change in changes:
            self._sources += 1
            for name, amount in change.items():
                self._rates[name] = self._rates.get(name, 0.0) + amount / elapsed_s
                self._amounts[name] = self._amounts.get(name, 0) + amount

    def rate(self, counters: tuple[str, ...]) -> float | None:
        # A process that answers and lacks a counter has never had to count it.
        return sum(self._rates.get(name, 0.0) for name in counters) if self._sources else None

    def mean(self, totals: tuple[str, ...], counts: tuple[str, ...], scale: float) -> float | None:
        times = sum(self._amounts.get(name, 0) for name in counts)
        return scale * sum(self._amounts.get(name, 0) for name in totals) / times if times else None


def _store(ring: "array[float]", place: int, value: float) -> None:
    if place == len(ring):
        ring.append(value)
    else:
        ring[place] = value


def _seen(ring: "array[float]", places: Sequence[int]) -> list[float | None]:
    return [None if isnan(value := ring[place]) else value for place in places]
