"""A question to a disk, asked in a thread of its own: a disk may neither answer nor fail.

Called by: the watch over disks. The thread is no obstacle to the end of the process, whatever it waits for.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable


class Question:
    """Asked again and again, never twice at a time. Used from the event loop."""

    def __init__(self, ask: Callable[[], None], name: str) -> None:
        self._ask = ask
        """Called in the thread."""
        self._name = name
        self._answer: asyncio.Future[None] | None = None
        """Of the one that is not answered yet."""
        self._asked_s = 0.0

    async def answered(self, patience_s: float) -> bool:
        """Ask, or wait on for the last answer; False: there is none within that time. Raises what the question does."""
        loop = asyncio.get_running_loop()
        if self._answer is None:
            self._answer, self._asked_s = loop.create_future(), loop.time()
            threading.Thread(target=self._run, args=(loop, self._answer), name=self._name, daemon=True).start()
        done, _ = await asyncio.wait([self._answer], timeout=patience_s)
        if not done:
            return False
        answer, self._answer = self._answer, None
        answer.result()
        return True

    def silent_s(self) -> float:
        """For how long there is no answer; 0: it is not asked."""
        return asyncio.get_running_loop().time() - self._asked_s if self._answer is not None else 0.0

    def _run(self, loop: asyncio.AbstractEventLoop, answer: "asyncio.Future[None]") -> None:
        failure: BaseException | None = None
        try:
            self._ask()
        except BaseException as error:
            failure = error

        def tell() -> None:
            if answer.done():
                return
            if failure is None:
                answer.set_result(None)
            else:
                answer.set_exception(failure)

        with contextlib.suppress(RuntimeError):  # the loop is closed by now
            loop.call_soon_threadsafe(tell)
