"""Run the first step of a coroutine at once, and make a task only if it suspends.

Most requests are answered without waiting for anything. A task for each of them costs more than the answer, so the
first step runs directly in the caller; if the coroutine ends there, its result is there. If it suspends, the rest of
it runs in a task like any other.

During the first step there is no current task: `asyncio.timeout`, `asyncio.current_task` and `TaskGroup` are for code
after the first suspension.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def start(coroutine: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> T | asyncio.Task[T]:
    """The coroutine's result if it ends without suspending, else the task that continues it.

    Raises what the coroutine raises in its first step.
    """
    try:
        awaited = coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    if awaited is not None:
        # An awaited future carries this mark until a task takes note of it, and nobody else can await it meanwhile. Our
        # task comes later; others may await the same future before.
        awaited._asyncio_future_blocking = False
    return loop.create_task(_Resumed(coroutine, awaited))


class _Resumed(Coroutine[Any, Any, T]):
    """A coroutine that has begun: gives what it awaits already to the task, then passes everything through."""

    __slots__ = ("_awaited", "_coroutine", "_first")

    def __init__(self, coroutine: Coroutine[Any, Any, T], awaited: Any) -> None:
        self._coroutine = coroutine
        self._awaited = awaited
        """A future, without the mark that the task expects on it; None from a bare yield."""
        self._first = True

    def send(self, value: Any) -> Any:
        if self._first:
            self._first = False
            awaited, self._awaited = self._awaited, None
            if awaited is not None:
                awaited._asyncio_future_blocking = True
            return awaited
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        if self._first:
            self._first = False
            awaited, self._awaited = self._awaited, None
            # The task was cancelled before its first step, so it did not know what to cancel. Cancelling what is
            # awaited, and waiting for it, is what a task does: the coroutine may await a gather or another task.
            if awaited is not None and _is_cancellation(error[0]) and awaited.cancel():
                awaited._asyncio_future_blocking = True
                return awaited
        return self._coroutine.throw(*error)

    def close(self) -> None:
        self._coroutine.close()

    # What a task shows of its coroutine, for people who look for one that hangs.

    @property
    def __name__(self) -> str:
        return str(getattr(self._coroutine, "__qualname__", self._coroutine))

    @property
    def cr_code(self) -> Any:
        return getattr(self._coroutine, "cr_code", None)

    @property
    def cr_frame(self) -> Any:
        return getattr(self._coroutine, "cr_frame", None)

    @property
    def cr_running(self) -> bool:
        return bool(getattr(self._coroutine, "cr_running", False))

    def __await__(self) -> Any:
        raise TypeError("a resumed coroutine belongs to its task")


def _is_cancellation(error: Any) -> bool:
    return isinstance(error, asyncio.CancelledError) or error is asyncio.CancelledError
