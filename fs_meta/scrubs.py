"""What storage daemons say of their scrubs, asked by the metadata server for many nodes at once.

Called by: the administration over gRPC and over REST, on the service's loop.
"""

import asyncio
from collections.abc import Callable
from typing import Final, NamedTuple

from fs_common.errors import Code, EmberError
from fs_common.methods import SCRUB
from fs_common.peers import PeerPool
from fs_common.records.routing import NodeInfo, NodeState, Routing
from fs_common.records.scrubbing import Scrub, ScrubReply

NODES_MAX: Final = 100
"""Nodes of a page: each has up to 99 targets."""
_ASK_TIMEOUT_S = 3.0
_ASKED_AT_ONCE = 16


class ScrubPage(NamedTuple):
    replies: list[tuple[NodeInfo, ScrubReply | None]]
    """By node id. None: it did not answer."""
    next: int
    """What the following page comes after; 0: this is the last one."""


class Scrubs:
    def __init__(self, pool: PeerPool, routing: Callable[[], Routing | None]) -> None:
        self._pool = pool
        self._routing = routing

    async def page(self, request: Scrub, after: int = 0, limit: int = 0) -> ScrubPage:
        """Ask at most `limit` (0: as many as a page may have) of the nodes after node `after`."""
        routing = self._routing()
        nodes = sorted(
            (
                node
                for node in (routing.nodes if routing is not None else ())
                if node.state is not NodeState.LEFT and node.node > after
            ),
            key=lambda node: node.node,
        )
        page = nodes[: min(limit or NODES_MAX, NODES_MAX)]
        left = iter(page)
        replies: dict[int, ScrubReply | None] = {}

        async def ask() -> None:
            for node in left:
                replies[node.node] = await self._ask(node, request)

        await asyncio.gather(*(ask() for _ in range(min(_ASKED_AT_ONCE, len(page)))))
        found = [(node, replies[node.node]) for node in page]
        return ScrubPage(found, page[-1].node if len(nodes) > len(page) else 0)

    async def begin(self, chains: list[int], bytes_per_s: int) -> None:
        """Begin a pass now, on all nodes that answer. `chains`: which; none: all. Raises INVALID: there is no such."""
        routing = self._routing()
        known = {chain.chain for chain in routing.chains} if routing is not None else set()
        if unknown := set(chains) - known:
            raise EmberError(Code.INVALID, f"there is no chain {min(unknown)}: `emberfs chains` lists them")
        after = 0
        while True:
            after = (await self.page(Scrub(True, chains, bytes_per_s), after)).next
            if not after:
                return

    async def _ask(self, node: NodeInfo, request: Scrub) -> ScrubReply | None:
        if node.state is not NodeState.UP:
            return None
        try:
            reply: ScrubReply = await self._pool.call((node.host, node.port), SCRUB, request, timeout=_ASK_TIMEOUT_S)
        except EmberError:
            return None
        return reply
