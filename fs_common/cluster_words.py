"""Whether a cluster is well, and what is missing, in words. Pure.

Used by: `emberfs status` and the console, so that both say the same.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from fs_common.quantities import counted
from fs_common.records.routing import NodeInfo, NodeState, PublicState, Routing
from fs_common.records.storage import SpaceInfoReply

RESTING = "the cluster rests: it was taken down as a whole, and no chain changes until its nodes are back"


def what_is_missing(value: dict[str, Any]) -> list[str]:
    """Of what `state_of` gives, where that is not healthy; the shortest first."""
    nodes = [f"node {node['node']} is {node['state']}" for node in value["nodes"] if node["state"] != "up"]
    chains = [f"chain {chain['chain']} is {chain['state']}" for chain in value["chains"] if chain["state"] != "serving"]
    targets = [f"target {trouble['target']} does not serve" for trouble in value["troubles"]]
    return nodes + targets + chains or ["there is no chain yet"]


def state_of(routing: Routing, spaces: Sequence[SpaceInfoReply | None]) -> dict[str, Any]:
    """Nodes, chains, troubles, and whether all is well. `spaces`: what each node of the routing answered; None:
    nothing. Part of the value of `emberfs status --json`."""
    nodes = [_node(node, found) for node, found in zip(routing.nodes, spaces, strict=True)]
    troubles = [
        {"target": trouble.target, "node": node.node, "reason": trouble.reason}
        for node, found in zip(routing.nodes, spaces, strict=True)
        if found is not None
        for trouble in found.troubles
    ]
    warnings = [
        {"target": warning.target, "node": node.node, "reason": warning.reason}
        for node, found in zip(routing.nodes, spaces, strict=True)
        if found is not None
        for warning in found.warnings
    ]
    out = {trouble["target"] for trouble in troubles}
    targets = {
        target.target: {"used_bytes": target.used_bytes, "chunks": target.chunks}
        for found in spaces
        if found is not None
        for target in found.targets
    }
    up = {node.node for node in routing.nodes if node.state == NodeState.UP}
    chains = []
    for chain in routing.chains:
        members = []
        alive = 0
        for t in chain.targets:
            serves = t.state == PublicState.SERVING and t.target not in out
            alive += serves and t.node in up
            state = "not serving" if t.target in out else t.state.name.lower()
            members.append({"target": t.target, "node": t.node, "state": state} | targets.get(t.target, {}))
        # A target that joins is one more than the chain is meant to have.
        wanted = min(routing.replicas or len(members), len(members))
        state = "serving" if alive >= wanted else "degraded" if alive else "offline"
        chains.append({"chain": chain.chain, "version": chain.version, "state": state, "targets": members})
    hosted = Counter(t.node for chain in routing.chains for t in chain.targets)
    for node, info in zip(nodes, routing.nodes, strict=True):
        node |= {"targets": hosted[info.node], "drained": info.drained}
    serving = bool(chains) and all(chain["state"] == "serving" for chain in chains)
    healthy = serving and not troubles and len(up) == len(nodes)
    return {"healthy": healthy, "nodes": nodes, "chains": chains, "troubles": troubles, "warnings": warnings}


def note_of(node: dict[str, Any], chains: bool) -> str:
    """What an operator should know of a node of `state_of`; "": nothing. `chains`: there are any."""
    if node["drained"]:
        left = counted(node["targets"], "target")
        return f"drained, {left} left" if node["targets"] else "drained: it can be stopped"
    if node["targets"] or not chains or node["state"] != "up":
        return ""
    return "not used yet: `emberfs rebalance` gives it targets"


def _node(node: NodeInfo, found: SpaceInfoReply | None) -> dict[str, Any]:
    return {
        "node": node.node,
        "address": f"{node.host}:{node.port}",
        "state": node.state.name.lower(),
        "answers": found is not None,
        "release": node.release,
        "capacity_bytes": node.capacity_bytes if found is None else found.capacity_bytes,
        "free_bytes": node.capacity_bytes - node.used_bytes if found is None else found.free_bytes,
    }
