"""Channels and the bound on bytes in flight."""

import asyncio
from collections.abc import Callable

import pytest

from fs_client.byte_budget import ByteBudget, OutOfTime
from fs_common import channels as channels_module
from fs_common.channels import ChannelPool
from tests.storage.engine.virtual_loop import run_virtual
from tests.support import run

A, B, C = (1, 0), (1, 1), (2, 0)
"""Chunks."""


def test_updates_under_way_have_different_channels_and_ids_are_never_used_twice() -> None:
    pool = ChannelPool()
    first, second = pool.take(A), pool.take(B)
    assert first[0] != second[0]
    pool.give_back(A, first[0], over=True)
    assert pool.take(C) == (first[0], first[1] + 1, False)


def test_the_channel_given_back_last_is_taken_first() -> None:
    pool = ChannelPool()
    channels = [pool.take((1, index))[0] for index in range(3)]
    for index, channel in enumerate(channels):
        pool.give_back((1, index), channel, over=True)
    assert pool.take(A)[0] == channels[-1]


def test_a_channel_whose_update_was_given_up_carries_nothing_but_the_next_update_of_its_chunk() -> None:
    pool = ChannelPool()
    channel, sequence, _ = pool.take(A)
    pool.give_back(A, channel, over=False)
    assert pool.take(B)[0] != channel
    assert pool.take(A) == (channel, sequence + 1, True)
    pool.give_back(A, channel, over=False)
    assert pool.take(A) == (channel, sequence + 2, True)
    pool.give_back(A, channel, over=True)
    assert pool.take(C) == (channel, sequence + 3, False)


def test_chunks_that_were_given_up_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels_module, "KEPT_MAX", 2)
    pool = ChannelPool()
    used = [pool.take((1, index))[0] for index in range(3)]
    for index, channel in enumerate(used):
        pool.give_back((1, index), channel, over=False)
    assert [pool.take((1, index))[0] for index in (1, 2)] == used[1:]
    assert pool.take((1, 0))[0] not in used


def test_a_budget_is_a_bound_and_first_come_first_served() -> None:
    async def main() -> None:
        budget = ByteBudget(10)
        order: list[int] = []
        gates = [asyncio.Event() for _ in range(4)]

        async def hold(number: int, size: int) -> None:
            async with budget.share(size):
                order.append(number)
                await gates[number].wait()

        tasks = [asyncio.ensure_future(hold(number, size)) for number, size in enumerate((6, 4, 5, 1))]
        await asyncio.sleep(0)
        assert order == [0, 1]
        gates[1].set()
        await tasks[1]
        await asyncio.sleep(0)
        # The small one behind could run, but the one before it has waited longer.
        assert order == [0, 1] and budget.held == 6
        for gate in gates:
            gate.set()
        await asyncio.gather(*tasks)
        assert order == [0, 1, 2, 3] and budget.held == 0

    run(main())


def test_one_share_larger_than_the_budget_goes_alone() -> None:
    async def main() -> None:
        budget = ByteBudget(10)
        async with budget.share(100):
            assert budget.held == 100
        assert budget.held == 0

    run(main())


def test_a_cancelled_wait_takes_nothing_and_lets_the_next_go() -> None:
    async def main() -> None:
        budget = ByteBudget(10)
        passed = asyncio.Event()

        async def hold(size: int) -> None:
            async with budget.share(size):
                passed.set()

        async with budget.share(8):
            large = asyncio.ensure_future(hold(9))
            small = asyncio.ensure_future(hold(2))
            await asyncio.sleep(0)
            assert not passed.is_set()
            large.cancel()
            await asyncio.wait([large])
            await small
            assert passed.is_set()
        assert budget.held == 0

    run(main())


def test_a_turn_that_comes_with_a_cancellation_is_passed_on() -> None:
    async def main() -> None:
        budget = ByteBudget(10)

        async def hold() -> None:
            async with budget.share(10):
                pass

        async with budget.share(10):
            first, second = asyncio.ensure_future(hold()), asyncio.ensure_future(hold())
            await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first, second])
        assert first.cancelled() and second.exception() is None and budget.held == 0

    run(main())


def test_who_waits_too_long_takes_nothing_and_lets_the_next_go() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        def until(seconds: float) -> Callable[[], float]:
            end = loop.time() + seconds
            return lambda: end - loop.time()

        budget = ByteBudget(10)
        async with budget.share(8):
            with pytest.raises(OutOfTime):
                async with budget.share(9, until(0.5)):
                    raise AssertionError("it has a share")
            waiting = asyncio.ensure_future(budget.share(9, until(5.0)).__aenter__())
            behind = asyncio.ensure_future(budget.share(2).__aenter__())
            await asyncio.sleep(4.9)
            assert not behind.done()
            await asyncio.sleep(0.2)
            await behind
            with pytest.raises(OutOfTime):
                await waiting
            assert budget.held == 10

    run_virtual(main())
