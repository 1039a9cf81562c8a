"""A daemon's HTTP server: uvicorn in a thread and a loop of its own, beside the loop that serves the data plane.

Owns: the listening socket, the thread, and the bridge by which the thread asks the process's loop.

Invariants:

* Nothing of HTTP runs on the process's loop, but what comes over the bridge: a few calls at a time, none of which is
  waited for beyond its deadline.
* The port is bound when `start` returns; what connects before uvicorn is imported waits in the backlog, so the time to
  the daemon's readiness is not spent on it.
* After `close` no request is in work, no connection is open, and the thread has ended, or is left to the end of the
  process where an application does not give its thread up.
* A server that listens on loopback alone answers to loopback's names alone: a web page that somebody looks at on this
  machine cannot reach it under a name of its own.

Called by: the processes of the daemons, which give it an ASGI application. Page: docs/concurrency/http.md.
"""

import asyncio
import contextlib
import functools
import ipaddress
import logging
import socket
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, TypeVar

import uvloop

from fs_common.errors import Code, EmberError

if TYPE_CHECKING:
    from fs_common.tls.files import TlsFiles

logger = logging.getLogger(__name__)

T = TypeVar("T")
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
"""What ASGI calls an application."""

TEXT = b"text/plain; charset=utf-8"
BACKLOG = 128
CONNECTIONS_MAX = 256
"""People, a browser's feeds, and those that collect figures. For more the one makes room that has waited longest for
its caller; when all are in work they are answered 503."""
KEEP_ALIVE_S = 30
"""How long an idle connection stays open; longer than the pause between two looks of who collects figures."""
HANDSHAKE_S = 10.0
"""How long a TLS handshake may take, as on the data plane; uvloop's own default is a minute."""
GRACE_S = 1
"""How long requests in work may take at the end. Who waits for the caller to go is told at once that he has."""
THREAD_S = 5.0
"""How long the thread may take to end."""
CALLS_MAX = 16
CALL_TIMEOUT_S = 5.0


