"""What every transport promises to those who call over it. A new transport is one more line in `TRANSPORTS`."""

import asyncio
import logging
import math
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fs_common.errors import Code, EmberError, Retry
from fs_common.limits import BODY_BYTES_MAX, PAYLOAD_BYTES_MAX
from fs_common.methods import GET_ROUTING, PING, READ_CHUNKS, STATS, UPDATE_CHUNKS
from fs_common.records.routing import GetRouting
from fs_common.records.session import Empty, Hello, Ping
from fs_common.records.storage import ReadChunksReply, UpdateChunks, UpdateChunksReply
from fs_common.rpc import Admission, Allocation, Call, FileRange, Part, Reply, ServerSession, Service
from fs_common.security.identity import Identity
from fs_common.transports import tcp
from tests.certificates import TlsTransport
from tests.common.loopback import (
    KIB,
    MIB,
    TIMEOUT,
    connected,
    hello,
    memory,
    pattern,
    read_request,
    service,
    serving,
    until,
)
from tests.support import run

TRANSPORTS = [pytest.param(tcp, id="tcp"), pytest.param(TlsTransport(), id="tls")]
CLIENT = b"c" * 16

pytestmark = pytest.mark.parametrize("transport", TRANSPORTS)


def replying(*parts: Part, lengths: list[int] | None = None) -> Service:
    """READ_CHUNKS answers with these parts."""
    offered = service()
    sizes = lengths or [part.length if isinstance(part, FileRange) else len(part) for part in parts]
    offered.register(READ_CHUNKS, lambda call: Reply(ReadChunksReply(sizes, []), parts))
    return offered


class Gate:
    """READ_CHUNKS waits until it is opened; the handlers that wait are counted."""

    def __init__(self) -> None:
        self.service = service()
        self.service.register(READ_CHUNKS, self._answer)
        self.open = asyncio.Event()
        self.waiting = 0
        self.cancelled = 0

    async def _answer(self, call: Call) -> Reply:
        self.waiting += 1
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.waiting -= 1
        return Reply(ReadChunksReply([], []))


# Answers


def test_a_call_is_answered(transport: ModuleType) -> None:
    async def main() -> None:
        async with connected(service(), transport) as peer:
            assert await peer.call(PING, Ping(b"hello"), timeout=TIMEOUT) == Ping(b"hello")
            assert (peer.welcome.role, peer.welcome.cluster, peer.welcome.node) == ("storage", "test-cluster", 7)

    run(main())


def test_answers_come_to_their_own_callers(transport: ModuleType) -> None:
    """Each waits for all those after it, so answers come in the opposite order."""

    async def main() -> None:
        events = [asyncio.Event() for _ in range(50)]

        async def answer(call: Call) -> Reply:
            number = call.request.items[0].length
            if number + 1 < len(events):
                await events[number + 1].wait()
            events[number].set()
            return Reply(ReadChunksReply([number], []))

        offered = service()
        offered.register(READ_CHUNKS, answer)
        async with connected(offered, transport) as peer:
            answers = await asyncio.gather(
                *(peer.call(READ_CHUNKS, read_request(n), timeout=TIMEOUT) for n in range(len(events)))
            )
            assert [answer.lengths for answer in answers] == [[n] for n in range(len(events))]

    run(main())


def test_a_large_record_travels_whole(transport: ModuleType) -> None:
    async def main() -> None:
        async with connected(service(), transport) as peer:
            for size in (65_000, 65_536, 3 * MIB):
                text = pattern(size, size)
                assert (await peer.call(PING, Ping(text), timeout=TIMEOUT)).text == text

    run(main())


def test_stats_count_calls_and_errors(transport: ModuleType) -> None:
    async def main() -> None:
        offered = service()
        offered.add_stats(lambda: {"custom": 3})
        offered.register(READ_CHUNKS, lambda call: (_ for _ in ()).throw(EmberError(Code.BUSY)))
        async with connected(offered, transport) as peer:
            await peer.call(PING, Ping(), timeout=TIMEOUT)
            with pytest.raises(EmberError):
                await peer.call(READ_CHUNKS, read_request(1), timeout=TIMEOUT)
            counters = (await peer.call(STATS, Empty(), timeout=TIMEOUT)).counters
            assert counters["rpc_ping_calls"] == 1
            assert counters["rpc_ping_errors"] == 0
            assert counters["rpc_read_chunks_errors"] == 1
            assert counters["custom"] == 3

    run(main())


# Payload


