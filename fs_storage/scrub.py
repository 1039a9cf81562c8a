"""The scrub: reads everything that is stored, again and again, within a bound, and compares replicas at rest.

A pass over a target walks its chunks in the order of their ids. Each is read from the disk and compared with its
checksums (`ChunkStore.check_stored`); damage is repaired at once (`repairs`). The head of a chain also compares what
each replica has of each chunk, by the digests of their lists: what differs at rest, seen twice, is reported. Nothing is
changed for it: which side is right is decided where somebody asks for it (`emberfs fsck --repair`).

The position is kept with the store (`keep_note`), so a daemon that restarts often still gets through. A pass begins a
while after the one before began, or when it is asked for.

It gives way: one thread reads, after everybody else, at most `bytes_per_s`, and a quarter of that while the daemon is
busy.

One task for the daemon. Tasks and races: docs/concurrency/damage.md.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor

import msgspec
from msgspec.structs import astuple

from fs_common.endless import keep
from fs_common.errors import Code, EmberError
from fs_common.methods import LIST_HELD
from fs_common.peers import MakePool
from fs_common.records.mending import ListHeld, ListHeldReply
from fs_common.records.routing import ChainTarget
from fs_common.records.scrubbing import Scrub as ScrubRequest
from fs_common.records.scrubbing import ScrubReply, ScrubStatus
from fs_common.rpc import Call, Reply
from fs_common.telemetry import Counters
from fs_storage.craq.position import Position
from fs_storage.engine.interface import Held
from fs_storage.repairs import Outcome, Repairs
from fs_storage.target import Target
from fs_storage.targets import Targets

logger = logging.getLogger(__name__)

PAGE = 64
"""Chunks looked at before another target has its turn."""
LOOK_AGAIN_S = 1.0
"""Between two looks at a chunk that seems to differ: an update that is under way is over by then."""
LIST_S = 10.0
SAVE_S = 15.0
"""How often the position is kept: what a crash makes it read again."""
REST_S = 5.0
"""How often it is looked whether a pass is due."""
BUSY_PER_S = 100
"""Reads and updates of the daemon in a second from which on the scrub takes a quarter of its bandwidth."""
BUSY_SHARE = 4
LINES_MAX = 100
"""Findings of one target that are told in words."""
_KEY_MAX = b"\xff" * 12


class Progress(msgspec.Struct):
    """Of one target; kept as JSON."""

    number: int = 0
    running: bool = False
    after: str = ""
    """The last chunk that was looked at, hexadecimal."""
    began_s: float = 0.0
    """Seconds since the epoch: only for when the next pass is due, and for people. Without a pass (`number` 0): when
    the target was first seen."""
    ended_s: float = 0.0
    chunks: int = 0
    bytes: int = 0
    repaired: int = 0
    not_compared: int = 0
    bytes_per_s: int = 0
    """Of this pass; 0: as configured."""


class Scrub:
    def __init__(
        self,
        targets: Targets,
        repairs: Repairs,
        make_pool: MakePool,
        thread: Executor,
        counters: Counters,
        *,
        bytes_per_s: int,
        interval_s: float,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`bytes_per_s` 0: only when it is asked for."""
        self._targets = targets
        self._repairs = repairs
        self._thread = thread
        self._counters = counters
        self.bytes_per_s = bytes_per_s
        self.interval_s = interval_s
        self._now = now
        self._peers = make_pool()
        self._progress: dict[int, Progress] = {}
        """By target; there once its note was read."""
        self._differing: dict[int, dict[bytes, str]] = {}
        self._saved_s: dict[int, float] = {}
        """When the note was kept last, by the loop's clock."""
        self._free_s = 0.0
        """When the bandwidth is free again, by the loop's clock."""
        self._operations = 0
        """The daemon's, when it was looked last, at `_looked_s`."""
        self._looked_s = 0.0
        self._kicked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = keep(self._run, "scrub", end_on=())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
            for target in self._targets.all():
                if target.id in self._progress:
                    await self._save(target)
        await self._peers.close()

    # -- for people ------------------------------------------------------------------------------------------------

    async def scrub(self, call: Call) -> Reply:
        """SCRUB."""
        request: ScrubRequest = call.request
        if request.bytes_per_s < 0:
            raise EmberError(Code.INVALID, f"{request.bytes_per_s} bytes in a second are none")
        if request.start:
            for target in self._targets.all():
                position = target.position
                if position is not None and (not request.chains or position.chain in request.chains):
                    await self._begin(target, await self._of(target), request.bytes_per_s)
            self._kicked.set()
        return Reply(ScrubReply([self._status(target) for target in self._targets.all()], self._now()))

    def _status(self, target: Target) -> ScrubStatus:
        progress = self._progress.get(target.id, Progress())
        try:
            total = target.store.space().chunks
        except OSError:
            total = 0
        return ScrubStatus(
            target.id,
            target.position.chain if target.position is not None else 0,
            progress.number,
            progress.running,
            progress.began_s,
            progress.ended_s,
            progress.chunks,
            total,
            progress.bytes,
            progress.repaired,
            list(self._repairs.damaged(target.id).values())[:LINES_MAX],
            list(self._differing.get(target.id, {}).values())[:LINES_MAX],
            progress.not_compared,
        )

    def progress(self, target: int) -> Progress:
        """Of its pass, or the last one."""
        return self._progress.get(target) or Progress()

    def differing(self, target: int) -> int:
        """Chunks of the target of which another replica has something else."""
        return len(self._differing.get(target, ()))

    # -- passes ----------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            self._kicked.clear()
            worked = False
            for target in self._targets.all():
                if target.may_act and await self._is_due(target):
                    await self._step(target)
                    worked = True
            if not worked:
                with contextlib.suppress(TimeoutError):
                    # Not `wait_for`: in Python 3.11 it may lose a cancellation.
                    async with asyncio.timeout(REST_S):
                        await self._kicked.wait()

    async def _is_due(self, target: Target) -> bool:
        progress = await self._of(target)
        if progress.running:
            return True
        if not self.bytes_per_s:
            return False
        if not progress.began_s:
            # What is new on a disk is not looked at at once.
            progress.began_s = self._now()
            await self._save(target)
        # A clock that was set back, even by years, does not stop the scrub for so long.
        if abs(self._now() - progress.began_s) < self.interval_s:
            return False
        await self._begin(target, progress, 0)
        return True

    async def _of(self, target: Target) -> Progress:
        progress = self._progress.get(target.id)
        if progress is None:
            note = await asyncio.get_running_loop().run_in_executor(self._thread, target.store.kept_note)
            try:
                progress = msgspec.json.decode(note, type=Progress) if note else Progress()
                bytes.fromhex(progress.after)
            except (msgspec.DecodeError, ValueError) as error:
                logger.warning("where the scrub of target %d was is not known (%s): it begins anew", target.id, error)
                progress = Progress()
            progress = self._progress.setdefault(target.id, progress)
        return progress

    async def _begin(self, target: Target, progress: Progress, bytes_per_s: int) -> None:
        progress.number += 1
        progress.running = True
        progress.after = ""
        progress.began_s = self._now()
        progress.chunks = progress.bytes = progress.repaired = progress.not_compared = 0
        progress.bytes_per_s = bytes_per_s
        await self._save(target)

    async def _save(self, target: Target) -> None:
        note = msgspec.json.encode(self._progress[target.id])
        self._saved_s[target.id] = asyncio.get_running_loop().time()
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, target.store.keep_note, note)
        except OSError as error:
            # It begins at an earlier place after the next start; if the disk has failed, updates find that.
            logger.warning("where the scrub of target %d is cannot be kept: %s", target.id, error)

    async def _step(self, target: Target) -> None:
        """The next page of chunks."""
        progress = self._progress[target.id]
        number = progress.number
        after = bytes.fromhex(progress.after)
        page = target.store.held(after, PAGE)
        last = page[-1].chunk if len(page) == PAGE else _KEY_MAX
        doubts = await self._doubts(target, progress, after, last, page)
        for held in page:
            if not held.version or held.removed or not held.length:
                continue
            if not target.may_act:
                return
            await self._look(target, progress, held)
            if progress.number != number:
                return  # it was asked to begin anew
            progress.after = held.chunk.hex()
            if asyncio.get_running_loop().time() - self._saved_s.get(target.id, 0.0) >= SAVE_S:
                await self._save(target)
        await self._settle_doubts(target, after, last, doubts)
        if progress.number != number:
            return
        if len(page) == PAGE:
            progress.after = last.hex()
            return
        progress.running = False
        progress.after = ""
        progress.ended_s = self._now()
        self._counters.add("scrub_passes")
        logger.info(
            "target %d is scrubbed: %d chunks, %d repaired, %d damaged, %d differ",
            *(target.id, progress.chunks, progress.repaired),
            *(len(self._repairs.damaged(target.id)), self.differing(target.id)),
        )
        await self._save(target)

    async def _look(self, target: Target, progress: Progress, held: Held) -> None:
        await self._wait_for_bandwidth(progress, held.length)
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._thread, target.store.check_stored, held.chunk)
        except EmberError as error:
            if error.code is not Code.DISK_FAILED:
                raise
            target.fail(error.message)
            return
        progress.chunks += 1
        progress.bytes += held.length
        self._counters.add("scrub_chunks")
        self._counters.add("scrub_bytes", held.length)
        if found is not None and found.bad_pages:
            self._counters.add("scrub_chunks_damaged")
            if await self._repairs.examine(target, held.chunk, found) is Outcome.REPAIRED:
                progress.repaired += 1

    async def _wait_for_bandwidth(self, progress: Progress, length: int) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        rate = progress.bytes_per_s or self.bytes_per_s
        if not rate:
            await asyncio.sleep(0)
            return
        operations = self._counters["reads"] + self._counters["updates"]
        if operations - self._operations > BUSY_PER_S * (now - self._looked_s):
            rate = max(1, rate // BUSY_SHARE)
        if now - self._looked_s >= 1.0:
            self._operations, self._looked_s = operations, now
        begin = max(self._free_s, now)
        self._free_s = begin + length / rate
        await asyncio.sleep(begin - now)

    # -- the other replicas ----------------------------------------------------------------------------------------

    async def _doubts(
        self, target: Target, progress: Progress, after: bytes, last: bytes, page: list[Held]
    ) -> dict[bytes, list[tuple[ChainTarget, Held, Held]]]:
        """Chunks above `after` up to `last` of which another replica seems to have something else."""
        position = target.position
        doubts: dict[bytes, list[tuple[ChainTarget, Held, Held]]] = {}
        if position is None or not position.is_head:
            return doubts
        mine = {held.chunk: held for held in page}
        for member in position.members[1:]:
            try:
                theirs = await self._list(position, member, after, last)
            except EmberError as error:
                logger.debug("target %d is not compared: %s", member.target, error)
                progress.not_compared += len(page)
                continue
            for chunk in mine.keys() | theirs.keys():
                one, other = mine.get(chunk, Held(chunk)), theirs.get(chunk, Held(chunk))
                if _differ(one, other):
                    doubts.setdefault(chunk, []).append((member, one, other))
        return doubts

    async def _list(self, position: Position, member: ChainTarget, after: bytes, last: bytes) -> dict[bytes, Held]:
        found: dict[bytes, Held] = {}
        address = self._targets.address(member.node)
        while True:
            request = ListHeld(position.chain, position.version, after, PAGE)
            reply: ListHeldReply = await self._peers.call(address, LIST_HELD, request, timeout=LIST_S)
            for chunk in reply.chunks:
                if chunk.chunk > last:
                    return found
                found[chunk.chunk] = Held(*astuple(chunk))
            if len(reply.chunks) < PAGE:
                return found
            after = reply.chunks[-1].chunk

    async def _settle_doubts(
        self,
        target: Target,
        after: bytes,
        last: bytes,
        doubts: dict[bytes, list[tuple[ChainTarget, Held, Held]]],
    ) -> None:
        """Look again. What is on both sides as it was, and differs, is reported."""
        known = self._differing.setdefault(target.id, {})
        for chunk in [chunk for chunk in known if after < chunk <= last and chunk not in doubts]:
            del known[chunk]
        if not doubts:
            return
        await asyncio.sleep(LOOK_AGAIN_S)
        position = target.position
        if position is None or not position.is_head:
            return
        for chunk, seen in doubts.items():
            before = (int.from_bytes(chunk, "big") - 1).to_bytes(len(chunk), "big") if any(chunk) else b""
            now = target.store.held(before, 1)
            one = now[0] if now and now[0].chunk == chunk else Held(chunk)
            lines = []
            for member, mine, theirs in seen:
                try:
                    found = await self._list(position, member, before, chunk)
                except EmberError:
                    continue
                other = found.get(chunk, Held(chunk))
                if (one, other) == (mine, theirs) and _differ(one, other):
                    lines.append(f"target {member.target} has {_words(other)}")
            if not lines:
                known.pop(chunk, None)
                continue
            line = f"chunk {chunk.hex()}: target {target.id} has {_words(one)}, {', '.join(lines)}"
            if chunk not in known:
                self._counters.add("chunks_differed")
                logger.error("chain %d: replicas differ: %s", position.chain, line)
            known[chunk] = line


def _differ(one: Held, other: Held) -> bool:
    """At rest, and not the same. A removal may be forgotten by one and not by the other."""
    if one.pending_version or other.pending_version:
        return False
    if not one.version or one.removed:
        return not (not other.version or other.removed)
    return one.digest != other.digest


def _words(held: Held) -> str:
    if not held.version:
        return "nothing"
    if held.removed:
        return f"a removal, version {held.version}"
    return f"version {held.version} of {held.length} bytes, digest {held.digest:08x}"
