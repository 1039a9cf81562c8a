"""Memory for the payloads of updates, from their arrival until nobody needs them.

A payload is held by the call it came with (until its reply is sent) and by the updates made of it (until each is
done, which may be after the caller gave up). It goes back to the pool when both have let go.

Memory is counted by the receiver's position on the chain, because an update that holds memory at one position waits
for memory at the next: with one count for all, the nodes of a ring of chains could each hold what the other needs.
The last position waits for nobody, so memory always comes free. When the chain changes, what is under way is counted at
the position that it is at now.
"""

from fs_common.buffers import Buffer, BufferPool
from fs_common.checks import check
from fs_common.errors import Code, EmberError


class Payload(list[memoryview]):
    """The views a payload is received into, and who needs them."""

    def __init__(self, memory: "PayloadMemory", position: int, buffer: Buffer) -> None:
        super().__init__((buffer.view,))
        self._memory = memory
        self._position = position
        self._buffer = buffer
        self._holds = 1

    def hold(self) -> None:
        check(self._holds > 0, "a payload is held before it is free")
        self._holds += 1

    def count_at(self, position: int) -> None:
        """Its receiver is at `position` now."""
        if position != self._position:
            self._memory.moved(self._position, position, len(self[0]))
            self._position = position

    def drop(self) -> None:
        """Let go. The views must not be used afterwards."""
        check(self._holds > 0, "a payload is dropped as often as it is held")
        self._holds -= 1
        if not self._holds:
            self._memory.freed(self._position, len(self[0]))
            self._buffer.release()


class PayloadMemory:
    def __init__(self, pool: BufferPool, limit_bytes: int) -> None:
        self._pool = pool
        self.limit_bytes = limit_bytes
        """For each position."""
        self._used_bytes: dict[int, int] = {}

    def take(self, position: int, length: int) -> Payload:
        """Memory for one payload of `length` >= 1 bytes, held once. Raises BUSY when the position has no more."""
        used = self._used_bytes.get(position, 0)
        if used + length > self.limit_bytes:
            raise EmberError(Code.BUSY, f"{used} bytes of updates are in work here already; try again")
        self._used_bytes[position] = used + length
        return Payload(self, position, self._pool.take(length))

    def freed(self, position: int, length: int) -> None:
        self._used_bytes[position] -= length

    def moved(self, before: int, position: int, length: int) -> None:
        """What a position has may be more than the limit then; it takes nothing new before it has less."""
        self._used_bytes[before] -= length
        self._used_bytes[position] = self._used_bytes.get(position, 0) + length

    @property
    def used_bytes(self) -> int:
        return sum(self._used_bytes.values())
