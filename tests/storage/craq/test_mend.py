"""Every small history of a chunk, every place that a chain may be in it, every loss: what mending makes of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise, permutations, product

import pytest

from fs_storage.craq.mend import Commit, Conflict, Drop, Other, Pull, Remove, Step, plan
from fs_storage.engine.interface import Held

CHUNK = b"chunk-number"
VERSIONS = 2


@dataclass(frozen=True)
class Replica:
    """What one has of the history: its committed version and whether the next is pending."""

    committed: int
    pending: bool
    forgotten: bool = False
    """The committed version is a removal, and it is gone."""

    @property
    def newest(self) -> int:
        return self.committed + self.pending


def digest(version: int) -> int:
    return 100 + version


def held(replica: Replica, removals: tuple[bool, ...]) -> Held:
    committed = 0 if replica.forgotten else replica.committed
    pending = replica.committed + 1 if replica.pending else 0
    return Held(
        CHUNK,
        committed,
        digest(committed) if committed else 0,
        removed=bool(committed and removals[committed - 1]),
        pending_version=pending,
        pending_digest=digest(pending) if pending else 0,
        pending_removed=bool(pending and removals[pending - 1]),
    )


def chains(removals: tuple[bool, ...]) -> Iterator[list[Replica]]:
    """Every state of three replicas that the protocol allows."""
    states = [Replica(committed, pending) for committed in range(VERSIONS + 1) for pending in (False, True)]
    states = [state for state in states if state.newest <= VERSIONS]
    for chain in product(states, repeat=3):
        in_order = all(before.newest >= after.newest for before, after in pairwise(chain))
        # What anybody has committed was prepared by all; what a head goes on from was committed by all.
        committed_is_everywhere = max(one.committed for one in chain) <= min(one.newest for one in chain)
        if in_order and committed_is_everywhere and max(one.newest for one in chain) - chain[-1].newest <= 1:
            yield list(chain)


def losses(replica: Replica) -> Iterator[Replica]:
    """What it may come back with: any earlier state."""
    for committed in range(replica.committed + 1):
        for pending in (False, True):
            if committed + pending <= replica.newest:
                yield Replica(committed, pending)


def steps_of(place: int, chain: list[Held], whole: set[int]) -> list[Step]:
    others = [Other(one, other, other in whole, other > place) for other, one in enumerate(chain) if other != place]
    return plan(chain[place], others)


def after(mine: Held, steps: list[Step]) -> Held:
    for step in steps:
        match step:
            case Remove(version):
                assert version > mine.version
                mine = Held(CHUNK, version, digest(version), 0, True)
            case Commit(version):
                assert version == mine.pending_version
                mine = Held(CHUNK, version, mine.pending_digest, 0, mine.pending_removed)
            case Drop(version):
                assert version == mine.pending_version
                mine = mine._replace(pending_version=0, pending_digest=0, pending_removed=False)
            case Pull(_, version, found, _, removed, _, False):
                mine = Held(CHUNK, version, found, 0, removed)
            case Pull(_, version, found, _, removed, _, True):
                assert version > mine.version
                mine = replace_pending(mine, version, found, removed)
            case Conflict(message):
                raise AssertionError(message)
    return mine


def replace_pending(mine: Held, version: int, found: int, removed: bool) -> Held:
    return mine._replace(pending_version=version, pending_digest=found, pending_removed=removed)


def mended(chain: list[Held], lost: tuple[int, ...], order: tuple[int, ...] | None) -> list[Held]:
    """Those that lost something are mended one after the other, or (None) each while the others are at it."""
    chain = list(chain)
    whole = {0, 1, 2} - set(lost)
    if order is None:
        found = {place: after(chain[place], steps_of(place, chain, whole)) for place in lost}
        return [found.get(place, one) for place, one in enumerate(chain)]
    for place in order:
        chain[place] = after(chain[place], steps_of(place, chain, whole))
        whole.add(place)
    return chain


def newest(one: Held) -> tuple[int, int, bool]:
    """Version, digest, removed."""
    if one.pending_version:
        return one.pending_version, one.pending_digest, one.pending_removed
    return one.version, one.digest, one.removed


def check(had: list[Held], lost: tuple[int, ...], there: list[Held]) -> None:
    top = max(had, key=lambda one: one.version)
    for place in lost:
        mine = there[place]
        if top.removed or not top.version:
            assert mine.version <= top.version and (mine.removed or not mine.version), "what was removed stays so"
        else:
            assert (mine.version, mine.digest) == (top.version, top.digest), "what anybody has committed is here"
    for before, following in pairwise(there):
        behind, ahead = newest(following), newest(before)
        if behind[:2] != ahead[:2] and not (behind[2] and (ahead[2] or not ahead[0])):
            assert behind[0] < ahead[0], "prefix order"


@pytest.mark.parametrize("removals", list(product((False, True), repeat=VERSIONS)))
def test_whatever_is_lost_comes_back_and_nothing_that_was_removed(removals: tuple[bool, ...]) -> None:
    count = 0
    for chain in chains(removals):
        for size in (1, 2, 3):
            for lost in combinations(range(3), size):
                for left in product(*(losses(chain[place]) for place in lost)):
                    now = list(chain)
                    for place, one in zip(lost, left, strict=True):
                        now[place] = one
                    had = [held(one, removals) for one in now]
                    for order in (None, *permutations(lost)):
                        there = mended(had, lost, order)
                        check(had, lost, there)
                        count += 1
    assert count > 500


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("forgot", [(True, True), (True, False), (False, True)])
def test_a_removal_that_others_have_forgotten_is_not_undone(place: int, forgot: tuple[bool, bool]) -> None:
    removals = (False, True)
    chain = [Replica(2, False, True)] * 3
    others = [one for one in range(3) if one != place]
    for one, forgotten in zip(others, forgot, strict=True):
        chain[one] = Replica(2, False, forgotten)
    chain[place] = Replica(1, False)
    found = [held(one, removals) for one in chain]
    mine = after(found[place], steps_of(place, found, set(others)))
    assert mine.removed and mine.version == 2


def test_a_head_that_has_the_removal_pending_while_the_tail_has_forgotten_it() -> None:
    removals = (False, True)
    found = [
        held(Replica(1, True), removals),
        held(Replica(1, False), removals),
        held(Replica(2, False, True), removals),
    ]
    assert steps_of(1, found, {0, 2}) == [Remove(2)]


def test_only_what_follows_from_what_is_committed_is_taken_as_pending() -> None:
    mine = Held(CHUNK, 1, 11)
    stale = Other(Held(CHUNK, 0, pending_version=4, pending_digest=41), 0, False, True)
    assert plan(mine, [stale]) == [], "it lost what came before, and drops it"
    gone = Other(Held(CHUNK), 1, True, True)
    old = Other(Held(CHUNK, 1, 11, pending_version=2, pending_digest=21), 0, False, True)
    assert plan(mine, [old, gone]) == [Remove(2)], "it was removed since"
    new = Other(Held(CHUNK, 0, pending_version=9, pending_digest=91), 0, True, True)
    assert plan(mine, [new, gone]) == [Remove(2), Pull(0, 9, 91, 0, False, 0, True)], "and made again"
    first = Other(Held(CHUNK, 0, pending_version=1, pending_digest=11), 0, False, True)
    assert plan(Held(CHUNK), [first, gone]) == [Pull(0, 1, 11, 0, False, 0, True)]


def test_what_a_whole_replica_before_it_is_past_does_not_stay_pending() -> None:
    mine = Held(CHUNK, 0, pending_version=1, pending_digest=11)
    head = Held(CHUNK, 0, pending_version=3, pending_digest=31)
    assert plan(mine, [Other(head, 0, True, False)]) == [Drop(1)], "removed and forgotten since, and made again"
    assert plan(mine, [Other(mine, 0, True, False)]) == []
    assert plan(mine, [Other(head, 0, False, False)]) == [], "it may have lost what it knew"


def test_what_cannot_be_decided_is_reported() -> None:
    mine = Held(CHUNK, 1, 11)
    two = [Other(Held(CHUNK, 2, 21), 0, False, True), Other(Held(CHUNK, 2, 22), 1, False, True)]
    for others in (
        two,
        [Other(Held(CHUNK, 1, 12), 0, False, True)],
        [Other(Held(CHUNK, 3, 31), 0, False, True), Other(Held(CHUNK, 2, 21), 1, True, True)],
    ):
        (step,) = plan(mine, others)
        assert isinstance(step, Conflict)
    assert plan(mine, [two[0], two[1]._replace(whole=True)]) == [Pull(1, 2, 22, 0, False, 0, False)]
    assert plan(mine, [Other(Held(CHUNK, 1, 12), 0, True, False)]) == [Pull(0, 1, 12, 0, False, 0, False)]
    pending = [
        Other(Held(CHUNK, 1, 11, pending_version=2, pending_digest=number), number, True, True) for number in (21, 22)
    ]
    (step,) = plan(mine, pending)
    assert isinstance(step, Conflict)
