"""A syncing replica gets what it missed from the tail before it, whatever is written meanwhile and whoever dies."""

import asyncio
import os
import random
from pathlib import Path

import msgspec
import pytest

from fs_common.errors import Code, EmberError
from fs_common.ids import chunk_id
from fs_common.methods import LIST_HELD
from fs_common.records.mending import ListHeld
from fs_common.records.routing import LocalState, PublicState
from fs_common.records.storage import UpdateKind
from fs_storage import resync
from fs_storage.engine.interface import ChunkStore, Held
from tests.storage.chain import CHUNK, CLIENT, ChainOfDaemons, HeldStore, chain_of, eventually
from tests.storage.engine.quick import open_quick_store
from tests.storage.engine.updates import apply, prepared, remove, write
from tests.storage.moving import move
from tests.support import run

SERVING, SYNCING, OFFLINE = PublicState.SERVING, PublicState.SYNCING, PublicState.OFFLINE
BACK = {0: SERVING, 1: SERVING, 2: SYNCING}
ALL = {0: SERVING, 1: SERVING, 2: SERVING}
WITHOUT = {0: SERVING, 1: SERVING, 2: OFFLINE}


def lists(chain: ChainOfDaemons) -> list[list[Held]]:
    return [chain.store(1, place).held(b"", 10_000) for place in range(chain.replicas)]


def same(chain: ChainOfDaemons) -> bool:
    """All replicas have the same of each chunk, removals included."""
    first, *others = lists(chain)
    return all(other == first for other in others)


def place_of(chain: ChainOfDaemons, place: int) -> HeldStore:
    """By the order at the start; `store` follows that of the chain."""
    return chain.stores[chain.node(1, place) * 100 + 1]


async def leaves(chain: ChainOfDaemons) -> int:
    """The third replica is gone. The chain's version."""
    await chain.crash(3)
    return move(chain, WITHOUT)


async def is_back(chain: ChainOfDaemons) -> int:
    """It is there again, and syncing. The chain's version."""
    place_of(chain, 2).opening += 1
    await chain.restart(3)
    return move(chain, BACK)


async def up_to_date(chain: ChainOfDaemons) -> None:
    await eventually(lambda: 1 in chain.daemons[3].targets.by_chain)
    target = chain.daemons[3].targets.by_chain[1]
    await eventually(lambda: target.local_state is LocalState.UPTODATE)


def sent(chain: ChainOfDaemons, node: int = 2) -> int:
    return chain.daemons[node].service.counters["chunks_resynced"]


@pytest.mark.parametrize("page", [1, 3, 512])
@pytest.mark.parametrize("whole", [True, False])
def test_what_was_missed_is_sent_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: int, whole: bool
) -> None:
    monkeypatch.setattr(resync, "PAGE", page)

    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            for index in range(8):
                await chain.update(b"old %d" % index, index=index)
            version = await leaves(chain)
            await chain.update(b"changed", index=1, chain_version=version)
            await chain.update(kind=UpdateKind.REMOVE, index=2, chain_version=version)
            await chain.update(kind=UpdateKind.TRUNCATE, index=3, chain_version=version)
            await chain.update(b"new" * 1000, index=20, chain_version=version)
            # What nobody else has: another history, a version too many, a chunk, something pending.
            store = place_of(chain, 2)
            await apply(store, write(2, b"stray", chunk=chunk_id(7, 4), chunk_size=CHUNK))
            await apply(store, write(1, b"nowhere", chunk=chunk_id(7, 30)), remove(9, chunk=chunk_id(7, 31)))
            await prepared(store, write(2, b"pending", chunk=chunk_id(7, 5), chunk_size=CHUNK))
            await apply(store, write(2, b"2", chunk=chunk_id(7, 6), chunk_size=CHUNK))
            await apply(store, remove(3, chunk=chunk_id(7, 6), chunk_size=CHUNK))
            store.whole = whole
            version = await is_back(chain)
            await up_to_date(chain)
            assert same(chain) and store.whole
            assert sent(chain) == 9
            progress = chain.target(1, 1).sync
            assert progress.chunks_done == progress.chunks_total > 8, "what is gone here was compared, too"
            move(chain, ALL)
            await chain.serving()
            for index in (0, 1, 3, 4, 5, 6, 7, 20):
                await chain.update(b"later", index=index, chain_version=version + 1)
                assert (await chain.read_everywhere(index=index, chain_version=version + 1)).startswith(b"later")
            assert same(chain)

    run(scenario())


