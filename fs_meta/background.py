"""Work that goes on beside the calls: pass after pass, until the server stops."""

import asyncio
from collections.abc import Awaitable, Callable


async def passes(stop: asyncio.Event, interval_s: Callable[[], float], one_pass: Callable[[], Awaitable[bool]]) -> None:
    """Run `one_pass` again and again until `stop` is set, which ends a pass that is under way: it must bear being cut.

    After a pass that returns False, or fails, there is a pause of `interval_s()`; `one_pass` handles its own errors.
    """
    stopping = asyncio.create_task(stop.wait())
    try:
        while not stop.is_set():
            working = asyncio.ensure_future(one_pass())
            try:
                await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not working.done():
                    working.cancel()
                    await asyncio.wait((working,))
            if working.cancelled():
                return
            if not working.result():
                await asyncio.wait((stopping,), timeout=interval_s())
    finally:
        stopping.cancel()
        await asyncio.wait((stopping,))
