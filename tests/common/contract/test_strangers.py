"""Peers that break the protocol after they were let in, and peers that are gone without a word."""

import asyncio

import msgspec
import pytest

from fs_common import frames
from fs_common.errors import Code, EmberError, Retry
from fs_common.limits import BODY_BYTES_MAX, PAYLOAD_BYTES_MAX
from fs_common.methods import PING, READ_CHUNKS
from fs_common.records.session import ErrorBody, Ping
from fs_common.records.storage import ReadChunksReply
from fs_common.rpc import Call, Reply
from tests.common.loopback import MIB, TIMEOUT, connected, memory, read_request, service, serving, until
from tests.common.services import Gate
from tests.common.stranger import strange_caller, strange_server
from tests.common.transports import Transport
from tests.support import run

GARBAGE = {
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "zeros": bytes(64),
    "ones": b"\xff" * 1000,
    "much": bytes(range(256)) * 1000,
}
NESTED = b"\x91" * 3000 + b"\xc0"
"""More lists within lists than the interpreter follows."""


# A server and strange callers


@pytest.mark.parametrize("kind", sorted(GARBAGE))
def test_garbage_gets_one_error_frame_and_the_end(transport: Transport, kind: str) -> None:
    async def main() -> None:
        async with serving(service(), transport) as server:
            async with strange_caller(transport, server) as stranger:
                stranger.request(PING, 2, Ping(b"fine"))
                stranger.garbage(GARBAGE[kind])
                assert (await stranger.read()).header.request == 2
                answer = await stranger.read()
                assert answer.header.request == 0
                assert answer.error.code == Code.BAD_FRAME.value.number
                assert "magic" in answer.error.message
                assert await stranger.at_end()
            async with connected(service(), transport, server) as peer:
                assert await peer.call(PING, Ping(b"still"), timeout=TIMEOUT) == Ping(b"still")

    run(main())


@pytest.mark.parametrize(
    ("body_length", "payload_length", "field"),
    [
        (BODY_BYTES_MAX + 1, 0, "body length"),
        (2**32 - 1, 0, "body length"),
        (0, PAYLOAD_BYTES_MAX + 1, "payload length"),
        (2**32 - 1, 2**32 - 1, "body length"),
    ],
)
def test_lengths_over_their_bounds_end_the_connection(
    transport: Transport, body_length: int, payload_length: int, field: str
) -> None:
    async def main() -> None:
        async with serving(service(), transport) as server, strange_caller(transport, server) as stranger:
            stranger.garbage(frames.pack(frames.REQUEST, PING.number, 2, body_length, payload_length))
            answer = await stranger.read()
            assert answer.header.request == 0
            assert field in answer.error.message
            assert await stranger.at_end()

    run(main())


@pytest.mark.parametrize("kind", ["response", "error"])
def test_what_only_servers_send_ends_the_connection(transport: Transport, kind: str) -> None:
    async def main() -> None:
        async with serving(service(), transport) as server, strange_caller(transport, server) as stranger:
            if kind == "response":
                stranger.send(frames.RESPONSE, PING.number, 2, Ping())
            else:
                stranger.send(frames.ERROR, PING.number, 2, ErrorBody(1, "who?"))
            assert (await stranger.read()).error.code == Code.BAD_FRAME.value.number
            assert await stranger.at_end()

    run(main())


def test_a_record_of_garbage_does_not_end_the_connection(transport: Transport) -> None:
    async def main() -> None:
        async with serving(service(), transport) as server, strange_caller(transport, server) as stranger:
            stranger.request(PING, 2, b"\xc1\xc1\xc1")
            answer = await stranger.read()
            assert (answer.header.request, answer.error.code) == (2, Code.BAD_BODY.value.number)
            stranger.request(PING, 3, Ping(b"still"))
            assert (await stranger.read()).header.request == 3

    run(main())


@pytest.mark.parametrize("nest", [NESTED, b"\x81\x00" * 1800 + b"\xc0"], ids=["lists", "maps"])
def test_a_record_of_any_depth_is_a_record(transport: Transport, nest: bytes) -> None:
    """In a field that this release does not know, which is skipped whatever it is."""

    async def main() -> None:
        async with serving(service(), transport) as server, strange_caller(transport, server) as stranger:
            body = msgspec.msgpack.encode(Ping(b"deep"))
            stranger.request(PING, 2, bytes([body[0] + 1]) + body[1:] + nest)
            answer = await stranger.read()
            assert answer.error.code == Code.BAD_BODY.value.number
            stranger.request(PING, 3, Ping(b"still"))
            assert (await stranger.read()).header.request == 3

    run(main())


def test_a_request_that_crosses_goodbye_is_refused_not_lost(transport: Transport) -> None:
    async def main() -> None:
        async with serving(service(), transport) as server, strange_caller(transport, server) as stranger:
            closing = asyncio.ensure_future(server.close(grace_s=TIMEOUT))
            assert (await stranger.read()).header.kind == frames.GOODBYE
            stranger.request(PING, 2, Ping())
            answer = await stranger.read()
            assert (answer.header.request, answer.error.code) == (2, Code.CLOSING.value.number)
            stranger.vanish()
            await closing

    run(main())


