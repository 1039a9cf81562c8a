"""What every metadata operation works with. One for each process; operations keep no state of their own."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from fs_common.errors import EmberError
from fs_common.layout import Layout
from fs_common.records.routing import Routing
from fs_meta.chain_allocator import ChainAllocator
from fs_meta.inode_count import InodeCount
from fs_meta.inode_ids import InodeIds
from fs_meta.kv.interface import KeyValueStore
from fs_meta.locks.questions import LockQuestions
from fs_meta.locks.waits import LockWaits
from fs_meta.ops.turns import Turns
from fs_meta.service_time import ServiceTime


class Chunks(Protocol):
    """The storage daemons as the namespace needs them; `fs_meta.chunks.ChunkClient` is the real one.

    All raise `EmberError` when a chain cannot be reached in the time there is; each may be repeated.
    """

    async def measure(self, inode: int, layout: Layout) -> int:
        """End of the last chunk of the file in bytes, all acknowledged writes included; 0 without chunks."""

    async def cut(self, inode: int, layout: Layout, length: int) -> None:
        """Remove the chunks beyond `length` and cut the one it falls into."""

    async def remove(self, files: Sequence[tuple[int, Layout]]) -> list[EmberError | None]:
        """Remove all chunks of files; for each, None or why some may be left. Raises nothing."""


@dataclass(slots=True)
class Context:
    kv: KeyValueStore
    inode_ids: InodeIds
    inode_count: InodeCount
    allocator: ChainAllocator
    chunks: Chunks
    routing: Callable[[], Routing | None]
    """The newest routing this process knows; None before the manager has any."""
    now_ns: Callable[[], int]
    """Wall clock; every time in an inode comes from it, and nothing else does."""
    service_time: ServiceTime
    """By which things are forgotten and freed."""
    gc_delay_ns: int
    """How long a removed file's chunks stay for readers that have it open."""
    lock_lease_ms: int
    """How long a client may count on its locks without being heard of; less than it is waited for."""
    new_session: Callable[[], bytes] = field(default=lambda: os.urandom(16))
    lock_waits: LockWaits = field(default_factory=LockWaits)
    """Who waits for advisory locks."""
    lock_questions: LockQuestions = field(default_factory=LockQuestions)
    """Who holds them and can be asked."""
    truncating: Turns = field(default_factory=Turns)
    """Truncates of one file come one after another: see `fs_meta.ops.truncate`."""

    def due_ns(self) -> int:
        """When the contents may go, in the service's time, of a file that loses its last name now."""
        return max(self.service_time.now_ns() + self.gc_delay_ns, self.service_time.promised_until_ns)
