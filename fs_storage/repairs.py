"""Chunks whose stored bytes are damaged are repaired from another replica, at once and by the replica that has them.

Who suspects a chunk (a read that did not match its checksum, here or at a client; an update that found the page under
it damaged; the scrub) says so and goes on. A suspect is looked at on the disk. What is damaged is pulled from another
serving replica, by the digest of the version that is committed here, and the bad pages are written again
(`ChunkStore.restore`). The version stays the same, so no chunk is held, no update waits, and none is undone: if another
version is committed meanwhile nothing is written, and the chunk is looked at anew.

A chunk that no replica can give is kept in mind, and tried again with growing pauses: a replica may come back.

One task for the daemon (`rounds`), and one thread that reads. Tasks and races: docs/concurrency/damage.md.
"""

import asyncio
import enum
import logging
from concurrent.futures import Executor

from fs_common.buffers import BufferPool
from fs_common.errors import Code, EmberError
from fs_common.ids import chunk_id
from fs_common.limits import READ_ITEMS_MAX
from fs_common.peers import MakePool
from fs_common.records.scrubbing import SuspectChunks
from fs_common.records.session import Empty
from fs_common.rpc import Call, Reply
from fs_common.telemetry import Counters
from fs_storage.engine.interface import Checked
from fs_storage.pulling import Puller
from fs_storage.rounds import Rounds
from fs_storage.target import Target
from fs_storage.targets import Targets

logger = logging.getLogger(__name__)

SUSPECTS_MAX = 4096
"""Of one target: what is beyond is found by the scrub."""
LOOKS_MAX = 3
"""Times that a chunk is repaired in a row, as it may change meanwhile, or be damaged again."""
PAUSE_S_MIN = 0.2
PAUSE_S_MAX = 60.0
"""Before a chunk that could not be repaired is tried again; doubled each time."""
ROUND_S = 1.0


class Outcome(enum.Enum):
    INTACT = "intact"
    REPAIRED = "repaired"
    DAMAGED = "damaged"
    """And no replica can give it, for now."""


class _Suspect:
    __slots__ = ("due_s", "named", "pause_s", "reason")

    def __init__(self) -> None:
        self.due_s = 0.0
        """When to look, by the loop's clock."""
        self.named = 1
        """How often it was suspected: once more while it is looked at means that what was seen may be of before."""
        self.pause_s = PAUSE_S_MIN
        self.reason = ""
        """What is wrong with it, and why it is not repaired; "": not known yet."""


