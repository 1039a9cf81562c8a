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


@pytest.mark.parametrize("at_once", [8, 16, 32])
def test_reads_of_a_mib_that_share_their_turns_run_less_than_over_tcp(at_once: int) -> None:
    assert count([MIB], MIB, at_once) < count([MIB], MIB, at_once, tcp)


@pytest.mark.parametrize(("at_once", "bound"), [(32, 2850), (16, 2950), (8, 3150), (4, 3560), (2, 4440), (1, 4380)])
def test_reads_of_a_mib_run_no_more_than_they_did(at_once: int, bound: int) -> None:
    """With a little room for timers that come in between. Alone, each has its own message and wake-up on both sides."""
    assert count([MIB], MIB, at_once) < bound


@pytest.mark.parametrize("step", [4 * KIB, 8 * KIB], ids=["one buffer", "256 places"])
def test_a_batch_of_small_reads_runs_less_than_over_tcp(step: int) -> None:
    """No instruction runs for each of them, whether one WRITE does for all or each has its own."""
    lengths = [4 * KIB] * 256
    assert count(lengths, step) < count(lengths, step, transport=tcp)
    assert count(lengths, step) < 256 * 25
