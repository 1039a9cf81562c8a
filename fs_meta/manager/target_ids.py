"""Ids of targets: `node * 100 + k` for the first 99 of a node, larger ones from a range of their own after that. Pure.

An id is used once, for ever: a record of each target's store is kept, also when the target is gone. So a directory
that is found on some disk is never taken for that of a newer target.

Called by: the manager, for targets that it places after the first chain table.
"""

from collections.abc import Iterable, Mapping

import msgspec

from fs_meta.manager.records import Store

PER_NODE = 100
FURTHER = 1 << 31
"""Above every `node * 100 + k` of nodes below 21,474,836."""


class TargetIds:
    def __init__(self, stores: Mapping[int, Store], used: Iterable[int] = ()) -> None:
        self._stores = stores
        """The records there are, by target id."""
        self._given = set(used)
        """Ids without a record: of targets on chains of earlier releases, of moves that have not begun, and those that
        were given and are not committed."""

    def allocate(self, node: int) -> int:
        """An id that no target ever had."""
        first = node * PER_NODE
        own = (first + number for number in range(1, PER_NODE) if first + PER_NODE <= FURTHER)
        for target in own:
            if target not in self._stores and target not in self._given:
                self._given.add(target)
                return target
        further = max((target for target in {*self._stores, *self._given} if target >= FURTHER), default=FURTHER)
        self._given.add(further + 1)
        return further + 1

    def give_back(self, targets: Iterable[int]) -> None:
        """Ids that were given and are not used: nobody was told of them."""
        self._given.difference_update(targets)

    def retired(self, target: int) -> Store:
        """The record of a target that was taken from its chain."""
        known = self._stores.get(target) or Store(target, b"", 0, 0, 0)
        return msgspec.structs.replace(known, retired=True)
