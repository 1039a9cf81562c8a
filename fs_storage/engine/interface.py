"""The seam between replication and the chunk engine: one `ChunkStore` for each target.

The engine keeps, for each chunk, a committed version and at most one pending version, which is always the committed
one plus 1 (or a first version 1, or the version a REPLACE names). It knows nothing of chains, heads or tails.

Contract suite: `tests/storage/test_chunk_store.py` runs on every implementation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from fs_common.errors import EmberError
from fs_common.rpc import Part


class WouldBlock(Exception):
    """The bytes are not in the page cache: call `read_blocking` from a thread."""


class NoStore(Exception):
    """The target's directory is empty or not there: its store was never made, is lost, or its disk is not mounted."""


@dataclass(slots=True, frozen=True)
class ChunkState:
    """What the store knows of one chunk."""

    version: int
    """Committed version; 0: none was ever committed."""
    length: int
    """Committed bytes; 0 for a removed chunk."""
    removed: bool
    """The committed version is a removal; kept as a tombstone so that a late duplicate is recognised."""
    pending_version: int
    """0: nothing is pending."""
    pending_length: int
    chain_version: int
    """Of the chain when the newest version was prepared."""


@dataclass(slots=True)
class Update:
    """One change to prepare. `payload` belongs to the caller and is stable until `prepare` returns."""

    chunk: bytes
    """12 bytes, `ids.chunk_id`."""
    kind: int
    """`UpdateKind`"""
    offset: int
    """WRITE: where the payload goes. TRUNCATE: the new length. Otherwise 0."""
    payload: memoryview
    checksums: bytes
    """CRC32C of the payload for each page piece; verified against the payload before anything is stored."""
    chunk_size: int
    version: int
    """The version to make."""
    chain_version: int
    durability: int
    """`Durability`"""
    client: bytes
    channel: int
    sequence: int


class PendingUpdate(NamedTuple):
    """The update that made a chunk's pending version: what a replica needs to send it again after a restart."""

    version: int
    length: int
    """The chunk's length once it is committed."""
    removed: bool
    """It is a removal."""
    chunk_size: int
    client: bytes
    """With `channel` and `sequence`, the identity it was prepared under; b"", 0, 0: it has none."""
    channel: int
    sequence: int


class Prepared(NamedTuple):
    version: int
    length: int
    """The chunk's length once this version is committed."""


class Answer(NamedTuple):
    """The last update a (client, channel) made on this target."""

    sequence: int
    chunk: bytes
    version: int
    length: int
    committed: bool


class ChunkRead(NamedTuple):
    """One answered read. The sender calls `release` (if any) once `part` has been sent or dropped."""

    length: int
    """Bytes: fewer than asked where the chunk ends, 0 at or past its end."""
    checksums: bytes
    """Over those bytes: one for each page piece, or a single one for all of them."""
    part: Part
    """A slice of the caller's buffer, or a range of a block file."""
    release: Callable[[], None] | None


class LastChunk(NamedTuple):
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    """-1: none."""
    length: int
    chunks: int
    total_bytes: int


class Space(NamedTuple):
    capacity_bytes: int
    free_bytes: int
    used_bytes: int
    """In allocated blocks of this store."""
    chunks: int


class Held(NamedTuple):
    """What a store has of one chunk, by what replicas compare. No field has a meaning where its version is 0."""

    chunk: bytes
    version: int = 0
    """Committed; 0: none."""
    digest: int = 0
    length: int = 0
    removed: bool = False
    chunk_size: int = 0
    pending_version: int = 0
    pending_digest: int = 0
    pending_length: int = 0
    pending_removed: bool = False
    pending_chunk_size: int = 0


class Remembered(NamedTuple):
    """The answer to a channel's last update."""

    client: bytes
    channel: int
    sequence: int
    chunk: bytes
    version: int
    length: int
    committed: bool = True
    """False: the update is pending, or (version 0) was dropped."""


class Checked(NamedTuple):
    """What was found when a chunk's stored bytes were compared with their checksums."""

    version: int
    """The committed one, which was looked at."""
    digest: int
    length: int
    chunk_size: int
    bad_pages: tuple[int, ...]
    """Damaged or unreadable; (): all is well."""
    reason: str
    """Of the first of them."""


