"""The service as a client of the storage daemons: which chain gets which request, retries, and their ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from fs_common.errors import Code, EmberError
from fs_common.layout import Layout, stripe_chains
from fs_common.limits import REMOVE_FILES_MAX
from fs_common.peers import PeerPool
from fs_common.records.routing import ChainTarget, PublicState, Routing
from fs_common.records.session import Hello
from fs_meta.chunks import ChunkClient
from tests.meta.fake_storage import FakeStorage, routing_of
from tests.support import run

CHUNK = 64 * 1024
LAYOUT = Layout(CHUNK, 3, 1, 1, 1, 12345)
INODE = 77


class Setup:
    def __init__(self, daemons: list[FakeStorage], pool: PeerPool, timeout_s: float) -> None:
        self.daemons = daemons
        self.routing: Routing | None = routing_of(daemons)
        self.client = ChunkClient(pool, lambda: self.routing, b"m" * 16, timeout_s=timeout_s)

    def put(self, index: int, length: int) -> None:
        """Chunk `index` of the file, on the chain where its layout has it."""
        chain = stripe_chains(LAYOUT, [1, 2, 3])[index % 3]
        self.daemons[chain - 1].lengths[chain, INODE, index] = length

    def chunks(self) -> dict[int, int]:
        found: dict[int, int] = {}
        for daemon in self.daemons:
            found |= daemon.of(INODE)
        return found


@asynccontextmanager
async def setup(timeout_s: float = 5.0) -> AsyncIterator[Setup]:
    daemons = [FakeStorage(node) for node in (1, 2, 3)]
    for daemon in daemons:
        await daemon.start()
    pool = PeerPool(Hello([1], "meta", b"m" * 16, "test"))
    yield Setup(daemons, pool, timeout_s)
    await pool.close()
    for daemon in daemons:
        await daemon.close()


def test_the_end_of_the_last_chunk_is_the_length() -> None:
    async def body() -> None:
        async with setup() as s:
            assert await s.client.measure(INODE, LAYOUT) == 0
            s.put(0, CHUNK)
            s.put(4, 5)
            s.put(2, CHUNK)
            assert await s.client.measure(INODE, LAYOUT) == 4 * CHUNK + 5
            assert all(daemon.calls == ["QueryLastChunk"] * 2 for daemon in s.daemons)

    run(body())


@pytest.mark.parametrize(
    ("length", "left"),
    [
        (0, {}),
        (1, {0: 1}),
        (CHUNK, {0: CHUNK}),
        (CHUNK + 5, {0: CHUNK, 1: 5}),
        (4 * CHUNK + 100, {0: CHUNK, 1: CHUNK, 2: CHUNK, 3: CHUNK, 4: 100}),
        (6 * CHUNK + 60, {0: CHUNK, 1: CHUNK, 2: CHUNK, 3: CHUNK, 4: CHUNK, 6: 50}),
        (100 * CHUNK, {0: CHUNK, 1: CHUNK, 2: CHUNK, 3: CHUNK, 4: CHUNK, 6: 50}),
        (5 * CHUNK + 1, {0: CHUNK, 1: CHUNK, 2: CHUNK, 3: CHUNK, 4: CHUNK}),
    ],
)
def test_a_cut_removes_what_is_beyond_and_shortens_the_boundary(length: int, left: dict[int, int]) -> None:
    """Chunk 5 is a hole: it is not filled with zeros; a short last chunk is not extended."""

    async def body() -> None:
        async with setup() as s:
            for index in range(5):
                s.put(index, CHUNK)
            s.put(6, 50)
            await s.client.cut(INODE, LAYOUT, length)
            assert s.chunks() == left

    run(body())


def test_removal_goes_on_until_nothing_is_left() -> None:
    async def body() -> None:
        async with setup() as s:
            for index in range(20):
                s.put(index, CHUNK)
            for daemon in s.daemons:
                daemon.remove_step = 2
            await s.client.cut(INODE, LAYOUT, 0)
            assert s.chunks() == {}
            assert sum(len(daemon.calls) for daemon in s.daemons) >= 10
            for index in range(20):
                s.put(index, CHUNK)
            assert await s.client.remove([(INODE, LAYOUT), (INODE + 1, LAYOUT)]) == [None, None]
            assert s.chunks() == {}

    run(body())


def test_many_files_share_requests() -> None:
    async def body() -> None:
        async with setup() as s:
            files = [(inode, Layout(CHUNK, 1, 1, 1, inode % 3)) for inode in range(10, 10 + REMOVE_FILES_MAX * 3 + 3)]
            for inode, layout in files:
                s.daemons[layout.first].lengths[layout.first + 1, inode, 0] = 5
            assert await s.client.remove(files) == [None] * len(files)
            assert not any(daemon.lengths for daemon in s.daemons)
            assert [daemon.calls for daemon in s.daemons] == [["RemoveFiles"] * 2] * 3

    run(body())


def test_what_may_be_repeated_is_repeated_under_the_same_update_id() -> None:
    async def body() -> None:
        async with setup() as s:
            s.put(0, CHUNK)
            [daemon] = [daemon for daemon in s.daemons if daemon.lengths]
            daemon.refusals = [EmberError(Code.NOT_SERVING), EmberError(Code.CHAIN_VERSION), EmberError(Code.BUSY)]
            daemon.update_errors = [Code.CHAIN_BROKEN, Code.CHAIN_BROKEN]
            await s.client.cut(INODE, LAYOUT, 5)
            assert s.chunks() == {0: 5}
            assert len(daemon.updates) == 3 and len(set(daemon.updates)) == 1
            s.put(0, CHUNK)
            await s.client.cut(INODE, LAYOUT, 6)
            (_, channel, sequence), (_, again, later) = daemon.updates[0], daemon.updates[-1]
            assert again == channel and later == sequence + 1

    run(body())


def test_a_cut_that_was_given_up_is_stale_once_a_later_one_is_answered() -> None:
    """A copy of it may come late. Its channel carries nothing but the chunk's next cut, not even meanwhile."""

    async def body() -> None:
        async with setup(timeout_s=0.2) as s:
            s.put(0, CHUNK)
            [daemon] = [daemon for daemon in s.daemons if daemon.lengths]
            daemon.update_errors = [Code.CHAIN_BROKEN] * 1000
            with pytest.raises(EmberError):
                await s.client.cut(INODE, LAYOUT, 5)
            given_up = daemon.updates[-1]
            daemon.update_errors = []
            s.put(1, CHUNK)
            await s.client.cut(INODE, LAYOUT, CHUNK + 5)
            elsewhere = [update for other in s.daemons for update in other.updates if update[1:] != given_up[1:]]
            assert elsewhere and all(channel != given_up[1] for _, channel, _ in elsewhere)
            await s.client.cut(INODE, LAYOUT, 6)
            assert daemon.updates[-1] == (given_up[0], given_up[1], given_up[2] + 1)

    run(body())


