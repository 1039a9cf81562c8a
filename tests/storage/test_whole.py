"""A target whose store is not whole serves nothing; one that is alone on its chain has nobody to get anything from."""

from pathlib import Path

import pytest

from fs_common.errors import Code, EmberError
from fs_common.records.routing import LocalState
from tests.storage.chain import ChainOfDaemons, HeldStore, chain_of, eventually
from tests.support import run


async def restarted_not_whole(chain: ChainOfDaemons, place: int) -> None:
    """The daemon at `place` of chain 1 has lost power."""
    node = chain.node(1, place)
    await chain.crash(node)
    for store in chain.stores_of(node):
        await store.renew(0, 0)
    await chain.restart(node)
    await eventually(lambda: len(chain.daemons[node].targets.by_chain) == chain.replicas)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_target_that_is_not_whole_refuses_reads_and_updates(tmp_path: Path, place: int) -> None:
    async def body() -> None:
        async with chain_of(tmp_path) as chain:
            await chain.update(b"data")
            await restarted_not_whole(chain, place)
            await eventually(lambda: chain.target(1, place).admitted)
            target = chain.target(1, place)
            assert not target.serves and target.local_state is LocalState.ONLINE
            assert "may have lost something" in target.why_not()
            with pytest.raises(EmberError) as error:
                await chain.read(place=place)
            assert error.value.code is Code.NOT_SERVING
            with pytest.raises(EmberError):
                await chain.update(b"more", timeout=0.5)
            others = {await chain.read(place=other) for other in range(3) if other != place}
            assert others == {b"data"}
            await chain.healed()
            assert {await chain.read(place=other) for other in range(3)} <= {b"data", b"more"}

    run(body())


def test_a_target_alone_on_its_chain_serves_what_it_has(tmp_path: Path) -> None:
    async def body() -> None:
        async with chain_of(tmp_path, nodes=1, replicas=1) as chain:
            await chain.update(b"data")
            store: HeldStore = chain.store(1, 0)
            before = store.incarnation
            await restarted_not_whole(chain, 0)
            await chain.serving()
            assert await chain.read() == b"data"
            assert store.whole and store.incarnation == before + 1 and store.syncs == 1

    run(body())