@pytest.mark.parametrize("size", [1, 100, 512, 513, 4096, 300_000, 5 * MIB])
def test_response_payload_lands_in_the_callers_memory(transport: ModuleType, size: int) -> None:
    async def main() -> None:
        data = pattern(size, 3)
        async with connected(replying(memoryview(data)), transport) as peer:
            into = memory(size)
            reply = await peer.call(READ_CHUNKS, read_request(size), into=into, timeout=TIMEOUT)
            assert reply == ReadChunksReply([size], [])
            assert into[0] == data

    run(main())


def test_parts_of_all_kinds_are_scattered_over_views_of_other_sizes(transport: ModuleType, tmp_path: Path) -> None:
    async def main() -> None:
        data = pattern(700_000, 1)
        path = tmp_path / "block"
        path.write_bytes(data)
        with path.open("rb") as file:
            parts: list[Part] = [
                data[:10],
                FileRange(file.fileno(), 10, 300_000),
                bytearray(data[300_010:300_020]),
                b"",
                memoryview(data)[300_020:600_000],
                FileRange(file.fileno(), 600_000, 100_000),
            ]
            async with connected(replying(*parts, lengths=[1]), transport) as peer:
                for _ in range(3):
                    into = memory(1, 0, 299_999, 400_000, 0)
                    await peer.call(READ_CHUNKS, read_request(1), into=into, timeout=TIMEOUT)
                    assert b"".join(into) == data

    run(main())


def test_many_small_pieces_share_one_frame(transport: ModuleType) -> None:
    """More pieces than one system call takes, both ways."""

    async def main() -> None:
        data = pattern(3000 * 32, 2)
        pieces = [memoryview(data)[i * 32 : i * 32 + 32] for i in range(3000)]
        async with connected(replying(*pieces), transport) as peer:
            into = memory(*[32] * 3000)
            await peer.call(READ_CHUNKS, read_request(1), into=into, timeout=TIMEOUT)
            assert b"".join(into) == data

    run(main())


def test_short_answers_are_laid_out_by_their_lengths(transport: ModuleType) -> None:
    async def main() -> None:
        async with connected(replying(b"aaa", b"cc", lengths=[3, 0, 2]), transport) as peer:
            into = memory(4, 4, 4)
            await peer.call(READ_CHUNKS, read_request(4, 4, 4), into=into, timeout=TIMEOUT)
            assert [bytes(view) for view in into] == [b"aaa\0", b"\0" * 4, b"cc\0\0"]

    run(main())


@pytest.mark.parametrize("lengths", [[3, 3], [5, -2, 2], [5, 0, 0], [1, 1, 1]])
def test_lengths_that_cannot_be_are_refused(transport: ModuleType, lengths: list[int]) -> None:
    async def main() -> None:
        async with connected(replying(b"aaaaa", lengths=lengths), transport) as peer:
            into = memory(4, 4, 4)
            with pytest.raises(EmberError, match="do not fit") as caught:
                await peer.call(READ_CHUNKS, read_request(4, 4, 4), into=into, timeout=TIMEOUT)
            assert caught.value.code is Code.INTERNAL
            assert b"".join(into) == bytes(12)
            assert await peer.call(PING, Ping(b"still"), timeout=TIMEOUT) == Ping(b"still")

    run(main())


def test_more_payload_than_asked_for_is_refused(transport: ModuleType) -> None:
    async def main() -> None:
        async with connected(replying(pattern(200_000)), transport) as peer:
            for into in (memory(199_999), []):
                with pytest.raises(EmberError, match="do not fit"):
                    await peer.call(READ_CHUNKS, read_request(1), into=into, timeout=TIMEOUT)
            assert await peer.call(PING, Ping(b"still"), timeout=TIMEOUT) == Ping(b"still")

    run(main())


