"""The one way in which the files of an open target are synced.

Linux reports that a file could not be written once for each open file description, marks the pages clean, and lets the
next sync of it succeed. The writer and the checkpoint thread share descriptors. So:

* one sync of a file at a time, under its lock: who comes second waits for what the first finds (its sync would wait for
  the same pages anyway);
* after one sync of the target has failed every later one fails, whichever file it is for;
* the failure is noted in the target's mark before anybody hears of it, so that no other process believes the page
  cache.
"""

import errno
import threading
from collections.abc import Callable

from fs_storage.engine.disk import Disk


class SyncFailed(OSError):
    """Nobody knows what is on the disk. Never an error number that could be taken for a full disk."""


class Syncs:
    """See the module. Used from any thread."""

    def __init__(self, disk: Disk, note_failure: Callable[[], None]) -> None:
        self._disk = disk
        self._note_failure = note_failure
        """Called in the thread whose sync failed."""
        self._failure: OSError | None = None

    def sync(self, file: int, lock: threading.Lock) -> None:
        """On return what was written to the file before is durable. `lock`: the file's. Raises `SyncFailed`."""
        with lock:
            self.check()
            try:
                self._disk.sync(file)
            except OSError as error:
                self._failure = error
                self._note_failure()
            self.check()

    def check(self) -> None:
        """Raise what a sync failed with, if one did."""
        if self._failure is not None:
            raise SyncFailed(errno.EIO, f"it could not be synced ({self._failure.strerror or self._failure})")
