"""A bound on bytes in flight, first come first served."""

import asyncio
from collections import deque
from types import TracebackType


class ByteBudget:
    """At most `limit` bytes are held, or one holder alone. Who holds must not wait for another share."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()
        """Not empty only while the first does not fit."""

    def share(self, size: int) -> "Share":
        """`async with budget.share(size):` holds `size` bytes of it."""
        return Share(self, size)

    async def _take(self, size: int) -> None:
        if not self._waiting and self._fits(size):
            self.held += size
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, size))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give_back(size)
            else:
                self._admit()
            raise

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
            turn.set_result(None)


class Share:
    __slots__ = ("_budget", "_size")

    def __init__(self, budget: ByteBudget, size: int) -> None:
        self._budget = budget
        self._size = size

    async def __aenter__(self) -> None:
        await self._budget._take(self._size)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._budget._give_back(self._size)
