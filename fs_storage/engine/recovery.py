"""Opening after a crash: the index, the log, and what is left of the bytes, made into one consistent state.

    1  Frames after the checkpoint are replayed over the index, in memory.
    2  Bytes that updates put into blocks directly, and that no frame says were on the disk, are verified, unless the
       machine is still in the boot that wrote them (a process that died loses nothing of the page cache) and no sync
       had failed in it. A version
       whose bytes are not there was never acknowledged as durable: it is dropped, with all that came after it.
    3  Patches of committed versions are written into their blocks.
    4  Everything is synced, the index gets it as a checkpoint (the commit point), and the log begins anew.

A crash before 4 changes nothing that matters: the next opening does the same again.

As no block changes hands between two checkpoints (see `slots`), the blocks of all versions in the log are as their
writers left them, and a chunk can fall back to any of its versions since the checkpoint.
"""

import logging
from collections.abc import Iterator
from typing import NamedTuple

from crc32c import crc32c

from fs_common.checks import check
from fs_common.errors import EmberError
from fs_storage.engine.contents import read_bytes
from fs_storage.engine.disk import Disk
from fs_storage.engine.index import Index
from fs_storage.engine.index_format import Locate, StoredAnswer, answer_key, decode_record
from fs_storage.engine.log import RedoLog
from fs_storage.engine.log_format import Abandon, Begin, Commit, Forget, Prepare
from fs_storage.engine.making import splice
from fs_storage.engine.transitions import commit, drop_pending, dropped_answer, make_pending, succeeds
from fs_storage.engine.versions import NOBODY, NOTHING, PAGE_SHIFTS, Identity, Record, Version, page_count

logger = logging.getLogger(__name__)
_READ_BYTES = 1 << 20


class Recovered(NamedTuple):
    records: dict[bytes, Record]
    """All that the log changed; NOTHING: the chunk is gone."""
    answers: dict[bytes, StoredAnswer]
    sequence: int
    """Of the last frame replayed (or of the checkpoint)."""
    frames: int
    verified_bytes: int
    dropped: int
    """Versions whose bytes were not there."""
    boots: frozenset[bytes]
    """Boots of the machine that wrote what was replayed."""


class _Made:
    """A version that a frame made."""

    __slots__ = ("answer_before", "below", "end", "forgotten", "frame", "identity", "replaced", "start", "version")

    def __init__(self, version: Version, identity: Identity, frame: int, start: int, end: int) -> None:
        self.version = version
        self.identity = identity
        self.frame = frame
        self.start = start
        self.end = end
        """Bytes `[start, end)` of the block were written directly."""
        self.below: _Made | None = None
        """The committed version that it shares its block with, if that is younger than the checkpoint, too."""
        self.answer_before: StoredAnswer | None = None
        """Of its channel."""
        self.replaced: tuple[Version, Identity, _Made | None] | None = None
        """The pending version that it took the place of."""
        self.forgotten: StoredAnswer | None = None
        """The answer of that one."""


class _Chunk:
    """One chunk during replay."""

    __slots__ = ("history", "made", "record", "trail")

    def __init__(self, record: Record) -> None:
        self.record = record
        self.history: list[tuple[Version | None, _Made | None]] = [(record.committed, None)]
        """Committed versions since the checkpoint (or since all was forgotten), and the one of then; the newest is
        `record`'s."""
        self.made: _Made | None = None
        """The pending version, if it is younger than the checkpoint."""
        self.trail: list[_Made] = []
        """All versions that frames made, in order."""