def test_request_payload_lands_where_the_service_wants_it(transport: ModuleType, tmp_path: Path) -> None:
    async def main() -> None:
        data = pattern(2 * MIB, 9)
        path = tmp_path / "file"
        path.write_bytes(data)
        got: list[bytes] = []
        released: list[int] = []
        offered = service()

        def allocate(request: UpdateChunks, length: int) -> Allocation:
            assert request.client == CLIENT
            return Allocation(memory(length // 2, length - length // 2), lambda: released.append(length))

        async def update(call: Call) -> Reply:
            await asyncio.sleep(0)
            assert not released[len(got) :]
            got.append(b"".join(call.payload))
            return Reply(UpdateChunksReply([1], [len(got[-1])]))

        offered.register(UPDATE_CHUNKS, update, allocate=allocate)
        async with connected(offered, transport) as peer:
            with path.open("rb") as file:
                sends: list[list[Part]] = [
                    [memoryview(data)],
                    [data[:1], bytearray(data[1:1000])],
                    [b"x", FileRange(file.fileno(), 1, len(data) - 1)],
                ]
                for send in sends:
                    await peer.call(UPDATE_CHUNKS, UpdateChunks(CLIENT, []), send=send, timeout=TIMEOUT)
            assert got == [data, data[:1000], b"x" + data[1:]]
            assert released == [len(data), 1000, len(data)]

    run(main())


def test_views_of_wider_items_are_bytes_to_the_wire(transport: ModuleType) -> None:
    async def main() -> None:
        data = pattern(80, 4)
        async with connected(replying(memoryview(data).cast("Q")), transport) as peer:
            into = memoryview(bytearray(80)).cast("d")
            wide: Any = into
            await peer.call(READ_CHUNKS, read_request(80), into=[wide], timeout=TIMEOUT)
            assert into.tobytes() == data

    run(main())


def test_an_answer_made_of_the_requests_payload(transport: ModuleType) -> None:
    """The payload's memory is given back after the reply that is made of it is sent."""

    async def main() -> None:
        order: list[str] = []
        offered = service()
        offered.register(
            READ_CHUNKS,
            lambda call: Reply(ReadChunksReply([1], []), call.payload, lambda: order.append("reply")),
            allocate=lambda request, length: Allocation(memory(length), lambda: order.append("payload")),
        )
        async with connected(offered, transport) as peer:
            data = pattern(MIB, 5)
            into = memory(MIB)
            await peer.call(READ_CHUNKS, read_request(1), send=[data], into=into, timeout=TIMEOUT)
            assert into[0] == data
            assert order == ["reply", "payload"]

    run(main())


# Errors


def test_errors_of_the_table_arrive_as_they_were_raised(transport: ModuleType) -> None:
    async def main() -> None:
        offered = service()

        async def at_once(call: Call) -> Reply:
            raise EmberError(Code.NOT_HEAD, "target 101 is not the head of chain 5")

        async def later(call: Call) -> Reply:
            await asyncio.sleep(0)
            raise EmberError(Code.NO_SPACE, "target 101 is full")

        offered.register(READ_CHUNKS, at_once)
        offered.register(UPDATE_CHUNKS, later)
        async with connected(offered, transport) as peer:
            with pytest.raises(EmberError, match="not the head of chain 5") as caught:
                await peer.call(READ_CHUNKS, read_request(1), timeout=TIMEOUT)
            assert (caught.value.code, caught.value.retry) == (Code.NOT_HEAD, Retry.AFTER_REFRESH)
            with pytest.raises(EmberError, match="is full") as caught:
                await peer.call(UPDATE_CHUNKS, UpdateChunks(CLIENT, []), timeout=TIMEOUT)
            assert caught.value.code is Code.NO_SPACE

    run(main())


def test_a_defect_of_a_handler_is_logged_and_answered(transport: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        offered = service()

        def fails(call: Call) -> Reply:
            raise KeyError("at once")

        async def fails_later(call: Call) -> Reply:
            await asyncio.sleep(0)
            raise ZeroDivisionError("later")

        offered.register(READ_CHUNKS, fails)
        offered.register(UPDATE_CHUNKS, fails_later)
        offered.register(GET_ROUTING, lambda call: None)  # type: ignore[arg-type, return-value]
        async with connected(offered, transport) as peer:
            for method, request in (
                (READ_CHUNKS, read_request(1)),
                (UPDATE_CHUNKS, UpdateChunks(CLIENT, [])),
                (GET_ROUTING, GetRouting()),
            ):
                with pytest.raises(EmberError) as caught:
                    await peer.call(method, request, timeout=TIMEOUT)
                assert caught.value.code is Code.INTERNAL
            assert await peer.call(PING, Ping(b"still"), timeout=TIMEOUT) == Ping(b"still")

    with caplog.at_level(logging.ERROR):
        run(main())
    assert "KeyError: 'at once'" in caplog.text
    assert "ZeroDivisionError: later" in caplog.text


def test_an_unknown_method_is_refused(transport: ModuleType) -> None:
    async def main() -> None:
        async with connected(service(), transport) as peer:
            with pytest.raises(EmberError, match="storage server has no method 10") as caught:
                await peer.call(GET_ROUTING, GetRouting(), timeout=TIMEOUT)
            assert caught.value.code is Code.UNKNOWN_METHOD
            assert await peer.call(PING, Ping(b"still"), timeout=TIMEOUT) == Ping(b"still")

    run(main())


def test_a_malformed_record_is_refused_in_both_directions(transport: ModuleType) -> None:
    async def main() -> None:
        offered = service()
        offered.register(READ_CHUNKS, lambda call: Reply(Ping(b"no list of lengths")))
        async with connected(offered, transport) as peer:
            with pytest.raises(EmberError, match="request of ping is malformed") as caught:
                await peer.call(PING, GetRouting(5), timeout=TIMEOUT)
            assert caught.value.code is Code.BAD_BODY
            with pytest.raises(EmberError, match="answered read_chunks with a malformed record") as caught:
                await peer.call(READ_CHUNKS, read_request(1), timeout=TIMEOUT)
            assert caught.value.code is Code.INTERNAL
            assert await peer.call(PING, Ping(b"still"), timeout=TIMEOUT) == Ping(b"still")

    run(main())


def test_payload_for_a_method_that_takes_none_is_refused(transport: ModuleType) -> None:
    async def main() -> None:
        async with connected(service(), transport) as peer:
            with pytest.raises(EmberError, match="ping takes no payload") as caught:
                await peer.call(PING, Ping(), send=[bytes(20 * MIB)], timeout=TIMEOUT)
            assert caught.value.code is Code.BAD_BODY
            assert await peer.call(PING, Ping(b"still"), timeout=TIMEOUT) == Ping(b"still")

    run(main())


def test_an_allocation_may_be_refused(transport: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        offered = service()
        released: list[int] = []

        def refuse(request: Any, length: int) -> Allocation:
            if length == 1:
                raise EmberError(Code.BUSY, "no buffers left")
            return Allocation(memory(length - 1), lambda: released.append(length))

        offered.register(UPDATE_CHUNKS, lambda call: Reply(UpdateChunksReply([], [])), allocate=refuse)
        async with connected(offered, transport) as peer:
            with pytest.raises(EmberError, match="no buffers left") as caught:
                await peer.call(UPDATE_CHUNKS, UpdateChunks(CLIENT, []), send=[b"x"], timeout=TIMEOUT)
            assert caught.value.code is Code.BUSY
            with pytest.raises(EmberError, match="see the server's log") as caught:
                await peer.call(UPDATE_CHUNKS, UpdateChunks(CLIENT, []), send=[b"xyz"], timeout=TIMEOUT)
            assert caught.value.code is Code.INTERNAL
            assert released == [3]
            assert await peer.call(PING, Ping(b"still"), timeout=TIMEOUT) == Ping(b"still")

    with caplog.at_level(logging.CRITICAL):
        run(main())


def test_what_is_over_a_bound_is_not_sent(transport: ModuleType) -> None:
    async def main() -> None:
        async with connected(service(), transport) as peer:
            for request, send in ((Ping(bytes(BODY_BYTES_MAX)), []), (Ping(), [bytes(PAYLOAD_BYTES_MAX + 1)])):
                with pytest.raises(EmberError, match="split it") as caught:
                    await peer.call(PING, request, send=send, timeout=TIMEOUT)
                assert caught.value.code is Code.TOO_LARGE
            assert await peer.call(PING, Ping(b"still"), timeout=TIMEOUT) == Ping(b"still")

    run(main())


@pytest.mark.parametrize("payload", [b"", b"with payload"])
def test_an_answer_over_a_bound_is_an_error(transport: ModuleType, payload: bytes) -> None:
    async def main() -> None:
        released: list[bool] = []
        offered = service()
        reply = Reply(
            ReadChunksReply([], [bytes(BODY_BYTES_MAX)]), [payload] if payload else [], lambda: released.append(True)
        )
        offered.register(READ_CHUNKS, lambda call: reply)
        async with connected(offered, transport) as peer:
            with pytest.raises(EmberError, match="over the bound") as caught:
                await peer.call(READ_CHUNKS, read_request(1), timeout=TIMEOUT)
            assert caught.value.code is Code.INTERNAL
            assert released == [True]
            assert await peer.call(PING, Ping(b"still"), timeout=TIMEOUT) == Ping(b"still")

    run(main())


# Hello


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"versions": [2, 3]}, Code.VERSION_MISMATCH, "speaks protocol 1"),
        ({"versions": []}, Code.VERSION_MISMATCH, "upgrade the older side"),
        ({"cluster": "elsewhere"}, Code.WRONG_CLUSTER, "belongs to cluster 'test-cluster'"),
        ({"token": "wrong"}, Code.ACCESS_DENIED, "token"),
    ],
)
def test_strangers_are_turned_away(transport: ModuleType, changes: dict[str, Any], code: Code, words: str) -> None:
    async def main() -> None:
        def admit(hello: Hello) -> None:
            if hello.token:
                raise EmberError(Code.ACCESS_DENIED, "the token is not known")

        offered = service()
        offered.admit = admit
        async with serving(offered, transport) as server:
            with pytest.raises(EmberError, match=words) as caught:
                await transport.connect("127.0.0.1", server.port, hello(**changes), timeout=TIMEOUT)
            assert caught.value.code is code
            peer = await transport.connect("127.0.0.1", server.port, hello(cluster=""), timeout=TIMEOUT)
            await peer.close()

    run(main())


