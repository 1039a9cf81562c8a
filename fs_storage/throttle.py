"""How fast replicas are filled up: at a bounded rate, and giving way to clients.

While reads or updates of clients come to this daemon, or to that which is sent to, one piece of work is done at a
time, and after each there is a rest of nine times as long: so filling takes a tenth of what processors, disks and
network have to give, whatever that is. Otherwise up to `AT_ONCE` pieces are done side by side.

Called by: `resync`; `holdings` tells the other side.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

AT_ONCE = 4
"""Pieces of work side by side, for all targets of the daemon: enough for a disk and a socket to be busy together."""
SHARE = 0.1
"""Of the time, while clients are served: their rate stays above eight tenths of what it is without."""
SERVING_S = 0.2
"""For so long after a request of a client more are expected."""
REST_S_MAX = 1.0
"""A piece that took long waited for something: that must not make filling stand still."""


class Pace:
    """The arithmetic. Pure: the caller says what time it is, in seconds."""

    def __init__(self, bytes_per_s: int) -> None:
        self.bytes_per_s = bytes_per_s
        self._free_at_s = 0.0
        """When what was sent so far has used up its time."""
        self._requests = -1
        self._serving_until_s = 0.0

    def serving(self, now_s: float, requests: int) -> bool:
        """Whether clients are being served. `requests`: theirs so far."""
        if requests != self._requests:
            if self._requests >= 0:
                self._serving_until_s = now_s + SERVING_S
            self._requests = requests
        return now_s < self._serving_until_s

    def reserve(self, now_s: float, size_bytes: int) -> float:
        """How long to wait before `size_bytes` are sent, by the bound alone."""
        if not self.bytes_per_s:
            return 0.0
        begin_s = max(now_s, self._free_at_s)
        self._free_at_s = begin_s + size_bytes / self.bytes_per_s
        return begin_s - now_s


def rest_s(took_s: float) -> float:
    """After a piece of work that took so long, while clients are served."""
    return min(took_s * (1 - SHARE) / SHARE, REST_S_MAX)


class Throttle:
    """The waiting."""

    def __init__(self, bytes_per_s: int, requests: Callable[[], int]) -> None:
        """`requests`: how many reads and updates of clients came so far."""
        self._pace = Pace(bytes_per_s)
        self._requests = requests
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._alone = asyncio.Lock()
        """Held by whoever works, or rests, while clients are served."""

    @property
    def bytes_per_s(self) -> int:
        """The bound; 0: none. May be changed."""
        return self._pace.bytes_per_s

    @bytes_per_s.setter
    def bytes_per_s(self, value: int) -> None:
        self._pace.bytes_per_s = value

    def serving(self) -> bool:
        """Whether this daemon serves clients just now."""
        return self._pace.serving(asyncio.get_running_loop().time(), self._requests())

    @asynccontextmanager
    async def turn(self, size_bytes: int, *, elsewhere: bool = False) -> AsyncIterator[None]:
        """Around a piece of work that sends about so much. Rests before it returns. `elsewhere`: whoever it is sent to
        serves clients."""
        loop = asyncio.get_running_loop()
        async with self._slots:
            await asyncio.sleep(self._pace.reserve(loop.time(), size_bytes))
            if not (self.serving() or elsewhere):
                yield
                return
            async with self._alone:
                begin_s = loop.time()
                yield
                if self.serving() or elsewhere:
                    await asyncio.sleep(rest_s(loop.time() - begin_s))
