"""What operators ask of targets and nodes: where replicas are, and what moves them.

A request with `dry_run` changes nothing and is answered with what it would do.
"""

import msgspec

from fs_common.records.chains import SyncProgress
from fs_common.records.cluster_config import NO_REPORT, ConfigReport
from fs_common.records.routing import NodeState


class NodeView(msgspec.Struct, frozen=True, array_like=True):
    node: int
    host: str
    port: int
    state: NodeState
    drained: bool
    """It gets no targets, and those that it has move away."""
    targets: int
    """On chains."""
    joining: int
    """Moves that bring a target here and are not over."""
    leaving: int
    capacity_bytes: int
    used_bytes: int
    release: str = ""
    silent_ms: int = 0
    """Since its last heartbeat; 0 when it is not UP."""
    routing_version: int = 0
    """The newest it has said it has."""
    config: ConfigReport = NO_REPORT
    """With the status as the manager sees it."""


class MoveView(msgspec.Struct, frozen=True, array_like=True):
    """A chain gets a target and gives one up."""

    move: int
    """0: it is not made (a dry run)."""
    chain: int
    joins: int
    """Target id; 0: none joins, or its id is not chosen yet."""
    node: int
    """Where it joins; 0: none joins."""
    leaves: int
    """Target id; 0: none leaves."""
    source: int
    """Where that one is; 0: none leaves, or it is gone."""
    cause: str
    """operator, rebalance, drain, lost."""
    state: str
    """queued, filling, leaving, done, cancelled."""
    doing: str
    """One line: what it does or waits for."""
    sync: SyncProgress | None = None
    """While it is filled up."""


class ListNodesReply(msgspec.Struct, frozen=True, array_like=True):
    nodes: list[NodeView]
    """By id."""
    next: int
    """Where the following page begins; 0: that was all."""
    replicas: int
    targets_per_node: int
    """As many as a node is meant to have."""
    config_version: int = 0
    """Of the configuration of storage daemons."""


class ListTargetsReply(msgspec.Struct, frozen=True, array_like=True):
    """Everything at once, inside the metadata server."""

    routing_version: int
    nodes: list[NodeView]
    moves: list[MoveView]
    """In the order in which they were made; the last that are over, too."""
    replicas: int
    targets_per_node: int
    """As many as a node is meant to have."""


class ListMovesReply(msgspec.Struct, frozen=True, array_like=True):
    moves: list[MoveView]
    """In the order in which they were made; the last that are over, too."""
    next: int


class AddTargets(msgspec.Struct, frozen=True, array_like=True):
    """Give a node targets: of chains that lack one first, then its share of the others'."""

    node: int
    dry_run: bool = False


class ReplaceTarget(msgspec.Struct, frozen=True, array_like=True):
    """A target whose disk is gone for good: a new one takes its place."""

    target: int
    node: int = 0
    """Where; 0: its own node if that is up, otherwise the one with the fewest targets."""
    dry_run: bool = False


class Drain(msgspec.Struct, frozen=True, array_like=True):
    """Move everything off a node, or one target off its node."""

    node: int = 0
    target: int = 0
    """Exactly one of both."""
    undo: bool = False
    """The node may have targets again; what has not moved stays."""
    dry_run: bool = False


class Rebalance(msgspec.Struct, frozen=True, array_like=True):
    """Spread targets over all nodes, and add the chains that a grown cluster has."""

    dry_run: bool = False


class CancelMoves(msgspec.Struct, frozen=True, array_like=True):
    moves: list[int] = []
    """Empty: all."""


class ForgetNode(msgspec.Struct, frozen=True, array_like=True):
    """A node that does not run and has no target is not listed any more. Its id stays used."""

    node: int


class MovesReply(msgspec.Struct, frozen=True, array_like=True):
    moves: list[MoveView]
    """That were made, would be made, or were cancelled."""
    new_chains: list[list[int]] = []
    """The nodes of each, head first."""
    least_moves: int = 0
    """What any plan has to move."""
    spread_before: float = 0.0
    """The most loaded survivor of a dead node, over the average one."""
    spread_after: float = 0.0
    spread_possible: float = 0.0
    """The least there can be."""
