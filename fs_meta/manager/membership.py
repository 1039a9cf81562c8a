"""Who is in the cluster: what each node said last, and when it counts as failed. Pure: time is an argument.

All times are ms of one clock, the manager's own monotonic one. Nothing here compares clocks of two machines.

Invariants:

* Under one node id at most one process (incarnation) is UP. A second one is refused while the first may be alive,
  so that no node's lease is ever held by two processes.
* A node is failed only when it cannot hold a lease any more (`failure_ms` of silence is more than the lease), or when
  its process is provably gone: it has no stream to the manager, and its data port refuses connections or has been
  bound by a new process (a daemon binds its port before its first heartbeat, and alone).
* A process that has left, or whose node another process has taken over, does not come back.
"""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from fs_common.errors import Code, EmberError
from fs_common.records.chains import SyncProgress
from fs_common.records.cluster_config import NO_REPORT, ConfigReport
from fs_common.records.routing import NodeInfo, NodeState
from fs_meta.manager.chains import Report
from fs_meta.manager.records import Node
from fs_meta.manager.stores import Judged, StoreReport

NO_STORES: Mapping[int, StoreReport] = {}

HOST_LENGTH_MAX = 253
"""Of a name in the DNS."""
_HOST_NAME = re.compile(
    r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.?"
)
"""Labels of 1 to 63 letters, digits, hyphens and underscores; other alphabets are written in these (xn--...)."""


class Identity(NamedTuple):
    """Which process speaks for which node."""

    node: int
    host: str
    port: int
    """Data plane."""
    release: str
    incarnation: int
    """Random, made when the process starts; never 0. Told to nobody: who knows it speaks for the node."""


@dataclass(slots=True)
class Member:
    """One node."""

    identity: Identity
    state: NodeState
    heard_ms: int
    """When its last heartbeat arrived; for a node known from the store, when this manager started."""
    capacity_bytes: int = 0
    used_bytes: int = 0
    targets: dict[int, "TargetReport"] = field(default_factory=dict)
    """By target id; of the last heartbeat. Empty unless UP."""
    judged: dict[int, Judged] = field(default_factory=dict)
    """By target id: what became of the stores of the last heartbeat."""
    beat: int = 0
    """Which heartbeat of all its last one was (`Membership.beats`); 0: this manager has not heard it."""
    routing_version: int = 0
    """The newest it has said it has."""
    sent_ms: int = 0
    """When its last heartbeat was sent, on the clock of its process."""
    streams: int = 0
    """Heartbeat streams of this incarnation that are open. 0 while UP: its stream broke, or this manager is new."""
    replaced: frozenset[int] = frozenset()
    """Incarnations that had the node id before."""
    drained: bool = False
    """It gets no targets, and those that it had move away."""
    config: ConfigReport = NO_REPORT
    """Of the last heartbeat."""

    def info(self) -> NodeInfo:
        return NodeInfo(
            node=self.identity.node,
            host=self.identity.host,
            port=self.identity.port,
            state=self.state,
            capacity_bytes=self.capacity_bytes,
            used_bytes=self.used_bytes,
            release=self.identity.release,
            drained=self.drained,
        )

    def record(self) -> Node:
        """What the store keeps of it."""
        who = self.identity
        return Node(
            who.node, who.host, who.port, self.state, who.incarnation, self.capacity_bytes, who.release, self.drained
        )


class TargetReport(NamedTuple):
    report: Report
    used_bytes: int
    trouble: str = ""
    """One line: why it does not serve, and will not by itself."""
    sync: SyncProgress | None = None
    """Of its successor, which it fills up."""


class Beat(NamedTuple):
    """The changing part of a heartbeat."""

    capacity_bytes: int
    used_bytes: int
    targets: Mapping[int, TargetReport]
    routing_version: int
    stores: Mapping[int, StoreReport] = NO_STORES
    """By target id."""
    sent_ms: int = 0
    """On the clock of the process that sends it, which no other clock is compared with."""
    config: ConfigReport = NO_REPORT
    """How it stands to the cluster's configuration."""


