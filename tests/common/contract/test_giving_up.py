"""Calls that end before their answer: by their timeout, or because nobody wants them any more."""

import asyncio
import math
import os
from pathlib import Path

import pytest

from fs_common.errors import Code, EmberError, Retry
from fs_common.methods import PING, READ_CHUNKS, UPDATE_CHUNKS
from fs_common.records.session import Ping
from fs_common.records.storage import ReadChunksReply, UpdateChunks, UpdateChunksReply
from fs_common.rpc import Allocation, Call, FileRange, Part, Peer, Reply
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
from tests.common.services import CLIENT, Gate, replying
from tests.common.transports import RunningServer, Transport
from tests.support import run

# Timeouts and cancellation


def test_a_call_without_an_answer_times_out_and_its_handler_is_cancelled(transport: Transport) -> None:
    async def main() -> None:
        gate = Gate()
        async with connected(gate.service, transport) as peer:
            # A caller that is held up finds the server's word for it: the deadline is the server's, too.
            with pytest.raises(EmberError, match=r"did not answer read_chunks in time|deadline passed") as caught:
                await peer.call(READ_CHUNKS, read_request(1), timeout=0.01)
            assert caught.value.code is Code.TIMED_OUT
            assert caught.value.retry is Retry.MAYBE_APPLIED
            await until(lambda: gate.cancelled)
            assert await peer.call(PING, Ping(b"still"), timeout=TIMEOUT) == Ping(b"still")

    run(main())


def test_a_handler_sees_its_deadline(transport: Transport) -> None:
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


def test_a_cancelled_call_leaves_the_connection_as_it_was(transport: Transport) -> None:
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


async def next_connection(transport: Transport, server: RunningServer, peer: Peer) -> Peer:
    """After a call gave up: the same one, unless its end had to be the connection's (its answer was not here)."""
    assert not (transport.gives_up_alone and peer.closed)
    if not peer.closed:
        return peer
    return await transport.connect("127.0.0.1", server.port, hello(), timeout=TIMEOUT)


def test_memory_is_not_touched_after_a_call_is_cancelled_while_its_payload_lands(transport: Transport) -> None:
    async def main() -> None:
        size = 32 * MIB
        offered = replying(b"\x01" * size)
        async with serving(offered, transport) as server, connected(offered, transport, server) as peer:
            into = memory(size)
            call = asyncio.ensure_future(peer.call(READ_CHUNKS, read_request(size), into=into, timeout=TIMEOUT))
            await until(lambda: into[0][0])
            if transport.lands_in_pieces:
                assert not into[0][-1], "the payload is still landing"
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            landed = bytes(into[0])
            # The answer to a later call comes behind the rest of the payload.
            after = await next_connection(transport, server, peer)
            assert await after.call(PING, Ping(b"after"), timeout=TIMEOUT) == Ping(b"after")
            assert bytes(into[0]) == landed
            await after.close()

    run(main())


@pytest.mark.parametrize("way", ["cancelled", "timed out"])
def test_memory_that_is_lent_is_free_when_the_call_is_over(transport: Transport, way: str) -> None:
    """The server has the request and answers later: with payload for memory that is used for something else by then."""

    async def main() -> None:
        opened = asyncio.Event()
        waiting = 0
        released: list[bool] = []

        async def answer(call: Call) -> Reply:
            nonlocal waiting
            waiting += 1
            await opened.wait()
            return Reply(ReadChunksReply([5000], []), [b"\x01" * 5000], lambda: released.append(True))

        offered = service()
        offered.register(READ_CHUNKS, answer)
        async with serving(offered, transport) as server, connected(offered, transport, server) as peer:
            into = memory(5000)
            timeout = 0.05 if way == "timed out" else TIMEOUT
            call = asyncio.ensure_future(peer.call(READ_CHUNKS, read_request(5000), into=into, timeout=timeout))
            beside = asyncio.ensure_future(peer.call(PING, Ping(b"beside"), timeout=TIMEOUT))
            await until(lambda: waiting)
            assert await beside == Ping(b"beside")
            if way == "cancelled":
                call.cancel()
            with pytest.raises((asyncio.CancelledError, EmberError)):
                await call
            into[0][:] = b"\x02" * 5000
            after = await next_connection(transport, server, peer)
            opened.set()
            assert await after.call(PING, Ping(b"after"), timeout=TIMEOUT) == Ping(b"after")
            await until(lambda: not any(connection._active for connection in server._connections))
            assert bytes(into[0]) == b"\x02" * 5000
            await after.close()

    run(main())


def test_a_request_whose_caller_gives_up_is_worked_on_as_it_was_or_not_at_all(
    transport: Transport, tmp_path: Path
) -> None:
    """The caller gives up while its payload leaves, then reuses its memory and closes its file."""

    async def main() -> None:
        size = 24 * MIB
        path = tmp_path / "file"
        path.write_bytes(b"\x02" * size)
        allocated: list[int] = []
        released: list[int] = []
        got: list[bytes] = []

        def allocate(request: UpdateChunks, length: int) -> Allocation:
            allocated.append(length)
            return Allocation(memory(length), lambda: released.append(length))

        def update(call: Call) -> Reply:
            got.append(b"".join(call.payload))
            return Reply(UpdateChunksReply([], []))

        offered = service()
        offered.register(UPDATE_CHUNKS, update, allocate=allocate)
        async with serving(offered, transport) as server, connected(offered, transport, server) as peer:
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
            after = await next_connection(transport, server, peer)
            assert await after.call(PING, Ping(b"after"), timeout=TIMEOUT) == Ping(b"after")
            await until(lambda: released)
            whole = b"\x01" * size + b"\x02" * size
            assert got == [whole] if transport.gives_up_alone else got in ([], [whole])
            await after.close()

    run(main())
