"""Which blocks are free. Rebuilt at open from the index and the log; never stored itself.

Owned by the event loop, except `pin` and `unpin`, which any thread may call.

A slot is, in turn:

    free -> taken          `take`: a version is being made that will own it
    taken -> free          `put_back`: that version never came to be (nothing of it is in the log)
    taken -> dropped       `drop`: no version owns it any more; older ones on the disk may
    dropped -> free        `reclaim`: a checkpoint is durable that was cut after the drop, and no reader has it pinned

Why a dropped slot may not be used at once: until the commit (or removal, or abandonment) that freed it is durable, a
crash brings the old owner back, and its bytes with it. The next checkpoint makes that durable, whatever the
durability of the update; and as no slot changes hands between two checkpoints, every version that the log tells of
is intact when the log is replayed. Recovery starts with nothing dropped: it ends with a checkpoint.

Storage is allocated in units (see `blocks`). A unit is backed (its storage is allocated, its free slots are listed), a
hole (it has no storage), leaving (its storage is being given back, and nobody may have it meanwhile), or unknown
(without any taken slot when the target was opened, or its allocation failed: it may have storage, and is allocated
again before use).
"""

import threading
from collections import deque
from typing import NamedTuple

from fs_common.checks import check
from fs_common.errors import Code, EmberError
from fs_storage.engine.blocks import unit_slots

_HOLE, _BACKED, _UNKNOWN, _LEAVING = 0, 1, 2, 3
_TO_BE_BACKED = (_HOLE, _UNKNOWN)
_GROWTH_BYTES_MAX = 64 << 20
"""At most so much storage is allocated at once for a class."""
_SPARE_UNITS = 16
_SPARE_SHARE = 8
"""Units without a taken slot that a class keeps: so many, and one for this many others."""


class Unit(NamedTuple):
    size_class: int
    number: int


class _Class:
    """The slots of one size class."""

    __slots__ = ("free", "idle", "idle_min", "spare", "states", "taken", "unit_slots", "units")

    def __init__(self, of_class: int) -> None:
        self.unit_slots = unit_slots(of_class)
        self.units = 0
        """How many there are, of any state."""
        self.states = bytearray()
        """For each unit: _HOLE, _BACKED, _UNKNOWN or _LEAVING."""
        self.taken: list[int] = []
        """For each unit, its slots that are not free."""
        self.idle: set[int] = set()
        """Backed units without such slots."""
        self.idle_min = 0
        """The fewest of them there were since the last `mark`."""
        self.spare = 0
        """So many of them were not needed between the two last marks, and may go."""
        self.free: list[int] = []
        """Free slots of backed units; the last one freed is used first, as it is most likely in the page cache."""

    def surplus(self) -> int:
        """Idle units beyond the reserve."""
        over = len(self.idle) - _SPARE_UNITS
        if over > 0:
            over -= (self.states.count(_BACKED) - len(self.idle)) // _SPARE_SHARE
        return over


