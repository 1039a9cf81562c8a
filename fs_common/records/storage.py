"""Requests to storage daemons. Many small I/Os share one request; a chain or chunk that fails does not fail the others.

Payload of `ReadChunksReply` and `UpdateChunks`: the items' bytes one after another, in item order, `lengths[i]`
(or `items[i].length`) bytes each.

Checksums are CRC32C, packed little-endian uint32. A chunk is covered by pages of `limits.page_size(chunk_size)`
bytes, aligned to the chunk; a range is covered by one checksum for each piece of it that lies in one page (so the
first and last may be fragments). Where a field says "or one for all", a single checksum covers the whole range.
"""

import enum

import msgspec


class ReadItem(msgspec.Struct, frozen=True, array_like=True, gc=False):
    chain: int
    chain_version: int
    inode: int
    index: int
    """Chunk index within the file."""
    offset: int
    """Bytes within the chunk."""
    length: int
    """Bytes wanted, >= 1; offset + length <= chunk size."""
    chunk_size: int = 1 << 20


class ReadChunks(msgspec.Struct, frozen=True, array_like=True):
    items: list[ReadItem]


class ItemError(msgspec.Struct, frozen=True, array_like=True):
    index: int
    """Which item."""
    code: int
    message: str


class ReadChunksReply(msgspec.Struct, frozen=True, array_like=True):
    lengths: list[int]
    """Bytes returned for each item: fewer than wanted where the chunk ends, 0 for a failed item."""
    checksums: list[bytes]
    """For each item, over the bytes returned: for each page piece, or one for all."""
    errors: list[ItemError] = []
    """Only the items that failed. `CHUNK_NOT_FOUND` means the chunk has never been written."""


class UpdateKind(enum.IntEnum):
    WRITE = 1
    """Put `length` payload bytes at `offset`; a gap between the chunk's end and `offset` becomes zeros."""
    TRUNCATE = 2
    """Cut or extend with zeros to `offset` bytes. Creates a missing chunk. No payload."""
    REMOVE = 3
    """Remove the chunk; removing a missing one succeeds. No payload."""
    REPLACE = 4
    """Between replicas only: the chunk becomes the payload."""
    SCATTER = 5
    """From clients only: put bytes at several places of the chunk, as `records.scattered` lays out the payload. The
    head makes one WRITE of it, from the first place to the end of the last."""
    FORGET = 6
    """To a syncing replica only: the chunk is as if it had never been, its removal included. No payload."""


class UpdateItem(msgspec.Struct, frozen=True, array_like=True, gc=False):
    chain: int
    chain_version: int
    inode: int
    index: int
    kind: int
    """`UpdateKind`"""
    offset: int
    length: int
    """Payload bytes of this item; 0 for TRUNCATE and REMOVE."""
    chunk_size: int
    """The most bytes the chunk may have."""
    channel: int
    """With the request's client and `sequence`, the update's identity: a channel carries one update at a time."""
    sequence: int
    """Grows on a channel; a resend keeps it."""
    checksums: bytes = b""
    """Of the payload, for each page piece. Verified by every receiver."""
    durability: int = 0
    """`Durability`"""
    version: int = 0
    """0 from clients. From the predecessor: the version this update makes."""
    digest: int = 0
    """0 from clients. From the predecessor: what the version it makes has to be (`engine/digest`)."""
    base: int = 0
    """0 from clients. From the predecessor: digest of the committed version this one follows; 0: there is none, or it
    is a removal, so that any higher version may be made."""


class UpdateChunks(msgspec.Struct, frozen=True, array_like=True):
    client: bytes
    """`ClientId` of the client that made the updates; unchanged when forwarded."""
    items: list[UpdateItem]
    """All of one chain when forwarded; from clients, any chains whose head is the receiver. One update a chunk."""
    source: int = 0
    """0 from clients; the sender's target id when forwarded."""


