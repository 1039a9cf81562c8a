"""A bound on bytes in flight, first come first served."""

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType


class OutOfTime(Exception):
    """No share within the time given."""


class ByteBudget:
    """At most `limit` bytes are held, or one holder alone. Who holds must not wait for another share."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self._waiting: deque[tuple[asyncio.Future[bool], int]] = deque()
        """Not empty only while the first does not fit. Done with whether the share was given."""

    def share(self, size: int, left_s: Callable[[], float] | None = None) -> "Share":
        """`async with budget.share(size):` holds `size` bytes of it. Raises `OutOfTime` when `left_s`, which says how
        long to wait from now on, says 0 or less."""
        return Share(self, size, left_s)

    async def _take(self, size: int, left_s: Callable[[], float] | None) -> None:
        if not self._waiting and self._fits(size):
            self.held += size
            return
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[bool] = loop.create_future()
        self._waiting.append((turn, size))
        timer = None if left_s is None else _Timer(loop, turn, left_s)
        try:
            given = await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.result():
                self._give_back(size)
            else:
                self._admit()
            raise
        finally:
            if timer is not None:
                timer.cancel()
        if not given:
            self._admit()
            raise OutOfTime

    def _fits(self, size: int) -> bool:
        return self.held == 0 or self.held + size <= self.limit

    def _give_back(self, size: int) -> None:
        self.held -= size
        self._admit()

    def _admit(self) -> None:
        while self._waiting:
            turn, size = self._waiting[0]
            if turn.done():
                self._waiting.popleft()
                continue
            if not self._fits(size):
                return
            self._waiting.popleft()
            self.held += size
            turn.set_result(True)


class _Timer:
    """Ends the wait for a turn when no time is left."""

    __slots__ = ("_handle", "_left_s", "_loop", "_turn")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, turn: "asyncio.Future[bool]", left_s: Callable[[], float]
    ) -> None:
        self._loop = loop
        self._turn = turn
        self._left_s = left_s
        self._handle = loop.call_later(max(left_s(), 0.0), self._look)

    def _look(self) -> None:
        if self._turn.done():
            return
        left_s = self._left_s()
        if left_s > 0:
            self._handle = self._loop.call_later(left_s, self._look)
        else:
            self._turn.set_result(False)

    def cancel(self) -> None:
        self._handle.cancel()


class Share:
    __slots__ = ("_budget", "_left_s", "_size")

    def __init__(self, budget: ByteBudget, size: int, left_s: Callable[[], float] | None) -> None:
        self._budget = budget
        self._size = size
        self._left_s = left_s

    async def __aenter__(self) -> None:
        await self._budget._take(self._size, self._left_s)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._budget._give_back(self._size)
