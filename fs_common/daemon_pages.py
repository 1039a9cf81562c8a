"""What every daemon tells over HTTP: that it lives, whether it serves, and its figures. A plain ASGI application.

    /healthz   the process lives: answered by the HTTP thread, whatever the process's loop does
    /readyz    it serves: asked of the loop; 503 and why not, when it does not or the loop does not answer
    /metrics   its figures as text for Prometheus

Everything else goes to `rest`, an ASGI application, where there is one.

Called by: `http_server`, on the HTTP thread.
"""

from collections.abc import Awaitable, Callable, Mapping

import msgspec

from fs_common.errors import EmberError
from fs_common.http_server import TEXT, App, LoopBridge, Receive, Scope, Send, respond
from fs_common.release import RELEASE

JSON = b"application/json"
READY_TIMEOUT_S = 2.0
"""A loop that does not answer for so long serves nobody."""


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a daemon serves."""

    waits_for: list[str]
    """Why it does not, in words, each with what is waited for; empty: it serves."""
    details: dict[str, int | float | str]
    """What stands behind it, for people who look."""


Metrics = Callable[[], Awaitable[tuple[bytes, bytes]]]
"""Gives the text and its content type; runs on the HTTP thread's loop. Raises `EmberError`."""


class DaemonPages:
    """The application."""

    def __init__(
        self,
        bridge: LoopBridge,
        readiness: Callable[[], Readiness],
        *,
        identity: Mapping[str, str | int],
        metrics: Metrics | None = None,
        rest: App | None = None,
    ) -> None:
        """`readiness` is called on the process's loop. `identity`: who this is, part of each answer in JSON."""
        self._bridge = bridge
        self._readiness = readiness
        self._identity = {"release": RELEASE, **identity}
        self._metrics = metrics
        self._rest = rest
        self._pages: dict[str, Callable[[], Awaitable[tuple[int, bytes, bytes]]]] = {
            "/healthz": self._health,
            "/readyz": self._ready,
        }
        if metrics is not None:
            self._pages["/metrics"] = self._figures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        page = self._pages.get(scope["path"]) if scope["type"] == "http" else None
        if page is not None:
            if scope["method"] not in ("GET", "HEAD"):
                await respond(send, 405, b"GET or HEAD\n", TEXT)
                return
            status, body, content_type = await page()
            await respond(send, status, body, content_type, head=scope["method"] == "HEAD")
        elif self._rest is not None:
            await self._rest(scope, receive, send)
        elif scope["type"] == "http":
            await respond(send, 404, f"there are {', '.join(self._pages)}\n".encode(), TEXT)
        elif scope["type"] == "lifespan":
            await _live(receive, send)

    async def _health(self) -> tuple[int, bytes, bytes]:
        return 200, self._json(status="alive"), JSON

    async def _ready(self) -> tuple[int, bytes, bytes]:
        try:
            readiness = await self._bridge.call(self._readiness, READY_TIMEOUT_S)
        except EmberError as error:
            readiness = Readiness(waits_for=[error.message], details={})
        ready = not readiness.waits_for
        body = self._json(
            status="ready" if ready else "not ready", waits_for=readiness.waits_for, details=readiness.details
        )
        return 200 if ready else 503, body, JSON

    async def _figures(self) -> tuple[int, bytes, bytes]:
        assert self._metrics is not None
        try:
            return 200, *await self._metrics()
        except EmberError as error:
            return 503, f"{error.message}\n".encode(), TEXT

    def _json(self, **values: object) -> bytes:
        return msgspec.json.encode({**values, **self._identity}) + b"\n"


async def _live(receive: Receive, send: Send) -> None:
    """Nothing begins or ends with the server."""
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return
