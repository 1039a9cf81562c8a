"""The end of filling up, at the syncing replica: FINISH_SYNC.

Its predecessor has sent it every chunk that differed, and each update since. What is left:

    1  The answers that the predecessor remembers are taken, so that a client which tries again is known here, too; and
       those of this replica that tell of updates which the chain does not have are retracted (`craq/fill.disowned`).
    2  The floor is taken.
    3  The store is synced, and its index written.
    4  The store is declared whole, and becomes another incarnation: it has what its chain has, whatever it had itself.
       Without that, a client would take it for a witness of what it acknowledged before, and the chain lost meanwhile.
    5  `Target.synced_version` is set, and the manager hears of it at once.

Whatever interrupts this is begun again when the predecessor says FINISH_SYNC again, as it does until the chain changes.

Why no answer is missing, whatever updates flow meanwhile: an update of this chain version is prepared here, with its
answer, before the predecessor commits it. So an answer to a committed update that is not here yet was committed there
before the page was read that would have it, or is older than one that is pending there, which is on its way. And a
page of this replica's answers is read before the predecessor's: see `disowned`.

Called by: the service. Tasks and races: docs/concurrency/storage.md.
"""

import asyncio
import logging
from functools import partial

from fs_common.errors import Code, EmberError
from fs_common.methods import LIST_REMEMBERED
from fs_common.peers import MakePool
from fs_common.records.mending import ListRemembered, ListRememberedReply
from fs_common.records.resync import FinishSync
from fs_common.records.routing import ChainTarget
from fs_common.records.session import Empty
from fs_common.rpc import Call, Reply
from fs_common.telemetry import Counters
from fs_storage.craq.fill import disowned
from fs_storage.craq.position import Position
from fs_storage.engine.interface import Remembered
from fs_storage.target import Target
from fs_storage.targets import Targets

logger = logging.getLogger(__name__)

PAGE = 512
LIST_S = 10.0
LINEAGE_MAX = 16
"""Chains change one replica after another: whoever has unsynced what was acknowledged so many fillings ago may be told
that it could be lost."""


class Finishing:
    """The handler of FINISH_SYNC."""

    def __init__(self, targets: Targets, make_pool: MakePool, counters: Counters) -> None:
        self._targets = targets
        self._counters = counters
        self._peers = make_pool()
        self._tasks: dict[tuple[int, int, int], asyncio.Task[None]] = {}
        """By chain, its version, and opening: what is asked again while it is in work is waited for."""

    async def finish_sync(self, call: Call) -> Reply:
        """FINISH_SYNC. Raises CHAIN_UNKNOWN, CHAIN_VERSION, NOT_SERVING, UPDATE_MISSING (of another opening: all has to
        be compared again), and what the predecessor or the disk says."""
        request: FinishSync = call.request
        target = self._targets.require(request.chain)
        position = self._require(target, request)
        if target.synced_version != position.version:
            key = (request.chain, request.chain_version, request.opening)
            task = self._tasks.get(key)
            if task is None:
                work = self._finish(target, position, request)
                task = self._tasks[key] = asyncio.get_running_loop().create_task(work, name=f"finish {target.id}")
                task.add_done_callback(partial(self._done, key))
            await asyncio.shield(task)
        return Reply(Empty())

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._peers.close()

    def _done(self, key: tuple[int, int, int], task: "asyncio.Task[None]") -> None:
        del self._tasks[key]
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, EmberError):
            logger.error("chain %d: filling up cannot be finished", key[0], exc_info=error)

    async def _finish(self, target: Target, position: Position, request: FinishSync) -> None:
        assert position.predecessor is not None
        store = target.store
        await self._take_answers(target, position, position.predecessor)
        self._require(target, request)
        store.adopt((), request.floor)
        try:
            await store.sync()
            await store.checkpoint()
            self._require(target, request)
            await store.declare_filled()
        except EmberError as error:
            if error.code is Code.DISK_FAILED:
                # After a failed sync nobody knows what is on the disk.
                target.fail(error.message)
                self._targets.changed()
            raise
        if self._require(target, request) != position:
            raise EmberError(Code.CHAIN_VERSION, f"chain {position.chain} changed meanwhile")
        target.filled(position.version, request.lineage[:LINEAGE_MAX])
        self._counters.add("targets_synced")
        logger.info("target %d is filled up at version %d of chain %d", target.id, position.version, position.chain)
        self._targets.changed()

    async def _take_answers(self, target: Target, position: Position, predecessor: ChainTarget) -> None:
        store = target.store
        after = b""
        while True:
            mine, following = store.remembered(after, PAGE)
            wanted = {(answer.client, answer.channel) for answer in mine}
            theirs: dict[tuple[bytes, int], Remembered] = {}
            cursor = after
            while True:
                page, cursor = await self._answers(position, predecessor, cursor)
                store.adopt([answer for answer in page if answer.committed], 0)
                theirs.update(
                    ((answer.client, answer.channel), answer)
                    for answer in page
                    if (answer.client, answer.channel) in wanted
                )
                if not cursor or (following and cursor >= following):
                    break
            wrong = disowned(mine, theirs)
            store.retract(wrong)
            again = [theirs[key] for answer in wrong if (key := (answer.client, answer.channel)) in theirs]
            store.adopt([answer for answer in again if answer.committed], 0)
            if not following:
                return
            after = following

    async def _answers(
        self, position: Position, predecessor: ChainTarget, after: bytes
    ) -> tuple[list[Remembered], bytes]:
        request = ListRemembered(position.chain, position.version, after, PAGE, True)
        try:
            address = self._targets.address(predecessor.node)
            reply: ListRememberedReply = await self._peers.call(address, LIST_REMEMBERED, request, timeout=LIST_S)
        except EmberError as error:
            raise EmberError(
                error.code, f"the answers of target {predecessor.target} cannot be had: {error.message}"
            ) from None
        answers = [
            Remembered(one.client, one.channel, one.sequence, one.chunk, one.version, one.length, one.committed)
            for one in reply.answers
        ]
        return answers, reply.next

    def _require(self, target: Target, request: FinishSync) -> Position:
        """Its place, if it is what the request is for."""
        position = target.position
        if position is None or target.failed is not None or not target.admitted or not target.membership.lease_valid():
            raise EmberError(Code.NOT_SERVING, target.why_not())
        if position.version != request.chain_version or not position.syncing:
            raise EmberError(
                Code.CHAIN_VERSION,
                f"target {target.id} is at version {position.version} of chain {position.chain}, and"
                f" {'syncing' if position.syncing else 'not syncing'}",
            )
        if position.predecessor is None or position.predecessor.target != request.source:
            raise EmberError(Code.CHAIN_VERSION, f"target {request.source} does not precede target {target.id}")
        if target.store.opening != request.opening:
            raise EmberError(
                Code.UPDATE_MISSING,
                f"the store of target {target.id} was opened anew ({target.store.opening}) after what was compared"
                f" ({request.opening})",
            )
        return position
