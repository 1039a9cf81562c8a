"""What one connection over a device has: its queue pair, its slots for messages, and the device's memory around it.

Called by `setup` (makes them) and `link` (uses and ends them).
"""

import logging
import mmap
from collections.abc import Callable
from typing import NamedTuple

from fs_common.limits import KIB
from fs_common.transports.rdma.memory import RegisteredMemory, Use
from fs_common.transports.rdma.slabs import SlabPool
from fs_common.transports.rdma.stream import RECEIVE_SLOTS, SLOT_BYTES
from fs_common.transports.rdma.verbs import Access, Capacity, CompletionQueue, QueuePair, Receive, VerbsError

logger = logging.getLogger(__name__)

SEND_SLOTS = 18
SLOTS_BYTES = (RECEIVE_SLOTS + SEND_SLOTS) * SLOT_BYTES
"""Of one connection: 296 KiB."""
SEND_DEPTH = 320
"""Works outstanding on one queue pair: a batch of 256 WRITEs and the messages around it."""
INLINE_BYTES = 256
"""Of a message that travels within its work request: a small one is not fetched from memory."""
CAPACITY = Capacity(SEND_DEPTH, RECEIVE_SLOTS, INLINE_BYTES)
COMPLETIONS = SEND_DEPTH + RECEIVE_SLOTS
"""Room for all that is posted: a queue pair that fails completes everything."""

assert SLOTS_BYTES == 296 * KIB


class Traffic:
    """What went through one device, cumulative."""

    __slots__ = ("messages_received", "messages_sent", "read_bytes", "written_bytes")

    def __init__(self) -> None:
        self.messages_sent = 0
        self.messages_received = 0
        self.read_bytes = 0
        """By READs of this side."""
        self.written_bytes = 0
        """By WRITEs of this side, counted when they are posted."""

    def stats(self) -> dict[str, int]:
        return {f"rdma_{name}": getattr(self, name) for name in self.__slots__}


class Slots:
    """Memory of one connection's messages: first those that it receives into, then those that it sends from."""

    def __init__(self, memory: RegisteredMemory) -> None:
        """Raises `MemoryRefused`."""
        whole = memoryview(mmap.mmap(-1, SLOTS_BYTES))
        lent = memory.local([whole], Access.LOCAL_WRITE)
        self._use: Use | None = lent.use
        self.views = [whole[i : i + SLOT_BYTES] for i in range(0, SLOTS_BYTES, SLOT_BYTES)]
        address = lent.addresses[0]
        self.addresses = range(address, address + SLOTS_BYTES, SLOT_BYTES)
        self.lkey = lent.keys[0]
        self.receives = [
            Receive(index << 1 | 1, self.addresses[index], SLOT_BYTES, self.lkey) for index in range(RECEIVE_SLOTS)
        ]
        """Ids of receives are odd, those of works even."""

    def close(self) -> None:
        """The queue pair is gone. Idempotent."""
        use, self._use = self._use, None
        self.views = []
        if use is not None:
            use.release()


class Endpoint(NamedTuple):
    """A queue pair that is ready to send, with `RECEIVE_SLOTS` posted."""

    queue_pair: QueuePair
    completions: CompletionQueue
    slots: Slots
    memory: RegisteredMemory
    slabs: SlabPool
    traffic: Traffic
    closed: Callable[[], None] = lambda: None
    """Told of its end,"""
    failed: Callable[[], None] = lambda: None
    """and before that of work that failed, on either side or between."""
    leaves: Callable[[], bool] = lambda: False
    """Asked when memory could not be registered: connections are over TCP for now, and this one is to end."""

    def close(self) -> None:
        """No device touches anything on its behalf any more. Called once."""
        close_all(self.queue_pair, self.completions)
        self.slots.close()
        self.closed()


def close_all(queue_pair: QueuePair, completions: CompletionQueue) -> None:
    """Does not fail: what a device that was taken away cannot free, it does not use either."""
    for part in (queue_pair, completions):
        try:
            part.close()
        except VerbsError as error:
            logger.warning("a queue of an RDMA device: %s", error)
