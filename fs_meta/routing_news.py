"""Answers to GET_ROUTING: at once, or as soon as there is a newer routing than the caller's.

When a chain changes, every client that has something under way on it asks, and ten thousand may. Each has one call here
that waits, and is told only what has changed since the routing it has. A routing, or the changes since another one, are
encoded once for all of them.

Invariant: whoever waits is woken by the next routing, by the end of its time, or by `end`. Used by the service, on its
loop only.
"""

import asyncio
from collections.abc import Callable

import msgspec

from fs_common.records.routing import (
    ROUTING_WAIT_MS_MAX,
    EncodedRoutingReply,
    GetRouting,
    GetRoutingReply,
    Routing,
)
from fs_common.routing_changes import changes
from fs_common.rpc import encode

PAST_MAX = 64
"""Routings that are remembered; they share what has not changed. Who has an older one is told the whole."""
_CURRENT = GetRoutingReply(None)


class RoutingNews:
    """See the module. `routing`: the newest that this process knows; None before it knows any."""

    def __init__(self, routing: Callable[[], Routing | None]) -> None:
        self._routing = routing
        self._changed: asyncio.Future[None] | None = None
        """Of those who wait; replaced when they are woken."""
        self._ended = False
        self._encoded: tuple[Routing, EncodedRoutingReply] | None = None
        self._past: dict[int, Routing] = {}
        """By version, the newest last: what clients may have."""
        self._since: dict[int, EncodedRoutingReply | None] = {}
        """By version: what has changed up to `_since_version`; None: only the whole tells."""
        self._since_version = 0
        self.waiting = 0
        """Calls that are held back."""

    def changed(self, routing: Routing) -> None:
        """There is a new routing."""
        self._past[routing.version] = routing
        if len(self._past) > PAST_MAX:
            del self._past[next(iter(self._past))]
        self._wake()

    def end(self) -> None:
        """Answer everybody: the service is about to close."""
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, None
        if changed is not None and not changed.done():
            changed.set_result(None)

    def now(self, request: GetRouting) -> msgspec.Struct | None:
        """The answer if it can be given at once."""
        routing = self._routing()
        # Who knows none is given even an empty one: None means that what the caller has is current.
        if routing is None:
            return _CURRENT
        if request.known_version and routing.version == request.known_version:
            return None if request.wait_ms > 0 and not self._ended else _CURRENT
        if request.partial and (answer := self._news_since(request.known_version, routing)) is not None:
            return answer
        if self._encoded is None or self._encoded[0] is not routing:
            self._encoded = routing, EncodedRoutingReply(msgspec.Raw(encode(routing)))
        return self._encoded[1]

    def _news_since(self, known: int, routing: Routing) -> EncodedRoutingReply | None:
        if self._since_version != routing.version:
            self._since, self._since_version = {}, routing.version
        if known not in self._since:
            past = self._past.get(known)
            news = None if past is None else changes(past, routing)
            self._since[known] = None if news is None else EncodedRoutingReply(msgspec.Raw(encode(news)), known)
        return self._since[known]

    async def newer(self, request: GetRouting) -> msgspec.Struct:
        """The answer, when there is a newer routing, or `wait_ms` are over."""
        loop = asyncio.get_running_loop()
        until = loop.time() + min(request.wait_ms, ROUTING_WAIT_MS_MAX) / 1000
        self.waiting += 1
        try:
            while (answer := self.now(request)) is None and (left_s := until - loop.time()) > 0:
                if self._changed is None:
                    self._changed = loop.create_future()
                await asyncio.wait([self._changed], timeout=left_s)
        finally:
            self.waiting -= 1
        return answer or _CURRENT
