"""Files into the page caches of the daemons, ahead of their readers.

Each chunk is read at the replica from which clients read it, or at all of them; the bytes stay there. As every client
of a healthy cluster makes the same plans, a second client finds warm what the first has asked for.

Memory: the chunks of a few calls for each server.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, NamedTuple

from fs_client.file_ref import FileRef
from fs_client.routing_cache import Server
from fs_common.errors import Code, EmberError, Retry, code_of
from fs_common.limits import MIB
from fs_common.methods import WARM_CHUNKS
from fs_common.records.storage import WarmChunks, WarmChunksReply, WarmItem

if TYPE_CHECKING:
    from fs_client.aio import AsyncFileSystem

CALL_BYTES = 64 * MIB
CALL_ITEMS = 256
"""A call takes no further chunk once it has so much: progress shows, and a call that fails costs little."""
CALLS_FOR_EACH_SERVER = 2
CALL_S = 120.0
"""A slow disk reads that much in this time."""
TRIES = 3


class Warmed(NamedTuple):
    files: int
    chunks: int
    bytes: int


class _Wanted(NamedTuple):
    file: FileRef
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    length: int
    tries: int


class Warmup:
    """Reads files at the daemons: `await Warmup(fs, ...).run(files)`."""

    def __init__(
        self,
        fs: "AsyncFileSystem",
        *,
        all_replicas: bool = False,
        advanced: Callable[[int], None] = lambda length: None,
        failed: Callable[[FileRef, EmberError], None],
    ) -> None:
        """`advanced`: told of bytes that are warm, replicas counted; `failed`: of chunks that could not be read."""
        self._fs = fs
        self._all_replicas = all_replicas
        self._advanced = advanced
        self._failed = failed
        self._batches: dict[Server, list[_Wanted]] = {}
        self._batch_bytes: dict[Server, int] = {}
        self._turns: dict[Server, asyncio.Semaphore] = {}
        self._calls: set[asyncio.Task[None]] = set()
        self._chunks = 0
        self._bytes = 0

    async def run(self, files: AsyncIterator[FileRef]) -> Warmed:
        """What was done. Raises `EmberError` when the metadata service does not answer."""
        count = 0
        try:
            async for file in files:
                count += 1
                size = file.layout.chunk_size
                for index in range(-(-file.length // size)):
                    await self._want(_Wanted(file, index, min(size, file.length - index * size), 0))
            while self._batches or self._calls:
                for server in list(self._batches):
                    await self._send(server)
                if self._calls:
                    done, _ = await asyncio.wait(self._calls, return_when=asyncio.FIRST_COMPLETED)
                    for call in done:
                        call.result()
        finally:
            for call in self._calls:
                call.cancel()
        return Warmed(count, self._chunks, self._bytes)

    async def _want(self, wanted: _Wanted) -> None:
        routing = self._fs.routing
        routing.expire_suspects()
        route = routing.plan(wanted.file).route(wanted.file.inode, wanted.index)
        if route.server is None:
            self._failed(wanted.file, routing.lost(route.chain))
            return
        for server in route.replicas if self._all_replicas and not wanted.tries else (route.server,):
            batch = self._batches.setdefault(server, [])
            batch.append(wanted)
            total = self._batch_bytes[server] = self._batch_bytes.get(server, 0) + wanted.length
            if total >= CALL_BYTES or len(batch) >= CALL_ITEMS:
                await self._send(server)

    async def _send(self, server: Server) -> None:
        """Start a call with what is collected for a server, once it has answered enough of those before."""
        turn = self._turns.setdefault(server, asyncio.Semaphore(CALLS_FOR_EACH_SERVER))
        await turn.acquire()
        batch = self._batches.pop(server, None)
        self._batch_bytes.pop(server, None)
        if batch is None:
            turn.release()
            return
        call = asyncio.get_running_loop().create_task(self._call(server, batch))
        self._calls.add(call)

        def ended(task: asyncio.Task[None]) -> None:
            self._calls.discard(task)
            turn.release()

        call.add_done_callback(ended)

    async def _call(self, server: Server, batch: list[_Wanted]) -> None:
        routing = self._fs.routing
        version = routing.routing.version
        again: list[tuple[_Wanted, EmberError]] = []
        sent: list[_Wanted] = []
        items: list[WarmItem] = []
        for wanted in batch:
            route = routing.plan(wanted.file).route(wanted.file.inode, wanted.index)
            items.append(WarmItem(route.chain, route.version, wanted.file.inode, wanted.index, wanted.length))
            sent.append(wanted)
        try:
            reply: WarmChunksReply = await self._fs.storage.call(
                server, WARM_CHUNKS, WarmChunks(items), size=0, try_s=CALL_S, left_s=CALL_S
            )
        except EmberError as error:
            again = [(wanted, error) for wanted in sent]
        else:
            failures = {failure.index: failure for failure in reply.errors}
            for at, (wanted, length) in enumerate(zip(sent, reply.lengths, strict=True)):
                failure = failures.get(at)
                if failure is None or failure.code == Code.CHUNK_NOT_FOUND.value.number:  # a hole
                    self._chunks += failure is None
                    self._bytes += length
                    self._advanced(wanted.length)
                else:
                    again.append((wanted, EmberError(code_of(failure.code), failure.message)))
        if not again:
            return
        await routing.refresh_if_possible(version, CALL_S)
        for wanted, why in again:
            if why.retry is Retry.FINAL or wanted.tries + 1 >= TRIES:
                self._failed(wanted.file, why)
            else:
                await self._want(wanted._replace(tries=wanted.tries + 1))
