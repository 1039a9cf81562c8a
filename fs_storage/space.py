"""How much of its disk a daemon may count as its own."""

import logging
import os
from pathlib import Path
from typing import NamedTuple

logger = logging.getLogger(__name__)


LOW_SHARE = 32
LOW_BYTES_MAX = 16 << 30


class DiskSpace(NamedTuple):
    capacity_bytes: int
    free_bytes: int


def low_mark(capacity_bytes: int, low_space_bytes: int) -> int:
    """With less free than this no new chunks are taken. `low_space_bytes`: as configured; 0: a share."""
    return low_space_bytes or min(capacity_bytes // LOW_SHARE, LOW_BYTES_MAX)


class Disk:
    """The file system of a directory, of which at most `capacity_bytes` (0: all) is this daemon's.

    Daemons that share it (`shared_by`, this one included) count an equal part each, so that a cluster does not promise
    the same bytes several times. What is kept free (`low_mark`) is nobody's. This is what is reported; what a target
    may use is the engine's to decide.
    """

    def __init__(self, directory: Path, capacity_bytes: int, shared_by: int, low_space_bytes: int = 0) -> None:
        self.low_space_bytes = low_space_bytes
        """As configured; it may change."""
        self._directory = directory
        self._capacity_bytes = capacity_bytes
        self._shared_by = shared_by
        self._last = DiskSpace(0, 0)
        self._looked = False
        self._silent = False
        """The disk did not answer when it was asked last."""

    def last_space(self) -> DiskSpace:
        """As `look` found it last, or as it is; of a disk that does not answer, with nothing free. Does not raise."""
        if not self._looked:
            self._ask()
        return DiskSpace(self._last.capacity_bytes, 0) if self._silent else self._last

    def look(self) -> None:
        """See how it is. Called from a thread: a disk may neither answer nor fail."""
        self._looked = True
        self._ask()

    def silent(self, reason: object) -> None:
        """It does not answer."""
        if not self._silent:
            self._silent = True
            logger.error("the disk of %s does not answer: %s", self._directory, reason)

    def _ask(self) -> None:
        try:
            self._last = self.space()
            self._silent = False
        except OSError as error:
            self.silent(error)

    def space(self) -> DiskSpace:
        """Raises `OSError`."""
        found = os.statvfs(self._directory)
        whole = found.f_blocks * found.f_frsize
        total, free = whole // self._shared_by, found.f_bavail * found.f_frsize // self._shared_by
        kept = low_mark(whole, self.low_space_bytes) // self._shared_by
        if self._capacity_bytes:
            total, free = min(total, self._capacity_bytes), min(free, self._capacity_bytes)
            kept = low_mark(total, self.low_space_bytes)
        return DiskSpace(max(total - kept, 0), max(free - kept, 0))

    def used_bytes(self, space: DiskSpace, own_bytes: int) -> int:
        """What is not free any more, by our own targets or by what else is on the disk."""
        return min(max(own_bytes, space.capacity_bytes - space.free_bytes), space.capacity_bytes)