def test_nothing_is_sent_where_nothing_has_changed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            for index in range(20):
                await chain.update(b"old %d" % index, index=index)
            await chain.update(kind=UpdateKind.REMOVE, index=3)
            await leaves(chain)
            await is_back(chain)
            await up_to_date(chain)
            filling = chain.target(1, 1).sync
            assert filling is not None and filling[:5] == (301, 20, 20, 0, 0), "the removal was compared, too"
            assert place_of(chain, 2).prepares == 21, "nothing was prepared but the updates"
            move(chain, ALL)
            await eventually(lambda: chain.target(1, 1).sync is None)

    run(scenario())


@pytest.mark.parametrize("seed", range(3))
def test_replicas_are_equal_whatever_is_written_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(resync, "PAGE", 7)
    monkeypatch.setattr(resync, "BATCH_CHUNKS", 4)
    chunks = 40

    async def writer(chain: ChainOfDaemons, number: int, rounds: int) -> None:
        choose = random.Random(f"{seed} {number}")
        for turn in range(rounds):
            index = choose.randrange(number, chunks, 4)
            kind = choose.choices([UpdateKind.WRITE, UpdateKind.TRUNCATE, UpdateKind.REMOVE], [6, 1, 1])[0]
            data, offset = b"", 0
            if kind is UpdateKind.WRITE:
                data, offset = choose.randbytes(choose.choice([1, 5000, 70_000])), choose.choice([0, 0, 4096, 9000])
            elif kind is UpdateKind.TRUNCATE:
                offset = choose.randrange(9000)
            item = chain.item(data, index=index, kind=kind, offset=offset, channel=number + 1)
            while True:
                # As a client: the same update again, at the chain version of now.
                assert chain.routing is not None
                item = msgspec.structs.replace(item, chain_version=chain.routing.chains[0].version)
                reply = await chain.send([item], [data])
                if not reply.errors:
                    break
            if turn == rounds // 2:
                halfway.release()

    halfway = asyncio.Semaphore(0)

    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            await asyncio.gather(*(writer(chain, number, 15) for number in range(4)))
            await leaves(chain)
            await asyncio.gather(*(writer(chain, number, 15) for number in range(4)))
            while not halfway.locked():
                await halfway.acquire()
            busy = [asyncio.ensure_future(writer(chain, number, 60)) for number in range(4)]
            await halfway.acquire()
            await is_back(chain)
            await up_to_date(chain)
            move(chain, ALL)
            await asyncio.gather(*busy)
            await chain.serving()
            assert same(chain)
            assert chain.daemons[1].service.counters["chunks_differed"] == 0
            assert chain.daemons[2].service.counters["chunks_differed"] == 0

    run(scenario())


def test_another_tail_goes_on_when_the_first_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resync, "BATCH_CHUNKS", 1)

    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            await leaves(chain)
            for index in range(6):
                await chain.update(b"new %d" % index, index=index, chain_version=2)
            store = place_of(chain, 2)
            store.before_commit.hold()
            await is_back(chain)
            await store.before_commit.reached.wait()
            await chain.crash(2)
            move(chain, {0: SERVING, 1: OFFLINE, 2: SYNCING})
            store.before_commit.release()
            await up_to_date(chain)
            assert same(chain) and chain.daemons[3].targets.by_chain[1].synced_version == 4

    run(scenario())


