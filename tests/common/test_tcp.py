"""What happens on a TCP connection: strangers, bytes that come in pieces, ends and resets.

What holds over any transport is in `contract`.
"""

import asyncio
import gc
import logging
import os
import resource
import socket
import struct
import tracemalloc
from pathlib import Path

import msgspec
import pytest

from fs_common import frames
from fs_common import serving as serving_module
from fs_common.errors import Code, EmberError
from fs_common.methods import HELLO, PING, READ_CHUNKS, UPDATE_CHUNKS
from fs_common.records.session import ErrorBody, Ping
from fs_common.records.storage import ReadChunksReply, UpdateChunks, UpdateChunksReply
from fs_common.rpc import Allocation, Call, FileRange, Reply
from fs_common.transports import tcp, tcp_socket
from tests.common.loopback import (
    KIB,
    MIB,
    TIMEOUT,
    connected,
    hello,
    memory,
    pattern,
    raw_client,
    raw_server,
    read_request,
    service,
    serving,
    until,
)
from tests.support import run

# A server and strangers


@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", bytes(64), b"\xff" * 1000, bytes(range(256)) * 1000],
    ids=["http", "zeros", "ones", "much"],
)
def test_garbage_gets_one_error_frame_and_the_end(garbage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with serving(service()) as server:
            async with raw_client(server.port) as stranger:
                stranger.writer.write(garbage)
                answer = await stranger.read()
                assert answer.header.request == 0
                assert answer.error.code == Code.BAD_FRAME.value.number
                assert "magic" in answer.error.message
                # An end, not a reset: a reset may take the error frame with it.
                assert await stranger.reader.read() == b""
            async with connected(service(), server=server) as peer:
                assert await peer.call(PING, Ping(b"still"), timeout=TIMEOUT) == Ping(b"still")

    run(main())
    assert "bad frame: magic" in caplog.text


def test_another_version_is_told_so() -> None:
    async def main() -> None:
        async with serving(service()) as server, raw_client(server.port) as stranger:
            header = bytearray(frames.pack(frames.REQUEST, HELLO.number, 1, 0))
            header[4] = 9
            stranger.writer.write(header)
            answer = await stranger.read()
            assert answer.error.code == Code.VERSION_MISMATCH.value.number
            assert "upgrade the older side" in answer.error.message

    run(main())


@pytest.mark.parametrize(
    "first",
    ["request", "response", "goodbye", "hello with payload", "huge hello", "malformed hello", "hello that is no text"],
)
def test_nothing_but_a_hello_comes_first(first: str) -> None:
    async def main() -> None:
        async with serving(service()) as server, raw_client(server.port) as stranger:
            match first:
                case "request":
                    stranger.request(PING, 5, Ping(b"let me in"))
                case "response":
                    stranger.write(frames.RESPONSE, HELLO.number, 1, hello())
                case "goodbye":
                    stranger.write(frames.GOODBYE, 0, 0)
                case "hello with payload":
                    stranger.request(HELLO, 1, hello(), payload=b"x")
                case "huge hello":
                    stranger.writer.write(frames.pack(frames.REQUEST, HELLO.number, 1, 1 * MIB))
                case "malformed hello":
                    stranger.request(HELLO, 1, b"\x93\x01\x02\x03")
                case "hello that is no text":
                    stranger.request(HELLO, 1, b"\x93\x91\x01\xa2\xff\xfe\xc4\x00")
            answer = await stranger.read()
            expected = Code.BAD_BODY if first in ("malformed hello", "hello that is no text") else Code.BAD_FRAME
            assert answer.error.code == expected.value.number
            assert await stranger.at_end()

    run(main())


def test_a_stranger_who_says_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving_module, "HELLO_TIMEOUT_S", 0.0)

    async def main() -> None:
        async with serving(service()) as server, raw_client(server.port) as stranger:
            assert await stranger.at_end()

    run(main())


# Ends of a connection, as a server sees them


NESTED = b"\x91" * 3000 + b"\xc0"
"""More lists within lists than the interpreter follows."""


