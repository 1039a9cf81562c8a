"""Bytes that programs have written and the daemons do not have yet, of one open file.

A write is answered as soon as its bytes are here, within bounds. Bytes are gathered to whole chunks: a write that is a
whole chunk (or a whole piece of a large chunk) is passed on in the memory the kernel delivered it in; smaller ones in
sequence are copied together. What is gathered is sent off (`push`)

* when it fills a piece, or the next write does not touch it,
* before anything that has to see it: a read of its range, truncate, fsync, flush, copy, the end,
* when it is `AGE_MAX_S` old, and when all files together hold too much (`Dirty`).

What is sent off goes at once if nothing of its piece is on its way; else it waits for that, and everything that waits
by then goes as one update of the chunk (`joined_writes`, `Writer.write_pieces`), as far as one is cheaper than several.
So small writes all over a file cost one update for each chunk and turn, however many they are.

Order: what was written to a piece of a chunk is stored in that order; what goes as one update changes at once.

An error while storing is the file's (`store` keeps it): whoever wrote is told by its next fsync or close.

Invariants: gathered bytes lie in one piece of a chunk, in sequence. Of each piece at most one store is on its way;
while anything waits, something is on its way. `Dirty.held` counts the bytes that are gathered, wait or are on their
way, of all files, `Dirty.writes` what waits or is on its way, write by write.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from fs_client.joined_writes import Piece, join
from fs_common.buffers import Buffer, BufferPool
from fs_common.checks import violated
from fs_common.limits import KIB, MIB
from fs_common.records.scattered import PIECES_MAX

AGE_MAX_S = 1.0
"""What was written is on its way to the daemons after so long, whatever the program does."""
PIECE_MAX = 4 * MIB
"""Of larger chunks a piece is a part."""
FILE_BYTES_MAX = 32 * MIB
"""What one file may have here; a writer waits beyond it."""
FILE_WRITES_MAX = 4096
"""Of one file, waiting or on their way: what a close has to wait for is a second or two of updates at worst, and
there are enough to be joined. A writer waits beyond it."""
WRITES_MAX = 4 * FILE_WRITES_MAX
"""Of all files."""
MOVING_MAX = 64
"""Stores of one file on their way: enough that every daemon has work while answers come back. What waits beyond it is
joined."""
UPDATE_WORTH = 128 * KIB
"""So many bytes more in an update cost its chain as much as another update does."""
GATHER_FIRST = 64 * KIB
"""Memory for the first bytes of a piece; most files are small."""


class Owned(Protocol):
    """Memory that is given back."""

    @property
    def view(self) -> memoryview: ...
    def release(self) -> None: ...


class Dirty:
    """What all files of a mount have in write-back."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self.writes = 0
        self.gathering: dict[WriteBack, float] = {}
        """Files with gathered bytes, and since when; the oldest first."""
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def full(self) -> bool:
        return self.held >= self.limit or self.writes >= WRITES_MAX

    def remove(self, size: int, writes: int) -> None:
        self.held -= size
        self.writes -= writes
        while self._waiting and not self.full:
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
                    self.remove(0, 0)
                raise
        self.remove(0, 0)

    def push_old(self, now: float) -> None:
        """Send off what is too old. Called several times a second."""
        while self.gathering:
            back, since = next(iter(self.gathering.items()))
            if since + AGE_MAX_S > now:
                return
            back.push()


Store = Callable[[Sequence[Piece]], Coroutine[Any, Any, None]]
"""Stores pieces, (offset in the file, bytes): one, of any number of chunks, or several of one chunk, ascending and
without overlap. Its errors are its own affair."""
Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]


class _Write(NamedTuple):
    """Bytes of one piece that are sent off."""

    number: int
    """Grows with every write of the file."""
    offset: int
    """In the file."""
    view: memoryview
    release: Callable[[], None] | None
    """Gives the memory back."""


class _Moving(NamedTuple):
    """A store on its way."""

    number: int
    """Of its first write."""
    pieces: Sequence[Piece]


class _Shared:
    """Memory of several writes, given back with the last."""

    def __init__(self, count: int, release: Callable[[], None]) -> None:
        self._count = count
        self._release = release

    def release(self) -> None:
        self._count -= 1
        if not self._count:
            self._release()


async def _is_closed(pieces: Sequence[Piece]) -> None:
    violated("nothing is written to a file after its last close", len(pieces))


