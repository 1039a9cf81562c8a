"""Checkpoints: moves what changed from the log into the index, so that the log and recovery stay short.

    0  what was stored so far is synced while the writer goes on, so that the syncs it has to wait for find little left
    1  settle, if there are patches: every commit so far is made durable in the log, and its patches go into the blocks
    2  cut: the log continues in its other file; what has changed so far is noted (on the event loop, in one step)
    3  block files that were written before the cut are synced
    4  the index stores what was noted, in one synced transaction: the commit point
    5  blocks dropped before the cut may be used again, and their storage may go (`give_back`); the log's first file may
       be written over at the next cut

A crash before 4 leaves the old index and both log files, which recovery replays; after 4 it skips the first file.
0, 3 and 4 run in a thread of their own, while the writer goes on.

One runs at a time. What calls for one: a long log, many changes, many dropped bytes, time, a full disk, closing.
"""

import asyncio
import errno
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from fs_common.checks import check
from fs_common.errors import Code, EmberError
from fs_storage.engine.give_back import GiveBack
from fs_storage.engine.opening import Opened, expiry
from fs_storage.engine.table import Snapshot
from fs_storage.engine.writer import Cut, Request

logger = logging.getLogger(__name__)

DROPPED_BYTES_MAX = 4 << 30
"""Blocks that wait to be used again: a checkpoint costs less than growing the files much further."""
DROPPED_SHARE = 16
"""The same as a part of the capacity, for small targets."""


CHANGES_MAX = 16_384
"""Changed records and answers: they stay in memory until then, and encoding them takes the interpreter 0.1 s."""


class Host(Protocol):
    """What a checkpoint needs of its store."""

    @property
    def failed(self) -> bool: ...

    @property
    def has_patches(self) -> bool: ...

    async def settle(self) -> None: ...

    def put(self, request: Request) -> None: ...

    def fence(self, failure: EmberError) -> None: ...


class Checkpointer:
    """See the module. Owned by the event loop."""

    def __init__(self, host: Host, opened: Opened, *, threaded: bool) -> None:
        self._host = host
        self._opened = opened
        self._interval_s = opened.settings.checkpoint_interval_s
        capacity = opened.settings.capacity_bytes
        self._dropped_bytes_max = min(DROPPED_BYTES_MAX, capacity // DROPPED_SHARE) if capacity else DROPPED_BYTES_MAX
        self._executor = ThreadPoolExecutor(1, "checkpoint") if threaded else None
        self._give_back = GiveBack(opened.slots, opened.blocks, self._executor, host.fence)
        self._task: asyncio.Task[None] | None = None
        """The checkpoint that runs."""
        self._next: asyncio.Task[None] | None = None
        """Waits for it, to run another one for all who came too late for it."""
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self.count = 0
        self.index_full = False
        """There is no storage to let the index grow: only what needs no new block is accepted."""

    def consider(self) -> None:
        """Begin one if something calls for it. Called after each group."""
        if self._task is not None or self._closed or self._host.failed:
            return
        opened = self._opened
        if (
            opened.log.bytes_used > opened.log_bytes_max
            or opened.slots.dropped_bytes > self._dropped_bytes_max
            or opened.table.changes > CHANGES_MAX
        ):
            self._begin()
        elif self._timer is None and opened.table.changes:
            self._timer = asyncio.get_running_loop().call_later(self._interval_s, self._begin)

    async def checkpoint(self) -> None:
        """Run one that holds everything decided before this call. Errors fence the store and are not raised."""
        if self._task is None:
            self._begin()
            following = self._task
        else:
            if self._next is None:
                self._next = asyncio.get_running_loop().create_task(self._run_after(self._task))
            following = self._next
        if following is not None:
            await asyncio.shield(following)

    async def _run_after(self, task: asyncio.Task[None]) -> None:
        await task
        self._next = None
        self._begin()
        if self._task is not None:
            await self._task

    async def make_room(self) -> None:
        """Make dropped blocks and unused storage available. On return the caller tries again, once."""
        opened = self._opened
        await self._give_back.finish()
        if opened.slots.dropped_bytes or opened.log.is_full or self.index_full or self._task is not None:
            await self.checkpoint()
        units = opened.slots.unused_units()
        if units and not self._host.failed:
            request = Request()
            request.punches = units
            self._host.put(request)
            await request.wait()

    async def close(self) -> None:
        """The last checkpoint."""
        if not self._host.failed and (self._opened.table.changes or self._task is not None):
            await self.checkpoint()
        self._closed = True
        self._cancel_timer()
        await self._give_back.close()
        for task in (self._next, self._task):
            if task is not None:
                await task
        if self._executor is not None:
            self._executor.shutdown()

    # -- one checkpoint ----------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._cancel_timer()
        if self._task is None and not self._closed and not self._host.failed:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _run(self) -> None:
        try:
            await self._checkpoint()
        except EmberError as error:
            self._host.fence(error)
        except OSError as error:
            self._host.fence(EmberError(Code.DISK_FAILED, f"a checkpoint failed: {error.strerror or error}"))
        except Exception as error:  # an invariant is broken: nothing may be built on this state
            logger.exception("a checkpoint failed")
            self._host.fence(EmberError(Code.DISK_FAILED, f"the engine stopped itself: {error!r}"))
        finally:
            self._task = None
        self.consider()

    async def _checkpoint(self) -> None:
        opened = self._opened
        if self._executor is not None:
            await asyncio.get_running_loop().run_in_executor(self._executor, self._sync_ahead)
        if self._host.has_patches:
            await self._host.settle()
        cut: Cut | None = None
        snapshot = Snapshot({}, {})
        dropped: list[tuple[int, int]] = []

        def on_cut(made: Cut) -> None:
            nonlocal cut, snapshot, dropped
            cut = made
            snapshot = opened.table.cut()
            dropped = opened.slots.cut()

        request = Request()
        request.switch = True
        request.on_cut = on_cut
        self._host.put(request)
        await request.wait()
        if request.failure is not None and request.failure.code is not Code.NO_SPACE:
            raise request.failure
        check(cut is not None, "a switched log has a cut")
        assert cut is not None
        if self._executor is not None:
            loop = asyncio.get_running_loop()
            self.index_full = await loop.run_in_executor(self._executor, self._write, snapshot, cut)
        else:
            self.index_full = self._write(snapshot, cut)
        opened.table.settled()
        opened.slots.reclaim(dropped)
        self.count += 1
        self._give_back.consider()

    def _sync_ahead(self) -> None:
        """Step 0, in the checkpoint thread. Nothing counts on it."""
        opened = self._opened
        for file in opened.blocks.unsynced():
            opened.blocks.sync(file)
        opened.log.sync_ahead()

    def _write(self, snapshot: Snapshot, cut: Cut) -> bool:
        """Steps 3 and 4, in the checkpoint thread. Whether the index cannot grow any further."""
        opened = self._opened
        for file in cut.files:
            opened.blocks.sync(file)
        opened.syncs.check()
        try:
            expired = expiry(opened.odometer.now(), whole=opened.mark.mark.whole)
            opened.index.apply(snapshot.encoded(), snapshot.answers, cut.sequence, expired)
        except OSError:
            opened.mark.fail()
            raise
        try:
            opened.index.reserve()
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return True
        return False