@pytest.mark.parametrize("nest", [NESTED, b"\x81\x00" * 1800 + b"\xc0"], ids=["lists", "maps"])
@pytest.mark.parametrize("place", ["hello", "request"])
def test_a_record_of_any_depth_is_a_record(place: str, nest: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """In a field that this release does not know, which is skipped whatever it is."""

    def deep(record: msgspec.Struct) -> bytes:
        body = msgspec.msgpack.encode(record)
        return bytes([body[0] + 1]) + body[1:] + nest

    async def main() -> None:
        async with serving(service()) as server, raw_client(server.port) as client:
            if place == "hello":
                client.request(HELLO, 1, deep(hello()))
            else:
                await client.greet()
                client.request(PING, 2, deep(Ping(b"deep")))
            answer = await client.read()
            assert answer.error.code == Code.BAD_BODY.value.number
            assert "malformed" in answer.error.message
            if place == "request":
                client.request(PING, 3, Ping(b"still"))
                assert (await client.read()).header.request == 3
            else:
                assert await client.at_end()

    run(main())
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("end", ["between frames", "within a body", "within a payload"])
def test_a_connection_that_is_over_holds_nothing(end: str) -> None:
    """Counted in bytes, without the collector of cycles, which comes rarely in a daemon."""
    connections = {"between frames": 2000}.get(end, 200)

    async def main() -> None:
        offered = service()
        offered.register(
            UPDATE_CHUNKS, lambda call: Reply(UpdateChunksReply([], [], [])), allocate=lambda _, n: memory(n)
        )
        async with serving(offered) as server:

            async def come_and_go() -> None:
                peer = await tcp.connect("127.0.0.1", server.port, hello(), timeout=TIMEOUT)
                if end == "between frames":
                    await peer.close()
                    await until(lambda: not server._connections)
                    return
                await peer.close()
                async with raw_client(server.port) as client:
                    await client.greet()
                    if end == "within a body":
                        client.writer.write(frames.pack(frames.REQUEST, PING.number, 2, 3 * MIB) + b"x")
                    else:
                        client.request(UPDATE_CHUNKS, 2, UpdateChunks(b"c", []), payload=b"x", payload_length=3 * MIB)
                    await client.writer.drain()
                await until(lambda: not server._connections)

            for _ in range(20):
                await come_and_go()
            gc.collect()
            gc.disable()
            tracemalloc.start()
            try:
                before = tracemalloc.get_traced_memory()[0]
                for _ in range(connections):
                    await come_and_go()
                held = tracemalloc.get_traced_memory()[0] - before
            finally:
                tracemalloc.stop()
                gc.enable()
            # Nothing for each, and what the allocator and the streams of the test keep.
            assert held < 500 * KIB, held

    run(main())


def test_half_closed_callers_get_their_answers() -> None:
    async def main() -> None:
        opened = asyncio.Event()

        async def answer(call: Call) -> Reply:
            await opened.wait()
            return Reply(ReadChunksReply([1], []), [bytes(8 * MIB)])

        offered = service()
        offered.register(READ_CHUNKS, answer)
        async with serving(offered) as server, raw_client(server.port) as client:
            await client.greet()
            client.request(READ_CHUNKS, 2, read_request(1))
            client.request(READ_CHUNKS, 3, read_request(1))
            client.writer.write_eof()
            await asyncio.sleep(0)
            opened.set()
            assert [len((await client.read()).payload) for _ in range(2)] == [8 * MIB] * 2
            assert await client.at_end()

    run(main())


@pytest.mark.parametrize("cut", [1, 31, 32, 40, 100])
def test_an_end_within_a_frame_ends_the_connection(cut: int) -> None:
    async def main() -> None:
        ended: list[object] = []
        offered = service()
        offered.session_ended = ended.append
        offered.register(UPDATE_CHUNKS, lambda call: Reply(UpdateChunksReply([], [])), allocate=lambda r, n: memory(n))
        async with serving(offered) as server, raw_client(server.port) as client:
            await client.greet()
            body = b"\x92\xc4\x01x\x90"
            frame = frames.pack(frames.REQUEST, UPDATE_CHUNKS.number, 2, len(body), 1000) + body + bytes(1000)
            client.writer.write(frame[:cut])
            client.writer.write_eof()
            assert await client.at_end()
            await until(lambda: ended)

    run(main())


@pytest.mark.parametrize("piece", [1, 100_000, tcp.WAKE_BYTES - 1, tcp.WAKE_BYTES, tcp.WAKE_BYTES + 1, 2 * MIB])
def test_a_large_payload_that_comes_in_pieces(piece: int) -> None:
    """Each piece is sent when the one before has been taken by the kernel; the last one may be of any size."""

    async def main() -> None:
        received: list[bytes] = []
        offered = service()

        def update(call: Call) -> Reply:
            received.append(b"".join(call.payload))
            return Reply(UpdateChunksReply([], []))

        offered.register(UPDATE_CHUNKS, update, allocate=lambda request, length: memory(length))
        data = pattern(2 * tcp.WAKE_BYTES + 123, 4)
        first = len(data) - 1000 if piece == 1 else 0
        async with serving(offered) as server, raw_client(server.port) as client:
            await client.greet()
            for number in (2, 3):
                client.request(
                    UPDATE_CHUNKS, number, UpdateChunks(b"c", []), payload_length=len(data), payload=data[:first]
                )
                for start in range(first, len(data), piece):
                    client.writer.write(data[start : start + piece])
                    await asyncio.sleep(0)
                answer = await client.read()
                assert answer.header.request == number
        assert received == [data, data]

    run(main())


@pytest.mark.parametrize("sent", [0, 1000, tcp.WAKE_BYTES + 5, 3 * tcp.WAKE_BYTES - 5])
def test_an_end_within_a_large_payload_is_noticed(sent: int) -> None:
    async def main() -> None:
        ended: list[object] = []
        offered = service()
        offered.session_ended = ended.append
        offered.register(UPDATE_CHUNKS, lambda call: Reply(UpdateChunksReply([], [])), allocate=lambda r, n: memory(n))
        async with serving(offered) as server, raw_client(server.port) as client:
            await client.greet()
            length = 3 * tcp.WAKE_BYTES
            client.request(
                UPDATE_CHUNKS, 2, UpdateChunks(b"c", []), payload_length=length, payload=pattern(length, 1)[:sent]
            )
            client.writer.write_eof()
            await until(lambda: ended)

    run(main())


def test_a_reset_frees_everything() -> None:
    async def main() -> None:
        started = asyncio.Event()
        finish = asyncio.Event()
        released: list[bool] = []
        sessions: list[bool] = []

        async def answer(call: Call) -> Reply:
            started.set()
            await finish.wait()
            sessions.append(call.session.closed)
            return Reply(ReadChunksReply([1], []), [b"payload"], lambda: released.append(True))

        offered = service()
        offered.register(READ_CHUNKS, answer)
        offered.register(UPDATE_CHUNKS, lambda call: Reply(UpdateChunksReply([], [])), allocate=lambda r, n: memory(n))
        async with serving(offered) as server:
            async with raw_client(server.port) as client:
                await client.greet()
                client.request(READ_CHUNKS, 2, read_request(1))
                await started.wait()
                reset(client.writer)
            ended = False
            while not ended:
                ended = all(connection._lost for connection in server._connections)
                await asyncio.sleep(0)
            finish.set()
            await until(lambda: released)
            assert sessions == [True]
            await until(lambda: not server._connections)

    run(main())


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection as a process does that dies with unread bytes."""
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def send_and_reset(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Bytes and a reset right behind them: the last of the bytes and the reset are there before anyone looks."""
    with writer.get_extra_info("socket").dup() as raw:
        sent = 0
        while sent < len(data):
            try:
                sent += raw.send(data[sent:])
            except BlockingIOError:
                await asyncio.sleep(0)
        reset(writer)


@pytest.mark.parametrize("sent", [20, 5000, 3 * MIB], ids=["in a header", "in a payload", "more than a turn"])
def test_a_reset_right_behind_bytes_ends_the_servers_side(sent: int) -> None:
    async def main() -> None:
        ended: list[object] = []
        released: list[int] = []
        offered = service()
        offered.session_ended = ended.append
        offered.register(
            UPDATE_CHUNKS,
            lambda call: Reply(UpdateChunksReply([], [])),
            allocate=lambda request, length: Allocation(memory(length), lambda: released.append(length)),
        )
        async with serving(offered) as server, raw_client(server.port) as client:
            await client.greet()
            body = b"\x92\xc4\x01x\x90"
            frame = frames.pack(frames.REQUEST, UPDATE_CHUNKS.number, 2, len(body), 8 * MIB) + body + bytes(8 * MIB)
            await send_and_reset(client.writer, frame[:sent])
            await until(lambda: ended)
            assert released == ([] if sent < 32 else [8 * MIB])

    run(main())


@pytest.mark.parametrize("sent", [20, 500, 3 * MIB], ids=["in a header", "in a payload", "more than a turn"])
def test_a_reset_right_behind_bytes_fails_all_calls_at_once(sent: int) -> None:
    async def main() -> None:
        async with raw_server() as (peer, server):
            into = memory(8 * MIB)
            call = asyncio.ensure_future(peer.call(READ_CHUNKS, read_request(1), into=into, timeout=1000))
            request = (await server.read()).header.request
            body = b"\x93\x91\xcd\x03\xe8\x90\x90"
            head = frames.pack(frames.RESPONSE, READ_CHUNKS.number, request, len(body), 8 * MIB) + body
            await send_and_reset(server.writer, (head + bytes(8 * MIB))[:sent])
            with pytest.raises(EmberError) as caught:
                await call
            assert caught.value.code is Code.PEER_GONE
            assert peer.closed

    run(main())


def test_a_reset_behind_full_windows_of_small_frames_is_seen() -> None:
    """Each read takes as much as it asked for and ends between two frames: nothing says that there is more."""

    async def main() -> None:
        async with raw_server() as (peer, server):
            call = asyncio.ensure_future(peer.call(PING, Ping(), timeout=1000))
            await server.read()
            body = b"\x91\xc4\x1d" + bytes(29)
            frame = frames.pack(frames.RESPONSE, PING.number, 9999, len(body)) + body
            assert len(frame) == 64
            await send_and_reset(server.writer, frame * 1024)
            with pytest.raises(EmberError) as caught:
                await call
            assert caught.value.code is Code.PEER_GONE

    run(main())


def test_a_greeted_caller_may_be_silent() -> None:
    async def main() -> None:
        async with serving(service()) as server, raw_client(server.port) as client:
            (connection,) = server._connections
            assert connection._patience is not None
            await client.greet()
            assert connection._patience is None

    run(main())


def test_a_slow_reader_stops_its_server_and_nobody_else() -> None:
    async def main() -> None:
        made = 0
        released = 0
        most = 0
        bound = 4 * MIB

        def release() -> None:
            nonlocal released
            released += 1

        def answer(call: Call) -> Reply:
            nonlocal made, most
            made += 1
            most = max(most, made - released)
            return Reply(ReadChunksReply([MIB], []), [data], release)

        data = bytes(MIB)
        offered = service()
        offered.bytes_in_flight_max = bound
        offered.register(READ_CHUNKS, answer)
        count = 60
        async with serving(offered) as server, raw_client(server.port) as client:
            client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * KIB)
            await client.greet()
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            for number in range(2, 2 + count):
                client.request(READ_CHUNKS, number, read_request(MIB))
            await until(lambda: made - released >= bound // MIB)
            async with connected(offered, server=server) as other:
                for _ in range(50):
                    await other.call(PING, Ping(), timeout=TIMEOUT)
            assert made < count, "the kernel takes some, the rest waits"
            assert most <= bound // MIB + 1
            client.writer.transport.resume_reading()  # type: ignore[attr-defined]
            for _ in range(count):
                assert len((await client.read()).payload) == MIB
            assert (made, released) == (count, count)
            assert most <= bound // MIB + 1

    run(main())


def test_a_request_whose_deadline_passed_on_the_way_is_not_worked_on() -> None:
    async def main() -> None:
        handled: list[Call] = []
        offered = service()

        def update(call: Call) -> Reply:
            handled.append(call)
            return Reply(UpdateChunksReply([], []))

        offered.register(UPDATE_CHUNKS, update, allocate=lambda request, length: memory(length))
        async with serving(offered) as server, raw_client(server.port) as client:
            await client.greet()
            # Its payload is not complete before its deadline.
            client.request(UPDATE_CHUNKS, 2, UpdateChunks(b"c", []), payload_length=10, payload=b"12345", deadline_ms=1)
            loop = asyncio.get_running_loop()
            start = loop.time()
            await until(lambda: loop.time() > start + 0.01)
            client.writer.write(b"67890")
            answered = await client.read()
            assert answered.error.code == Code.TIMED_OUT.value.number
            assert handled == []

    run(main())


def test_callers_who_ignore_goodbye_are_left_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving_module, "GOODBYE_PATIENCE_S", 0.0)
    monkeypatch.setattr(tcp, "LINGER_S", 0.0)

    async def main() -> None:
        async with serving(service()) as server, raw_client(server.port) as client:
            await client.greet()
            await server.close(grace_s=10_000)
            assert (await client.read()).header.kind == frames.GOODBYE
            assert await client.at_end()

    run(main())