def test_a_caller_is_who_the_service_says_and_calls_what_it_may(transport: ModuleType) -> None:
    async def main() -> None:
        sessions: list[ServerSession] = []
        identity = Identity("client", CLIENT, "ada")

        def authenticate(hello: Hello) -> Admission:
            if hello.token != "good":
                raise EmberError(Code.UNAUTHENTICATED, "nobody knows this token")
            return Admission(identity, frozenset({PING.number}), b"a pass")

        def answer(call: Call) -> Reply:
            sessions.append(call.session)
            return Reply(ReadChunksReply([], []))

        offered = service()
        offered.authenticate = authenticate
        offered.register(READ_CHUNKS, answer)
        async with serving(offered, transport) as server:
            with pytest.raises(EmberError, match="nobody knows") as caught:
                await transport.connect("127.0.0.1", server.port, hello(), timeout=TIMEOUT)
            assert caught.value.code is Code.UNAUTHENTICATED and not offered.sessions
            peer = await transport.connect("127.0.0.1", server.port, hello(token="good"), timeout=TIMEOUT)
            assert peer.welcome.given_pass == b"a pass"
            assert [session.identity for session in offered.sessions] == [identity]
            for send in ((), [b"payload"]):
                with pytest.raises(EmberError, match=r"'ada'.* may not call read_chunks") as caught:
                    await peer.call(READ_CHUNKS, read_request(1), send=send, timeout=TIMEOUT)
                assert caught.value.code is Code.ACCESS_DENIED
            assert await peer.call(PING, Ping(b"still"), timeout=TIMEOUT) == Ping(b"still")
            assert not sessions
            await peer.close()
            await until(lambda: not offered.sessions)

    run(main())


