"""What is let through to the handlers: an ASGI middleware around the whole application.

A browser sends requests to any address for any page that it shows. Where a token is asked for that is harmless, because
no page has it. Where none is asked for (`security` off, on loopback) these rules keep other pages out:

* `Host` is an address, or a name of this machine or of its configuration: a page whose own name was made to
  point here (DNS rebinding) comes with its name.
* A change whose `Origin` is another one than `Host`, or that the browser says is another site's, is refused. The body
  of a change is JSON, which no form can send.

A request's body has at most `BODY_BYTES_MAX` bytes.
"""

import ipaddress
import socket
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fs_common.errors import Code
from fs_meta.http.problems import problem

BODY_BYTES_MAX: Final = 1 << 20
READING: Final = ("GET", "HEAD", "OPTIONS")

_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class Guard:
    """`names`: what this server may be called by, beside addresses and this machine's names. `tokens`: every request
    that matters needs one."""

    def __init__(self, app: ASGIApp, names: Iterable[str], *, tokens: bool) -> None:
        self._app = app
        self._tokens = tokens
        self._names = {"localhost", socket.gethostname().lower(), *(name.lower() for name in names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *((name, value) for name, value in _HEADERS if name not in present),
                ]
            await send(message)

        refused = self._refused(request)
        if refused is not None:
            code, detail, status = refused
            await problem(request, code, detail, status=status)(scope, receive, send_with_headers)
            return
        counted = _Counted(receive)
        await self._app(scope, counted.receive, send_with_headers)

    def _refused(self, request: Request) -> tuple[Code, str, int] | None:
        headers = request.headers
        host = headers.get("host", "")
        if not self._tokens and not self._is_ours(host):
            detail = f"this server is not called {host!r}: ask for it by its address"
            return Code.NOT_PERMITTED, detail, 403
        if request.method in READING:
            return None
        origin = headers.get("origin")
        if origin is not None and _netloc(origin) != host:
            return Code.NOT_PERMITTED, f"a page of {origin} may not change anything here", 403
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return Code.NOT_PERMITTED, "a page of another site may not change anything here", 403
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > BODY_BYTES_MAX:
            return Code.TOO_LARGE, f"a request has at most {BODY_BYTES_MAX} bytes", 413
        has_body = length != "0" or "transfer-encoding" in headers
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if has_body and kind != "application/json":
            return Code.BAD_BODY, "the body of a request is application/json", 415
        return None

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in self._names or name.endswith(".localhost"):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _netloc(origin: str) -> str | None:
    """None: it is no address."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


class _Counted:
    """A body that names no length is refused once it is too long."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._bytes = 0

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._bytes += len(message.get("body", b""))
            if self._bytes > BODY_BYTES_MAX:
                raise HTTPException(413, f"a request has at most {BODY_BYTES_MAX} bytes")
        return message
