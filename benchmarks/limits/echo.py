"""Our own RPC with nothing behind it: what any call of the metadata service costs at the least."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection

from fs_common.rpc import Service


def serve(pipe: Connection) -> None:
    """A worker: a server that answers pings (every service does), until the pipe closes."""
    import uvloop

    uvloop.run(_serve(pipe))


async def _serve(pipe: Connection) -> None:
    from fs_common.transports import tcp

    service = Service("meta", "echo", 0)
    server = await tcp.serve(service, "127.0.0.1", 0)
    pipe.send(server.port)
    loop = asyncio.get_running_loop()
    closed = asyncio.Event()
    loop.add_reader(pipe.fileno(), closed.set)
    await closed.wait()
    loop.remove_reader(pipe.fileno())
    await server.close(grace_s=1.0)


async def calls_per_s(call: Callable[[int], Awaitable[object]], count: int, in_flight: int) -> float:
    """Make calls 0 .. count-1 with so many of them in flight; calls a second."""
    numbers = iter(range(count))

    async def lane() -> None:
        for number in numbers:
            await call(number)

    start = time.perf_counter()
    await asyncio.gather(*(lane() for _ in range(in_flight)))
    return count / (time.perf_counter() - start)
