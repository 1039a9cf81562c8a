"""What is unsynced is synced when its chain changes, and after a while."""

import asyncio

import pytest

from fs_client import aio, unsynced_guard
from fs_client.unsynced_guard import AGE_S, UnsyncedGuard
from fs_common.records.routing import PublicState
from tests.client.fake_cluster import CHUNK, FakeCluster
from tests.support import run


class Guarded:
    def __init__(self, fs: aio.AsyncFileSystem, cluster: FakeCluster) -> None:
        self.fs = fs
        self.cluster = cluster
        self.now = 1000.0
        self.guard = UnsyncedGuard(fs.storage, lambda: self.now)

    async def set_chain(self, chain: int, states: dict[int, PublicState]) -> None:
        """The chain changes, and the client hears of it."""
        self.cluster.set_chain(chain, states)
        await self.fs.routing.refresh(self.fs.routing.routing.version, 10.0)

    def synced(self) -> set[int]:
        """Chains that were synced since this was asked last."""
        synced = {chain for daemon in self.cluster.storage.values() for request in daemon.synced for chain in request}
        for daemon in self.cluster.storage.values():
            daemon.synced.clear()
        return synced


def test_chains_that_change_are_synced_and_what_is_old(cluster: FakeCluster) -> None:
    async def main() -> None:
        async with await aio.connect(cluster.address) as fs:
            guarded = Guarded(fs, cluster)
            await guarded.guard.look()
            await fs.write_file("/f", bytes(3 * CHUNK))
            chains = fs.storage.unsynced.chains()
            assert chains == {1, 2, 3}
            for _ in range(3):
                await guarded.guard.look()
            assert not guarded.synced(), "nothing has changed"
            await guarded.set_chain(2, {3: PublicState.OFFLINE})
            await guarded.guard.look()
            assert guarded.synced() == {2} and fs.storage.unsynced.chains() == {1, 3}
            guarded.now += AGE_S
            await guarded.guard.look()
            assert guarded.synced() == {1, 3} and not fs.storage.unsynced.chains()
            guarded.now += AGE_S
            await guarded.guard.look()
            assert not guarded.synced()

    run(main())


@pytest.mark.parametrize("guarding", [True, False])
def test_all_replicas_may_be_replaced_one_after_the_other(cluster: FakeCluster, guarding: bool) -> None:
    """Each is dropped and filled up again, and has another incarnation then. The client hears nothing from daemons
    meanwhile but what the guard asks."""

    async def main() -> None:
        async with await aio.connect(cluster.address) as fs:
            guarded = Guarded(fs, cluster)
            async with await fs.open("/f", "wb") as file:
                await file.write_at(0, bytes(3 * CHUNK))
                for node in (1, 2, 3):
                    for state in (PublicState.OFFLINE, PublicState.SERVING):
                        if guarding:
                            await guarded.guard.look()
                        if state is PublicState.SERVING:
                            cluster.storage[node].incarnation += 1
                        for chain in (1, 2, 3):
                            await guarded.set_chain(chain, {node: state})
                if guarding:
                    await guarded.guard.look()
                    await file.fsync()
                else:
                    with pytest.raises(OSError, match="write it again"):
                        await file.fsync()

    run(main())


def test_what_cannot_be_synced_now_is_tried_again(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unsynced_guard, "SYNC_S", 0.05)

    async def main() -> None:
        async with await aio.connect(cluster.address) as fs:
            guarded = Guarded(fs, cluster)
            await fs.write_file("/f", bytes(10))
            (chain,) = fs.storage.unsynced.chains()
            await guarded.guard.look()
            await guarded.set_chain(chain, dict.fromkeys((1, 2, 3), PublicState.LASTSRV))
            await guarded.guard.look()
            assert fs.storage.unsynced.chains() == {chain}
            await guarded.set_chain(chain, dict.fromkeys((1, 2, 3), PublicState.SERVING))
            monkeypatch.setattr(unsynced_guard, "SYNC_S", 10.0)
            await guarded.guard.look()
            assert not fs.storage.unsynced.chains()
            watcher = asyncio.create_task(guarded.guard.run())
            await asyncio.sleep(0)
            watcher.cancel()
            await asyncio.wait([watcher])

    run(main())