def test_a_replica_that_is_started_anew_is_compared_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resync, "BATCH_CHUNKS", 1)

    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            await leaves(chain)
            for index in range(6):
                await chain.update(b"new %d" % index, index=index, chain_version=2)
            store = place_of(chain, 2)
            store.before_commit.hold()
            version = await is_back(chain)
            await store.before_commit.reached.wait()
            await chain.crash(3)
            # It lost what was in memory.
            store._chunks.clear()
            store.whole = False
            store.opening += 1
            await chain.restart(3)
            await up_to_date(chain)
            assert same(chain) and store.whole
            assert chain.daemons[3].targets.by_chain[1].synced_version == version

    run(scenario())


def test_what_was_compared_counts_for_one_opening(tmp_path: Path) -> None:
    """The store was opened anew, with less in it, after the last push and before the end."""

    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            await leaves(chain)
            for index in range(3):
                await chain.update(b"new %d" % index, index=index, chain_version=2)
            store = place_of(chain, 2)
            store.before_sync.hold()
            await is_back(chain)
            await store.before_sync.reached.wait()
            del store._chunks[chunk_id(7, 1)]
            store.opening += 1
            store.before_sync.release()
            await up_to_date(chain)
            assert same(chain) and sent(chain) == 4
            assert chain.daemons[2].service.counters["resync_rounds_interrupted"] >= 1

    run(scenario())


def test_a_full_replica_says_so_and_the_chain_goes_on_without_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            await leaves(chain)
            await chain.update(b"x" * 50_000, chain_version=2)
            place_of(chain, 2)._capacity_bytes = 1000
            version = await is_back(chain)
            await eventually(lambda: 1 in chain.daemons[3].targets.by_chain)
            target = chain.daemons[3].targets.by_chain[1]
            await eventually(lambda: target.local_state is LocalState.OFFLINE)
            writing = asyncio.ensure_future(chain.update(b"y" * 50_000, index=1, chain_version=version))
            await eventually(lambda: chain.target(1, 0).in_flight > 0)
            move(chain, WITHOUT)
            assert await writing == (1, 50_000), "it is not failed, it waits for the chain to change"
            assert await chain.read(place=0, index=1, chain_version=version + 1) == b"y" * 50_000

    run(scenario())


def test_a_retry_after_a_failover_is_applied_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            await chain.update(b"first", client=CLIENT, channel=3, sequence=1)
            await leaves(chain)
            again = {"client": CLIENT, "channel": 3, "sequence": 2, "offset": 5}
            assert await chain.update(b" second", chain_version=2, **again) == (2, 12)
            version = await is_back(chain)
            await up_to_date(chain)
            meanwhile = {"client": CLIENT, "channel": 4, "sequence": 9, "index": 1}
            assert await chain.update(b"flows", chain_version=version, **meanwhile) == (1, 5)
            move(chain, ALL)
            await chain.serving()
            for node in (1, 2):
                await chain.crash(node)
            version = move(chain, {0: OFFLINE, 1: OFFLINE, 2: SERVING})
            await eventually(lambda: chain.daemons[3].targets.by_chain[1].serves)
            item = chain.item(b" second", chain_version=version, **{k: v for k, v in again.items() if k != "client"})
            reply = await chain.send([item], [b" second"], node=3)
            assert not reply.errors and (reply.versions, reply.lengths) == ([2], [12])
            item = chain.item(b"flows", chain_version=version, channel=4, sequence=9, index=1)
            reply = await chain.send([item], [b"flows"], node=3)
            assert not reply.errors and reply.versions == [1]
            assert place_of(chain, 2).state(chunk_id(7, 0)).version == 2  # type: ignore[union-attr]

    run(scenario())


