"""Versions that an interrupted update left pending are driven to their end, without anybody asking.

A head asks the tail, commits what is committed there, and sends the rest down the chain again. A replica in the
middle commits what the tail has committed, be it forgotten since, and leaves the rest to its predecessor. A tail
commits all of it: what a tail has is committed by definition; only what is of the present chain version goes to a
syncing successor first. A new tail is `ready` then, if its predecessor acts at this chain version, which it is asked.

One task for the daemon (`rounds`): what fails is tried again.
"""

import asyncio
import logging

from fs_common.errors import EmberError
from fs_storage.craq.position import Position
from fs_storage.engine.digest import NOTHING_DIGEST
from fs_storage.forward import Forwarder
from fs_storage.rounds import Rounds
from fs_storage.target import Target
from fs_storage.targets import Targets
from fs_storage.updates import Updates

logger = logging.getLogger(__name__)

UNFIT_S = 60.0
"""How long a target that could not take what it was sent says that it is offline, before it is tried again."""
ASK_AGAIN_S = 0.1
"""Readers of a whole chain wait for the answer."""
BATCH = 64
"""Chunks of one target that are settled together: bounds the memory of whole chunks on their way."""
TIMEOUT_S = 10.0


class Settling(Rounds):
    def __init__(self, targets: Targets, updates: Updates, forwarder: Forwarder, interval_s: float) -> None:
        super().__init__("settling", targets, interval_s)
        self._updates = updates
        self._forwarder = forwarder

    async def _look(self, target: Target) -> None:
        """One round over what is pending at `target` and held by nobody."""
        if target.unfit is not None and asyncio.get_running_loop().time() > target.unfit_since_s + UNFIT_S:
            target.unfit = None
            self._targets.changed()
        position = target.position
        if position is None or position.syncing or not target.may_act:
            return
        ends = await asyncio.gather(self._agree(target, position), self._settle(target), return_exceptions=True)
        for end in ends:
            if isinstance(end, EmberError):
                logger.debug("target %d cannot settle what is pending: %s", target.id, end)
            elif end is not None:
                raise end
        if target.become_ready():
            self._targets.changed()

    async def _agree(self, target: Target, position: Position) -> None:
        """A tail of before may speak yet. If it is alive it is the predecessor, or was taken out by a change that the
        predecessor knows of when it acts at this version."""
        while position.is_tail and target.position is position and not target.agreed:
            try:
                await self._forwarder.at_version(target, position, TIMEOUT_S)
            except EmberError as error:
                logger.debug("target %d does not know yet that it speaks alone: %s", target.id, error)
                await asyncio.sleep(ASK_AGAIN_S)
            else:
                target.agreed |= target.position is position

    async def _settle(self, target: Target) -> None:
        replica = target.replica
        left = [chunk for chunk in replica.unsettled if not replica.holds(chunk)]
        for start in range(0, len(left), BATCH):
            await self._settle_batch(target, left[start : start + BATCH])

    async def _settle_batch(self, target: Target, chunks: list[bytes]) -> None:
        position = target.position
        if position is None or not target.may_act:
            return
        if not position.is_tail:
            asked = [target.store.digest(chunk, pending=True) for chunk in chunks]
            told = await self._forwarder.committed_versions(position, chunks, TIMEOUT_S)
            unknown = [chunk for chunk, of_tail in zip(chunks, told, strict=True) if not of_tail.version]
            if unknown and not position.is_head:
                # A tail that has nothing may have forgotten a removal, or never had it. Who is past it knows.
                before = await self._forwarder.pending_before(position, unknown, TIMEOUT_S)
                waits = {chunk for chunk, left in zip(unknown, before, strict=True) if left.version}
                asked = [
                    NOTHING_DIGEST if chunk in waits else digest for chunk, digest in zip(chunks, asked, strict=True)
                ]
            if target.position is not position:
                # Who was asked may be another's predecessor or tail by now: the next round asks those of then.
                return
            await self._updates.confirm(target, list(zip(chunks, asked, told, strict=True)), TIMEOUT_S)
            chunks = [chunk for chunk in chunks if chunk in target.replica.unsettled]
        if chunks and (position.is_head or position.is_tail):
            await self._updates.settle(target, chunks, TIMEOUT_S)
