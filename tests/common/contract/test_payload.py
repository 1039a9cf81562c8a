"""Payload travels from the sender's memory and files to the receiver's memory."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from fs_common.errors import Code, EmberError
from fs_common.methods import PING, READ_CHUNKS, UPDATE_CHUNKS
from fs_common.records.session import Ping
from fs_common.records.storage import ReadChunksReply, UpdateChunks, UpdateChunksReply
from fs_common.rpc import Allocation, Call, FileRange, Part, Reply
from tests.common.loopback import (
    MIB,
    TIMEOUT,
    connected,
    memory,
    pattern,
    read_request,
    service,
)
from tests.common.services import CLIENT, replying
from tests.common.transports import Transport
from tests.support import run

# Payload


@pytest.mark.parametrize("size", [1, 100, 512, 513, 4096, 300_000, 5 * MIB])
def test_response_payload_lands_in_the_callers_memory(transport: Transport, size: int) -> None:
    async def main() -> None:
        data = pattern(size, 3)
        async with connected(replying(memoryview(data)), transport) as peer:
            into = memory(size)
            reply = await peer.call(READ_CHUNKS, read_request(size), into=into, timeout=TIMEOUT)
            assert reply == ReadChunksReply([size], [])
            assert into[0] == data

    run(main())


def test_parts_of_all_kinds_are_scattered_over_views_of_other_sizes(transport: Transport, tmp_path: Path) -> None:
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


def test_many_small_pieces_share_one_frame(transport: Transport) -> None:
    """More pieces than one system call takes, both ways."""

    async def main() -> None:
        data = pattern(3000 * 32, 2)
        pieces = [memoryview(data)[i * 32 : i * 32 + 32] for i in range(3000)]
        async with connected(replying(*pieces), transport) as peer:
            into = memory(*[32] * 3000)
            await peer.call(READ_CHUNKS, read_request(1), into=into, timeout=TIMEOUT)
            assert b"".join(into) == data

    run(main())


def test_short_answers_are_laid_out_by_their_lengths(transport: Transport) -> None:
    async def main() -> None:
        async with connected(replying(b"aaa", b"cc", lengths=[3, 0, 2]), transport) as peer:
            into = memory(4, 4, 4)
            await peer.call(READ_CHUNKS, read_request(4, 4, 4), into=into, timeout=TIMEOUT)
            assert [bytes(view) for view in into] == [b"aaa\0", b"\0" * 4, b"cc\0\0"]

    run(main())


@pytest.mark.parametrize("lengths", [[3, 3], [5, -2, 2], [5, 0, 0], [1, 1, 1]])
def test_lengths_that_cannot_be_are_refused(transport: Transport, lengths: list[int]) -> None:
    async def main() -> None:
        async with connected(replying(b"aaaaa", lengths=lengths), transport) as peer:
            into = memory(4, 4, 4)
            with pytest.raises(EmberError, match="do not fit") as caught:
                await peer.call(READ_CHUNKS, read_request(4, 4, 4), into=into, timeout=TIMEOUT)
            assert caught.value.code is Code.INTERNAL
            assert b"".join(into) == bytes(12)
            assert await peer.call(PING, Ping(b"still"), timeout=TIMEOUT) == Ping(b"still")

    run(main())


def test_more_payload_than_asked_for_is_refused(transport: Transport) -> None:
    async def main() -> None:
        async with connected(replying(pattern(200_000)), transport) as peer:
            for into in (memory(199_999), []):
                with pytest.raises(EmberError, match="do not fit"):
                    await peer.call(READ_CHUNKS, read_request(1), into=into, timeout=TIMEOUT)
            assert await peer.call(PING, Ping(b"still"), timeout=TIMEOUT) == Ping(b"still")

    run(main())


def test_request_payload_lands_where_the_service_wants_it(transport: Transport, tmp_path: Path) -> None:
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


def test_views_of_wider_items_are_bytes_to_the_wire(transport: Transport) -> None:
    async def main() -> None:
        data = pattern(80, 4)
        async with connected(replying(memoryview(data).cast("Q")), transport) as peer:
            into = memoryview(bytearray(80)).cast("d")
            wide: Any = into
            await peer.call(READ_CHUNKS, read_request(80), into=[wide], timeout=TIMEOUT)
            assert into.tobytes() == data

    run(main())


def test_an_answer_made_of_the_requests_payload(transport: Transport) -> None:
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
