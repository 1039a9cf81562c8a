"""What the console is told of the cluster: from an `Observation` to events, each a name and a value for JSON. Pure.

What is wrong and what helps is said in the words of `emberfs status` and `emberfs chains` (`fs_common.cluster_words`,
`fs_common.chain_words`). Events are small, or change rarely:

| event | what | how often it changes |
| --- | --- | --- |
| `cluster` | health in words, counts, space, what helps | with the state of nodes and chains |
| `nodes` | every node with its space, rates and silence | with every look |
| `chains` | those that have changed, and the ids of those that are gone | rarely; the first one has all |
| `moves`, `clients` | targets that move; who is connected | now and then |
| `slow` | operations that took long, of all processes; for administrators alone, as they name paths | when one was |
| `operations` | calls a second by operation, of this metadata server | with every sample |
| `samples` | the next points of the charts | with every sample; the first one has the last hour |
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from fs_common.chain_words import progress, seconds_left, state_of_chain, what_happens, what_helps
from fs_common.cluster_words import RESTING, note_of, state_of, what_is_missing
from fs_common.ids import shown_client
from fs_common.records.chains import ChainView, ListChainsReply, Standing
from fs_common.records.targets import MoveView
from fs_meta.http.history import META, Piece
from fs_meta.http.observing import INTERVAL_S, SPAN_S, Observation

HEALING_MAX: Final = 20
"""Chains whose words are part of `cluster`. Those of the others are with the chains themselves."""
MISSING_MAX: Final = 8
CLIENTS_MAX: Final = 500
MOVES_MAX: Final = 500
CHAINS_WITH_SPACE_MAX: Final = 100
"""With more chains, what each replica holds is left out: it changes all the time."""
_NO_CHAINS = ListChainsReply(0, [], False)


def events_of(seen: Observation) -> dict[str, Any]:
    """By name; without `samples`, and with all `chains`, by id: viewers are told what has changed."""
    words = state_of(seen.routing, seen.spaces)
    views = {view.chain: view for view in (seen.chains or _NO_CHAINS).chains}
    chains = {
        chain["chain"]: _chain(chain, views.get(chain["chain"]), len(words["chains"])) for chain in words["chains"]
    }
    return {
        "cluster": _cluster(seen, words, chains),
        "nodes": _nodes(seen, words),
        "moves": _moves(seen),
        "clients": _clients(seen),
        "operations": _operations(seen),
        "slow": _slow(seen),
        "chains": chains,
    }


def piece_of(piece: Piece, now_s: float) -> dict[str, Any]:
    """`samples`: their times are seconds before now, so that nobody's clock matters."""
    return {
        "first": piece.first,
        "interval_s": INTERVAL_S,
        "span_s": SPAN_S,
        "age_s": [round(now_s - at_s, 1) for at_s in piece.at_s],
        "series": {name: [_short(value) for value in values] for name, values in piece.series.items()},
    }


def _short(value: float | None) -> float | int | None:
    """Four digits are enough for a point of a chart."""
    if value is None:
        return None
    short = float(f"{value:.4g}")
    return int(short) if short.is_integer() else short


def _cluster(seen: Observation, words: dict[str, Any], chains: dict[int, dict[str, Any]]) -> dict[str, Any]:
    listed = seen.chains or _NO_CHAINS
    states = Counter(chain["state"] for chain in chains.values())
    missing = [] if words["healthy"] else what_is_missing(words)
    healing = [{"chain": view.chain, "what": lines} for view in listed.chains if (lines := what_happens(view))]
    nodes = words["nodes"]
    kept = [node for node in nodes if node["state"] != "left"]  # as statfs counts: a failed node's data is still there
    if words["healthy"]:
        health = "healthy"
    elif not chains:
        health = "starting"
    else:
        health = "offline" if states["offline"] else "degraded"
    return {
        "cluster": seen.routing.cluster,
        "health": health,
        "missing": missing[:MISSING_MAX],
        "missing_more": max(0, len(missing) - MISSING_MAX),
        "healing": healing[:HEALING_MAX],
        "healing_more": max(0, len(healing) - HEALING_MAX),
        "helps": what_helps(listed),
        "resting": RESTING if listed.resting else "",
        "manages": seen.chains is not None,
        "troubles": words["troubles"],
        "warnings": words["warnings"],
        "routing_version": seen.routing.version,
        "replicas": seen.routing.replicas,
        "inodes": seen.inodes,
        "clients": len(seen.clients),
        "nodes": len(nodes),
        "nodes_up": sum(node["state"] == "up" for node in nodes),
        "chains": len(chains),
        "chain_states": dict(states),
        "raw_capacity_bytes": sum(node["capacity_bytes"] for node in kept),
        "raw_free_bytes": sum(node["free_bytes"] for node in kept),
    }


