"""Replicas that all may have lost what was in memory get it back from each other, and nobody notices but by waiting."""

import asyncio
import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from fs_common.errors import Code
from fs_common.ids import chunk_id
from fs_common.records.storage import UpdateKind
from fs_storage import mending
from fs_storage.craq.apportion import Told
from fs_storage.engine import mark
from fs_storage.engine.store import EngineStore
from fs_storage.holdings import Holdings
from fs_storage.target import Target
from tests.storage.chain import CHUNK, ChainOfDaemons, HeldStore, chain_of, eventually
from tests.storage.engine.quick import open_quick_store
from tests.storage.refusals import refused
from tests.support import run

KEPT, CHANGED, GONE, EMPTY, NEW = range(5)


def copy_of(store: HeldStore) -> HeldStore:
    """As it is now, to come back to."""
    copy = HeldStore()
    copy._chunks = {chunk: type(entry)(entry.committed, entry.pending) for chunk, entry in store._chunks.items()}
    copy._answers = dict(store._answers)
    copy.floor = store.floor
    copy.identity = store.identity
    return copy


def not_whole(store: HeldStore) -> None:
    store.whole = False
    store.incarnation += 1


async def cut_power(
    chain: ChainOfDaemons, lost: Sequence[int], copies: dict[int, HeldStore], *, of: Sequence[int] = (1, 2, 3)
) -> None:
    """The machines of nodes `of` lose their power; those of `lost` come back with what they had when `copies` were
    made, the others with everything, and do not know that."""
    for node in of:
        await chain.crash(node)
    for target, copy in copies.items():
        if target // 100 in lost:
            chain.stores[target] = copy
        if target // 100 in of:
            not_whole(chain.stores[target])


async def first_life(chain: ChainOfDaemons) -> None:
    for index in (KEPT, CHANGED, GONE, EMPTY):
        await chain.update(b"old %d" % index, index=index)


async def second_life(chain: ChainOfDaemons) -> None:
    await chain.update(b"changed", index=CHANGED)
    await chain.update(b"new" * 1000, index=NEW, client=b"another client!!", sequence=77)
    await chain.update(kind=UpdateKind.REMOVE, index=GONE)
    await chain.update(kind=UpdateKind.TRUNCATE, index=EMPTY)


async def is_gone(chain: ChainOfDaemons) -> None:
    for place in range(3):
        with refused(Code.CHUNK_NOT_FOUND):
            await chain.read(index=GONE, place=place)


async def everything_is_there(chain: ChainOfDaemons) -> None:
    assert await chain.read_everywhere(index=KEPT) == b"old 0"
    assert await chain.read_everywhere(index=CHANGED) == b"changed"
    assert await chain.read_everywhere(index=NEW) == b"new" * 1000
    assert await chain.read_everywhere(index=EMPTY) == b""
    await is_gone(chain)
    stores = [chain.store(1, place) for place in range(3)]
    for index in (KEPT, CHANGED, NEW, EMPTY):
        assert len({store.digest(chunk_id(7, index)) for store in stores}) == 1


@pytest.mark.parametrize(("lost", "page"), [((0,), 512), ((1,), 1), ((2,), 2), ((0, 1), 3), ((1, 2), 4), ((0, 2), 5)])
def test_what_some_have_lost_the_others_give_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: tuple[int, ...], page: int
) -> None:
    monkeypatch.setattr(mending, "PAGE", page)

    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            await first_life(chain)
            nodes = [chain.node(1, place) for place in lost]
            copies = {target: copy_of(store) for target, store in chain.stores.items()}
            await second_life(chain)
            await cut_power(chain, nodes, copies)
            for node in (1, 2, 3):
                await chain.restart(node)
            await chain.healed()
            await everything_is_there(chain)
            # A retry is known, whoever is asked; and what follows goes everywhere.
            data = b"new" * 1000
            assert await chain.update(data, index=NEW, client=b"another client!!", sequence=77) == (1, 3000)
            for index in (KEPT, CHANGED, NEW, GONE, EMPTY):
                await chain.update(b"later", index=index)
                assert (await chain.read_everywhere(index=index)).startswith(b"later")
            # The first of each chain that is whole fills up the others, unless they were as fast.
            counters = [daemon.service.counters for daemon in chain.daemons.values()]
            assert sum(one["targets_mended"] for one in counters) >= 3

    run(scenario())


