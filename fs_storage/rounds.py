"""Rounds over all targets of this daemon, for work that nobody asks for: settling and mending.

One task, and one for each target that is being looked at. It looks at every target at once when something has changed
(`kick`) and then at an interval; what a round leaves undone is tried in the next. A look that takes long delays that of
no other target, and is followed by another if something has changed meanwhile.
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
        self._looks: dict[int, asyncio.Task[None]] = {}
        """By target."""
        self._again: set[int] = set()
        """Targets that something has changed of since their look began."""
        self._error: Exception | None = None
        """Which no look expected."""

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
        looks = list(self._looks.values())
        for look in looks:
            look.cancel()
        await asyncio.gather(*looks, return_exceptions=True)

    @abc.abstractmethod
    async def _look(self, target: Target) -> None:
        """One round at one target, beside those at the others. Handles the errors that it expects."""

    async def _run(self) -> None:
        while True:
            kicked = self._kicked.is_set()
            self._kicked.clear()
            if self._error is not None:
                # One target's failure must not leave the rounds of others behind, unheard of.
                error, self._error = self._error, None
                raise error
            for target in self._targets.all():
                if target.id not in self._looks:
                    self._begin(target)
                elif kicked:
                    self._again.add(target.id)
            with contextlib.suppress(TimeoutError):
                # Not `wait_for`: in Python 3.11 it may lose a cancellation.
                async with asyncio.timeout(self._interval_s):
                    await self._kicked.wait()

    def _begin(self, target: Target) -> None:
        look = asyncio.get_running_loop().create_task(self._look(target), name=f"{self._name} {target.id}")
        self._looks[target.id] = look
        look.add_done_callback(lambda done: self._ended(target, done))

    def _ended(self, target: Target, look: "asyncio.Task[None]") -> None:
        del self._looks[target.id]
        if look.cancelled():
            return
        error = look.exception()
        if isinstance(error, Exception):
            self._error = error
            self._kicked.set()
        if target.id in self._again:
            self._again.discard(target.id)
            # Of this target alone: looks at others may be under way, and would be asked for again in turn, for ever.
            if self._task is not None and target in self._targets.all():
                self._begin(target)
