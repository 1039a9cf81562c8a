"""What is in flight is bounded on both sides."""

import asyncio

import pytest

from fs_common.errors import EmberError, Retry
from fs_common.methods import PING, READ_CHUNKS, UPDATE_CHUNKS
from fs_common.records.session import Ping
from fs_common.records.storage import ReadChunksReply, UpdateChunks, UpdateChunksReply
from fs_common.rpc import Call, Reply
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
from tests.common.services import CLIENT, Gate, replying
from tests.common.transports import Transport
from tests.support import run

# Bounds on what is in flight


@pytest.mark.parametrize("bound", ["calls", "bytes"])
def test_calls_wait_for_their_turn(transport: Transport, bound: str) -> None:
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
            if transport.gives_up_alone:
                calls[0].cancel()
                await until(lambda: gate.waiting == 3)  # its handler goes on; its turn is free
            gate.open.set()
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert [isinstance(outcome, ReadChunksReply) for outcome in outcomes] == [
                not transport.gives_up_alone,
                True,
                True,
                True,
                True,
                False,
            ]
            assert await peer.call(PING, Ping(b"still"), timeout=TIMEOUT) == Ping(b"still")

    run(main())


def test_a_call_whose_turn_does_not_come_is_safe_to_retry(transport: Transport) -> None:
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


def test_a_call_larger_than_the_bound_goes_alone(transport: Transport) -> None:
    async def main() -> None:
        data = pattern(8 * KIB)
        async with connected(replying(data), transport) as peer:
            peer.bytes_in_flight_max = KIB
            into = memory(8 * KIB)
            await peer.call(READ_CHUNKS, read_request(1), into=into, timeout=TIMEOUT)
            assert into[0] == data

    run(main())


def test_a_server_works_on_a_bounded_number_of_requests(transport: Transport) -> None:
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


def test_payload_in_work_is_bounded_and_a_large_one_still_comes_in(transport: Transport) -> None:
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