def test_what_an_older_chain_version_began_ends_before_the_list_is_read(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            await chain.update(b"first")
            store = place_of(chain, 2)
            store.before_prepare.hold()
            writing = asyncio.ensure_future(chain.update(b"second"))
            await store.before_prepare.reached.wait()
            # The head and the middle drop it, and it is back, while its prepare hangs in the old version.
            move(chain, WITHOUT)
            assert (await writing)[0] == 2
            await chain.update(b"third", chain_version=2)
            move(chain, BACK)
            target = chain.target(1, 2)
            assert target.replica.busy_chunks == 1
            store.before_prepare.release()
            await up_to_date(chain)
            assert same(chain)
            assert chain.daemons[2].service.counters["chunks_differed"] == 0

    run(scenario())


def test_a_list_is_for_the_predecessor_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            version = move(chain, BACK)
            reply = await chain.pool.call(chain.address(3), LIST_HELD, ListHeld(1, version, b"", 10, 201), timeout=10)
            assert reply.opening == place_of(chain, 2).opening
            with pytest.raises(EmberError) as error:
                await chain.pool.call(chain.address(3), LIST_HELD, ListHeld(1, version, b"", 10, 101), timeout=10)
            assert error.value.code is Code.NOT_SERVING

    run(scenario())


def test_stores_on_disks_are_filled_up(tmp_path: Path) -> None:
    """Whole chunks from block files, small ones together in a frame, and empty ones."""

    async def make_store(target: int) -> ChunkStore:
        return await open_quick_store(tmp_path / str(target))

    async def scenario() -> None:
        async with chain_of(tmp_path, make_store=make_store) as chain:
            await leaves(chain)
            contents = {0: CHUNK, 1: CHUNK - 5, 2: 200_000, 3: 70_000, 4: 1, **dict.fromkeys(range(5, 90), 3000)}
            for index, length in contents.items():
                await chain.update(os.urandom(length), index=index, chain_version=2)
            await chain.update(kind=UpdateKind.TRUNCATE, index=100, chain_version=2)
            await chain.update(b"x" * 9000, index=3, offset=10_000, chain_version=2)
            await chain.restart(3)
            version = move(chain, BACK)
            await up_to_date(chain)
            stores = [chain.target(1, place).store for place in range(3)]
            assert stores[0].held(b"", 1000) == stores[1].held(b"", 1000) == stores[2].held(b"", 1000)
            assert sent(chain) == len(contents) + 1
            move(chain, ALL)
            await chain.serving()
            for index, length in contents.items():
                assert len(await chain.read_everywhere(index=index, chain_version=version + 1)) == length

    run(scenario())


def test_a_chunk_that_is_damaged_at_the_tail_is_looked_at(tmp_path: Path) -> None:
    """It is not sent on; another replica has it whole."""

    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            await leaves(chain)
            await chain.update(b"good bytes", chain_version=2)
            suspected: list[bytes] = []
            chain.daemons[2].targets.suspect = lambda target, chunk: suspected.append(chunk)
            version = place_of(chain, 1)._chunks[chunk_id(7, 0)].committed
            assert version is not None
            good = place_of(chain, 1).checksums
            place_of(chain, 1).checksums = lambda chunk: bytes(4)  # type: ignore[method-assign]
            await is_back(chain)
            await eventually(lambda: bool(suspected))
            assert suspected[0] == chunk_id(7, 0)
            place_of(chain, 1).checksums = good  # type: ignore[method-assign]
            await up_to_date(chain)
            assert same(chain)

    run(scenario())


def test_a_list_tells_whether_its_daemon_serves_clients(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            version = move(chain, BACK)

            async def serving() -> bool:
                question = ListHeld(1, version, b"", 10, 201)
                reply = await chain.pool.call(chain.address(3), LIST_HELD, question, timeout=10)
                return bool(reply.serving)

            await serving()
            await chain.update(b"of another chain", chain=3)
            assert await serving()
            await chain.update(b"comes as the syncing one", chain_version=version)
            while await serving():
                await asyncio.sleep(0.01)
            await chain.update(b"comes as the syncing one, too", chain_version=version)
            assert not await serving(), "what fills it up is no client"

    run(scenario())
