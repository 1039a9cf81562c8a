"""Memory that the machine really owns, lent to whatever is measured.

A virtual machine gives freed memory back to its host within seconds, and touching it again costs 2 to 3 ms a MiB (here:
0.4 GiB/s, where writing to the page cache runs at 5): whoever writes a large file after a pause measures that. So a
benchmark that fills page cache keeps as much memory as it will need, lets go of it right before each run, and takes it
back right after, before the host notices.
"""

import contextlib
import mmap
from collections.abc import Iterator

_MADV_POPULATE_WRITE = 23
"""Linux 5.14: give every page now."""


class WarmMemory:
    """`size` bytes, held except inside `lent`."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._memory: mmap.mmap | None = None
        self._take()

    def _take(self) -> None:
        memory = mmap.mmap(-1, self._size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.madvise(mmap.MADV_HUGEPAGE)
        try:
            memory.madvise(_MADV_POPULATE_WRITE)
        except OSError:
            # An older kernel: touch the pages one by one.
            for offset in range(0, self._size, mmap.PAGESIZE):
                memory[offset] = 1
        self._memory = memory

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """Free for others, still warm, from entry to exit."""
        self.release()
        try:
            yield
        finally:
            self._take()

    def release(self) -> None:
        """Give it up. Releasing twice is fine."""
        if self._memory is not None:
            self._memory.close()
            self._memory = None
