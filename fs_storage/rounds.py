"""Rounds over all targets of this daemon, for work that nobody asks for: settling and mending.

One task. It looks at every target at once when something has changed (`kick`) and then at an interval; what a round
leaves undone is tried in the next.
"""

import abc
import asyncio
import contextlib

from fs_common.endless import keep
from fs_storage.target import Target
from fs_storage.targets import Targets


class Rounds(abc.ABC):
    def __init__(self, name: str, targets: Targets, interval_s: float) -> None:
        self._name = name
        self._targets = targets
        self._interval_s = interval_s
        self._kicked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = keep(self._run, self._name, end_on=())

    def kick(self) -> None:
        """Something changed: look now."""
        self._kicked.set()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    @abc.abstractmethod
    async def _look(self, target: Target) -> None:
        """One round at one target, beside those at the others. Handles the errors that it expects."""

    async def _run(self) -> None:
        while True:
            self._kicked.clear()
            # One target's failure must not leave the rounds of others behind, unheard of.
            ends = await asyncio.gather(*(self._look(target) for target in self._targets.all()), return_exceptions=True)
            for end in ends:
                if isinstance(end, BaseException):
                    raise end
            with contextlib.suppress(TimeoutError):
                # Not `wait_for`: in Python 3.11 it may lose a cancellation.
                async with asyncio.timeout(self._interval_s):
                    await self._kicked.wait()
