"""Inode ids: unique for ever, taken from the store in blocks ahead of need.

Invariant: an id is given out at most once, by any metadata server, for ever. A block belongs to the process whose
transaction moved the counter past it; ids of a block that are not used when the process ends are lost, which 64 bits
can bear. Ids that failed operations took are lost too: reusing one after a maybe-committed transaction would be wrong.

Tasks: at most one refill, started when fewer than half a block is left; `close` waits for it.
"""

import asyncio
import logging
from collections import deque
from typing import Final

from fs_common.errors import EmberError
from fs_common.ids import ROOT_INODE, InodeId
from fs_meta import schema
from fs_meta.kv.interface import KeyValueStore, Transaction

_log = logging.getLogger(__name__)

BLOCK: Final = 4096
"""Ids for each transaction: at 10,000 creates/s a refill comes twice a second, far above a commit's time."""
_LOW: Final = BLOCK // 2
FIRST_INODE: Final = InodeId(ROOT_INODE + 1)


class InodeIds:
    def __init__(self, kv: KeyValueStore) -> None:
        self._kv = kv
        self._blocks: deque[range] = deque()
        """Whole blocks not begun, oldest first."""
        self._next = 0
        """The id to give out next, valid while below `_end`."""
        self._end = 0
        self._refilling: asyncio.Task[None] | None = None
        """The refill under way."""

    async def take(self) -> InodeId:
        """A new id. Suspends only when the store has not kept up. Raises what the store raises."""
        if self._next == self._end:
            await self._begin_block()
        inode = self._next
        self._next = inode + 1
        if self._end - inode < _LOW and not self._blocks and self._refilling is None:
            self._start_refill()
        return InodeId(inode)

    async def take_many(self, count: int) -> list[InodeId]:
        """`count` new ids, ascending, not always consecutive."""
        return [await self.take() for _ in range(count)]

    async def close(self) -> None:
        """Wait for a refill that is under way."""
        if self._refilling is not None:
            await asyncio.wait([self._refilling])

    async def _begin_block(self) -> None:
        while self._next == self._end:
            if self._blocks:
                block = self._blocks.popleft()
                self._next, self._end = block.start, block.stop
                return
            if self._refilling is None:
                self._start_refill()
            task = self._refilling
            assert task is not None
            # Shielded: the refill serves everyone who waits, not only the call that is cancelled here.
            await asyncio.shield(task)

    def _start_refill(self) -> None:
        self._refilling = asyncio.get_running_loop().create_task(self._refill(), name="inode ids: refill")
        self._refilling.add_done_callback(self._refilled)

    def _refilled(self, task: asyncio.Task[None]) -> None:
        self._refilling = None
        if not task.cancelled() and (error := task.exception()) is not None:
            # Nobody may be waiting; whoever runs dry starts the next refill and is told its error.
            log = _log.warning if isinstance(error, EmberError) else _log.error
            log("cannot take a block of inode ids: %s", error)

    async def _refill(self) -> None:
        async def take_block(txn: Transaction) -> int:
            value = await txn.get(schema.NEXT_INODE_KEY)
            first = FIRST_INODE if value is None else schema.decode_counter(value).value
            txn.put(schema.NEXT_INODE_KEY, schema.encode(schema.Counter(first + BLOCK)))
            return first

        first = await self._kv.transact(take_block)
        self._blocks.append(range(first, first + BLOCK))
