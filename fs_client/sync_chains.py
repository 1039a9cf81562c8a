"""Making written chunks durable: what was acknowledged from memory is synced to the disks of every serving replica.

Chunks of a file share few chains, and chains share few servers, so an fsync is one small call to each of these.

What may have been lost before it could be synced is not found by the sync itself, which makes durable what is left: it
is found by the incarnations that the daemons' answers name (`unsynced`).
"""

from collections.abc import Collection, Sequence

from fs_client.backoff import Attempts
from fs_client.flights import ChainFlight
from fs_client.routing_cache import Server
from fs_client.settle import run_all
from fs_client.storage_client import UPDATE_TRY_S, StorageClient
from fs_client.unsynced import Share
from fs_common.errors import Code, EmberError
from fs_common.methods import SYNC_CHAINS
from fs_common.records.storage import Holder, SyncChains, SyncChainsReply


async def sync_file(storage: StorageClient, share: Share, timeout_s: float) -> None:
    """On return every update of the file that was acknowledged before the call is on the disks of all replicas that
    serve then, or was found to be lost: see `Share.losses`. A replica that stops serving meanwhile is not waited for:
    the chain's next version is without it.

    Raises `EmberError` after `timeout_s`, or what a disk answered: then a later call tries again.
    """
    shares = storage.unsynced.shares_of(share)
    losses = shares[-1].losses
    await _sync(storage, shares, timeout_s)
    if len(shares) > 1 and shares[-1].losses > losses:
        # It may have been this file's, from before it was closed.
        share.losses += 1


async def sync_everything(storage: StorageClient, timeout_s: float) -> bool:
    """`sync_file` for all files that this client has written, closed ones included. Whether nothing was lost."""
    shares = storage.unsynced.shares()
    losses = [share.losses for share in shares]
    await _sync(storage, shares, timeout_s)
    return losses == [share.losses for share in shares]


async def sync_some(storage: StorageClient, chains: Collection[int], timeout_s: float) -> None:
    """Sync what this client has unsynced on these chains. What is found to be lost is told to who syncs its file."""
    await _sync(storage, storage.unsynced.shares(), timeout_s, chains)


async def _sync(
    storage: StorageClient, shares: Sequence[Share], timeout_s: float, only: Collection[int] | None = None
) -> None:
    chains = {chain for share in shares for chain in share.marks if only is None or chain in only}
    if not chains:
        return
    count = storage.unsynced.count
    attempts = Attempts(timeout_s)
    while True:
        known = storage.routing.routing.version
        try:
            holders, lineage = await _sync_chains(storage, chains, attempts)
        except EmberError as error:
            if not await attempts.after_change(error, storage.routing, known):
                raise
        else:
            storage.unsynced.seen(holders, all_of_them=True, lineage=lineage)
            storage.unsynced.synced(shares, chains, count)
            return


async def _sync_chains(
    storage: StorageClient, chains: Collection[int], attempts: Attempts
) -> tuple[list[Holder], list[Holder]]:
    """One try: all serving replicas sync these chains. Returns what they are now, and whom they were filled up by."""
    asked: dict[Server, dict[int, int]] = {}
    for chain in chains:
        version, replicas = storage.routing.serving(chain)
        if not replicas:
            raise storage.routing.lost(chain)
        for server in replicas:
            asked.setdefault(server, {})[chain] = version
    holders: list[Holder] = []
    lineage: list[Holder] = []

    async def sync(server: Server, versions: dict[int, int]) -> None:
        reply: SyncChainsReply = await storage.call(
            server,
            SYNC_CHAINS,
            SyncChains(list(versions), list(versions.values())),
            size=0,
            try_s=UPDATE_TRY_S,
            left_s=attempts.left_s(),
            flight=ChainFlight(server, versions, head=False),
        )
        holders.extend(reply.holders)
        lineage.extend(reply.lineage)

    await run_all([sync(server, versions) for server, versions in asked.items()])
    return holders, lineage


def lost(what: str) -> EmberError:
    """What is raised where something was lost."""
    text = f"{what}: its daemons started again without some of what was written and not synced; write it again"
    return EmberError(Code.WRITES_LOST, text)
