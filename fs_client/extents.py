"""Where a file has data and where holes, as its chunks on the storage daemons tell.

Everything here costs by the chunks that there are, never by how far the file reaches.

A file that was removed, and whose chunks may be gone, has no holes: STALE (`fs_client.kept_files`).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from fs_client.backoff import Attempts
from fs_client.file_ref import FileRef
from fs_client.paths import Path
from fs_client.routing_cache import Route
from fs_client.settle import run_all
from fs_client.storage_client import READ_TRY_S
from fs_common.errors import EmberError, to_os_error
from fs_common.methods import LIST_CHUNKS, QUERY_LAST_CHUNK, Method
from fs_common.records.storage import ListChunks, ListChunksReply, QueryLastChunk, QueryLastChunkReply

if TYPE_CHECKING:
    from fs_client.aio import AsyncFileSystem

Question = tuple[Method, ListChunks | QueryLastChunk]

LIMIT_FIRST = 16
LIMIT = 1024
"""Chunks of one chain that are asked for at a time: few at first, as the answer may be in them."""


class Page(NamedTuple):
    """Which chunks of a part of a file there are."""

    chunks: list[tuple[int, int]]
    """(index, bytes), ascending."""
    stop: int
    """One behind the last index that this says something about."""


async def next_data(fs: "AsyncFileSystem", file: FileRef, offset: int) -> int | None:
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


async def next_hole(fs: "AsyncFileSystem", file: FileRef, offset: int) -> int:
    """The first offset from `offset` on where no data is; the end of the file is one."""
    size = file.layout.chunk_size
    index = offset // size
    limit = LIMIT_FIRST
    while index * size < file.length:
        page = await stored_page(fs, file, index, -(-file.length // size), limit)
        for found, length in page.chunks:
            if found != index:
                break
            if length < size:
                return min(max(index * size + length, offset), file.length)
            index += 1
        if index < page.stop:
            await fs.kept_files.check(file.inode, fs.options.timeout_s)
            return min(max(index * size, offset), file.length)
        limit = LIMIT
    return file.length


async def find_extent(fs: "AsyncFileSystem", file: FileRef, offset: int, data: bool, path: Path) -> int | None:
    """`next_data` or `next_hole` for programs, to which errors are `OSError`."""
    try:
        return await (next_data if data else next_hole)(fs, file, offset)
    except EmberError as error:
        raise to_os_error(error, path) from error


async def data_in(fs: "AsyncFileSystem", file: FileRef, start: int, end: int) -> tuple[list[tuple[int, int]], int]:
    """([(start, end), ...], stop): where data is in `[start, stop)`, ascending; `stop`: beyond `start`, at most `end`.
    `[start, end)`: not empty."""
    size = file.layout.chunk_size
    page = await stored_page(fs, file, start // size, -(-end // size))
    ranges: list[tuple[int, int]] = []
    for index, length in page.chunks:
        begin, last = max(index * size, start), min(index * size + length, end)
        if begin >= last:
            continue
        if ranges and ranges[-1][1] == begin:
            ranges[-1] = (ranges[-1][0], last)
        else:
            ranges.append((begin, last))
    stop = min(page.stop * size, end)
    if sum(last - begin for begin, last in ranges) < stop - start:
        await fs.kept_files.check(file.inode, fs.options.timeout_s)
    return ranges, stop


async def stored_bytes(fs: "AsyncFileSystem", file: FileRef, timeout_s: float) -> int:
    """Bytes of all chunks of the file, once, whatever the replicas. Raises what the daemons say after `timeout_s`."""

    def question(route: Route) -> Question:
        return QUERY_LAST_CHUNK, QueryLastChunk(route.chain, route.version, file.inode)

    replies: list[QueryLastChunkReply] = await _ask_heads(fs, file, question, timeout_s)
    return sum(reply.total_bytes for reply in replies)


async def stored_page(fs: "AsyncFileSystem", file: FileRef, first: int, last: int, limit: int = LIMIT) -> Page:
    """Chunks that there are from index `first` on, below `last`; `limit`: of each chain."""
    replies = await _lists(fs, file, first, min(limit, last - first))
    stop = last
    for reply in replies:
        if reply.more:
            stop = min(stop, reply.indexes[-1] + 1)
    found = (pair for reply in replies for pair in zip(reply.indexes, reply.lengths, strict=True))
    return Page(sorted((index, length) for index, length in found if index < stop), stop)


async def _list(fs: "AsyncFileSystem", file: FileRef, first: int, limit: int) -> dict[int, int]:
    """Index to bytes of chunks from `first` on: of each chain at least its next `limit`, so all below the least of
    the last ones are there."""
    replies = await _lists(fs, file, first, limit)
    return {index: length for reply in replies for index, length in zip(reply.indexes, reply.lengths, strict=True)}


async def _lists(fs: "AsyncFileSystem", file: FileRef, first: int, limit: int) -> list[ListChunksReply]:
    def question(route: Route) -> Question:
        return LIST_CHUNKS, ListChunks(route.chain, route.version, file.inode, first, limit)

    return await _ask_heads(fs, file, question, fs.options.timeout_s)


async def _ask_heads(
    fs: "AsyncFileSystem", file: FileRef, question: Callable[[Route], Question], timeout_s: float
) -> list[Any]:
    """What the heads of all chains of the file answer. If one cannot be asked, all are asked once more."""
    attempts = Attempts(timeout_s)
    while True:
        known = fs.routing.routing.version
        replies: list[Any] = []

        async def ask(route: Route, replies: list[Any] = replies) -> None:
            if route.head is None:
                raise fs.routing.lost(route.chain)
            method, request = question(route)
            left_s = attempts.left_s()
            replies.append(await fs.storage.call(route.head, method, request, size=0, try_s=READ_TRY_S, left_s=left_s))

        try:
            plan = fs.routing.plan(file)
            await run_all([ask(route) for route in plan.routes[: plan.stripe]])
            return replies
        except EmberError as error:
            if not await attempts.after_change(error, fs.routing, known):
                raise
