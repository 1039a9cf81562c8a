"""Collects a stream of small writes into pieces that end where chunks end.

A chunk that is written in one piece is one update on every replica; cut elsewhere it is two.

Pure.
"""

from fs_client.memory import allocate
from fs_common.limits import MIB

PIECE_MAX = 4 * MIB
"""Of larger chunks a piece is a part."""

Placed = tuple[int, memoryview]
"""Offset in the file, bytes."""


class WriteGather:
    """Invariant: what is gathered lies in one piece, from `_start` on, and does not fill it."""

    def __init__(self, chunk_size: int) -> None:
        self.piece_size = min(chunk_size, PIECE_MAX)
        self._memory: memoryview | None = None
        """Of `piece_size` bytes; None: nothing is gathered."""
        self._start = 0
        """Offset in the file of what is gathered."""
        self._count = 0

    @property
    def end(self) -> int:
        """Offset in the file of the end of what is gathered; 0: nothing is."""
        return self._start + self._count if self._count else 0

    def add(self, offset: int, data: memoryview) -> list[Placed]:
        """Take `data`, copying it. Returns what is complete, for the caller to keep; in file order of the calls."""
        complete: list[Placed] = []
        if not data:
            return complete
        if self._count and offset != self._start + self._count:
            complete += self.take()
        while data:
            if self._memory is None:
                self._memory = allocate(self.piece_size)
                self._start = offset
            room = self.piece_size - self._start % self.piece_size - self._count
            part = data[:room]
            self._memory[self._count : self._count + len(part)] = part
            self._count += len(part)
            offset += len(part)
            data = data[len(part) :]
            if len(part) == room:
                complete += self.take()
        return complete

    def take(self) -> list[Placed]:
        """Give up what is gathered: one piece or none."""
        memory, self._memory = self._memory, None
        count, self._count = self._count, 0
        return [] if memory is None else [(self._start, memory[:count])]