def test_a_caller_that_does_not_read_stops_its_server_and_nobody_else(transport: Transport) -> None:
    async def main() -> None:
        made = 0
        count = 80

        def answer(call: Call) -> Reply:
            nonlocal made
            made += 1
            return Reply(ReadChunksReply([], [text]))

        text = bytes(MIB)
        offered = service()
        offered.bytes_in_flight_max = 2 * MIB
        offered.register(READ_CHUNKS, answer)
        async with serving(offered, transport) as server, strange_caller(transport, server) as stranger:
            stranger.link.pause_reading()
            for number in range(2, 2 + count):
                stranger.request(READ_CHUNKS, number, read_request(1))
            (connection,) = server._connections
            await until(lambda: connection._paused)
            async with connected(offered, transport, server) as other:
                for _ in range(50):
                    await other.call(PING, Ping(), timeout=TIMEOUT)
            assert made < count, "what is on its way is bounded"
            stranger.link.resume_reading()
            for _ in range(count):
                assert (await stranger.read()).header.body_length > MIB
            assert made == count

    run(main())


@pytest.mark.parametrize("when", ["nothing in work", "a handler waits"])
def test_a_caller_that_vanishes_frees_everything(transport: Transport, when: str) -> None:
    async def main() -> None:
        gate = Gate()
        finished: list[object] = []
        ended: list[object] = []
        gate.service.session_finished = finished.append
        gate.service.session_ended = ended.append
        async with serving(gate.service, transport) as server:
            async with strange_caller(transport, server) as stranger:
                if when == "a handler waits":
                    stranger.request(READ_CHUNKS, 2, read_request(1))
                    await until(lambda: gate.waiting)
                stranger.vanish()
                await until(lambda: finished or ended)
            gate.open.set()
            await until(lambda: ended and not server._connections)

    run(main())


# A caller and strange servers


def test_an_answer_of_any_depth_is_an_answer(transport: Transport) -> None:
    async def main() -> None:
        async with strange_server(transport, service()) as (peer, server):
            call = asyncio.ensure_future(peer.call(PING, Ping(), timeout=TIMEOUT))
            request = (await server.read()).header.request
            server.send(frames.RESPONSE, PING.number, request, b"\x92\xc4\x00" + NESTED)
            with pytest.raises(EmberError, match="malformed") as caught:
                await call
            assert caught.value.retry is Retry.MAYBE_APPLIED

    run(main())


@pytest.mark.parametrize("kind", ["garbage", "request", "error about the connection", "malformed error", "vanishes"])
def test_a_server_that_breaks_the_protocol_fails_all_calls(transport: Transport, kind: str) -> None:
    async def main() -> None:
        async with strange_server(transport, service()) as (peer, server):
            call = asyncio.ensure_future(peer.call(PING, Ping(), timeout=1000))
            beside = asyncio.ensure_future(
                peer.call(READ_CHUNKS, read_request(1), send=[bytes(1000)], into=memory(1000), timeout=1000)
            )
            request = (await server.read()).header.request
            match kind:
                case "garbage":
                    server.garbage(b"Connection closed by foreign host, and so on")
                case "request":
                    server.request(PING, 1, Ping())
                case "error about the connection":
                    server.send(frames.ERROR, 0, 0, ErrorBody(Code.BAD_FRAME.value.number, "you are to blame"))
                case "malformed error":
                    server.send(frames.ERROR, PING.number, request, b"\xc1")
                case "vanishes":
                    server.vanish()
            for ended in (call, beside):
                with pytest.raises(EmberError) as caught:
                    await ended
                # Whatever is wrong with the connection, nobody knows what became of the request.
                assert caught.value.code is Code.PEER_GONE
                assert caught.value.retry is Retry.MAYBE_APPLIED
            assert peer.closed

    run(main())


def test_answers_to_nobody_are_ignored(transport: Transport) -> None:
    async def main() -> None:
        async with strange_server(transport, service()) as (peer, server):
            call = asyncio.ensure_future(peer.call(PING, Ping(), timeout=TIMEOUT))
            request = (await server.read()).header.request
            server.send(frames.RESPONSE, PING.number, request + 1000, Ping(b"who?"))
            server.send(frames.ERROR, PING.number, request + 1001, ErrorBody(1, "who?"))
            server.send(frames.RESPONSE, PING.number, request, Ping(b"mine"))
            assert (await call).text == b"mine"

    run(main())


def test_goodbye_with_nothing_in_work_ends_the_connection(transport: Transport) -> None:
    async def main() -> None:
        async with strange_server(transport, service()) as (peer, server):
            server.send(frames.GOODBYE, 0, 0)
            assert await server.at_end()
            await until(lambda: peer.closed)

    run(main())
