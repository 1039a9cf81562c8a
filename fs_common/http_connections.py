"""A connection of a daemon's HTTP server: one of a bounded number, none of which a caller holds by doing nothing.

uvicorn lets whoever connects stay for ever: without a request, within one, or with an answer that is not taken.

* A connection that waits for its caller is cut after `PATIENCE_S`: he has not sent the whole of a request, or takes
  nothing of an answer. (How long it may be idle between two requests is uvicorn's to say.)
* When there are too many, the one that has waited longest makes room, so that those who ask are answered. Requests in
  work are not cut.

Runs on the HTTP thread's loop. The one place that knows uvicorn's protocol from inside. Called by: `http_server`.
"""

import asyncio
from typing import Any, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

PATIENCE_S: Final = 20.0
_UNFINISHED: Final = (h11.IDLE, h11.SEND_BODY)


class BoundedConnection(H11Protocol):
    """uvicorn makes one for each connection; `connections` is the set of all."""

    _cut: asyncio.TimerHandle | None = None
    """Set while it waits for its caller, but between two requests."""
    _since_s = 0.0
    """When it began to wait."""
    _unsent = False
    """The caller does not take what is sent."""

    @property
    def waits(self) -> bool:
        return self._cut is not None or self.timeout_keep_alive_task is not None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._make_room()
        self._look()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        self._since_s = self.loop.time()
        super().on_response_complete()
        self._look()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._look()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unsent = True
        self._look()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unsent = False
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop()

    def _make_room(self) -> None:
        connections = self.connections
        if self.limit_concurrency is None or len(connections) < self.limit_concurrency:
            return
        others = [each for each in connections if isinstance(each, BoundedConnection) and each is not self]
        waiting = [each for each in others if each.waits]
        if waiting:
            longest = min(waiting, key=lambda each: each._since_s)
            connections.discard(longest)  # now: the transport tells of its end later
            longest.transport.abort()

    def _look(self) -> None:
        idle = self.timeout_keep_alive_task is not None
        asked = self.conn.their_state not in _UNFINISHED
        if not self._unsent and not self.transport.is_closing() and (asked or idle):
            self._stop()
        elif self._cut is None:
            self._since_s = self.loop.time()
            self._cut = self.loop.call_later(PATIENCE_S, self.transport.abort)

    def _stop(self) -> None:
        if self._cut is not None:
            self._cut.cancel()
            self._cut = None
