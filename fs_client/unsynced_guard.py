"""What was acknowledged from memory does not stay unsynced for long in a process that goes on running.

A client tells that nothing was lost by a replica that serves still as it was (`unsynced`). If one replica of a chain
after the other is dropped and filled up again while a client has something unsynced there, and hears of none of it,
there is none left, and the next fsync has to say "lost" although the bytes are there. So while anything is unsynced

* newer routing is asked for;
* what is on chains that have changed is synced: those who had it are still there, all but one;
* so is what has been unsynced for `AGE_S`, whatever happens, as operating systems do with files that nobody syncs.

What a sync finds to be lost is told to whoever syncs the file next. Used by the mount; a program's own loop runs only
now and then. One task.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import NamedTuple

from fs_client.storage_client import StorageClient
from fs_client.sync_chains import sync_some
from fs_common.errors import EmberError

logger = logging.getLogger(__name__)

LOOK_S = 1.0
AGE_S = 30.0
SYNC_S = 10.0
"""For one sync; the next look tries again."""


class _Seen(NamedTuple):
    """When something was first found unsynced on a chain."""

    at_s: float
    version: int
    """Of the chain."""


class UnsyncedGuard:
    """See the module. `clock`: seconds, monotonic."""

    def __init__(self, storage: StorageClient, clock: Callable[[], float] = time.monotonic) -> None:
        self._storage = storage
        self._clock = clock
        self._seen: dict[int, _Seen] = {}

    async def run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            await self.look()

    async def look(self) -> None:
        """One look, and the sync that it asks for."""
        routing = self._storage.routing
        chains = self._storage.unsynced.chains()
        now = self._clock()
        self._seen = {
            chain: self._seen.get(chain) or _Seen(now, version)
            for chain in chains
            if (version := routing.chain_version(chain)) is not None
        }
        if not chains:
            return
        routing.watch(2 * LOOK_S)
        due = {
            chain
            for chain, seen in self._seen.items()
            if now - seen.at_s >= AGE_S or routing.chain_version(chain) != seen.version
        }
        if not due:
            return
        try:
            await sync_some(self._storage, due, SYNC_S)
        except EmberError as error:
            logger.debug("what is unsynced on %d chains cannot be synced now: %s", len(due), error)
            return
        for chain in due:
            self._seen.pop(chain, None)
