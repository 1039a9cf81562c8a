"""Scattered updates: one change of a chunk at several places, the same on every replica."""

import asyncio
import random
from pathlib import Path

from crc32c import crc32c

from fs_common.errors import Code
from fs_common.ids import chunk_id
from fs_common.records import scattered
from fs_common.records.storage import UpdateKind
from fs_storage.engine.interface import ChunkRead
from tests.storage.chain import CHUNK, ChainOfDaemons, chain_of
from tests.storage.refusals import refused
from tests.support import run

Places = list[tuple[int, bytes]]


def payload_of(places: Places) -> bytes:
    return scattered.pack([(offset, memoryview(data)) for offset, data in places])


async def scatter(chain: ChainOfDaemons, places: Places, *, sequence: int | None = None) -> tuple[int, int]:
    payload = payload_of(places)
    checksum = crc32c(payload).to_bytes(4, "little")
    return await chain.update(
        payload, kind=UpdateKind.SCATTER, offset=places[0][0], checksums=checksum, sequence=sequence
    )


def test_places_change_together_and_what_lies_between_stays(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            assert await scatter(chain, [(2, b"ab"), (6, b"c")]) == (1, 7)
            assert await chain.read_everywhere() == b"\0\0ab\0\0c"
            assert await chain.update(b"0123456789") == (2, 10)
            assert await scatter(chain, [(1, b"x"), (8, b"yz!")]) == (3, 11)
            assert await chain.read_everywhere() == b"0x234567yz!"
            assert await chain.update(kind=UpdateKind.REMOVE) == (4, 0)
            assert await scatter(chain, [(1, b"x"), (3, b"y")]) == (5, 4)
            assert await chain.read_everywhere() == b"\0x\0y"

    run(scenario())


def test_a_resend_is_recognised(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            await chain.update(b"0123456789")
            assert await scatter(chain, [(1, b"x"), (8, b"y")], sequence=50) == (2, 10)
            await chain.update(b"-", offset=1, channel=2)
            assert await scatter(chain, [(1, b"x"), (8, b"y")], sequence=50) == (2, 10)
            assert await chain.read_everywhere() == b"0-234567y9"

    run(scenario())


def test_bytes_that_wait_for_a_disk_and_updates_side_by_side(tmp_path: Path) -> None:
    """Each is put over what the one before it left, whoever sends it."""

    async def scenario(seed: int) -> None:
        rng = random.Random(seed)
        async with chain_of(tmp_path) as chain:
            await chain.update(bytes(CHUNK))
            chain.store(1, 0).uncached.add(chunk_id(7, 0))
            marks = {offset: rng.randbytes(3) for offset in rng.sample(range(0, CHUNK - 3, 4), 64)}
            offsets = list(marks)

            async def one(number: int) -> None:
                places = sorted((offset, marks[offset]) for offset in offsets[4 * number : 4 * number + 4])
                payload = payload_of(places)
                checksum = crc32c(payload).to_bytes(4, "little")
                await chain.update(
                    payload,
                    kind=UpdateKind.SCATTER,
                    offset=places[0][0],
                    checksums=checksum,
                    channel=10 + number,
                )

            await asyncio.gather(*map(one, range(16)))
            chain.store(1, 0).uncached.clear()
            expected = bytearray(CHUNK)
            for offset, data in marks.items():
                expected[offset : offset + 3] = data
            assert await chain.read_everywhere() == expected, f"seed {seed}"

    run(scenario(1))


def test_what_is_refused_leaves_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            await chain.update(b"0123456789")
            payload = payload_of([(1, b"x"), (8, b"y")])
            with refused(Code.CHECKSUM):
                await chain.update(payload, kind=UpdateKind.SCATTER, offset=1, checksums=b"\0\0\0\0")
            checksum = crc32c(payload[:-1]).to_bytes(4, "little")
            with refused(Code.INVALID):
                await chain.update(payload[:-1], kind=UpdateKind.SCATTER, offset=1, checksums=checksum)
            assert await chain.update(b"!", offset=9) == (2, 10)
            assert await chain.read_everywhere() == b"012345678!"

    run(scenario())


def test_damage_between_the_places_is_not_stored_as_if_it_were_right(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            await chain.update(b"0123456789")
            store = chain.store(1, 0)
            whole = store.read_blocking

            def damaged(
                chunk: bytes, offset: int, length: int, buffer: memoryview, *, pending: bool = False
            ) -> ChunkRead:
                read = whole(chunk, offset, length, buffer, pending=pending)
                buffer[0] ^= 1
                return read

            store.read_blocking = damaged  # type: ignore[method-assign]
            with refused(Code.DISK_FAILED):
                await scatter(chain, [(1, b"x"), (8, b"y")])
            store.read_blocking = whole  # type: ignore[method-assign]
            assert await chain.read_everywhere() == b"0123456789"
            assert await scatter(chain, [(1, b"x"), (8, b"y")]) == (2, 10)
            assert await chain.read_everywhere() == b"0x234567y9"

    run(scenario())


def test_without_memory_for_what_lies_between_it_is_refused_and_may_come_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            memory = chain.daemons[1]._memory
            limit, memory.limit_bytes = memory.limit_bytes, CHUNK // 2
            with refused(Code.BUSY):
                await scatter(chain, [(1, b"x"), (CHUNK - 2, b"y")], sequence=50)
            memory.limit_bytes = limit
            assert await scatter(chain, [(1, b"x"), (CHUNK - 2, b"y")], sequence=50) == (1, CHUNK - 1)

    run(scenario())
