"""Watches over the disks of this daemon's targets.

* A store that is fenced (its disk failed, its index is damaged) takes its target out of service, at once and with one
  line, and the manager is told; the other targets go on.
* A directory that is gone, or another one in its place, is such a failure.
* A disk that neither answers nor fails is out of service after a while, too. It is asked in threads, so that nothing
  else waits for it.
* Little free space: new chunks are refused before the disk is full.
* A target that has failed is closed when nothing reads from its files any more, and opened again after a pause that
  grows: a disk that is back, or was only disturbed, serves again when its chain has filled it up (its store is not
  whole then). So are targets whose store was not there or could not be opened.

One task for the daemon. Tasks and races: docs/concurrency/damage.md.
"""

import asyncio
import logging

from fs_common.endless import keep
from fs_storage.asking import Question
from fs_storage.space import Disk, low_mark
from fs_storage.target import Target
from fs_storage.targets import Targets

logger = logging.getLogger(__name__)

ROUND_S = 0.5
LOOK_ROUNDS = 4
"""The disk is asked in every so manieth round."""
AGAIN_S_MIN = 10.0
AGAIN_S_MAX = 600.0
"""Pause before a target is opened again; doubled each time."""
ANSWER_S = 1.0
"""For how long a round waits for a disk."""
SILENT_S = 60.0
"""A disk that does not answer, or does not get on with what is to be stored, is out of service then. Disks that are
well may take seconds for what the page cache holds back."""


class Disks:
    def __init__(self, targets: Targets, disk: Disk) -> None:
        self._targets = targets
        self._disk = disk
        self._question = Question(disk.look, "look at the disk")
        self._questions: dict[Target, Question] = {}
        """Of those that are open."""
        self._making_room: dict[Target, asyncio.Task[None]] = {}
        self._rounds = 0
        self._again_s: dict[int, float] = {}
        """When a target is opened again, by the loop's clock."""
        self._pause_s: dict[int, float] = {}
        """The next pause of a target that failed in this life."""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = keep(self._run, "disks", end_on=())

    async def close(self) -> None:
        tasks = [*self._making_room.values()]
        if self._task is not None:
            tasks.append(self._task)
            self._task = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            self._rounds += 1
            asked = self._rounds % LOOK_ROUNDS == 0
            targets = self._targets.all()
            for target in self._making_room.keys() - set(targets):
                if self._making_room[target].done():
                    del self._making_room[target]  # it was closed meanwhile
            self._questions = {
                target: self._questions.get(target) or Question(target.store.look, f"look at {target.id}")
                for target in targets
            }
            looks = [self._look(target, asked=asked) for target in targets]
            ends = await asyncio.gather(*looks, *([self._look_at_disk()] if asked else []), return_exceptions=True)
            for end in ends:
                if isinstance(end, BaseException):
                    raise end
            self._open_again()
            await asyncio.sleep(ROUND_S)

    async def _look(self, target: Target, *, asked: bool) -> None:
        store = target.store
        if store.failure is None and asked:
            question = self._questions[target]
            try:
                if await question.answered(ANSWER_S):
                    self._look_at_space(target)
                    await self._make_room(target)
                elif question.silent_s() >= SILENT_S:
                    store.fence(f"its disk has not answered for {SILENT_S:.0f} s")
            except OSError as error:
                name = f"{error.filename}: " if error.filename else ""
                # What was stored may be all there: in a moved directory, on a disk that is mounted elsewhere.
                store.fence(f"its directory is not there any more: {name}{error.strerror or error}")
        if store.failure is None and store.unanswered_s >= SILENT_S:
            store.fence(f"its disk has stored nothing of what it was given for {SILENT_S:.0f} s, and does not fail")
        failure = store.failure
        if failure is None:
            return
        if target.failed is None:
            target.fail(failure.message)
            self._targets.changed()
        now = asyncio.get_running_loop().time()
        if target.id not in self._again_s:
            self._again_s[target.id] = now + self._pause_s.get(target.id, AGAIN_S_MIN)
        if now >= self._again_s[target.id] and store.quiet and not target.in_flight:
            await self._targets.close_failed(target)

    async def _look_at_disk(self) -> None:
        if not await self._question.answered(ANSWER_S) and self._question.silent_s() >= SILENT_S:
            self._disk.silent(f"nothing for {SILENT_S:.0f} s")

    async def _make_room(self, target: Target) -> None:
        """What one target has and does not use may be what another one on the same disk lacks."""
        making = self._making_room.get(target)
        if making is None:
            if not target.store.low_space:
                return
            making = self._making_room[target] = asyncio.create_task(target.store.make_room(), name="make room")
        if (await asyncio.wait([making], timeout=ANSWER_S))[0]:
            del self._making_room[target]
            making.result()

    def _open_again(self) -> None:
        """Those whose pause is over."""
        now = asyncio.get_running_loop().time()
        closed = self._targets.closed_out()
        for target in closed:
            self._again_s.setdefault(target, now + self._pause_s.get(target, AGAIN_S_MIN))
        due = [target for target in closed if now >= self._again_s[target]]
        if due:
            for target in due:
                self._pause_s[target] = min(2 * self._pause_s.get(target, AGAIN_S_MIN), AGAIN_S_MAX)
                del self._again_s[target]
            self._targets.open_again()

    def _look_at_space(self, target: Target) -> None:
        store = target.store
        space = store.space()
        low = low_mark(space.capacity_bytes, self._disk.low_space_bytes)
        if store.low_space:
            low += low // 4
        if space.free_bytes >= low:
            if store.low_space:
                logger.warning("target %d takes new chunks again", target.id)
            store.low_space = ""
            return
        if not store.low_space:
            logger.error("target %d is low on space and takes no new chunks", target.id)
        store.low_space = (
            f"target {target.id} is low on space ({space.free_bytes} of {space.capacity_bytes} bytes are free):"
            " it takes no new chunks; remove files or add targets"
        )
