"""Damaged bytes on the disks of running daemons: answered from another replica, and repaired by whoever has them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fs_common.errors import Code, EmberError
from fs_common.ids import chunk_id
from fs_common.methods import PULL_VERSION, SUSPECT_CHUNKS
from fs_common.records.scrubbing import SuspectChunk, SuspectChunks
from fs_common.records.storage import UpdateKind
from fs_storage.engine.interface import ChunkStore
from tests.storage.chain import TIMEOUT_S, ChainOfDaemons, chain_of, eventually
from tests.storage.engine.quick import open_quick_store
from tests.storage.refusals import refused
from tests.support import run

PAGE = 4096
DATA = bytes(range(251)) * 1000
NAME = bytes(chunk_id(7, 0))


@asynccontextmanager
async def engines(directory: Path, replicas: int = 3, **settings: object) -> AsyncIterator[ChainOfDaemons]:
    async def make_store(target: int) -> ChunkStore:
        return await open_quick_store(directory / f"target-{target}", capacity_bytes=1 << 30)

    async with chain_of(directory, nodes=replicas, replicas=replicas, make_store=make_store, **settings) as chain:
        yield chain


def flip(chain: ChainOfDaemons, place: int, offset: int) -> None:
    """A bit of chunk 0 of the replica at `place`, the only chunk of its target."""
    (file,) = (chain.directory / f"target-{chain.target(1, place).id}" / "blocks").glob("256k.0")
    with open(file, "r+b") as handle:
        handle.seek(offset)
        (old,) = handle.read(1)
        handle.seek(offset)
        handle.write(bytes((old ^ 0x40,)))


def damaged(chain: ChainOfDaemons, place: int) -> tuple[int, ...]:
    found = chain.target(1, place).store.check_stored(NAME)
    assert found is not None
    return found.bad_pages


async def suspect(chain: ChainOfDaemons, place: int) -> None:
    """As a client that was sent damaged bytes."""
    address = chain.address(chain.node(1, place))
    await chain.pool.call(address, SUSPECT_CHUNKS, SuspectChunks([SuspectChunk(1, 7, 0)]), timeout=TIMEOUT_S)


@pytest.mark.parametrize("place", range(3))
def test_a_read_that_meets_a_bad_page_has_it_repaired(tmp_path: Path, place: int) -> None:
    async def scenario() -> None:
        async with engines(tmp_path) as chain:
            await chain.update(DATA)
            flip(chain, place, 5 * PAGE + 1)
            with refused(Code.CHECKSUM):
                # Of a page that is read in part the daemon sees the damage itself.
                await chain.read(place=place, offset=5 * PAGE + 10, length=10)
            await eventually(lambda: damaged(chain, place) == ())
            assert await chain.read_everywhere(length=len(DATA)) == DATA
            await eventually(lambda: chain.daemons[chain.node(1, place)].service.counters["chunks_repaired"] == 1)

    run(scenario())


def test_a_client_that_was_sent_damage_has_it_repaired(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with engines(tmp_path) as chain:
            await chain.update(DATA)
            for page in (0, 7, 61):
                flip(chain, 1, page * PAGE)
            await suspect(chain, 1)
            await eventually(lambda: damaged(chain, 1) == ())
            assert await chain.read(place=1, length=len(DATA)) == DATA
            # A false alarm costs one look.
            await suspect(chain, 0)
            await eventually(lambda: not chain.daemons[1]._repairs._suspects[chain.target(1, 0).id])
            assert chain.daemons[1].service.counters["chunks_repaired"] == 0

    run(scenario())


def test_an_update_over_a_damaged_page_goes_through_when_it_is_repaired(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with engines(tmp_path) as chain:
            await chain.update(DATA)
            for place in (1, 2):
                flip(chain, place, 9 * PAGE)
            while True:
                try:
                    await chain.update(b"new", offset=9 * PAGE + 100)
                    break
                except EmberError as error:
                    assert error.code is Code.CHECKSUM, "what a client tries again"
            expected = DATA[: 9 * PAGE + 100] + b"new" + DATA[9 * PAGE + 103 :]
            assert await chain.read_everywhere(length=len(DATA)) == expected
            assert all(damaged(chain, place) == () for place in range(3))

    run(scenario())


def test_damage_at_the_source_is_repaired_as_well(tmp_path: Path) -> None:
    """Both other replicas have another page damaged: the first that is asked repairs itself, too."""

    async def scenario() -> None:
        async with engines(tmp_path) as chain:
            await chain.update(DATA)
            flip(chain, 0, 0)
            flip(chain, 1, PAGE)
            await suspect(chain, 1)
            await eventually(lambda: damaged(chain, 0) == () == damaged(chain, 1))
            assert await chain.read_everywhere(length=len(DATA)) == DATA

    run(scenario())


def test_what_no_replica_can_give_is_kept_in_mind_until_one_can(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with engines(tmp_path, replicas=2) as chain:
            await chain.update(DATA)
            await chain.crash(2)
            flip(chain, 0, 0)
            await suspect(chain, 0)
            repairs = chain.daemons[1]._repairs
            target = chain.target(1, 0).id
            await eventually(lambda: NAME in repairs.damaged(target))
            assert "page 0 does not match its checksum" in repairs.damaged(target)[NAME]
            assert "no other replica can give it (target 201: " in repairs.damaged(target)[NAME]
            assert chain.daemons[1]._stats()["chunks_damaged"] == 1
            with refused(Code.CHECKSUM):
                await chain.read(offset=10, length=10)
            await chain.restart(2)
            await eventually(lambda: damaged(chain, 0) == ())
            await eventually(lambda: not repairs.damaged(target))
            assert await chain.read(length=len(DATA)) == DATA

    run(scenario())


def test_a_chunk_that_changes_meanwhile_keeps_what_came_last(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with engines(tmp_path) as chain:
            await chain.update(DATA)
            for round_number in range(8):
                flip(chain, 2, 50 * PAGE)
                pool = chain.daemons[3]._repairs._peers
                call = pool.call

                async def once(address, method, request, call=call, number=round_number, pool=pool, **rest):  # type: ignore[no-untyped-def]
                    """The answer to the first question is of a moment ago."""
                    pool.call = call
                    reply = await call(address, method, request, **rest)
                    assert method is PULL_VERSION
                    await chain.update(b"%d" % number, offset=number)
                    return reply

                pool.call = once  # type: ignore[method-assign]
                await suspect(chain, 2)
                await eventually(lambda: damaged(chain, 2) == ())
            assert await chain.read_everywhere(length=len(DATA)) == b"01234567" + DATA[8:]

    run(scenario())


def test_a_chunk_that_is_gone_is_no_suspect(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with engines(tmp_path) as chain:
            await chain.update(DATA)
            await chain.update(kind=UpdateKind.REMOVE)
            await suspect(chain, 0)
            await eventually(lambda: not chain.daemons[1]._repairs._suspects[chain.target(1, 0).id])
            assert not chain.daemons[1]._repairs.damaged(chain.target(1, 0).id)

    run(scenario())


def test_too_many_suspects_are_refused_and_strange_ones_forgotten(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with engines(tmp_path) as chain:
            address = chain.address(1)
            for chunks in ([], [SuspectChunk(1, 7, 0)] * 5000):
                with refused(Code.INVALID):
                    await chain.pool.call(address, SUSPECT_CHUNKS, SuspectChunks(chunks), timeout=TIMEOUT_S)
            strange = [SuspectChunk(99, 7, 0), SuspectChunk(1, -1, 0), SuspectChunk(1, 7, 1 << 32)]
            await chain.pool.call(address, SUSPECT_CHUNKS, SuspectChunks(strange), timeout=TIMEOUT_S)
            assert not any(chain.daemons[1]._repairs._suspects.values())

    run(scenario())


def test_a_disk_that_does_not_take_the_repair_is_out_of_service(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with engines(tmp_path) as chain:
            await chain.update(DATA)
            flip(chain, 1, 0)
            target = chain.target(1, 1)

            def broken(*arguments: object) -> None:
                raise OSError(5, "Input/output error")

            target.store._disk.write = broken
            await suspect(chain, 1)
            await eventually(lambda: target.failed is not None)
            assert "disk failed" in target.failed
            assert await chain.read(place=0, length=len(DATA)) == DATA

    run(scenario())
