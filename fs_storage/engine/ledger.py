"""What is decided but not yet stored: requests on their way to the writer thread, and what comes back is published.

Owned by the event loop. The store decides, this hands over; when the writer gives a request back, its outcome becomes
visible here: records, answers, dropped blocks.

Invariants:

* A chunk in `busy` has a request with the writer whose outcome changes its record; nothing else changes it meanwhile.
* Everything decided before a request is handed over with it or before it.
* Nothing succeeds after the store was fenced, whatever its request found: a sync of something else has failed, and what
  this one builds on may be gone.
* A patch goes into its block only when the commit of its version is durable: from then on no crash needs the bytes
  under it.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

from fs_common.errors import Code, EmberError
from fs_storage.engine.disk import Disk
from fs_storage.engine.index_format import StoredAnswer, answer_key
from fs_storage.engine.opening import Opened
from fs_storage.engine.transitions import drop_pending, dropped_answer, dropped_blocks, make_pending, succeeds
from fs_storage.engine.versions import NOBODY, NOTHING, Identity, Patch, Record, Version
from fs_storage.engine.writer import Request, Task, Writer

logger = logging.getLogger(__name__)

FLUSH_S = 0.01
"""How long a commit may wait for company before it goes into the log: nobody waits for it."""
HERE_S_MAX = 0.002
"""Storing on the event loop pauses when it once took so long: the page cache makes its writers wait."""
HERE_PAUSE_S = 1.0
PATCH_BYTES_SOFT = 8 << 20
"""Patches in memory from which on they are written into their blocks without waiting for a reason."""
NOTES_HERE_MAX = 64 << 10
"""Bytes of commits in a frame that the event loop writes."""
PATCHES_SOFT = 32
"""The same for the patches of one chunk: each read of it lays them over what it finds."""
PATCH_BYTES_HARD = 64 << 20
"""Patches in memory from which on commits wait."""


class Ledger:
    """See the module."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        disk: Disk,
        directory: Path,
        opened: Opened,
        finished: Callable[[], None],
        *,
        threaded: bool,
    ) -> None:
        self._loop = loop
        self._directory = directory
        self._opened = opened
        self._table = opened.table
        self._slots = opened.slots
        self._group_finished = finished
        """Called after each group is published."""
        self._threaded = threaded
        self.writer = Writer(
            disk,
            opened.log,
            opened.blocks,
            f"engine-{directory.name}",
            self._give_back,
            opened.mark.fail,
            threaded=threaded,
        )
        self.busy: dict[bytes, Request] = {}
        self._notes: list[bytes] = []
        """Encoded commits that the log does not have yet."""
        self._settles: dict[bytes, Version] = {}
        """Committed versions with patches whose commit is in `_notes`."""
        self._logged_settles: dict[bytes, Version] = {}
        """The same once the log has the commit, but not durably."""
        self.patch_bytes = 0
        """In committed versions."""
        self._many_patches = False
        """Some chunk has more of them than is good for reads."""
        self._flush_timer: asyncio.TimerHandle | None = None
        self._with_writer = 0
        """Requests that were put and have not come back. While it is 0 the writer thread touches nothing."""
        self._got_on_s = 0.0
        """When the writer began with what it has, or gave something back, by the loop's clock."""
        self._here_from_s = 0.0
        """From when on, by the loop's clock, small updates may be stored on the event loop."""
        self.stored_here = 0
        self._noted_failure: asyncio.Future[None] | None = None
        """Done when the mark says that a write or sync failed."""
        self._fenced: EmberError | None = None
        """What the disk holds is not known. Not set by `close`."""
        self.failure: EmberError | None = None
        """Why nothing is done any more."""
        self.prepared = 0
        self.writer.start()

    @property
    def failed(self) -> bool:
        """The store is fenced, or closed."""
        return self.failure is not None

    @property
    def unanswered_s(self) -> float:
        """For how long the writer has not got on with what it has; 0: it has nothing."""
        return self._loop.time() - self._got_on_s if self._with_writer else 0.0

    @property
    def fenced(self) -> bool:
        """What the disk holds is not known."""
        return self._fenced is not None

    @property
    def has_patches(self) -> bool:
        """Some committed version has patches that are not in its block yet."""
        return self.patch_bytes > 0

    def fence(self, failure: EmberError, *, noted: bool = True) -> None:
        """Nothing is answered any more: what the disk holds is not known. `noted`: in the mark, too."""
        if self._fenced is None:
            logger.error("%s: %s; the target is out of service until it is opened again", self._directory, failure)
            self._fenced = failure
        if self.failure is None:
            self.failure = failure
        if not noted:
            return
        mark = self._opened.mark
        if not self._threaded:
            mark.fail()
        elif self._noted_failure is None:
            self._noted_failure = self._loop.run_in_executor(None, mark.fail)

    async def close(self) -> None:
        """Let the writer finish, and end it."""
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None
        if self.failure is None:
            self.failure = EmberError(Code.CLOSING, "the store is closed")
        if self._threaded:
            await self._loop.run_in_executor(None, self.writer.stop)
            if self._noted_failure is not None:
                await self._noted_failure
        else:
            self.writer.stop()

    # -- to the writer -----------------------------------------------------------------------------------------

    def put_task(self, request: Request, task: Task) -> None:
        """Add an update to a request that will be `put` before anything else can happen."""
        request.tasks.append(task)
        self.busy[task.update.chunk] = request

    def take_back(self, request: Request) -> None:
        """The request is not put after all."""
        self._slots.backing_failed(request.backs)
        for task in request.tasks:
            del self.busy[task.update.chunk]
            self._put_back(task)

    def put(self, request: Request) -> None:
        """Hand over, with everything that was decided before."""
        self._take_notes(request)
        if not self._with_writer:
            self._got_on_s = self._loop.time()
        self._with_writer += 1
        self.writer.put(request)
        if not self._threaded:
            self._loop.call_soon(self.writer.pump)

    def store(self, request: Request, light_bytes: int | None) -> None:
        """`put` a request of updates, or of commits alone. If it is light it may be finished on return.

        `light_bytes`: storing it neither reads nor syncs nor allocates, and writes about so many bytes; None: it may.
        """
        if light_bytes is None or self._with_writer or self._loop.time() < self._here_from_s:
            self.put(request)
            return
        notes = sum(map(len, self._notes))
        if notes > NOTES_HERE_MAX or not self.writer.has_log_room(light_bytes + notes):
            self.put(request)
            return
        self._take_notes(request)
        begin = time.perf_counter()
        self.writer.store_here(request)
        if self._threaded and time.perf_counter() - begin > HERE_S_MAX:
            self._here_from_s = self._loop.time() + HERE_PAUSE_S
        self.stored_here += 1
        self._publish([request])

    def _take_notes(self, request: Request) -> None:
        """What was decided before goes with this request."""
        request.notes = self._notes
        request.settles = self._settles
        self._notes = []
        self._settles = {}
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None

    def note_commit(self, chunk: bytes, before: Record, after: Record, note: bytes) -> None:
        """A commit: visible now, in the log soon. `note`: its encoded record."""
        self._notes.append(note)
        committed = after.committed
        if committed is not None and committed.patches:
            self._settles[chunk] = committed
            self._many_patches |= len(committed.patches) > PATCHES_SOFT
        self.publish(chunk, before, after)
        if self._flush_timer is None:
            self._flush_timer = self._loop.call_later(FLUSH_S, self._flush)

    async def settle(self) -> None:
        """Make every commit so far durable, and hand its patches to the writer."""
        request = Request()
        request.durable = True
        self.put(request)
        await request.wait()

    async def settle_patches(self) -> None:
        """`settle`, and return when those patches are in their blocks."""
        await self.settle()
        # Behind the request that `settle` has caused.
        barrier = Request()
        self.put(barrier)
        await barrier.wait()

    async def write_over(self, chunk: bytes, version: Version) -> None:
        """Write the patches of `version`, which are what its block should have there anyway, into the block. The commit
        of the version is durable. Raises DISK_FAILED."""
        request = Request()
        request.applies.append((chunk, version))
        self.put(request)
        await request.wait()
        if request.failure is not None and request.failure.code is not Code.NO_SPACE:
            raise request.failure

    async def sync(self) -> None:
        """Make everything stored or decided so far durable. Raises NO_SPACE, DISK_FAILED."""
        request = Request()
        request.durable = request.everything = True
        self.put(request)
        await request.wait()
        if request.failure is not None:
            raise request.failure

    def _flush(self) -> None:
        self._flush_timer = None
        if self._notes:
            self.store(Request(), 0)

    # -- and back ----------------------------------------------------------------------------------------------

    def _give_back(self, group: list[Request]) -> None:
        """Called by the writer."""
        if self._threaded:
            self._loop.call_soon_threadsafe(self._finished, group)
        else:
            self._finished(group)

    def _finished(self, group: list[Request]) -> None:
        self._with_writer -= len(group)
        self._got_on_s = self._loop.time()
        self._publish(group)

    def _publish(self, group: list[Request]) -> None:
        for request in group:
            try:
                self._finish(request)
            except Exception as error:  # an invariant is broken: whoever waits is told, and nothing goes on
                logger.exception("the outcome of a request cannot be published")
                self.fence(EmberError(Code.DISK_FAILED, f"the engine stopped itself: {error!r}"))
                request.failure = self._fenced
                request.finish()
        if self._logged_settles and (self.patch_bytes > PATCH_BYTES_SOFT or self._many_patches):
            self._many_patches = False
            request = Request()
            request.durable = True
            self.put(request)
        self._group_finished()

    def _finish(self, request: Request) -> None:
        if self._fenced is not None:
            request.failure = self._fenced
        failure = request.failure
        if failure is not None:
            if failure.code is Code.NO_SPACE:
                self._notes[:0] = request.notes
                self._settles = {**request.settles, **self._settles}
            else:
                self.fence(failure)
        if request.unbacked:
            self._slots.backing_failed(request.unbacked)
        for task in request.tasks:
            chunk = task.update.chunk
            del self.busy[chunk]
            if failure is None and task.made is not None:
                self._publish_prepared(task)
            else:
                self._put_back(task)
        if request.dropped is not None:
            del self.busy[request.dropped]
            if failure is None:
                record = self._table.get(request.dropped)
                self._drop_answer(request.dropped, record.identity)
                self.publish(request.dropped, record, drop_pending(record))
        for chunk in request.forgotten:
            del self.busy[chunk]
            if failure is None:
                record = self._table.get(chunk)
                self._drop_answer(chunk, record.identity)
                self.publish(chunk, record, NOTHING)
        if failure is None:
            self._logged_settles.update(request.settles)
            if request.synced and self._logged_settles:
                self._apply_patches()
        if failure is None or failure.code is Code.NO_SPACE:
            for chunk, version in request.applies:
                self._strip(chunk, version)
        if request.on_cut is not None and request.cut is not None:
            request.on_cut(request.cut)
        request.finish()

    def _publish_prepared(self, task: Task) -> None:
        made = task.made
        assert made is not None
        update, base, version = task.update, task.base, made.version
        record = self._table.get(update.chunk)
        if base is not None and base.patches and version.block == base.block:
            # Patches may have reached the block while the update was with the writer.
            assert record.committed is not None
            version = version._replace(patches=record.committed.patches + version.patches[len(base.patches) :])
        if record.pending is not None:
            self._drop_answer(update.chunk, record.identity)
        identity = Identity(update.client, update.channel, update.sequence)
        self.publish(update.chunk, record, make_pending(record, version, identity, forgets=False))
        self.prepared += 1
        if update.client:
            key = answer_key(update.client, update.channel)
            answer = StoredAnswer(update.chunk, update.sequence, update.version, version.length, task.when)
            if succeeds(answer, self._table.answer(key)):
                self._table.put_answer(key, answer)

    def publish(self, chunk: bytes, before: Record, after: Record) -> None:
        """The chunk's record is now `after`."""
        if after.committed is None and after.pending is None:
            after = NOTHING
        if before.committed is not after.committed or before.pending is not after.pending:
            for block in dropped_blocks(before, after):
                self._slots.drop(block.size_class, block.slot)
            self.patch_bytes += _patch_bytes(after.committed) - _patch_bytes(before.committed)
        self._table.put(chunk, after)

    def _drop_answer(self, chunk: bytes, identity: Identity) -> None:
        if identity == NOBODY:
            return
        key = answer_key(identity.client, identity.channel)
        dropped = dropped_answer(self._table.answer(key), chunk, identity)
        if dropped is not None:
            self._table.put_answer(key, dropped)

    def _put_back(self, task: Task) -> None:
        """The task's update is not stored: its new block is free."""
        if task.plan.new_class is not None:
            assert task.block is not None
            self._slots.put_back(task.block.size_class, task.block.slot)

    # -- patches -----------------------------------------------------------------------------------------------

    def _apply_patches(self) -> None:
        """All commits in `_logged_settles` are durable: their patches may go into the blocks."""
        request = Request()
        for chunk, version in self._logged_settles.items():
            committed = self._table.get(chunk).committed
            if committed is None or committed.block != version.block:
                continue  # its block belongs to no version that counts any more
            left = _among(version.patches, committed.patches)
            if left:
                request.applies.append((chunk, version._replace(patches=left)))
        self._logged_settles = {}
        if request.applies:
            self.put(request)

    def _strip(self, chunk: bytes, applied: Version) -> None:
        """The patches of `applied` are in the block."""
        record = self._table.get(chunk)
        done = {id(patch) for patch in applied.patches}
        committed, pending = (
            version._replace(patches=tuple(patch for patch in version.patches if id(patch) not in done))
            if version is not None and version.patches and version.block == applied.block
            else version
            for version in (record.committed, record.pending)
        )
        if committed is not record.committed or pending is not record.pending:
            self.publish(chunk, record, Record(committed, pending, record.identity))


def _patch_bytes(version: Version | None) -> int:
    return sum(len(patch.data) for patch in version.patches) if version is not None and version.patches else 0


def _among(patches: tuple[Patch, ...], others: tuple[Patch, ...]) -> tuple[Patch, ...]:
    """Those of `patches` that are in `others`, too: the very same ones."""
    known = {id(patch) for patch in others}
    return tuple(patch for patch in patches if id(patch) in known)
