"""Gives storage that blocks do not need back to the file system: for other targets, and for whoever asks how full the
disk is.

What goes is what a class had to spare for a whole interval (`slots`), so that files which come and go use the same
storage again, which costs nothing. It goes a few units at a time, in the checkpoint thread, with pauses: writes to a
file wait while storage is taken from it, for milliseconds a unit where the device is told at once (`discard` mounts).

A crash at any step leaves units that may have storage, as there are at every opening.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor

from fs_common.errors import Code, EmberError
from fs_storage.engine.blocks import BlockFiles
from fs_storage.engine.slots import Slots, Unit

logger = logging.getLogger(__name__)

INTERVAL_S = 30.0
"""So long storage is not needed before it goes, and twice so long at most."""
TAKEN_UNITS = 512
"""Not to be had for new blocks until they are given back."""
ROUND_UNITS = 8
"""Given back without a pause."""
PAUSE_FACTOR = 4
"""A pause is so many times as long as the round before it took."""
PAUSE_S_MIN = 0.01


class GiveBack:
    """See the module. Owned by the event loop."""

    def __init__(
        self, slots: Slots, blocks: BlockFiles, executor: Executor | None, fence: Callable[[EmberError], None]
    ) -> None:
        self._slots = slots
        self._blocks = blocks
        self._executor = executor
        """None: on the event loop, where no time passes."""
        self._fence = fence
        self._timer: asyncio.TimerHandle | None = None
        """Until the end of an interval; set while something may become spare."""
        self._task: asyncio.Task[None] | None = None
        """Gives back what was spare at the end of one."""
        self._hurry = asyncio.Event()
        """No pauses: somebody waits for it."""
        self._closed = False

    def consider(self) -> None:
        """Begin an interval if there is anything that may become spare. Called after each checkpoint."""
        if self._timer is None and self._task is None and not self._closed and self._slots.has_surplus():
            self._slots.mark()
            self._timer = asyncio.get_running_loop().call_later(INTERVAL_S, self._begin)

    async def finish(self) -> None:
        """Wait until what is being given back is gone."""
        if self._task is not None:
            self._hurry.set()
            await asyncio.shield(self._task)

    async def close(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await self.finish()

    def _begin(self) -> None:
        self._timer = None
        self._slots.mark()
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            while not self._closed and (units := self._slots.spare_units(TAKEN_UNITS)):
                await self._give(units)
        except OSError as error:
            self._fence(EmberError(Code.DISK_FAILED, f"storage cannot be given back: {error.strerror or error}"))
            self._closed = True
        except Exception as error:  # an invariant is broken
            logger.exception("giving storage back failed")
            self._fence(EmberError(Code.DISK_FAILED, f"the engine stopped itself: {error!r}"))
            self._closed = True
        finally:
            self._task = None
            self._hurry.clear()
        self.consider()

    async def _give(self, units: list[Unit]) -> None:
        for first in range(0, len(units), ROUND_UNITS):
            if self._closed:
                return
            some = units[first : first + ROUND_UNITS]
            if self._executor is None:
                self._punch(some)
                self._slots.given(some)
                continue
            took_s = await asyncio.get_running_loop().run_in_executor(self._executor, self._punch, some)
            self._slots.given(some)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), max(PAUSE_S_MIN, PAUSE_FACTOR * took_s))

    def _punch(self, units: list[Unit]) -> float:
        """Returns the seconds it took. In the checkpoint thread, if there is one."""
        begin = time.perf_counter()
        for unit in units:
            self._blocks.punch(*unit)
        return time.perf_counter() - begin
