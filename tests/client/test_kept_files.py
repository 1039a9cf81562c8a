"""Which files are certainly all there: questions that go together, failures, how long an answer holds."""

import asyncio

import pytest

from fs_client import kept_files
from fs_client.kept_files import KeptFiles
from fs_common.errors import Code, EmberError
from tests.support import run


class Service:
    """Answers each question when it is let."""

    def __init__(self) -> None:
        self.kept: dict[int, int] = {}
        """Inode -> milliseconds; the others are gone."""
        self.asked: list[list[int]] = []
        self.failures: list[EmberError] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def ask(self, inodes: list[int], left_s: float) -> list[int]:
        self.asked.append(inodes)
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        return [self.kept.get(inode, -1) for inode in inodes]


async def _waiting(*tasks: "asyncio.Future[set[int]]") -> None:
    for _ in range(5):
        await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)


def test_an_answer_holds_for_the_time_that_is_promised_less_a_margin() -> None:
    async def body() -> None:
        now = 0.0
        service = Service()
        kept = KeptFiles(service.ask, lambda: now)
        service.kept = {1: 16_000, 2: 0}
        assert not kept.is_kept(1)
        assert await kept.ask([1, 2, 3], 5) == {3}
        assert kept.is_kept(1) and not kept.is_kept(2) and not kept.is_kept(3)
        now = 14.9
        assert kept.is_kept(1)
        now = 15.0
        assert not kept.is_kept(1)
        del service.kept[1]
        assert await kept.ask([1], 5) == {1}

    run(body())


def test_the_time_counts_from_before_the_question() -> None:
    async def body() -> None:
        now = 0.0
        service = Service()
        kept = KeptFiles(service.ask, lambda: now)
        service.kept = {1: 16_000}
        service.gate.clear()
        asking = asyncio.ensure_future(kept.ask([1], 5))
        await _waiting(asking)
        now = 15.0
        service.gate.set()
        assert await asking == set() and not kept.is_kept(1)

    run(body())


def test_what_comes_while_one_is_asked_goes_together() -> None:
    """And never with the one under way: its answer may be older than what was found missing."""

    async def body() -> None:
        service = Service()
        kept = KeptFiles(service.ask)
        service.kept = {2: 0}
        service.gate.clear()
        asking = [asyncio.ensure_future(kept.ask(inodes, 5)) for inodes in ([1], [1, 2], [3], [2])]
        await _waiting(*asking)
        assert service.asked == [[1]]
        service.gate.set()
        assert await asyncio.gather(*asking) == [{1}, {1}, {3}, set()]
        assert service.asked == [[1], [1, 2, 3]]

    run(body())


def test_who_shares_a_question_that_fails_asks_again() -> None:
    async def body() -> None:
        service = Service()
        kept = KeptFiles(service.ask)
        service.gate.clear()
        first = asyncio.ensure_future(kept.ask([1], 5))
        others = [asyncio.ensure_future(kept.ask([inode], 5)) for inode in (2, 3)]
        await _waiting(first, *others)
        service.failures = [EmberError(Code.BUSY)] * 2
        service.gate.set()
        outcomes = await asyncio.gather(first, *others, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [EmberError, EmberError, set]
        assert service.asked == [[1], [2, 3], [2, 3]]

    run(body())


def test_who_gives_up_leaves_the_question_to_the_others() -> None:
    async def body() -> None:
        service = Service()
        kept = KeptFiles(service.ask)
        service.gate.clear()
        asking = [asyncio.ensure_future(kept.ask([inode], 5)) for inode in (1, 2, 3)]
        await _waiting(*asking)
        asking[0].cancel()
        await asyncio.wait(asking[:1])
        await _waiting(*asking[1:])
        asking[1].cancel()
        await asyncio.wait(asking[1:2])
        await _waiting(asking[2])
        service.gate.set()
        assert await asking[2] == {3}
        assert service.asked == [[1], [2, 3], [2, 3]]

    run(body())


def test_a_service_that_does_not_answer_is_an_error_in_time() -> None:
    async def body() -> None:
        service = Service()
        kept = KeptFiles(service.ask)
        service.gate.clear()
        with pytest.raises(EmberError) as caught:
            await kept.ask([1], 0.01)
        assert caught.value.code is Code.TIMED_OUT
        service.gate.set()
        assert await kept.ask([1], 5) == {1}

    run(body())


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        monkeypatch.setattr(kept_files, "FILES_MAX", 3)
        service = Service()
        kept = KeptFiles(service.ask)
        service.kept = dict.fromkeys(range(10), 100_000)
        await kept.ask([0, 1, 2], 5)
        await kept.ask([0], 5)
        await kept.ask([5], 5)
        assert [inode for inode in range(10) if kept.is_kept(inode)] == [0, 2, 5]

    run(body())
