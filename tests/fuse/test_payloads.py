"""Data of WRITEs: where it lands, how long it stays, and what happens when memory runs out."""

import asyncio
import ctypes
import errno
import mmap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fs_client.fuse import abi, answers
from fs_client.fuse.abi import Opcode
from fs_client.fuse.kernel_request import Request
from fs_client.fuse.payloads import ARENA_SIZE_MIN, Payload, PayloadMemory
from fs_common.checks import InvariantViolation
from tests.fuse.fake_kernel import MAX_WRITE, Answer, connected
from tests.support import run

MIB = 1 << 20
PAGE = mmap.PAGESIZE


def memory_of(bytes_max: int = ARENA_SIZE_MIN, write_bytes_max: int = MIB) -> tuple[PayloadMemory, list[str]]:
    events: list[str] = []
    return PayloadMemory(write_bytes_max, bytes_max, lambda: events.append("available")), events


def address(view: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


def land(memory: PayloadMemory, data: bytes) -> Payload:
    """As the channel does: the bytes come first, then it is known how many they are."""
    assert memory.room is not None
    memory.room[: len(data)] = data
    return memory.take(len(data))


def test_payloads_lie_side_by_side_on_pages_of_their_own() -> None:
    memory, _ = memory_of()
    first, second, empty, third = (land(memory, data) for data in (b"a" * 10, b"b" * PAGE, b"", b"c" * (PAGE + 1)))
    begin = address(first.view)
    assert begin % PAGE == 0
    assert address(second.view) == begin + PAGE
    assert address(third.view) == begin + 2 * PAGE
    assert [bytes(payload.view[:1]) for payload in (first, second, empty, third)] == [b"a", b"b", b"", b"c"]


def test_what_is_released_before_the_next_comes_uses_the_same_memory() -> None:
    memory, _ = memory_of(64 * MIB)
    places = set()
    for _ in range(100):
        payload = land(memory, b"x" * MIB)
        places.add(address(payload.view))
        payload.release()
    assert len(places) == 1
    assert memory.bytes_held == 0


def test_memory_is_bounded_and_comes_back() -> None:
    memory, events = memory_of(2 * ARENA_SIZE_MIN)
    payloads = []
    while memory.room is not None:
        payloads.append(land(memory, b"x" * MIB))
    assert len(payloads) == 8
    assert memory.bytes_held == 2 * ARENA_SIZE_MIN
    for payload in payloads[:3]:
        payload.release()
    assert memory.room is None, "one payload keeps its arena"
    payloads[3].release()
    assert events == ["available"]
    assert memory.room is not None
    assert memory.bytes_held == ARENA_SIZE_MIN
    for payload in payloads[4:]:
        payload.release()
    assert events == ["available"]
    assert memory.bytes_held == 0


def test_there_is_room_for_the_largest_write_at_least() -> None:
    memory, _ = memory_of(1, 16 * MIB)
    assert memory.room is not None
    assert len(memory.room) == 16 * MIB


def test_a_payload_is_released_once() -> None:
    memory, _ = memory_of()
    payload = land(memory, b"x")
    payload.release()
    with pytest.raises(InvariantViolation, match="released once"):
        payload.release()


@given(steps=st.lists(st.tuples(st.integers(0, 64 * 1024), st.integers(0, 40)), max_size=300))
def test_bytes_are_stable_until_they_are_released(steps: list[tuple[int, int]]) -> None:
    memory, _ = memory_of(2 * ARENA_SIZE_MIN, 64 * 1024)
    kept: list[tuple[Payload, bytes]] = []
    for number, (size, victim) in enumerate(steps):
        if memory.room is not None:
            data = bytes([number % 256]) * size
            kept.append((land(memory, data), data))
        if victim < len(kept):
            payload, data = kept.pop(victim)
            assert payload.view == data
            payload.release()
    for payload, data in kept:
        assert payload.view == data
        payload.release()
    assert memory.bytes_held == 0
    assert memory.room is not None


# In the channel


def test_data_of_a_write_is_memory_of_its_own() -> None:
    async def test() -> None:
        kept: list[Payload] = []

        def write(request: Request) -> bytes:
            assert request.data is not None
            size = len(request.data.view)
            if size:
                kept.append(request.take_data())
            return answers.write_out(size)

        async with connected({Opcode.WRITE: write}) as (_, kernel):
            chunks = [bytes([number]) * size for number, size in enumerate((1, 4096, 5000, 0, MAX_WRITE))]
            for chunk in chunks:
                unique = kernel.write(chunk)
                assert await kernel.answer() == Answer(unique, 0, answers.write_out(len(chunk)))
            assert [bytes(payload.view) for payload in kept] == [chunk for chunk in chunks if chunk]
            assert all(address(payload.view) % PAGE == 0 for payload in kept)
            for payload in kept:
                payload.release()

    run(test())


def test_data_that_is_not_taken_goes_back_by_itself() -> None:
    async def test() -> None:
        gate = asyncio.get_running_loop().create_future()

        async def write(request: Request) -> bytes:
            assert request.data is not None
            content = bytes(request.data.view)
            await gate
            assert request.data.view == content
            return content[:1]

        def fail(request: Request) -> bytes:
            raise OSError(errno.ENOSPC, "full")

        async with connected({Opcode.WRITE: write}) as (channel, kernel):
            sent = {kernel.write(bytes([number]) * MAX_WRITE): bytes([number]) for number in range(10)}
            await kernel.settled()
            assert channel._memory.bytes_held > 0
            gate.set_result(None)
            got = [await kernel.answer() for _ in sent]
            assert {answer.unique: answer.body for answer in got} == sent
            assert channel._memory.bytes_held == 0
        async with connected({Opcode.WRITE: fail}) as (channel, kernel):
            kernel.write(b"x")
            assert (await kernel.answer()).error == errno.ENOSPC
            assert channel._memory.bytes_held == 0

    run(test())


def test_what_the_kernel_kept_comes_as_data_too() -> None:
    async def test() -> None:
        seen: list[bytes] = []

        def reply(request: Request) -> None:
            assert request.data is not None
            seen.append(bytes(request.data.view))

        async with connected({Opcode.NOTIFY_REPLY: reply}) as (_, kernel):
            kernel.send(Opcode.NOTIFY_REPLY, bytes(40), data=b"pages")
            kernel.send(Opcode.NOTIFY_REPLY, bytes(40))
            await kernel.settled()
            assert seen == [b"pages", b""]

    run(test())


WRITES_TO_FILL = ARENA_SIZE_MIN // MAX_WRITE


def test_reading_pauses_while_all_memory_is_in_use() -> None:
    async def test() -> None:
        kept: list[Payload] = []
        asked: list[str] = []

        def write(request: Request) -> bytes:
            kept.append(request.take_data())
            return b""

        handlers = {Opcode.WRITE: write, Opcode.STATFS: lambda request: b"alive"}
        async with connected(handlers, payload_bytes_max=ARENA_SIZE_MIN) as (channel, kernel):
            channel.memory_wanted = lambda: asked.append("please")
            for _ in range(WRITES_TO_FILL):
                kernel.write(b"x" * MAX_WRITE)
                await kernel.answer()
            assert channel._memory.room is None
            unique = kernel.send(Opcode.STATFS)
            while not asked:
                await asyncio.sleep(0)
            assert kernel.nothing()
            assert (asked, channel.counters.starved) == (["please"], 1)
            for payload in kept:
                payload.release()
            assert await kernel.answer() == Answer(unique, 0, b"alive")

    run(test())


def test_memory_given_back_at_the_first_word_is_used_at_once() -> None:
    async def test() -> None:
        kept: list[Payload] = []

        def write(request: Request) -> bytes:
            kept.append(request.take_data())
            return b""

        def give_back() -> None:
            for payload in kept:
                payload.release()
            kept.clear()

        async with connected({Opcode.WRITE: write}, payload_bytes_max=ARENA_SIZE_MIN) as (channel, kernel):
            channel.memory_wanted = give_back
            for _ in range(3 * WRITES_TO_FILL):
                unique = kernel.write(b"x" * MAX_WRITE)
                assert (await kernel.answer()).unique == unique
            assert channel.counters.starved == 3
            assert not kept

    run(test())


def test_writes_are_refused_when_memory_stays_in_use_and_everything_else_goes_on() -> None:
    async def test() -> None:
        kept: list[Payload] = []

        def write(request: Request) -> bytes:
            kept.append(request.take_data())
            return b"written"

        handlers = {Opcode.WRITE: write, Opcode.LOOKUP: lambda request: bytes(request.body)}
        async with connected(handlers, payload_bytes_max=ARENA_SIZE_MIN, timeout_s=0.01) as (_, kernel):
            for _ in range(WRITES_TO_FILL):
                kernel.write(b"x" * MAX_WRITE)
                await kernel.answer()
            refused = kernel.write(b"y" * MAX_WRITE)
            assert await kernel.answer() == Answer(refused, errno.ETIMEDOUT, b"")
            name = b"n" * 200 + b"\0"
            alive = kernel.send(Opcode.LOOKUP, name)
            assert await kernel.answer() == Answer(alive, 0, name)
            for payload in kept:
                assert payload.view == b"x" * MAX_WRITE, "what others keep is not written over"
                payload.release()
            kept.clear()
            taken = kernel.write(b"z")
            assert await kernel.answer() == Answer(taken, 0, b"written")
            assert kept.pop().view == b"z"

    run(test())


def test_writes_wait_for_memory_while_there_is_progress() -> None:
    async def test() -> None:
        kept: list[Payload] = []
        looks = 0

        def write(request: Request) -> bytes:
            kept.append(request.take_data())
            return b"written"

        def progress() -> float:
            nonlocal looks
            looks += 1
            if looks == 3:
                for payload in kept:
                    payload.release()
                kept.clear()
            return asyncio.get_running_loop().time()

        handlers = {Opcode.WRITE: write}
        bounds = connected(handlers, payload_bytes_max=ARENA_SIZE_MIN, timeout_s=0.01, progress=progress)
        async with bounds as (_, kernel):
            for _ in range(WRITES_TO_FILL):
                kernel.write(b"x" * MAX_WRITE)
                await kernel.answer()
            waiting = kernel.write(b"y" * MAX_WRITE)
            assert await kernel.answer() == Answer(waiting, 0, b"written")
            kept.pop().release()

    run(test())


def test_a_write_cut_short_is_not_data() -> None:
    async def test() -> None:
        def write(request: Request) -> bytes:
            abi.WRITE_IN.unpack_from(request.body)
            return b""

        async with connected({Opcode.WRITE: write}) as (_, kernel):
            kernel.send(Opcode.WRITE, bytes(10))
            assert (await kernel.answer()).error == errno.EIO

    run(test())