def test_a_file_that_ends_early_ends_the_connection(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        path = tmp_path / "block"
        path.write_bytes(b"short")
        released: list[bool] = []
        with path.open("rb") as file:
            offered = service()
            reply = Reply(ReadChunksReply([10], []), [FileRange(file.fileno(), 0, 10)], lambda: released.append(True))
            offered.register(READ_CHUNKS, lambda call: reply)
            async with connected(offered) as peer:
                with pytest.raises(EmberError) as caught:
                    await peer.call(READ_CHUNKS, read_request(10), into=memory(10), timeout=TIMEOUT)
                assert caught.value.code is Code.PEER_GONE
                assert released == [True]

    with caplog.at_level(logging.ERROR):
        run(main())
    assert "file ended before byte 5" in caplog.text


# A caller and strange servers


@pytest.mark.parametrize("way", ["cancel", "timeout", "answer of another call"])
def test_the_rest_of_a_payload_nobody_waits_for_is_thrown_away(way: str) -> None:
    async def main() -> None:
        async with raw_server() as (peer, server):
            into = memory(1000)
            timeout = 0.01 if way == "timeout" else TIMEOUT
            call = asyncio.ensure_future(peer.call(READ_CHUNKS, read_request(1), into=into, timeout=timeout))
            request = (await server.read()).header.request
            body = b"\x93\x91\xcd\x03\xe8\x90\x90"
            frame = frames.pack(frames.RESPONSE, READ_CHUNKS.number, request, len(body), 1000) + body
            server.writer.write(frame + b"\x01" * 400)
            await until(lambda: into[0][399])
            if way == "answer of another call":
                server.writer.write(b"\x01" * 600)
                assert (await call).lengths == [1000]
                assert bytes(into[0]) == b"\x01" * 1000
                server.write(frames.RESPONSE, READ_CHUNKS.number, request, body, payload=b"\x02" * 1000)
            else:
                if way == "cancel":
                    call.cancel()
                with pytest.raises((asyncio.CancelledError, EmberError)):
                    await call
                server.writer.write(b"\x02" * 600)
            ping = asyncio.ensure_future(peer.call(PING, Ping(b"after"), timeout=TIMEOUT))
            server.write(frames.RESPONSE, PING.number, (await server.read()).header.request, Ping(b"answered"))
            assert (await ping).text == b"answered"
            assert b"\x02" not in bytes(into[0])

    run(main())


def test_a_server_that_vanishes_within_an_answer_fails_all_calls() -> None:
    async def main() -> None:
        async with raw_server() as (peer, server):
            calls = [
                asyncio.ensure_future(peer.call(READ_CHUNKS, read_request(1), into=memory(1000), timeout=1000))
                for _ in range(3)
            ]
            request = (await server.read()).header.request
            body = b"\x93\x91\xcd\x03\xe8\x90\x90"
            server.writer.write(
                frames.pack(frames.RESPONSE, READ_CHUNKS.number, request, len(body), 1000) + body + b"x"
            )
            await server.close()
            for outcome in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(outcome, EmberError)
                assert outcome.code is Code.PEER_GONE
            assert peer.closed

    run(main())


def test_answers_to_nobody_are_ignored() -> None:
    async def main() -> None:
        async with raw_server() as (peer, server):
            call = asyncio.ensure_future(peer.call(PING, Ping(), timeout=TIMEOUT))
            request = (await server.read()).header.request
            server.write(frames.RESPONSE, PING.number, request + 1000, Ping(b"who?"), payload=b"x" * 100_000)
            server.write(frames.ERROR, PING.number, request + 1001, ErrorBody(1, "who?"))
            server.write(frames.RESPONSE, PING.number, request, Ping(b"mine"))
            assert (await call).text == b"mine"

    run(main())


def test_an_early_error_takes_back_the_rest_of_the_requests_payload() -> None:
    """The server answers before it has read the payload; the caller's memory is free at once."""

    async def main() -> None:
        async with raw_server() as (peer, server):
            server.writer.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * KIB)
            data = bytearray(b"\x01" * (32 * MIB))
            call = asyncio.ensure_future(peer.call(UPDATE_CHUNKS, UpdateChunks(b"c", []), send=[data], timeout=TIMEOUT))
            header = frames.unpack(await server.reader.readexactly(32))
            await server.reader.readexactly(header.body_length)
            server.write(frames.ERROR, header.method, header.request, ErrorBody(Code.NO_SPACE.value.number, "full"))
            with pytest.raises(EmberError, match="full"):
                await call
            data[:] = b"!" * len(data)
            assert await server.reader.readexactly(header.payload_length) == b"\x01" * len(data)

    run(main())


