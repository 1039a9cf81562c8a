"""All records, as the event loop sees them: what changed since the last checkpoint over what the index holds.

Owned by the event loop, except `peek`. Nothing here waits for a write; a record that is not in memory is read from
the index (3 us when its pages are in memory).

Invariants:

* A record that the index does not hold in its present form is in memory, and in `_changed` (changed since the cut of
  the last checkpoint) or `_settling` (that checkpoint is being written).
* Counts and summaries follow every `put`.
"""

from collections.abc import Callable, Iterator
from heapq import nsmallest
from itertools import islice
from operator import itemgetter
from typing import NamedTuple

from fs_common.errors import Code, EmberError
from fs_storage.engine.index import Index
from fs_storage.engine.index_format import IndexDamaged, Locate, StoredAnswer, decode_record, encode_record, glance
from fs_storage.engine.interface import LastChunk
from fs_storage.engine.versions import NOTHING, Record

_SUMMARIES_MAX = 4096
_EVICTED_AT_ONCE = 64
_KEY_MAX = b"\xff" * 12


class Snapshot(NamedTuple):
    """What a checkpoint writes."""

    records: dict[bytes, Record]
    answers: dict[bytes, StoredAnswer]

    def encoded(self) -> dict[bytes, bytes | None]:
        return {chunk: None if record == NOTHING else encode_record(record) for chunk, record in self.records.items()}


