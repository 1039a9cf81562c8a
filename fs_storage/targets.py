"""The targets of this daemon, as routing says, and where the nodes of their chains are.

Owns: opening an engine for each target routing gives this node, and closing them. A target appears in `by_chain` once
its engine is open. Routing is applied in the order it arrives; opening takes time and is retried with the next one.

Whether a store is the right one is the manager's to say (`judge`), by its uuid and opening, which each heartbeat
reports. A target without a store is reported as such; one is made only on the manager's word, because a directory
that is empty may be one that has lost its store, or whose disk is not mounted. An old copy that was put back is
renewed: it takes counters beyond those that were known, and is not whole.

A target that serves alone on its chain and is not whole has nobody to ask for what it lost: what it has is all there
is, so it is declared whole, under its new incarnation. One that has become whole acts only when the manager has
answered a heartbeat that says so: on what it said before it may have been dropped, and it has not heard of that.

Called by: the service (on the event loop).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from fs_common.errors import Code, EmberError
from fs_common.manager_client import TargetStatus, TargetVerdict
from fs_common.records.chains import SyncProgress
from fs_common.records.routing import Chain, LocalState, Routing, StoreVerdict
from fs_storage.craq.position import Position, position_of
from fs_storage.engine.interface import ChunkStore, NoStore
from fs_storage.retiring import NothingStored, Retiring, StoredTargets
from fs_storage.target import Filling, Membership, Target

logger = logging.getLogger(__name__)

OpenStore = Callable[[int, bool], Awaitable[ChunkStore]]
"""Opens the engine of a target id; True: makes its store if there is none, False: raises `NoStore` then."""


class Targets:
    def __init__(
        self, node: int, membership: Membership, open_store: OpenStore, disk: StoredTargets | None = None
    ) -> None:
        self.node = node
        self.retiring = Retiring(disk or NothingStored())
        self.by_chain: dict[int, Target] = {}
        """Chain id to this node's open target on it."""
        self.changed: Callable[[], None] = lambda: None
        """Called when a target was opened or placed anew."""
        self.suspect: Callable[[Target, bytes], None] = lambda target, chunk: None
        """Told of a chunk whose stored bytes may be damaged."""
        self._membership = membership
        self._open_store = open_store
        self._by_id: dict[int, Target] = {}
        self._opening: dict[int, asyncio.Task[None]] = {}
        self._addresses: dict[int, tuple[str, int]] = {}
        self._alone: dict[int, asyncio.Task[None]] = {}
        """Declaring whole what is alone on its chain."""
        self._said_whole: set[int] = set()
        """Targets that were whole at the last heartbeat."""
        self._renewing: dict[int, asyncio.Task[None]] = {}
        """Old copies of stores."""
        self._missing: dict[int, str] = {}
        """Targets without a store, and what the manager says of that; "": nothing yet."""
        self._distrusted: set[int] = set()
        """Targets that failed in this life of the process: that need not be in their marks, as the disk had failed."""
        self._refused: dict[int, str] = {}
        """Targets whose engine did not open, and why."""
        self._closed = False
        self._waiting: set[asyncio.Future[None]] = set()
        """Of those who wait for the next routing that is applied, or target that is opened."""

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
        self.retiring.look(mine)
        for target_id, target in self._by_id.items():
            target.place(position_of(mine[target_id], target_id) if target_id in mine else None)
        self.by_chain = {chain.chain: self._by_id[target] for target, chain in mine.items() if target in self._by_id}
        for target_id in mine.keys() - self._by_id.keys() - self._opening.keys():
            self._begin_to_open(target_id, make=False)
        for target_id in mine:
            found = self._by_id.get(target_id)
            if found is None or found.store.whole or found.failed is not None or target_id in self._alone:
                continue
            # The manager has heard that it is not whole, and still lets it serve.
            if found.admitted and found.position is not None and _alone(found.position):
                alone = self._declare_whole(found)
                self._alone[target_id] = asyncio.get_running_loop().create_task(alone, name=f"whole {target_id}")
        waiting, self._waiting = self._waiting, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)
        self.changed()

    async def acts_at(self, chain: int, version: int) -> None:
        """Return when this node's target on `chain` acts at that version, or a newer one: it speaks as nothing older
        any more. The caller bounds the wait."""
        while (
            (target := self.by_chain.get(chain)) is None or target.position is None or target.position.version < version
        ):
            future = asyncio.get_running_loop().create_future()
            self._waiting.add(future)
            await future

    def judge(self, verdicts: list[TargetVerdict]) -> None:
        """What the manager says of the stores that were reported."""
        if self._closed:
            return
        news = False
        for verdict in verdicts:
            if verdict.verdict is StoreVerdict.RETIRE:
                self._retire(verdict)
                continue
            if verdict.target in self._missing:
                self._judge_missing(verdict)
                continue
            target = self._by_id.get(verdict.target)
            if target is None or target.store.opening != verdict.opening or target.id in self._renewing:
                continue  # it speaks of what was reported, and that is not so any more
            if verdict.verdict is StoreVerdict.SERVE:
                if target.retired and _serves(target.position):
                    continue  # it has said that it does not: its chain goes on without it, and fills it up later
                target.retired = False
                said_whole = target.id in self._said_whole
                news |= not target.admitted or said_whole != target.heard_whole
                target.admitted = True
                target.heard_whole = said_whole
                target.refused = None
                continue
            if target.refused != verdict.reason:
                logger.error("%s", verdict.reason)
            target.admitted = False
            target.refused = verdict.reason
            target.refresh()
            if verdict.verdict is StoreVerdict.ROLLED_BACK and target.failed is None:
                renewal = self._renew(target, verdict.known_opening, verdict.known_incarnation)
                self._renewing[target.id] = asyncio.get_running_loop().create_task(renewal, name=f"renew {target.id}")
        if news and self._membership.routing is not None:
            self.apply(self._membership.routing)

    def _retire(self, verdict: TargetVerdict) -> None:
        """A target that is to leave its chain, or has left it."""
        target = self._by_id.get(verdict.target)
        if target is not None and not target.retired:
            target.retire(verdict.reason)
            asyncio.get_running_loop().call_soon(self.changed)
        if not verdict.remove:
            return
        self._missing.pop(verdict.target, None)
        self._refused.pop(verdict.target, None)
        if target is None or (target.position is None and not target.in_flight):
            self.retiring.remove(verdict.target, target.store if target is not None else None)

    def _judge_missing(self, verdict: TargetVerdict) -> None:
        """A target without a store."""
        if verdict.verdict is StoreVerdict.FORMAT:
            if verdict.target not in self._opening:
                self._begin_to_open(verdict.target, make=True)
        elif self._missing[verdict.target] != verdict.reason:
            logger.error("%s", verdict.reason)
            self._missing[verdict.target] = verdict.reason

    def open_again(self) -> None:
        """Try once more what routing gives this node and what is not open: a disk may be back."""
        if self._membership.routing is not None:
            self.apply(self._membership.routing)

    def closed_out(self) -> list[int]:
        """Targets that are not open, because there is no store or it was refused."""
        return [target for target in (*self._missing, *self._refused) if target not in self._opening]

    def refill(self, chain: int, chain_version: int) -> None:
        """The target is shown to lack something, or to have something else than its chain: it counts as one that may
        have lost something, and serves again when its chain has given it what it lacks. Raises INVALID for one that
        serves alone, and what `require` does."""
        target = self.require(chain)
        position = target.require(chain_version)
        if len(position.members) < 2:
            raise EmberError(Code.INVALID, f"target {target.id} serves alone: nobody has what it lacks")
        if target.id in self._renewing:
            return
        logger.warning("target %d is to be filled up again, as it differs from the others of its chain", target.id)
        target.admitted = False
        target.refresh()
        renewal = self._renew(target, target.store.opening, target.store.incarnation)
        self._renewing[target.id] = asyncio.get_running_loop().create_task(renewal, name=f"renew {target.id}")

    async def close_failed(self, target: Target) -> None:
        """Close the engine of a target that has failed, of which nothing is in work, so that it can be opened again."""
        self._by_id.pop(target.id, None)
        self.by_chain = {chain: other for chain, other in self.by_chain.items() if other is not target}
        self._distrusted.add(target.id)
        # Until it is opened again, or refused, it is what it was.
        self._refused[target.id] = target.why_not()
        target.place(None)
        try:
            await target.store.close()
        except (EmberError, OSError) as error:
            logger.warning("target %d did not close cleanly: %s", target.id, error)

    def _begin_to_open(self, target: int, *, make: bool) -> None:
        task = asyncio.get_running_loop().create_task(self._open(target, make), name=f"open target {target}")
        self._opening[target] = task

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

    def troubles(self) -> dict[int, str]:
        """Targets that do not serve and do not by themselves, and why."""
        found = {target: why for target, why in self._missing.items() if why} | self._refused
        for target in self._by_id.values():
            if target.retired:
                continue  # it is meant to
            failed = target.failed is not None or target.unfit is not None
            if failed or target.refused is not None or not target.store.whole:
                found[target.id] = target.why_not()
        return found

    def why_unknown(self, chain: int) -> str:
        if self._opening:
            return f"node {self.node} has no open target on chain {chain} yet: it is starting"
        return f"node {self.node} has no target on chain {chain}"

    def opening(self) -> list[int]:
        """Those that are not open yet: being opened, or without a store while the manager is asked what that means."""
        return sorted({*self._opening, *(target for target, why in self._missing.items() if not why)})

    def all(self) -> list[Target]:
        """Those that are open."""
        return list(self._by_id.values())

    def statuses(self) -> list[TargetStatus]:
        """For the heartbeat."""
        statuses = [self._status(target) for target in self._by_id.values()]
        self._said_whole = {status.target for status in statuses if status.whole}
        for target in self._opening.keys() - self._refused.keys() - self._missing.keys():
            statuses.append(TargetStatus(target, LocalState.OPENING, 0))
        for target, why in self._refused.items():
            statuses.append(TargetStatus(target, LocalState.OFFLINE, 0, trouble=f"its store cannot be opened: {why}"))
        for target, why in self._missing.items():
            # Until the manager has said what that means it may be one that never had a store.
            state = LocalState.OFFLINE if why else LocalState.OPENING
            statuses.append(TargetStatus(target, state, 0, no_store=target not in self._opening, trouble=why))
        statuses += [
            TargetStatus(target, LocalState.OFFLINE, 0)
            for target in sorted(self.retiring.left_over)
            if target not in self._by_id
        ]
        return statuses

    def _status(self, target: Target) -> TargetStatus:
        if target.id in self._renewing:
            return TargetStatus(target.id, LocalState.OPENING, 0, trouble=target.refused or "")
        store = target.store
        used_bytes = 0
        try:
            used_bytes = store.space().used_bytes
        except OSError as error:
            # The disk of one target; the others go on. Who says OFFLINE must not serve any more.
            target.fail(f"its disk does not answer: {error}")
        return TargetStatus(
            target.id,
            target.local_state,
            used_bytes,
            target.position.version if target.position is not None else 0,
            store.identity,
            store.opening,
            store.incarnation,
            position=store.position,
            recovered=store.recovered,
            whole=store.whole,
            trouble=_trouble(target),
            sync=_progress(target.sync),
        )

    async def close(self) -> None:
        """Wait for what is opening, then close every engine. Nothing may be in work any more."""
        self._closed = True
        await self.retiring.close()
        tasks = [*self._opening.values(), *self._alone.values(), *self._renewing.values()]
        await asyncio.gather(*tasks, return_exceptions=True)
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

    async def _renew(self, target: Target, opening: int, incarnation: int) -> None:
        """An old copy of its store was put back."""
        try:
            await target.store.renew(opening, incarnation)
        except EmberError as error:
            if error.code is Code.DISK_FAILED:
                target.fail(error.message)
        finally:
            del self._renewing[target.id]
        self.changed()

    async def _open(self, target_id: int, make: bool) -> None:
        try:
            store = await self._open_store(target_id, make)
            if target_id in self._distrusted:
                self._distrusted.discard(target_id)
                if store.whole:
                    await store.renew(store.opening, store.incarnation)
        except NoStore:
            if target_id not in self._missing:
                self._missing[target_id] = ""
                logger.warning("target %d has no store: the manager is asked what that means", target_id)
            self._refused.pop(target_id, None)
            asyncio.get_running_loop().call_soon(self.changed)
            return
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
        self._missing.pop(target_id, None)
        target = Target(target_id, store, self._membership)
        self._by_id[target_id] = target
        logger.info("target %d is open, %d versions are pending", target_id, len(target.replica.unsettled))
        if self._membership.routing is not None:
            self.apply(self._membership.routing)


def _serves(position: Position | None) -> bool:
    return position is not None and not position.syncing


def _alone(position: Position) -> bool:
    """Whether it is the only one that serves."""
    return not position.syncing and len(position.members) == 1


def _trouble(target: Target) -> str:
    """Why it does not serve, and will not by itself."""
    if target.failed is not None:
        return f"it has failed: {target.failed}"
    if target.unfit is not None:
        return f"it cannot be filled up: {target.unfit}"
    if target.refused is not None:
        return target.refused
    if target.store.whole:
        return ""
    return "it may have lost something that it had acknowledged" + (f": {target.mending}" if target.mending else "")


def _progress(filling: Filling | None) -> SyncProgress | None:
    if filling is None:
        return None
    began_ms = int((asyncio.get_running_loop().time() - filling.began_s) * 1000)
    return SyncProgress(*filling[:5], began_ms)