def test_connections_find_dead_peers_and_do_not_delay() -> None:
    async def main() -> None:
        async with serving(service()) as server:
            listening_name = ("127.0.0.1", server.port)
            client = await tcp_socket.connected_socket(asyncio.get_running_loop(), *listening_name)
            with client:
                assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                assert client.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == tcp.UNACKNOWLEDGED_MS
                assert not os.get_inheritable(client.fileno())

    run(main())


def test_a_server_that_never_greets_is_unreachable() -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            with pytest.raises(EmberError, match=f"{port} did not greet") as caught:
                await tcp.connect("127.0.0.1", port, hello(), timeout=2.0)
            assert caught.value.code is Code.UNREACHABLE

    run(main())


def test_a_host_that_cannot_be_is_unreachable() -> None:
    async def main() -> None:
        with pytest.raises(EmberError, match="xxx:1 cannot be reached") as caught:
            await tcp.connect("x" * 64, 1, hello(), timeout=TIMEOUT)
        assert caught.value.code is Code.UNREACHABLE

    run(main())


def test_a_taken_port_is_an_error_of_the_system() -> None:
    async def main() -> None:
        async with serving(service()) as server:
            with pytest.raises(OSError, match="in use"):
                await tcp.serve(service(), "127.0.0.1", server.port)

    run(main())


