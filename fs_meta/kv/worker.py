"""A thread that does what may block, one thing after the other.

Thinner than an executor: a durable call waits for one of these steps, and an executor's futures cost more than the hop
to the thread and back (measured, with a sync of 100 us: 180 us through this, 240 us through a `ThreadPoolExecutor`).
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Protocol

Done = Callable[[BaseException | None], None]


class Worker(Protocol):
    def start(self, step: Callable[[], None], done: Done) -> None:
        """Run `step` after those started before; `done` is called on the caller's loop with what it raised."""

    def close(self) -> None:
        """Nothing is under way any more."""


class Thread:
    """A `Worker`. The thread starts with its first step."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._steps: queue.SimpleQueue[tuple[Callable[[], None], Done, asyncio.AbstractEventLoop] | None] = (
            queue.SimpleQueue()
        )
        self._thread: threading.Thread | None = None

    def start(self, step: Callable[[], None], done: Done) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        self._steps.put((step, done, asyncio.get_running_loop()))

    def close(self) -> None:
        if self._thread is not None:
            self._steps.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while (due := self._steps.get()) is not None:
            step, done, loop = due
            error: BaseException | None = None
            try:
                step()
            except BaseException as raised:
                error = raised
            loop.call_soon_threadsafe(done, error)


async def finished(worker: Worker, step: Callable[[], None]) -> None:
    """Wait for a step; raises what it raised. A caller that is cancelled leaves it to its end."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def done(error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)

    worker.start(step, done)
    await future
