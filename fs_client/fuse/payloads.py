"""Memory for the data of WRITE requests: it lands here, and stays here for as long as somebody wants it.

Memory comes in arenas of several of the largest writes. A payload takes the next pages of the current arena, so small
writes share one and nothing is ever moved. An arena is used again, from its front, when all of its payloads are
released; as long as each is released before the next arrives, all land on the same pages, which the processor's cache
knows.

Invariant: at most `bytes_max` in all arenas (but always one); `room` is None exactly while every arena is full.

Used from one thread (the event loop).
"""

import mmap
from collections.abc import Callable

from fs_common.checks import check
from fs_common.lasting import lasting
from fs_common.limits import MIB

ARENA_SIZE_MIN = 4 * MIB
WRITES_PER_ARENA = 4
"""Of the largest: less than one of them is unused at an arena's end."""
_PAGE_MASK = mmap.PAGESIZE - 1


class _Arena:
    __slots__ = ("first_room", "lasts", "memory", "users")

    def __init__(self, size: int, write_bytes_max: int) -> None:
        self.memory = memoryview(mmap.mmap(-1, size))
        self.lasts = lasting(self.memory)
        self.first_room = self.memory[:write_bytes_max]
        self.users = 0
        """Payloads that are not released."""


class Payload:
    """The data of one request. Whoever owns it releases it once; its bytes are stable until then."""

    __slots__ = ("_arena", "_owner", "view")

    def __init__(self, owner: "PayloadMemory", arena: _Arena, view: memoryview) -> None:
        self._owner = owner
        self._arena: _Arena | None = arena
        self.view = view

    def release(self) -> None:
        """Give the memory back. Neither it nor views of it may be used any more."""
        arena, self._arena = self._arena, None
        check(arena is not None, "a payload is released once", len(self.view))
        assert arena is not None
        self._owner._released(arena)


class PayloadMemory:
    """All memory for payloads of one channel."""

    def __init__(self, write_bytes_max: int, bytes_max: int, available: Callable[[], None]) -> None:
        self._write_bytes_max = write_bytes_max
        self._arena_size = max(ARENA_SIZE_MIN, WRITES_PER_ARENA * write_bytes_max)
        self._arenas_max = max(1, bytes_max // self._arena_size)
        self._available = available
        """Called when there is room again after there was none."""
        self._arenas = 0
        self._free: list[_Arena] = []
        self._arena: _Arena | None = None
        """The one that is being filled; None: all are full."""
        self._position = 0
        self.room: memoryview | None = None
        """Where the next payload lands: page-aligned, as long as the largest; None: there is no room."""
        self._next_arena()

    @property
    def bytes_held(self) -> int:
        """Of arenas with payloads that are not released."""
        unused = len(self._free) + (self._arena is not None and not self._arena.users)
        return (self._arenas - unused) * self._arena_size

    def take(self, size: int) -> Payload:
        """The first `size` bytes of `room` become a payload, owned by the caller."""
        arena, room = self._arena, self.room
        assert arena is not None and room is not None
        arena.users += 1
        payload = Payload(self, arena, room[:size])
        position = self._position = self._position + ((size + _PAGE_MASK) & ~_PAGE_MASK)
        end = position + self._write_bytes_max
        if end <= self._arena_size:
            self.room = arena.memory[position:end]
        else:
            self._next_arena()
        return payload

    def _next_arena(self) -> None:
        if self._free:
            self._begin(self._free.pop())
        elif self._arenas < self._arenas_max:
            self._arenas += 1
            self._begin(_Arena(self._arena_size, self._write_bytes_max))
        else:
            self._arena = self.room = None

    def _begin(self, arena: _Arena) -> None:
        self._arena = arena
        self._position = 0
        self.room = arena.first_room

    def _released(self, arena: _Arena) -> None:
        arena.users -= 1
        if arena.users:
            return
        if arena is self._arena:
            self._position = 0
            self.room = arena.first_room
        elif self._arena is None:
            self._begin(arena)
            self._available()
        else:
            self._free.append(arena)
