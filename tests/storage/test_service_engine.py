"""Three daemons on real chunk engines: random updates and reads against a model, with restarts in between."""

import asyncio
from pathlib import Path
from random import Random

import pytest

from fs_common.errors import Code, EmberError
from fs_common.methods import READ_CHUNKS
from fs_common.records.storage import ReadChunks, ReadItem, UpdateItem, UpdateKind
from fs_storage.engine.interface import ChunkStore
from fs_storage.engine.store import open_store
from tests.storage.chain import CHUNK, TIMEOUT_S, ChainOfDaemons, chain_of
from tests.support import run

INDEXES = 6
SIZES = (1, 100, 4096, 5000, 65_536, 200_000, CHUNK)


def pick_update(chain: ChainOfDaemons, random: Random, model: dict[int, bytearray | None]) -> tuple[UpdateItem, bytes]:
    """A random update, applied to the model."""
    index = random.randrange(INDEXES)
    before = model.get(index)
    what = random.random()
    channel = 100 + index
    if what < 0.1:
        model[index] = None
        return chain.item(kind=UpdateKind.REMOVE, index=index, channel=channel), b""
    old = before if before is not None else bytearray()
    if what < 0.25:
        length = random.choice((0, 1, 5000, len(old), min(len(old) + 300, CHUNK)))
        model[index] = bytearray(old[:length].ljust(length, b"\0"))
        return chain.item(kind=UpdateKind.TRUNCATE, index=index, channel=channel, offset=length), b""
    size = random.choice(SIZES)
    offset = random.choice((0, len(old), 4096, random.randrange(CHUNK)))
    offset = min(offset, CHUNK - size)
    data = random.randbytes(size)
    new = bytearray(old.ljust(offset + size, b"\0"))
    new[offset : offset + size] = data
    model[index] = new
    return chain.item(data, index=index, channel=channel, offset=offset), data


async def check_reads(chain: ChainOfDaemons, random: Random, model: dict[int, bytearray | None], place: int) -> None:
    """A batch of random reads at one replica."""
    items = []
    for _ in range(12):
        size = random.choice(SIZES)
        offset = random.choice((0, 4096, random.randrange(CHUNK)))
        items.append(ReadItem(1, 1, 7, random.randrange(INDEXES), offset, min(size, CHUNK - offset), CHUNK))
    into = [memoryview(bytearray(item.length)) for item in items]
    address = chain.address(chain.node(1, place))
    reply = await chain.pool.call(address, READ_CHUNKS, ReadChunks(items), into=into, timeout=TIMEOUT_S)
    failed = {error.index: error.code for error in reply.errors}
    for number, item in enumerate(items):
        content = model.get(item.index)
        if content is None:
            assert failed.pop(number) == Code.CHUNK_NOT_FOUND.value.number
            continue
        expected = bytes(content[item.offset : item.offset + item.length])
        assert bytes(into[number][: reply.lengths[number]]) == expected, (number, item)
    assert not failed


@pytest.mark.parametrize("seed", range(2))
def test_random_updates_reads_and_restarts(tmp_path: Path, seed: int) -> None:
    random = Random(seed)

    async def make_store(target: int) -> ChunkStore:
        return await open_store(tmp_path / f"target-{target}", target=target, capacity_bytes=1 << 30)

    async def scenario() -> None:
        async with chain_of(tmp_path, make_store=make_store) as chain:
            model: dict[int, bytearray | None] = {}
            for round_number in range(5):
                for _ in range(6):
                    picked = [pick_update(chain, random, model) for _ in range(random.choice((1, 1, 5)))]
                    reply = await chain.send([item for item, _ in picked], [data for _, data in picked])
                    assert not reply.errors, (round_number, reply.errors)
                    # The last update of each chunk in the batch has the length of the model.
                    last = {item.index: number for number, (item, _) in enumerate(picked)}
                    for index, number in last.items():
                        assert reply.lengths[number] == len(model[index] or b"")
                for place in range(3):
                    await check_reads(chain, random, model, place)
                present = [index for index, content in model.items() if content is not None]
                answer = await chain.query()
                assert answer.index == max(present, default=-1)
                assert answer.total_bytes == sum(len(model[index] or b"") for index in present)
                node = random.choice((1, 2, 3))
                await chain.crash(node)
                await chain.restart(node)
                await chain.serving()

    run(scenario())


def test_a_full_disk_refuses_and_goes_on(tmp_path: Path) -> None:
    async def make_store(target: int) -> ChunkStore:
        # The tail of chain 1 is the smallest, so that the others have to take their part back.
        capacity = 16 << 20 if target == 301 else 1 << 30
        return await open_store(tmp_path / f"target-{target}", target=target, capacity_bytes=capacity)

    async def scenario() -> None:
        async with chain_of(tmp_path, make_store=make_store) as chain:
            written = 0
            with pytest.raises(EmberError) as caught:
                while written < 64:
                    await chain.update(bytes([written]) * CHUNK, index=written)
                    written += 1
            assert caught.value.code is Code.NO_SPACE
            assert 4 <= written <= 16
            assert (await chain.query()).chunks == written
            for index in range(written):
                assert await chain.read_everywhere(index=index, length=10) == bytes([index]) * 10
            await chain.update(kind=UpdateKind.REMOVE, index=0)
            await chain.update(kind=UpdateKind.REMOVE, index=1)
            for _ in range(200):
                try:
                    assert await chain.update(b"again" * 1000, index=100)
                    break
                except EmberError as error:
                    assert error.code is Code.NO_SPACE
                    await asyncio.sleep(0.01)
            assert await chain.read_everywhere(index=100, length=5) == b"again"

    run(scenario())