class ChunkStore(Protocol):
    """All methods are called on the event loop, except `read_blocking` and `check_stored`.

    A store says which one it is and whether it can be believed. Whoever replicates serves nothing from a store that is
    not `whole`: something that it acknowledged may be gone, until its chain has given it back.
    """

    identity: bytes
    """16 random bytes, made once with the store."""
    opening: int
    """How often it was opened: durably greater each time. A copy of the store that was put back is behind."""
    incarnation: int
    """Durably greater at each opening that may have lost something that was acknowledged, at `renew`, and at
    `declare_filled`."""
    whole: bool
    """Holds everything it ever acknowledged, or got it back. Durable."""
    low_space: str
    """Why it takes no new chunks (NO_SPACE), although there is some room; "": it takes them. Set by whoever watches
    over the disk: what is left is for updates of the chunks that are there, removals, and the store's own files."""
    recovered: int
    """Its position when it was opened. Less than it has had: it is an old copy."""

    @property
    def position(self) -> int:
        """How far its log has come, over all openings: whatever it has acknowledged is at or before it."""

    async def renew(self, opening: int, incarnation: int) -> None:
        """This is an old copy: elsewhere `opening` and `incarnation` are known of it. Both become greater than those,
        and it is not whole. Durable on return. Raises DISK_FAILED."""

    async def declare_whole(self) -> None:
        """Whatever was lost has been given back and is durable (the caller has called `sync`). Durable on return.
        Raises DISK_FAILED."""

    async def declare_filled(self) -> None:
        """`declare_whole` of a store that has what another one has, whatever it had itself: another incarnation. What
        it acknowledged before may be gone."""

    @property
    def floor(self) -> int:
        """At least the highest version of any removal that this store has forgotten. A chunk that has nothing here gets
        higher versions than that, so that no replica that remembers its removal takes them for old ones."""

    def state(self, chunk: bytes) -> ChunkState | None:
        """None: the chunk has never been heard of (or its tombstone is gone)."""

    def answer(self, client: bytes, channel: int) -> Answer | None:
        """For exactly-once: what this client's channel did last here. Survives restarts with the update itself.

        Updates without a client (b"") are not remembered.
        """

    def pending_update(self, chunk: bytes) -> PendingUpdate | None:
        """The update behind the chunk's pending version; None when nothing is pending."""

    def digest(self, chunk: bytes, *, pending: bool = False) -> int:
        """Of the chunk's committed (or pending) version, a removal too; `NOTHING_DIGEST` when there is none.

        Versions with one digest are the same, number and bytes, on whatever replica (`engine/digest`).
        """

    async def prepare(self, updates: Sequence[Update]) -> list[Prepared | EmberError]:
        """Store each update as its chunk's pending version, together; durable as `durability` says on return.

        Each succeeds or fails by itself: CHECKSUM (payload is not what its checksums say), NO_SPACE, INVALID (beyond
        the chunk size), UPDATE_MISSING (version is not committed + 1; a REMOVE, and what is made over nothing or over a
        removal, may skip versions), DISK_FAILED. A failed one leaves no trace. Preparing the same pending version again
        succeeds and changes nothing. Committed
        data stays readable.
        """

    async def commit(self, chunks: Sequence[tuple[bytes, int]]) -> None:
        """Make pending version `version` of each chunk the committed one; visible to reads on return.

        Already committed: nothing happens. Durability follows from `prepare`: a pending version is durable, and after
        a crash the replication layer commits it again.
        """

    async def sync(self) -> None:
        """On return every version prepared or committed before the call is durable, whatever its durability.

        Calls that come together share one sync. Raises NO_SPACE, DISK_FAILED.
        """

    async def abandon(self, chunk: bytes, version: int) -> None:
        """Drop a pending version (the serving side of the chain does not have it).

        Its `answer` keeps the sequence, so that an older one stays stale, with version 0, and is never committed: not
        by another update that is given the same version number either. On return a crash does not bring it back.
        """

    async def forget(self, chunks: Sequence[bytes]) -> None:
        """Drop all that is known of each chunk: its committed version, a removal too, and its pending one. Any version
        may be prepared afterwards, as over a chunk never heard of.

        The floor stays, and so does each `answer`, but for that of a version that was pending, as after `abandon`. On
        return a crash brings nothing back; before, some may be gone and others not. Raises NO_SPACE, DISK_FAILED.
        """

    def read(self, chunk: bytes, offset: int, length: int, buffer: memoryview, *, pending: bool = False) -> ChunkRead:
        """Read the committed (or the pending) version without waiting for a disk.

        Small reads are copied from the page cache into `buffer` (at least `length` bytes); large ones become a
        `FileRange` that the transport sends by `sendfile`. Raises `WouldBlock`, or `EmberError`: CHUNK_NOT_FOUND
        (no committed version, or removed), CHECKSUM (stored bytes are damaged), DISK_FAILED.
        """

    def read_blocking(
        self, chunk: bytes, offset: int, length: int, buffer: memoryview, *, pending: bool = False
    ) -> ChunkRead:
        """Like `read`, but waits for the disk. Called from a thread."""

    def check_stored(self, chunk: bytes) -> Checked | None:
        """Compare the committed version's bytes, as the disk has them, with their checksums. Called from a thread.

        None: there are no bytes, or the chunk changes faster than it is read. Raises DISK_FAILED."""

    async def restore(self, chunk: bytes, digest: int, payload: memoryview, bad_pages: Sequence[int]) -> bool:
        """Write those pages of the committed version to the disk again, as they are damaged there. `payload`: the whole
        version, of that `digest`; stable until this returns.

        False: another version is committed by now, and nothing was done. Changes nothing that a reader or another
        replica sees but that the damage is gone; `check_stored` tells whether it is. Raises CHECKSUM (`payload` is not
        that version), DISK_FAILED.
        """

    def last_chunk(self, inode: int) -> LastChunk:
        """Over committed, not removed chunks of a file."""

    def chunks_of(self, inode: int, first: int, limit: int) -> list[bytes]:
        """Ids of chunks of a file that are not removed, index >= `first`, ascending, at most `limit`."""

    def pending(self) -> list[bytes]:
        """Chunks with a pending version (after a restart: what has to be settled)."""

    # -- for replicas that give each other what one has lost ------------------------------------------------------

    def holding(self, chunk: bytes) -> Held:
        """What is here of one chunk."""

    def checksums(self, chunk: bytes) -> bytes:
        """Of the committed bytes, one for each page; b"": there are none."""

    def held(self, after: bytes, limit: int) -> list[Held]:
        """Chunks with an id above `after`, removals included, ascending; fewer than `limit`: there are no more."""

    def remembered(self, after: bytes, limit: int, *, every: bool = False) -> tuple[list[Remembered], bytes]:
        """Answers to committed updates (`every`: to all), in the order of `answer_key`, and where to go on; b"": there
        are no more. The first page is after b"", each other one after the key that the one before named."""

    def adopt(self, answers: Sequence[Remembered], floor: int) -> None:
        """Remember those answers that are newer than what is here, or whose update was dropped here, and raise the
        floor to `floor` at least. Durable with the next `checkpoint`."""

    def retract(self, answers: Sequence[Remembered]) -> None:
        """Those that are still what is remembered of their channel tell of no committed update any more, as after
        `abandon`. Durable with the next `checkpoint`."""

    async def checkpoint(self) -> None:
        """On return everything so far is durable. Raises DISK_FAILED."""

    # -- for whoever watches over it -----------------------------------------------------------------------------

    @property
    def failure(self) -> EmberError | None:
        """Why nothing is answered and stored any more: its disk has failed, or its index is damaged. None: it works."""

    @property
    def quiet(self) -> bool:
        """Nothing reads from its files, as far as this store was asked to."""

    def fence(self, reason: str) -> None:
        """Let `failure` be DISK_FAILED: the caller knows that its files cannot be reached. Nothing of it is noted; who
        opens it again takes it for one that may have lost something (`renew`)."""

    async def make_room(self) -> None:
        """Give storage that nobody uses back to the file system, which others may need."""

    def look(self) -> None:
        """Return if its directory is where it was and can be read. Called from a thread. Raises `OSError`. Once it was
        called, `space` says what it found last of the disk."""

    @property
    def unanswered_s(self) -> float:
        """For how long its disk has not got on with what is to be stored; 0: nothing is."""

    def kept_note(self) -> bytes:
        """What `keep_note` was given last; b"": nothing, or it cannot be read. Called from a thread."""

    def keep_note(self, note: bytes) -> None:
        """Keep a few bytes with the store that say nothing of its contents. Durable on return. Called from a thread,
        one at a time. Raises `OSError`."""

    def space(self) -> Space: ...

    def counters(self) -> dict[str, int]: ...

    async def close(self) -> None:
        """Checkpoint, then release files."""
