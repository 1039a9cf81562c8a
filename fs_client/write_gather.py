"""Collects a stream of small writes into pieces that end where chunks end.

A chunk that is written in one piece is one update on every replica; cut elsewhere it is two.

A signal handler may raise between any two steps. So every step leaves what was taken before either gathered or in
`complete`, at worst in both: then it is stored twice, in the same place and order. Taking the same bytes for the same
place again makes no difference.

Pure.
"""

from collections import deque
from typing import NamedTuple

from fs_client.memory import allocate
from fs_common.limits import MIB

PIECE_MAX = 4 * MIB
"""Of larger chunks a piece is a part."""

Placed = tuple[int, memoryview]
"""Offset in the file, bytes."""


class _Gathered(NamedTuple):
    """Bytes [start, start + size) of the file, at the head of `memory`, which has `piece_size` bytes."""

    memory: memoryview
    start: int
    size: int


class WriteGather:
    """Invariant: what is gathered lies in one piece and does not fill it."""

    def __init__(self, chunk_size: int) -> None:
        self.piece_size = min(chunk_size, PIECE_MAX)
        self.complete: deque[Placed] = deque()
        """What is to be stored, in this order. Whoever stores it takes it off when that is certain."""
        self._gathered: _Gathered | None = None

    @property
    def end(self) -> int:
        """Offset in the file of the furthest end of what is here; 0: nothing is."""
        gathered = self._gathered
        end = 0 if gathered is None else gathered.start + gathered.size
        for offset, piece in self.complete:
            end = max(end, offset + len(piece))
        return end

    def add(self, offset: int, data: memoryview) -> None:
        """Take `data`, copying it; what is complete goes to `complete`."""
        gathered = self._gathered
        if gathered is not None and data and offset != gathered.start + gathered.size:
            self.take()
        while data:
            gathered = self._gathered
            if gathered is None:
                gathered = _Gathered(allocate(self.piece_size), offset, 0)
            memory, start, size = gathered
            room = self.piece_size - start % self.piece_size - size
            part = data[:room]
            memory[size : size + len(part)] = part
            self._gathered = _Gathered(memory, start, size + len(part))
            offset += len(part)
            data = data[len(part) :]
            if len(part) == room:
                self.take()

    def take(self) -> None:
        """What is gathered is complete."""
        gathered = self._gathered
        if gathered is not None:
            self.complete.append((gathered.start, gathered.memory[: gathered.size]))
            self._gathered = None
