"""What becomes of targets that were taken from their chains: their stores go, and the room is used for others.

The manager says so (verdict RETIRE with `remove`) only of a target id that its store has recorded as retired, in the
same transaction in which the chain went on without it. Such an id is never used again, so what is removed here is
never what a newer target holds.

* The store is open: everything in it is forgotten, some chunks at a time, and the engine gives the room back. It is
not closed,
  because reads that began before may still send from its files. A crash leaves the rest for the next start.
* It is not open (this process began when the target was on no chain any more): its directory is renamed, which is the
commit point,
  and removed. What a crash leaves under the other name goes at the next start of a daemon (`directory.py`).

One task for each such target. Page: `docs/concurrency/storage.md`.
"""

import asyncio
import logging
from collections.abc import Collection
from typing import Protocol

from fs_common.errors import EmberError
from fs_storage.engine.interface import ChunkStore

logger = logging.getLogger(__name__)

FORGET_AT_ONCE = 256
"""Chunks that one transaction of the engine drops: a few hundred KiB of log."""


class StoredTargets(Protocol):
    """The targets that a directory has something of (`directory.NodeDirectory`)."""

    def stored(self) -> list[int]: ...

    def remove_target(self, target: int) -> None:
        """In a thread. Raises `OSError`."""


class NothingStored:
    """Where stores are no directories."""

    def stored(self) -> list[int]:
        return []

    def remove_target(self, target: int) -> None: ...


class Retiring:
    def __init__(self, disk: StoredTargets) -> None:
        self._disk = disk
        self.left_over: set[int] = set()
        """Targets that the directory has and that were on no chain when this process began: the manager is told."""
        self._looked = False
        self._gone: dict[int, asyncio.Task[None]] = {}
        """By target id; kept when they are over, so that each begins once."""
        self._closing = False

    def look(self, placed: Collection[int]) -> None:
        """`placed`: the targets that routing gives this node."""
        if not self._looked:
            self._looked = True
            self.left_over = set(self._disk.stored())
        self.left_over.difference_update(placed)

    def remove(self, target: int, store: ChunkStore | None) -> None:
        """The manager says that it is not needed any more. `store`: if it is open; nothing is in work on it."""
        if target in self._gone or self._closing or (store is None and target not in self.left_over):
            return
        work = self._remove(target) if store is None else self._empty(target, store)
        self._gone[target] = asyncio.get_running_loop().create_task(work, name=f"remove target {target}")

    async def close(self) -> None:
        """What has begun is finished as far as it is one step."""
        self._closing = True
        await asyncio.gather(*self._gone.values(), return_exceptions=True)

    async def _remove(self, target: int) -> None:
        try:
            await asyncio.to_thread(self._disk.remove_target, target)
        except OSError as error:
            logger.error("the store of target %d, which is on no chain any more, cannot be removed: %s", target, error)
            return
        self.left_over.discard(target)
        logger.info("the store of target %d, which is on no chain any more, is removed", target)

    async def _empty(self, target: int, store: ChunkStore) -> None:
        count = 0
        try:
            while not self._closing and (held := store.held(b"", FORGET_AT_ONCE)):
                await store.forget([each.chunk for each in held])
                count += len(held)
        except EmberError as error:
            logger.error("target %d, which is on no chain any more, keeps what it has: %s", target, error)
            return
        logger.info("target %d is on no chain any more: %d chunks are dropped", target, count)
