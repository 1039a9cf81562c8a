"""Which blocks are free, and when a dropped one is free again."""

import pytest

from fs_common.checks import InvariantViolation
from fs_common.errors import Code, EmberError
from fs_storage.engine.slots import Slots, Unit

MIB = 1 << 20


def take(slots: Slots, size_class: int) -> int:
    return slots.take(size_class)[0]


def test_storage_is_asked_for_in_units_before_it_is_used() -> None:
    slots = Slots(0)
    slot, units = slots.take(20)
    assert (slot, units) == (0, [Unit(20, 0)])
    assert [slots.take(20) for _ in range(3)] == [(1, []), (2, []), (3, [])]
    assert slots.take(20) == (4, [Unit(20, 1)])
    assert slots.take(26) == (0, [Unit(26, 0)])
    assert slots.used_bytes == 5 * MIB + 64 * MIB


def test_a_class_grows_faster_as_it_grows() -> None:
    slots = Slots(0)
    grown = []
    for _ in range(400):
        _, units = slots.take(22)
        if units:
            grown.append(len(units))
    assert grown[:4] == [1, 1, 1, 1] and max(grown) == 16 and grown == sorted(grown)


def test_capacity_counts_what_is_not_free() -> None:
    slots = Slots(2 * MIB)
    first = take(slots, 20)
    take(slots, 20)
    with pytest.raises(EmberError) as error:
        slots.take(12)
    assert error.value.code is Code.NO_SPACE
    slots.drop(20, first)
    with pytest.raises(EmberError):
        slots.take(12)
    slots.reclaim(slots.cut())
    assert take(slots, 20) == first


def test_a_dropped_slot_waits_for_a_cut_after_its_drop() -> None:
    slots = Slots(0)
    first, second = take(slots, 20), take(slots, 20)
    slots.drop(20, first)
    cut = slots.cut()
    slots.drop(20, second)
    slots.reclaim(cut)
    assert take(slots, 20) == first
    assert take(slots, 20) not in (first, second)


def test_a_pinned_slot_is_free_after_its_last_reader() -> None:
    slots = Slots(0)
    slot = take(slots, 20)
    slots.pin(20, slot)
    slots.pin(20, slot)
    slots.drop(20, slot)
    slots.reclaim(slots.cut())
    taken = {take(slots, 20) for _ in range(3)}
    slots.unpin(20, slot)
    taken.add(take(slots, 20))
    assert slot not in taken
    slots.unpin(20, slot)
    assert take(slots, 20) == slot


def test_a_slot_is_freed_once() -> None:
    slots = Slots(0)
    slot = take(slots, 22)
    slots.put_back(22, slot)
    with pytest.raises(InvariantViolation, match="a slot is freed once"):
        slots.put_back(22, slot)


def test_units_without_storage_give_no_slots() -> None:
    slots = Slots(0)
    slot, units = slots.take(20)
    other = take(slots, 20)
    slots.backing_failed(units)
    slots.put_back(20, slot)
    # One slot of the unit is still on its way: the unit is not asked for again.
    assert slots.take(20)[1] == [Unit(20, 1)]
    slots.put_back(20, other)
    for _ in range(3):
        take(slots, 20)
    assert slots.take(20) == (0, [Unit(20, 0)])


def test_unused_units_are_given_away_and_asked_for_again() -> None:
    slots = Slots(0)
    small = take(slots, 12)
    large = take(slots, 22)
    assert slots.unused_units() == []
    slots.put_back(22, large)
    assert slots.unused_units() == [Unit(22, 0)]
    assert slots.unused_units() == []
    assert slots.take(22) == (0, [Unit(22, 0)])
    slots.put_back(12, small)
    assert slots.unused_units() == [Unit(12, 0)]


def test_restored_slots_are_free_where_nobody_owns_them() -> None:
    slots = Slots(0)
    slots.restore({20: 3, 12: 1}, {20: {0, 2, 9}})
    assert slots.used_bytes == 3 * MIB
    taken = []
    units: list[Unit] = []
    for _ in range(9):
        slot, new = slots.take(20)
        taken.append(slot)
        units += new
    assert sorted(taken) == [1, 3, 4, 5, 6, 7, 8, 10, 11]
    assert units == [Unit(20, 1)], "a unit that nobody used may have lost its storage"
    assert slots.take(12) == (0, [Unit(12, 0)])


def test_units_that_nobody_used_at_opening_may_have_storage_to_give_away() -> None:
    slots = Slots(0)
    slots.restore({20: 3, 12: 1}, {20: {5}})
    assert slots.unused_units() == [Unit(20, 0), Unit(20, 2), Unit(12, 0)]
    assert slots.unused_units() == []


def test_a_class_keeps_a_reserve_and_has_the_rest_to_spare_if_it_was_not_needed_for_an_interval() -> None:
    slots = Slots(0)
    taken = [take(slots, 22) for _ in range(160)]
    slots.mark()
    assert not slots.has_surplus()
    for slot in taken[20:]:
        slots.put_back(22, slot)
    assert slots.has_surplus()
    slots.mark()
    assert slots.spare_units(1000) == [], "they were needed a moment ago"
    slots.mark()
    some = slots.spare_units(100)
    given = some + slots.spare_units(1000)
    assert len(some) == 100
    backed = slots._classes[22].states.count(1)
    assert len(given) > 100 and backed - 20 >= 16
    assert all(unit.number >= 20 for unit in given)
    assert slots.spare_units(1000) == [] and not slots.has_surplus()
    again = [slots.take(22) for _ in range(100)]
    new = [unit for _, units in again for unit in units]
    assert len(new) >= 100 - (backed - 20)
    assert not set(new) & set(given), "their storage is still on its way out"
    slots.given(given)
    assert slots.take(22)[0] not in {slot for slot, _ in again}
    more = [unit for _ in range(100) for unit in slots.take(22)[1]]
    assert set(more) & set(given), "holes are used before a file grows"


def test_units_that_were_needed_within_an_interval_are_not_spare() -> None:
    slots = Slots(0)
    taken = [take(slots, 22) for _ in range(160)]
    for slot in taken:
        slots.put_back(22, slot)
    slots.mark()
    used = [take(slots, 22) for _ in range(100)]
    for slot in used:
        slots.put_back(22, slot)
    slots.mark()
    assert len(slots.spare_units(1000)) == len(slots._classes[22].states) - 16 - 100
