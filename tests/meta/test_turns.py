"""Turns by key: one at a time, in order, nothing kept, also when a waiter gives up."""

import asyncio

from fs_meta.ops.turns import Turns
from tests.support import run


def test_one_holder_of_a_key_in_order_of_arrival() -> None:
    async def body() -> None:
        turns = Turns()
        log: list[str] = []

        async def work(name: str, key: int) -> None:
            async with turns.turn(key):
                log.append(f"{name} begins")
                await asyncio.sleep(0)
                log.append(f"{name} ends")

        await asyncio.gather(work("a", 1), work("b", 1), work("c", 1))
        assert log == [f"{name} {what}" for name in "abc" for what in ("begins", "ends")]
        log.clear()
        await asyncio.gather(work("a", 1), work("b", 2))
        assert log[:2] == ["a begins", "b begins"]
        assert turns._locks == {}

    run(body())


def test_a_waiter_that_is_cancelled_leaves_the_turn_to_the_next() -> None:
    async def body() -> None:
        turns = Turns()
        entered: list[int] = []

        async def work(number: int) -> None:
            async with turns.turn(1):
                entered.append(number)

        async with turns.turn(1):
            waiting = [asyncio.create_task(work(number)) for number in range(3)]
            await asyncio.sleep(0)
            waiting[1].cancel()
            await asyncio.sleep(0)
        await asyncio.gather(*waiting, return_exceptions=True)
        assert entered == [0, 2] and waiting[1].cancelled()
        assert turns._locks == {}

    run(body())