def test_what_all_have_lost_in_part_is_put_together(tmp_path: Path) -> None:
    """Each replica kept another chunk of what was in memory when the power went."""

    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            await first_life(chain)
            copies = {target: copy_of(store) for target, store in chain.stores.items()}
            await second_life(chain)
            now = dict(chain.stores)
            await cut_power(chain, (1, 2, 3), copies)
            for place, index in enumerate((CHANGED, NEW, GONE)):
                target = chain.node(1, place) * 100 + 1
                chain.stores[target]._chunks[chunk_id(7, index)] = now[target]._chunks[chunk_id(7, index)]
            for node in (1, 2, 3):
                await chain.restart(node)
            await chain.healed()
            assert await chain.read_everywhere(index=CHANGED) == b"changed"
            assert await chain.read_everywhere(index=NEW) == b"new" * 1000
            assert await chain.read_everywhere(index=EMPTY) == b"old 3", "nobody has what came later"
            await is_gone(chain)

    run(scenario())


def test_it_serves_nothing_before_all_others_are_heard(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            await first_life(chain)
            copies = {target: copy_of(store) for target, store in chain.stores.items()}
            await second_life(chain)
            await cut_power(chain, [1], copies)
            for node in (1, 2):
                await chain.restart(node)
            await eventually(lambda: 1 in chain.daemons[1].targets.by_chain and bool(chain.target(1, 0).mending))
            assert "node 3" in chain.target(1, 0).why_not()
            with refused(Code.NOT_SERVING):
                await chain.read(index=CHANGED)
            with refused(Code.NOT_SERVING):
                await chain.update(b"x", index=CHANGED, timeout=1)
            await chain.restart(3)
            await chain.healed()
            await everything_is_there(chain)

    run(scenario())


def test_it_does_not_mend_beside_one_that_has_lost_nothing(tmp_path: Path) -> None:
    """That one may have pending what this one has lost, and had been acknowledged: the chain goes on with that one."""

    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            await chain.update(b"old")
            copies = {target: copy_of(store) for target, store in chain.stores.items()}
            await chain.update(b"new!", sequence=9)
            head = chain.stores[101]
            await cut_power(chain, (2, 3), copies, of=(2, 3))
            await chain.crash(1)
            # The tail had acknowledged it; the head has not written that it is committed.
            entry = head._chunks[chunk_id(7, 0)]
            entry.committed, entry.pending = copies[101]._chunks[chunk_id(7, 0)].committed, entry.committed
            for node in (1, 2, 3):
                await chain.restart(node)
            await eventually(lambda: all("is whole" in why_not(chain, node) for node in (2, 3)))
            assert "filled up" in why_not(chain, 3) and "target 101 on node 1" in why_not(chain, 3)
            with refused(Code.NOT_SERVING):
                await chain.read(place=2)
            assert not chain.stores[201].whole and not chain.stores[301].whole
            await chain.healed()
            assert chain.version(1) > 1
            assert await chain.read_everywhere() == b"new!"
            assert await chain.update(b"new!", sequence=9) == (2, 4)

    run(scenario())


def why_not(chain: ChainOfDaemons, node: int) -> str:
    target = chain.daemons[node].targets.by_chain.get(1)
    return target.why_not() if target is not None else ""


def test_what_is_pending_behind_it_is_pending_at_it(tmp_path: Path) -> None:
    """A head that came back without an update that its successors have must not give its number away."""

    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            await chain.update(b"old")
            copies = {target: copy_of(store) for target, store in chain.stores.items()}
            tail = chain.store(1, 2)
            tail.before_prepare.hold()
            update = asyncio.create_task(chain.update(b"new!", sequence=9))
            await tail.before_prepare.reached.wait()
            await cut_power(chain, [1], copies)
            await asyncio.gather(update, return_exceptions=True)
            tail.before_prepare.hold()
            for node in (1, 2, 3):
                await chain.restart(node)
            await eventually(lambda: 1 in chain.daemons[1].targets.by_chain and chain.target(1, 0).store.whole)
            assert chain.store(1, 0).pending() == [chunk_id(7, 0)]
            tail.before_prepare.release()
            await chain.healed()
            assert await chain.update(b"new!", sequence=9) == (2, 4)
            assert await chain.read_everywhere() == b"new!"

    run(scenario())


def test_what_it_had_answered_is_committed_before_it_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tail answers, and loses what it answered before its predecessor has committed that. The predecessor is to be
    filled up again, as it was found to differ, and works on what it began before."""

    async def scenario() -> None:
        async with chain_of(tmp_path, nodes=2, replicas=2) as chain:
            await chain.update(b"old")
            head, tail = chain.node(1, 0), chain.node(1, 1)
            copies = {target: copy_of(store) for target, store in chain.stores.items()}
            before_commit = chain.store(1, 0).before_commit
            before_commit.hold()
            update = asyncio.create_task(chain.update(b"new"))
            await before_commit.reached.wait()
            not_whole(chain.store(1, 0))
            await cut_power(chain, [tail], copies, of=[tail])
            asked = asyncio.Event()
            target_of = Holdings._target

            def noted(self: Holdings, *request: int) -> Target:
                found = target_of(self, *request)
                if found.id // 100 == head and request[0] == 1:
                    asked.set()
                return found

            monkeypatch.setattr(Holdings, "_target", noted)
            await chain.restart(tail)
            await asked.wait()
            before_commit.release()
            await update
            await chain.healed()
            assert await chain.read_everywhere() == b"new"
            await chain.update(b"later")
            assert await chain.read_everywhere() == b"later"

    run(scenario())


def test_what_the_tail_has_said_does_not_wait_for_a_chunk_that_is_held(tmp_path: Path) -> None:
    """It may have lost by then what it has said."""

    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            await chain.update(b"old")
            tail = chain.store(1, 2)
            tail.before_prepare.hold()
            update = asyncio.create_task(chain.update(b"new"))
            await tail.before_prepare.reached.wait()
            head = chain.target(1, 0)
            chunk = chunk_id(7, 0)
            word = Told(2, head.store.digest(chunk, pending=True))
            assert head.replica.holds(chunk)
            await chain.daemons[chain.node(1, 0)].updates.confirm(head, [(chunk, word.digest, word)], 20.0)
            assert head.store.pending() == [chunk]
            tail.before_prepare.release()
            await update
            assert await chain.read_everywhere() == b"new"

    run(scenario())


def test_bytes_that_are_damaged_are_not_taken(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            await first_life(chain)
            copies = {target: copy_of(store) for target, store in chain.stores.items()}
            await second_life(chain)
            chunk = chunk_id(7, NEW)
            digest = chain.store(1, 1).digest(chunk)
            await cut_power(chain, [1], copies)
            damaged = [chain.store(1, place) for place in (1, 2)]
            for store in damaged:
                version = store._chunks[chunk].committed
                assert version is not None
                version.data = version.data[:-1] + b"?"
                store.digest = lambda one, *, pending=False, store=store: (  # type: ignore[method-assign, misc]
                    digest if one == chunk else type(store).digest(store, one, pending=pending)
                )
            for node in (1, 2, 3):
                await chain.restart(node)
            await eventually(
                lambda: 1 in chain.daemons[1].targets.by_chain and "became another one" in chain.target(1, 0).mending
            )
            assert not chain.target(1, 0).serves and chain.store(1, 0).state(chunk) is None
            for store in damaged:
                version = store._chunks[chunk].committed
                assert version is not None
                version.data = version.data[:-1] + b"w"
            await chain.healed()
            await everything_is_there(chain)

    run(scenario())


def test_versions_of_which_nobody_knows_the_right_one_are_reported(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path, nodes=2, replicas=2) as chain:
            await chain.update(b"first")
            for node in (1, 2):
                await chain.crash(node)
            for store in chain.stores.values():
                store.whole = False
            version = chain.stores[101]._chunks[chunk_id(7, 0)].committed
            assert version is not None
            version.data = b"other"
            for store in chain.stores.values():
                store.before_sync.hold()  # each has compared when the first is whole, and waits for that one no more
            for node in (1, 2):
                await chain.restart(node)
            for store in chain.stores.values():
                await store.before_sync.reached.wait()
            for store in chain.stores.values():
                store.before_sync.release()
            await eventually(lambda: all(store.whole for store in chain.stores.values()))
            assert chunk_id(7, 0) in chain.target(1, 0).conflicts
            assert chain.daemons[1].service.counters["chunks_differed"] == 1
            with refused(Code.NOT_SERVING):
                await chain.read(place=0)
            with refused(Code.CHAIN_BROKEN):
                await chain.update(b"x", timeout=0.3)
            await chain.update(b"y" * CHUNK, index=1)

    run(scenario())


def of_another_boot(directory: Path) -> None:
    """The machine was started again since this store was written."""
    path = directory / mark.NAME
    found = mark.decode(path.read_bytes(), path)
    path.write_bytes(mark.encode(dataclasses.replace(found, boot=b"another boot....", clean=False)))


@pytest.mark.parametrize("lost", [(1,), (1, 3), (1, 2)])
def test_engines_that_lost_the_end_of_their_logs_are_made_whole(tmp_path: Path, lost: tuple[int, ...]) -> None:
    async def make(target: int) -> EngineStore:
        return await open_quick_store(tmp_path / str(target), checkpoint_interval_s=1e9)

    async def scenario() -> None:
        async with chain_of(tmp_path / "daemons", make_store=make) as chain:
            for index in range(30):
                await chain.update(b"old %d" % index, index=index)
            for node in (1, 2, 3):
                shutil.copytree(tmp_path / f"{node}01", tmp_path / f"{node}01.copy")
            for index in range(0, 30, 3):
                await chain.update(b"new %d" % index, index=index)
                await chain.update(kind=UpdateKind.REMOVE, index=index + 1)
                await chain.update(b"made %d" % index, index=index + 100)
            await chain.update(b"x" * CHUNK, index=500, client=b"another client!!", sequence=77)
            for node in (1, 2, 3):
                await chain.crash(node)
                if node in lost:
                    shutil.rmtree(tmp_path / f"{node}01")
                    shutil.copytree(tmp_path / f"{node}01.copy", tmp_path / f"{node}01")
                of_another_boot(tmp_path / f"{node}01")
            for node in (1, 2, 3):
                await chain.restart(node)
            await chain.healed()
            for index in range(0, 30, 3):
                assert await chain.read_everywhere(index=index) == b"new %d" % index
                assert await chain.read_everywhere(index=index + 2) == b"old %d" % (index + 2)
                assert await chain.read_everywhere(index=index + 100) == b"made %d" % index
                for place in range(3):
                    with refused(Code.CHUNK_NOT_FOUND):
                        await chain.read(index=index + 1, place=place)
            assert await chain.read_everywhere(index=500) == b"x" * CHUNK
            again = await chain.update(b"x" * CHUNK, index=500, client=b"another client!!", sequence=77)
            assert again == (1, CHUNK)
            # It is durable, and the next start finds nothing to do.
            for node in lost:
                incarnation = chain.target(1, node - 1).store.incarnation
                await chain.crash(node)
                await chain.restart(node)
                await chain.healed()
                store = chain.target(1, node - 1).store
                assert (store.incarnation, store.whole) == (incarnation, True)
                assert not chain.daemons[node].service.counters["chunks_mended"]
            await chain.update(b"later", index=1)
            assert await chain.read_everywhere(index=1) == b"later"

    run(scenario())
