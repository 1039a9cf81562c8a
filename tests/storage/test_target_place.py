"""What a change of the chain ends at a target."""

from fs_common.records.routing import Chain, ChainTarget, PublicState
from fs_storage.craq.position import Position, position_of
from fs_storage.engine.memory_store import MemoryStore
from fs_storage.target import Target


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
