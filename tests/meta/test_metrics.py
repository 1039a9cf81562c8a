"""Figures of a metadata server, of routing and store."""

from collections.abc import Iterator
from pathlib import Path

from fs_common import metric_families as families
from fs_common.metrics import Figures
from fs_common.records.routing import Chain, ChainTarget, NodeInfo, NodeState, PublicState, Routing
from fs_meta import schema
from fs_meta.kv.interface import Transaction
from fs_meta.kv.lmdb_engine import LmdbStore
from fs_meta.metrics import CHAINS_TOLD_MAX, ChainFigures, _gather_routing, _gather_store, state_of
from fs_meta.schema import FileType, Garbage
from tests.support import run

S, O, Y = PublicState.SERVING, PublicState.OFFLINE, PublicState.SYNCING


def chain(number: int, *states: PublicState) -> Chain:
    return Chain(number, 1, [ChainTarget(100 * node + number, node, state) for node, state in enumerate(states, 1)])


def test_chains_are_told_by_what_serves() -> None:
    assert state_of(chain(1, S, S)) == "serving"
    assert state_of(chain(1, S, Y)) == state_of(chain(1, O, S)) == "degraded"
    assert state_of(chain(1, O, PublicState.LASTSRV)) == "offline"


def test_the_routing_as_figures() -> None:
    nodes = [NodeInfo(1, "a", 1, NodeState.UP, 100, 40), NodeInfo(2, "b", 1, NodeState.FAILED, 100, 50)]
    chains = [chain(1, S, S), chain(2, S, O), chain(3, O, PublicState.LASTSRV)]
    figures = Figures()
    _gather_routing(figures, Routing(7, "c", nodes, chains, [], 2), ChainFigures())
    figures.complete()
    found = {family: dict(values) for family, values in figures.values.items()}
    assert found[families.ROUTING_VERSION] == {(): 7}
    assert found[families.NODES] == {("up",): 1, ("failed",): 1, ("left",): 0}
    assert found[families.NODE_UP] == {("1",): True, ("2",): False}
    assert found[families.USED] == {("1",): 40, ("2",): 50}
    assert found[families.CHAINS] == {("serving",): 1, ("degraded",): 1, ("offline",): 1}
    assert found[families.CHAIN_DEGRADED] == {("2", "degraded"): 1, ("3", "offline"): 1}
    assert found[families.TARGETS][("serving",)] == 3 and found[families.TARGETS][("offline",)] == 2


class Watched(list[Chain]):
    """Chains that know in how many passes over them each was looked at."""

    passes = 0

    def __iter__(self) -> Iterator[Chain]:
        self.passes += 1
        return super().__iter__()


def test_chains_are_looked_at_in_the_http_thread_once_for_each_change() -> None:
    chains = Watched([chain(number, S, S) for number in range(1, 2001)])
    seen = ChainFigures()

    def scrape(chains: list[Chain]) -> Figures:
        figures = Figures()
        _gather_routing(figures, Routing(7, "c", [], chains, [], 2), seen)
        return figures

    figures = scrape(chains)
    assert not chains.passes, "not on the loop"
    figures.complete()
    passes = chains.passes
    scrape(chains).complete()
    assert chains.passes == passes > 0

    def told(figures: Figures) -> tuple[dict[tuple[str, ...], float], dict[tuple[str, ...], float]]:
        figures.complete()
        found = figures.values
        return dict(found[families.CHAINS]), dict(found.get(families.CHAIN_DEGRADED, ()))

    # Some change, one comes, some go, one comes back: as if all had been counted anew.
    others = [*chains[:500], chain(501, S, O), *chains[501:1990], chain(1991, O, O), chain(3000, S, S)]
    for now in (others, list(chains), [], others):
        anew = Figures()
        ChainFigures().fill(anew, now)
        assert told(scrape(now)) == told(anew)
    assert told(scrape(others))[1] == {("501", "degraded"): 1, ("1991", "offline"): 1}
    many = [chain(number, S, O) for number in range(1, 2001)]
    states, degraded = told(scrape(many))
    assert states["degraded",] == 2000 and len(degraded) == CHAINS_TOLD_MAX


def test_the_store_as_figures(tmp_path: Path) -> None:
    second = 1_000_000_000

    async def scenario() -> None:
        kv = LmdbStore.open(tmp_path / "kv", map_size_bytes=1 << 26)
        try:

            async def fill(txn: Transaction) -> None:
                for due_s, inode in ((10, 5), (20, 6), (99, 7)):
                    garbage = schema.encode(Garbage(FileType.FILE, 0))
                    txn.put(schema.garbage_key(due_s * second, inode), garbage)
                txn.put(schema.session_key(5, bytes(16)), b"session")

            await kv.transact(fill)
            figures = Figures()
            await _gather_store(figures, kv, 30 * second)
        finally:
            await kv.close()
        found = {family: dict(values) for family, values in figures.values.items()}
        assert found[families.SESSIONS] == {(): 1}
        assert found[families.GC_DUE] == {(): 2} and found[families.GC_LAG] == {(): 20.0}
        assert found[families.KV_QUEUE] == {(): 0} and found[families.KV_JOURNAL][()] > 0
        durable = {labels: sum(buckets) for labels, buckets, _ in figures.latencies[families.KV_TRANSACTION]}
        assert durable == {("yes",): 1, ("no",): 0}
        assert sum(figures.latencies[families.KV_SYNC][0][1]) == 1

    run(scenario())
