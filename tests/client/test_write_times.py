"""How long a write may take, whatever it waits for, and what becomes of updates that were given up. In virtual time."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from fs_client import backoff, write_path
from fs_client.file_ref import FileRef
from fs_client.options import Address
from fs_client.routing_cache import Plan, Route, Server
from fs_client.small_updates import FRAMES, SMALL_BYTES
from fs_client.storage_client import Outcome
from fs_client.write_path import Writer
from fs_common.errors import Code, EmberError
from fs_common.layout import Layout
from fs_common.limits import KIB
from fs_common.records.storage import UpdateItem
from tests.storage.engine.virtual_loop import run_virtual

CHUNK = 64 * KIB
TIMEOUT_S = 2.0
HEAD = Server(1, Address("head", 1))
OTHER = Server(2, Address("other", 1))


class Daemons:
    """What a writer needs of the storage daemons: chunks by index, even ones on one chain, odd ones on another.

    A daemon that hangs answers nothing before it is let go; calls end with their time. What it was sent meanwhile it
    has, and may carry out at any later time, in any order.
    """

    def __init__(self) -> None:
        self.hangs: set[int] = set()
        """Nodes."""
        self.sent: list[list[UpdateItem]] = []
        self.late: list[tuple[UpdateItem, bytes]] = []
        self.chunks: dict[int, bytearray] = {}
        self.answers: dict[tuple[int, int], int] = {}
        """By node and channel: the last sequence."""
        routes = tuple(Route(chain, 1, head, (head,), head) for chain, head in ((1, HEAD), (2, OTHER)))
        plan = Plan(1, CHUNK, 2, routes)
        self.routing: Any = SimpleNamespace(
            plan=lambda file: plan, routing=SimpleNamespace(version=1), newer=self._newer
        )

    async def _newer(self, known: int, timeout_s: float) -> bool:
        await asyncio.sleep(timeout_s)
        return False

    async def update(
        self, head: Server, client: bytes, items: list[UpdateItem], data: Sequence[memoryview], left_s: float
    ) -> list[Outcome]:
        self.sent.append(items)
        copies = [(item, bytes(part)) for item, part in zip(items, data, strict=True)]
        if head.node in self.hangs:
            self.late += copies
            await asyncio.sleep(left_s)
            return [EmberError(Code.TIMED_OUT, f"{head} does not answer")] * len(items)
        return [self.apply(item, part) for item, part in copies]

    def apply(self, item: UpdateItem, data: bytes) -> Outcome:
        """The rules of `craq/replica`."""
        key = (item.chain, item.channel)
        last = self.answers.get(key, 0)
        if last > item.sequence:
            return EmberError(Code.UPDATE_STALE, "past")
        if last < item.sequence:
            self.answers[key] = item.sequence
            chunk = self.chunks.setdefault(item.index, bytearray(CHUNK))
            chunk[item.offset : item.offset + len(data)] = data
        return None


class World:
    def __init__(self) -> None:
        self.daemons = Daemons()
        self.writer = Writer(self.daemons, b"c" * 16, TIMEOUT_S)  # type: ignore[arg-type]
        self.file = FileRef(7, 0, Layout(chunk_size=CHUNK, stripe=2))

    async def write(self, data: bytes, index: int = 0, **how: Any) -> None:
        await self.writer.write(self.file, index * CHUNK, memoryview(data), lambda _: None, **how)

    async def timed(self, data: bytes, index: int = 0, **how: Any) -> tuple[float, str]:
        """Seconds it took, and its error."""
        began = asyncio.get_running_loop().time()
        error = ""
        try:
            await self.write(data, index, **how)
        except EmberError as raised:
            assert raised.code is Code.TIMED_OUT
            error = raised.message
        return asyncio.get_running_loop().time() - began, error


def simulate(monkeypatch: pytest.MonkeyPatch, scenario: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        clock = SimpleNamespace(monotonic=asyncio.get_running_loop().time)
        monkeypatch.setattr(backoff, "time", clock)
        monkeypatch.setattr(write_path, "time", clock)
        world = World()
        await scenario(world)
        for _ in range(100):
            await asyncio.sleep(0)
        assert not world.writer._last and not world.writer._budget.held
        for lane in world.writer._small._lanes.values():
            assert not lane.waiting and not lane.frames

    run_virtual(main())


@pytest.mark.parametrize("size", [100, SMALL_BYTES + 1])
def test_the_deadline_of_a_write_begins_with_its_call(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    async def scenario(world: World) -> None:
        world.daemons.hangs = {1}
        results = await asyncio.gather(*(world.timed(b"%d" % number * size) for number in range(8)))
        assert all(TIMEOUT_S <= took < TIMEOUT_S + 0.2 for took, _ in results), results
        assert "does not answer" in results[0][1]
        for _, error in results[1:]:
            assert "not sent within 2 s, as" in error
        # What says so was not sent, and never will be.
        world.daemons.hangs = set()
        await world.write(b"after")
        assert {item.sequence for items in world.daemons.sent for item in items} == {1, 2}

    simulate(monkeypatch, scenario)


def test_waiting_for_others_bytes_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_path, "BYTES_IN_FLIGHT", CHUNK)

    async def scenario(world: World) -> None:
        world.daemons.hangs = {1}
        results = await asyncio.gather(*(world.timed(b"x" * CHUNK, 2 * number) for number in range(3)))
        assert all(TIMEOUT_S <= took < TIMEOUT_S + 0.2 for took, _ in results), results
        assert [("other updates of this client" in error) for _, error in results] == [False, True, True]
        assert len(world.daemons.sent) > 0 and {item.index for items in world.daemons.sent for item in items} == {0}

    simulate(monkeypatch, scenario)


def test_waiting_for_a_frame_with_others_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: World) -> None:
        world.daemons.hangs = {1}
        first = [asyncio.ensure_future(world.timed(b"x", 2 * number)) for number in range(FRAMES)]
        await asyncio.sleep(0.5)
        later = [asyncio.ensure_future(world.timed(b"x", 2 * number)) for number in range(FRAMES, FRAMES + 3)]
        results = await asyncio.gather(*first, *later)
        assert all(TIMEOUT_S <= took < TIMEOUT_S + 0.2 for took, _ in results), results

    simulate(monkeypatch, scenario)


def test_a_frame_lasts_no_longer_than_its_most_urgent_update(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time an update has waited for the frame is not given a second time."""

    async def scenario(world: World) -> None:
        world.daemons.hangs = {1}
        patient = [asyncio.ensure_future(world.timed(b"x", 2 * number)) for number in range(FRAMES)]
        await asyncio.sleep(1.5)
        late = asyncio.ensure_future(world.timed(b"x", 2 * FRAMES))
        results = await asyncio.gather(*patient, late)
        assert all(took < TIMEOUT_S + 0.2 for took, _ in results), results

    simulate(monkeypatch, scenario)


