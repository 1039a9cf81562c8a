"""FINISH_SYNC: what a syncing replica does when it has been sent every chunk that differed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fs_common.errors import Code, EmberError
from fs_common.ids import chunk_id
from fs_common.methods import FINISH_SYNC
from fs_common.records.resync import FinishSync
from fs_common.records.routing import PublicState
from fs_storage import finishing
from fs_storage.engine.interface import Answer, Remembered
from tests.storage.chain import ChainOfDaemons, HeldStore, chain_of
from tests.storage.moving import move
from tests.storage.refusals import refused
from tests.support import run

A, B = b"client-A........", b"client-B........"


@asynccontextmanager
async def syncing_pair(directory: Path) -> AsyncIterator[ChainOfDaemons]:
    """Chain 1: place 0 serves, place 1 is syncing and has everything."""
    async with chain_of(directory, nodes=2, replicas=2) as chain:
        await chain.update(b"one", index=0, client=A, channel=1, sequence=5)
        await chain.update(b"two", index=1, client=A, channel=2, sequence=6)
        await chain.daemons[1]._resync.close()  # the end of filling up is what is said here, and nothing else
        assert move(chain, {0: PublicState.SERVING, 1: PublicState.SYNCING}) == 2
        yield chain


async def finish(daemons: ChainOfDaemons, /, **changes: int) -> None:
    store = daemons.store(1, 1)
    fields: dict[str, Any] = {
        "chain": 1,
        "chain_version": 2,
        "source": 101,
        "opening": store.opening,
        "floor": 40,
        **changes,
    }
    await daemons.pool.call(daemons.address(2), FINISH_SYNC, FinishSync(**fields), timeout=10)


@pytest.mark.parametrize("page", [1, 2, 512])
def test_answers_floor_and_store_are_as_the_predecessor_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr(finishing, "PAGE", page)

    async def scenario() -> None:
        async with syncing_pair(tmp_path) as chain:
            mine, theirs = chain.store(1, 0), chain.store(1, 1)
            chunk = chunk_id(7, 0)
            new = Remembered(B, 1, 9, chunk, 1, 3)
            mine.adopt([new, new._replace(channel=2), new._replace(channel=3, chunk=chunk_id(7, 1))], 0)
            # What was never on the chain: a channel of its own, a later update, and another one under the same number.
            theirs.adopt([new._replace(channel=7), new._replace(channel=2, sequence=10), new._replace(channel=3)], 0)
            theirs.whole = False
            syncs, incarnation = theirs.syncs, theirs.incarnation
            await finish(chain)
            assert theirs.incarnation == incarnation + 1
            assert theirs.whole and theirs.floor == 40 and theirs.syncs == syncs + 1
            assert chain.target(1, 1).synced_version == 2
            assert theirs.answer(A, 1) == Answer(5, chunk, 1, 3, True)
            assert theirs.answer(A, 2) == Answer(6, chunk_id(7, 1), 1, 3, True)
            assert theirs.answer(B, 1) == Answer(9, chunk, 1, 3, True)
            assert theirs.answer(B, 2) == Answer(10, chunk, 0, 0, False)
            assert theirs.answer(B, 3) == Answer(9, chunk_id(7, 1), 1, 3, True)
            assert theirs.answer(B, 7) == Answer(9, chunk, 0, 0, False)
            # Said again, it is done already.
            await finish(chain)
            assert theirs.syncs == syncs + 1 and theirs.incarnation == incarnation + 1

    run(scenario())


def test_what_was_filled_up_is_no_witness_of_what_it_had_before(tmp_path: Path) -> None:
    """It was whole all the time, but its chain may have lost what it alone had kept."""

    async def scenario() -> None:
        async with syncing_pair(tmp_path) as chain:
            store = chain.store(1, 1)
            assert store.whole
            incarnation = store.incarnation
            await finish(chain)
            assert store.whole and store.incarnation == incarnation + 1

    run(scenario())


def test_it_is_for_one_place_one_version_and_one_opening(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with syncing_pair(tmp_path) as chain:
            for code, wrong in (
                (Code.CHAIN_VERSION, {"chain_version": 1}),
                (Code.CHAIN_VERSION, {"chain_version": 3}),
                (Code.CHAIN_VERSION, {"source": 201}),
                (Code.UPDATE_MISSING, {"opening": 7}),
                (Code.CHAIN_UNKNOWN, {"chain": 9}),
            ):
                with refused(code):
                    await finish(chain, **wrong)
            assert chain.target(1, 1).synced_version == 0
            move(chain, {0: PublicState.SERVING, 1: PublicState.SERVING})
            with refused(Code.CHAIN_VERSION):
                await finish(chain, chain_version=3)

    run(scenario())


def test_a_chain_that_changes_meanwhile_has_not_got_a_new_member(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with syncing_pair(tmp_path) as chain:
            store = chain.store(1, 1)
            store.before_sync.hold()
            first, second = asyncio.ensure_future(finish(chain)), asyncio.ensure_future(finish(chain))
            await store.before_sync.reached.wait()
            move(chain, {0: PublicState.SERVING, 1: PublicState.SYNCING})
            store.before_sync.release()
            for attempt in (first, second):
                with refused(Code.CHAIN_VERSION):
                    await attempt
            assert chain.target(1, 1).synced_version == 0
            await finish(chain, chain_version=3)
            assert chain.target(1, 1).synced_version == 3

    run(scenario())


def test_whoever_asks_again_waits_for_the_same_sync(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with syncing_pair(tmp_path) as chain:
            store = chain.store(1, 1)
            store.before_sync.hold()
            attempts = [asyncio.ensure_future(finish(chain, floor=floor)) for floor in (40, 41)]
            await store.before_sync.reached.wait()
            attempts[0].cancel()
            store.before_sync.release()
            await attempts[1]
            assert store.syncs == 1

    run(scenario())


def test_a_disk_that_fails_ends_the_target(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with syncing_pair(tmp_path) as chain:
            store: HeldStore = chain.store(1, 1)
            store.sync_failure = EmberError(Code.DISK_FAILED, "the disk failed")
            store.whole = False
            with refused(Code.DISK_FAILED):
                await finish(chain)
            target = chain.target(1, 1)
            assert target.failed is not None and target.synced_version == 0 and not store.whole
            with refused(Code.NOT_SERVING):
                await finish(chain)

    run(scenario())
