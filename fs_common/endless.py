"""The one way to run a task that is to run for as long as its process serves.

A task that ends by an error nobody expected says so to nobody: whoever owns it waits for it at the end of the process
only. A daemon whose heartbeats, whose watch or whose collector has died so goes on looking well, and what it was there
for is not done until somebody wonders. So no such task is started bare (`tests/test_layers.py` looks): it is kept.

What is to follow is said for each task. By default it is begun again: after a pause that grows, with the traceback in
the log once, and not again for as long as it ends by the same error. `end_on` names the errors after which the process
cannot trust its state any more: `end` is told, and has to end the process in order, so that its supervisor starts it
anew.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from typing import Any

from fs_common.tracing import no_operation

logger = logging.getLogger(__name__)

PAUSE_S_MIN = 0.1
PAUSE_S_MAX = 5.0
"""Between an unexpected end and the next beginning; doubled each time, halved at random."""
WELL_S = 60.0
"""A task that has run for so long has recovered: its next error is told, and its next pause is short."""


def keep(
    run: Callable[[], Coroutine[Any, Any, None]],
    name: str,
    *,
    end_on: tuple[type[Exception], ...],
    end: Callable[[Exception], None] | None = None,
    stop: asyncio.Event | None = None,
) -> asyncio.Task[None]:
    """Run `run()` in a task of its own until it returns by itself or the task is cancelled.

    `run` is called anew after each unexpected error, so it must bear to begin again: its loop starts from what is, not
    from what it was told last. `end_on`: (): it goes on whatever happens. `stop`, where setting it is how `run` is
    ended, ends a pause, too.
    """
    return asyncio.get_running_loop().create_task(
        _kept(run, name, end_on, end, stop), name=name, context=no_operation()
    )


async def _kept(
    run: Callable[[], Coroutine[Any, Any, None]],
    name: str,
    end_on: tuple[type[Exception], ...],
    end: Callable[[Exception], None] | None,
    stop: asyncio.Event | None,
) -> None:
    loop = asyncio.get_running_loop()
    pause_s = PAUSE_S_MIN
    told = ""
    while True:
        begun_s = loop.time()
        try:
            await run()
            return
        except Exception as error:
            if end is not None and isinstance(error, end_on):
                logger.critical("%s has ended, and this process with it", name, exc_info=error)
                end(error)
                return
            if loop.time() - begun_s >= WELL_S:
                pause_s, told = PAUSE_S_MIN, ""
            if told != (told := repr(error)):
                logger.error("%s was ended by a defect and goes on", name, exc_info=error)
        await _pause(pause_s * random.uniform(0.5, 1.0), stop)
        if stop is not None and stop.is_set():
            return
        pause_s = min(pause_s * 2, PAUSE_S_MAX)


async def _pause(seconds: float, stop: asyncio.Event | None) -> None:
    if stop is None:
        await asyncio.sleep(seconds)
        return
    try:
        # Not `wait_for`: in Python 3.11 it may lose a cancellation.
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        pass
