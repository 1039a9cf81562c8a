"""Making written chunks durable: what was acknowledged from memory is synced to the disks of every serving replica.

Chunks of a file share few chains, and chains share few servers, so an fsync is one small call to each of these.
"""

from collections.abc import Iterable

from fs_client.backoff import Attempts
from fs_client.file_ref import FileRef
from fs_client.routing_cache import Server
from fs_client.settle import run_all
from fs_client.storage_client import UPDATE_TRY_S, StorageClient
from fs_common.errors import EmberError, Retry
from fs_common.methods import SYNC_CHAINS
from fs_common.records.storage import SyncChains


async def sync_chunks(storage: StorageClient, file: FileRef, indexes: Iterable[int], timeout_s: float) -> None:
    """On return every update of these chunks that was acknowledged before the call is on the disks of all replicas
    that serve then. A replica that stops serving meanwhile is not waited for: the chain's next version is without it.

    Raises `EmberError` after `timeout_s`, or what a disk answered.
    """
    routing = storage.routing
    attempts = Attempts(timeout_s)
    wanted = set(indexes)
    while wanted:
        known = routing.routing.version
        try:
            await _sync(storage, file, wanted, attempts)
            return
        except EmberError as error:
            if error.retry is Retry.FINAL or not await attempts.again(error):
                raise
            await routing.refresh_if_possible(known, attempts.left_s())


async def _sync(storage: StorageClient, file: FileRef, indexes: set[int], attempts: Attempts) -> None:
    plan = storage.routing.plan(file)
    chains: dict[Server, dict[int, int]] = {}
    for place in {index % plan.stripe for index in indexes}:
        route = plan.routes[place]
        for server in route.replicas:
            chains.setdefault(server, {})[route.chain] = route.version

    async def sync(server: Server, versions: dict[int, int]) -> None:
        await storage.call(
            server,
            SYNC_CHAINS,
            SyncChains(list(versions), list(versions.values())),
            size=0,
            try_s=UPDATE_TRY_S,
            left_s=attempts.left_s(),
        )

    await run_all([sync(server, versions) for server, versions in chains.items()])
