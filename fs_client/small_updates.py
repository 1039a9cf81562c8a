"""Small updates for the same daemon share frames while it is busy with others of this client.

An update that finds its head idle goes at once, in the caller's own task. Those that come while it is busy gather, and
go together when a frame has been answered: along a chain a frame costs much more than a small update in it. Which frame
an update travels in changes nothing about it: it keeps its id, its place in its chunk's order and its own outcome.

    a head's lane    meaning                         next
    -------------    -----------------------------   --------------------------------------------------------------
    idle             less than FRAMES on their way   send: one more, in the caller's task
    busy             FRAMES on their way             one answered: idle, or the next frame of what has gathered goes

The memory of a frame's updates is in use until its call has ended. A caller that is cancelled meanwhile ends the frame
and waits for that; the others' updates gather again, under the same ids.

Used by `write_path`. Concurrency: docs/concurrency/client.md.
"""

import asyncio

from fs_client.routing_cache import Server
from fs_client.settle import ended
from fs_client.storage_client import Outcome, StorageClient
from fs_common.limits import KIB
from fs_common.records.storage import UpdateItem

SMALL_BYTES = 32 * KIB
"""Larger updates are worth a frame of their own."""
FRAMES = 2
"""On their way to one head: it works on one while the other's answer comes back."""
ITEMS_MAX = 32
BYTES_MAX = 256 * KIB
"""Of a shared frame: what comes behind it waits no longer than this takes."""
SHARED_LEFT_S_MIN = 1.0
"""Who has less time left goes alone: a frame tries for as long as the most urgent of its updates may."""


class NotSent(Exception):
    """An update's time was over while it waited for others to be answered."""


class _Entry:
    """An update that waits for a frame, or is in one."""

    __slots__ = ("data", "deadline", "frame", "item", "outcome")

    def __init__(self, item: UpdateItem, data: memoryview, deadline: float, outcome: "asyncio.Future[Outcome]") -> None:
        self.item = item
        self.data = data
        self.deadline = deadline
        """On the loop's clock."""
        self.outcome = outcome
        self.frame: asyncio.Task[None] | None = None


class _Lane:
    """What goes to one head."""

    __slots__ = ("frames", "waiting")

    def __init__(self) -> None:
        self.frames = 0
        """On their way."""
        self.waiting: list[_Entry] = []


class SmallUpdates:
    """See the module. One for each client."""

    def __init__(self, storage: StorageClient, client: bytes) -> None:
        self._storage = storage
        self._client = client
        self._lanes: dict[int, _Lane] = {}
        """By node."""

    async def send(self, head: Server, item: UpdateItem, data: memoryview, left_s: float) -> Outcome:
        """One try of an update at its head. `data` belongs to the call until it ends.

        Raises `NotSent` if the time was over before there was a frame for it.
        """
        if left_s < SHARED_LEFT_S_MIN:
            return (await self._storage.update(head, self._client, [item], [data], left_s))[0]
        lane = self._lanes.get(head.node)
        if lane is None:
            lane = self._lanes[head.node] = _Lane()
        if lane.frames < FRAMES:
            lane.frames += 1
            try:
                return (await self._storage.update(head, self._client, [item], [data], left_s))[0]
            finally:
                self._go_on(head, lane)
        loop = asyncio.get_running_loop()
        entry = _Entry(item, data, loop.time() + left_s, loop.create_future())
        lane.waiting.append(entry)
        late = loop.call_at(entry.deadline, self._is_late, lane, entry)
        try:
            return await entry.outcome
        except asyncio.CancelledError:
            if entry in lane.waiting:
                lane.waiting.remove(entry)
            elif entry.frame is not None:
                entry.frame.cancel()
                await ended([entry.frame])
            raise
        finally:
            late.cancel()

    @staticmethod
    def _is_late(lane: _Lane, entry: _Entry) -> None:
        """Its time is over. What is in a frame ends with that, which has no more time than its most urgent update."""
        if entry in lane.waiting and not entry.outcome.done():
            lane.waiting.remove(entry)
            entry.outcome.set_exception(NotSent())

    def _go_on(self, head: Server, lane: _Lane) -> None:
        """A frame of the lane has ended: send what has gathered."""
        lane.frames -= 1
        count = size = 0
        for entry in lane.waiting:
            size += len(entry.data)
            if count and (size > BYTES_MAX or count == ITEMS_MAX):
                break
            count += 1
        entries, lane.waiting = lane.waiting[:count], lane.waiting[count:]
        if entries:
            lane.frames += 1
            frame = asyncio.get_running_loop().create_task(self._frame(head, lane, entries))
            for entry in entries:
                entry.frame = frame

    async def _frame(self, head: Server, lane: _Lane, entries: list[_Entry]) -> None:
        items = [entry.item for entry in entries]
        data = [entry.data for entry in entries]
        left_s = min(entry.deadline for entry in entries) - asyncio.get_running_loop().time()
        try:
            outcomes = await self._storage.update(head, self._client, items, data, left_s)
        except asyncio.CancelledError:
            # By one of them, whose outcome nobody waits for any more.
            left = [entry for entry in entries if not entry.outcome.done()]
            for entry in left:
                entry.frame = None
            lane.waiting[:0] = left
            raise
        except BaseException as error:
            for entry in entries:
                if not entry.outcome.done():
                    entry.outcome.set_exception(error)
        else:
            for entry, outcome in zip(entries, outcomes, strict=True):
                if not entry.outcome.done():
                    entry.outcome.set_result(outcome)
        finally:
            self._go_on(head, lane)