def test_who_is_patient_waits_for_its_turn_while_there_is_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_path, "BYTES_IN_FLIGHT", CHUNK)

    async def scenario(world: World) -> None:
        fast = world.daemons.update

        async def slow(*arguments: Any) -> list[Outcome]:
            await asyncio.sleep(0.75 * TIMEOUT_S)
            return await fast(*arguments)

        world.daemons.update = slow  # type: ignore[method-assign]
        # They wait for others' bytes, or for an earlier update of the chunk.
        for indexes in (range(0, 12, 2), [0] * 6):
            results = await asyncio.gather(*(world.timed(b"x" * CHUNK, index, patient=True) for index in indexes))
            assert [error for _, error in results] == [""] * 6
            assert max(took for took, _ in results) > 4 * TIMEOUT_S
        results = await asyncio.gather(*(world.timed(b"x" * CHUNK, 2 * number) for number in range(3)))
        assert results[2][1], "who is not patient has its time in all"

    simulate(monkeypatch, scenario)


def test_who_is_patient_gives_up_when_nothing_is_stored_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: World) -> None:
        await world.write(b"before", 1)
        world.daemons.hangs = {1}
        results = await asyncio.gather(*(world.timed(b"x" * 100, patient=True) for _ in range(8)))
        assert all(took < 2 * TIMEOUT_S + 0.2 for took, _ in results), results

    simulate(monkeypatch, scenario)


@pytest.mark.parametrize("lease_s", [0.0, -1.0, 0.3])
def test_nothing_is_sent_when_the_lease_is_over_under_which_it_is_written(
    monkeypatch: pytest.MonkeyPatch, lease_s: float
) -> None:
    async def scenario(world: World) -> None:
        loop = asyncio.get_running_loop()
        sent: list[float] = []

        async def refuse(*_: Any) -> list[Outcome]:
            sent.append(loop.time())
            return [EmberError(Code.BUSY, "come again")]

        world.daemons.update = refuse  # type: ignore[assignment,method-assign]
        began = loop.time()
        with pytest.raises(EmberError) as caught:
            await world.write(b"1", patient=True, lease_left_s=lambda: began + lease_s - loop.time())
        assert loop.time() - began < max(lease_s, 0) + 0.01
        if lease_s > 0:
            assert len(sent) > 3 and sent[-1] < began + lease_s and caught.value.code is Code.BUSY
        else:
            assert not sent and caught.value.code is Code.TIMED_OUT

    simulate(monkeypatch, scenario)


@pytest.mark.parametrize("suspended", ["while it is tried", "while the routing is asked for"])
def test_a_lease_that_ends_during_a_try_stops_the_next(monkeypatch: pytest.MonkeyPatch, suspended: str) -> None:
    """No timer of the loop tells of a suspend."""

    async def scenario(world: World) -> None:
        left_s = 100.0
        sent = 0

        async def break_down(*_: Any) -> list[Outcome]:
            nonlocal left_s, sent
            sent += 1
            if suspended == "while it is tried":
                left_s = -100.0
            return [EmberError(Code.CHAIN_VERSION, "the routing is old")]

        async def newer(*_: Any) -> bool:
            nonlocal left_s
            left_s = -100.0
            return False

        world.daemons.update = break_down  # type: ignore[assignment,method-assign]
        world.daemons.routing.newer = newer
        with pytest.raises(EmberError):
            await world.write(b"1", lease_left_s=lambda: left_s)
        assert sent == 1

    simulate(monkeypatch, scenario)


