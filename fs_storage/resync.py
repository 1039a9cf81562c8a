"""A tail fills up the syncing replica behind it.

One task for each target that has one (`Position.fills`), for as long as its place on the chain is the same. It works in
rounds, each for one opening of the successor's store:

    1  Both lists are walked side by side (`craq/fill`). Each chunk that differs is pushed: an operation in the chunk's
       queue (`Updates.push`). Pushes go in batches, some of them at a time, as `throttle` lets them.
    2  When all of them are there: FINISH_SYNC, with the opening by which the lists were compared, and the floor; again
       at an interval, until the chain changes.

Whatever interrupts a round is logged once and followed by another one, which skips what is equal. So nothing is lost by
a round that ends early, and nothing is stored of how far it came. Time grows with the lists and with what differs;
memory with three pages of the lists and the batches on their way.

Called by: the service. Tasks and races: docs/concurrency/storage.md.
"""

import asyncio
import logging
from functools import partial
from typing import Any

import msgspec

from fs_common.endless import keep
from fs_common.errors import Code, EmberError, code_of
from fs_common.limits import MIB
from fs_common.methods import FINISH_SYNC, LIST_HELD, Method
from fs_common.peers import MakePool
from fs_common.records.mending import ListHeld, ListHeldReply
from fs_common.records.resync import FinishSync
from fs_common.records.routing import ChainTarget
from fs_common.telemetry import Counters
from fs_storage.craq.fill import Fill, Push
from fs_storage.craq.position import Position
from fs_storage.rounds import Rounds
from fs_storage.target import Filling, Target
from fs_storage.targets import Targets
from fs_storage.throttle import AT_ONCE, Throttle
from fs_storage.updates import Updates

logger = logging.getLogger(__name__)

PAGE = 512
"""Chunks of a list: some milliseconds of the loop that gives it."""
BATCH_CHUNKS = 64
BATCH_BYTES = 4 * MIB
"""Of chunks that are pushed together (one alone may be larger): few enough for clients not to notice one batch."""
LIST_S = 10.0
PUSH_S = 60.0
FINISH_S = 120.0
"""The successor syncs its store meanwhile. A call that takes longer is made again, and waits for the same sync."""
PAUSE_S_MIN = 0.05
"""After a round that was interrupted; twice as long after each, up to the interval."""


class Resync(Rounds):
    """`_look` only sees to it that each target that fills has its task: one that takes long delays no other."""

    def __init__(
        self,
        targets: Targets,
        updates: Updates,
        make_pool: MakePool,
        throttle: Throttle,
        counters: Counters,
        interval_s: float,
    ) -> None:
        super().__init__("resync", targets, interval_s)
        self._updates = updates
        self._throttle = throttle
        self._counters = counters
        self._peers = make_pool()
        self._fills: dict[int, tuple[Position, asyncio.Task[None]]] = {}
        """By target: the place from which it fills, and the task."""

    async def close(self) -> None:
        await super().close()
        tasks = [task for _, task in self._fills.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._fills.clear()
        await self._peers.close()

    async def _look(self, target: Target) -> None:
        position = target.position
        filling = self._fills.get(target.id)
        if filling is not None and (filling[0] != position or not target.serves):
            del self._fills[target.id]
            filling[1].cancel()
            await asyncio.gather(filling[1], return_exceptions=True)
            target.sync = None
        if position is not None and target.may_fill and target.id not in self._fills:
            run = partial(self._fill, target, position)
            self._fills[target.id] = position, keep(run, f"fill the successor of {target.id}", end_on=())

    async def _fill(self, target: Target, position: Position) -> None:
        """Until cancelled."""
        told = ""
        pause_s = PAUSE_S_MIN
        while True:
            try:
                await self._round(target, position)
            except EmberError as error:
                if told != (told := error.message):
                    logger.warning("target %d fills up its successor: %s", target.id, error.message)
                self._counters.add("resync_rounds_interrupted")
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, self._interval_s)

    async def _round(self, target: Target, position: Position) -> None:
        """Returns by an error only."""
        successor = position.successor
        assert successor is not None
        began_s = asyncio.get_running_loop().time()
        target.sync = Filling(successor.target, 0, target.store.space().chunks, 0, 0, began_s)
        own = target.holders[0]
        opening = await _Round(self, target, position, successor).run()
        self.check(target, position)
        if target.holders[0].incarnation != own.incarnation:
            raise EmberError(Code.NOT_SERVING, f"target {target.id} was found to have lost something meanwhile")
        lineage = [own, *target.lineage]
        request = FinishSync(position.chain, position.version, target.id, opening, target.store.floor, lineage)
        told = False
        while True:
            self.check(target, position)
            await self.call(successor, FINISH_SYNC, request, FINISH_S)
            if not told:
                told = True
                took_s = asyncio.get_running_loop().time() - began_s
                done = target.sync
                logger.info(
                    "target %d has filled up target %d in %.1f s: %d chunks of %d differed, %d bytes were sent",
                    target.id,
                    successor.target,
                    took_s,
                    done.chunks_sent,
                    done.chunks_done,
                    done.bytes_sent,
                )
                self._counters.add("targets_filled")
            await asyncio.sleep(self._interval_s)

    def check(self, target: Target, position: Position) -> None:
        """It may still fill up its successor from there."""
        if target.position != position:
            raise EmberError(Code.CHAIN_VERSION, f"chain {position.chain} has changed")
        if not target.serves:
            raise EmberError(Code.NOT_SERVING, target.why_not())

    async def ask_list(self, position: Position, successor: ChainTarget, after: bytes) -> ListHeldReply:
        request = ListHeld(position.chain, position.version, after, PAGE, position.target)
        reply: ListHeldReply = await self.call(successor, LIST_HELD, request, LIST_S)
        return reply

    async def push(self, target: Target, position: Position, batch: list[Push], elsewhere: bool) -> None:
        """Bring these chunks to the successor. Raises what one of them failed by. `elsewhere`: it serves clients."""
        size = sum(push.length for push in batch)
        async with self._throttle.turn(size, elsewhere=elsewhere):
            self.check(target, position)
            request = await self._updates.push(target, [push.chunk for push in batch], PUSH_S)
        sent = len(batch) - len(request.errors)
        sent_bytes = sum(request.lengths)
        self._counters.add("chunks_resynced", sent)
        self._counters.add("bytes_resynced", sent_bytes)
        if target.sync is not None:
            target.sync = target.sync._replace(
                chunks_sent=target.sync.chunks_sent + sent, bytes_sent=target.sync.bytes_sent + sent_bytes
            )
        for failed in request.errors:
            chunk = batch[failed.index].chunk
            if code_of(failed.code) is Code.CHECKSUM:
                self._targets.suspect(target, chunk)  # it may be damaged here, and is repaired then
            raise EmberError(code_of(failed.code), f"chunk {chunk.hex()} is not there yet: {failed.message}")

    def turn_to_list(self, elsewhere: bool) -> Any:
        """Around the work on one page."""
        return self._throttle.turn(0, elsewhere=elsewhere)

    async def call(self, member: ChainTarget, method: Method, request: msgspec.Struct, timeout: float) -> Any:
        try:
            address = self._targets.address(member.node)
            return await self._peers.call(address, method, request, timeout=timeout)
        except EmberError as error:
            raise EmberError(error.code, f"target {member.target} on node {member.node}: {error.message}") from None


