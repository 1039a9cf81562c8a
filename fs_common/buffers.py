"""Recycled buffers for payloads: fresh memory costs a page fault for every 4 KiB of it, and a registration where a
transport needs one.

Invariant: `outstanding_bytes` is the sum of the sizes of buffers taken and not released; a buffer is released once.

Used from one thread (the event loop).
"""

import mmap

from fs_common.checks import check
from fs_common.lasting import Lasting, lasting
from fs_common.limits import MIB

SIZE_MIN = mmap.PAGESIZE


class Buffer:
    """Memory on loan from a pool: page-aligned. `view` has exactly the bytes asked for."""

    __slots__ = ("_memory", "_pool", "view")

    def __init__(self, pool: "BufferPool", memory: Lasting, size: int) -> None:
        self._pool: BufferPool | None = pool
        self._memory = memory
        view = memory.view
        assert view is not None
        self.view = view[:size]

    def release(self) -> None:
        """Give it back. Its memory must not be used any more, nor views of it."""
        pool, self._pool = self._pool, None
        check(pool is not None, "a buffer is released once", len(self.view))
        assert pool is not None
        pool._put_back(self._memory)


class BufferPool:
    """Size classes of powers of two, each with its free list; at most `kept_bytes_max` are kept unused."""

    def __init__(self, kept_bytes_max: int = 256 * MIB) -> None:
        self.kept_bytes_max = kept_bytes_max
        self.kept_bytes = 0
        """In free lists."""
        self.outstanding_bytes = 0
        self._free: dict[int, list[Lasting]] = {}

    def take(self, size: int) -> Buffer:
        """A buffer of `size` bytes (>= 1) with arbitrary content."""
        check(size >= 1, "a buffer has at least one byte", size)
        size_class = SIZE_MIN if size <= SIZE_MIN else 1 << (size - 1).bit_length()
        free = self._free.get(size_class)
        if free:
            memory = free.pop()
            self.kept_bytes -= size_class
        else:
            memory = lasting(mmap.mmap(-1, size_class))
        self.outstanding_bytes += size_class
        return Buffer(self, memory, size)

    def _put_back(self, memory: Lasting) -> None:
        size_class = memory.length
        self.outstanding_bytes -= size_class
        if self.kept_bytes + size_class <= self.kept_bytes_max:
            self.kept_bytes += size_class
            self._free.setdefault(size_class, []).append(memory)
        else:
            memory.close()