def test_the_service_ends_a_session_with_its_calls(transport: ModuleType) -> None:
    async def main() -> None:
        cancelled: list[bool] = []
        offered = service()

        async def answer(call: Call) -> Reply:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(True)
                raise
            raise AssertionError

        offered.register(READ_CHUNKS, answer)
        async with connected(offered, transport) as peer:
            call = asyncio.ensure_future(peer.call(READ_CHUNKS, read_request(1), timeout=TIMEOUT))
            await until(lambda: offered.registrations[READ_CHUNKS.number].calls)
            (session,) = offered.sessions
            session.end(EmberError(Code.UNAUTHENTICATED, "the token was revoked"))
            with pytest.raises(EmberError) as caught:
                await call
            assert caught.value.code is Code.PEER_GONE
            assert peer.closed and session.closed and not offered.sessions
            await until(lambda: cancelled)
            session.end(EmberError(Code.UNAUTHENTICATED, "once more"))

    run(main())


def test_nobody_there_is_unreachable(transport: ModuleType) -> None:
    async def main() -> None:
        async with serving(service(), transport) as server:
            port = server.port
        with pytest.raises(EmberError, match=f"127.0.0.1:{port} cannot be reached") as caught:
            await transport.connect("127.0.0.1", port, hello(), timeout=TIMEOUT)
        assert caught.value.code is Code.UNREACHABLE

    run(main())


def test_the_service_knows_who_calls_and_when_they_leave(transport: ModuleType) -> None:
    async def main() -> None:
        seen: list[Any] = []
        ended: list[Any] = []
        offered = service()
        offered.session_ended = ended.append

        def answer(call: Call) -> Reply:
            seen.append(call.session)
            return Reply(ReadChunksReply([], []))

        offered.register(READ_CHUNKS, answer)
        async with connected(offered, transport) as peer:
            await peer.call(READ_CHUNKS, read_request(1), timeout=TIMEOUT)
            await peer.call(READ_CHUNKS, read_request(1), timeout=TIMEOUT)
            assert seen[0] is seen[1]
            assert seen[0].hello.client == CLIENT
            assert seen[0].address.startswith("127.0.0.1:")
            assert not seen[0].closed
            await peer.close()
            await until(lambda: ended)
            assert ended == [seen[0]]
            assert seen[0].closed

    run(main())


