"""WARM_CHUNKS: what was asked for is in the page cache afterwards, and nothing is sent."""

import os
from pathlib import Path

import pytest

from fs_common.errors import Code, EmberError
from fs_common.ids import chunk_id
from fs_common.limits import WARM_ITEMS_MAX
from fs_common.methods import WARM_CHUNKS
from fs_common.records.storage import WarmChunks, WarmChunksReply, WarmItem
from fs_storage.engine.interface import ChunkStore, WouldBlock
from fs_storage.engine.store import open_store
from tests.storage.chain import CHUNK, TIMEOUT_S, ChainOfDaemons, chain_of
from tests.support import run

SIZES = [CHUNK, 200_000, 4097]


async def warm(chain: ChainOfDaemons, *items: WarmItem, place: int = 0) -> WarmChunksReply:
    address = chain.address(chain.node(1, place))
    reply: WarmChunksReply = await chain.pool.call(address, WARM_CHUNKS, WarmChunks(list(items)), timeout=TIMEOUT_S)
    return reply


def evict(directory: Path) -> None:
    """Nothing of these files stays in the page cache, if their file system has a disk."""
    for path in directory.rglob("*"):
        if path.is_file():
            file = os.open(path, os.O_RDONLY)
            try:
                os.fsync(file)
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(file)


def is_cached(store: ChunkStore, index: int, length: int) -> bool:
    try:
        store.read(bytes(chunk_id(7, index)), 0, length, memoryview(bytearray(length)))
    except WouldBlock:
        return False
    return True


def test_chunks_are_in_memory_afterwards(tmp_path: Path) -> None:
    async def make_store(target: int) -> ChunkStore:
        return await open_store(tmp_path / f"target-{target}", target=target, capacity_bytes=1 << 30)

    async def scenario() -> None:
        async with chain_of(tmp_path, make_store=make_store) as chain:
            for index, size in enumerate(SIZES):
                await chain.update(os.urandom(size), index=index)
            target = chain.daemons[chain.node(1, 0)].targets.require(1)
            # Small reads say whether bytes are cached; large ones are left to sendfile.
            small = [4097, 16_384, 4097]
            await target.store.checkpoint()
            evict(tmp_path)
            if any(is_cached(target.store, index, length) for index, length in enumerate(small)):
                pytest.skip("this file system keeps its files in memory")
            reply = await warm(chain, *(WarmItem(1, 1, 7, index, CHUNK) for index in range(len(SIZES))))
            assert (reply.lengths, reply.errors) == (SIZES, [])
            assert all(is_cached(target.store, index, length) for index, length in enumerate(small))

    run(scenario())


def test_each_chunk_fails_by_itself(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            await chain.update(b"x" * 5000)
            reply = await warm(
                chain,
                WarmItem(1, 9, 7, 0, CHUNK),
                WarmItem(1, 1, 7, 0, CHUNK),
                WarmItem(1, 1, 7, 5, CHUNK),
                WarmItem(99, 1, 7, 0, CHUNK),
                WarmItem(1, 1, 7, 0, 0),
                WarmItem(1, 1, -1, 0, CHUNK),
            )
            assert reply.lengths == [0, 5000, 0, 0, 0, 0]
            assert [(error.index, error.code) for error in reply.errors] == [
                (0, Code.CHAIN_VERSION.value.number),
                (2, Code.CHUNK_NOT_FOUND.value.number),
                (3, Code.CHAIN_UNKNOWN.value.number),
                (4, Code.INVALID.value.number),
                (5, Code.INVALID.value.number),
            ]

    run(scenario())


def test_bounds_of_a_request(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            for count in (0, WARM_ITEMS_MAX + 1):
                with pytest.raises(EmberError) as caught:
                    await warm(chain, *([WarmItem(1, 1, 7, 0, CHUNK)] * count))
                assert caught.value.code is Code.INVALID

    run(scenario())
