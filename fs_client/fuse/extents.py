"""Where a file has data and where holes, as its chunks on the storage daemons tell.

A file that was removed, and whose chunks may be gone, has no holes: STALE (`fs_client.kept_files`).
"""

from collections.abc import Callable
from typing import Any

from fs_client.aio import AsyncFileSystem
from fs_client.backoff import Attempts
from fs_client.file_ref import FileRef
from fs_client.read_plan import nobody_serves
from fs_client.routing_cache import Route
from fs_client.settle import run_all
from fs_client.storage_client import READ_TRY_S
from fs_common.errors import EmberError, Retry
from fs_common.methods import LIST_CHUNKS, QUERY_LAST_CHUNK, Method
from fs_common.records.storage import ListChunks, ListChunksReply, QueryLastChunk, QueryLastChunkReply

Question = tuple[Method, ListChunks | QueryLastChunk]

LIMIT = 1024
"""Chunks of one chain that are asked for at a time."""


async def next_data(fs: AsyncFileSystem, file: FileRef, offset: int) -> int | None:
    """The first offset from `offset` on, within the file, that lies in a chunk's data. None: only holes follow."""
    size = file.layout.chunk_size
    first = offset // size
    chunks = await _list(fs, file, first, 1)
    # The chunk of `offset` may end before it.
    if chunks.get(first, 0) <= offset % size and first in chunks:
        chunks = await _list(fs, file, first + 1, 1)
    found = max(min(chunks) * size, offset) if chunks else file.length
    if found > offset:
        await fs.kept_files.check(file.inode, fs.options.timeout_s)
    return found if found < file.length else None


async def next_hole(fs: AsyncFileSystem, file: FileRef, offset: int) -> int:
    """The first offset from `offset` on where no data is; the end of the file is one."""
    size = file.layout.chunk_size
    index = offset // size
    while index * size < file.length:
        chunks = await _list(fs, file, index, LIMIT)
        stop = index + LIMIT
        while index < stop:
            length = chunks.get(index, 0)
            if length < size:
                if not length:
                    await fs.kept_files.check(file.inode, fs.options.timeout_s)
                return min(max(index * size + length, offset), file.length)
            index += 1
            if index * size >= file.length:
                break
    return file.length


async def stored_bytes(fs: AsyncFileSystem, file: FileRef, timeout_s: float) -> int:
    """Bytes of all chunks of the file, once, whatever the replicas. Raises what the daemons say after `timeout_s`."""

    def question(route: Route) -> Question:
        return QUERY_LAST_CHUNK, QueryLastChunk(route.chain, route.version, file.inode)

    replies: list[QueryLastChunkReply] = await _ask_heads(fs, file, question, timeout_s)
    return sum(reply.total_bytes for reply in replies)


async def _list(fs: AsyncFileSystem, file: FileRef, first: int, limit: int) -> dict[int, int]:
    """Index to bytes of chunks from `first` on: of each chain at least its next `limit`, so all below the least of
    the last ones are there."""

    def question(route: Route) -> Question:
        return LIST_CHUNKS, ListChunks(route.chain, route.version, file.inode, first, limit)

    replies: list[ListChunksReply] = await _ask_heads(fs, file, question, fs.options.timeout_s)
    return {index: length for reply in replies for index, length in zip(reply.indexes, reply.lengths, strict=True)}


async def _ask_heads(
    fs: AsyncFileSystem, file: FileRef, question: Callable[[Route], Question], timeout_s: float
) -> list[Any]:
    """What the heads of all chains of the file answer. If one cannot be asked, all are asked once more."""
    attempts = Attempts(timeout_s)
    while True:
        known = fs.routing.routing.version
        replies: list[Any] = []

        async def ask(route: Route, replies: list[Any] = replies) -> None:
            if route.head is None:
                raise nobody_serves(route.chain)
            method, request = question(route)
            left_s = attempts.left_s()
            replies.append(await fs.storage.call(route.head, method, request, size=0, try_s=READ_TRY_S, left_s=left_s))

        try:
            plan = fs.routing.plan(file)
            await run_all([ask(route) for route in plan.routes[: plan.stripe]])
            return replies
        except EmberError as error:
            if error.retry is Retry.FINAL or not await attempts.again(error):
                raise
            await fs.routing.refresh_if_possible(known, attempts.left_s())
