"""What replicas are told about their stored bytes, and what they say of them."""

import msgspec


class SuspectChunk(msgspec.Struct, frozen=True, array_like=True, gc=False):
    chain: int
    inode: int
    index: int


class SuspectChunks(msgspec.Struct, frozen=True, array_like=True):
    """To a replica: bytes of these chunks that it sent did not match their checksums. It looks at what it has stored,
    and repairs that if need be; nothing is taken on the sender's word."""

    chunks: list[SuspectChunk]
    """1 to `limits.READ_ITEMS_MAX`."""


class Scrub(msgspec.Struct, frozen=True, array_like=True):
    """How far the scrub of a daemon's targets has come; and, with `start`, begin anew now."""

    start: bool = False
    chains: list[int] = []
    """Which ones to begin with; []: all."""
    bytes_per_s: int = 0
    """For the pass that begins; 0: as configured."""


class ScrubStatus(msgspec.Struct, frozen=True, array_like=True):
    """Of one target."""

    target: int
    chain: int
    number: int
    """Of the pass; 0: there was none yet."""
    running: bool
    began_s: float
    """By the daemon's clock, since the epoch."""
    ended_s: float
    """Of the last pass that was ended; 0: there was none."""
    chunks: int
    """Looked at in this pass."""
    chunks_total: int
    """In the store now."""
    bytes: int
    repaired: int
    """Chunks that were damaged and were repaired, in this pass."""
    damaged: list[str]
    """Chunks that are damaged now and could not be repaired: one line each, a hundred at most."""
    differing: list[str]
    """Chunks of which another replica has something else, at rest: the same."""
    not_compared: int = 0
    """Chunks that could not be compared with another replica in this pass, as it did not answer."""


class ScrubReply(msgspec.Struct, frozen=True, array_like=True):
    targets: list[ScrubStatus]
    now_s: float
    """By the daemon's clock."""


class RefillTarget(msgspec.Struct, frozen=True, array_like=True):
    """To the replica of a chain on this node: other replicas have shown that it lacks something, or has something else.
    It counts as one that may have lost something from now on: it serves nothing until its chain has given it what
    it lacks."""

    chain: int
    chain_version: int
