"""A chunk store in memory, and what crashes and power cuts leave of it.

What was done to it is a log. A process that dies loses what was not written yet (commits, and what was under way); a
machine that loses its power leaves any prefix that has at least what was made durable; a torn write is the end of that
prefix. Content is a tuple of markers: a write appends its own, so an update that is applied twice, or lost, is visible
for ever.
"""

import zlib
from collections.abc import Sequence
from functools import lru_cache
from random import Random
from typing import NamedTuple

from fs_common.checks import check
from fs_common.errors import Code, EmberError
from fs_common.records.storage import UpdateKind
from fs_storage.engine.digest import NOTHING_DIGEST, digest_of
from fs_storage.engine.interface import Answer, ChunkState, Held, PendingUpdate, Remembered
from tests.storage.craq.model_store import Content, applied

Identity = tuple[bytes, int, int]


@lru_cache(maxsize=4096)
def digest(number: int, content: Content) -> int:
    if content is None:
        return digest_of(number, 0, True, b"")
    return zlib.crc32(repr((number, content)).encode()) or 1


class Version(NamedTuple):
    number: int
    content: Content
    chain_version: int
    identity: Identity
    made_ms: float


class Entry(NamedTuple):
    committed: Version | None
    pending: Version | None


class _Contents:
    """What is on the disk. Entries are never changed, so a copy is cheap."""

    __slots__ = ("answers", "chunks", "floor", "whole")

    def __init__(self) -> None:
        self.chunks: dict[bytes, Entry] = {}
        self.answers: dict[tuple[bytes, int], Answer] = {}
        self.floor = 0
        self.whole = True

    def copy(self) -> "_Contents":
        made = _Contents()
        made.chunks = self.chunks.copy()
        made.answers = self.answers.copy()
        made.floor = self.floor
        made.whole = self.whole
        return made


