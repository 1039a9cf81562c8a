"""A daemon's HTTP server: beside the loop that it asks, bounded, and over when it is closed."""

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Awaitable, Callable

import pytest

from fs_common import daemon_pages, http_connections, http_server
from fs_common.daemon_pages import DaemonPages, Readiness
from fs_common.errors import Code, EmberError
from fs_common.http_ports import ABOVE_METADATA, ABOVE_STORAGE, port_of, port_problem
from fs_common.http_server import TEXT, App, HttpServer, LoopBridge, Receive, Scope, Send, respond
from fs_common.tls.files import TlsFiles
from tests.certificates import daemon_files
from tests.support import run

SERVES = Readiness(waits_for=[], details={"lease_left_s": 7.5})


def fetch(port: int, path: str, method: str = "GET", host: str = "localhost") -> tuple[int, bytes]:
    """To be called in a thread."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, headers={"Host": host})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


async def ask(server: HttpServer, path: str, method: str = "GET", host: str = "localhost") -> tuple[int, bytes]:
    return await asyncio.to_thread(fetch, server.port, path, method, host)


def pages(readiness: Callable[[], Readiness] = lambda: SERVES, rest: App | None = None) -> DaemonPages:
    return DaemonPages(LoopBridge(asyncio.get_running_loop()), readiness, identity={"role": "storage"}, rest=rest)


def serving(
    app: Callable[[], App], scenario: Callable[[HttpServer], Awaitable[None]], tls: TlsFiles | None = None
) -> None:
    async def whole() -> None:
        server = HttpServer(app(), "127.0.0.1", 0, tls)
        server.start()
        try:
            await scenario(server)
        finally:
            await server.close()
        assert not [thread for thread in threading.enumerate() if thread.name == "http"]
        assert http_server_is_gone(server.port)

    run(whole())


def http_server_is_gone(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_health_and_readiness_are_told_with_reasons() -> None:
    found = [Readiness(waits_for=["no manager has answered yet"], details={}), SERVES]

    async def scenario(server: HttpServer) -> None:
        status, body = await ask(server, "/healthz")
        assert status == 200 and json.loads(body)["status"] == "alive" and json.loads(body)["role"] == "storage"
        status, body = await ask(server, "/readyz")
        assert status == 503 and json.loads(body)["waits_for"] == ["no manager has answered yet"]
        status, body = await ask(server, "/readyz")
        assert status == 200 and json.loads(body)["details"] == {"lease_left_s": 7.5}
        status, body = await ask(server, "/nothing")
        assert status == 404 and b"/healthz" in body
        assert (await ask(server, "/healthz", "POST"))[0] == 405
        assert await ask(server, "/healthz", "HEAD") == (200, b"")

    serving(lambda: pages(lambda: found.pop(0)), scenario)


def test_other_pages_go_to_the_application_behind() -> None:
    async def rest(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await respond(send, 200, b"behind " + scope["path"].encode(), b"text/plain")

    async def scenario(server: HttpServer) -> None:
        assert await ask(server, "/api/v1/nodes") == (200, b"behind /api/v1/nodes")
        assert (await ask(server, "/healthz"))[0] == 200

    serving(lambda: pages(rest=rest), scenario)


def test_a_loop_that_hangs_is_alive_and_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon_pages, "READY_TIMEOUT_S", 0.01)

    async def scenario(server: HttpServer) -> None:
        answers: list[tuple[int, bytes]] = []
        answered = threading.Event()

        def look() -> None:
            answers.extend((fetch(server.port, "/healthz"), fetch(server.port, "/readyz")))
            answered.set()

        thread = threading.Thread(target=look)
        thread.start()
        answered.wait()  # the loop stands still meanwhile
        thread.join()
        assert answers[0][0] == 200
        assert answers[1][0] == 503 and "has not answered" in json.loads(answers[1][1])["waits_for"][0]

    serving(pages, scenario)


def test_a_name_that_is_not_loopbacks_is_refused_on_loopback() -> None:
    async def scenario(server: HttpServer) -> None:
        for host in ("evil.example", "evil.example:80", "10.0.0.1", "localhost.evil.example", "[::2]:1"):
            assert (await ask(server, "/healthz", host=host))[0] == 421, host
        for host in ("localhost", "LOCALHOST:9702", "127.0.0.1:1", "[::1]:9702", "x.localhost"):
            assert (await ask(server, "/healthz", host=host))[0] == 200, host

    serving(pages, scenario)


@pytest.mark.parametrize(
    "sent",
    ["", "GET /healthz HTTP/1.1\r\nHost: loc", "POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"],
)
def test_who_connects_and_does_not_ask_is_cut_off(sent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connections, "PATIENCE_S", 0.05)

    async def rest(scope: Scope, receive: Receive, send: Send) -> None:
        while scope["type"] == "http" and (await receive())["type"] != "http.disconnect":
            pass

    async def scenario(server: HttpServer) -> None:
        assert await asyncio.to_thread(ended, server.port, sent) == b""

    serving(lambda: rest, scenario)


def test_who_takes_nothing_of_his_answer_is_cut_off_and_who_waits_for_his_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_connections, "PATIENCE_S", 0.05)
    begun, cut = threading.Event(), threading.Event()

    async def rest(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] == "/waits":
            begun.set()
            await asyncio.to_thread(cut.wait)
            await respond(send, 200, b"late", TEXT)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        gone = asyncio.ensure_future(receive())
        while not gone.done():
            await send({"type": "http.response.body", "body": bytes(1 << 20), "more_body": True})
            await asyncio.sleep(0)
        cut.set()

    async def scenario(server: HttpServer) -> None:
        waiting = asyncio.create_task(ask(server, "/waits"))
        await asyncio.to_thread(begun.wait)
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as lazy:
            lazy.sendall(b"GET /much HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert await asyncio.to_thread(cut.wait, 30)
        assert await waiting == (200, b"late")

    serving(lambda: rest, scenario)


def test_strangers_who_only_connect_keep_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "CONNECTIONS_MAX", 3)

    async def scenario(server: HttpServer) -> None:
        strangers = [socket.create_connection(("127.0.0.1", server.port), timeout=30) for _ in range(9)]
        try:
            for _ in range(4):
                assert (await ask(server, "/healthz"))[0] == 200
        finally:
            for stranger in strangers:
                stranger.close()

    serving(pages, scenario)


@pytest.mark.parametrize("sent", ["", "\x16\x03\x01\x02\x00\x01"])
def test_who_begins_no_handshake_or_ends_none_is_cut_off(sent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "HANDSHAKE_S", 0.05)

    async def scenario(server: HttpServer) -> None:
        assert await asyncio.to_thread(ended, server.port, sent) == b""

    serving(pages, scenario, tls=daemon_files("meta"))


def ended(port: int, sent: str) -> bytes:
    """What comes until the server ends the connection. To be called in a thread."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as stranger:
        stranger.sendall(sent.encode())
        try:
            return stranger.recv(1000)
        except ConnectionResetError:
            return b""


