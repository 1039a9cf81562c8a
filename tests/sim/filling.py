"""A tail fills up its syncing successor in rounds, with the real comparison; and that one's answer to FINISH_SYNC."""

from typing import TYPE_CHECKING, Any

from fs_common.errors import Code, EmberError
from fs_common.records.routing import ChainTarget
from fs_storage.craq.fill import Fill, disowned
from fs_storage.craq.position import Position
from fs_storage.engine.interface import Remembered
from fs_storage.target import Target
from tests.sim.mending import CALL_MS, PAGE

if TYPE_CHECKING:
    from tests.sim.daemon import Daemon

INTERVAL_MS = 1_000.0
PUSH_MS = 10_000.0


class Filling:
    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        self._finished: dict[int, tuple[int, int]] = {}
        """By target: chain version and opening of the successor's store of the round that was finished last."""
        self._finishing: set[tuple[int, int]] = set()

    async def run(self) -> None:
        daemon = self._daemon
        while True:
            changed = daemon.changed.next
            for target in list(daemon.targets.values()):
                if self._may_fill(target):
                    try:
                        await self._round(target)
                    except EmberError as error:
                        daemon.trace(f"target {target.id} cannot fill its successor: {error}")
            await daemon.kernel.either(daemon, changed, INTERVAL_MS)

    def _may_fill(self, target: Target) -> bool:
        position = target.position
        if position is None or not position.fills or not target.serves:
            return False
        return target.may_fill or self._daemon.defects.fills_before_it_is_ready

    async def _round(self, target: Target) -> None:
        position = target.position
        assert position is not None and position.successor is not None
        daemon, successor = self._daemon, position.successor
        fill = Fill()
        opening = 0
        while True:
            if fill.theirs.wanting:
                page, _, _, its_opening = await self._call(
                    successor,
                    "list_held",
                    position.chain,
                    position.version,
                    fill.theirs.after,
                    PAGE,
                    target.id,
                )
                if opening and its_opening != opening:
                    raise EmberError(Code.UPDATE_MISSING, "its store was opened anew")
                opening = its_opening
                if not fill.theirs.after and self._finished.get(target.id) == (position.version, opening):
                    return await self._finish(target, position, successor, opening)
                fill.theirs.give(page, PAGE)
            if fill.mine.wanting:
                store: Any = target.store
                fill.mine.give(store.held(fill.mine.after, PAGE), PAGE)
            if target.position != position:
                return None
            tasks = []
            for push in fill.compare():
                if daemon.defects.skips_chunks and daemon.kernel.random.random() < 0.3:
                    continue
                tasks.append(daemon.kernel.spawn(daemon, daemon.updates.push(target, push.chunk, PUSH_MS)))
            failures = [await task for task in tasks]
            for failure in failures:
                if failure is not None:
                    raise EmberError(failure.code, failure.message)
            daemon.checks.count("pushed", len(tasks))
            if fill.done:
                break
        await self._finish(target, position, successor, opening)
        self._finished[target.id] = (position.version, opening)

    async def _finish(self, target: Target, position: Position, successor: ChainTarget, opening: int) -> None:
        await self._call(
            successor,
            "finish_sync",
            position.chain,
            position.version,
            target.id,
            opening,
            target.store.floor,
        )

    async def _call(self, member: ChainTarget, method: str, *arguments: Any) -> Any:
        return await self._daemon.network.call(self._daemon, f"n{member.node}", method, *arguments, timeout_ms=CALL_MS)

    # -- at the syncing replica --------------------------------------------------------------------------------

    async def finish_sync(self, chain: int, chain_version: int, source: int, opening: int, floor: int) -> None:
        daemon = self._daemon
        target = daemon.target(chain)
        position = self._require(target, chain_version, source, opening)
        if target.synced_version == position.version:
            return
        key = (chain_version, opening)
        if key in self._finishing:
            raise EmberError(Code.BUSY, "it is being finished")
        self._finishing.add(key)
        try:
            await self._take(target, position, chain_version, source, opening, floor)
        finally:
            self._finishing.discard(key)

    async def _take(
        self, target: Target, position: Position, chain_version: int, source: int, opening: int, floor: int
    ) -> None:
        daemon = self._daemon
        store: Any = target.store
        if daemon.defects.copies_answers:
            await self._take_answers(target, position)
        self._require(target, chain_version, source, opening)
        store.adopt((), floor)
        await daemon.write(target, store.sync)
        self._require(target, chain_version, source, opening)
        if not store.whole:
            await daemon.write(target, store.declare_whole)
        if self._require(target, chain_version, source, opening) != position:
            raise EmberError(Code.CHAIN_VERSION, "the chain changed meanwhile")
        target.filled(position.version)
        daemon.trace(f"target {target.id} is filled up at v{position.version}: {store.chunks}")
        daemon.checks.count("filled")
        daemon.nudged.open()
        daemon.changed.open()

    async def _take_answers(self, target: Target, position: Position) -> None:
        store: Any = target.store
        predecessor = position.predecessor
        assert predecessor is not None
        mine: list[Remembered] = []
        after = b""
        while True:
            page, after = store.remembered(after, PAGE)
            mine += page
            if not after:
                break
        theirs: dict[tuple[bytes, int], Remembered] = {}
        while True:
            page, after = await self._call(predecessor, "remembered", position.chain, position.version, after, True)
            store.adopt([answer for answer in page if answer.committed], 0)
            theirs.update(((answer.client, answer.channel), answer) for answer in page)
            if not after:
                break
        if not self._daemon.defects.retracts_answers:
            return
        wrong = disowned(mine, theirs)
        store.retract(wrong)
        again = [theirs[key] for answer in wrong if (key := (answer.client, answer.channel)) in theirs]
        store.adopt([answer for answer in again if answer.committed], 0)

    def _require(self, target: Target, chain_version: int, source: int, opening: int) -> Position:
        position = target.position
        if position is None or target.failed is not None or not target.admitted or not self._daemon.lease_valid():
            raise EmberError(Code.NOT_SERVING, "it does not act")
        if position.version != chain_version or not position.syncing:
            raise EmberError(Code.CHAIN_VERSION, f"it is at version {position.version}")
        if position.predecessor is None or position.predecessor.target != source:
            raise EmberError(Code.CHAIN_VERSION, "another one precedes it")
        if target.store.opening != opening:
            raise EmberError(Code.UPDATE_MISSING, "its store was opened anew")
        return position
