"""A bound on bytes in flight, first come first served."""

import asyncio
from collections import deque
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

    def share(self, size: int, timeout_s: float | None = None) -> "Share":
        """`async with budget.share(size):` holds `size` bytes of it. Raises `OutOfTime` after `timeout_s`."""
        return Share(self, size, timeout_s)

    async def _take(self, size: int, timeout_s: float | None) -> None:
        if not self._waiting and self._fits(size):
            self.held += size
            return
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[bool] = loop.create_future()
        self._waiting.append((turn, size))
        timer = None if timeout_s is None else loop.call_later(max(timeout_s, 0.0), _give_up, turn)
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


def _give_up(turn: "asyncio.Future[bool]") -> None:
    if not turn.done():
        turn.set_result(False)


class Share:
    __slots__ = ("_budget", "_size", "_timeout_s")

    def __init__(self, budget: ByteBudget, size: int, timeout_s: float | None) -> None:
        self._budget = budget
        self._size = size
        self._timeout_s = timeout_s

    async def __aenter__(self) -> None:
        await self._budget._take(self._size, self._timeout_s)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._budget._give_back(self._size)
