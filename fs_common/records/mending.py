"""What replicas of a chain tell each other so that one which may have lost something gets it back.

Answered by replicas that are not whole themselves, too: after a power cut of all of them each has some of it.
"""

import msgspec


class HeldChunk(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a replica has of a chunk. Where a version is 0 its other fields mean nothing."""

    chunk: bytes
    version: int
    """Committed."""
    digest: int
    length: int
    removed: bool
    chunk_size: int
    pending_version: int
    pending_digest: int
    pending_length: int
    pending_removed: bool
    pending_chunk_size: int


class ListHeld(msgspec.Struct, frozen=True, array_like=True):
    chain: int
    chain_version: int
    after: bytes
    """Chunk id; b"" at first."""
    limit: int
    target: int = 0
    """That asks."""


class ListHeldReply(msgspec.Struct, frozen=True, array_like=True):
    chunks: list[HeldChunk]
    """Ascending, removals included. Fewer than `limit`: there are no more."""
    whole: bool
    """This replica has lost nothing."""
    floor: int
    """No removal that it has forgotten had a higher version."""
    opening: int = 0
    """Of its store."""
    serving: bool = False
    """Its daemon serves clients just now."""


class RememberedAnswer(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The answer to the last update of a channel."""

    client: bytes
    channel: int
    sequence: int
    chunk: bytes
    version: int
    length: int
    committed: bool = True
    """False: the update is pending, or (version 0) was dropped."""


class ListRemembered(msgspec.Struct, frozen=True, array_like=True):
    chain: int
    chain_version: int
    after: bytes
    limit: int
    every: bool = False
    """Also of updates that are not committed."""


class ListRememberedReply(msgspec.Struct, frozen=True, array_like=True):
    answers: list[RememberedAnswer]
    next: bytes
    """`after` of the next request; b"": there are no more."""


class PullVersion(msgspec.Struct, frozen=True, array_like=True):
    """The bytes of one version of a chunk."""

    chain: int
    chain_version: int
    chunk: bytes
    digest: int
    """It has to be this one."""
    pending: bool


class PullVersionReply(msgspec.Struct, frozen=True, array_like=True):
    """The payload is the whole chunk."""

    lengths: list[int]
    """One: the chunk's."""
    checksums: bytes
    """Of the payload: for each page, or one for all."""
    client: bytes
    """Of a pending version, with the next two: the update that made it."""
    channel: int
    sequence: int
