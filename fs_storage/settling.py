"""Versions that an interrupted update left pending are driven to their end, without anybody asking.

A head asks the tail, commits what is committed there, and sends the rest down the chain again. A replica in the
middle commits what the tail has committed, be it forgotten since, and leaves the rest to its predecessor. A tail
commits all of it: what a tail has is committed by definition; only then is it `ready`.

One task for the daemon (`rounds`): what fails is tried again.
"""

import logging

from fs_common.errors import EmberError
from fs_storage.forward import Forwarder
from fs_storage.rounds import Rounds
from fs_storage.target import Target
from fs_storage.targets import Targets
from fs_storage.updates import Updates

logger = logging.getLogger(__name__)

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
        replica = target.replica
        if not replica.unsettled or not target.may_act:
            return
        left = [chunk for chunk in replica.unsettled if not replica.holds(chunk)]
        try:
            for start in range(0, len(left), BATCH):
                await self._settle_batch(target, left[start : start + BATCH])
        except EmberError as error:
            logger.debug("target %d cannot settle what is pending: %s", target.id, error)
            return
        position = target.position
        if position is not None and position.is_tail and not target.ready:
            target.ready = not target.store.pending()

    async def _settle_batch(self, target: Target, chunks: list[bytes]) -> None:
        position = target.position
        if position is None or not target.may_act:
            return
        if not position.is_tail:
            asked = [target.store.digest(chunk, pending=True) for chunk in chunks]
            told = await self._forwarder.committed_versions(target, chunks, TIMEOUT_S)
            await self._updates.confirm(target, list(zip(chunks, asked, told, strict=True)), TIMEOUT_S)
            chunks = [chunk for chunk in chunks if chunk in target.replica.unsettled]
        if chunks and (position.is_head or position.is_tail):
            await self._updates.settle(target, chunks, TIMEOUT_S)
