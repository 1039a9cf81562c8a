"""Waiting for several coroutines so that none is left running, whatever happens."""

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any


async def run_all(coroutines: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run all of them side by side and return when all have ended.

    Raises the first error, after the others have ended by themselves. If the caller is cancelled, they are cancelled,
    and it is raised once they have ended: nothing of theirs touches the caller's memory after that.
    """
    if len(coroutines) == 1:
        await coroutines[0]
        return
    if not coroutines:
        return
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(coroutine) for coroutine in coroutines]
    try:
        await asyncio.wait(tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await ended(tasks)
        raise
    # All are looked at: an error that nobody has seen is reported by the loop when its task is collected.
    failed = [task for task in tasks if task.cancelled() or task.exception() is not None]
    for task in failed:
        task.result()


async def ended(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Wait until all tasks have ended; cancellation of the waiter is put off until then."""
    pending = {task for task in tasks if not task.done()}
    cancelled: asyncio.CancelledError | None = None
    while pending:
        try:
            _, pending = await asyncio.wait(pending)
        except asyncio.CancelledError as error:
            cancelled = error
    for task in tasks:
        if not task.cancelled():
            task.exception()
    if cancelled is not None:
        raise cancelled
