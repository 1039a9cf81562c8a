"""A target that may have lost something gets it back from the other replicas of its chain, and only then serves.

It asks each of them what it has, page by page and chunk by chunk in the order of chunk ids, and takes what
`craq/mend.plan` says: whole chunks, at most `PULLS_MAX` on their way at a time. Then it takes the answers they
remember, makes all of it durable, and declares itself whole: the commit point. Whatever interrupts this leaves a target
that is not whole, which begins again, and finds what it already has.

All other replicas have to be heard: an unreachable one is waited for, as nobody knows what it alone has. One that says
it is whole is waited for as well: it may have pending what this one has lost, and had been acknowledged. The manager
lets it go on without this one, which it fills up then. Nothing is committed on the chain meanwhile, because this target
refuses updates.

One task for the daemon (`rounds`). Time grows with the lists and with what differs; memory with a page of each list
and the chunks on their way.

Tasks and races: docs/concurrency/storage.md.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec.structs import astuple

from fs_common.buffers import BufferPool
from fs_common.checks import check
from fs_common.checksums import page_checksums
from fs_common.errors import Code, EmberError
from fs_common.layout import Durability
from fs_common.limits import CHUNK_SIZE_MIN
from fs_common.methods import LIST_HELD, LIST_REMEMBERED, Method
from fs_common.peers import MakePool
from fs_common.records.mending import (
    ListHeld,
    ListHeldReply,
    ListRemembered,
    ListRememberedReply,
)
from fs_common.records.routing import ChainTarget
from fs_common.records.storage import UpdateKind
from fs_common.telemetry import Counters
from fs_storage.craq.mend import Commit, Conflict, Drop, Other, Pull, Remove, Step, plan
from fs_storage.craq.position import Position
from fs_storage.engine.interface import Held, Remembered, Update
from fs_storage.pulling import Puller
from fs_storage.rounds import Rounds
from fs_storage.target import Target
from fs_storage.targets import Targets

logger = logging.getLogger(__name__)

PULLS_MAX = 4
"""Whole chunks on their way to this daemon at the same time: bounds memory and what others spend on it."""
PAGE = 512
CHUNKS_IN_A_ROW = 256
"""Chunks compared without a break."""
LIST_S = 10.0
PULL_S = 60.0
_NO_PAYLOAD = memoryview(b"")


class Mending(Rounds):
    def __init__(
        self, targets: Targets, make_pool: MakePool, pool: BufferPool, counters: Counters, interval_s: float
    ) -> None:
        super().__init__("mending", targets, interval_s)
        self._pool = pool
        self._counters = counters
        self._peers = make_pool()
        """Of its own: bulk must not delay the questions of readers."""
        self._puller = Puller(targets, self._peers)
        self._pulls = asyncio.Semaphore(PULLS_MAX)

    async def close(self) -> None:
        await super().close()
        await self._peers.close()

    async def _look(self, target: Target) -> None:
        """One attempt for one target, if it needs it."""
        position = target.position
        if target.store.whole or target.failed is not None or position is None or len(position.members) < 2:
            return
        if position.syncing:
            return  # its predecessor fills it up
        if target.replica.busy_chunks:
            return  # updates that began while it still served end first
        if not target.admitted or not target.membership.lease_valid():
            # Whose store this is, and what it may have lost, is known when the manager has been heard; and one that has
            # others that are whole is on its chain no more then.
            return
        try:
            await self._mend_here(target, position)
        except EmberError as error:
            if target.mending != error.message:
                target.mending = error.message
                logger.warning("target %d is not whole yet: %s", target.id, error.message)
        except Exception as error:
            logger.exception("target %d cannot be made whole: a defect of this process", target.id)
            target.fail(f"defect: {error!r}")

    async def _mend_here(self, target: Target, position: Position) -> None:
        """For as long as the chain does not change: what is under way then would go over what the chain sends."""
        work = asyncio.get_running_loop().create_task(self._mend(target, position), name=f"mend {target.id}")
        target.mends, target.stop_mending = True, work.cancel
        try:
            await asyncio.wait([work])
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            target.mends, target.stop_mending = False, None
            target.refresh()
        if not work.cancelled():
            work.result()

    async def _mend(self, target: Target, position: Position) -> None:
        others = [member for member in position.members if member.target != target.id]
        floor = await _Round(self, target, position, others).run()
        for member in others:
            await self._take_answers(target, position, member)
        store = target.store
        store.adopt((), floor)
        try:
            await store.sync()
            await store.checkpoint()
        except EmberError as error:
            if error.code is Code.DISK_FAILED:
                # After a failed sync nobody knows what is on the disk.
                target.fail(error.message)
            raise
        if target.position != position or not target.membership.lease_valid():
            raise EmberError(Code.CHAIN_VERSION, f"chain {position.chain} changed meanwhile")
        target.stop_mending = None  # what is whole has to be told so
        await store.declare_whole()
        target.mends = False
        target.mended()
        self._counters.add("targets_mended")
        logger.info("target %d is whole again", target.id)
        self._targets.changed()

    async def _take_answers(self, target: Target, position: Position, member: ChainTarget) -> None:
        after = b""
        while True:
            request = ListRemembered(position.chain, position.version, after, PAGE)
            reply: ListRememberedReply = await self._call(member, LIST_REMEMBERED, request, LIST_S)
            answers = [
                Remembered(one.client, one.channel, one.sequence, one.chunk, one.version, one.length)
                for one in reply.answers
            ]
            target.store.adopt(answers, 0)
            if not reply.next:
                return
            after = reply.next

    async def list(self, position: Position, member: ChainTarget, after: bytes) -> ListHeldReply:
        request = ListHeld(position.chain, position.version, after, PAGE, position.target)
        reply: ListHeldReply = await self._call(member, LIST_HELD, request, LIST_S)
        return reply

    async def pull(self, target: Target, position: Position, member: ChainTarget, chunk: bytes, step: Pull) -> None:
        """Fetch a version and store it."""
        async with self._pulls:
            buffer = self._pool.take(max(step.length, 1))
            try:
                view = buffer.view[: step.length]
                try:
                    reply = await self._puller.pull(
                        position, member, chunk, step.digest, step.chunk_size, view, pending=step.pending
                    )
                except EmberError as error:
                    raise _waits_for(member, error) from None
                identity = (reply.client, reply.channel, reply.sequence)
                await self._store(target, position, chunk, step, view, identity)
            finally:
                buffer.release()
        self._counters.add("chunks_mended")
        self._counters.add("bytes_mended", step.length)

    def conflict(self, target: Target, chunk: bytes, message: str) -> None:
        """What nobody can decide stays as it is, and is asked about at the tail."""
        logger.error("target %d, chunk %s: %s", target.id, chunk.hex(), message)
        self._counters.add("chunks_differed")
        target.conflicts[chunk] = message

    async def _store(
        self,
        target: Target,
        position: Position,
        chunk: bytes,
        step: Pull,
        payload: memoryview,
        identity: tuple[bytes, int, int],
    ) -> None:
        store = target.store
        if step.removed:
            await _drop_pending(target, chunk)
        update = Update(
            chunk,
            UpdateKind.REMOVE if step.removed else UpdateKind.REPLACE,
            0,
            payload,
            page_checksums(payload, 0, step.chunk_size),
            step.chunk_size,
            step.version,
            position.version,
            Durability.MEMORY,
            *identity,
        )
        await _prepare(target, update)
        if store.digest(chunk, pending=True) != step.digest:
            await store.abandon(chunk, step.version)
            raise EmberError(Code.CHECKSUM, f"version {step.version} of chunk {chunk.hex()} became another one here")
        if not step.pending:
            await store.commit([(chunk, step.version)])

    async def remove(self, target: Target, position: Position, chunk: bytes, version: int) -> None:
        await _drop_pending(target, chunk)
        update = Update(
            chunk,
            UpdateKind.REMOVE,
            0,
            _NO_PAYLOAD,
            b"",
            CHUNK_SIZE_MIN,
            version,
            position.version,
            Durability.MEMORY,
            b"",
            0,
            0,
        )
        await _prepare(target, update)
        await target.store.commit([(chunk, version)])
        self._counters.add("chunks_mended")

    async def _call(
        self,
        member: ChainTarget,
        method: Method,
        request: msgspec.Struct,
        timeout: float,
        into: Sequence[memoryview] = (),
    ) -> Any:
        try:
            address = self._targets.address(member.node)
            return await self._peers.call(address, method, request, into=into, timeout=timeout)
        except EmberError as error:
            raise _waits_for(member, error) from None


def _waits_for(member: ChainTarget, error: EmberError) -> EmberError:
    return EmberError(error.code, f"it waits for target {member.target} on node {member.node}: {error.message}")


class _List:
    """What one other replica has, page by page."""

    def __init__(self, mending: Mending, position: Position, member: ChainTarget) -> None:
        self.member = member
        self.floor = 0
        self._mending = mending
        self._position = position
        self._page: list[Held] = []
        self._next = 0
        self._more = True

    async def first(self) -> Held | None:
        """The first chunk that was not taken; None: there are no more."""
        if self._next == len(self._page) and self._more:
            after = self._page[-1].chunk if self._page else b""
            reply = await self._mending.list(self._position, self.member, after)
            self._page = [Held(*astuple(held)) for held in reply.chunks]
            self._next = 0
            self._more = len(self._page) == PAGE
            if reply.whole:
                name = f"target {self.member.target} on node {self.member.node}"
                raise EmberError(Code.NOT_SERVING, f"it waits to be filled up: {name} is whole")
            self.floor = max(self.floor, reply.floor)
        return self._page[self._next] if self._next < len(self._page) else None

    def take(self, chunk: bytes) -> Held:
        """What it has of `chunk`, whose turn it is."""
        if self._next < len(self._page) and self._page[self._next].chunk == chunk:
            self._next += 1
            return self._page[self._next - 1]
        return Held(chunk)


class _Round:
    """One walk over all chunks that any replica has."""

    def __init__(self, mending: Mending, target: Target, position: Position, others: Sequence[ChainTarget]) -> None:
        self._mending = mending
        self._target = target
        self._position = position
        self._lists = [_List(mending, position, member) for member in others]
        places = [member.target for member in position.members]
        self._behind = [places.index(member.target) > position.index for member in others]
        self._mine: list[Held] = []
        self._mine_next = 0
        self._mine_more = True
        self._last = b""
        """The chunk that was compared last."""
        self._floor = 0

    async def run(self) -> int:
        """Take all that differs. Returns the floor that goes with what the others have."""
        steps: set[asyncio.Task[None]] = set()
        compared = 0
        try:
            while (chunk := await self._next_chunk()) is not None:
                found = self._compare(chunk)
                if found:
                    steps.add(asyncio.get_running_loop().create_task(self._do(chunk, found)))
                if len(steps) >= PULLS_MAX:
                    done, steps = await asyncio.wait(steps, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        task.result()
                compared += 1
                if compared % CHUNKS_IN_A_ROW == 0:
                    await asyncio.sleep(0)
            for task in steps:
                await task
        finally:
            for task in steps:
                task.cancel()
            await asyncio.gather(*steps, return_exceptions=True)
        return max(self._floor, *(one.floor for one in self._lists))

    async def _next_chunk(self) -> bytes | None:
        if self._mine_next == len(self._mine) and self._mine_more:
            # What was stored meanwhile lies before: chunks are done in order.
            self._mine = self._target.store.held(self._last, PAGE)
            self._mine_next = 0
            self._mine_more = len(self._mine) == PAGE
        firsts = [await one.first() for one in self._lists]
        if self._mine_next < len(self._mine):
            firsts.append(self._mine[self._mine_next])
        return min((held.chunk for held in firsts if held is not None), default=None)

    def _compare(self, chunk: bytes) -> list[Step]:
        # Out of order, a chunk would look as if others had nothing of it, and be removed.
        check(chunk > self._last, "chunks are compared in order", chunk.hex(), self._last.hex())
        self._last = chunk
        mine = Held(chunk)
        if self._mine_next < len(self._mine) and self._mine[self._mine_next].chunk == chunk:
            mine = self._mine[self._mine_next]
            self._mine_next += 1
        others = [
            Other(one.take(chunk), source, behind)
            for source, (one, behind) in enumerate(zip(self._lists, self._behind, strict=True))
        ]
        for other in others:
            if other.held.removed:
                self._floor = max(self._floor, other.held.version)
            if other.held.pending_removed:
                self._floor = max(self._floor, other.held.pending_version)
        return plan(mine, others)

    async def _do(self, chunk: bytes, steps: list[Step]) -> None:
        target, store = self._target, self._target.store
        for step in steps:
            match step:
                case Remove(version):
                    await self._mending.remove(target, self._position, chunk, version)
                case Commit(version):
                    await store.commit([(chunk, version)])
                case Drop(version):
                    await store.abandon(chunk, version)
                case Pull():
                    await self._mending.pull(target, self._position, self._lists[step.source].member, chunk, step)
                case Conflict(message):
                    self._mending.conflict(target, chunk, message)


async def _drop_pending(target: Target, chunk: bytes) -> None:
    """Whatever is pending of `chunk` makes room for what the chain has."""
    state = target.store.state(chunk)
    if state is not None and state.pending_version:
        await target.store.abandon(chunk, state.pending_version)


async def _prepare(target: Target, update: Update) -> None:
    (result,) = await target.store.prepare([update])
    if isinstance(result, EmberError):
        if result.code is Code.DISK_FAILED:
            target.fail(result.message)
        raise result
