"""Where a file has data and where holes, as its chunks on the storage daemons tell."""

from fs_client.aio import AsyncFileSystem
from fs_client.backoff import Attempts
from fs_client.file_ref import FileRef
from fs_client.read_plan import nobody_serves
from fs_client.settle import run_all
from fs_client.storage_client import READ_TRY_S
from fs_common.errors import EmberError, Retry
from fs_common.methods import LIST_CHUNKS
from fs_common.records.storage import ListChunks, ListChunksReply

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
    if not chunks:
        return None
    found = max(min(chunks) * size, offset)
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
                return min(max(index * size + length, offset), file.length)
            index += 1
            if index * size >= file.length:
                break
    return file.length


async def stored_bytes(fs: AsyncFileSystem, file: FileRef) -> int:
    """Bytes of all chunks of the file, once, whatever the replicas."""
    total = first = 0
    while True:
        chunks = await _list(fs, file, first, LIMIT)
        if not chunks:
            return total
        # Beyond the least of the chains' last chunks some may be missing in a full answer.
        stripe = file.layout.stripe
        last = max(chunks) if len(chunks) < LIMIT else min(_last_of_full_chains(chunks, stripe), max(chunks))
        total += sum(length for index, length in chunks.items() if index <= last)
        first = last + 1


def _last_of_full_chains(chunks: dict[int, int], stripe: int) -> int:
    """Up to where all chains have told all of their chunks: those that told `LIMIT` may have more."""
    told: dict[int, list[int]] = {}
    for index in chunks:
        told.setdefault(index % stripe, []).append(index)
    return min((max(indexes) for indexes in told.values() if len(indexes) >= LIMIT), default=max(chunks))


async def _list(fs: AsyncFileSystem, file: FileRef, first: int, limit: int) -> dict[int, int]:
    """Index to bytes of chunks from `first` on: of each chain at least its next `limit`, so all below the least of
    the last ones are there."""
    attempts = Attempts(fs.options.timeout_s)
    while True:
        known = fs.routing.routing.version
        try:
            return await _list_once(fs, file, first, limit, attempts)
        except EmberError as error:
            if error.retry is Retry.FINAL or not await attempts.again(error):
                raise
            await fs.routing.refresh_if_possible(known, attempts.left_s())


async def _list_once(fs: AsyncFileSystem, file: FileRef, first: int, limit: int, attempts: Attempts) -> dict[int, int]:
    plan = fs.routing.plan(file)
    chunks: dict[int, int] = {}

    async def ask(place: int) -> None:
        route = plan.routes[place]
        if route.head is None:
            raise nobody_serves(route.chain)
        reply: ListChunksReply = await fs.storage.call(
            route.head,
            LIST_CHUNKS,
            ListChunks(route.chain, route.version, file.inode, first, limit),
            size=0,
            try_s=READ_TRY_S,
            left_s=attempts.left_s(),
        )
        chunks.update(zip(reply.indexes, reply.lengths, strict=True))

    stripe = min(plan.stripe, len(plan.routes))
    await run_all([ask(place) for place in range(stripe)])
    return chunks
