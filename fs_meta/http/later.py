"""The HTTP application, made when its server begins: in the server's thread, where its imports hold nobody up.

Called by: the process, which hands it to its HTTP server.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

App = Callable[..., Awaitable[None]]


class MadeLater:
    """An ASGI application that is made by `make` with the first thing that it is asked: its server's start."""

    def __init__(self, make: Callable[[], App]) -> None:
        self._make = make
        self._app: App | None = None

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if self._app is None:
            self._app = self._make()
        await self._app(scope, receive, send)