def test_each_removal_is_a_later_one_and_a_resend_is_the_same() -> None:
    async def body() -> None:
        async with setup() as s:
            for _ in range(2):
                for index in range(0, 30, 3):
                    s.put(index, CHUNK)
                [daemon] = [daemon for daemon in s.daemons if daemon.lengths]
                daemon.remove_step = 4
                daemon.refusals = [EmberError(Code.BUSY), EmberError(Code.BUSY)]
                await s.client.cut(INODE, LAYOUT, 0)
            sequences = daemon.removals
            assert sequences == sorted(sequences) and 0 not in sequences
            assert [sequences.count(number) for number in sorted(set(sequences))] == [3, 1, 1, 3, 1, 1]

    run(body())


def test_the_newest_routing_is_used_for_each_attempt() -> None:
    async def body() -> None:
        async with setup() as s:
            first, second, _ = s.daemons
            layout = Layout(CHUNK, 1, 1, 1, 0)
            first.refusals = [EmberError(Code.NOT_HEAD)] * 100
            old = routing_of(s.daemons)

            class Changing:
                """The chain's head moves to the second daemon after it was looked at once."""

                looks = 0

                def __call__(self) -> Routing:
                    self.looks += 1
                    if self.looks <= 2:
                        return old
                    chain = msgspec.structs.replace(
                        old.chains[0],
                        version=9,
                        targets=[
                            ChainTarget(101, 1, PublicState.OFFLINE),
                            ChainTarget(201, 2, PublicState.SERVING),
                        ],
                    )
                    return changed.setdefault("routing", msgspec.structs.replace(old, chains=[chain, *old.chains[1:]]))

            changed: dict[str, Routing] = {}
            client = ChunkClient(s.client._caller, Changing(), b"m" * 16, timeout_s=5)
            second.lengths[1, INODE, 0] = 9
            assert await client.measure(INODE, layout) == 9
            assert second.versions == {9}

    run(body())


def test_final_errors_are_not_repeated() -> None:
    async def body() -> None:
        async with setup() as s:
            s.daemons[0].refusals = [EmberError(Code.NO_SPACE, "full")]
            with pytest.raises(EmberError) as caught:
                await s.client.measure(INODE, LAYOUT)
            assert caught.value.code is Code.NO_SPACE
            assert s.daemons[0].calls == ["QueryLastChunk"]

    run(body())


def test_the_total_time_is_bounded() -> None:
    async def body() -> None:
        async with setup(timeout_s=0.1) as s:
            await s.daemons[1].close()
            with pytest.raises(EmberError) as caught:
                await s.client.measure(INODE, LAYOUT)
            assert caught.value.code is Code.UNREACHABLE

    run(body())


def without_head(old: Routing, chain: int, states: dict[int, PublicState], version: int = 9) -> Routing:
    """A chain of two nodes with these states, in this order."""
    targets = [ChainTarget(node * 100 + chain, node, state) for node, state in states.items()]
    chains = [
        msgspec.structs.replace(one, version=version, targets=targets) if one.chain == chain else one
        for one in old.chains
    ]
    return msgspec.structs.replace(old, version=old.version + 1, chains=chains)