class Table:
    """See the module."""

    def __init__(self, index: Index, locate: Locate, records_cached: int) -> None:
        self._index = index
        self._locate = locate
        self._records_cached = records_cached
        self.damaged: Callable[[EmberError], None] = lambda failure: None
        """Told when the index turns out to be damaged, from any thread, before that is raised."""
        self.hot: dict[bytes, Record] = {}
        """Records in memory; readers look here first. NOTHING: known not to be there."""
        self._changed: set[bytes] = set()
        self._settling: set[bytes] = set()
        self._changed_answers: dict[bytes, StoredAnswer] = {}
        self._settling_answers: dict[bytes, StoredAnswer] = {}
        self._of_inode: dict[bytes, set[bytes]] = {}
        """Changed and settling chunks by the inode part of their id."""
        self._summaries: dict[bytes, list[int]] = {}
        """By inode part: last index, its length, chunks, bytes. Present only while exact."""
        self.pending: set[bytes] = set()
        self.chunks = 0
        """With committed data."""

    # -- records -----------------------------------------------------------------------------------------------

    def get(self, chunk: bytes) -> Record:
        record = self.hot.get(chunk)
        if record is None:
            value = self._get(chunk)
            # An update of a new chunk asks several times.
            record = NOTHING if value is None else self._decode(value)
            self.hot[chunk] = record
            if len(self.hot) > self._records_cached:
                self._evict()
        return record

    def peek(self, chunk: bytes) -> Record:
        """`get` from any thread."""
        record = self.hot.get(chunk)
        if record is None:
            value = self._get(chunk)
            # It may be that of a moment ago: whoever pins its block looks again afterwards.
            record = self.hot.get(chunk) or (NOTHING if value is None else self._decode(value))
        return record

    def _get(self, chunk: bytes) -> bytes | None:
        try:
            return self._index.get(chunk)
        except IndexDamaged as error:
            raise self._damaged(error) from error

    def _decode(self, value: bytes) -> Record:
        try:
            return decode_record(value, self._locate)
        except IndexDamaged as error:
            raise self._damaged(error) from error

    def _damaged(self, error: IndexDamaged) -> EmberError:
        failure = EmberError(Code.DISK_FAILED, f"the target's index is damaged: {error}")
        self.damaged(failure)
        return failure

    def _scan(self, first: bytes, last: bytes) -> Iterator[tuple[bytes, bytes]]:
        try:
            yield from self._index.scan(first, last)
        except IndexDamaged as error:
            raise self._damaged(error) from error

    def put(self, chunk: bytes, record: Record) -> None:
        before = self.get(chunk)
        self.hot[chunk] = record
        self._changed.add(chunk)
        inode = chunk[:8]
        self._of_inode.setdefault(inode, set()).add(chunk)
        if record.pending is not None:
            self.pending.add(chunk)
        elif before.pending is not None:
            self.pending.discard(chunk)
        if before.committed is not record.committed:
            self._recount(chunk, inode, _present_length(before), _present_length(record))

    def _recount(self, chunk: bytes, inode: bytes, old: int | None, new: int | None) -> None:
        if old == new:
            return
        self.chunks += (new is not None) - (old is not None)
        summary = self._summaries.get(inode)
        if summary is None:
            return
        summary[2] += (new is not None) - (old is not None)
        summary[3] += (new or 0) - (old or 0)
        index = int.from_bytes(chunk[8:], "big")
        if new is not None:
            if index >= summary[0]:
                summary[0], summary[1] = index, new
        elif index == summary[0]:
            del self._summaries[inode]

    def _evict(self) -> None:
        """Forget records that the index has; the oldest first."""
        for chunk in list(islice(self.hot, _EVICTED_AT_ONCE)):
            record = self.hot.pop(chunk)
            if chunk in self._changed or chunk in self._settling:
                self.hot[chunk] = record  # at the end, so that the next eviction sees others

    # -- answers -----------------------------------------------------------------------------------------------

    def answer(self, key: bytes) -> StoredAnswer | None:
        found = self._changed_answers.get(key) or self._settling_answers.get(key)
        if found is not None:
            return found
        try:
            return self._index.answer(key)
        except IndexDamaged as error:
            raise self._damaged(error) from error

    def put_answer(self, key: bytes, answer: StoredAnswer) -> None:
        self._changed_answers[key] = answer

    # -- lists -------------------------------------------------------------------------------------------------

    def listed(self, after: bytes, limit: int) -> list[tuple[bytes, Record]]:
        """Records with a key above `after`, ascending, at most `limit`."""
        overlaid = self._changed | self._settling
        here = nsmallest(limit, (chunk for chunk in overlaid if chunk > after and self.hot[chunk] != NOTHING))
        found = [(chunk, self.hot[chunk]) for chunk in here]
        stored = 0
        for chunk, value in self._scan(after + b"\0", _KEY_MAX):
            if stored == limit:
                break
            if chunk not in overlaid:
                found.append((chunk, self._decode(value)))
                stored += 1
        found.sort(key=itemgetter(0))
        return found[:limit]

    def listed_answers(self, after: bytes, limit: int) -> list[tuple[bytes, StoredAnswer]]:
        """The same of answers."""
        overlaid = {**self._settling_answers, **self._changed_answers}
        found = nsmallest(limit, (item for item in overlaid.items() if item[0] > after), key=itemgetter(0))
        stored = 0
        try:
            for key, answer in self._index.answers(after + b"\0"):
                if stored == limit:
                    break
                if key not in overlaid:
                    found.append((key, answer))
                    stored += 1
        except IndexDamaged as error:
            raise self._damaged(error) from error
        found.sort(key=itemgetter(0))
        return found[:limit]

    # -- files -------------------------------------------------------------------------------------------------

    def last_chunk(self, inode: bytes) -> LastChunk:
        summary = self._summaries.get(inode)
        if summary is None:
            summary = [-1, 0, 0, 0]
            for chunk, length in self._present(inode, bytes(4)):
                summary[0] = int.from_bytes(chunk[8:], "big")
                summary[1] = length
                summary[2] += 1
                summary[3] += length
            if len(self._summaries) >= _SUMMARIES_MAX:
                del self._summaries[next(iter(self._summaries))]
            self._summaries[inode] = summary
        return LastChunk(*summary)

    def chunks_of(self, inode: bytes, first: int, limit: int) -> list[bytes]:
        if first >= 1 << 32:
            return []
        return [chunk for chunk, _ in islice(self._present(inode, first.to_bytes(4, "big")), limit)]

    def _present(self, inode: bytes, first: bytes) -> Iterator[tuple[bytes, int]]:
        """(chunk, committed bytes) of a file's chunks that have data, ascending."""
        start = inode + first
        overlaid = self._of_inode.get(inode, set())
        changed = sorted((chunk for chunk in overlaid if chunk >= start), reverse=True)
        for chunk, value in self._scan(start, inode + b"\xff\xff\xff\xff"):
            while changed and changed[-1] < chunk:
                yield from self._present_in_memory(changed.pop())
            if chunk in overlaid:
                continue
            seen = glance(value)
            if seen.present:
                yield chunk, seen.length
        while changed:
            yield from self._present_in_memory(changed.pop())

    def _present_in_memory(self, chunk: bytes) -> Iterator[tuple[bytes, int]]:
        length = _present_length(self.hot[chunk])
        if length is not None:
            yield chunk, length

    # -- checkpoints -------------------------------------------------------------------------------------------

    @property
    def changes(self) -> int:
        """Records and answers that the next checkpoint has to write."""
        return len(self._changed) + len(self._changed_answers)

    def cut(self) -> Snapshot:
        """What changed since the last cut. Until `settled` no other cut may be made."""
        assert not self._settling and not self._settling_answers
        self._settling, self._changed = self._changed, set()
        self._settling_answers, self._changed_answers = self._changed_answers, {}
        return Snapshot({chunk: self.hot[chunk] for chunk in self._settling}, self._settling_answers)

    def settled(self) -> None:
        """The index holds what was cut."""
        for chunk in self._settling - self._changed:
            inode = chunk[:8]
            of_inode = self._of_inode[inode]
            of_inode.discard(chunk)
            if not of_inode:
                del self._of_inode[inode]
            if self.hot[chunk] == NOTHING:
                del self.hot[chunk]
        self._settling = set()
        self._settling_answers = {}
        while len(self.hot) > self._records_cached + len(self._changed):
            self._evict()


def _present_length(record: Record) -> int | None:
    """Committed bytes; None: there is no committed data."""
    committed = record.committed
    return None if committed is None or committed.removed else committed.length
