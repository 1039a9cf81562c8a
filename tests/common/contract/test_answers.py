"""Calls are answered, or refused by the error table."""

import asyncio
import logging
from typing import Any

import pytest

from fs_common.errors import Code, EmberError, Retry
from fs_common.limits import BODY_BYTES_MAX, PAYLOAD_BYTES_MAX
from fs_common.methods import GET_ROUTING, PING, READ_CHUNKS, STATS, UPDATE_CHUNKS
from fs_common.records.routing import GetRouting
from fs_common.records.session import Empty, Ping
from fs_common.records.storage import ReadChunksReply, UpdateChunks, UpdateChunksReply
from fs_common.rpc import Allocation, Call, Reply
from tests.common.loopback import (
    MIB,
    TIMEOUT,
    connected,
    memory,
    pattern,
    read_request,
    service,
)
from tests.common.services import CLIENT
from tests.common.transports import Transport
from tests.support import run

# Answers


def test_a_call_is_answered(transport: Transport) -> None:
    async def main() -> None:
        async with connected(service(), transport) as peer:
            assert await peer.call(PING, Ping(b"hello"), timeout=TIMEOUT) == Ping(b"hello")
            assert (peer.welcome.role, peer.welcome.cluster, peer.welcome.node) == ("storage", "test-cluster", 7)

    run(main())


def test_answers_come_to_their_own_callers(transport: Transport) -> None:
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


def test_a_large_record_travels_whole(transport: Transport) -> None:
    async def main() -> None:
        async with connected(service(), transport) as peer:
            for size in (65_000, 65_536, 3 * MIB):
                text = pattern(size, size)
                assert (await peer.call(PING, Ping(text), timeout=TIMEOUT)).text == text

    run(main())


def test_stats_count_calls_and_errors(transport: Transport) -> None:
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


# Errors


def test_errors_of_the_table_arrive_as_they_were_raised(transport: Transport) -> None:
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


def test_a_defect_of_a_handler_is_logged_and_answered(transport: Transport, caplog: pytest.LogCaptureFixture) -> None:
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


def test_an_unknown_method_is_refused(transport: Transport) -> None:
    async def main() -> None:
        async with connected(service(), transport) as peer:
            with pytest.raises(EmberError, match="storage server has no method 10") as caught:
                await peer.call(GET_ROUTING, GetRouting(), timeout=TIMEOUT)
            assert caught.value.code is Code.UNKNOWN_METHOD
            assert await peer.call(PING, Ping(b"still"), timeout=TIMEOUT) == Ping(b"still")

    run(main())


def test_a_malformed_record_is_refused_in_both_directions(transport: Transport) -> None:
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


def test_payload_for_a_method_that_takes_none_is_refused(transport: Transport) -> None:
    async def main() -> None:
        async with connected(service(), transport) as peer:
            with pytest.raises(EmberError, match="ping takes no payload") as caught:
                await peer.call(PING, Ping(), send=[bytes(20 * MIB)], timeout=TIMEOUT)
            assert caught.value.code is Code.BAD_BODY
            assert await peer.call(PING, Ping(b"still"), timeout=TIMEOUT) == Ping(b"still")

    run(main())


def test_an_allocation_may_be_refused(transport: Transport, caplog: pytest.LogCaptureFixture) -> None:
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


def test_what_is_over_a_bound_is_not_sent(transport: Transport) -> None:
    async def main() -> None:
        async with connected(service(), transport) as peer:
            for request, send in ((Ping(bytes(BODY_BYTES_MAX)), []), (Ping(), [bytes(PAYLOAD_BYTES_MAX + 1)])):
                with pytest.raises(EmberError, match="split it") as caught:
                    await peer.call(PING, request, send=send, timeout=TIMEOUT)
                assert caught.value.code is Code.TOO_LARGE
            assert await peer.call(PING, Ping(b"still"), timeout=TIMEOUT) == Ping(b"still")

    run(main())


@pytest.mark.parametrize("payload", [b"", b"with payload"])
def test_an_answer_over_a_bound_is_an_error(transport: Transport, payload: bytes) -> None:
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
