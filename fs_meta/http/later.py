"""The HTTP application, made when its server begins: in the server's thread, where its imports hold nobody up.

Called by: the process, which hands it to its HTTP server.
"""

import logging
from collections.abc import Callable

from fs_common.http_server import App, Receive, Scope, Send, respond

_log = logging.getLogger(__name__)


class MadeLater:
    """An ASGI application that is made by `make` with the first thing that it is asked: its server's start."""

    def __init__(self, make: Callable[[], App]) -> None:
        self._make = make
        self._app: App | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._app is None:
            try:
                self._app = self._make()
            except ImportError as error:
                _log.error("no administration over HTTP, and no console: %s; install emberfs[server]", error)
                self._app = _nothing
        await self._app(scope, receive, send)


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await respond(send, 503, b"this server was installed without emberfs[server]\n", b"text/plain; charset=utf-8")