def test_the_service_knows_of_a_caller_that_left_while_its_call_is_in_work(transport: ModuleType) -> None:
    async def main() -> None:
        gate = Gate()
        finished: list[Any] = []
        gate.service.session_finished = finished.append
        async with connected(gate.service, transport) as peer:
            task = asyncio.create_task(peer.call(READ_CHUNKS, read_request(1), timeout=TIMEOUT))
            await until(lambda: gate.waiting)
            await peer.close()
            await until(lambda: finished)
            assert [session.hello.client for session in finished] == [CLIENT] and gate.waiting == 1
            gate.open.set()
            with pytest.raises(EmberError):
                await task

    run(main())


# Timeouts and cancellation


def test_a_call_without_an_answer_times_out_and_its_handler_is_cancelled(transport: ModuleType) -> None:
    async def main() -> None:
        gate = Gate()
        async with connected(gate.service, transport) as peer:
            with pytest.raises(EmberError, match="did not answer read_chunks in time") as caught:
                await peer.call(READ_CHUNKS, read_request(1), timeout=0.01)
            assert caught.value.code is Code.TIMED_OUT
            assert caught.value.retry is Retry.MAYBE_APPLIED
            await until(lambda: gate.cancelled)
            assert await peer.call(PING, Ping(b"still"), timeout=TIMEOUT) == Ping(b"still")

    run(main())


def test_a_handler_sees_its_deadline(transport: ModuleType) -> None:
    async def main() -> None:
        left: list[float] = []
        offered = service()

        def answer(call: Call) -> Reply:
            left.append(call.deadline - asyncio.get_running_loop().time())
            return Reply(ReadChunksReply([], []))

        offered.register(READ_CHUNKS, answer)
        async with connected(offered, transport) as peer:
            await peer.call(READ_CHUNKS, read_request(1), timeout=1000.0)
        assert math.isclose(left[0], 1000.0, rel_tol=0.1)

    run(main())


def test_a_cancelled_call_leaves_the_connection_as_it_was(transport: ModuleType) -> None:
    async def main() -> None:
        gate = Gate()
        async with connected(gate.service, transport) as peer:
            call = asyncio.ensure_future(peer.call(READ_CHUNKS, read_request(1), timeout=TIMEOUT))
            await until(lambda: gate.waiting)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            gate.open.set()
            assert await peer.call(PING, Ping(b"still"), timeout=TIMEOUT) == Ping(b"still")

    run(main())


def test_memory_is_not_touched_after_a_call_is_cancelled_while_its_payload_lands(transport: ModuleType) -> None:
    async def main() -> None:
        size = 32 * MIB
        async with connected(replying(b"\x01" * size), transport) as peer:
            into = memory(size)
            call = asyncio.ensure_future(peer.call(READ_CHUNKS, read_request(size), into=into, timeout=TIMEOUT))
            await until(lambda: into[0][0])
            assert not into[0][-1], "the payload is still landing"
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            landed = bytes(into[0])
            # The answer to a later call comes behind the rest of the payload.
            assert await peer.call(PING, Ping(b"after"), timeout=TIMEOUT) == Ping(b"after")
            assert bytes(into[0]) == landed

    run(main())


def test_a_request_that_has_begun_is_completed_from_a_copy(transport: ModuleType, tmp_path: Path) -> None:
    """The caller gives up while its payload leaves, then reuses its memory and closes its file."""

    async def main() -> None:
        size = 24 * MIB
        path = tmp_path / "file"
        path.write_bytes(b"\x02" * size)
        allocated: list[int] = []
        got: list[bytes] = []

        def allocate(request: UpdateChunks, length: int) -> list[memoryview]:
            allocated.append(length)
            return memory(length)

        def update(call: Call) -> Reply:
            got.append(b"".join(call.payload))
            return Reply(UpdateChunksReply([], []))

        offered = service()
        offered.register(UPDATE_CHUNKS, update, allocate=allocate)
        async with connected(offered, transport) as peer:
            sent = bytearray(b"\x01" * size)
            file = os.open(path, os.O_RDONLY)
            send: list[Part] = [sent, FileRange(file, 0, size)]
            call = asyncio.ensure_future(peer.call(UPDATE_CHUNKS, UpdateChunks(CLIENT, []), send=send, timeout=TIMEOUT))
            await until(lambda: allocated)
            assert not got, "the payload is still leaving"
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            sent[:] = b"!" * size
            os.close(file)
            assert await peer.call(PING, Ping(b"after"), timeout=TIMEOUT) == Ping(b"after")
            assert got == [b"\x01" * size + b"\x02" * size]

    run(main())


