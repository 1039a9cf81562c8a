"""What a change of the chain ends at a target."""

from fs_common.records.routing import Chain, ChainTarget, PublicState
from fs_common.records.storage import Holder
from fs_storage.craq.position import Position, position_of
from fs_storage.engine.memory_store import MemoryStore
from fs_storage.target import Target
from tests.support import run


class Lease:
    routing = None

    def lease_valid(self) -> bool:
        return True


def place(version: int, first: PublicState, second: PublicState) -> Position | None:
    return position_of(Chain(1, version, [ChainTarget(101, 1, first), ChainTarget(201, 2, second)]), 201)


def test_mending_ends_when_the_chain_changes_and_before_that_nothing_is_taken_from_it() -> None:
    store = MemoryStore()
    store.whole = False
    target = Target(201, store, Lease())
    target.admitted = True
    target.place(place(1, PublicState.SERVING, PublicState.SERVING))
    ends: list[bool] = []
    target.mends, target.stop_mending = True, lambda: ends.append(True)
    target.place(place(1, PublicState.SERVING, PublicState.SERVING))
    assert not ends, "nothing has changed"
    target.place(place(2, PublicState.SERVING, PublicState.SYNCING))
    assert ends
    assert not target.may_act and target.replica.position is None, "what it fetched as a survivor is still stored"
    target.mends, target.stop_mending = False, None
    target.refresh()
    assert target.may_act and target.replica.position is target.position


def test_who_filled_it_up_counts_as_long_as_it_knows_that_it_has_served() -> None:
    serving, syncing, offline = PublicState.SERVING, PublicState.SYNCING, PublicState.OFFLINE
    filled_by = [Holder(1, 101, 1)]

    def filled() -> Target:
        target = Target(201, MemoryStore(), Lease())
        target.place(place(1, serving, syncing))
        target.filled(1, filled_by)
        target.place(place(2, serving, serving))
        assert target.lineage == filled_by
        return target

    target = filled()
    target.place(place(3, offline, serving))
    assert target.lineage == filled_by, "the other one has left"
    target.place(place(5, offline, serving))
    assert target.lineage == [], "it may have been left out in between, and taken back as it is"
    target = filled()
    target.place(place(3, serving, offline))
    assert target.lineage == []
    target = filled()
    target.place(place(3, serving, syncing))
    assert target.lineage == []
    target = filled()
    run(target.store.renew(0, 0))
    assert target.lineage == [], "it may have lost something"
    target = filled()
    target.mended()
    assert target.lineage == []