class Membership:
    """All nodes. Methods change state and raise nothing but what they name."""

    def __init__(self, lease_ms: int, failure_ms: int) -> None:
        self.lease_ms = lease_ms
        self.failure_ms = failure_ms
        self.members: dict[int, Member] = {}
        self.forgotten: set[int] = set()
        """Nodes that are not listed any more: their ids are not used again."""
        self.beats = 0
        """Heartbeats taken, from 1: what was heard before what."""

    def restore(self, node: Node, now_ms: int) -> None:
        """A node from the store. When it was heard last is not known, so it gets a whole `failure_ms` from now."""
        if node.forgotten:
            self.forgotten.add(node.node)
            return
        identity = Identity(node.node, node.host, node.port, node.release, node.incarnation)
        self.members[node.node] = Member(identity, node.state, now_ms, node.capacity_bytes, drained=node.drained)

    def heartbeat(self, identity: Identity, beat: Beat, now_ms: int) -> Member:
        """Take a heartbeat; the first one registers the node.

        One that a process sent before another one that was taken is late, on a connection that was given up: it is
        refused, as what it says has changed since, and was answered so.

        Raises NODE_TAKEN, NODE_UNKNOWN (the process has left), INVALID, CLOSING (it is late).
        """
        _check_identity(identity)
        if identity.node in self.forgotten:
            raise EmberError(
                Code.INVALID,
                f"node {identity.node} was taken out of the cluster: give this daemon a new node id; under `emberfs up`"
                f" remove its folder, storage-{identity.node}",
            )
        member = self.members.get(identity.node)
        if member is None:
            member = self.members[identity.node] = Member(identity, NodeState.UP, now_ms)
        elif member.identity.incarnation == identity.incarnation:
            if member.state is NodeState.LEFT:
                raise EmberError(
                    Code.NODE_UNKNOWN, f"node {identity.node} has left: its process ends, and is started again"
                )
            if beat.sent_ms < member.sent_ms:
                raise EmberError(Code.CLOSING, f"node {identity.node} has sent a newer heartbeat on another stream")
        else:
            self._check_free(member, identity)
            replaced = member.replaced | {member.identity.incarnation}
            member = Member(identity, NodeState.UP, now_ms, replaced=replaced, drained=member.drained)
            self.members[identity.node] = member
        self.beats += 1
        member.beat = self.beats
        member.identity = identity
        member.state = NodeState.UP
        member.heard_ms = now_ms
        member.sent_ms = beat.sent_ms
        member.capacity_bytes = beat.capacity_bytes
        member.used_bytes = beat.used_bytes
        member.targets = dict(beat.targets)
        member.judged = {}
        member.routing_version = beat.routing_version
        member.config = beat.config
        return member

    @staticmethod
    def _check_free(member: Member, identity: Identity) -> None:
        """Raise NODE_TAKEN unless the process that had the node id before is over."""
        old = member.identity
        if identity.incarnation in member.replaced:
            raise EmberError(Code.NODE_TAKEN, f"node {identity.node} was taken over by another process: stop this one")
        if member.state is not NodeState.UP:
            return
        if member.streams == 0 and (old.host, old.port) == (identity.host, identity.port):
            return  # two processes cannot both have bound the port
        raise EmberError(
            Code.NODE_TAKEN,
            f"node {identity.node} runs already at {old.host}:{old.port} (asked for by {identity.host}:"
            f"{identity.port}): stop that process, or give this one another node id",
        )

    def stream_opened(self, identity: Identity) -> None:
        """Directly after the stream's first heartbeat was taken."""
        member = self._same(identity)
        if member is not None:
            member.streams += 1

    def stream_closed(self, identity: Identity) -> None:
        member = self._same(identity)
        if member is not None:
            member.streams -= 1

    def suspects(self) -> list[Member]:
        """UP, but without a stream: worth a look at their data port."""
        return [member for member in self.members.values() if member.state is NodeState.UP and member.streams == 0]

    def gone(self, identity: Identity) -> bool:
        """The data port of this process refuses connections. True if that makes its node failed."""
        member = self._same(identity)
        if member is None or member.state is not NodeState.UP or member.streams:
            return False  # it came back while its port was looked at
        self._down(member, NodeState.FAILED)
        return True

    def expire(self, now_ms: int) -> list[Member]:
        """Fail the nodes that have been silent for `failure_ms`."""
        failed = [
            member
            for member in self.members.values()
            if member.state is NodeState.UP and now_ms - member.heard_ms >= self.failure_ms
        ]
        for member in failed:
            self._down(member, NodeState.FAILED)
        return failed

    def leave(self, identity: Identity) -> None:
        """The node says goodbye. Raises NODE_UNKNOWN, NODE_TAKEN (another process has the node by now)."""
        member = self.members.get(identity.node)
        if member is None:
            raise EmberError(Code.NODE_UNKNOWN, f"node {identity.node} is not registered")
        if member.identity.incarnation != identity.incarnation:
            raise EmberError(Code.NODE_TAKEN, f"node {identity.node} belongs to another process by now")
        self._down(member, NodeState.LEFT)

    def forget(self, node: int) -> None:
        """It is not listed any more, and does not come back."""
        del self.members[node]
        self.forgotten.add(node)

    @staticmethod
    def _down(member: Member, state: NodeState) -> None:
        member.state = state
        member.targets = {}
        member.judged = {}

    def _same(self, identity: Identity) -> Member | None:
        member = self.members.get(identity.node)
        return member if member is not None and member.identity.incarnation == identity.incarnation else None


def _check_identity(identity: Identity) -> None:
    if identity.node < 1:
        raise EmberError(Code.INVALID, f"node id {identity.node}: at least 1")
    if not identity.incarnation:
        raise EmberError(Code.INVALID, f"node {identity.node}: incarnation is 0")
    if not _is_host(identity.host):
        raise EmberError(
            Code.INVALID,
            f"node {identity.node}: host {identity.host[: 2 * HOST_LENGTH_MAX]!r} is neither an address nor a name: set"
            " `host` to what other machines reach it by",
        )
    if not 1 <= identity.port <= 65_535:
        raise EmberError(Code.INVALID, f"node {identity.node}: port {identity.port} is none of 1 to 65535")


def _is_host(host: str) -> bool:
    """Whether it can be asked for: everybody in the cluster will, and a name that is none fails in many ways."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return len(host) <= HOST_LENGTH_MAX and _HOST_NAME.fullmatch(host) is not None
    return True