class WriteBack:
    """See the module. `store` sends bytes to the daemons; `spawn` runs it in the background."""

    __slots__ = (
        "_buffer",
        "_count",
        "_dirty",
        "_ended",
        "_memory",
        "_moving",
        "_number",
        "_pool",
        "_spawn",
        "_start",
        "_store",
        "_stores",
        "_waiting",
        "bytes_held",
        "piece_size",
        "writes",
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
        self._number = 0
        """Of the last write that was sent off."""
        self._moving: dict[int, _Moving] = {}
        """By piece: what is on its way."""
        self._stores = 0
        """On their way."""
        self._waiting: dict[int, list[_Write]] = {}
        """By piece, the one that waits for longest first: what goes after what is on its way. No list is empty."""
        self._ended: asyncio.Future[None] | None = None
        """Done when the next store ends; None: nobody waits for it."""
        self.bytes_held = 0
        """Gathered, waiting or on their way."""
        self.writes = 0
        """Waiting or on their way."""

    @property
    def busy(self) -> bool:
        """A writer has to wait before it adds more."""
        return self.bytes_held >= FILE_BYTES_MAX or self.writes >= FILE_WRITES_MAX or self._dirty.full

    @property
    def empty(self) -> bool:
        return not self._moving and self._buffer is None

    # Taking

    def add(self, offset: int, data: Owned, now: float) -> None:
        """Take over `data`, `view` and all; it is released when its bytes are stored or copied."""
        view = data.view
        size = len(view)
        piece = self.piece_size
        if size >= piece and offset % piece == 0 and size % piece == 0:
            if self._buffer is not None:
                self.push()
            self._hold(size)
            self._send_whole(offset, view, data.release)
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
        self._dirty.held += size

    # Sending

    def push(self) -> None:
        """Send off what is gathered."""
        buffer = self._buffer
        if buffer is None:
            return
        del self._dirty.gathering[self]
        self._buffer = None
        view, roomy = self._memory[: self._count], 2 * self._count <= len(self._memory)
        self._memory, self._count = memoryview(b""), 0
        index = self._start // self.piece_size
        if index not in self._moving and self._stores < MOVING_MAX:
            self._number += 1
            self._count_writes(1)
            self._move([_Write(self._number, self._start, view, buffer.release)], range(index, index + 1))
        elif roomy:
            # Many of them may wait; none in memory that is mostly empty.
            self._wait(index, self._start, memoryview(bytes(view)), None)
            buffer.release()
        else:
            self._wait(index, self._start, view, buffer.release)

    def _send_whole(self, offset: int, view: memoryview, release: Callable[[], None]) -> None:
        """Send off whole pieces."""
        size = self.piece_size
        indexes = range(offset // size, (offset + len(view)) // size)
        if self._stores < MOVING_MAX and not any(index in self._moving for index in indexes):
            self._number += 1
            self._count_writes(1)
            self._move([_Write(self._number, offset, view, release)], indexes)
            return
        shared = _Shared(len(indexes), release)
        for place, index in enumerate(indexes):
            self._wait(index, index * size, view[place * size : (place + 1) * size], shared.release)

    def _count_writes(self, count: int) -> None:
        self.writes += count
        self._dirty.writes += count

    def _wait(self, index: int, offset: int, view: memoryview, release: Callable[[], None] | None) -> None:
        self._number += 1
        self._count_writes(1)
        write = _Write(self._number, offset, view, release)
        waiting = self._waiting.get(index)
        if waiting is None:
            self._waiting[index] = [write]
            self._send_more()
        else:
            waiting.append(write)

    def _send_more(self) -> None:
        """Send off what waits and may go."""
        while self._stores < MOVING_MAX:
            index = next((index for index in self._waiting if index not in self._moving), None)
            if index is None:
                return
            # What is left of it goes behind the others.
            writes = self._waiting.pop(index)
            count = _together(writes)
            if count < len(writes):
                self._waiting[index] = writes[count:]
            self._move(writes[:count], range(index, index + 1))

    def _move(self, writes: Sequence[_Write], indexes: Iterable[int]) -> None:
        """One store for `writes`, of these pieces."""
        size = sum(len(write.view) for write in writes)
        pieces = join([(write.offset, write.view) for write in writes])
        if len(writes) > 1:
            _release(writes)
            kept: Sequence[_Write] = ()
        else:
            kept = writes
        moving = _Moving(writes[0].number, pieces)
        for index in indexes:
            self._moving[index] = moving
        self._stores += 1

        def ended(_: "asyncio.Task[None]") -> None:
            for index in indexes:
                del self._moving[index]
            self._stores -= 1
            _release(kept)
            self._gone(size, len(writes))

        self._spawn(self._store(pieces)).add_done_callback(ended)

    def _gone(self, size: int, count: int) -> None:
        """So much less is here."""
        self.bytes_held -= size
        self.writes -= count
        self._send_more()
        if self._ended is not None:
            self._ended.set_result(None)
            self._ended = None
        self._dirty.remove(size, count)

    def drop(self, lost: Callable[[int], bool] = lambda index: True) -> tuple[int, int]:
        """Give up what waits of the pieces that `lost` names: it is not stored. Returns (bytes, writes)."""
        size = count = 0
        for index in [index for index in self._waiting if lost(index)]:
            writes = self._waiting.pop(index)
            size += sum(len(write.view) for write in writes)
            count += len(writes)
            _release(writes)
        if count:
            self._gone(size, count)
        return size, count

    def close(self) -> None:
        """Nothing is written here any more. It lets go of its file, which would wait for the collector of cycles: the
        files of a program that makes many of them lie all over the heap, and keep it large."""
        self._store = _is_closed

    # Waiting

    @property
    def end(self) -> int:
        """The furthest offset in the file of what is here; 0: nothing is."""
        end = self._start + self._count if self._buffer is not None else 0
        for moving in self._moving.values():
            offset, data = moving.pieces[-1]
            end = max(end, offset + len(data))
        for writes in self._waiting.values():
            end = max(end, *(write.offset + len(write.view) for write in writes))
        return end

    def overlaps(self, start: int, end: int) -> bool:
        """Whether bytes of `[start, end)` are here."""
        if self._buffer is not None and self._start < end and start < self._start + self._count:
            return True
        return any(self._last_of(index, start, end) for index in self._pieces_of(start, end))

    def _pieces_of(self, start: int, end: int | None) -> Iterable[int]:
        """Pieces with something on its way or waiting that may lie in `[start, end)`."""
        moving, waiting = self._moving, self._waiting
        if end is None:
            return [*moving, *(index for index in waiting if index not in moving)]
        first, last = start // self.piece_size, (end - 1) // self.piece_size
        if last - first < len(moving) + len(waiting):
            return [index for index in range(first, last + 1) if index in moving or index in waiting]
        return [index for index in self._pieces_of(0, None) if first <= index <= last]

    def _last_of(self, index: int, start: int, end: int | None) -> int:
        """Number of the last write of a piece that overlaps `[start, end)`; 0: none does."""
        for write in reversed(self._waiting.get(index, ())):
            if end is None or (write.offset < end and start < write.offset + len(write.view)):
                return write.number
        moving = self._moving.get(index)
        if moving is not None and (
            end is None or any(offset < end and start < offset + len(data) for offset, data in moving.pieces)
        ):
            return moving.number
        return 0

    def _has(self, index: int, number: int) -> bool:
        """Whether a write of a piece up to this number is here. They end in their order."""
        moving = self._moving.get(index)
        if moving is not None and moving.number <= number:
            return True
        waiting = self._waiting.get(index)
        return waiting is not None and waiting[0].number <= number

    async def flush(self, start: int = 0, end: int | None = None) -> None:
        """Send off what is gathered, and wait until everything that was here of `[start, end)` has ended."""
        if self._buffer is not None and (end is None or self.overlaps(start, end)):
            self.push()
        lasts = [(index, self._last_of(index, start, end)) for index in self._pieces_of(start, end)]
        for index, number in lasts:
            while number and self._has(index, number):
                await self._next_end()

    async def room(self) -> None:
        """Wait until a writer may add more."""
        while self.busy:
            if self._dirty.full:
                await self._dirty.room()
            elif self._moving:
                await self._next_end()
            else:
                self.push()

    async def _next_end(self) -> None:
        """Until a store has ended."""
        if self._ended is None:
            self._ended = asyncio.get_running_loop().create_future()
        await asyncio.wait([self._ended])


def _together(writes: Sequence[_Write]) -> int:
    """How many of them, from the first on, go as one update."""
    start = writes[0].offset
    end = total = 0
    together = 1
    for count, write in enumerate(writes[:PIECES_MAX], 1):
        size = len(write.view)
        start = min(start, write.offset)
        end = max(end, write.offset + size)
        total += size
        if end - start <= total + (count - 1) * UPDATE_WORTH:
            together = count
    return together


def _release(writes: Iterable[_Write]) -> None:
    for write in writes:
        if write.release is not None:
            write.release()