def test_accepting_goes_on_after_descriptors_ran_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tcp, "ACCEPT_RETRY_S", 0.0)

    async def main() -> None:
        async with serving(service()) as server:
            real = server._socket

            class Exhausted:
                """Fails the first time, as `accept` does when a process has all the files it may have."""

                failed = False

                def accept(self) -> object:
                    if not self.failed:
                        self.failed = True
                        raise OSError(24, "Too many open files")
                    return real.accept()

                def __getattr__(self, name: str) -> object:
                    return getattr(real, name)

            server._socket = Exhausted()  # type: ignore[assignment]
            async with connected(service(), server=server) as peer:
                assert await peer.call(PING, Ping(b"in"), timeout=TIMEOUT) == Ping(b"in")

    run(main())
    assert "cannot accept a connection" in caplog.text


def test_connections_are_bounded_by_what_the_process_may_have() -> None:
    assert tcp.connections_max(1024) == 896
    assert tcp.connections_max(resource.RLIM_INFINITY) > 10**6
    assert tcp.connections_max(1) == 1


def test_connections_leave_descriptors_for_others(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with serving(service()) as server:
            server.connections_max = 2
            async with connected(service(), server=server) as peer, raw_client(server.port):
                await until(lambda: len(server._connections) == 2)
                async with raw_client(server.port) as third:
                    assert await third.at_end()
                with pytest.raises(EmberError) as caught:
                    await tcp.connect("127.0.0.1", server.port, hello(), timeout=TIMEOUT)
                assert caught.value.code is Code.UNREACHABLE
                assert await peer.call(PING, Ping(b"still"), timeout=TIMEOUT) == Ping(b"still")
            await until(lambda: not server._connections)
            async with connected(service(), server=server) as peer:
                assert await peer.call(PING, Ping(b"again"), timeout=TIMEOUT) == Ping(b"again")

    run(main())
    assert "no more are taken" in caplog.text


def test_large_transfers_share_the_loop_with_small_calls() -> None:
    """While one connection moves tens of MiB, a call on another is answered in between."""

    async def main() -> None:
        data = pattern(48 * MIB)
        offered = service()
        offered.register(READ_CHUNKS, lambda call: Reply(ReadChunksReply([], []), [data]))
        async with serving(offered) as server:
            async with connected(offered, server=server) as large, connected(offered, server=server) as small:
                into = memory(len(data))
                reading = asyncio.ensure_future(large.call(READ_CHUNKS, read_request(1), into=into, timeout=TIMEOUT))
                await until(lambda: into[0][1])
                await small.call(PING, Ping(), timeout=TIMEOUT)
                assert not reading.done()
                await reading
                assert into[0] == data

    run(main())
