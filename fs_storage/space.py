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
        total = found.f_blocks * found.f_frsize // self._shared_by
        free = found.f_bavail * found.f_frsize // self._shared_by
        if not self._capacity_bytes:
            return DiskSpace(total, free)
        return DiskSpace(min(total, self._capacity_bytes), min(free, self._capacity_bytes))

    def used_bytes(self, space: DiskSpace, own_bytes: int) -> int:
        """What is not free any more, by our own targets or by what else is on the disk."""
        return min(max(own_bytes, space.capacity_bytes - space.free_bytes), space.capacity_bytes)
