"""Versions that were left pending are driven to their end, and a new tail asks its predecessor (as `settling`)."""

from typing import TYPE_CHECKING

from fs_common.errors import EmberError
from fs_common.records.storage import UpdateKind
from fs_storage.craq.operation import Duty, Operation
from fs_storage.craq.position import Position
from fs_storage.engine.digest import NOTHING_DIGEST
from fs_storage.target import Target
from tests.sim.updates import Work

if TYPE_CHECKING:
    from tests.sim.daemon import Daemon

INTERVAL_MS = 1_000.0
TIMEOUT_MS = 4_000.0
UNFIT_MS = 15_000.0


class Settling:
    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon

    async def run(self) -> None:
        daemon = self._daemon
        while True:
            changed = daemon.changed.next
            for target in list(daemon.targets.values()):
                await self._look(target)
            await daemon.kernel.either(daemon, changed, INTERVAL_MS)

    async def _look(self, target: Target) -> None:
        daemon = self._daemon
        if target.unfit is not None and daemon.kernel.now > target.unfit_since_s * 1000 + UNFIT_MS:
            target.unfit = None
            daemon.nudged.open()
        position = target.position
        if position is None or position.syncing or not target.may_act:
            return
        agree = daemon.kernel.spawn(daemon, self._agree(target, position))
        left = [chunk for chunk in target.replica.unsettled if not target.replica.holds(chunk)]
        tasks = [daemon.kernel.spawn(daemon, self._settle(target, chunk)) for chunk in left]
        for task in (agree, *tasks):
            await task
        daemon.updates.execute(target)

    async def _agree(self, target: Target, position: Position) -> None:
        if not position.is_tail or target.agreed:
            return
        assert position.predecessor is not None
        if not self._daemon.defects.asks_no_predecessor:
            try:
                await self._daemon.network.call(
                    self._daemon,
                    f"n{position.predecessor.node}",
                    "at_version",
                    position.chain,
                    position.version,
                    timeout_ms=TIMEOUT_MS,
                )
            except EmberError:
                return
        if target.position == position:
            target.agreed = True

    async def _settle(self, target: Target, chunk: bytes) -> None:
        daemon = self._daemon
        position = target.position
        if position is None or not target.may_act:
            return
        if not position.is_tail:
            asked = target.store.digest(chunk, pending=True)
            try:
                told = await daemon.ask_tail(position, chunk, TIMEOUT_MS)
            except EmberError:
                return
            if not told.version and not position.is_head:
                try:
                    left = await daemon.ask_pending_before(position, chunk, TIMEOUT_MS)
                except EmberError:
                    return
                if left:
                    asked = NOTHING_DIGEST
            if target.position != position:
                return
            if not target.replica.holds(chunk):
                duty = Operation(
                    chunk,
                    Duty.CONFIRM,
                    chain_version=position.version,
                    version=told.version,
                    digest=told.digest,
                    base=asked,
                )
                await daemon.updates.perform(target, duty, Work(UpdateKind.WRITE, "", daemon.kernel.now + TIMEOUT_MS))
        if chunk in target.replica.unsettled and (position.is_head or position.is_tail):
            await daemon.updates.settle(target, chunk, TIMEOUT_MS)
