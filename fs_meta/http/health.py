"""Whether the cluster is well, in the words of `emberfs status`.

A cluster may have 100,000 chains, of which nearly all are as they should be. Which are not by what is published is
found on the HTTP thread, once for each change of the chains; the service's loop is asked about those alone.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from fs_common import chain_words, cluster_words
from fs_common.errors import Code, EmberError
from fs_common.methods import SPACE_INFO
from fs_common.records.chains import ListChainsReply
from fs_common.records.routing import Chain, NodeState, PublicState, Routing
from fs_common.records.storage import SpaceInfo, SpaceInfoReply
from fs_meta.http.asking import ask_all
from fs_meta.http.backend import Backend

LOOKED_AT_MAX: Final = 500
"""Chains of which the manager is asked how they stand."""
FRESH_S: Final = 1.0
"""A look is good for so long: many people may look at once."""


class Trouble(NamedTuple):
    target: int
    node: int
    reason: str


class Health(NamedTuple):
    routing: Routing
    healthy: bool
    missing: list[str]
    """What is, in words; the shortest first. Empty: nothing."""
    chains: Counter[str]
    """By state."""
    troubles: list[Trouble]
    """Targets that do not serve."""
    warnings: list[Trouble]
    """Targets that serve and want to be looked at."""
    healing: list[tuple[int, list[str]]]
    """Chains that are not as they should be, and what is done about it."""
    helps: list[str]
    """What people can do."""
    resting: bool
    manager: bool
    """This server is the manager; if not, it cannot say what is done about chains."""


class HealthWatch:
    """Used on the HTTP thread's loop."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._last: Health | None = None
        self._last_s = 0.0
        self._looking = asyncio.Lock()
        """One look at a time; who waits for it gets it."""
        self._scanned: Sequence[Chain] = ()
        self._not_serving: list[Chain] = []
        """Of `_scanned`: those with a target that does not serve."""

    async def look(self) -> Health:
        """Raises what the bridge raises."""
        now = asyncio.get_running_loop().time
        async with self._looking:
            if self._last is None or now() >= self._last_s + FRESH_S:
                self._last = await self._looked()
                self._last_s = now()
            return self._last

    async def _looked(self) -> Health:
        backend = self._backend
        routing = await backend.look(lambda: backend.manager.routing)
        spaces = await backend.ask(lambda: ask_all(backend.pool, routing.nodes, SPACE_INFO, SpaceInfo()))
        if routing.chains is not self._scanned:
            self._scanned = routing.chains
            self._not_serving = [chain for chain in routing.chains if not _serves(chain)]
        suspects = self._suspects(routing, spaces)
        state = cluster_words.state_of(msgspec.structs.replace(routing, chains=suspects or routing.chains[:1]), spaces)
        reply = await self._asked(suspects if len(routing.chains) > LOOKED_AT_MAX else routing.chains)
        counts = Counter(chain["state"] for chain in state["chains"])
        counts["serving"] += len(routing.chains) - len(state["chains"])
        return Health(
            routing,
            state["healthy"],
            [] if state["healthy"] else cluster_words.what_is_missing(state),
            counts,
            [Trouble(**trouble) for trouble in state["troubles"]],
            [Trouble(**warning) for warning in state["warnings"]],
            [] if reply is None else [(chain.chain, chain_words.what_happens(chain)) for chain in reply.chains],
            [] if reply is None else chain_words.what_helps(reply),
            reply is not None and reply.resting,
            reply is not None,
        )

    def _suspects(self, routing: Routing, spaces: Sequence[SpaceInfoReply | None]) -> list[Chain]:
        """Chains that may not be as they should be."""
        down = {node.node for node in routing.nodes if node.state is not NodeState.UP}
        out = {trouble.target for space in spaces if space is not None for trouble in space.troubles}
        if not down and not out:
            return self._not_serving
        return [
            chain
            for chain in routing.chains
            if any(
                member.state is not PublicState.SERVING or member.node in down or member.target in out
                for member in chain.targets
            )
        ]

    async def _asked(self, chains: Sequence[Chain]) -> ListChainsReply | None:
        """What the manager says of chains that are not as they should be. None: another server is the manager."""
        ids = [chain.chain for chain in chains[:LOOKED_AT_MAX]] or [0]
        try:
            return await self._backend.list_chains(ids, degraded=True)
        except EmberError as error:
            if error.code is not Code.NOT_MANAGER:
                raise
            return None


def _serves(chain: Chain) -> bool:
    return all(member.state is PublicState.SERVING for member in chain.targets)
