"""Passes in the background: their pauses, and how they end."""

import asyncio

import pytest

from fs_meta.background import passes
from tests.support import run


def test_passes_follow_each_other_while_there_is_something_to_do() -> None:
    async def body() -> None:
        stop = asyncio.Event()
        done = 0

        async def one() -> bool:
            nonlocal done
            done += 1
            if done == 5:
                stop.set()
            return True

        await passes(stop, lambda: 3600, one)
        assert done == 5

    run(body())


def test_a_pass_that_found_nothing_is_followed_by_a_pause_that_stop_ends() -> None:
    async def body() -> None:
        stop = asyncio.Event()
        done = asyncio.Event()

        async def one() -> bool:
            assert not done.is_set()
            done.set()
            return False

        task = asyncio.create_task(passes(stop, lambda: 3600, one))
        await done.wait()
        for _ in range(10):
            await asyncio.sleep(0)
        assert not task.done()
        stop.set()
        await task

    run(body())


def test_stop_cuts_a_pass_and_waits_for_its_end() -> None:
    async def body() -> None:
        stop = asyncio.Event()
        ended = False

        async def one() -> bool:
            nonlocal ended
            stop.set()
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                ended = True
            return True

        await passes(stop, lambda: 0, one)
        assert ended

    run(body())


def test_a_pass_that_raises_ends_them() -> None:
    async def body() -> None:
        async def one() -> bool:
            raise RuntimeError("a bug")

        with pytest.raises(RuntimeError, match="a bug"):
            await passes(asyncio.Event(), lambda: 0, one)

    run(body())


def test_whoever_is_cancelled_cuts_its_pass() -> None:
    async def body() -> None:
        working = asyncio.Event()
        cut = False

        async def one() -> bool:
            nonlocal cut
            working.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cut = True
                raise
            return True

        task = asyncio.create_task(passes(asyncio.Event(), lambda: 0, one))
        await working.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert cut

    run(body())