# Bounds on what is in flight


@pytest.mark.parametrize("bound", ["calls", "bytes"])
def test_calls_wait_for_their_turn(transport: ModuleType, bound: str) -> None:
    async def main() -> None:
        gate = Gate()
        async with serving(gate.service, transport) as server, connected(gate.service, transport, server) as peer:
            if bound == "calls":
                peer.calls_in_flight_max = 2
            else:
                peer.bytes_in_flight_max = 2 * KIB
            calls = [
                asyncio.ensure_future(peer.call(READ_CHUNKS, read_request(KIB), into=memory(KIB), timeout=TIMEOUT))
                for _ in range(6)
            ]
            await until(lambda: gate.waiting == 2)
            calls[5].cancel()
            # Another caller's round trips: time enough for a third request to come, if there was one.
            other = await transport.connect("127.0.0.1", server.port, hello(), timeout=TIMEOUT)
            for _ in range(10):
                await other.call(PING, Ping(), timeout=TIMEOUT)
                assert gate.waiting == 2
            await other.close()
            calls[0].cancel()
            await until(lambda: gate.waiting == 3)  # its handler goes on; its turn is free
            gate.open.set()
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert [isinstance(outcome, ReadChunksReply) for outcome in outcomes] == [
                False,
                True,
                True,
                True,
                True,
                False,
            ]
            assert await peer.call(PING, Ping(b"still"), timeout=TIMEOUT) == Ping(b"still")

    run(main())


def test_a_call_whose_turn_does_not_come_is_safe_to_retry(transport: ModuleType) -> None:
    async def main() -> None:
        gate = Gate()
        async with connected(gate.service, transport) as peer:
            peer.calls_in_flight_max = 1
            first = asyncio.ensure_future(peer.call(READ_CHUNKS, read_request(1), timeout=TIMEOUT))
            await until(lambda: gate.waiting)
            with pytest.raises(EmberError, match="no room for another call") as caught:
                await peer.call(PING, Ping(), timeout=0.01)
            assert caught.value.retry is Retry.SAFE
            gate.open.set()
            await first
            assert await peer.call(PING, Ping(b"still"), timeout=TIMEOUT) == Ping(b"still")

    run(main())


def test_a_call_larger_than_the_bound_goes_alone(transport: ModuleType) -> None:
    async def main() -> None:
        data = pattern(8 * KIB)
        async with connected(replying(data), transport) as peer:
            peer.bytes_in_flight_max = KIB
            into = memory(8 * KIB)
            await peer.call(READ_CHUNKS, read_request(1), into=into, timeout=TIMEOUT)
            assert into[0] == data

    run(main())


def test_a_server_works_on_a_bounded_number_of_requests(transport: ModuleType) -> None:
    async def main() -> None:
        gate = Gate()
        gate.service.calls_in_flight_max = 3
        most = 0
        async with connected(gate.service, transport) as peer:
            calls = [asyncio.ensure_future(peer.call(READ_CHUNKS, read_request(1), timeout=TIMEOUT)) for _ in range(10)]
            await until(lambda: gate.waiting == 3)
            for _ in range(100):
                await asyncio.sleep(0)
                most = max(most, gate.waiting)
            assert most == 3
            gate.open.set()
            assert len(await asyncio.gather(*calls)) == 10

    run(main())


def test_payload_in_work_is_bounded_and_a_large_one_still_comes_in(transport: ModuleType) -> None:
    """One payload alone is over the bound: it must not wait for itself."""

    async def main() -> None:
        opened = asyncio.Event()
        working = 0

        async def update(call: Call) -> Reply:
            nonlocal working
            working += 1
            await opened.wait()
            working -= 1
            return Reply(UpdateChunksReply([], []))

        offered = service()
        offered.bytes_in_flight_max = MIB
        offered.register(UPDATE_CHUNKS, update, allocate=lambda request, length: memory(length))
        async with connected(offered, transport) as peer:
            send = [bytes(4 * MIB)]
            calls = [
                asyncio.ensure_future(peer.call(UPDATE_CHUNKS, UpdateChunks(CLIENT, []), send=send, timeout=TIMEOUT))
                for _ in range(4)
            ]
            await until(lambda: working == 1)
            for _ in range(100):
                await asyncio.sleep(0)
                assert working == 1
            opened.set()
            assert len(await asyncio.gather(*calls)) == 4

    run(main())


# Ends


