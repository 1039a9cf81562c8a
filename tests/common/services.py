"""Services that answer as tests of the RPC layer want it."""

import asyncio

from fs_common.methods import READ_CHUNKS
from fs_common.records.storage import ReadChunksReply
from fs_common.rpc import Call, FileRange, Part, Reply, Service
from tests.common.loopback import service

CLIENT = b"c" * 16
"""Who calls, by `loopback.hello`."""


def replying(*parts: Part, lengths: list[int] | None = None) -> Service:
    """READ_CHUNKS answers with these parts."""
    offered = service()
    sizes = lengths or [part.length if isinstance(part, FileRange) else len(part) for part in parts]
    offered.register(READ_CHUNKS, lambda call: Reply(ReadChunksReply(sizes, []), parts))
    return offered


class Gate:
    """READ_CHUNKS waits until it is opened; the handlers that wait are counted."""

    def __init__(self) -> None:
        self.service = service()
        self.service.register(READ_CHUNKS, self._answer)
        self.open = asyncio.Event()
        self.waiting = 0
        self.cancelled = 0

    async def _answer(self, call: Call) -> Reply:
        self.waiting += 1
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.waiting -= 1
        return Reply(ReadChunksReply([], []))