class _Replay:
    def __init__(self, disk: Disk, index: Index, locate: Locate) -> None:
        self._disk = disk
        self._index = index
        self._locate = locate
        self.chunks: dict[bytes, _Chunk] = {}
        self.answers: dict[bytes, StoredAnswer] = {}
        self.boots: set[bytes] = set()
        self.verified_bytes = 0
        self.dropped = 0

    # -- step 1 ------------------------------------------------------------------------------------------------

    def chunk(self, chunk: bytes) -> _Chunk:
        found = self.chunks.get(chunk)
        if found is None:
            value = self._index.get(chunk)
            record = NOTHING if value is None else decode_record(value, self._locate)
            found = self.chunks[chunk] = _Chunk(record)
        return found

    def prepare(self, entry: Prepare, frame: int) -> None:
        chunk = self.chunk(entry.chunk)
        record = chunk.record
        base = record.committed
        block = self._locate(entry.size_class, entry.slot) if entry.size_class >= 0 else None
        checksums = entry.checksums
        pages = page_count(entry.length, entry.chunk_bits)
        if entry.builds_on:
            check(base is not None, "an update of a chunk finds it", entry.chunk.hex(), entry.version)
            assert base is not None
            checksums = splice(base.checksums, entry.first_page, checksums, pages)
        check(len(checksums) == 4 * pages, "each page has a checksum", entry.chunk.hex(), entry.version)
        shares = base is not None and block is not None and base.block == block
        version = Version(
            entry.version,
            entry.chain_version,
            entry.chunk_bits,
            entry.length,
            entry.used,
            entry.removed,
            0,
            block,
            checksums,
            entry.whole,
            (base.patches if shares and base is not None else ()) + entry.patches,
        )
        identity = Identity(entry.client, entry.channel, entry.sequence)
        made = _Made(version, identity, frame, entry.direct_start, entry.direct_end)
        made.below = chunk.history[-1][1] if shares else None
        if record.pending is not None:
            made.replaced = (record.pending, record.identity, chunk.made)
            made.forgotten = self._forget_answer(entry.chunk, record.identity)
        if entry.client:
            key = answer_key(entry.client, entry.channel)
            made.answer_before = self._answer(key)
            answer = StoredAnswer(entry.chunk, entry.sequence, entry.version, entry.length, entry.when)
            if succeeds(answer, made.answer_before):
                self.answers[key] = answer
        chunk.record = make_pending(record, version, identity, entry.forgets)
        chunk.made = made
        chunk.trail.append(made)

    def commit(self, entry: Commit) -> None:
        chunk = self.chunk(entry.chunk)
        pending = chunk.record.pending
        if pending is None or pending.number != entry.version:
            return  # the checkpoint was cut after the commit and before this record
        chunk.record = commit(chunk.record, entry.when)
        chunk.history.append((chunk.record.committed, chunk.made))
        chunk.made = None

    def abandon(self, entry: Abandon) -> None:
        chunk = self.chunk(entry.chunk)
        pending = chunk.record.pending
        if pending is None or pending.number != entry.version:
            return
        self._forget_answer(entry.chunk, chunk.record.identity)
        chunk.record = drop_pending(chunk.record)
        chunk.made = None

    def forget(self, entry: Forget) -> None:
        """No crash goes back beyond this: what was before is neither verified nor fallen back to."""
        chunk = self.chunk(entry.chunk)
        self._forget_answer(entry.chunk, chunk.record.identity)
        chunk.record = NOTHING
        chunk.history = [(None, None)]
        chunk.made = None
        chunk.trail = []

    def _answer(self, key: bytes) -> StoredAnswer | None:
        return self.answers.get(key) or self._index.answer(key)

    def _forget_answer(self, chunk: bytes, identity: Identity) -> StoredAnswer | None:
        """The identity's pending version is dropped. Returns the answer that it had."""
        key = answer_key(identity.client, identity.channel)
        before = self._answer(key)
        dropped = dropped_answer(before, chunk, identity)
        if dropped is None:
            return None
        self.answers[key] = dropped
        return before

    # -- step 2 ------------------------------------------------------------------------------------------------

    def verify(self, data_synced: int) -> None:
        """Drop versions whose bytes are not in their blocks."""
        for name, chunk in self.chunks.items():
            while chunk.made is not None and not self._intact(chunk.made, data_synced):
                self._drop_pending(name, chunk)
            committed = chunk.history[-1][1]
            if committed is None or self._intact(committed, data_synced):
                continue
            replaced = committed
            while committed is not None and not self._intact(committed, data_synced):
                # With it goes all that came after it, or the channels' answers would tell of it.
                last = None
                while last is not committed:
                    last = chunk.trail.pop()
                    self._drop(name, last)
                replaced = committed
                chunk.history.pop()
                committed = chunk.history[-1][1]
            chunk.record = Record(chunk.history[-1][0], None, NOBODY)
            chunk.made = None
            self._restore_replaced(chunk, replaced)
            while chunk.made is not None and not self._intact(chunk.made, data_synced):
                self._drop_pending(name, chunk)

    def _intact(self, made: _Made, data_synced: int) -> bool:
        """The bytes that the version's block got since the checkpoint, and that may not be on the disk, are there."""
        version = made.version
        part: _Made | None = made
        while part is not None:
            if part.frame > data_synced and not self._matches(version, part.start, min(part.end, version.length)):
                return False
            part = part.below
        return True

    def _matches(self, version: Version, start: int, end: int) -> bool:
        if start >= end:
            return True
        assert version.block is not None
        if version.block.file.fd < 0:
            return False
        page = 1 << PAGE_SHIFTS[version.chunk_bits]
        start -= start % page
        end = min(end + -end % page, version.length)
        self.verified_bytes += end - start
        try:
            return all(
                crc32c(data) == int.from_bytes(version.checksums[at // page * 4 : at // page * 4 + 4], "little")
                for at, data in self._pages(version, start, end, page)
            )
        except EmberError:
            return False

    def _pages(self, version: Version, start: int, end: int, page: int) -> Iterator[tuple[int, memoryview]]:
        for at in range(start, end, _READ_BYTES):
            data = memoryview(read_bytes(self._disk, version, at, min(end, at + _READ_BYTES)))
            for offset in range(0, len(data), page):
                yield at + offset, data[offset : offset + page]

    def _drop_pending(self, name: bytes, chunk: _Chunk) -> None:
        """The pending version never was; one that it took the place of is back."""
        made = chunk.made
        assert made is not None
        check(chunk.trail.pop() is made, "the pending version is the last one made", name.hex())
        self._drop(name, made)
        chunk.record = drop_pending(chunk.record)
        chunk.made = None
        self._restore_replaced(chunk, made)

    def _restore_replaced(self, chunk: _Chunk, made: _Made) -> None:
        if made.replaced is not None:
            version, identity, chunk.made = made.replaced
            chunk.record = Record(chunk.record.committed, version, identity)
            if made.forgotten is not None:
                self.answers[answer_key(identity.client, identity.channel)] = made.forgotten

    def _drop(self, chunk: bytes, made: _Made) -> None:
        """The update never happened: its channel is where it was before."""
        self.dropped += 1
        logger.warning("version %d of chunk %s was not complete before the crash", made.version.number, chunk.hex())
        identity = made.identity
        if not identity.client:
            return
        key = answer_key(identity.client, identity.channel)
        answer = self.answers.get(key)
        if answer is None or answer.chunk != chunk or answer.sequence != identity.sequence:
            return
        if made.answer_before is None:
            del self.answers[key]
        else:
            self.answers[key] = made.answer_before


def replay(disk: Disk, index: Index, log: RedoLog, locate: Locate, *, believed: bool) -> Recovered:
    """Steps 1 and 2. Raises `LogDamaged`, `IndexDamaged`.

    `believed`: what this boot has written is there.
    """
    state = _Replay(disk, index, locate)
    sequence = index.sequence()
    data_synced = frames = 0
    for frame in log.read(sequence):
        for entry in frame.records:
            if isinstance(entry, Prepare):
                state.prepare(entry, frame.sequence)
            elif isinstance(entry, Commit):
                state.commit(entry)
            elif isinstance(entry, Abandon):
                state.abandon(entry)
            elif isinstance(entry, Forget):
                state.forget(entry)
            elif isinstance(entry, Begin):
                state.boots.add(entry.boot_id)
        sequence = frame.sequence
        data_synced = max(data_synced, frame.data_synced)
        frames += 1
    if not believed or state.boots != {disk.boot_id()}:
        state.verify(data_synced)
    records = {name: chunk.record for name, chunk in state.chunks.items()}
    return Recovered(
        records, state.answers, sequence, frames, state.verified_bytes, state.dropped, frozenset(state.boots)
    )
