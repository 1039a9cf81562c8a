"""Is the history of a register linearizable? Exact and quick, as every write has a value of its own.

All operations with one value (its write, and the reads that saw it) have to stand together in any order that explains
the history. Value A has to come before value B if some operation of A had ended when one of B began; a history is
linearizable if that holds both ways for no pair of values (Gibbons and Korach, "Testing shared memories", 1997, for
histories in which it is known which read saw which write), and no read ends before its write begins.

So tens of thousands of operations take milliseconds, where `tests.storage.craq.linearizable` searches; the test
compares the two on small histories.

Pure.
"""

from bisect import bisect_left
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

FOREVER = float("inf")


class Operation(NamedTuple):
    """One operation as its client saw it. Times are seconds on one clock."""

    start: float
    end: float
    """`FOREVER`, of a write: never acknowledged, so it may take effect at any time after `start`, or never."""
    write: bool
    value: int
    who: str = ""


class _Zone(NamedTuple):
    """Of one value: every order has all its operations before those of a value that has one that begins later than
    `first_end`, and after those of a value that has one that ended before `last_start`."""

    first_end: float
    last_start: float
    value: int


def violation(operations: Iterable[Operation], initial: int = 0) -> list[Operation] | None:
    """The operations that contradict each other, by their times; None if some order explains all of them.

    `initial`: the value before any write.
    """
    by_value: dict[int, list[Operation]] = {initial: [Operation(-FOREVER, -FOREVER, True, initial, "initial")]}
    for operation in operations:
        by_value.setdefault(operation.value, []).append(operation)
    zones = []
    for value, found in by_value.items():
        writes = [operation for operation in found if operation.write]
        if len(found) == len(writes) == 1 and writes[0].end == FOREVER:
            continue  # nobody has seen it: it need not have happened
        early = [operation for operation in found if not writes or operation.end < writes[0].start]
        if early or len(writes) > 1:
            return sorted(early or writes)
        zones.append(_Zone(min(o.end for o in found), max(o.start for o in found), value))
    pair = _both_ways(zones)
    if pair is None:
        return None
    return sorted(_witnesses(by_value[pair[0]], by_value[pair[1]]))


def _both_ways(zones: list[_Zone]) -> tuple[int, int] | None:
    """Two values each of which has to come before the other."""
    forward = sorted(zone for zone in zones if zone.first_end < zone.last_start)
    for before, after in pairwise(forward):
        if after.first_end < before.last_start:
            return before.value, after.value
    # Those do not meet each other now, so one that all operations of a value lie within is the last to begin before.
    starts = [zone.first_end for zone in forward]
    for zone in zones:
        index = bisect_left(starts, zone.last_start) - 1
        if zone.first_end >= zone.last_start and index >= 0 and zone.first_end < forward[index].last_start:
            return forward[index].value, zone.value
    return None


def _witnesses(one: list[Operation], other: list[Operation]) -> set[Operation]:
    """Of each value its write, and what shows that it is before the other, and after it."""
    found = {operation for operation in (*one, *other) if operation.write}
    for operations in (one, other):
        found.add(min(operations, key=lambda operation: operation.end))
        found.add(max(operations, key=lambda operation: operation.start))
    return found
