"""What a request costs the interpreter: instructions of this program's code, of both sides of a connection together.

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
from fs_common.transports.rdma import link
from tests.common.loopback import TIMEOUT, connected, pattern, read_request, service
from tests.rdma.counting import counted
from tests.rdma.transport import RdmaTransport
from tests.support import run

ROUNDS = 10


@pytest.fixture(autouse=True)
def time_does_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program whose instructions are counted is so slow that timers of milliseconds would be due at each read."""
    monkeypatch.setattr(link, "DRAIN_S", 60.0)


async def instructions_of_a_read(transport: Any, lengths: list[int], step: int, at_once: int) -> float:
    """For each read of so many pieces, `step` bytes apart in the caller's memory; memory lasts on both sides."""
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


def count(lengths: list[int], step: int, at_once: int = 1, transport: Any = None) -> float:
    return run(instructions_of_a_read(transport or RdmaTransport(), lengths, step, at_once))


TCP_READ_OF_A_MIB = 3450
"""Instructions over TCP, at least: how often a socket wakes its reader is the kernel's business, so it is not counted
here. Measured on loopback: 3,800 for one at a time, 3,480 for four, 3,780 for eight, 4,370 for sixteen."""


def test_reads_of_a_mib_that_share_their_turns_run_no_more_than_over_tcp() -> None:
    assert count([MIB], MIB, 32) <= TCP_READ_OF_A_MIB


@pytest.mark.parametrize(("at_once", "bound"), [(16, 3600), (8, 3900), (4, 4350), (1, 5400)])
def test_fewer_reads_share_less(at_once: int, bound: int) -> None:
    """Alone, each has its own message, wake-up and completion on both sides."""
    assert count([MIB], MIB, at_once) < bound


def test_a_batch_of_small_reads_into_one_buffer_runs_no_more_than_over_tcp() -> None:
    """The kernel has the whole batch in few pieces: most of what TCP runs is for each read, not for each wake-up."""
    lengths = [4 * KIB] * 256
    assert count(lengths, 4 * KIB) <= count(lengths, 4 * KIB, transport=tcp)


def test_a_batch_of_small_reads_into_256_places_runs_some_instructions_for_each() -> None:
    """Each is a WRITE of its own."""
    assert count([4 * KIB] * 256, 8 * KIB) < 256 * 125