class LoopBridge:
    """Calls from the HTTP thread to the process's loop."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, *, calls_max: int = CALLS_MAX, timeout_s: float = CALL_TIMEOUT_S
    ) -> None:
        self._loop = loop
        """Of the process."""
        self._calls_max = calls_max
        self._timeout_s = timeout_s
        self._calls = 0
        """That are waited for. Touched by the HTTP thread alone."""

    async def call(self, make: Callable[[], Awaitable[T] | T], timeout_s: float | None = None) -> T:
        """What `make()` returns on the process's loop, or what the awaitable that it returns gives.

        To be awaited on the HTTP thread's loop. Who is cancelled, or waits for too long, cancels what it asked for.
        Raises BUSY, TIMED_OUT, CLOSING, and what `make` raises.
        """
        if self._calls >= self._calls_max:
            raise EmberError(Code.BUSY, f"{self._calls} requests are in work already; try again")
        work = _run(make)
        try:
            future = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))
        except RuntimeError:
            work.close()
            raise EmberError(Code.CLOSING, "the server is shutting down") from None
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        self._calls += 1
        try:
            await asyncio.wait({future}, timeout=limit_s)
            if not future.done():
                raise EmberError(Code.TIMED_OUT, f"the server's loop has not answered for {limit_s:g} s")
            return future.result()
        finally:
            self._calls -= 1
            future.cancel()


async def _run(make: Callable[[], Awaitable[T] | T]) -> T:
    made = make()
    if isinstance(made, Awaitable):
        return await made
    return made


class HttpServer:
    """One HTTP server. `start` it on the process's loop, `close` it before what its application asks for."""

    def __init__(self, app: App, host: str, port: int, tls: "TlsFiles | None" = None) -> None:
        """Serve `app` at `host:port` (0: any free port); with `tls`, over HTTPS alone."""
        self._tls = tls
        self.host = host
        self.port = port
        self._app = app
        self._listening: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        """Of the thread; made here so that it can be told to end at any time."""
        self._ending = asyncio.Event()
        """Set on the thread's loop."""
        self._over: asyncio.Future[None] | None = None
        """On the process's loop: done when the thread has ended."""

    def start(self) -> None:
        """Listen, and begin to serve. Raises UNREACHABLE: the port is taken, the host is not this machine's."""
        try:
            family, _, _, _, address = socket.getaddrinfo(
                self.host or None, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            self._listening = socket.create_server((str(address[0]), self.port), family=family, backlog=BACKLOG)
        except OSError as error:
            raise EmberError(
                Code.UNREACHABLE,
                f"http_port: cannot listen on {self.host}:{self.port}: {error.strerror}; set another, or -1 for none",
            ) from None
        self.port = self._listening.getsockname()[1]
        app = _Guarded(self._app, self._ending, local=_is_loopback(str(address[0])))
        self._loop = uvloop.new_event_loop()
        process_loop = asyncio.get_running_loop()
        self._over = process_loop.create_future()
        # A daemon thread: an application that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, args=(app, process_loop), name="http", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """Take no new connections, finish what is in work (at most `GRACE_S`), end the thread."""
        if self._loop is None or self._over is None or self._thread is None:
            return
        loop, self._loop = self._loop, None
        with contextlib.suppress(RuntimeError):  # it has ended by itself
            loop.call_soon_threadsafe(self._ending.set)
        await asyncio.wait({self._over}, timeout=THREAD_S)
        if self._over.done():
            self._thread.join()
        else:
            logger.warning("the HTTP thread has not ended after %g s and is left behind", THREAD_S)

    # -- the thread ------------------------------------------------------------------------------------------------

    def _run(self, app: App, process_loop: asyncio.AbstractEventLoop) -> None:
        loop, listening = self._loop, self._listening
        assert loop is not None and listening is not None
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(self._serve(app, listening))
        except ImportError as error:
            logger.error("no HTTP: %s; install emberfs[server]", error)
        except BaseException as error:
            logger.exception("the HTTP server has ended: %r", error)
        finally:
            listening.close()
            process_loop.call_soon_threadsafe(self._has_ended)

    def _has_ended(self) -> None:
        if self._over is not None and not self._over.done():
            self._over.set_result(None)

    async def _serve(self, app: App, listening: socket.socket) -> None:
        import uvicorn

        from fs_common.http_connections import BoundedConnection

        ending = self._ending

        class Server(uvicorn.Server):
            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                # uvicorn's own bounds no handshake, during which a connection is not one of its connections yet.
                config = self.config
                patience_s = HANDSHAKE_S if config.ssl is not None else None
                await self.lifespan.startup()
                make = functools.partial(BoundedConnection, config, self.server_state, app_state=self.lifespan.state)
                self.servers = [
                    await asyncio.get_running_loop().create_server(
                        make, sock=each, ssl=config.ssl, backlog=config.backlog, ssl_handshake_timeout=patience_s
                    )
                    for each in sockets or ()
                ]
                self.started = True

            async def main_loop(self) -> None:
                # uvicorn's own looks ten times a second whether it is to end: as often the data plane's loop would be
                # interrupted.
                self.server_state.default_headers = self.config.encoded_headers
                await ending.wait()

        config = uvicorn.Config(
            app,
            loop="none",
            http=BoundedConnection,
            ws="none",
            lifespan="auto",
            log_config=None,
            log_level=logging.ERROR,  # warnings are about what strangers send, a line for each time
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            limit_concurrency=CONNECTIONS_MAX,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=GRACE_S,
            backlog=BACKLOG,
        )
        config.load()
        if self._tls is not None:
            config.ssl = self._tls.http_context()
        await Server(config).serve(sockets=[listening])


# -- requests ----------------------------------------------------------------------------------------------------------


class _Guarded:
    """The application, as it is reached from outside: by names of this machine alone, where it listens on loopback; and
    its responses come to an end when the server does."""

    def __init__(self, app: App, ending: asyncio.Event, *, local: bool) -> None:
        self._app = app
        self._ending = ending
        self._local = local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._local and not all(
            _is_local_name(value.decode("latin-1")) for name, value in scope["headers"] if name == b"host"
        ):
            text = "this server listens on loopback: open http://localhost and its port, or set the daemon's host\n"
            await respond(send, 421, text.encode(), TEXT)
            return
        response = _Response(receive, send, self._ending)
        try:
            await self._app(scope, response.receive, response.send)
        except asyncio.CancelledError:
            if not self._ending.is_set():
                raise
        if self._ending.is_set():
            await response.complete()


class _Response:
    """One request: tells the application that nobody listens any more when the server ends, and ends what it left."""

    def __init__(self, receive: Receive, send: Send, ending: asyncio.Event) -> None:
        self._receive = receive
        self._send = send
        self._ending = ending
        self._whole = False
        """The request has been received: what follows is the word that the caller has gone."""
        self._started = False
        self._completed = False

    async def receive(self) -> MutableMapping[str, Any]:
        if not self._whole:
            message = await self._receive()
            self._whole = not message.get("more_body", False)
            return message
        gone = asyncio.ensure_future(self._receive())
        ending = asyncio.ensure_future(self._ending.wait())
        try:
            await asyncio.wait({gone, ending}, return_when=asyncio.FIRST_COMPLETED)
            return gone.result() if gone.done() else {"type": "http.disconnect"}
        finally:
            gone.cancel()
            ending.cancel()

    async def send(self, message: MutableMapping[str, Any]) -> None:
        self._started = True
        self._completed |= message["type"] == "http.response.body" and not message.get("more_body", False)
        await self._send(message)

    async def complete(self) -> None:
        if not self._started:
            await respond(self._send, 503, b"the server is shutting down\n", TEXT)
        elif not self._completed:
            await self._send({"type": "http.response.body", "body": b""})


async def respond(send: Send, status: int, body: bytes, content_type: bytes, *, head: bool = False) -> None:
    """One whole response. `head`: to a HEAD request, so without its body."""
    headers = [
        (b"content-type", content_type),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else body})


def _is_local_name(host: str) -> bool:
    name = host.rpartition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]
    name = name.lower().rstrip(".")
    return name == "localhost" or name.endswith(".localhost") or _is_loopback(name)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
