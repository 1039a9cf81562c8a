"""What has changed since the last checkpoint: two memtables over the checkpointed store, seen as one.

Owns: the active memtable, which transactions write, and the frozen one, which the checkpoint under way puts into the
store below. A memtable says for a key: this is its value, or it is deleted; what it does not name is as below. Pure: no
loop, clock or disk in here.

Invariant: a change is undone (`Memtable.undo`) only before anything else than its own batch has seen it.
"""

from collections.abc import Iterator
from typing import Final

from fs_meta.kv.journal_format import Changes
from fs_meta.kv.overlay import Below, merged
from fs_meta.kv.sorted_keys import SortedKeys


class _Absent:
    """What a memtable says of a key that it does not name."""


PAGE_BYTES: Final = 4096
ABSENT: Final = _Absent()
Before = dict[bytes, bytes | _Absent | None]
"""Keys that a batch has changed, and what the memtable said before."""


class Memtable:
    __slots__ = ("changes", "journal_bytes", "keys")

    def __init__(self, changes: Changes | None = None, journal_bytes: int = 0) -> None:
        self.changes: Changes = {} if changes is None else changes
        self.keys = SortedKeys(self.changes)
        """The keys of `changes`."""
        self.journal_bytes = journal_bytes
        """Of the frames that are in here."""

    def apply(self, writes: Changes, before: Before) -> None:
        """Make a transaction's writes part of the batch whose changed keys `before` has, and gets."""
        changes = self.changes
        for key in writes:
            if key not in before:
                before[key] = old = changes.get(key, ABSENT)
                if old is ABSENT:
                    self.keys.add(key)
        changes.update(writes)

    def of_batch(self, before: Before) -> Changes:
        """What the batch has changed, as it is now."""
        changes = self.changes
        return {key: changes[key] for key in before}

    def undo(self, before: Before) -> None:
        """As if the batch had never been. Rare: the order of the keys is made anew."""
        for key, old in before.items():
            if isinstance(old, _Absent):
                del self.changes[key]
            else:
                self.changes[key] = old
        self.keys = SortedKeys(self.changes)


class Memtables:
    """A `Below`: the active memtable over the frozen one over the store."""

    __slots__ = ("_base", "active", "frozen")

    def __init__(self, base: Below) -> None:
        self._base = base
        self.active = Memtable()
        self.frozen: Memtable | None = None
        """None while there is no checkpoint."""

    def get(self, key: bytes) -> bytes | None:
        value = self.active.changes.get(key, ABSENT)
        if value is ABSENT:
            if self.frozen is not None:
                value = self.frozen.changes.get(key, ABSENT)
            if value is ABSENT:
                return self._base.get(key)
        return value  # type: ignore[return-value]

    def scan(self, begin: bytes, end: bytes, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        pairs = self._base.scan(begin, end, reverse)
        if self.frozen is not None:
            pairs = _over(self.frozen, pairs, begin, end, reverse)
        return _over(self.active, pairs, begin, end, reverse)

    def freeze(self) -> Memtable:
        """What was active is frozen, and nothing is in the active one."""
        assert self.frozen is None
        self.frozen, self.active = self.active, Memtable()
        return self.frozen

    def thaw(self) -> None:
        """The checkpoint has failed: what was frozen is active again, below what came since."""
        assert self.frozen is not None
        changes = {**self.frozen.changes, **self.active.changes}
        thawed = Memtable(changes, self.frozen.journal_bytes + self.active.journal_bytes)
        self.active, self.frozen = thawed, None

    @property
    def space_bytes(self) -> int:
        """An upper bound of what the checkpoints of both take on the disk: two pages for each key, and the values."""
        changes, journal_bytes = len(self.active.changes), self.active.journal_bytes
        if self.frozen is not None:
            changes += len(self.frozen.changes)
            journal_bytes += self.frozen.journal_bytes
        return changes * 2 * PAGE_BYTES + journal_bytes * 2


def _over(
    memtable: Memtable, pairs: Iterator[tuple[bytes, bytes]], begin: bytes, end: bytes, reverse: bool
) -> Iterator[tuple[bytes, bytes]]:
    keys = memtable.keys.between(begin, end, reverse)
    return pairs if keys is None else merged(keys, memtable.changes, pairs, reverse)
