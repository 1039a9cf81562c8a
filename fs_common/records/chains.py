"""What the cluster manager tells of chains, and what an operator asks of them.

Which metadata server is the manager is asked by calling: another one answers NOT_MANAGER.
"""

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


class ListChains(msgspec.Struct, frozen=True, array_like=True):
    chains: list[int] = []
    """Empty: all."""
    degraded: bool = False
    """Only those with a target that is not SERVING and able."""


class ListChainsReply(msgspec.Struct, frozen=True, array_like=True):
    routing_version: int
    chains: list[ChainView]
    resting: bool
    """The cluster is taken down, or comes back from that: no chain changes."""


class RotateChain(msgspec.Struct, frozen=True, array_like=True):
    """The survivors of a chain that are dead are given up: nobody else is able, and the chain serves nothing."""

    chain: int
    accept_loss: bool = False
    """False: only say what would be lost."""
    target: int = 0
    """Who is to serve, where no survivor is alive; 0: the first on the chain that is alive."""


class RotateChainReply(msgspec.Struct, frozen=True, array_like=True):
    chain: Chain
    """As it is then, or would be."""
    given_up: list[int]
    """Targets whose updates are given up."""
    loses: str
    """What that may lose, in words."""


class Rest(msgspec.Struct, frozen=True, array_like=True):
    """The whole cluster is about to be taken down: no chain changes until it is back."""