class Slots:
    """See the module."""

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        """0: as much as the file system gives."""
        self.used_bytes = 0
        """In slots that are not free."""
        self.dropped_bytes = 0
        self._classes: dict[int, _Class] = {}
        self._dropped: list[tuple[int, int]] = []
        self._pins: dict[tuple[int, int], int] = {}
        self._pinned_free: set[tuple[int, int]] = set()
        """To be freed by the last `unpin`."""
        self._unpinned: deque[tuple[int, int]] = deque()
        """Freed by `unpin`, to be listed by the event loop."""
        self._lock = threading.Lock()
        """Of `_pins` and `_pinned_free`; held for a few instructions."""

    # -- life of a slot ----------------------------------------------------------------------------------------

    def take(self, of_class: int) -> tuple[int, list[Unit]]:
        """A free slot, and the units whose storage has to be allocated before it is written.

        Raises NO_SPACE: the capacity is used up.
        """
        if self._unpinned:
            self._list_unpinned()
        size = 1 << of_class
        if self.capacity_bytes and self.used_bytes + size > self.capacity_bytes:
            raise EmberError(Code.NO_SPACE, f"the target's {self.capacity_bytes} bytes are in use")
        slots = self._class(of_class)
        new = [] if slots.free else self._grow(of_class, slots)
        slot = slots.free.pop()
        unit = slot // slots.unit_slots
        slots.taken[unit] += 1
        slots.idle.discard(unit)
        if len(slots.idle) < slots.idle_min:
            slots.idle_min = len(slots.idle)
        self.used_bytes += size
        return slot, new

    def put_back(self, of_class: int, slot: int) -> None:
        """A taken slot that no log record names is free again."""
        slots = self._classes[of_class]
        unit = slot // slots.unit_slots
        check(slots.taken[unit] > 0, "a slot is freed once", of_class, slot)
        slots.taken[unit] -= 1
        self.used_bytes -= 1 << of_class
        if slots.states[unit] == _BACKED:
            slots.free.append(slot)
            if not slots.taken[unit]:
                slots.idle.add(unit)

    def drop(self, of_class: int, slot: int) -> None:
        """No version owns the slot any more."""
        self._dropped.append((of_class, slot))
        self.dropped_bytes += 1 << of_class

    def cut(self) -> list[tuple[int, int]]:
        """What was dropped before this moment, the cut of a checkpoint: for `reclaim`, once that is durable."""
        dropped, self._dropped = self._dropped, []
        self.dropped_bytes = 0
        return dropped

    def reclaim(self, dropped: list[tuple[int, int]]) -> None:
        for key in dropped:
            with self._lock:
                pinned = key in self._pins
                if pinned:
                    self._pinned_free.add(key)
            if not pinned:
                self.put_back(*key)

    # -- readers -----------------------------------------------------------------------------------------------

    def pin(self, of_class: int, slot: int) -> None:
        """The slot is not used for anything else until `unpin`. Whoever pins looks afterwards whether the version it
        read about still owns the slot."""
        key = (of_class, slot)
        with self._lock:
            self._pins[key] = self._pins.get(key, 0) + 1

    def unpin(self, of_class: int, slot: int) -> None:
        key = (of_class, slot)
        with self._lock:
            count = self._pins[key] - 1
            if count:
                self._pins[key] = count
                return
            del self._pins[key]
            if key in self._pinned_free:
                self._pinned_free.discard(key)
                self._unpinned.append(key)

    @property
    def is_pinned(self) -> bool:
        """Somebody reads from some slot."""
        return bool(self._pins)

    def _list_unpinned(self) -> None:
        while self._unpinned:
            self.put_back(*self._unpinned.popleft())

    # -- storage -----------------------------------------------------------------------------------------------

    def restore(self, units: dict[int, int], taken: dict[int, set[int]]) -> None:
        """Start from the units that the files span and the slots that versions own."""
        for of_class in {*units, *taken}:
            slots = self._class(of_class)
            owned = taken.get(of_class, set())
            count = max(units.get(of_class, 0), max(owned, default=-1) // slots.unit_slots + 1)
            slots.units = count
            slots.states = bytearray([_UNKNOWN]) * count
            slots.taken = [0] * count
            for slot in owned:
                slots.taken[slot // slots.unit_slots] += 1
                slots.states[slot // slots.unit_slots] = _BACKED
            self.used_bytes += len(owned) << of_class
            for unit in reversed(range(count)):
                if slots.states[unit] == _BACKED:
                    first = unit * slots.unit_slots
                    slots.free.extend(
                        slot for slot in range(first + slots.unit_slots - 1, first - 1, -1) if slot not in owned
                    )

    def backing_failed(self, units: list[Unit]) -> None:
        """Their storage could not be allocated: what is free in them is not to be had."""
        for of_class, number in units:
            self._unlist(of_class, {number}, _UNKNOWN)

    def unused_units(self) -> list[Unit]:
        """Units without a taken slot that may have storage. They are holes from now on: the caller punches them."""
        self._list_unpinned()
        found = []
        for of_class, slots in self._classes.items():
            unknown = {n for n in range(slots.units) if slots.states[n] == _UNKNOWN and not slots.taken[n]}
            found += self._give(of_class, slots.idle | unknown, _HOLE)
        return found

    def has_surplus(self) -> bool:
        """Some class has more than it keeps, for the moment."""
        self._list_unpinned()
        return any(slots.surplus() > 0 for slots in self._classes.values())

    def mark(self) -> None:
        """An interval ends and another begins: what a class had over all through the one that ends is spare."""
        self._list_unpinned()
        for slots in self._classes.values():
            slots.spare = max(0, slots.surplus() - (len(slots.idle) - slots.idle_min))
            slots.idle_min = len(slots.idle)

    def spare_units(self, at_most: int) -> list[Unit]:
        """Some of what is spare. It is leaving from now on: the caller punches it and says `given`."""
        found: list[Unit] = []
        for of_class, slots in self._classes.items():
            count = min(slots.spare, slots.surplus(), at_most - len(found))
            if count > 0:
                slots.spare -= count
                # The last ones, so that the files' ends are holes and their beginnings full.
                found += self._give(of_class, set(sorted(slots.idle)[-count:]), _LEAVING)
                slots.idle_min = min(slots.idle_min, len(slots.idle))
        return found

    def given(self, units: list[Unit]) -> None:
        """The storage of units that were leaving is gone, or may be."""
        for of_class, number in units:
            self._classes[of_class].states[number] = _HOLE

    def _give(self, of_class: int, numbers: set[int], state: int) -> list[Unit]:
        self._unlist(of_class, numbers, state)
        return [Unit(of_class, number) for number in sorted(numbers)]

    def _class(self, of_class: int) -> _Class:
        slots = self._classes.get(of_class)
        if slots is None:
            slots = self._classes[of_class] = _Class(of_class)
        return slots

    def _grow(self, of_class: int, slots: _Class) -> list[Unit]:
        """List the slots of new units: those that are not backed, else more at the end. A large class grows faster."""
        unit_bytes = slots.unit_slots << of_class
        backed = slots.states.count(_BACKED)
        wanted = max(1, min(backed // 4, _GROWTH_BYTES_MAX // unit_bytes))
        new = [n for n in range(slots.units) if slots.states[n] in _TO_BE_BACKED and not slots.taken[n]][:wanted]
        if not new:
            new = list(range(slots.units, slots.units + wanted))
            slots.units += wanted
            slots.states.extend(bytes(wanted))
            slots.taken.extend([0] * wanted)
        for number in reversed(new):
            slots.states[number] = _BACKED
            slots.idle.add(number)
            first = number * slots.unit_slots
            slots.free.extend(range(first + slots.unit_slots - 1, first - 1, -1))
        return [Unit(of_class, number) for number in new]

    def _unlist(self, of_class: int, numbers: set[int], state: int) -> None:
        """The units are not backed (any more); their free slots are not to be had."""
        slots = self._classes[of_class]
        listed = any(slots.states[number] == _BACKED for number in numbers)
        for number in numbers:
            slots.states[number] = state
        slots.idle -= numbers
        if listed:
            slots.free = [slot for slot in slots.free if slot // slots.unit_slots not in numbers]
