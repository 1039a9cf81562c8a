"""How long to wait before a call is tried again, and for how long to try.

Two kinds of failures: those that time mends, and those that a change of a chain mends. After one of the latter the
pause ends as soon as there is newer routing, and is never long: a daemon may have the routing later than its clients.
"""

import asyncio
import random
import time
from collections.abc import Callable
from typing import Protocol

from fs_common.errors import EmberError, Retry

FIRST_S = 0.01
MAX_S = 1.0
CHANGE_MAX_S = 0.25
"""Longest pause where a change of the chain is waited for."""
INTERNAL_TRIES_MAX = 3
"""A server's bug is most likely the same at the next try."""


class News(Protocol):
    """Who tells of new routing (`routing_cache.RoutingCache`)."""

    async def newer(self, known: int, timeout_s: float) -> bool:
        """Wait for routing that is newer than version `known`; whether it is here."""


class Attempts:
    """The tries of one call within its total deadline. The second try follows at once, later ones wait longer."""

    __slots__ = ("count", "deadline", "lease_left_s", "timeout_s")

    def __init__(
        self, timeout_s: float, deadline: float | None = None, lease_left_s: Callable[[], float] | None = None
    ) -> None:
        self.timeout_s = timeout_s
        self.deadline = time.monotonic() + timeout_s if deadline is None else deadline
        """Monotonic time."""
        self.lease_left_s = lease_left_s
        """How long the lease lasts under which the call is made, if it is made under one: no try begins after it."""
        self.count = 0
        """Failed tries so far."""

    def left_s(self) -> float:
        left_s = self.deadline - time.monotonic()
        return left_s if self.lease_left_s is None else min(left_s, self.lease_left_s())

    def try_s(self, limit_s: float) -> float:
        """Time limit of the next try: at most `limit_s`, within the deadline, never 0."""
        return max(min(limit_s, self.left_s()), 0.001)

    async def again(self, error: EmberError, *, at_once: bool = False) -> bool:
        """Wait as long as the next try should; False if `error` is final or the deadline would be over by then."""
        if error.retry is Retry.FINAL:
            return False
        self.count += 1
        wait_s = 0.0
        if not at_once and self.count > 1:
            wait_s = min(FIRST_S * 2 ** min(self.count - 2, 10), MAX_S) * random.uniform(0.5, 1.0)
        if self.left_s() <= wait_s:
            return False
        if wait_s:
            await asyncio.sleep(wait_s)
        return True

    async def after_change(self, error: EmberError, news: News, known: int) -> bool:
        """`again`, where a change of the chain may help: the pause ends with routing newer than version `known`, with
        which the try was made that has failed. The second try follows at once if it may reach the same daemon anew."""
        if error.retry is Retry.FINAL:
            return False
        self.count += 1
        if self.count > 1 or error.retry is Retry.AFTER_REFRESH:
            wait_s = min(FIRST_S * 2 ** min(self.count, 10), CHANGE_MAX_S) * random.uniform(0.5, 1.0)
            await news.newer(known, max(min(wait_s, self.left_s()), 0.0))
        return self.left_s() > 0