class _Round:
    """One walk over both lists."""

    def __init__(self, resync: Resync, target: Target, position: Position, successor: ChainTarget) -> None:
        self._resync = resync
        self._target = target
        self._position = position
        self._successor = successor
        self._fill = Fill()
        self._opening: int | None = None
        """Of the successor's store, by its first page."""
        self._asked: asyncio.Task[ListHeldReply] | None = None
        """The page after the one that is compared: the other side lists while this one compares."""
        self._serving = False
        """The successor's daemon serves clients, by its last page."""
        self._pushes: set[asyncio.Task[None]] = set()
        self._batch: list[Push] = []
        self._batch_bytes = 0

    async def run(self) -> int:
        """Push all that differs. Returns the opening of the successor's store for which that holds."""
        fill = self._fill
        try:
            while not fill.done:
                async with self._resync.turn_to_list(self._serving):
                    await self._give_pages()
                    found = fill.compare()
                for push in found:
                    await self._take(push)
                self._note()
            await self._send()
            while self._pushes:
                await self._one_is_there()
        finally:
            tasks = [*self._pushes, *([self._asked] if self._asked is not None else [])]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert self._opening is not None
        return self._opening

    async def _give_pages(self) -> None:
        mine, theirs = self._fill.mine, self._fill.theirs
        if theirs.wanting:
            if self._asked is None:
                self._ask(theirs.after)
            assert self._asked is not None
            reply = await self._asked
            self._asked = None
            if self._opening not in (None, reply.opening):
                raise EmberError(Code.UPDATE_MISSING, f"target {self._successor.target} was started anew")
            self._opening = reply.opening
            self._serving = reply.serving
            theirs.give(reply.chunks, PAGE)
            if not theirs.ended:
                self._ask(theirs.after)
        if mine.wanting:
            self._resync.check(self._target, self._position)
            mine.give(self._target.store.held(mine.after, PAGE), PAGE)

    def _ask(self, after: bytes) -> None:
        work = self._resync.ask_list(self._position, self._successor, after)
        self._asked = asyncio.get_running_loop().create_task(work, name=f"list for {self._target.id}")

    def _note(self) -> None:
        if self._target.sync is not None:
            done, total = self._fill.compared, self._target.sync.chunks_total
            # Chunks may have been made meanwhile, and the other side has some that are gone here.
            self._target.sync = self._target.sync._replace(chunks_done=done, chunks_total=max(done, total))

    async def _take(self, push: Push) -> None:
        if self._batch and (len(self._batch) == BATCH_CHUNKS or self._batch_bytes + push.length > BATCH_BYTES):
            await self._send()
        self._batch.append(push)
        self._batch_bytes += push.length

    async def _send(self) -> None:
        """Start on the batch, once there are few enough others."""
        if not self._batch:
            return
        batch, self._batch, self._batch_bytes = self._batch, [], 0
        while len(self._pushes) >= AT_ONCE:
            await self._one_is_there()
        work = self._resync.push(self._target, self._position, batch, self._serving)
        self._pushes.add(asyncio.get_running_loop().create_task(work, name=f"push from {self._target.id}"))

    async def _one_is_there(self) -> None:
        done, self._pushes = await asyncio.wait(self._pushes, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
