"""Which parts of an operation's time passed in the store, and in waiting for followers: for those that were slow.

What takes less than `NOTED_NS` is not noted, so that nothing is kept for most operations. An operation is known by its
trace id (`fs_common.tracing`) and by when it began: a client's operation may make several calls.

Called by: `following.FollowedStore`, which notes; `service`, which asks.
"""

import time
from collections import deque
from typing import Final, NamedTuple

from fs_common import tracing

clock_ns = time.perf_counter_ns
NOTED_NS: Final = 5_000_000
KEPT: Final = 1024
"""The newest. An operation that is slow is told when it ends, so its parts are among them."""


class _Part(NamedTuple):
    trace: int
    began_ns: int
    name: str
    took_ns: int


class StoreTimes:
    """Of one service."""

    def __init__(self) -> None:
        self._parts: deque[_Part] = deque(maxlen=KEPT)

    def note(self, name: str, began_ns: int) -> None:
        """From `began_ns` until now the operation that is worked on here was at `name`."""
        took_ns = clock_ns() - began_ns
        if took_ns > NOTED_NS:
            self._parts.append(_Part(tracing.current(), began_ns, name, took_ns))

    def of(self, trace: int, began_ns: int) -> dict[str, int]:
        """How long the operation that began then was at what, in ns."""
        found = {"kv": 0, "followers": 0}
        for part in self._parts:
            if part.trace == trace and part.began_ns >= began_ns:
                found[part.name] += part.took_ns
        return found
