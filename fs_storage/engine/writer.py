"""The thread that stores: takes requests from the event loop, stores them in groups, and gives them back in order.

One group is everything that waited while the group before was being stored, so that under load many updates share one
log frame and one sync. Steps for a group; its commit point is 4 (durability `disk`) or 3 (`memory`):

    1  storage of new units is allocated; payloads are verified and put into blocks, where no version that counts has
       bytes. A crash leaves bytes that nobody owns.
    2  commits and abandonments decided on the event loop since the last group go into the frame first.
    3  the frame is appended to the log. A crash leaves all of it or, if it is torn, nothing of it. A new pending
       version may be there whose bytes in the block are not: recovery verifies them and drops the version.
    4  if an update asks for it: block files that hold the group's bytes (or older ones that its chunks build on), then
       the log, are synced.
    5  patches whose commit is durable are written into their blocks. A crash leaves some; the log writes them again.

The thread owns the log, and every write to block files. Everything else belongs to the event loop, which hands over
immutable values. While the thread has nothing (all that was put has come back), the event loop may do its work in its
place (`store_here`): a small update into the page cache takes less time than handing it over and back.

After a write or sync that failed the thread fences: nothing more is stored, every request fails with DISK_FAILED, as
nobody knows what the page cache and the device still hold.
"""

import asyncio
import errno
import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue

from fs_common.errors import Code, EmberError
from fs_common.layout import Durability
from fs_storage.engine.blocks import BlockFiles, unit_slots
from fs_storage.engine.disk import Bytes, Disk
from fs_storage.engine.interface import Update
from fs_storage.engine.log import RedoLog
from fs_storage.engine.log_format import encode_prepare
from fs_storage.engine.making import Made, make
from fs_storage.engine.plan import Place, Plan
from fs_storage.engine.slots import Unit
from fs_storage.engine.versions import Block, BlockFile, Version

logger = logging.getLogger(__name__)

GROUP_BYTES_MAX = 32 << 20
"""Payload of one group: what the first in it waits for at most."""
GROUP_REQUESTS_MAX = 256
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Task:
    """One update to make pending."""

    __slots__ = ("base", "block", "made", "plan", "refusal", "update", "when")

    def __init__(self, update: Update, base: Version | None, plan: Plan, block: Block | None, when: int) -> None:
        self.update = update
        self.base = base
        self.plan = plan
        self.block = block
        self.when = when
        self.made: Made | None = None
        """Set by the thread: the update is stored."""
        self.refusal: EmberError | None = None
        """Set by the thread: it is not, and has left no trace."""


class Request:
    """What the event loop hands over at once, and gets back with the outcome filled in."""

    __slots__ = (
        "applies",
        "backs",
        "cut",
        "dropped",
        "drops",
        "durable",
        "everything",
        "failure",
        "files",
        "finished",
        "forgotten",
        "notes",
        "on_cut",
        "punches",
        "settles",
        "switch",
        "synced",
        "tasks",
        "unbacked",
        "waiters",
    )

    def __init__(self) -> None:
        self.notes: list[bytes] = []
        """Encoded COMMIT records, decided already: stored before everything else, and put again if they were not."""
        self.drops: list[bytes] = []
        """Encoded ABANDON and FORGET records, decided once they are stored."""
        self.dropped: bytes | None = None
        """The chunk whose pending version is dropped."""
        self.forgotten: list[bytes] = []
        """Chunks of which nothing stays."""
        self.settles: dict[bytes, Version] = {}
        """Chunks with a commit among the notes, and the version whose patches may be applied once that is durable."""
        self.tasks: list[Task] = []
        self.backs: list[Unit] = []
        """Units whose storage the tasks need (and more, in advance)."""
        self.durable = False
        """Sync before it is given back."""
        self.files: list[BlockFile] = []
        """With `durable`: these too, not only the log."""
        self.everything = False
        """With `durable`: whatever was stored before, too."""
        self.applies: list[tuple[bytes, Version]] = []
        """Versions whose commit is durable, with patches to write into the block."""
        self.punches: list[Unit] = []
        self.switch = False
        """Continue in the other log file: the cut of a checkpoint."""
        self.on_cut: Callable[[Cut], None] | None = None
        """With `switch`: called on the event loop when all before the cut, and nothing after it, is published."""
        self.failure: EmberError | None = None
        """Outcome. NO_SPACE: notes, drops and tasks were not stored, the rest was. DISK_FAILED: fenced."""
        self.synced = False
        """Outcome: the notes are durable."""
        self.cut: Cut | None = None
        """Outcome of `switch`."""
        self.unbacked: list[Unit] = []
        """Outcome of `backs`: those for which there is no storage."""
        self.finished = False
        """The event loop has published the outcome."""
        self.waiters: list[asyncio.Future[None]] = []

    async def wait(self) -> None:
        """Until it is finished. A cancellation takes effect only then: the thread reads the caller's memory."""
        cancelled: asyncio.CancelledError | None = None
        while not self.finished:
            waiter = asyncio.get_running_loop().create_future()
            self.waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled

    def finish(self) -> None:
        self.finished = True
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)


