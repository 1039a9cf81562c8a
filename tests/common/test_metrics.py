"""Figures for Prometheus: documented, well-formed, and what was counted."""

import asyncio
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fs_common.http_server import LoopBridge
from fs_common.latency import Latency
from fs_common.metric_families import ALL, FAMILIES, RPC_CALLS, RPC_ERRORS, RPC_LATENCY, Family, Kind
from fs_common.metrics import BOUNDS_S, Figures, Metrics, gather_process, render
from fs_common.slow_operations import SlowOperations
from tests.support import run

ROOT = Path(__file__).resolve().parents[2]


def documented() -> dict[str, tuple[str, tuple[str, ...], tuple[str, ...], str]]:
    """Rows of the table of `docs/METRICS.md`, by name."""
    rows = {}
    for line in (ROOT / "docs" / "METRICS.md").read_text().splitlines():
        found = re.fullmatch(r"\| `(emberfs_\w+)` \| (\w+) \| (.*?) \| (.*?) \| (.+) \|", line)
        if found:
            name, kind, labels, processes, meaning = found.groups()
            assert name not in rows, name
            rows[name] = (kind, tuple(re.findall(r"`(\w+)`", labels)), tuple(processes.split(", ")), meaning)
    return rows


def test_every_figure_is_documented_and_nothing_else() -> None:
    there = {
        family.name: (family.kind.value, family.labels, family.processes, family.meaning)
        for family in FAMILIES.values()
    }
    assert documented() == there


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_names_follow_the_conventions(family: Family) -> None:
    assert re.fullmatch(r"emberfs_[a-z][a-z0-9_]*", family.name)
    assert family.name.endswith("_total") == (family.kind is Kind.COUNTER)
    assert not re.search(r"_(ms|us|ns|kb|mb|kib|mib|count|sum|bucket|milliseconds)(_|$)", family.name)
    if family.kind is Kind.HISTOGRAM:
        assert family.name.endswith("_seconds")
    assert family.processes and set(family.processes) <= set(ALL)
    assert all(re.fullmatch(r"[a-z_]+", label) and label != "le" for label in family.labels)


def test_all_counters_of_the_services_are_figures() -> None:
    """A counter that is added somewhere has a name for Prometheus."""
    from fs_common.metric_families import META_COUNTERS, STORAGE_COUNTERS

    for package, counters in (("fs_storage", STORAGE_COUNTERS), ("fs_meta", META_COUNTERS)):
        sources = "\n".join(path.read_text() for path in (ROOT / package).rglob("*.py"))
        added = set(re.findall(r"counters\.add\(\s*\"(\w+)\"", sources))
        assert added and added == set(counters)


def test_text_has_what_was_gathered() -> None:
    figures = Figures()
    latency = Latency()
    for elapsed_ns in (10, 40_000, 2**30 - 1, 10**12):
        latency.add(elapsed_ns)
    figures.add(RPC_CALLS, 7, "stat")
    figures.add(RPC_CALLS, 8, 'odd "name"\n\\')
    figures.add(RPC_ERRORS, 1, "stat", "NOT_FOUND")
    figures.add_latency(RPC_LATENCY, latency, "stat")
    found = {metric.name: metric for metric in text_string_to_metric_families(render(figures).decode())}
    calls = {sample.labels["method"]: sample.value for sample in found["emberfs_rpc_calls"].samples}
    assert calls == {"stat": 7, 'odd "name"\n\\': 8}
    assert found["emberfs_rpc_errors"].samples[0].labels == {"method": "stat", "code": "NOT_FOUND"}
    buckets = {
        sample.labels["le"]: sample.value
        for sample in found["emberfs_rpc_latency_seconds"].samples
        if sample.name.endswith("_bucket")
    }
    assert len(buckets) == len(BOUNDS_S) + 1
    assert list(buckets.values()) == sorted(buckets.values())
    assert buckets["3.2768e-05"] == 1 and buckets["6.5536e-05"] == 2 and buckets["1.07374182"] == 3
    assert buckets["+Inf"] == 4
    sums = [s.value for s in found["emberfs_rpc_latency_seconds"].samples if s.name.endswith("_sum")]
    assert sums == [pytest.approx(1001.0738, rel=1e-4)]
    assert "process_resident_memory_bytes" in found


def test_a_scrape_gathers_on_the_loop_that_has_the_figures() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        slow = SlowOperations(1)
        slow.note("read", 5_000_000, trace=0)

        def gather(figures: Figures) -> None:
            assert asyncio.get_running_loop() is loop
            gather_process(figures, role="meta", cluster="c", node=0, slow_operations=slow)

        async def gather_more(figures: Figures) -> None:
            figures.add(RPC_CALLS, 3, "stat")

        metrics = Metrics(LoopBridge(loop), [gather, gather_more])
        text, kind = await asyncio.to_thread(lambda: asyncio.run(call(metrics)))
        assert kind.startswith(b"text/plain; version=0.0.4")
        assert b'emberfs_rpc_calls_total{method="stat"} 3.0' in text
        assert b'emberfs_slow_operations_total{operation="read"} 1.0' in text
        assert b"emberfs_loop_delay_seconds" in text

    async def call(metrics: Metrics) -> tuple[bytes, bytes]:
        return await metrics()

    run(scenario())


def test_dashboards_rules_and_documents_ask_for_figures_that_there_are() -> None:
    places = [path for path in (ROOT / "deploy" / "monitoring").rglob("*") if path.suffix in (".json", ".yml", ".yaml")]
    names = {
        (path.name, name)
        for path in [*places, *(ROOT / "docs").glob("*.md")]
        for name in re.findall(r"\bemberfs_[a-z0-9_]+", path.read_text())
    }
    assert len(names) > 20
    shown = {
        f"{family.name}{suffix}"
        for family in FAMILIES.values()
        for suffix in (("", "_bucket", "_sum", "_count") if family.kind is Kind.HISTOGRAM else ("",))
    }
    assert not {(place, name) for place, name in names if name not in shown}
