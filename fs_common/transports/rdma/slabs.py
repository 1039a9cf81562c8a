"""Slabs: registered memory that bytes of files are read into, on their way to who asked for them.

Of two sizes, so that small answers do not hold large pieces; each size grows by whole blocks up to its bound and is
never given back. Who finds none free waits in order.

Invariant: a slab is free, or belongs to one taker until its `release`; nobody waits while one of his size is free.

Used on the device's loop only.
"""

import mmap
from collections import deque
from collections.abc import Callable

from fs_common.checks import check
from fs_common.lasting import Lasting, lasting
from fs_common.limits import KIB, MIB

SMALL_BYTES = 64 * KIB
LARGE_BYTES = 1 * MIB
"""More is read in several pieces, each sent when it is there."""
BLOCK_BYTES = 8 * MIB
SMALL_BLOCKS_MAX = 1
LARGE_BLOCKS_MAX = 7
POOL_BYTES_MAX = (SMALL_BLOCKS_MAX + LARGE_BLOCKS_MAX) * BLOCK_BYTES
"""Of one process, whatever the number of its connections."""


class Slab:
    """Memory on loan. `view` is all of it."""

    __slots__ = ("_size", "_taken", "view")

    def __init__(self, size: "_Size", view: memoryview) -> None:
        self._size = size
        self._taken = True
        self.view = view

    def release(self) -> None:
        """No work with it is outstanding. Called once; the next who waits may get it before this returns."""
        check(self._taken, "a slab is released once")
        self._size.put_back(self)


class Waiting:
    """A place in the queue for a slab."""

    __slots__ = ("ready",)

    def __init__(self, ready: Callable[[Slab], None]) -> None:
        self.ready: Callable[[Slab], None] | None = ready

    def cancel(self) -> None:
        """`ready` will not be called any more. Idempotent."""
        self.ready = None


class _Size:
    """All slabs of one size."""

    def __init__(self, slab_bytes: int, blocks_max: int) -> None:
        self.slab_bytes = slab_bytes
        self.blocks_max = blocks_max
        self.blocks: list[Lasting] = []
        self.free: list[Slab] = []
        self.waiting: deque[Waiting] = deque()
        """Some may have cancelled."""

    def take(self) -> Slab | None:
        if not self.free:
            if len(self.blocks) == self.blocks_max:
                return None
            memory = memoryview(mmap.mmap(-1, BLOCK_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
            self.blocks.append(lasting(memory))
            for offset in range(BLOCK_BYTES - self.slab_bytes, -1, -self.slab_bytes):
                slab = Slab(self, memory[offset : offset + self.slab_bytes])
                slab._taken = False
                self.free.append(slab)
        slab = self.free.pop()
        slab._taken = True
        return slab

    def put_back(self, slab: Slab) -> None:
        while self.waiting:
            ready = self.waiting.popleft().ready
            if ready is not None:
                ready(slab)
                return
        slab._taken = False
        self.free.append(slab)

    def close(self) -> None:
        self.free.clear()
        self.waiting.clear()
        for block in self.blocks:
            block.close()
        self.blocks.clear()


class SlabPool:
    """The slabs of one process, for all of its devices and connections."""

    def __init__(self, small_blocks_max: int = SMALL_BLOCKS_MAX, large_blocks_max: int = LARGE_BLOCKS_MAX) -> None:
        self._small = _Size(SMALL_BYTES, small_blocks_max)
        self._large = _Size(LARGE_BYTES, large_blocks_max)
        self.takers: set[Callable[[], None]] = set()
        """Called when somebody has to wait: who has slabs that are no longer used, and has not looked, looks now. They
        give none back before they return."""
        self.short = False
        """Somebody waited, and more may: who has slabs looks as soon as they are no longer used."""

    @property
    def bytes(self) -> int:
        """Of all slabs, free or not."""
        return (len(self._small.blocks) + len(self._large.blocks)) * BLOCK_BYTES

    @property
    def waiting(self) -> int:
        """Who waits, those included that have cancelled and whose turn has not come."""
        return len(self._small.waiting) + len(self._large.waiting)

    def take(self, length: int) -> Slab | None:
        """A slab of at least `length` bytes, or the largest there is. None: none is free; `wait`."""
        size = self._size(length)
        if size.waiting:
            return None
        slab = size.take()
        self.short = slab is None
        return slab

    def wait(self, length: int, ready: Callable[[Slab], None]) -> Waiting:
        """`take` gave None: `ready` is called with a slab when it is this caller's turn. It must not raise."""
        waiting = Waiting(ready)
        self._size(length).waiting.append(waiting)
        self.short = True
        for look in self.takers:
            look()
        return waiting

    def _size(self, length: int) -> _Size:
        return self._small if length <= SMALL_BYTES else self._large

    def close(self) -> None:
        """All slabs are given up; nobody uses them or waits any more."""
        self._small.close()
        self._large.close()

    def stats(self) -> dict[str, int]:
        return {"rdma_slab_bytes": self.bytes, "rdma_slab_waiting": self.waiting}