class Repairs(Rounds):
    def __init__(
        self, targets: Targets, make_pool: MakePool, pool: BufferPool, thread: Executor, counters: Counters
    ) -> None:
        super().__init__("repairs", targets, ROUND_S)
        self._pool = pool
        self._thread = thread
        """One: looks at the disk are made one after another."""
        self._counters = counters
        self._peers = make_pool()
        self._puller = Puller(targets, self._peers)
        self._suspects: dict[int, dict[bytes, _Suspect]] = {}
        """By target and chunk."""

    async def close(self) -> None:
        await super().close()
        await self._peers.close()

    def suspect(self, target: Target, chunk: bytes) -> None:
        """Have a look at `chunk` soon."""
        suspects = self._suspects.setdefault(target.id, {})
        known = suspects.get(chunk)
        if known is None:
            if len(suspects) >= SUSPECTS_MAX:
                return
            suspects[chunk] = _Suspect()
            self.kick()
        else:
            known.named += 1

    def suspect_chunks(self, call: Call) -> Reply:
        """SUSPECT_CHUNKS. Raises INVALID."""
        request: SuspectChunks = call.request
        if not 1 <= len(request.chunks) <= READ_ITEMS_MAX:
            raise EmberError(Code.INVALID, f"{len(request.chunks)} suspect chunks; 1 to {READ_ITEMS_MAX}")
        for suspect in request.chunks:
            target = self._targets.by_chain.get(suspect.chain)
            if target is not None and 0 <= suspect.inode < 1 << 64 and 0 <= suspect.index < 1 << 32:
                self.suspect(target, bytes(chunk_id(suspect.inode, suspect.index)))
        return Reply(Empty())

    def damaged(self, target: int) -> dict[bytes, str]:
        """Chunks of a target that are known to be damaged and are not repaired yet, and why."""
        return {chunk: suspect.reason for chunk, suspect in self._suspects.get(target, {}).items() if suspect.reason}

    async def _look(self, target: Target) -> None:
        suspects = self._suspects.get(target.id)
        if not suspects:
            return
        now = asyncio.get_running_loop().time()
        for chunk, suspect in list(suspects.items()):
            if suspect.due_s > now:
                continue
            if not target.may_act:
                return  # it is being made whole, or is out of service
            named = 0
            while named != suspect.named:
                named = suspect.named
                outcome = await self.examine(target, chunk)
            if outcome is not Outcome.DAMAGED:
                suspects.pop(chunk, None)

    async def examine(self, target: Target, chunk: bytes, found: Checked | None = None) -> Outcome:
        """Look at a chunk, and repair what is damaged. `found`: it has just been looked at."""
        try:
            return await self._examine(target, chunk, found)
        except EmberError as error:
            if error.code is not Code.DISK_FAILED:
                raise
            # The store is fenced: nobody knows what is on the disk.
            target.fail(error.message)
            return Outcome.DAMAGED

    async def _examine(self, target: Target, chunk: bytes, found: Checked | None) -> Outcome:
        repaired = False
        reason = ""
        for _ in range(LOOKS_MAX):
            if found is None:
                found = await asyncio.get_running_loop().run_in_executor(self._thread, target.store.check_stored, chunk)
            if found is None or not found.bad_pages:
                if repaired:
                    self._counters.add("chunks_repaired")
                    logger.warning("target %d: chunk %s is repaired", target.id, chunk.hex())
                return Outcome.REPAIRED if repaired else Outcome.INTACT
            reason = f"version {found.version} of chunk {chunk.hex()} is damaged on its disk: {found.reason}"
            why_not = await self._repair(target, chunk, found)
            if why_not:
                reason = f"{reason}; {why_not}"
                break
            repaired = True
            found = None
        self._keep(target, chunk, reason)
        return Outcome.DAMAGED

    async def _repair(self, target: Target, chunk: bytes, found: Checked) -> str:
        """Write the bad pages again, from the first replica that has that version. "": done, or the chunk has changed;
        otherwise why not."""
        position = target.position
        if position is None:
            return f"target {target.id} is on no chain that serves"
        others = [member for member in position.members if member.target != target.id]
        if not others:
            return "no other replica serves"
        reasons = []
        buffer = self._pool.take(found.length)
        try:
            view = buffer.view[: found.length]
            for member in others:
                try:
                    await self._puller.pull(position, member, chunk, found.digest, found.chunk_size, view)
                except EmberError as error:
                    reasons.append(f"target {member.target}: {error.message}")
                    continue
                if await target.store.restore(chunk, found.digest, view, found.bad_pages):
                    self._counters.add("pages_repaired", len(found.bad_pages))
                return ""
        finally:
            buffer.release()
        return f"no other replica can give it ({'; '.join(reasons)})"

    def _keep(self, target: Target, chunk: bytes, reason: str) -> None:
        suspects = self._suspects.setdefault(target.id, {})
        suspect = suspects.get(chunk)
        if suspect is None:
            if len(suspects) >= SUSPECTS_MAX:
                return
            suspect = suspects[chunk] = _Suspect()
        if not suspect.reason:
            logger.error("target %d: %s; it is tried again", target.id, reason)
        suspect.reason = reason
        suspect.due_s = asyncio.get_running_loop().time() + suspect.pause_s
        suspect.pause_s = min(suspect.pause_s * 2, PAUSE_S_MAX)