def test_removing_many_chunks_has_one_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_path, "REMOVED_AT_ONCE", 2)

    async def scenario(world: World) -> None:
        world.daemons.hangs = {1}
        began = asyncio.get_running_loop().time()
        with pytest.raises(EmberError):
            await world.writer.remove(world.file, range(10))
        assert asyncio.get_running_loop().time() - began < TIMEOUT_S + 0.2

    simulate(monkeypatch, scenario)


@pytest.mark.parametrize("cancel", [False, True])
def test_who_leaves_while_it_waits_lets_nobody_past_the_one_before(
    monkeypatch: pytest.MonkeyPatch, cancel: bool
) -> None:
    async def scenario(world: World) -> None:
        world.daemons.hangs = {1}
        first = asyncio.ensure_future(world.timed(b"1" * CHUNK, patient=True))
        await asyncio.sleep(0.1)
        leaving = [asyncio.ensure_future(world.timed(b"2" * CHUNK)) for _ in range(2)]
        await asyncio.sleep(0.1)
        last = asyncio.ensure_future(world.timed(b"3" * CHUNK))
        if cancel:
            for task in leaving:
                task.cancel()
            await asyncio.wait(leaving)
            await asyncio.sleep(0)
            assert len(world.daemons.sent) == 1, "the third does not go while the first is under way"
        await first
        world.daemons.hangs = set()
        await asyncio.gather(last, *leaving, return_exceptions=True)
        assert bytes(world.daemons.chunks[0]) == b"3" * CHUNK

    simulate(monkeypatch, scenario)


# Late copies


@pytest.mark.parametrize("size", [100, SMALL_BYTES + 1])
@pytest.mark.parametrize("cancelled", [False, True])
def test_what_was_given_up_is_not_applied_after_a_later_update(
    monkeypatch: pytest.MonkeyPatch, size: int, cancelled: bool
) -> None:
    async def scenario(world: World) -> None:
        daemons = world.daemons
        daemons.hangs = {1}
        given_up = asyncio.ensure_future(world.timed(b"o" * size))
        if cancelled:
            await asyncio.sleep(0.1)
            given_up.cancel()
            await asyncio.wait([given_up])
        else:
            assert (await given_up)[1]
        copies = list(daemons.late)
        assert copies
        # What channels are free go to other targets, and are under way there.
        daemons.hangs = {2}
        elsewhere = [asyncio.ensure_future(world.timed(b"elsewhere", index)) for index in (1, 3, 5)]
        await asyncio.sleep(0.1)
        await world.write(b"n" * size)
        await asyncio.wait(elsewhere)
        daemons.hangs = set()
        # The channel that has carried it is used for other targets later.
        for _ in range(3):
            await world.write(b"elsewhere", 7)
        for item, data in copies:
            outcome = daemons.apply(item, data)
            assert outcome is not None and outcome.code is Code.UPDATE_STALE
        assert daemons.chunks[0][:size] == b"n" * size

    simulate(monkeypatch, scenario)


def test_a_later_update_that_fails_too_does_not_free_the_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: World) -> None:
        daemons = world.daemons
        daemons.hangs = {1}
        for number in range(3):
            assert (await world.timed(b"%d" % number * 100))[1]
        copies = list(daemons.late)
        refusing = daemons.update

        async def refuse(head: Server, client: bytes, items: list[UpdateItem], *rest: Any) -> list[Outcome]:
            return [EmberError(Code.NO_SPACE, "full")] * len(items)

        daemons.update = refuse  # type: ignore[method-assign]
        with pytest.raises(EmberError, match="full"):
            await world.write(b"refused" * 10)
        daemons.update = refusing  # type: ignore[method-assign]
        daemons.hangs = {2}
        elsewhere = [asyncio.ensure_future(world.timed(b"elsewhere", index)) for index in (1, 3, 5)]
        await asyncio.sleep(0.1)
        await world.write(b"new" * 50)
        await asyncio.wait(elsewhere)
        for item, data in copies:
            assert daemons.apply(item, data) is not None
        assert daemons.chunks[0][:150] == b"new" * 50

    simulate(monkeypatch, scenario)


def test_what_was_answered_or_never_sent_frees_its_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: World) -> None:
        for index in range(50):
            await world.write(b"x" * 100, index)
        assert len(world.writer._channels._sequences) == 1
        world.daemons.hangs = {1}
        await asyncio.gather(*(world.timed(b"x" * 100) for _ in range(50)))
        assert len(world.writer._channels._sequences) <= 2

    simulate(monkeypatch, scenario)
