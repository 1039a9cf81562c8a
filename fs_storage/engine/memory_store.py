"""A `ChunkStore` that keeps chunks as byte strings. For tests of what stands above a store, and as their model.

It does what `interface.ChunkStore` says and nothing for speed: every update makes a new byte string. Nothing is
durable; `close` forgets it all. Single-threaded, except `read_blocking`.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from fs_common.checksums import page_checksums
from fs_common.errors import Code, EmberError
from fs_common.ids import chunk_id, split_chunk_id
from fs_common.limits import page_size
from fs_common.records.storage import UpdateKind
from fs_storage.engine.admission import admit, length_after
from fs_storage.engine.digest import NOTHING_DIGEST, digest_of
from fs_storage.engine.index_format import answer_key
from fs_storage.engine.interface import (
    Answer,
    Checked,
    ChunkRead,
    ChunkState,
    Held,
    LastChunk,
    PendingUpdate,
    Prepared,
    Remembered,
    Space,
    Update,
)


@dataclass(slots=True)
class _Version:
    number: int
    data: bytes
    removed: bool
    chain_version: int
    chunk_size: int
    identity: tuple[bytes, int, int]


@dataclass(slots=True)
class _Chunk:
    committed: _Version | None = None
    pending: _Version | None = None


class MemoryStore:
    """See the module."""

    def __init__(self, *, capacity_bytes: int = 1 << 40) -> None:
        self._capacity_bytes = capacity_bytes
        self._chunks: dict[bytes, _Chunk] = {}
        self._answers: dict[tuple[bytes, int], Answer] = {}
        self.floor = 0
        self._note = b""
        self.identity = uuid.uuid4().bytes
        self.opening = 1
        self.incarnation = 1
        self.whole = True
        self.recovered = 0
        self.low_space = ""
        self.failure: EmberError | None = None
        self.quiet = True
        self.position = 0

    async def renew(self, opening: int, incarnation: int) -> None:
        self.opening = max(self.opening, opening) + 1
        self.incarnation = max(self.incarnation, incarnation) + 1
        self.whole = False

    async def declare_whole(self) -> None:
        self.whole = True

    async def declare_filled(self) -> None:
        self.whole = True
        self.incarnation += 1

    def forget_removal(self, chunk: bytes) -> None:
        """Others do so after some time, this store when it is told."""
        entry = self._chunks.pop(chunk)
        assert entry.committed is not None and entry.committed.removed and entry.pending is None
        self.floor = max(self.floor, entry.committed.number)

    def state(self, chunk: bytes) -> ChunkState | None:
        entry = self._chunks.get(chunk)
        if entry is None:
            return None
        committed, pending = entry.committed, entry.pending
        newest = pending or committed
        assert newest is not None
        return ChunkState(
            version=committed.number if committed else 0,
            length=len(committed.data) if committed else 0,
            removed=committed.removed if committed else False,
            pending_version=pending.number if pending else 0,
            pending_length=len(pending.data) if pending else 0,
            chain_version=newest.chain_version,
        )

    def answer(self, client: bytes, channel: int) -> Answer | None:
        answer = self._answers.get((client, channel))
        if answer is None:
            return None
        entry = self._chunks.get(answer.chunk)
        pending = entry.pending if entry else None
        committed = answer.version != 0 and (pending is None or pending.identity != (client, channel, answer.sequence))
        return answer._replace(committed=committed)

    def pending_update(self, chunk: bytes) -> PendingUpdate | None:
        entry = self._chunks.get(chunk)
        if entry is None or entry.pending is None:
            return None
        made = entry.pending
        return PendingUpdate(made.number, len(made.data), made.removed, made.chunk_size, *made.identity)

    def digest(self, chunk: bytes, *, pending: bool = False) -> int:
        entry = self._chunks.get(chunk)
        version = None if entry is None else entry.pending if pending else entry.committed
        if version is None:
            return NOTHING_DIGEST
        checksums = page_checksums(memoryview(version.data), 0, version.chunk_size)
        return digest_of(version.number, len(version.data), version.removed, checksums)

    async def prepare(self, updates: Sequence[Update]) -> list[Prepared | EmberError]:
        results: list[Prepared | EmberError] = []
        for update in updates:
            try:
                results.append(self._prepare(update))
            except EmberError as error:
                results.append(error)
        self.position += 1
        return results

    async def commit(self, chunks: Sequence[tuple[bytes, int]]) -> None:
        for chunk, version in chunks:
            entry = self._chunks.get(chunk)
            if entry is not None and entry.pending is not None and entry.pending.number == version:
                entry.committed, entry.pending = entry.pending, None
            elif entry is None or entry.committed is None or entry.committed.number < version:
                raise EmberError(Code.UPDATE_MISSING, f"chunk {chunk.hex()} has no pending version {version}")

    async def sync(self) -> None:
        pass

    async def abandon(self, chunk: bytes, version: int) -> None:
        entry = self._chunks.get(chunk)
        if entry is not None and entry.pending is not None and entry.pending.number == version:
            self._drop_pending(chunk, entry)

    async def forget(self, chunks: Sequence[bytes]) -> None:
        for chunk in chunks:
            entry = self._chunks.get(chunk)
            if entry is not None and entry.pending is not None:
                self._drop_pending(chunk, entry)
            self._chunks.pop(chunk, None)

    def read(self, chunk: bytes, offset: int, length: int, buffer: memoryview, *, pending: bool = False) -> ChunkRead:
        entry = self._chunks.get(chunk)
        version = None if entry is None else entry.pending if pending else entry.committed
        if version is None or version.removed:
            raise EmberError(Code.CHUNK_NOT_FOUND, f"chunk {chunk.hex()} has no data")
        found = version.data[offset : offset + length]
        buffer[: len(found)] = found
        part = buffer[: len(found)]
        return ChunkRead(len(found), page_checksums(part, offset, version.chunk_size), part, None)

    def read_blocking(
        self, chunk: bytes, offset: int, length: int, buffer: memoryview, *, pending: bool = False
    ) -> ChunkRead:
        return self.read(chunk, offset, length, buffer, pending=pending)

    def check_stored(self, chunk: bytes) -> Checked | None:
        """Memory keeps what it is given."""
        entry = self._chunks.get(chunk)
        committed = entry.committed if entry is not None else None
        if committed is None or not committed.data:
            return None
        length = len(committed.data)
        return Checked(committed.number, self.digest(chunk), length, committed.chunk_size, (), "")

    async def restore(self, chunk: bytes, digest: int, payload: memoryview, bad_pages: Sequence[int]) -> bool:
        entry = self._chunks.get(chunk)
        committed = entry.committed if entry is not None else None
        if committed is None or not committed.data or self.digest(chunk) != digest:
            return False
        if bytes(payload) != committed.data:
            raise EmberError(Code.CHECKSUM, f"chunk {chunk.hex()}: these are not the bytes of {committed.number}")
        return True

    def last_chunk(self, inode: int) -> LastChunk:
        found = self._present(inode)
        if not found:
            return LastChunk(-1, 0, 0, 0)
        index, length = found[-1]
        return LastChunk(index, length, len(found), sum(length for _, length in found))

    def chunks_of(self, inode: int, first: int, limit: int) -> list[bytes]:
        indices = [index for index, _ in self._present(inode) if index >= first]
        return [bytes(chunk_id(inode, index)) for index in indices[:limit]]

    def pending(self) -> list[bytes]:
        return [chunk for chunk, entry in self._chunks.items() if entry.pending is not None]

    def checksums(self, chunk: bytes) -> bytes:
        entry = self._chunks.get(chunk)
        if entry is None or entry.committed is None:
            return b""
        return page_checksums(memoryview(entry.committed.data), 0, entry.committed.chunk_size)

    def held(self, after: bytes, limit: int) -> list[Held]:
        return [self.holding(chunk) for chunk in sorted(self._chunks) if chunk > after][:limit]

    def holding(self, chunk: bytes) -> Held:
        entry = self._chunks.get(chunk, _Chunk())
        committed, pending = entry.committed, entry.pending
        return Held(
            chunk,
            committed.number if committed else 0,
            self.digest(chunk),
            len(committed.data) if committed else 0,
            committed.removed if committed else False,
            committed.chunk_size if committed else 0,
            pending.number if pending else 0,
            self.digest(chunk, pending=True),
            len(pending.data) if pending else 0,
            pending.removed if pending else False,
            pending.chunk_size if pending else 0,
        )

    def remembered(self, after: bytes, limit: int, *, every: bool = False) -> tuple[list[Remembered], bytes]:
        keys = sorted((answer_key(*key), key) for key in self._answers)
        page = [entry for entry in keys if entry[0] > after][:limit]
        answers = []
        for _, (client, channel) in page:
            answer = self.answer(client, channel)
            if answer is not None and (answer.committed or every):
                answers.append(Remembered(client, channel, *answer))
        return answers, page[-1][0] if len(page) == limit else b""

    def adopt(self, answers: Sequence[Remembered], floor: int) -> None:
        for answer in answers:
            last = self._answers.get((answer.client, answer.channel))
            if last is None or (last.sequence, last.version) < (answer.sequence, 1):
                self._answers[answer.client, answer.channel] = Answer(
                    answer.sequence, answer.chunk, answer.version, answer.length, True
                )
        self.floor = max(self.floor, floor)

    def retract(self, answers: Sequence[Remembered]) -> None:
        for answer in answers:
            last = self._answers.get((answer.client, answer.channel))
            if last is not None and last[:3] == answer[2:5]:
                self._answers[answer.client, answer.channel] = last._replace(version=0, length=0, committed=False)

    async def checkpoint(self) -> None:
        pass

    def fence(self, reason: str) -> None:
        self.failure = self.failure or EmberError(Code.DISK_FAILED, reason)

    async def make_room(self) -> None:
        pass

    def look(self) -> None:
        pass

    unanswered_s = 0.0

    def kept_note(self) -> bytes:
        return self._note

    def keep_note(self, note: bytes) -> None:
        self._note = note

    def space(self) -> Space:
        used = self._used_bytes()
        count = sum(1 for entry in self._chunks.values() if entry.committed and not entry.committed.removed)
        return Space(self._capacity_bytes, max(0, self._capacity_bytes - used), used, count)

    def counters(self) -> dict[str, int]:
        return {}

    async def close(self) -> None:
        self._chunks.clear()
        self._answers.clear()

    # -- inside ------------------------------------------------------------------------------------------------

    def _prepare(self, update: Update) -> Prepared:
        entry = self._chunks.get(update.chunk)
        committed = entry.committed if entry else None
        page_bytes = page_size(committed.chunk_size) if committed is not None and not committed.removed else None
        if not admit(update, self.state(update.chunk), self.pending_update(update.chunk), page_bytes):
            assert entry is not None and entry.pending is not None
            return Prepared(entry.pending.number, len(entry.pending.data))
        if page_checksums(update.payload, update.offset, update.chunk_size) != update.checksums:
            raise EmberError(Code.CHECKSUM, f"chunk {update.chunk.hex()}: the payload does not match its checksums")
        new = committed is None or committed.removed
        if self.low_space and new and update.kind in (UpdateKind.WRITE, UpdateKind.TRUNCATE):
            raise EmberError(Code.NO_SPACE, self.low_space)
        before = committed.data if committed else b""
        length = length_after(update, len(before))
        if length > len(before) and self._used_bytes() + length - len(before) > self._capacity_bytes:
            raise EmberError(Code.NO_SPACE, "the target is full")
        if update.kind == UpdateKind.WRITE:
            data = bytearray(before.ljust(length, b"\0"))
            data[update.offset : update.offset + len(update.payload)] = update.payload
        elif update.kind == UpdateKind.REPLACE:
            data = bytearray(update.payload)
        else:
            data = bytearray(before[:length].ljust(length, b"\0"))
        if entry is None:
            entry = self._chunks[update.chunk] = _Chunk()
        elif entry.pending is not None:
            self._drop_pending(update.chunk, entry)
            self._chunks[update.chunk] = entry
        entry.pending = _Version(
            update.version,
            bytes(data),
            update.kind == UpdateKind.REMOVE,
            update.chain_version,
            update.chunk_size,
            (update.client, update.channel, update.sequence),
        )
        last = self._answers.get((update.client, update.channel))
        if update.client and (last is None or last.sequence <= update.sequence):
            self._answers[update.client, update.channel] = Answer(
                update.sequence, update.chunk, update.version, length, False
            )
        return Prepared(update.version, length)

    def _drop_pending(self, chunk: bytes, entry: _Chunk) -> None:
        made = entry.pending
        assert made is not None
        client, channel, sequence = made.identity
        answer = self._answers.get((client, channel))
        if answer is not None and answer.sequence == sequence and answer.chunk == chunk:
            self._answers[client, channel] = Answer(sequence, chunk, 0, 0, False)
        entry.pending = None
        if entry.committed is None:
            del self._chunks[chunk]

    def _present(self, inode: int) -> list[tuple[int, int]]:
        """(index, length) of the chunks of a file that have committed data, ascending."""
        return sorted(
            (split_chunk_id(chunk)[1], len(entry.committed.data))
            for chunk, entry in self._chunks.items()
            if split_chunk_id(chunk)[0] == inode and entry.committed is not None and not entry.committed.removed
        )

    def _used_bytes(self) -> int:
        return sum(
            max(len(version.data) for version in (entry.committed, entry.pending) if version is not None)
            for entry in self._chunks.values()
        )
