"""Routing: who is in the cluster and which targets form each chain. One version number covers all of it."""

import enum
from typing import Final

import msgspec

ROUTING_WAIT_MS_MAX: Final = 10_000
"""Of `GetRouting.wait_ms`: clients that are gone without a word leave nothing behind for longer."""


class NodeState(enum.IntEnum):
    UP = 1
    FAILED = 2
    """No heartbeat for the failure time, or its process is provably gone."""
    LEFT = 3
    """Said goodbye."""


class PublicState(enum.IntEnum):
    """What the manager says a target may do."""

    SERVING = 1
    """Reads and writes."""
    LASTSRV = 2
    """The last one that served; nobody serves now."""
    SYNCING = 3
    """Takes writes while its predecessor fills it up."""
    WAITING = 4
    """Alive, waits for its turn to sync."""
    OFFLINE = 5


class LocalState(enum.IntEnum):
    """What a target says of itself."""

    UPTODATE = 1
    """It has every acknowledged write of its chain, as of the chain version that it names."""
    ONLINE = 2
    """Alive, and may have missed something or lost it."""
    OFFLINE = 3
    """It serves nothing, and will not by itself."""
    OPENING = 4
    """Its store is being opened: it cannot say yet."""


class StoreVerdict(enum.IntEnum):
    """What is to become of the store of a target. It serves nothing before SERVE."""

    FORMAT = 1
    """The target never had one: make it."""
    SERVE = 2
    """It is the one that the manager knows, and newer than what the manager knows of it."""
    FOREIGN = 3
    """The manager knows another one, or it was lost: it serves nothing."""
    ROLLED_BACK = 4
    """An old copy was put back: its chain makes it whole before it serves."""
    RETIRE = 5
    """It is being taken from its chain: it stops serving, and says OFFLINE from then on."""


class NodeInfo(msgspec.Struct, frozen=True, array_like=True):
    node: int
    host: str
    port: int
    """Data plane."""
    state: NodeState
    capacity_bytes: int = 0
    used_bytes: int = 0
    release: str = ""
    drained: bool = False
    """It gets no targets, and those that it had move away."""


class ChainTarget(msgspec.Struct, frozen=True, array_like=True):
    target: int
    node: int
    state: PublicState


class Chain(msgspec.Struct, frozen=True, array_like=True):
    """Targets in chain order: head first."""

    chain: int
    version: int
    """Grows by one at every change of the list or of a state."""
    targets: list[ChainTarget]


class ChainTable(msgspec.Struct, frozen=True, array_like=True):
    table: int
    version: int
    chains: list[int]


class Routing(msgspec.Struct, frozen=True, array_like=True):
    version: int
    cluster: str
    nodes: list[NodeInfo]
    chains: list[Chain]
    tables: list[ChainTable]
    replicas: int = 0


class GetRouting(msgspec.Struct, frozen=True, array_like=True):
    known_version: int = 0
    """Answered without a routing when it is still current."""
    wait_ms: int = 0
    """How long the answer may be held back while it is: it comes as soon as there is a newer one. The server waits
    `ROUTING_WAIT_MS_MAX` at most; one of an older release answers at once."""
    partial: bool = False
    """The answer may be what has changed since `known_version`."""


class GetRoutingReply(msgspec.Struct, frozen=True, array_like=True):
    routing: Routing | None
    based_on: int = 0
    """0: it is whole. Else it is what has changed since that version (`fs_common/routing_changes.py`)."""


class EncodedRoutingReply(msgspec.Struct, frozen=True, array_like=True):
    """The same as `GetRoutingReply` on the wire, for a sender that has encoded the routing before."""

    routing: msgspec.Raw
    based_on: int = 0
