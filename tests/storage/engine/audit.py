"""Whether a store's idea of its blocks is what its records say."""

from collections import Counter

from fs_storage.engine.index_format import decode_record
from fs_storage.engine.slots import _BACKED
from fs_storage.engine.store import EngineStore
from fs_storage.engine.transitions import blocks_of
from fs_storage.engine.versions import Record


def records_of(store: EngineStore) -> dict[bytes, Record]:
    """All of them: the index with what changed since over it."""
    opened = store._opened
    records = {
        chunk: decode_record(bytes(value), opened.blocks.locate)
        for chunk, value in opened.index.scan(b"", b"\xff" * 12)
    }
    records.update(opened.table.hot)
    return records


def audit(store: EngineStore) -> None:
    """Every block is owned once, or free, or dropped and waiting; nothing is lost. Nothing may be on its way."""
    slots = store._opened.slots
    owned: Counter[tuple[int, int]] = Counter()
    for record in records_of(store).values():
        owned.update({(block.size_class, block.slot) for block in blocks_of(record)})
    assert all(count == 1 for count in owned.values()), "a block has two owners"
    waiting = set(slots._dropped) | slots._pinned_free
    assert not waiting & set(owned), "a block that is owned was dropped"
    taken = {*owned, *waiting}
    assert slots.used_bytes == sum(1 << size_class for size_class, _ in taken), "a block is neither free nor owned"
    for size_class, of_class in slots._classes.items():
        free = of_class.free
        assert len(free) == len(set(free)), "a block is free twice"
        for number in range(of_class.units):
            first = number * of_class.unit_slots
            inside = range(first, first + of_class.unit_slots)
            used = [slot for slot in inside if (size_class, slot) in taken]
            assert of_class.taken[number] == len(used)
            assert (number in of_class.idle) == (of_class.states[number] == _BACKED and not used)
            if of_class.states[number] == _BACKED:
                assert sorted([slot for slot in free if slot in inside] + used) == list(inside)
            else:
                assert not used
