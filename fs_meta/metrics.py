"""Figures of a metadata server for Prometheus, gathered from what its parts keep anyway.

Called by: `pages`, on the loop; `ChainFigures` in the HTTP thread. Names: `fs_common.metric_families`.
"""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from fs_common import metric_families as families
from fs_common.metrics import Figures
from fs_common.records.routing import Chain, NodeState, PublicState, Routing
from fs_common.service_metrics import gather_service
from fs_meta import schema
from fs_meta.kv.interface import KeyValueStore, Transaction
from fs_meta.kv.timings import Timings
from fs_meta.manager.manager import Manager
from fs_meta.manager.records import MoveState

if TYPE_CHECKING:
    from fs_meta.server import MetaServer

COUNTED_MAX = 1000
"""Records of the store that are counted at most."""
CHAINS_TOLD_MAX = 1000
"""Chains that do not serve with all replicas and are told one by one, at most."""
CHAIN_STATES = ("serving", "degraded", "offline")


async def gather_meta(
    figures: Figures, server: "MetaServer", manager: Manager, kv: KeyValueStore, chains: "ChainFigures"
) -> None:
    context = server.context
    gather_service(figures, server.data_plane)
    counters = server.data_plane.service.stats()
    figures.add_counters(families.META_COUNTERS, counters)
    for name, family in _LEVELS.items():
        figures.add(family, counters.get(name, 0))
    figures.add(families.MANAGER, manager.lease.held())
    _gather_routing(figures, manager.routing, chains)
    for node, age_s in manager.heartbeat_ages_s().items():
        figures.add(families.HEARTBEAT_AGE, age_s, node)
    moves = Counter(move.state for move in manager.move_watch.moves.values())
    for move_state in (MoveState.QUEUED, MoveState.FILLING, MoveState.LEAVING):
        figures.add(families.MOVES, moves[move_state], move_state.name.lower())
    await _gather_store(figures, kv, context.service_time.now_ns())


def _gather_routing(figures: Figures, routing: Routing, chain_figures: "ChainFigures") -> None:
    figures.add(families.ROUTING_VERSION, routing.version)
    nodes = Counter(node.state for node in routing.nodes)
    for node_state in NodeState:
        figures.add(families.NODES, nodes[node_state], node_state.name.lower())
    for node in routing.nodes:
        figures.add(families.NODE_UP, node.state is NodeState.UP, node.node)
        figures.add(families.CAPACITY, node.capacity_bytes, node.node)
        figures.add(families.USED, node.used_bytes, node.node)
    figures.add_later(partial(chain_figures.fill, chains=routing.chains))


class ChainFigures:
    """Chains and targets by state. Used in the HTTP thread alone: a cluster may have tens of thousands of chains, which
    the loop must not stop for. A list of chains never changes, and the next one has the same objects for those that are
    as they were: they are not looked at again."""

    def __init__(self) -> None:
        self._seen: Sequence[Chain] = ()
        self._chains: dict[int, Chain] = {}
        self._states: Counter[str] = Counter()
        self._targets: Counter[PublicState] = Counter()
        self._not_serving: dict[int, str] = {}

    def fill(self, figures: Figures, chains: Sequence[Chain]) -> None:
        if chains is not self._seen:
            self._look(chains)
            self._seen = chains
        for number in sorted(self._not_serving)[:CHAINS_TOLD_MAX]:
            figures.add(families.CHAIN_DEGRADED, 1, number, self._not_serving[number])
        for state in CHAIN_STATES:
            figures.add(families.CHAINS, self._states[state], state)
        for target_state in PublicState:
            figures.add(families.TARGETS, self._targets[target_state], target_state.name.lower())

    def _look(self, chains: Sequence[Chain]) -> None:
        known = self._chains
        changed = [chain for chain in chains if known.get(chain.chain) is not chain]
        if len(known) > len(chains) - sum(chain.chain not in known for chain in changed):
            for number in known.keys() - {chain.chain for chain in chains}:
                self._count(known.pop(number), -1)
        for chain in changed:
            if (before := known.get(chain.chain)) is not None:
                self._count(before, -1)
            known[chain.chain] = chain
            self._count(chain, 1)

    def _count(self, chain: Chain, number: int) -> None:
        state = state_of(chain)
        self._states[state] += number
        for target in chain.targets:
            self._targets[target.state] += number
        if number < 0:
            self._not_serving.pop(chain.chain, None)
        elif state != "serving":
            self._not_serving[chain.chain] = state


def state_of(chain: Chain) -> str:
    serving = sum(target.state is PublicState.SERVING for target in chain.targets)
    if not serving:
        return "offline"
    return "serving" if serving == len(chain.targets) else "degraded"


async def _gather_store(figures: Figures, kv: KeyValueStore, now_ns: int) -> None:
    async def look(txn: Transaction) -> tuple[int, list[tuple[bytes, bytes]]]:
        sessions = await txn.range(*schema.all_sessions_range(), COUNTED_MAX)
        return len(sessions), await txn.range(*schema.garbage_range(now_ns), COUNTED_MAX)

    sessions, due = await kv.read(look)
    figures.add(families.SESSIONS, sessions)
    figures.add(families.GC_DUE, len(due))
    lag_ns = now_ns - schema.split_garbage_key(due[0][0])[0] if due else 0
    figures.add(families.GC_LAG, max(lag_ns, 0) / 1e9)
    timings_of = getattr(kv, "timings", None)  # a store in memory has none
    if timings_of is not None:
        timings: Timings = timings_of()
        figures.add_latency(families.KV_TRANSACTION, timings.durable, "yes")
        figures.add_latency(families.KV_TRANSACTION, timings.relaxed, "no")
        figures.add_latency(families.KV_SYNC, timings.syncs)
        figures.add(families.KV_QUEUE, timings.waiting)
        figures.add(families.KV_JOURNAL, timings.journal_bytes)


_LEVELS = {
    "inodes_in_use": families.INODES,
    "clients": families.CLIENTS,
    "followers": families.FOLLOWERS,
    "promises": families.PROMISES,
    "routing_waits": families.ROUTING_WAITS,
}
"""By the name that `STATS` gives it."""
