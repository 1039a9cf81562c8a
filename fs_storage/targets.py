"""The targets of this daemon, as routing says, and where the nodes of their chains are.

Owns: opening an engine for each target routing gives this node, and closing them. A target appears in `by_chain` once
its engine is open. Routing is applied in the order it arrives; opening takes time and is retried with the next one.

A target that is alone on its chain and not whole has nobody to ask for what it lost: what it has is all there is, so it
is declared whole, under its new incarnation.

Called by: the service (on the event loop).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from fs_common.errors import Code, EmberError
from fs_common.manager_client import TargetStatus
from fs_common.records.routing import Chain, LocalState, Routing
from fs_storage.craq.position import position_of
from fs_storage.engine.interface import ChunkStore
from fs_storage.target import Membership, Target

logger = logging.getLogger(__name__)

OpenStore = Callable[[int], Awaitable[ChunkStore]]
"""Opens the engine of a target id."""


class Targets:
    def __init__(self, node: int, membership: Membership, open_store: OpenStore) -> None:
        self.node = node
        self.by_chain: dict[int, Target] = {}
        """Chain id to this node's open target on it."""
        self.changed: Callable[[], None] = lambda: None
        """Called when a target was opened or placed anew."""
        self._membership = membership
        self._open_store = open_store
        self._by_id: dict[int, Target] = {}
        self._opening: dict[int, asyncio.Task[None]] = {}
        self._addresses: dict[int, tuple[str, int]] = {}
        self._alone: dict[int, asyncio.Task[None]] = {}
        """Declaring whole what is alone on its chain."""
        self._unreadable: set[int] = set()
        """Targets whose disk could not be asked for its space at the last heartbeat."""
        self._refused: dict[int, str] = {}
        """Targets whose engine did not open, and why."""
        self._closed = False

    def apply(self, routing: Routing) -> None:
        """Follow a new routing."""
        if self._closed:
            return
        self._addresses = {node.node: (node.host, node.port) for node in routing.nodes}
        mine: dict[int, Chain] = {}
        for chain in routing.chains:
            for member in chain.targets:
                if member.node == self.node:
                    mine[member.target] = chain
        for target_id, target in self._by_id.items():
            target.place(position_of(mine[target_id], target_id) if target_id in mine else None)
        self.by_chain = {chain.chain: self._by_id[target] for target, chain in mine.items() if target in self._by_id}
        for target_id in mine.keys() - self._by_id.keys() - self._opening.keys():
            task = asyncio.get_running_loop().create_task(self._open(target_id), name=f"open target {target_id}")
            self._opening[target_id] = task
        for target_id, chain in mine.items():
            found = self._by_id.get(target_id)
            if found is None or found.store.whole or found.failed is not None or target_id in self._alone:
                continue
            if len(chain.targets) == 1:
                alone = self._declare_whole(found)
                self._alone[target_id] = asyncio.get_running_loop().create_task(alone, name=f"whole {target_id}")
        self.changed()

    def address(self, node: int) -> tuple[str, int]:
        """Where `node` listens. Raises CHAIN_UNKNOWN when routing does not say."""
        address = self._addresses.get(node)
        if address is None:
            raise EmberError(Code.CHAIN_UNKNOWN, f"routing has no node {node}")
        return address

    def require(self, chain: int) -> Target:
        """This node's target on `chain`. Raises CHAIN_UNKNOWN."""
        target = self.by_chain.get(chain)
        if target is None:
            raise EmberError(Code.CHAIN_UNKNOWN, self.why_unknown(chain))
        return target

    def why_unknown(self, chain: int) -> str:
        if self._opening:
            return f"node {self.node} has no open target on chain {chain} yet: it is starting"
        return f"node {self.node} has no target on chain {chain}"

    def all(self) -> list[Target]:
        """Those that are open."""
        return list(self._by_id.values())

    def statuses(self) -> list[TargetStatus]:
        """For the heartbeat."""
        statuses = []
        for target in self._by_id.values():
            version = target.position.version if target.position is not None else 0
            try:
                state, used_bytes = target.local_state, target.store.space().used_bytes
                self._unreadable.discard(target.id)
            except OSError as error:
                # The disk of one target: it serves nothing any more, and the others go on.
                state, used_bytes = LocalState.OFFLINE, 0
                if target.id not in self._unreadable:
                    self._unreadable.add(target.id)
                    logger.error("target %d is offline: its disk does not answer: %s", target.id, error)
            statuses.append(TargetStatus(target.id, state, used_bytes, version))
        statuses += [TargetStatus(target, LocalState.OFFLINE, 0, 0) for target in self._refused]
        return statuses

    async def close(self) -> None:
        """Wait for what is opening, then close every engine. Nothing may be in work any more."""
        self._closed = True
        await asyncio.gather(*self._opening.values(), *self._alone.values(), return_exceptions=True)
        for target in self._by_id.values():
            target.place(None)
            try:
                await target.store.close()
            except (EmberError, OSError) as error:
                logger.error("target %d did not close cleanly: %s", target.id, error)
        self._by_id.clear()
        self.by_chain.clear()

    async def _declare_whole(self, target: Target) -> None:
        try:
            await target.store.sync()
            await target.store.declare_whole()
        except EmberError as error:
            logger.error("target %d, alone on its chain, cannot be declared whole: %s", target.id, error)
            if error.code is Code.DISK_FAILED:
                target.fail(error.message)
            return
        finally:
            del self._alone[target.id]
        logger.warning("target %d may have lost something and is alone on its chain: it serves what it has", target.id)
        self.changed()

    async def _open(self, target_id: int) -> None:
        try:
            store = await self._open_store(target_id)
        except (EmberError, OSError) as error:
            logger.error("target %d cannot be opened: %s", target_id, error)
            self._refused[target_id] = str(error)
            return
        except Exception as error:
            logger.exception("opening target %d found a defect of this process", target_id)
            self._refused[target_id] = repr(error)
            return
        finally:
            del self._opening[target_id]
        self._refused.pop(target_id, None)
        target = Target(target_id, store, self._membership)
        self._by_id[target_id] = target
        logger.info("target %d is open, %d versions are pending", target_id, len(target.replica.unsettled))
        if self._membership.routing is not None:
            self.apply(self._membership.routing)
