"""What the cluster manager tells of chains."""

import enum

import msgspec

from fs_common.records.routing import Chain, PublicState


class Standing(enum.IntEnum):
    """How the manager sees a target (`docs/concurrency/chains.md`)."""

    ABLE = 1
    """Alive, and its store has everything that it ever acknowledged."""
    LACKING = 2
    """Alive, and its store may have lost something."""
    HELD = 3
    """Nobody knows yet: it opens its store, or its node was not heard since this manager began."""
    DEAD = 4
    """It serves nothing, or its node is failed or has left."""


class SyncProgress(msgspec.Struct, frozen=True, array_like=True):
    """How far a target has come with filling up its successor."""

    target: int
    """That is filled up."""
    chunks_done: int
    """Compared, and sent where they differed."""
    chunks_total: int
    """That the filling target has."""
    chunks_sent: int
    bytes_sent: int
    began_ms: int
    """How long ago."""


class TargetView(msgspec.Struct, frozen=True, array_like=True):
    target: int
    node: int
    state: PublicState
    standing: Standing
    reason: str
    """One line: why it is not able; "" for one that is."""
    used_bytes: int
    sync: SyncProgress | None
    """Of its successor, which it fills up."""


class ChainView(msgspec.Struct, frozen=True, array_like=True):
    chain: int
    version: int
    targets: list[TargetView]
    """Head first."""


class ListChainsReply(msgspec.Struct, frozen=True, array_like=True):
    routing_version: int
    chains: list[ChainView]
    resting: bool
    """The cluster is taken down, or comes back from that: no chain changes."""
    next: int = 0
    """Where the following page begins: after this chain; 0: that was all."""


class RotateChainReply(msgspec.Struct, frozen=True, array_like=True):
    chain: Chain
    """As it is then, or would be."""
    given_up: list[int]
    """Targets whose updates are given up."""
    loses: str
    """What that may lose, in words."""