@pytest.mark.parametrize("work", ["nothing", "handler waits", "payload lands"])
def test_a_caller_that_is_gone_frees_everything(transport: ModuleType, work: str) -> None:
    async def main() -> None:
        gate = Gate()
        taken: list[int] = []
        released: list[int] = []
        handled: list[bool] = []

        def allocate(request: UpdateChunks, length: int) -> Allocation:
            taken.append(length)
            return Allocation(memory(length), lambda: released.append(length))

        def update(call: Call) -> Reply:
            handled.append(True)
            return Reply(UpdateChunksReply([], []))

        gate.service.register(UPDATE_CHUNKS, update, allocate=allocate)
        async with connected(gate.service, transport) as peer:
            call: asyncio.Future[Any] | None = None
            if work == "handler waits":
                call = asyncio.ensure_future(peer.call(READ_CHUNKS, read_request(1), timeout=TIMEOUT))
                await until(lambda: gate.waiting)
            elif work == "payload lands":
                send = [bytes(32 * MIB)]
                call = asyncio.ensure_future(
                    peer.call(UPDATE_CHUNKS, UpdateChunks(CLIENT, []), send=send, timeout=TIMEOUT)
                )
                await until(lambda: taken)
            await peer.close()
            assert peer.closed
            if call is not None:
                with pytest.raises(EmberError) as caught:
                    await call
                assert caught.value.code is Code.PEER_GONE
            if work == "payload lands":
                await until(lambda: released)
                assert not handled
            gate.open.set()
            with pytest.raises(EmberError) as caught:
                await peer.call(PING, Ping(), timeout=TIMEOUT)
            assert caught.value.code is Code.UNREACHABLE
            assert caught.value.retry is Retry.SAFE

    run(main())


def test_a_server_that_is_cut_off_fails_all_calls_at_once(transport: ModuleType) -> None:
    async def main() -> None:
        gate = Gate()
        async with serving(gate.service, transport) as server:
            peer = await transport.connect("127.0.0.1", server.port, hello(), timeout=TIMEOUT)
            peer.calls_in_flight_max = 3
            calls = [asyncio.ensure_future(peer.call(READ_CHUNKS, read_request(1), timeout=1000)) for _ in range(5)]
            await until(lambda: gate.waiting == 3)
            await server.close(grace_s=0)
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            codes = [outcome.code for outcome in outcomes if isinstance(outcome, EmberError)]
            # Those that were sent may have been applied; those that waited for their turn were not.
            assert codes[:3] == [Code.PEER_GONE] * 3
            assert all(code in (Code.CLOSING, Code.UNREACHABLE) for code in codes[3:]) and len(codes) == 5
            assert gate.cancelled == 3
            assert peer.closed

    run(main())


def test_a_graceful_close_finishes_what_is_in_work_and_refuses_the_rest(transport: ModuleType) -> None:
    async def main() -> None:
        gate = Gate()
        async with serving(gate.service, transport) as server:
            peer = await transport.connect("127.0.0.1", server.port, hello(), timeout=TIMEOUT)
            call = asyncio.ensure_future(peer.call(READ_CHUNKS, read_request(1), timeout=TIMEOUT))
            await until(lambda: gate.waiting)
            closing = asyncio.ensure_future(server.close(grace_s=TIMEOUT))
            await until(lambda: peer.closing)
            with pytest.raises(EmberError, match="shutting down") as caught:
                await peer.call(PING, Ping(), timeout=TIMEOUT)
            assert caught.value.code is Code.CLOSING
            assert not closing.done()
            gate.open.set()
            assert await call == ReadChunksReply([], [])
            await closing
            await until(lambda: peer.closed)

    run(main())


def test_closing_a_server_with_idle_callers_does_not_take_the_grace(transport: ModuleType) -> None:
    async def main() -> None:
        async with serving(service(), transport) as server:
            peers = [await transport.connect("127.0.0.1", server.port, hello(), timeout=TIMEOUT) for _ in range(3)]
            await server.close(grace_s=10_000)
            await until(lambda: all(peer.closed for peer in peers))

    run(main())


def test_closing_twice_is_closing_once(transport: ModuleType) -> None:
    async def main() -> None:
        async with connected(service(), transport) as peer:
            await peer.close()
            await peer.close()
            assert peer.closed
        server = await transport.serve(service(), "127.0.0.1", 0)
        await server.close()
        await server.close()
        with pytest.raises(EmberError) as caught:
            await transport.connect("127.0.0.1", server.port, hello(), timeout=TIMEOUT)
        assert caught.value.code is Code.UNREACHABLE

    run(main())
