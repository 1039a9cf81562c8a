"""Coroutines that are run without a task while they can be."""

import asyncio
from typing import Any

import pytest

from fs_common import eager
from tests.support import run


def test_a_coroutine_that_does_not_suspend_makes_no_task() -> None:
    async def main() -> None:
        async def answer() -> int:
            return 42

        assert eager.start(answer(), asyncio.get_running_loop()) == 42

    run(main())


def test_an_exception_of_the_first_step_is_raised_at_once() -> None:
    async def main() -> None:
        async def fails() -> None:
            raise KeyError("first step")

        with pytest.raises(KeyError, match="first step"):
            eager.start(fails(), asyncio.get_running_loop())

    run(main())


def test_the_rest_runs_in_a_task() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in range(3)]
        steps = []

        async def works() -> str:
            for future in futures:
                steps.append((await future, asyncio.current_task()))
            return "done"

        task = eager.start(works(), loop)
        assert isinstance(task, asyncio.Task)
        for i, future in enumerate(futures):
            future.set_result(i)
        assert await task == "done"
        assert steps == [(0, task), (1, task), (2, task)]

    run(main())


def test_a_bare_yield_is_a_turn_of_the_loop() -> None:
    async def main() -> None:
        async def works() -> str:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return "done"

        task = eager.start(works(), asyncio.get_running_loop())
        assert isinstance(task, asyncio.Task)
        assert await task == "done"

    run(main())


def test_a_future_that_finishes_before_the_task_starts() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[int] = loop.create_future()

        async def works() -> int:
            return await future + 1

        task = eager.start(works(), loop)
        assert isinstance(task, asyncio.Task)
        future.set_result(1)
        assert await task == 2

    run(main())


def test_a_future_that_fails_raises_in_the_coroutine() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[int] = loop.create_future()

        async def works() -> str:
            try:
                await future
            except ValueError as error:
                return str(error)
            return "no error"

        task = eager.start(works(), loop)
        assert isinstance(task, asyncio.Task)
        future.set_exception(ValueError("from the future"))
        assert await task == "from the future"

    run(main())


def test_an_exception_after_the_first_step_is_the_tasks() -> None:
    async def main() -> None:
        async def fails() -> None:
            await asyncio.sleep(0)
            raise KeyError("later")

        task = eager.start(fails(), asyncio.get_running_loop())
        assert isinstance(task, asyncio.Task)
        with pytest.raises(KeyError, match="later"):
            await task

    run(main())


@pytest.mark.parametrize("turns_before_cancel", [0, 1, 2])
def test_cancellation_reaches_what_is_awaited(turns_before_cancel: int) -> None:
    """Also before the task's first step, when the task itself knows nothing of the awaited future yet."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        inner = loop.create_future()
        outcome: list[str] = []

        async def works() -> None:
            try:
                await inner
            except asyncio.CancelledError:
                outcome.append("cancelled")
                raise
            finally:
                outcome.append("cleaned up")

        task = eager.start(works(), loop)
        assert isinstance(task, asyncio.Task)
        for _ in range(turns_before_cancel):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        assert inner.cancelled()
        assert outcome == ["cancelled", "cleaned up"]

    run(main())


def test_a_gather_is_cancelled_with_all_of_its_children() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        children = [loop.create_future() for _ in range(3)]

        async def works() -> None:
            await asyncio.gather(*children)

        task = eager.start(works(), loop)
        assert isinstance(task, asyncio.Task)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert all(child.cancelled() for child in children)

    run(main())


@pytest.mark.parametrize("first", ["bare yield", "finished future"])
def test_cancelled_before_the_first_step_with_nothing_to_cancel(first: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        cleaned = []

        async def works() -> None:
            try:
                if first == "bare yield":
                    await asyncio.sleep(0)
                else:
                    await future
            finally:
                cleaned.append(True)

        task = eager.start(works(), loop)
        assert isinstance(task, asyncio.Task)
        if not future.done():
            future.set_result(None)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert cleaned == [True]

    run(main())


def test_a_coroutine_may_refuse_to_be_cancelled() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        first, second = loop.create_future(), loop.create_future()

        async def works() -> Any:
            try:
                await first
            except asyncio.CancelledError:
                return await second

        task = eager.start(works(), loop)
        assert isinstance(task, asyncio.Task)
        task.cancel()
        await asyncio.sleep(0)
        second.set_result("finished anyway")
        assert await task == "finished anyway"

    run(main())


def test_asyncio_tools_work_after_the_first_suspension() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        never = loop.create_future()

        async def works() -> str:
            await asyncio.sleep(0)
            try:
                async with asyncio.timeout(0):
                    await never
            except TimeoutError:
                pass
            async with asyncio.TaskGroup() as group:
                child = group.create_task(asyncio.sleep(0, "child"))
            return child.result()

        task = eager.start(works(), loop)
        assert isinstance(task, asyncio.Task)
        assert await task == "child"

    run(main())


def test_a_task_shows_the_coroutine_it_continues() -> None:
    async def main() -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def waits_for_the_disk() -> None:
            await future

        task = eager.start(waits_for_the_disk(), asyncio.get_running_loop())
        assert isinstance(task, asyncio.Task)
        assert "waits_for_the_disk" in repr(task)
        assert [frame.f_code.co_name for frame in task.get_stack()] == ["waits_for_the_disk"]
        future.set_result(None)
        await task

    run(main())


@pytest.mark.parametrize("cancelled", [False, True])
def test_several_may_await_the_same_future(cancelled: bool) -> None:
    """Each takes its first step before the task of any other takes note of the future."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        shared: asyncio.Future[str] = loop.create_future()

        async def waits() -> str:
            return await shared

        tasks = [eager.start(waits(), loop) for _ in range(3)]
        if cancelled:
            assert isinstance(tasks[0], asyncio.Task)
            tasks[0].cancel()
        await asyncio.sleep(0)
        if not cancelled:
            shared.set_result("for all")
        results = await asyncio.gather(*tasks, return_exceptions=True)  # type: ignore[arg-type]
        if cancelled:
            assert all(isinstance(result, asyncio.CancelledError) for result in results)
        else:
            assert results == ["for all"] * 3

    run(main())