class Cut:
    """The moment of a checkpoint, as the thread saw it."""

    __slots__ = ("files", "sequence")

    def __init__(self, sequence: int, files: list[BlockFile]) -> None:
        self.sequence = sequence
        """The last one before the cut."""
        self.files = files
        """To be synced before the index may name what they hold."""


class Writer:
    """See the module. `put` and `stop` belong to the event loop, the rest to the thread."""

    def __init__(
        self,
        disk: Disk,
        log: RedoLog,
        blocks: BlockFiles,
        name: str,
        give_back: Callable[[list[Request]], None],
        note_failure: Callable[[], None],
        *,
        threaded: bool = True,
    ) -> None:
        self._disk = disk
        self._log = log
        self._blocks = blocks
        self._give_back = give_back
        """Called in the thread with a group that is finished."""
        self._note_failure = note_failure
        """Called in the thread after a write or sync that failed, before anybody is told."""
        self._queue: SimpleQueue[Request | None] = SimpleQueue()
        self._failure: EmberError | None = None
        self._unbacked: set[Unit] = set()
        """Units whose storage could not be allocated."""
        self._unsynced: set[BlockFile] = set()
        """Files that may hold direct writes which are not durable."""
        self.groups = 0
        self.syncs = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True) if threaded else None
        """None: nothing happens until `pump`, so that a simulation decides when."""

    @property
    def failed(self) -> bool:
        """A write or sync failed. From any thread."""
        return self._failure is not None

    def start(self) -> None:
        if self._thread is not None:
            self._thread.start()

    def put(self, request: Request) -> None:
        self._queue.put(request)

    def store_here(self, request: Request) -> None:
        """On the event loop, while nothing that was `put` is still with the thread: store one request at once."""
        self._process([request])

    def has_log_room(self, size: int) -> bool:
        """As `RedoLog.has_room`; under the same condition."""
        return self._log.has_room(size)

    def stop(self) -> None:
        """Finish what was put, then end the thread; returns when it has ended."""
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join()
        else:
            self._run()

    def pump(self) -> None:
        """Without a thread: store one group of what was put."""
        if not self._queue.empty():
            self._store_next(self._queue.get())

    # -- the thread --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while self._store_next(self._queue.get()):
            pass

    def _store_next(self, request: Request | None) -> bool:
        """Store a group that begins with `request`. False: it was told to stop."""
        group: list[Request] = []
        size = 0
        while request is not None:
            group.append(request)
            size += _payload(request)
            full = request.switch or size >= GROUP_BYTES_MAX or len(group) >= GROUP_REQUESTS_MAX
            if full or self._queue.empty():
                self._finish(group)
                return True
            request = self._queue.get()
        if group:
            self._finish(group)
        return False

    def _finish(self, group: list[Request]) -> None:
        self._process(group)
        if self._failure is not None:
            self._note_failure()
        self._give_back(group)

    def _process(self, group: list[Request]) -> None:
        try:
            if self._failure is None:
                self._store(group)
        except OSError as error:
            self._failure = EmberError(Code.DISK_FAILED, f"the target's disk failed: {error.strerror or error}")
        except Exception as error:  # an invariant is broken: the state on the disk is what the log says, so stop here
            logger.exception("the writer failed")
            self._failure = EmberError(Code.DISK_FAILED, f"the engine stopped itself: {error!r}")
        if self._failure is not None:
            for request in group:
                request.failure = self._failure

    def _store(self, group: list[Request]) -> None:
        self.groups += 1
        body: list[Bytes] = []
        count = 0
        durable = False
        for request in group:
            for unit in request.punches:
                self._blocks.punch(*unit)
            if request.backs:
                request.unbacked = self._allocate(request.backs)
            body += request.notes
            body += request.drops
            count += len(request.notes) + len(request.drops)
            durable |= request.durable
            for task in request.tasks:
                count += self._make(task, body)
                durable |= task.made is not None and task.update.durability == Durability.DISK
        stored = not count or self._append(group, body, count)
        if stored and (durable or group[-1].switch):
            self._sync_group(group)
            for request in group:
                request.synced = True
        for request in group:
            if request.applies:
                self._apply(request.applies)
        if group[-1].switch:
            # Even if the log was full: the other file has room, and the next request brings the notes again.
            group[-1].cut = Cut(self._log.switch(), self._blocks.unsynced())

    def _allocate(self, units: list[Unit]) -> list[Unit]:
        """Returns those that got no storage."""
        for unit in units:
            try:
                self._blocks.back(*unit)
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                self._unbacked.add(unit)
            else:
                self._unbacked.discard(unit)
        return [unit for unit in units if unit in self._unbacked]

    def _make(self, task: Task, body: list[Bytes]) -> int:
        """Store one update's bytes. Returns how many records it adds to the frame: 1, or 0 for a refusal."""
        block = task.block
        try:
            if block is not None and self._unbacked and task.plan.new_class is not None:
                unit = Unit(block.size_class, block.slot // unit_slots(block.size_class))
                if unit in self._unbacked:
                    raise EmberError(Code.NO_SPACE, "the target's disk is full")
            task.made = make(self._disk, task.update, task.base, task.plan, block, task.when)
        except EmberError as error:
            task.refusal = error
            return 0
        except OSError as error:
            if error.errno not in _FULL:
                raise
            task.refusal = EmberError(Code.NO_SPACE, "the target's disk is full")
            return 0
        if task.plan.place is Place.DIRECT:
            assert block is not None
            self._unsynced.add(block.file)
        body += encode_prepare(task.made.record)
        return 1

    def _append(self, group: list[Request], body: list[Bytes], count: int) -> bool:
        try:
            self._log.append(body, count)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            full = EmberError(Code.NO_SPACE, "the target's disk is full: its log cannot grow")
            for request in group:
                request.failure = full
            return False
        return True

    def _sync_group(self, group: list[Request]) -> None:
        """Make the group durable, and whatever its chunks build on."""
        self.syncs += 1
        files: set[BlockFile] = set()
        for request in group:
            files.update(request.files)
            if request.everything:
                files |= self._unsynced
            for task in request.tasks:
                if task.made is not None and task.update.durability == Durability.DISK:
                    # What it builds on, too: a durable version must not hang on one that a crash takes away.
                    if task.block is not None:
                        files.add(task.block.file)
                    if task.base is not None and task.base.block is not None:
                        files.add(task.base.block.file)
        for file in files:
            if file.stored != file.stored_synced:
                self._blocks.sync(file)
        self._log.sync()
        self._unsynced = {file for file in self._unsynced if file.stored != file.stored_synced}
        if not self._unsynced:
            self._log.data_synced = self._log.sequence

    def _apply(self, applies: list[tuple[bytes, Version]]) -> None:
        for _, version in applies:
            block = version.block
            assert block is not None
            # The patch ends the life of the bytes under it, so everything this version stands on must be durable.
            if block.file.stored != block.file.stored_synced:
                self._blocks.sync(block.file)
            for offset, data in version.patches:
                self._disk.write(block.file.fd, (data,), block.position + offset)
            block.file.touched += 1


def _payload(request: Request) -> int:
    return sum(len(task.update.payload) for task in request.tasks)
