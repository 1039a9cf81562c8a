"""What tests share: running a coroutine on the production event loop, with leaks made visible."""

import asyncio
import os
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop

T = TypeVar("T")


SETTLE_S = 5.0
"""Waited only for tasks that are there and should not be: gRPC's servers end theirs a little after `stop`."""


PATIENCE = 5 if "EMBERFS_RDMA_GUEST" in os.environ else 1
"""Times as long as elsewhere may everything take on an emulated machine."""


def run(coroutine: Coroutine[Any, Any, T], timeout: float = 240.0 * PATIENCE) -> T:
    """Run to its end on uvloop; a hang fails after `timeout` seconds, a task left behind fails the test."""

    async def guarded() -> T:
        result = await asyncio.wait_for(coroutine, timeout)
        await asyncio.sleep(0)
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        if left:
            _, left = await asyncio.wait(left, timeout=SETTLE_S)
        assert not left, f"tasks left behind: {left}"
        return result

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(guarded())
