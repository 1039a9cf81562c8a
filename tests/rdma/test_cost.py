"""What a request costs the interpreter, counted: lines of this program's code, of both sides of a connection together.

What stands in for a device is not counted, nor is what a binding of verbs runs.
"""

import asyncio
from typing import Any

import pytest

from fs_common.lasting import lasting
from fs_common.limits import KIB, MIB
from fs_common.methods import READ_CHUNKS
from fs_common.records.storage import ReadChunksReply
from fs_common.rpc import Reply
from fs_common.transports import tcp
from tests.common.loopback import TIMEOUT, connected, pattern, read_request, service
from tests.rdma.counting import counted
from tests.rdma.transport import RdmaTransport
from tests.support import run

ROUNDS = 20


async def lines_of_a_read(transport: Any, lengths: list[int], step: int, at_once: int) -> float:
    """Lines for each read of so many pieces, `step` bytes apart in the caller's memory; memory lasts on both sides."""
    total = sum(lengths)
    data = memoryview(bytearray(pattern(total)))
    space = [memoryview(bytearray(len(lengths) * step)) for _ in range(at_once)]
    kept = [lasting(memory) for memory in (data, *space)]
    offered = service()
    offered.register(READ_CHUNKS, lambda call: Reply(ReadChunksReply(lengths, []), [data]))
    request = read_request(*lengths)

    async def reader(memory: memoryview, rounds: int) -> None:
        into = [memory[i * step : i * step + length] for i, length in enumerate(lengths)]
        for _ in range(rounds):
            await peer.call(READ_CHUNKS, request, into=into, timeout=TIMEOUT)
        assert b"".join(into) == data

    async with connected(offered, transport) as peer:
        await asyncio.gather(*(reader(memory, 3) for memory in space))
        with counted() as work:
            await asyncio.gather(*(reader(memory, ROUNDS) for memory in space))
    if isinstance(transport, RdmaTransport):
        transport.close()
    for memory in kept:
        memory.close()
    return work.total / (ROUNDS * at_once)


@pytest.mark.parametrize("at_once", [4, 8, 16])
def test_a_read_of_a_mib_runs_no_more_than_over_tcp(at_once: int) -> None:
    async def main() -> tuple[float, float]:
        return (
            await lines_of_a_read(RdmaTransport(), [MIB], MIB, at_once),
            await lines_of_a_read(tcp, [MIB], MIB, at_once),
        )

    over_rdma, over_tcp = run(main())
    assert over_rdma <= over_tcp


def test_a_read_that_is_alone_runs_little_more_than_over_tcp() -> None:
    """There is nobody to share a wake-up, a message and a completion with."""

    async def main() -> float:
        return await lines_of_a_read(RdmaTransport(), [MIB], MIB, 1)

    assert run(main()) < 950


def test_a_batch_of_small_reads_into_one_buffer_runs_no_more_than_over_tcp() -> None:
    async def main() -> tuple[float, float]:
        lengths = [4 * KIB] * 256
        return (
            await lines_of_a_read(RdmaTransport(), lengths, 4 * KIB, 1),
            await lines_of_a_read(tcp, lengths, 4 * KIB, 1),
        )

    over_rdma, over_tcp = run(main())
    assert over_rdma <= over_tcp


def test_a_batch_of_small_reads_into_256_places_runs_some_lines_for_each() -> None:
    """Each is a WRITE of its own."""

    async def main() -> float:
        return await lines_of_a_read(RdmaTransport(), [4 * KIB] * 256, 8 * KIB, 1)

    assert run(main()) < 256 * 18
