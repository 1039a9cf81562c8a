"""A chunk store of tuples: what a replica's disk holds in the simulator, and what a crash leaves of it.

Content is a tuple of markers: a write appends its marker, so an update applied twice or lost is visible for ever.
"""

import zlib
from dataclasses import dataclass

from fs_common.records.storage import UpdateKind
from fs_storage.engine.digest import digest_of
from fs_storage.engine.interface import Answer, ChunkState, PendingUpdate

Content = tuple[str, ...] | None
"""None: removed or never written."""


def digest(version: int, content: Content) -> int:
    if content is None:
        return digest_of(version, 0, True, b"")
    return zlib.crc32(repr((version, content)).encode()) or 1


@dataclass
class Pending:
    version: int
    content: Content
    identity: tuple[bytes, int, int]
    chain_version: int = 1


@dataclass
class Chunk:
    version: int = 0
    content: Content = None
    pending: Pending | None = None
    chain_version: int = 1
    """Of the committed version."""
    committed_at: float = 0.0
    """For the simulator."""
    last_commit: tuple[int, Content, Pending] | None = None
    """What the chunk was before its last commit, while a crash may still undo that commit."""


def applied(content: Content, kind: UpdateKind, argument: object) -> Content:
    """The sequential meaning of an update."""
    match kind:
        case UpdateKind.WRITE:
            assert isinstance(argument, str)
            return (*(content or ()), argument)
        case UpdateKind.TRUNCATE:
            assert isinstance(argument, int)
            return (content or ())[:argument]
        case UpdateKind.REMOVE:
            return None
        case UpdateKind.REPLACE:
            assert isinstance(argument, tuple)
            return argument


class ModelStore:
    """Implements the core's `View`; the simulator calls the rest when its scheduled disk events fire."""

    def __init__(self) -> None:
        self.chunks: dict[bytes, Chunk] = {}
        self.answers: dict[tuple[bytes, int], Answer] = {}
        self.floor = 0
        self.versions: dict[tuple[bytes, int], Content] = {}
        """All that there ever were."""

    def forget(self, chunk: bytes) -> None:
        """All that is known of the chunk."""
        found = self.chunks.get(chunk)
        if found is not None and found.pending is not None:
            self.abandon(chunk, found.pending.version)
        self.chunks.pop(chunk, None)

    def forget_removal(self, chunk: bytes) -> None:
        """The removal, if there is one, and nothing is pending."""
        found = self.chunks.get(chunk)
        if found is not None and found.version and found.content is None and found.pending is None:
            self.floor = max(self.floor, found.version)
            del self.chunks[chunk]

    def state(self, chunk: bytes) -> ChunkState | None:
        found = self.chunks.get(chunk)
        if found is None:
            return None
        pending = found.pending
        return ChunkState(
            version=found.version,
            length=len(found.content or ()),
            removed=found.version > 0 and found.content is None,
            pending_version=pending.version if pending else 0,
            pending_length=len(pending.content or ()) if pending else 0,
            chain_version=pending.chain_version if pending else found.chain_version,
        )

    def answer(self, client: bytes, channel: int) -> Answer | None:
        return self.answers.get((client, channel))

    def digest(self, chunk: bytes, *, pending: bool = False) -> int:
        found = self.chunks.get(chunk)
        if found is None:
            return 0
        if pending:
            return digest(found.pending.version, found.pending.content) if found.pending is not None else 0
        return digest(found.version, found.content) if found.version else 0

    def pending_update(self, chunk: bytes) -> PendingUpdate | None:
        found = self.chunks.get(chunk)
        if found is None or found.pending is None:
            return None
        pending = found.pending
        return PendingUpdate(
            pending.version, len(pending.content or ()), pending.content is None, 1024, *pending.identity
        )

    def pending(self) -> list[bytes]:
        return [chunk for chunk, found in self.chunks.items() if found.pending is not None]

    def prepare(
        self,
        chunk: bytes,
        version: int,
        kind: UpdateKind,
        argument: object,
        identity: tuple[bytes, int, int],
        chain_version: int = 1,
    ) -> int:
        """Returns the length the chunk will have."""
        found = self.chunks.setdefault(chunk, Chunk())
        content = applied(found.content, kind, argument)
        if found.pending is not None:
            assert found.pending.version == version, "a pending version is replaced"
            assert found.pending.content == content, "a pending version is replaced by other content"
            return len(content or ())
        assert version > found.version, "a version is made again"
        whole = kind in (UpdateKind.REPLACE, UpdateKind.REMOVE)
        assert version == found.version + 1 or found.content is None or whole, "a version is skipped"
        found.pending = Pending(version, content, identity, chain_version)
        self.versions[chunk, version] = content
        found.last_commit = None
        client, channel, sequence = identity
        if client:
            last = self.answers.get((client, channel))
            if last is None or last.sequence <= sequence:
                self.answers[client, channel] = Answer(sequence, chunk, version, len(content or ()), False)
        return len(content or ())

    def commit(self, chunk: bytes, version: int) -> None:
        found = self.chunks[chunk]
        pending = found.pending
        if pending is None:
            assert found.version >= version, "a version that was never prepared is committed"
            return
        assert pending.version == version, "a version that is not pending is committed"
        found.last_commit = (found.version, found.content, pending)
        found.version, found.content, found.pending = pending.version, pending.content, None
        found.chain_version = pending.chain_version
        self._mark(chunk, pending, committed=True)

    def abandon(self, chunk: bytes, version: int) -> None:
        found = self.chunks[chunk]
        assert found.pending is not None and found.pending.version == version
        client, channel, sequence = found.pending.identity
        last = self.answers.get((client, channel))
        if last is not None and (last.sequence, last.chunk) == (sequence, chunk):
            # The channel does not go back: an older duplicate that is still on its way stays stale.
            self.answers[client, channel] = last._replace(version=0, length=0)
        found.pending = None

    def lose_last_commit(self, chunk: bytes) -> None:
        """What a crash may do: the commit of a prepared version was not durable yet."""
        found = self.chunks[chunk]
        if found.last_commit is not None:
            found.version, found.content, found.pending = found.last_commit
            found.last_commit = None
            self._mark(chunk, found.pending, committed=False)

    def newest(self, chunk: bytes) -> tuple[int, Content]:
        """The highest version here, committed or pending, with its content."""
        found = self.chunks.get(chunk)
        if found is None:
            return 0, None
        if found.pending is not None:
            return found.pending.version, found.pending.content
        return found.version, found.content

    def _mark(self, chunk: bytes, pending: Pending, *, committed: bool) -> None:
        client, channel, sequence = pending.identity
        last = self.answers.get((client, channel))
        if last is not None and (last.sequence, last.chunk) == (sequence, chunk):
            self.answers[client, channel] = last._replace(committed=committed)
