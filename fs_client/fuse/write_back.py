"""Bytes that programs have written and the daemons do not have yet, of one open file.

A write is answered as soon as its bytes are here, within bounds. Bytes are gathered to whole chunks: a write that is a
whole chunk (or a whole piece of a large chunk) is passed on in the memory the kernel delivered it in; smaller ones in
sequence are copied together. What is gathered is sent off (`push`)

* when it fills a piece, or the next write does not touch it,
* before anything that has to see it: a read of its range, truncate, fsync, flush, copy, the end,
* when it is `AGE_MAX_S` old, and when all files together hold too much (`Dirty`).

What is on its way keeps order by chunk (`fs_client.write_path`), so a later write of the same bytes ends later.

An error while storing is the file's (`stored` gets it): whoever wrote is told by its next fsync or close.

Invariants: gathered bytes lie in one piece of a chunk, in sequence; `Dirty.held` counts the bytes that are gathered
or on their way, of all files.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from fs_common.buffers import Buffer, BufferPool
from fs_common.limits import KIB, MIB

AGE_MAX_S = 1.0
"""What was written is on its way to the daemons after so long, whatever the program does."""
PIECE_MAX = 4 * MIB
"""Of larger chunks a piece is a part."""
FILE_BYTES_MAX = 32 * MIB
"""What one file may have here; a writer waits beyond it."""
GATHER_FIRST = 64 * KIB
"""Memory for the first bytes of a piece; most files are small."""


class Owned(Protocol):
    """Memory that is given back."""

    @property
    def view(self) -> memoryview: ...
    def release(self) -> None: ...


class Dirty:
    """The bytes that all files of a mount have in write-back."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self.gathering: dict[WriteBack, float] = {}
        """Files with gathered bytes, and since when; the oldest first."""
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def full(self) -> bool:
        return self.held >= self.limit

    def add(self, size: int) -> None:
        self.held += size

    def remove(self, size: int) -> None:
        self.held -= size
        while self._waiting and self.held < self.limit:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                break

    async def room(self) -> None:
        """Wait until there is room. Everything that is gathered is sent off, so there will be."""
        while self.full:
            for back in list(self.gathering):
                back.push()
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self.remove(0)
                raise
        self.remove(0)

    def push_old(self, now: float) -> None:
        """Send off what is too old. Called several times a second."""
        while self.gathering:
            back, since = next(iter(self.gathering.items()))
            if since + AGE_MAX_S > now:
                return
            back.push()


Store = Callable[[int, memoryview], Coroutine[Any, Any, None]]
"""Offset in the file, bytes: stores them. Its errors are its own affair."""
Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]


