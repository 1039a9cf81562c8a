"""Steps that run to their end although their task is cancelled, because what they have done must be known."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def uninterrupted(step: Coroutine[Any, Any, T]) -> T:
    """The result of `step`. If we are cancelled meanwhile we still get it; the cancellation comes at the next await.

    What was opened can so be closed, and memory is not given away while somebody writes into it.
    """
    task = asyncio.ensure_future(step)
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        current = asyncio.current_task()
        assert current is not None, "only a task can be cancelled"
        current.cancel()
    return task.result()


async def in_thread(function: Callable[..., T], *arguments: Any, **keywords: Any) -> T:
    """Run `function` in a thread, to its end."""
    return await uninterrupted(asyncio.to_thread(function, *arguments, **keywords))
