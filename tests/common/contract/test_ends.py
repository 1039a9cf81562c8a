"""Connections and servers that end."""

import asyncio
from typing import Any

import pytest

from fs_common.errors import Code, EmberError, Retry
from fs_common.methods import PING, READ_CHUNKS, UPDATE_CHUNKS
from fs_common.records.session import Ping
from fs_common.records.storage import ReadChunksReply, UpdateChunks, UpdateChunksReply
from fs_common.rpc import Allocation, Call, Reply
from tests.common.loopback import (
    MIB,
    TIMEOUT,
    connected,
    hello,
    memory,
    read_request,
    service,
    serving,
    until,
)
from tests.common.services import CLIENT, Gate
from tests.common.transports import Transport
from tests.support import run

# Ends


@pytest.mark.parametrize("work", ["nothing", "handler waits", "payload lands"])
def test_a_caller_that_is_gone_frees_everything(transport: Transport, work: str) -> None:
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


def test_a_server_that_is_cut_off_fails_all_calls_at_once(transport: Transport) -> None:
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


def test_a_graceful_close_finishes_what_is_in_work_and_refuses_the_rest(transport: Transport) -> None:
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


def test_closing_a_server_with_idle_callers_does_not_take_the_grace(transport: Transport) -> None:
    async def main() -> None:
        async with serving(service(), transport) as server:
            peers = [await transport.connect("127.0.0.1", server.port, hello(), timeout=TIMEOUT) for _ in range(3)]
            await server.close(grace_s=10_000)
            await until(lambda: all(peer.closed for peer in peers))

    run(main())


def test_closing_twice_is_closing_once(transport: Transport) -> None:
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
