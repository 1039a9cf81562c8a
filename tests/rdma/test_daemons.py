"""Storage daemons, all in this process, whose connections go over verbs in memory: who moves which bytes, and how."""

import asyncio
from pathlib import Path

import pytest

from fs_common.errors import Code, EmberError, Retry, code_of
from fs_common.records.routing import LocalState, PublicState
from fs_common.transports.rdma.verbs import Kind
from tests.common.loopback import pattern
from tests.rdma.over_soft_verbs import over_soft_verbs as over_soft_verbs
from tests.rdma.soft_verbs import Fabric
from tests.storage.chain import ChainOfDaemons, chain_of, eventually
from tests.storage.moving import move
from tests.support import run

SERVING, SYNCING, OFFLINE = PublicState.SERVING, PublicState.SYNCING, PublicState.OFFLINE
SIZE = 200_000


def stats(chain: ChainOfDaemons, name: str) -> list[int]:
    """Of each daemon."""
    return [chain.daemons[node].service.stats().get(name, 0) for node in sorted(chain.daemons)]


def test_each_replica_fetches_what_is_written_from_the_one_before(tmp_path: Path, over_soft_verbs: Fabric) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            data = pattern(SIZE, 1)
            await chain.update(data)
            assert stats(chain, "rdma_read_bytes") == [SIZE] * 3
            assert stats(chain, "rdma_written_bytes") == [0] * 3
            assert await chain.read_everywhere() == data
            assert stats(chain, "rdma_written_bytes") == [SIZE] * 3
            assert stats(chain, "rdma_read_bytes") == [SIZE] * 3
            moved = over_soft_verbs.moved_bytes
            assert (moved[Kind.READ], moved[Kind.WRITE]) == (3 * SIZE, 3 * SIZE)
            assert moved[Kind.SEND] < 16 * 1024, "messages carry headers alone"

    run(scenario())


def test_a_replica_that_comes_back_is_filled_up_over_rdma(tmp_path: Path, over_soft_verbs: Fabric) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            await chain.crash(3)
            move(chain, {0: SERVING, 1: SERVING, 2: OFFLINE})
            data = pattern(SIZE, 2)
            await chain.update(data)
            chain.stores[chain.node(1, 2) * 100 + 1].opening += 1
            await chain.restart(3)
            move(chain, {0: SERVING, 1: SERVING, 2: SYNCING})
            await eventually(lambda: stats(chain, "rdma_read_bytes")[2] >= SIZE)
            await eventually(lambda: chain.target_on(3).local_state is LocalState.UPTODATE)
            move(chain, {0: SERVING, 1: SERVING, 2: SERVING})
            assert await chain.read_everywhere() == data

    run(scenario())


@pytest.mark.parametrize("gate", ["before_prepare", "after_prepare", "before_commit", "after_commit"])
@pytest.mark.parametrize("place", [0, 1, 2], ids=["head", "middle", "tail"])
def test_an_update_whose_queue_pairs_fail_within_it_is_done_once(
    place: int, gate: str, tmp_path: Path, over_soft_verbs: Fabric
) -> None:
    """No answer comes, whether it was done or not: it is asked for again under its id."""

    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            assert (await chain.update(pattern(SIZE, 4)))[0] == 1
            data = pattern(SIZE, 5)
            item, held = chain.item(data), getattr(chain.store(1, place), gate)
            held.hold()
            first = asyncio.ensure_future(chain.send([item], [data]))
            await held.reached.wait()
            for pair in list(over_soft_verbs.queue_pairs.values()):
                pair.fail()
            with pytest.raises(EmberError) as caught:
                await first
            assert caught.value.retry is Retry.MAYBE_APPLIED
            held.release()
            while True:
                try:
                    reply = await chain.send([item], [data])
                except EmberError as error:
                    assert error.retry in (Retry.MAYBE_APPLIED, Retry.SAFE), error
                else:
                    if not reply.errors:
                        break
                    assert code_of(reply.errors[0].code) in (Code.BUSY, Code.PEER_GONE), reply.errors
                await asyncio.sleep(0)
            assert reply.versions == [2]
            assert await chain.read_everywhere() == data
            assert (await chain.update(pattern(SIZE, 6)))[0] == 3
            assert await chain.read_everywhere() == pattern(SIZE, 6)

    run(scenario())


def test_nothing_is_left_of_daemons_that_end(tmp_path: Path, over_soft_verbs: Fabric) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            await chain.update(pattern(SIZE, 3))
            assert over_soft_verbs.queue_pairs
        assert not over_soft_verbs.queue_pairs
        assert not over_soft_verbs.locked_bytes

    run(scenario())
