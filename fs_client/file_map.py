"""Where a file lies: chunk by chunk the chain, and what each of its replicas has.

A picture of a moment, for people: replicas are asked one after another, so a file that is written meanwhile may show
versions that differ and do not.
"""

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from fs_client.file_ref import FileRef
from fs_common.errors import Code, EmberError
from fs_common.ids import chunk_id, split_chunk_id
from fs_common.layout import stripe_chains
from fs_common.methods import LIST_HELD
from fs_common.records.mending import HeldChunk, ListHeld, ListHeldReply
from fs_common.records.routing import Chain, NodeInfo, NodeState, PublicState

if TYPE_CHECKING:
    from fs_client.aio import AsyncFileSystem

PAGE = 1024
CALL_S = 20.0
CHAINS_AT_ONCE = 16
NOT_TOLD = "what it has is told to administrators alone"


class Replica(NamedTuple):
    """One target of a chunk's chain."""

    target: int
    node: int
    state: PublicState
    trouble: str
    """One line: why it could not say what it has; empty: it did."""
    version: int
    """Committed; 0: it has nothing of the chunk."""
    digest: int
    """Of that version: the same at all replicas that have the same bytes."""
    length: int
    pending_version: int
    """0: nothing is under way."""


class ChunkPlace(NamedTuple):
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    chain: int
    replicas: tuple[Replica, ...]
    """In the order of the chain, head first."""

    @property
    def length(self) -> int:
        """Bytes stored; 0: a hole."""
        return max((replica.length for replica in self.replicas), default=0)

    @property
    def agree(self) -> bool:
        """Every replica that serves and could be asked has the same version."""
        asked = {
            (replica.version, replica.digest)
            for replica in self.replicas
            if replica.state is PublicState.SERVING and not replica.trouble
        }
        return len(asked) <= 1


async def map_file(fs: "AsyncFileSystem", file: FileRef, first: int = 0, count: int | None = None) -> list[ChunkPlace]:
    """The places of chunks `first` to `first + count` (of all) of a file, in order.

    Replicas that do not answer are in it with what is the matter. Raises `EmberError` CHAIN_UNKNOWN.
    """
    routing = fs.routing.routing
    layout = file.layout
    chunks = -(-file.length // layout.chunk_size)
    end = chunks if count is None else min(first + count, chunks)
    tables = [
        table.chains for table in routing.tables if (table.table, table.version) == (layout.table, layout.table_version)
    ]
    if not tables:
        raise EmberError(Code.CHAIN_UNKNOWN, f"chain table {layout.table} version {layout.table_version} is not known")
    stripe = stripe_chains(layout, tables[0])
    chains = {chain.chain: chain for chain in routing.chains}
    nodes = {node.node: node for node in routing.nodes}
    wanted: dict[int, list[int]] = {}
    for index in range(first, end):
        wanted.setdefault(stripe[index % len(stripe)], []).append(index)
    turns = asyncio.Semaphore(CHAINS_AT_ONCE)

    async def of_chain(number: int, indexes: list[int]) -> list[ChunkPlace]:
        chain = chains.get(number)
        if chain is None:
            raise EmberError(Code.CHAIN_UNKNOWN, f"chain {number} is not in routing version {routing.version}")
        async with turns:
            told = await asyncio.gather(
                *(
                    _held(fs, chain, member.state, nodes.get(member.node), file.inode, indexes[0], indexes[-1])
                    for member in chain.targets
                )
            )
        places = []
        for index in indexes:
            replicas = []
            for member, (held, trouble) in zip(chain.targets, told, strict=True):
                found = held.get(index)
                committed = found if found is not None and found.version and not found.removed else None
                replicas.append(
                    Replica(
                        member.target,
                        member.node,
                        member.state,
                        trouble,
                        committed.version if committed is not None else 0,
                        committed.digest if committed is not None else 0,
                        committed.length if committed is not None else 0,
                        found.pending_version if found is not None else 0,
                    )
                )
            places.append(ChunkPlace(index, number, tuple(replicas)))
        return places

    found = await asyncio.gather(*(of_chain(number, indexes) for number, indexes in wanted.items()))
    return sorted((place for places in found for place in places), key=lambda place: place.index)


async def _held(
    fs: "AsyncFileSystem",
    chain: Chain,
    state: PublicState,
    node: NodeInfo | None,
    inode: int,
    first: int,
    last: int,
) -> tuple[dict[int, HeldChunk], str]:
    """What one replica has of the file, by index; and why it could not say."""
    if node is None or node.state is not NodeState.UP:
        return {}, "its node is down"
    if state is PublicState.OFFLINE:
        return {}, "it is offline"
    after = (int.from_bytes(chunk_id(inode, first), "big") - 1).to_bytes(12, "big")
    found: dict[int, HeldChunk] = {}
    while True:
        request = ListHeld(chain.chain, chain.version, after, min(PAGE, last - first + 1))
        try:
            reply: ListHeldReply = await fs.pool.call((node.host, node.port), LIST_HELD, request, timeout=CALL_S)
        except EmberError as error:
            return found, NOT_TOLD if error.code is Code.ACCESS_DENIED else error.message
        for held in reply.chunks:
            of_inode, index = split_chunk_id(held.chunk)
            if of_inode != inode or index > last:
                return found, ""
            found[index] = held
        if len(reply.chunks) < request.limit:
            return found, ""
        after = reply.chunks[-1].chunk