class Store:
    """Implements the core's `View`; the rest is called when disk work is done."""

    def __init__(self, identity: bytes, *, memory: bool, suspicious: bool) -> None:
        self.identity = identity
        self.opening = 0
        self.incarnation = 1
        self._memory = memory
        """Updates are durable some time later only."""
        self._suspicious = suspicious
        """It is not whole after any loss of power."""
        self.full = False
        self._now = _Contents()
        self._trail = [self._now.copy()]
        """What a loss of power may leave: the last state that is durable, then those since."""
        self._written = 0
        """The first of them that the death of the process may leave."""
        self.position = 0
        self.recovered = 0
        self.now_ms = 0.0

    # -- the log -----------------------------------------------------------------------------------------------

    def _note(self, *, durable: bool = False, written: bool = True) -> None:
        self.position += 1
        if durable:
            self._trail = [self._now.copy()]
            self._written = 0
            return
        self._trail.append(self._now.copy())
        if written:
            self._written = len(self._trail) - 1
        if len(self._trail) > 60:
            # The engine writes its index now and then.
            del self._trail[:20]
            self._written = max(0, self._written - 20)

    def crash(self, random: Random, *, power: bool) -> None:
        self._crash(random.randint(0 if power else self._written, len(self._trail) - 1), power=power)

    def crash_worst(self, random: Random, *, power: bool) -> None:
        """All that may be lost is."""
        self._crash(0 if power else self._written, power=power)

    def _crash(self, at: int, *, power: bool) -> None:
        last = len(self._trail) - 1
        self._now = self._trail[at].copy()
        self._trail = self._trail[: at + 1]
        self._written = at
        if power:
            lossy = self._suspicious or (self._memory and at < last)
            self._trail = [self._now.copy()]
            self._written = 0
            if lossy:
                self._now.whole = False
                self._trail[0].whole = False
                self.incarnation += 1

    def open(self) -> None:
        self.opening += 1
        self.recovered = self.position

    # -- looks -------------------------------------------------------------------------------------------------

    @property
    def whole(self) -> bool:
        return self._now.whole

    @property
    def floor(self) -> int:
        return self._now.floor

    @property
    def chunks(self) -> dict[bytes, Entry]:
        return self._now.chunks

    @property
    def answers(self) -> dict[tuple[bytes, int], Answer]:
        return self._now.answers

    def state(self, chunk: bytes) -> ChunkState | None:
        entry = self._now.chunks.get(chunk)
        if entry is None:
            return None
        committed, pending = entry
        newest = pending or committed
        assert newest is not None
        return ChunkState(
            committed.number if committed else 0,
            len(committed.content or ()) if committed else 0,
            committed is not None and committed.content is None,
            pending.number if pending else 0,
            len(pending.content or ()) if pending else 0,
            newest.chain_version,
        )

    def answer(self, client: bytes, channel: int) -> Answer | None:
        answer = self._now.answers.get((client, channel))
        if answer is None:
            return None
        entry = self._now.chunks.get(answer.chunk)
        pending = entry.pending if entry else None
        committed = answer.version != 0 and (pending is None or pending.identity != (client, channel, answer.sequence))
        return answer._replace(committed=committed)

    def pending_update(self, chunk: bytes) -> PendingUpdate | None:
        entry = self._now.chunks.get(chunk)
        if entry is None or entry.pending is None:
            return None
        made = entry.pending
        return PendingUpdate(made.number, len(made.content or ()), made.content is None, 1024, *made.identity)

    def digest(self, chunk: bytes, *, pending: bool = False) -> int:
        entry = self._now.chunks.get(chunk)
        version = None if entry is None else entry.pending if pending else entry.committed
        return NOTHING_DIGEST if version is None else digest(version.number, version.content)

    def pending(self) -> list[bytes]:
        return [chunk for chunk, entry in self._now.chunks.items() if entry.pending is not None]

    def held(self, after: bytes, limit: int) -> list[Held]:
        return [self.holding(chunk) for chunk in sorted(self._now.chunks) if chunk > after][:limit]

    def holding(self, chunk: bytes) -> Held:
        entry = self._now.chunks.get(chunk)
        if entry is None:
            return Held(chunk)
        committed, pending = entry
        return Held(
            chunk,
            committed.number if committed else 0,
            self.digest(chunk),
            len(committed.content or ()) if committed else 0,
            committed is not None and committed.content is None,
            1024,
            pending.number if pending else 0,
            self.digest(chunk, pending=True),
            len(pending.content or ()) if pending else 0,
            pending is not None and pending.content is None,
            1024,
        )

    def remembered(self, after: bytes, limit: int, *, every: bool = False) -> tuple[list[Remembered], bytes]:
        keys = sorted(key for key in self._now.answers if _key(key) > after)
        page = []
        for key in keys[:limit]:
            answer = self.answer(*key)
            assert answer is not None
            if answer.committed or every:
                page.append(Remembered(key[0], key[1], *answer))
        return page, _key(keys[limit - 1]) if len(keys) > limit else b""

    def newest(self, chunk: bytes) -> Version | None:
        entry = self._now.chunks.get(chunk)
        return None if entry is None else entry.pending or entry.committed

    # -- changes -----------------------------------------------------------------------------------------------

    def prepare(
        self, chunk: bytes, version: int, kind: UpdateKind, argument: object, identity: Identity, chain_version: int
    ) -> int:
        """Returns the length the chunk will have. Raises NO_SPACE, UPDATE_MISSING."""
        entry = self._now.chunks.get(chunk, Entry(None, None))
        committed, pending = entry
        content = applied(committed.content if committed else None, kind, argument)
        if pending is not None:
            if pending.number == version and kind is not UpdateKind.REPLACE and pending.identity == identity:
                return len(pending.content or ())
            if kind is not UpdateKind.REPLACE:
                raise EmberError(Code.UPDATE_MISSING, f"{chunk!r} has another update pending, as {pending.number}")
        if kind is not UpdateKind.REPLACE:
            number = committed.number if committed else 0
            nothing = committed is None or committed.content is None
            if not (version == number + 1 or (version > number and (nothing or kind is UpdateKind.REMOVE))):
                raise EmberError(Code.UPDATE_MISSING, f"{chunk!r} is at version {number}, the update makes {version}")
        if self.full and content is not None and len(content) > (len(committed.content or ()) if committed else 0):
            raise EmberError(Code.NO_SPACE, "full")
        if pending is not None:
            self._drop_pending(chunk)
        self._now.chunks[chunk] = Entry(committed, Version(version, content, chain_version, identity, self.now_ms))
        client, channel, sequence = identity
        if client:
            last = self._now.answers.get((client, channel))
            if last is None or last.sequence <= sequence:
                self._now.answers[client, channel] = Answer(sequence, chunk, version, len(content or ()), False)
        self._note(durable=not self._memory)
        return len(content or ())

    def commit(self, chunk: bytes, version: int) -> None:
        entry = self._now.chunks.get(chunk)
        if entry is not None and entry.pending is not None and entry.pending.number == version:
            self._now.chunks[chunk] = Entry(entry.pending._replace(made_ms=self.now_ms), None)
            self._note(written=False)
            return
        check(
            entry is not None and entry.committed is not None and entry.committed.number >= version,
            "what is committed was prepared",
            chunk,
            version,
        )

    def abandon(self, chunk: bytes, version: int) -> None:
        entry = self._now.chunks.get(chunk)
        if entry is not None and entry.pending is not None and entry.pending.number == version:
            self._drop_pending(chunk)
            self._note(durable=True)

    def forget(self, chunk: bytes) -> None:
        entry = self._now.chunks.get(chunk)
        if entry is not None:
            if entry.pending is not None:
                self._drop_pending(chunk)
            self._now.chunks.pop(chunk, None)
        self._note(durable=True)

    def forget_removal(self, chunk: bytes, before_ms: float) -> None:
        """A tombstone that is old enough goes; with the index, which makes all before it durable."""
        entry = self._now.chunks.get(chunk)
        if entry is None or entry.pending is not None or entry.committed is None or not self.whole:
            return
        if entry.committed.content is None and entry.committed.made_ms < before_ms:
            self._now.floor = max(self._now.floor, entry.committed.number)
            del self._now.chunks[chunk]
            self._note(durable=True)

    def sync(self) -> None:
        self._note(durable=True)

    def declare_whole(self) -> None:
        self._now.whole = True
        self._note(durable=True)

    def adopt(self, answers: Sequence[Remembered], floor: int) -> None:
        for answer in answers:
            key = (answer.client, answer.channel)
            last = self._now.answers.get(key)
            if last is None or (last.sequence, last.version) < (answer.sequence, 1):
                self._now.answers[key] = Answer(answer.sequence, answer.chunk, answer.version, answer.length, True)
        self._now.floor = max(self._now.floor, floor)
        self._note(written=False)

    def retract(self, answers: Sequence[Remembered]) -> None:
        for answer in answers:
            key = (answer.client, answer.channel)
            last = self._now.answers.get(key)
            if last is not None and (last.sequence, last.chunk, last.version) == answer[2:5]:
                self._now.answers[key] = last._replace(version=0, length=0, committed=False)
        self._note(written=False)

    def put(self, chunk: bytes, version: Version) -> None:
        """Mending: this is what is committed, whatever was here; nothing is pending."""
        entry = self._now.chunks.get(chunk)
        if entry is not None and entry.pending is not None:
            self._drop_pending(chunk)
        self._now.chunks[chunk] = Entry(version, None)
        self._note()

    def _drop_pending(self, chunk: bytes) -> None:
        entry = self._now.chunks[chunk]
        assert entry.pending is not None
        client, channel, sequence = entry.pending.identity
        answer = self._now.answers.get((client, channel))
        if answer is not None and answer.sequence == sequence and answer.chunk == chunk:
            # The channel does not go back: an older duplicate that is still on its way stays stale.
            self._now.answers[client, channel] = Answer(sequence, chunk, 0, 0, False)
        if entry.committed is None:
            del self._now.chunks[chunk]
        else:
            self._now.chunks[chunk] = Entry(entry.committed, None)


def _key(key: tuple[bytes, int]) -> bytes:
    return key[0] + b"/" + key[1].to_bytes(4, "big")