class WriteBack:
    """See the module. `store` sends bytes to the daemons; `spawn` runs it in the background."""

    __slots__ = (
        "_buffer",
        "_count",
        "_dirty",
        "_memory",
        "_moving",
        "_pool",
        "_spawn",
        "_start",
        "_store",
        "bytes_held",
        "piece_size",
    )

    def __init__(self, chunk_size: int, dirty: Dirty, pool: BufferPool, store: Store, spawn: Spawn) -> None:
        self.piece_size = min(chunk_size, PIECE_MAX)
        self._dirty = dirty
        self._pool = pool
        self._store = store
        self._spawn = spawn
        self._buffer: Buffer | None = None
        """Where gathered bytes are; None: there are none."""
        self._memory = memoryview(b"")
        """Its bytes."""
        self._start = 0
        """Offset in the file of what is gathered."""
        self._count = 0
        self._moving: dict[asyncio.Task[None], tuple[int, int]] = {}
        """What is on its way: (start, end) in the file."""
        self.bytes_held = 0
        """Gathered or on their way."""

    @property
    def busy(self) -> bool:
        """A writer has to wait before it adds more."""
        return self.bytes_held >= FILE_BYTES_MAX or self._dirty.full

    @property
    def empty(self) -> bool:
        return not self._moving and self._buffer is None

    def add(self, offset: int, data: Owned, now: float) -> None:
        """Take over `data`, `view` and all; it is released when its bytes are stored or copied."""
        view = data.view
        size = len(view)
        piece = self.piece_size
        if size >= piece and offset % piece == 0 and size % piece == 0:
            if self._buffer is not None:
                self.push()
            self._send(offset, view, data.release)
            return
        try:
            while size:
                if self._buffer is not None and not self._touches(offset):
                    self.push()
                if self._buffer is None:
                    self._start = offset
                    self._count = 0
                    self._take(min(size, piece - offset % piece))
                    self._dirty.gathering[self] = now
                within = offset - self._start
                room = piece - self._start % piece
                take = min(size, room - within)
                end = within + take
                if end > len(self._memory):
                    self._grow(end, room)
                self._memory[within:end] = view[:take]
                if end > self._count:
                    self._hold(end - self._count)
                    self._count = end
                if end == room:
                    self.push()
                offset += take
                size -= take
                view = view[take:]
        finally:
            data.release()

    def _touches(self, offset: int) -> bool:
        """Whether bytes at `offset` lie within or right behind what is gathered, in the same piece."""
        return self._start <= offset <= self._start + self._count and (
            offset // self.piece_size == self._start // self.piece_size
        )

    def _take(self, size: int) -> None:
        self._buffer = self._pool.take(max(min(GATHER_FIRST, self.piece_size), size))
        self._memory = self._buffer.view

    def _grow(self, size: int, room: int) -> None:
        old = self._buffer
        assert old is not None
        new = self._pool.take(min(max(size, 4 * len(self._memory)), room))
        new.view[: self._count] = self._memory[: self._count]
        self._buffer, self._memory = new, new.view
        old.release()

    def _hold(self, size: int) -> None:
        self.bytes_held += size
        self._dirty.add(size)

    def push(self) -> None:
        """Send off what is gathered."""
        buffer = self._buffer
        if buffer is None:
            return
        del self._dirty.gathering[self]
        self._buffer = None
        view, count = self._memory[: self._count], self._count
        self._memory, self._count = memoryview(b""), 0
        # `_send` counts it again.
        self.bytes_held -= count
        self._dirty.held -= count
        self._send(self._start, view, buffer.release)

    def _send(self, offset: int, view: memoryview, release: Callable[[], None]) -> None:
        size = len(view)
        self._hold(size)
        task = self._spawn(self._store(offset, view))
        self._moving[task] = (offset, offset + size)

        def ended(task: "asyncio.Task[None]") -> None:
            del self._moving[task]
            release()
            self.bytes_held -= size
            self._dirty.remove(size)

        task.add_done_callback(ended)

    @property
    def end(self) -> int:
        """The furthest offset in the file of what is here; 0: nothing is."""
        ends = [stop for _, stop in self._moving.values()]
        return max(self._start + self._count if self._buffer is not None else 0, *ends, 0)

    def overlaps(self, start: int, end: int) -> bool:
        """Whether bytes of `[start, end)` are here."""
        if self._buffer is not None and self._start < end and start < self._start + self._count:
            return True
        return any(begin < end and start < stop for begin, stop in self._moving.values())

    async def flush(self, start: int = 0, end: int | None = None) -> None:
        """Send off what is gathered, and wait until everything that was here of `[start, end)` has ended."""
        if self._buffer is not None and (end is None or self.overlaps(start, end)):
            self.push()
        moving = [task for task, (begin, stop) in self._moving.items() if end is None or (begin < end and start < stop)]
        if moving:
            await asyncio.wait(moving)

    async def room(self) -> None:
        """Wait until a writer may add more."""
        while self.busy:
            if self._dirty.full:
                await self._dirty.room()
            elif self._moving:
                await asyncio.wait(self._moving, return_when=asyncio.FIRST_COMPLETED)
            else:
                self.push()