class Holder(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A replica that has what it acknowledged, in memory at least. Once its store may have lost something it has
    another incarnation, and serves again only when its chain has given it what the other replicas had. `opening` and
    `recovered` show a store in whose place an old copy was put."""

    chain: int
    target: int
    incarnation: int
    """Of the target's store."""
    opening: int = 0
    """How often it was opened."""
    position: int = 0
    """How far its log has come: what the answer is about is at or before it."""
    recovered: int = 0
    """The position with which it was opened."""


class UpdateChunksReply(msgspec.Struct, frozen=True, array_like=True):
    versions: list[int]
    """The committed version each item made; 0 for a failed item."""
    lengths: list[int]
    """The chunk's length after it."""
    errors: list[ItemError] = []
    holders: list[Holder] = []
    """For each chain of which an item is stored: the receiver, and those behind it on the chain that are known to have
    stored all of them."""


class CommittedVersions(msgspec.Struct, frozen=True, array_like=True):
    """A replica asks the tail of a chain which versions are committed."""

    chain: int
    chain_version: int
    chunks: list[bytes]
    pending: bool = False
    """Asks any replica which versions are pending there instead."""


class CommittedVersionsReply(msgspec.Struct, frozen=True, array_like=True):
    versions: list[int]
    """0: no such chunk."""
    digests: list[int] = []
    """Of these versions; 0: no such chunk."""


class QueryLastChunk(msgspec.Struct, frozen=True, array_like=True):
    """Sent to the head: the last chunk of a file on one chain, all earlier updates of it included."""

    chain: int
    chain_version: int
    inode: int


class QueryLastChunkReply(msgspec.Struct, frozen=True, array_like=True):
    index: int
    """-1: no chunk of this file on this chain."""
    length: int
    chunks: int
    """How many there are."""
    total_bytes: int


class RemoveChunks(msgspec.Struct, frozen=True, array_like=True):
    """Sent to the head: remove up to `limit` chunks of a file with index >= `first`. Idempotent."""

    chain: int
    chain_version: int
    inode: int
    first: int
    limit: int
    client: bytes = b""
    sequence: int = 0
    """Grows with the client's requests; a resend keeps it. 0: the client does not count. A copy that comes after it was
    answered, or after a later request of the client for this file, removes nothing."""


class RemoveChunksReply(msgspec.Struct, frozen=True, array_like=True):
    removed: int
    more: bool


class RemoveFiles(msgspec.Struct, frozen=True, array_like=True):
    """Sent to the head: remove all chunks of many files. Idempotent."""

    chain: int
    chain_version: int
    inodes: list[int]
    """1 to `limits.REMOVE_FILES_MAX`."""
    client: bytes = b""


class RemoveFilesReply(msgspec.Struct, frozen=True, array_like=True):
    removed: int
    """Chunks."""
    finished: int
    """The first so many of the files have no chunk left on this chain; the rest is for another request."""


class ListChunks(msgspec.Struct, frozen=True, array_like=True):
    """Sent to the head: which chunks of a file with index >= `first` have data, ascending, all earlier updates
    included. At most `limit`."""

    chain: int
    chain_version: int
    inode: int
    first: int
    limit: int


class ListChunksReply(msgspec.Struct, frozen=True, array_like=True):
    indexes: list[int]
    lengths: list[int]
    """Bytes of each."""
    more: bool


class SyncChains(msgspec.Struct, frozen=True, array_like=True):
    """Sent to every serving replica of each chain: what it has acknowledged with durability `memory` is synced to its
    disk before the answer."""

    chains: list[int]
    chain_versions: list[int]


class SyncChainsReply(msgspec.Struct, frozen=True, array_like=True):
    holders: list[Holder] = []
    """The receiver's targets of these chains, as they were from before the sync until after it."""
    lineage: list[Holder] = []
    """Replicas as they were when they filled one of those targets up, or one that did, and so on: whatever each had
    acknowledged then, that target has."""


class SpaceInfo(msgspec.Struct, frozen=True, array_like=True):
    pass


class TargetSpace(msgspec.Struct, frozen=True, array_like=True):
    target: int
    chain: int
    capacity_bytes: int
    used_bytes: int
    chunks: int


class TargetTrouble(msgspec.Struct, frozen=True, array_like=True):
    """A target that does not serve, and will not by itself or not yet."""

    target: int
    reason: str
    """One line."""


class SpaceInfoReply(msgspec.Struct, frozen=True, array_like=True):
    capacity_bytes: int
    """Of the node's disks."""
    free_bytes: int
    targets: list[TargetSpace]
    """Those that are open."""
    troubles: list[TargetTrouble] = []
    warnings: list[TargetTrouble] = []
    """Targets that serve and want to be looked at: low on space, with damage that nobody could repair, differing."""


class WarmItem(msgspec.Struct, frozen=True, array_like=True, gc=False):
    chain: int
    chain_version: int
    inode: int
    index: int
    length: int
    """Bytes wanted, from the chunk's start; fewer where the chunk ends."""


class WarmChunks(msgspec.Struct, frozen=True, array_like=True):
    """Sent to any serving replica: read these chunks into the page cache of its node, and send nothing."""

    items: list[WarmItem]
    """1 to `limits.WARM_ITEMS_MAX`."""


class WarmChunksReply(msgspec.Struct, frozen=True, array_like=True):
    lengths: list[int]
    """Bytes of each item that were read; 0 for a failed one, and for one that is being written now: what is written is
    in memory."""
    errors: list[ItemError] = []
    """As those of `ReadChunksReply`."""
