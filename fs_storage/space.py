"""How much of its disk a daemon may count as its own."""

import logging
import os
from pathlib import Path
from typing import NamedTuple

logger = logging.getLogger(__name__)


class DiskSpace(NamedTuple):
    capacity_bytes: int
    free_bytes: int


class Disk:
    """The file system of a directory, of which at most `capacity_bytes` (0: all) is this daemon's.

    Daemons that share it (`shared_by`, this one included) count an equal part each, so that a cluster does not promise
    the same bytes several times. This is what is reported; what a target may use is the engine's to decide.
    """

    def __init__(self, directory: Path, capacity_bytes: int, shared_by: int) -> None:
        self._directory = directory
        self._capacity_bytes = capacity_bytes
        self._shared_by = shared_by
        self._last = DiskSpace(0, 0)
        self._silent = False
        """The disk did not answer when it was asked last."""

    def last_space(self) -> DiskSpace:
        """As `space`; of a disk that does not answer what it said last, with nothing free. Does not raise `OSError`."""
        try:
            self._last = self.space()
            self._silent = False
        except OSError as error:
            if not self._silent:
                self._silent = True
                logger.error("the disk of %s does not answer: %s", self._directory, error)
            return DiskSpace(self._last.capacity_bytes, 0)
        return self._last

    def space(self) -> DiskSpace:
        """Raises `OSError`."""
        found = os.statvfs(self._directory)
        total = found.f_blocks * found.f_frsize // self._shared_by
        free = found.f_bavail * found.f_frsize // self._shared_by
        if not self._capacity_bytes:
            return DiskSpace(total, free)
        return DiskSpace(min(total, self._capacity_bytes), min(free, self._capacity_bytes))

    def used_bytes(self, space: DiskSpace, own_bytes: int) -> int:
        """What is not free any more, by our own targets or by what else is on the disk."""
        return min(max(own_bytes, space.capacity_bytes - space.free_bytes), space.capacity_bytes)