@pytest.mark.parametrize("collected", [False, True])
def test_a_head_that_does_not_answer_is_left_when_the_chain_has_another(collected: bool) -> None:
    async def body() -> None:
        async with setup(timeout_s=60) as s:
            first, second, _ = s.daemons
            layout = Layout(CHUNK, 1, 1, 1, 0)
            first.lengths[1, INODE, 0] = second.lengths[1, INODE, 0] = 9
            first.gate = asyncio.Event()
            if collected:
                call: asyncio.Future[Any] = asyncio.ensure_future(s.client.remove([(INODE, layout)]))
            else:
                call = asyncio.ensure_future(s.client.measure(INODE, layout))
            await first.arrived.wait()
            assert s.routing is not None
            s.routing = without_head(s.routing, 1, {2: PublicState.SERVING, 1: PublicState.OFFLINE})
            s.client.routing_changed(s.routing)
            assert await call == ([None] if collected else 9)
            assert (not second.lengths) is collected
            first.gate.set()

    run(body())


def test_a_chain_that_nobody_serves_is_later_for_the_collector_and_an_error_in_the_end_for_others() -> None:
    async def body() -> None:
        async with setup(timeout_s=60) as s:
            s.put(0, CHUNK)
            assert s.routing is not None
            whole = s.routing
            for chain in (1, 2, 3):
                s.routing = without_head(s.routing, chain, {2: PublicState.LASTSRV, 1: PublicState.OFFLINE})
            (failure,) = await s.client.remove([(INODE, LAYOUT)])
            assert failure is not None and failure.code is Code.CHAIN_LOST and "bring node 2 (" in failure.message
            s.client.timeout_s = 0.1
            for ask in (s.client.measure(INODE, LAYOUT), s.client.cut(INODE, LAYOUT, 5)):
                with pytest.raises(EmberError) as caught:
                    await ask
                assert caught.value.code is Code.CHAIN_LOST
            # The node comes back while it is waited for.
            s.client.timeout_s = 60
            measuring = asyncio.ensure_future(s.client.measure(INODE, LAYOUT))
            await asyncio.sleep(0)
            s.routing = whole
            s.client.routing_changed(whole)
            assert await measuring == CHUNK
            assert not s.client._flights

    run(body())


def test_the_collector_meets_a_chain_where_it_is_now() -> None:
    async def body() -> None:
        async with setup() as s:
            for index in range(6):
                s.put(index, CHUNK)
            s.daemons[0].refusals = [
                EmberError(code) for code in (Code.CHAIN_VERSION, Code.NOT_HEAD, Code.CHAIN_BROKEN)
            ]
            assert await s.client.remove([(INODE, LAYOUT)]) == [None]
            assert s.chunks() == {}

    run(body())


def test_collection_asks_who_is_busy_once_and_finishes_the_others() -> None:
    async def body() -> None:
        async with setup() as s:
            for index in range(6):
                s.put(index, CHUNK)
            s.daemons[0].refusals = [EmberError(Code.BUSY)] * 9
            [elsewhere] = [d.node for d in s.daemons[1:] if d.node != s.daemons[0].node][:1]
            other = (INODE + 1, Layout(CHUNK, 1, 1, 1, elsewhere - 1))
            lost = (INODE + 2, Layout(CHUNK, 1, 9, 1, 0))
            broken, fine, unknown = await s.client.remove([(INODE, LAYOUT), other, lost])
            assert broken is not None and broken.code is Code.BUSY and fine is None
            assert unknown is not None and unknown.code is Code.CLUSTER_NOT_READY
            assert len(s.daemons[0].calls) == 1
            assert set(s.chunks()) == set(s.daemons[0].of(INODE)) != set()

    run(body())


def test_a_daemon_that_neither_removes_nor_ends_is_left_and_ends_nothing() -> None:
    async def body() -> None:
        async with setup() as s:
            s.put(0, CHUNK)
            for daemon in s.daemons:
                daemon.remove_step = 0
            [failed] = await s.client.remove([(INODE, LAYOUT)])
            assert failed is not None and failed.code is Code.BAD_BODY
            assert s.chunks() == {0: CHUNK}

    run(body())


def test_without_a_place_there_is_a_clear_error() -> None:
    async def body() -> None:
        async with setup(timeout_s=0.01) as s:
            routing = s.routing
            assert routing is not None
            nobody = msgspec.structs.replace(routing.chains[0], targets=[ChainTarget(101, 1, PublicState.LASTSRV)])
            for wrong, code in [
                (None, Code.CLUSTER_NOT_READY),
                (msgspec.structs.replace(routing, tables=[]), Code.CLUSTER_NOT_READY),
                (msgspec.structs.replace(routing, chains=[]), Code.CHAIN_UNKNOWN),
                (msgspec.structs.replace(routing, chains=[nobody, *routing.chains[1:]]), Code.CHAIN_LOST),
            ]:
                s.routing = wrong
                with pytest.raises(EmberError) as caught:
                    await s.client.measure(INODE, LAYOUT)
                assert caught.value.code is code

    run(body())
