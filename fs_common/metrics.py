"""Figures of a process as text for Prometheus. The one place that imports `prometheus_client`.

A scrape takes two steps. On the process's loop the figures are *gathered* (`Figures`): numbers are copied, nothing
more. In the HTTP thread what takes longer is added, and they become text, together with what the operating system says
of the process.

Called by: the processes that serve `/metrics`.
"""

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from fs_common.http_server import LoopBridge
from fs_common.latency import Latency
from fs_common.metric_families import INFO, LOOP_DELAY, SLOW_OPERATIONS, Family, Kind
from fs_common.release import RELEASE
from fs_common.slow_operations import SlowOperations

if TYPE_CHECKING:
    from prometheus_client.core import Metric

BOUNDS_EXPONENTS = (*range(15, 31), 32, 34, 36)
"""Of the buckets that are shown: 33 microseconds to 1.07 s by factors of two, then 4.3, 17 and 69 s."""
BOUNDS_S = tuple(2**exponent / 1e9 for exponent in BOUNDS_EXPONENTS)
_BOUNDS_TEXT = tuple(f"{bound:.9g}" for bound in BOUNDS_S)

Labels = tuple[str, ...]


class Figures:
    """What was gathered at one moment."""

    def __init__(self) -> None:
        self.values: dict[Family, list[tuple[Labels, float]]] = {}
        self.latencies: dict[Family, list[tuple[Labels, list[int], int]]] = {}
        """Buckets of powers of two nanoseconds, and their sum in ns."""
        self._later: list[Callable[[Figures], None]] = []

    def add_later(self, fill: "Callable[[Figures], None]") -> None:
        """`fill(figures)` in the HTTP thread: it looks at what never changes, and takes longer than the loop has."""
        self._later.append(fill)

    def complete(self) -> None:
        """Do what was to be done in the HTTP thread."""
        later, self._later = self._later, []
        for fill in later:
            fill(self)

    def add(self, family: Family, value: float, *labels: object) -> None:
        """`labels`: in the order of the family's."""
        self.values.setdefault(family, []).append((tuple(map(str, labels)), value))

    def add_latency(self, family: Family, latency: Latency, *labels: object) -> None:
        self.add_buckets(family, latency.buckets, latency.total_ns, *labels)

    def add_buckets(self, family: Family, buckets: list[int], total_ns: int, *labels: object) -> None:
        """`buckets`: as those of `Latency`."""
        self.latencies.setdefault(family, []).append((tuple(map(str, labels)), buckets[:], total_ns))

    def add_counters(self, families: Mapping[str, Family], counters: Mapping[str, int]) -> None:
        """All of `families`, by the names of counters; those that were never counted are 0."""
        for name, family in families.items():
            self.add(family, counters.get(name, 0))


def gather_process(figures: Figures, *, role: str, cluster: str, node: int, slow_operations: SlowOperations) -> None:
    """What every process tells of itself."""
    figures.add(INFO, 1, role, cluster, node, RELEASE)
    for operation, count in slow_operations.counts.items():
        figures.add(SLOW_OPERATIONS, count, operation)


Gather = Callable[[Figures], Awaitable[None] | None]


class Metrics:
    """`/metrics` of one process; an instance is what `DaemonPages` calls."""

    def __init__(self, bridge: LoopBridge, gather: Iterable[Gather]) -> None:
        """`gather`: called on the process's loop, one after another."""
        self._bridge = bridge
        self._gather = tuple(gather)

    async def __call__(self) -> tuple[bytes, bytes]:
        """The text and its type. On the HTTP thread's loop. Raises as the bridge does."""
        asked_s = time.monotonic()
        figures: Figures = await self._bridge.call(partial(self._gathered, asked_s))
        figures.complete()
        return render(figures), CONTENT_TYPE

    async def _gathered(self, asked_s: float) -> Figures:
        figures = Figures()
        figures.add(LOOP_DELAY, time.monotonic() - asked_s)
        for gather in self._gather:
            awaited = gather(figures)
            if awaited is not None:
                await awaited
        return figures


CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


def render(figures: Figures) -> bytes:
    """As text, with what the system says of this process."""
    from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

    class Collector:
        def collect(self) -> "Iterable[Metric]":
            return metrics_of(figures)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector())
    ProcessCollector(registry=registry)
    text: bytes = generate_latest(registry)
    return text


def metrics_of(figures: Figures) -> "Iterable[Metric]":
    """In the library's words."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    for family, values in figures.values.items():
        made: CounterMetricFamily | GaugeMetricFamily
        if family.kind is Kind.COUNTER:
            made = CounterMetricFamily(family.name, family.meaning, labels=family.labels)
        else:
            made = GaugeMetricFamily(family.name, family.meaning, labels=family.labels)
        for labels, value in values:
            made.add_metric(labels, value)
        yield made
    for family, latencies in figures.latencies.items():
        histogram = HistogramMetricFamily(family.name, family.meaning, labels=family.labels)
        for labels, buckets, total_ns in latencies:
            histogram.add_metric(labels, shown_buckets(buckets), total_ns / 1e9)
        yield histogram


def shown_buckets(buckets: list[int]) -> list[tuple[str, float]]:
    """Cumulative, with their upper ends in seconds."""
    shown = []
    count = 0
    begin = 0
    for exponent, text in zip(BOUNDS_EXPONENTS, _BOUNDS_TEXT, strict=True):
        count += sum(buckets[begin : exponent + 1])
        begin = exponent + 1
        shown.append((text, float(count)))
    shown.append(("+Inf", float(count + sum(buckets[begin:]))))
    return shown