def test_a_port_in_use_is_named() -> None:
    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(EmberError, match=f"http_port: cannot listen on 127.0.0.1:{port}: .*-1 for none"):
                HttpServer(pages(), "127.0.0.1", port).start()

    run(scenario())


def test_a_server_that_is_closed_at_once_has_ended() -> None:
    async def nothing(server: HttpServer) -> None:
        pass

    serving(pages, nothing)


@pytest.mark.parametrize("listens", [True, False])
def test_a_feed_comes_to_its_end_with_the_server(listens: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """`listens`: it waits for the word that its caller has gone; otherwise it is cancelled."""
    monkeypatch.setattr(http_server, "GRACE_S", 30 if listens else 0)
    begun = threading.Event()

    async def feed(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first;", "more_body": True})
        begun.set()
        if not listens:
            await asyncio.Future()
        while (await receive())["type"] != "http.disconnect":
            pass

    async def scenario(server: HttpServer) -> None:
        looking = asyncio.create_task(ask(server, "/live"))
        await asyncio.to_thread(begun.wait)
        await server.close()
        assert await looking == (200, b"first;")

    serving(lambda: feed, scenario)


def test_a_request_that_hangs_at_the_end_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "GRACE_S", 0)
    begun = threading.Event()

    async def hang(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        begun.set()
        await asyncio.Future()

    async def scenario(server: HttpServer) -> None:
        looking = asyncio.create_task(ask(server, "/slow"))
        await asyncio.to_thread(begun.wait)
        await server.close()
        assert await looking == (503, b"the server is shutting down\n")

    serving(lambda: hang, scenario)


def on_another_loop(scenario: Callable[[LoopBridge], Awaitable[None]], bridge: LoopBridge) -> Awaitable[None]:
    async def whole() -> None:
        await scenario(bridge)

    return asyncio.to_thread(asyncio.run, whole())


def test_the_bridge_gives_results_and_errors() -> None:
    async def answer() -> int:
        return 5

    async def fail() -> None:
        raise EmberError(Code.NOT_FOUND, "not there")

    async def scenario(bridge: LoopBridge) -> None:
        assert await bridge.call(answer) == 5
        assert await bridge.call(threading.get_ident) == main
        with pytest.raises(EmberError, match="not there"):
            await bridge.call(fail)

    main = threading.get_ident()

    async def whole() -> None:
        await on_another_loop(scenario, LoopBridge(asyncio.get_running_loop()))

    run(whole())


def test_the_bridge_is_bounded_and_cancels_what_takes_too_long() -> None:
    cancelled: list[str] = []

    async def whole() -> None:
        begun, over = asyncio.Event(), asyncio.Event()

        async def hang() -> None:
            begun.set()
            try:
                await asyncio.Future()
            finally:
                cancelled.append("hang")
                over.set()

        async def scenario(bridge: LoopBridge) -> None:
            hanging = asyncio.create_task(bridge.call(hang, 60))
            await asyncio.wait_for(bridge_free.call(begun.wait), 30)
            with pytest.raises(EmberError) as busy:
                await bridge.call(hang)
            assert busy.value.code is Code.BUSY
            hanging.cancel()
            await asyncio.wait({hanging})
            with pytest.raises(EmberError) as late:
                await bridge.call(hang, 0)
            assert late.value.code is Code.TIMED_OUT
            assert await bridge.call(lambda: 1) == 1

        loop = asyncio.get_running_loop()
        bridge_free = LoopBridge(loop)
        await on_another_loop(scenario, LoopBridge(loop, calls_max=1))
        await over.wait()

    run(whole())
    assert "hang" in cancelled


def test_the_bridge_to_a_loop_that_has_ended() -> None:
    loop = asyncio.new_event_loop()
    loop.close()

    async def scenario() -> None:
        with pytest.raises(EmberError) as closing:
            await LoopBridge(loop).call(lambda: 1)
        assert closing.value.code is Code.CLOSING

    run(scenario())


@pytest.mark.parametrize(
    ("configured", "data_port", "above", "port"),
    [
        (None, 9700, ABOVE_METADATA, 9702),
        (None, 9710, ABOVE_STORAGE, 9810),
        (None, 0, ABOVE_STORAGE, 0),
        (0, 9710, ABOVE_STORAGE, 0),
        (-1, 9710, ABOVE_STORAGE, -1),
        (8080, 0, ABOVE_STORAGE, 8080),
    ],
)
def test_where_http_is_served(configured: int | None, data_port: int, above: int, port: int) -> None:
    assert port_of(configured, data_port, above) == port
    assert port_problem(configured, data_port, above) is None


@pytest.mark.parametrize(
    ("configured", "data_port", "words"),
    [
        (-2, 9710, "-1 for none"),
        (65_536, 9710, "0 to 65535"),
        (9710, 9710, "the same as port"),
        (None, 65_500, "65600"),
    ],
)
def test_http_ports_that_cannot_be(configured: int | None, data_port: int, words: str) -> None:
    assert words in str(port_problem(configured, data_port, ABOVE_STORAGE))
