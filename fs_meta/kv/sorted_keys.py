"""Byte strings in order, for many insertions between few reads of ranges. Pure.

Blocks of some hundred keys each: an insertion moves at most a block, a range costs a search and what it has. New keys
wait in a list until a range is read, so a burst of writes that nobody lists sorts nothing; many at once are sorted in
one go.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator

BLOCK = 256
"""Keys for each block when it is made; it is split at twice as many."""
_BULK = 8
"""When more than one in so many keys is new, all are sorted: cheaper than inserting one by one."""


class SortedKeys:
    __slots__ = ("_blocks", "_count", "_firsts", "_new")

    def __init__(self, keys: Iterable[bytes] = ()) -> None:
        self._blocks: list[list[bytes]] = []
        """None is empty."""
        self._firsts: list[bytes] = []
        """The first key of each block."""
        self._count = 0
        """Keys in blocks."""
        self._new = list(keys)

    def add(self, key: bytes) -> None:
        """A key that is not there yet."""
        self._new.append(key)

    def between(self, begin: bytes, end: bytes, reverse: bool = False) -> Iterator[bytes] | None:
        """The keys with `begin <= key < end` in order (`reverse`: backwards); None: there are none.

        No key is added while the iterator lives.
        """
        if self._new:
            self._place_new()
        if not self._blocks:
            return None
        first = max(bisect_right(self._firsts, begin) - 1, 0)
        start = bisect_left(self._blocks[first], begin)
        if start == len(self._blocks[first]):
            first, start = first + 1, 0
            if first == len(self._blocks):
                return None
        if self._blocks[first][start] >= end:
            return None
        last = bisect_left(self._firsts, end) - 1
        stop = bisect_left(self._blocks[last], end)
        if first == last:
            keys = self._blocks[first][start:stop]
            return reversed(keys) if reverse else iter(keys)
        return self._backwards(first, start, last, stop) if reverse else self._forwards(first, start, last, stop)

    def _forwards(self, first: int, start: int, last: int, stop: int) -> Iterator[bytes]:
        yield from self._blocks[first][start:]
        for index in range(first + 1, last):
            yield from self._blocks[index]
        yield from self._blocks[last][:stop]

    def _backwards(self, first: int, start: int, last: int, stop: int) -> Iterator[bytes]:
        yield from reversed(self._blocks[last][:stop])
        for index in range(last - 1, first, -1):
            yield from reversed(self._blocks[index])
        yield from reversed(self._blocks[first][start:])

    def _place_new(self) -> None:
        new, self._new = self._new, []
        count = self._count + len(new)
        if len(new) * _BULK > self._count:
            for block in self._blocks:
                new += block
            new.sort()
            self._blocks = [new[index : index + BLOCK] for index in range(0, len(new), BLOCK)]
            self._firsts = [block[0] for block in self._blocks]
        else:
            for key in new:
                self._insert(key)
        self._count = count

    def _insert(self, key: bytes) -> None:
        index = max(bisect_right(self._firsts, key) - 1, 0)
        block = self._blocks[index]
        insort(block, key)
        self._firsts[index] = block[0]
        if len(block) > 2 * BLOCK:
            self._blocks[index : index + 1] = [block[:BLOCK], block[BLOCK:]]
            self._firsts.insert(index + 1, block[BLOCK])
