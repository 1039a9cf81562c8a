"""The HTTP application, made with its first request: in the HTTP server's thread, where its imports hold nobody up, and
not at the start, when the daemons of a machine want all of its processors. That first answer takes 0.3 s more.

Called by: the process, which hands it to its HTTP server.
"""

import logging
from collections.abc import Callable

from fs_common import heap
from fs_common.http_server import App, Receive, Scope, Send, respond

_log = logging.getLogger(__name__)


class MadeLater:
    """An ASGI application that is made by `make` with its first request."""

    def __init__(self, make: Callable[[], App]) -> None:
        self._make = make
        self._app: App | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        if self._app is None:
            try:
                self._app = self._make()
                heap.keep()  # fifty thousand objects
            except ImportError as error:
                _log.error("no administration over HTTP, and no console: %s; install emberfs[server]", error)
                self._app = _nothing
        await self._app(scope, receive, send)


async def _live(receive: Receive, send: Send) -> None:
    """Nothing begins or ends with the server."""
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await respond(send, 503, b"this server was installed without emberfs[server]\n", b"text/plain; charset=utf-8")
