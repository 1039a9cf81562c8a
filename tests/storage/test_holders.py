"""Whom the answers to updates and syncs name as those that have what was stored."""

import asyncio
from pathlib import Path

import pytest

from fs_client.file_ref import FileRef
from fs_client.routing_cache import RoutingCache
from fs_client.storage_client import StorageClient
from fs_client.sync_chains import sync_file
from fs_client.write_path import Writer
from fs_common.errors import Code
from fs_common.layout import Durability, Layout
from fs_common.methods import SYNC_CHAINS
from fs_common.records.routing import LocalState, PublicState, Routing
from fs_common.records.session import PermitReply
from fs_common.records.storage import Holder, SyncChains, SyncChainsReply, UpdateChunksReply, UpdateKind
from tests.storage.chain import CHUNK, CLIENT, TIMEOUT_S, ChainOfDaemons, chain_of, eventually
from tests.storage.moving import change
from tests.storage.refusals import refused
from tests.support import run

DATA = b"x" * 100


async def no_permits(files: list[int], timeout_s: float) -> PermitReply:
    raise AssertionError("security is off")


def holders(chain: ChainOfDaemons, number: int = 1) -> list[Holder]:
    """Of a chain, head to tail, as they are now."""
    found = []
    for place in range(chain.replicas):
        target, store = chain.target(number, place), chain.store(number, place)
        incarnation = int.from_bytes(store.identity[:4], "big") << 32 | store.incarnation
        found.append(Holder(number, target.id, incarnation, store.opening, store.position, store.recovered))
    return found


async def sync(chain: ChainOfDaemons, place: int) -> list[Holder]:
    reply: SyncChainsReply = await chain.pool.call(
        chain.address(chain.node(1, place)), SYNC_CHAINS, SyncChains([1], [1]), timeout=TIMEOUT_S
    )
    return reply.holders


def test_an_update_names_all_that_stored_it_on_each_of_its_chains(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            first, second = chain.item(DATA, channel=1), chain.item(DATA, channel=2, index=1)
            reply: UpdateChunksReply = await chain.send([first, second], [DATA, DATA])
            assert reply.holders == holders(chain), "once for a chain, however many items"
            assert len({holder.incarnation for holder in reply.holders}) == 3, "each counts for itself"

    run(scenario())


def test_one_that_may_have_lost_something_is_named_under_another_incarnation(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            before = holders(chain)
            await chain.update(DATA)
            await chain.store(1, 1).renew(0, 0)
            await chain.store(1, 1).declare_whole()
            reply: UpdateChunksReply = await chain.send([chain.item(DATA)], [DATA])
            after = holders(chain)
            assert reply.holders == after
            same = [was.incarnation == is_.incarnation for was, is_ in zip(before, after, strict=True)]
            assert same == [True, False, True]
            assert await sync(chain, 1) == [after[1]]

    run(scenario())


def test_a_resend_names_those_behind_the_head_too(tmp_path: Path) -> None:
    """The head answers it alone; it has heard of the others what they were when they had it, or later."""

    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            item = chain.item(DATA)
            await chain.send([item], [DATA])
            prepared = chain.store(1, 1).prepares
            reply: UpdateChunksReply = await chain.send([item], [DATA])
            assert not reply.errors and reply.holders == holders(chain)
            assert chain.store(1, 1).prepares == prepared
            # Of those behind it a head that was started anew knows nothing.
            await chain.crash(1)
            await chain.restart(1)
            await chain.serving()
            reply = await chain.send([item], [DATA])
            assert reply.holders == holders(chain)[:1]

    run(scenario())


@pytest.mark.parametrize(("losing", "expected"), [((1,), False), ((0, 2), False), ((0, 1, 2), True)])
def test_a_client_is_told_of_a_loss_when_all_replicas_had_it(
    tmp_path: Path, losing: tuple[int, ...], expected: bool
) -> None:
    """Client and daemons together, with what each says of the other's."""

    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:

            async def fetch(known: int, timeout_s: float, wait_s: float) -> Routing | None:
                return chain.routing

            routing = RoutingCache(fetch)
            assert chain.routing is not None
            routing.adopt(chain.routing)
            storage = StorageClient(chain.pool, routing, no_permits)
            writer = Writer(storage, CLIENT, TIMEOUT_S)
            file = FileRef(7, 0, Layout(CHUNK, 3, table_version=1, durability=Durability.MEMORY))
            share = storage.unsynced.open(file.inode)
            await writer.write(file, 0, memoryview(DATA), lambda _: None)
            (number,) = share.marks
            for place in losing:
                await chain.store(number, place).renew(0, 0)
                await chain.store(number, place).declare_whole()
            await sync_file(storage, share, TIMEOUT_S)
            assert (share.losses > 0) is expected and not share.marks
            await writer.write(file, 0, memoryview(DATA), lambda _: None)
            await sync_file(storage, share, TIMEOUT_S)
            assert (share.losses > 0) is expected, "once"

    run(scenario())


@pytest.mark.parametrize("loses", [False, True])
def test_nothing_is_lost_with_a_replica_that_has_filled_up_another(tmp_path: Path, loses: bool) -> None:
    """One alone acknowledges it, fills another up, which fills up a third, and is gone; and then the second is, too.
    Only if it had lost something before is that a loss."""
    serving, syncing, offline = PublicState.SERVING, PublicState.SYNCING, PublicState.OFFLINE

    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            routing = RoutingCache(lambda *_: asyncio.sleep(0, chain.routing))
            storage = StorageClient(chain.pool, routing, no_permits)
            writer = Writer(storage, CLIENT, TIMEOUT_S)
            file = FileRef(7, 0, Layout(CHUNK, 1, table_version=1, durability=Durability.MEMORY))
            share = storage.unsynced.open(file.inode)
            assert chain.routing is not None
            first, second, third = (target.target for target in chain.routing.chains[0].targets)

            async def become(states: dict[int, PublicState], filled: int = 0) -> None:
                change(chain, states)
                if filled:
                    target = chain.target_on(filled // 100)
                    await eventually(lambda: target.local_state is LocalState.UPTODATE)

            await become({first: serving, second: offline, third: offline})
            routing.adopt(chain.routing)
            await writer.write(file, 0, memoryview(DATA), lambda _: None)
            assert list(share.marks) == [1]
            if loses:
                store = chain.stores[first]
                await store.renew(0, 0)
                await store.declare_whole()
            await become({first: serving, second: syncing, third: offline}, second)
            await become({first: serving, second: serving, third: offline})
            await become({second: serving, third: syncing, first: offline}, third)
            await become({second: serving, third: serving, first: offline})
            await become({third: serving, first: offline, second: offline})
            routing.adopt(chain.routing)
            await sync_file(storage, share, TIMEOUT_S)
            assert (share.losses > 0) is loses and not share.marks

    run(scenario())


def test_nobody_has_an_update_that_failed_before_it_began(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            reply: UpdateChunksReply = await chain.send([chain.item(DATA, kind=UpdateKind.REPLACE)], [DATA])
            assert reply.errors and not reply.holders

    run(scenario())


def test_a_target_that_is_found_to_be_an_old_copy_during_a_sync_has_synced_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            store = chain.store(1, 0)
            store.before_sync.hold()
            syncing = asyncio.create_task(sync(chain, 0))
            await store.before_sync.reached.wait()
            await store.renew(5, 5)
            await store.declare_whole()
            store.before_sync.release()
            with refused(Code.NOT_SERVING):
                await syncing

    run(scenario())