def _nodes(seen: Observation, words: dict[str, Any]) -> list[dict[str, Any]]:
    chains = bool(words["chains"])
    nodes = []
    for node in words["nodes"]:
        rates = seen.rates.get(node["node"], {})
        nodes.append(
            {
                **node,
                "answers": node["node"] not in seen.unheard,
                "silent_ms": seen.silent_ms.get(node["node"]),
                "note": note_of(node, chains),
                "read_bytes": _rate(rates, "bytes_read"),
                "write_bytes": _rate(rates, "bytes_written"),
                "reads": _rate(rates, "reads"),
                "writes": _rate(rates, "updates_of_clients"),
            }
        )
    return nodes


def _rate(rates: Mapping[str, float], name: str) -> float | int | None:
    return _short(rates.get(name, 0.0)) if rates else None


def _chain(chain: dict[str, Any], view: ChainView | None, count: int) -> dict[str, Any]:
    """`view`: where it is not as it should be."""
    reasons = {target.target: target.reason for target in view.targets if target.reason} if view is not None else {}
    targets = []
    for target in chain["targets"]:
        shown: dict[str, Any] = {"target": target["target"], "node": target["node"], "state": target["state"]}
        if count <= CHAINS_WITH_SPACE_MAX and "used_bytes" in target:
            shown |= {"used_bytes": target["used_bytes"], "chunks": target["chunks"]}
        if target["target"] in reasons:
            shown["reason"] = reasons[target["target"]]
        targets.append(shown)
    value = {"chain": chain["chain"], "version": chain["version"], "state": chain["state"], "targets": targets}
    if view is None:
        return value
    value["state"] = state_of_chain(view)
    value["what"] = what_happens(view)
    by_id = {target["target"]: target for target in targets}
    for target in view.targets:
        shown = by_id.get(target.target, {})
        if target.standing is not Standing.ABLE:
            shown["standing"] = target.standing.name.lower()
        if target.sync is not None and target.sync.target in by_id:
            sync = target.sync
            by_id[sync.target]["fills"] = {
                "done": sync.chunks_done,
                "total": max(sync.chunks_total, sync.chunks_done),
                "bytes": sync.bytes_sent,
                "seconds_left": seconds_left(sync),
                "words": progress(sync),
            }
    return value


def _moves(seen: Observation) -> list[dict[str, Any]]:
    moves = seen.targets.moves if seen.targets is not None else []
    active = [move for move in moves if move.state not in ("done", "cancelled")]
    return [_move(move) for move in active[:MOVES_MAX]]


def _move(move: MoveView) -> dict[str, Any]:
    value: dict[str, Any] = {
        "move": move.move,
        "chain": move.chain,
        "joins": move.joins or None,
        "node": move.node or None,
        "leaves": move.leaves or None,
        "source": move.source or None,
        "cause": move.cause,
        "state": move.state,
        "doing": move.doing,
    }
    if move.sync is not None:
        value |= {"done": move.sync.chunks_done, "total": max(move.sync.chunks_total, move.sync.chunks_done)}
    return value


def _clients(seen: Observation) -> list[dict[str, Any]]:
    return [
        {
            "client": shown_client(client.client),
            "host": client.host,
            "pid": client.pid,
            "program": client.program,
            "kind": "mount" if client.mount else "program",
            "connections": client.connections,
            "for_s": int(seen.now_s - client.since_s),
            "holds": client.holds,
        }
        for client in seen.clients[:CLIENTS_MAX]
    ]


def _operations(seen: Observation) -> list[dict[str, Any]]:
    rates = seen.rates.get(META, {})
    found = []
    for name, rate in rates.items():
        if not name.startswith("rpc_") or not name.endswith("_calls"):
            continue
        operation = name.removeprefix("rpc_").removesuffix("_calls")
        errors = rates.get(f"rpc_{operation}_errors", 0.0)
        if rate or errors:
            found.append({"operation": operation, "calls": _short(rate), "errors": _short(errors)})
    return sorted(found, key=lambda operation: -(operation["calls"] or 0))


def _slow(seen: Observation) -> list[dict[str, Any]]:
    return [
        {
            "node": node or None,
            "operation": slow.operation,
            "ended_s": slow.ended_s,
            "took_ms": slow.took_ms,
            "trace": slow.trace,
            "about": slow.about,
            "times_ms": slow.times_ms,
            "peer": slow.peer,
            "error": slow.error,
        }
        for node, slow in seen.slow
    ]
