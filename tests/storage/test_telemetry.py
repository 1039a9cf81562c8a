"""What a chain of daemons tells of an operation: the same trace id on each replica, where its time went, figures."""

import asyncio
from pathlib import Path

from fs_common import tracing
from fs_common.metric_families import FAMILIES, STORAGE, STORAGE_COUNTERS, TARGET_STATE
from fs_common.metrics import Figures
from tests.storage.chain import chain_of, eventually
from tests.support import run


def test_an_update_has_its_trace_on_every_replica(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            slow = {node: daemon.service.slow_operations for node, daemon in chain.daemons.items()}
            for each in slow.values():
                each.threshold_ns = -1
            tracing.enter(0xBEEF)
            await chain.update(b"hello")
            tracing.enter(0)
            await chain.update(b"again")
            for node, each in slow.items():
                last, first = [one for one in each.snapshot() if one.operation == "update_chunks"]
                assert first.trace == "0000beef" and last.trace == "00000000", node
                assert first.about.endswith("chunk 0 chain 1")
                assert first.times_ms.keys() == {"queue", "disk", "forward"}
                assert (first.times_ms["forward"] > 0) == (node != chain.node(1, 2))

    run(scenario())


def test_an_update_that_waits_for_its_chunk_is_told_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            head = chain.daemons[chain.head(1)]
            head.service.slow_operations.threshold_ns = -1
            store = chain.store(1, 0)
            store.before_prepare.hold()
            first = asyncio.ensure_future(chain.update(b"first"))
            await eventually(lambda: chain.target(1, 0).in_flight == 1)
            tracing.enter(7)
            second = asyncio.ensure_future(chain.update(b"second"))
            tracing.enter(0)
            await eventually(lambda: chain.target(1, 0).in_flight == 2)
            store.before_prepare.release()
            await asyncio.gather(first, second)
            told = {one.trace: one for one in head.service.slow_operations.snapshot()}
            waited, held = told["00000007"], told["00000000"]
            assert waited.times_ms["queue"] > held.times_ms["queue"] and held.times_ms["disk"] > 0

    run(scenario())


def test_figures_of_a_daemon(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            await chain.update(b"hello")
            daemon = chain.daemons[chain.head(1)]
            figures = Figures()
            daemon.gather(figures)
            found = {**figures.values, **figures.latencies}
            assert all(STORAGE in family.processes and FAMILIES[family.name] is family for family in found)
            assert figures.values[STORAGE_COUNTERS["updates_of_clients"]] == [((), 1)]
            states = {labels[2] for labels, value in figures.values[TARGET_STATE] if value}
            assert states == {"serving"}

    run(scenario())
