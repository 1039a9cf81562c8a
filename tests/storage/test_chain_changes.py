"""Daemons whose chain changes: updates under way go on, a syncing replica is filled, and no reader sees a step back."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from fs_common.errors import Code, EmberError
from fs_common.ids import chunk_id
from fs_common.methods import COMMITTED_VERSIONS, SYNC_CHAINS
from fs_common.records.routing import LocalState
from fs_common.records.storage import CommittedVersions, SyncChains, UpdateKind
from fs_storage.engine.interface import ChunkStore, Prepared, Update
from fs_storage.engine.store import open_store
from tests.storage.chain import CHUNK, ChainOfDaemons, HeldStore, chain_of, eventually
from tests.storage.refusals import refused
from tests.support import run

FIRST = bytes(chunk_id(7, 0))


def store_of(chain: ChainOfDaemons, node: int) -> HeldStore:
    return chain.stores[node * 100 + 1]


def committed(chain: ChainOfDaemons, node: int, chunk: bytes = FIRST) -> tuple[int, bytes] | None:
    entry = store_of(chain, node)._chunks.get(chunk)
    if entry is None or entry.committed is None:
        return None
    return entry.committed.number, entry.committed.data


async def ready(chain: ChainOfDaemons, *nodes: int) -> None:
    await eventually(lambda: all(1 in chain.daemons[node].targets.by_chain for node in nodes))
    await eventually(lambda: all(chain.target_on(node).serves for node in nodes))


async def fill(chain: ChainOfDaemons, node: int, chunks: list[bytes]) -> list[Any]:
    """One round of the tail on `node`, for these chunks; the errors."""
    target = chain.target_on(node)
    await eventually(lambda: target.may_fill)
    done = await chain.daemons[node].updates.push(target, chunks, 10.0)
    return list(done.errors)


@pytest.mark.parametrize("gate", ["before_prepare", "before_commit"])
@pytest.mark.parametrize("gone", [2, 3])
def test_an_update_goes_on_without_who_is_gone(tmp_path: Path, gate: str, gone: int) -> None:
    """The one that is gone never answers: nobody waits for that."""

    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            await chain.update(b"first")
            held = getattr(store_of(chain, gone), gate)
            held.hold()
            sent = asyncio.create_task(chain.update(b"second"))
            await held.reached.wait()
            left = [node for node in (1, 2, 3) if node != gone]
            version = chain.change(left, down=[gone])
            assert await sent == (2, 6)
            await ready(chain, *left)
            for node in left:
                assert committed(chain, node) == (2, b"second")
            assert await chain.update(b"third!", chain_version=version) == (3, 6)
            held.release()

    run(scenario())


def test_frames_of_now_name_the_chain_version_of_now(tmp_path: Path) -> None:
    """An update that a head of before had sent goes on under the version that its successor knows."""

    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            await chain.update(b"first")
            gate = store_of(chain, 2).before_prepare
            gate.hold()
            sent = asyncio.create_task(chain.update(b"second"))
            await gate.reached.wait()
            chain.change([2, 3], down=[1])
            gate.release()
            await eventually(lambda: committed(chain, 2) == committed(chain, 3) == (2, b"second"))
            await asyncio.gather(sent, return_exceptions=True)

    run(scenario())


def test_memory_is_counted_at_the_position_of_now(tmp_path: Path) -> None:
    """Otherwise what waits for one position could hold what is needed there."""

    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            gate = store_of(chain, 3).before_prepare
            gate.hold()
            sent = asyncio.create_task(chain.update(b"x" * 1000))
            await gate.reached.wait()
            middle = chain.daemons[2]._memory._used_bytes
            tail = chain.daemons[3]._memory._used_bytes
            assert (middle.get(0, 0), middle[1], tail[2]) == (0, 1000, 1000)
            chain.change([2, 3], down=[1])
            assert (middle[0], middle[1], tail[1], tail[2]) == (1000, 0, 1000, 0)
            gate.release()
            await eventually(lambda: committed(chain, 3) == committed(chain, 2) != None)  # noqa: E711
            await asyncio.gather(sent, return_exceptions=True)

    run(scenario())


def test_a_pause_between_attempts_ends_with_the_chain_that_it_was_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            await chain.update(b"first")
            await chain.crash(2)
            sent = asyncio.create_task(chain.update(b"second"))
            target = chain.target_on(1)
            await eventually(lambda: target.replica.busy_chunks > 0)
            chain.change([1, 3], down=[2])
            assert await sent == (2, 6)

    run(scenario())


def test_a_retry_at_the_new_head_is_recognised(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            await chain.update(b"first")
            gate = store_of(chain, 2).before_commit
            gate.hold()
            item = chain.item(b"second", sequence=50)
            sent = asyncio.create_task(chain.send([item], [b"second"], timeout=20.0))
            await gate.reached.wait()  # the tail has committed it
            await chain.crash(1)
            gate.release()
            await asyncio.gather(sent, return_exceptions=True)
            version = chain.change([2, 3], down=[1])
            await ready(chain, 2, 3)
            again = chain.item(b"second", sequence=50, chain_version=version)
            reply = await chain.send([again], [b"second"], node=2)
            assert reply.versions == [2] and not reply.errors
            assert committed(chain, 2) == committed(chain, 3) == (2, b"second")

    run(scenario())


def test_a_new_tail_commits_what_the_old_one_had_before_it_answers(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            await chain.update(b"first")
            gate = store_of(chain, 2).before_commit
            gate.hold()
            sent = asyncio.create_task(chain.update(b"second"))
            await gate.reached.wait()
            await chain.crash(3)
            version = chain.change([1, 2], down=[3])
            target = chain.target_on(2)
            assert not target.ready
            with refused(Code.NOT_SERVING):
                await chain.read(place=1, chain_version=version)
            gate.release()
            await ready(chain, 1, 2)
            assert await chain.read(place=1, chain_version=version) == b"second"
            assert await sent == (2, 6)

    run(scenario())


def test_a_new_tail_waits_for_its_predecessor(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            await chain.update(b"first")
            version = chain.change([1, 2], down=[3], tell=[2])
            target = chain.target_on(2)
            assert not target.ready and not target.replica.owed
            with refused(Code.NOT_SERVING):
                await chain.read(place=1, chain_version=version)
            chain.tell([1])
            await ready(chain, 2)
            assert await chain.read(place=1, chain_version=version) == b"first"

    run(scenario())


def test_a_syncing_replica_answers_nobody(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path, nodes=4) as chain:
            await chain.update(b"first")
            version = chain.change([1, 2, 3], 4)
            await ready(chain, 1, 2, 3)
            await eventually(lambda: 1 in chain.daemons[4].targets.by_chain)
            with refused(Code.NOT_SERVING):
                await chain.read(place=3, chain_version=version)
            with refused(Code.NOT_SERVING):
                request = CommittedVersions(1, version, [FIRST])
                await chain.pool.call(chain.address(4), COMMITTED_VERSIONS, request, timeout=20.0)
            with refused(Code.NOT_SERVING):
                await chain.pool.call(chain.address(4), SYNC_CHAINS, SyncChains([1], [version]), timeout=20.0)
            reply = await chain.send([chain.item(b"second", chain_version=version)], [b"second"])
            assert [holder.target for holder in reply.holders] == [101, 201, 301]
            await eventually(lambda: chain.target_on(4).local_state is LocalState.UPTODATE)
            with refused(Code.NOT_SERVING):  # it is the manager who says that it serves
                await chain.read(place=3, chain_version=version)

    run(scenario())


def test_a_replica_is_filled_while_updates_flow_and_then_serves(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path, nodes=4) as chain:
            for index in range(6):
                await chain.update(b"old" * 1000, index=index)
            await chain.update(kind=UpdateKind.REMOVE, index=3)
            # What the newcomer has is of another history.
            mine = chain.stores[401] = HeldStore()
            stray = bytes(chunk_id(7, 77))
            for number, index in ((9, 0), (1, 1), (4, 3), (2, 77)):
                payload = memoryview(b"stray")
                update = Update(
                    bytes(chunk_id(7, index)), UpdateKind.REPLACE, 0, payload, b"", CHUNK, number, 1, 0, b"", 0, 0
                )
                update.checksums = chain.item(b"stray").checksums
                await mine.prepare([update])
                if index != 1:
                    await mine.commit([(update.chunk, number)])
            version = chain.change([1, 2, 3], 4)
            await ready(chain, 1, 2, 3)
            await eventually(lambda: 1 in chain.daemons[4].targets.by_chain)
            # Parts of chunks that are not here, or are others here: they come whole.
            for index in (0, 1, 5):
                await chain.update(b"NEW", index=index, offset=1000, chain_version=version)
            await chain.update(b"made", index=8, chain_version=version)
            assert committed(chain, 4, bytes(chunk_id(7, 5))) == committed(chain, 3, bytes(chunk_id(7, 5)))
            chunks = [bytes(chunk_id(7, index)) for index in range(9)] + [stray]
            assert not await fill(chain, 3, chunks)
            assert chain.target_on(3).pushed_chunks >= len(chunks)
            for chunk in chunks:
                assert committed(chain, 4, chunk) == committed(chain, 3, chunk)
            assert stray not in mine._chunks and not mine.pending()
            target = chain.target_on(4)
            await eventually(lambda: target.local_state is LocalState.UPTODATE)
            version = chain.change([1, 2, 3, 4])
            await ready(chain, 1, 2, 3, 4)
            assert await chain.read(place=3, index=5, offset=998, length=6, chain_version=version) == b"doNEWl"
            reply = await chain.send([chain.item(b"last", index=9, chain_version=version)], [b"last"])
            assert [holder.target for holder in reply.holders] == [101, 201, 301, 401]

    run(scenario())


@pytest.mark.parametrize("size", [1, 5000, 100_000, CHUNK - 1, CHUNK])
def test_chunks_of_a_real_store_are_pushed_as_they_are(tmp_path: Path, size: int) -> None:
    """Small and large, cached and not, with patches in the log: sent with the checksums of their pages."""

    async def scenario() -> None:
        async def make_store(target: int) -> ChunkStore:
            directory = tmp_path / str(target)
            directory.mkdir(exist_ok=True)
            return await open_store(directory, target=target)

        async with chain_of(tmp_path, 4, 3, make_store) as chain:
            data = bytearray(Random(size).randbytes(size))
            await chain.update(bytes(data))
            await chain.update(bytes(data), index=1)
            data[size // 2 : size // 2 + 1] = b"!"
            await chain.update(b"!", index=1, offset=size // 2)
            version = chain.change([1, 2, 3], 4)
            await ready(chain, 1, 2, 3)
            await eventually(lambda: 1 in chain.daemons[4].targets.by_chain)
            assert not await fill(chain, 3, [FIRST, bytes(chunk_id(7, 1))])
            await eventually(lambda: chain.target_on(4).local_state is LocalState.UPTODATE)
            version = chain.change([1, 2, 3, 4])
            await ready(chain, 4)
            assert await chain.read(place=3, index=1, chain_version=version) == bytes(data)
            there, here = (chain.target_on(node).store for node in (4, 3))
            assert there.digest(FIRST) == here.digest(FIRST)

    run(scenario())


def test_an_update_waits_for_a_syncing_replica_until_the_chain_goes_on_without_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path, nodes=4) as chain:
            await chain.update(b"first")
            chain.stores[401] = HeldStore(capacity_bytes=3)
            version = chain.change([1, 2, 3], 4)
            await ready(chain, 1, 2, 3)
            await eventually(lambda: 1 in chain.daemons[4].targets.by_chain)
            sent = asyncio.create_task(chain.update(b"second", chain_version=version))
            full = chain.target_on(4)
            await eventually(lambda: full.local_state is LocalState.OFFLINE)
            assert full.unfit is not None and "full" in full.unfit
            assert chain.daemons[4].targets.troubles()[401] == full.why_not()
            assert not sent.done() and committed(chain, 3) == (1, b"first")
            version = chain.change([1, 2, 3])
            assert await sent == (2, 6)
            await ready(chain, 1, 2, 3)
            assert await chain.read(place=2, chain_version=version) == b"second"

    run(scenario())


def test_a_part_that_a_syncing_store_cannot_make_comes_whole(tmp_path: Path) -> None:
    """Its bytes may be damaged, though it has the version."""

    class Damaged(HeldStore):
        async def prepare(self, updates: Sequence[Update]) -> list[Prepared | EmberError]:
            if updates[0].kind == UpdateKind.WRITE:
                return [EmberError(Code.CHECKSUM, "what it changes is damaged")]
            return await super().prepare(updates)

    async def scenario() -> None:
        async with chain_of(tmp_path, nodes=4) as chain:
            await chain.update(b"first")
            chain.stores[401] = Damaged()
            version = chain.change([1, 2, 3], 4)
            await ready(chain, 1, 2, 3)
            await eventually(lambda: 1 in chain.daemons[4].targets.by_chain)
            await eventually(lambda: chain.target_on(4).local_state is LocalState.UPTODATE)
            assert await chain.update(b"FI", chain_version=version) == (2, 5)
            assert committed(chain, 4) == (2, b"FIrst")

    run(scenario())


def test_a_push_ends_with_the_chain_version_that_it_was_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path, nodes=4) as chain:
            await chain.update(b"first")
            chain.stores[401] = store = HeldStore()
            chain.change([1, 2, 3], 4)
            await ready(chain, 1, 2, 3)
            store.before_prepare.hold()
            pushing = asyncio.create_task(fill(chain, 3, [FIRST]))
            await store.before_prepare.reached.wait()
            chain.change([1, 2, 3], down=[4])
            (error,) = await pushing
            assert error.code == Code.CHAIN_VERSION.value.number
            store.before_prepare.release()
            with refused(Code.CHAIN_VERSION):
                await chain.daemons[3].updates.push(chain.target_on(3), [FIRST], 1.0)

    run(scenario())


def test_a_target_that_is_off_the_chain_gives_nothing_away(tmp_path: Path) -> None:
    """What it had begun may be applied; nobody is told that it is stored."""

    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            await chain.update(b"first")
            gate = store_of(chain, 2).before_prepare
            gate.hold()
            sent = asyncio.create_task(chain.update(b"second"))
            await gate.reached.wait()
            chain.change([2, 3], tell=[1])
            with pytest.raises(EmberError) as raised:
                await sent
            assert raised.value.code is Code.CHAIN_BROKEN
            gate.release()
            chain.tell([2, 3])
            await ready(chain, 2, 3)

    run(scenario())
