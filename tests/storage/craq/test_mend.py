"""Every small history of a chunk, every place that a chain may be in it, every loss: what mending makes of it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise, permutations, product

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


def forgetting(chain: list[Replica], removals: tuple[bool, ...]) -> Iterator[list[Replica]]:
    """Some of those that have committed a removal have forgotten it, or none."""
    able = [bool(one.committed and removals[one.committed - 1]) for one in chain]
    for forgot in product(*((False, True) if may else (False,) for may in able)):
        yield [replace(one, forgotten=gone) for one, gone in zip(chain, forgot, strict=True)]


def losses(chain: list[Replica], replica: Replica) -> Iterator[Replica]:
    """What it may come back with: any earlier state. What anybody has forgotten is long on the disks of all."""
    kept = max((one.committed for one in chain if one.forgotten), default=0)
    if replica.forgotten:
        yield replace(replica, pending=False)
        if replica.pending:
            yield replica
        return
    for committed in range(replica.committed + 1):
        for pending in (False, True):
            if kept <= committed + pending <= replica.newest:
                yield Replica(committed, pending)


def steps_of(place: int, chain: list[Held]) -> list[Step]:
    return plan(chain[place], [Other(one, other, other > place) for other, one in enumerate(chain) if other != place])


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


def mended(chain: list[Held], order: tuple[int, ...] | None) -> list[Held]:
    """All may have lost something, and are mended one after the other, or (None) each while the others are at it."""
    if order is None:
        return [after(one, steps_of(place, chain)) for place, one in enumerate(chain)]
    chain = list(chain)
    for place in order:
        chain[place] = after(chain[place], steps_of(place, chain))
    return chain


def newest(one: Held) -> tuple[int, int, bool]:
    """Version, digest, removed."""
    if one.pending_version:
        return one.pending_version, one.pending_digest, one.pending_removed
    return one.version, one.digest, one.removed


def check(had: list[Held], forgotten: int, there: list[Held]) -> None:
    """`forgotten`: the highest removal that somebody has committed and forgotten; 0: none."""
    top = max(had, key=lambda one: one.version)
    if forgotten > top.version:
        top = Held(CHUNK, forgotten, digest(forgotten), removed=True)
    elif not all(one.version for one in had) and not any(one.version and not one.removed for one in there):
        # One with nothing may have forgotten the removal that is under way: that ends so.
        under_way = [one for one in had if one.pending_removed and one.pending_version == top.version + 1]
        top = Held(CHUNK, top.version + 1, digest(top.version + 1), removed=True) if under_way else top
    for mine in there:
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
        for before in forgetting(chain, removals):
            for now in product(*(losses(before, one) for one in before)):
                had = [held(one, removals) for one in now]
                forgotten = max((one.committed for one in now if one.forgotten), default=0)
                for order in (None, *permutations(range(3))):
                    check(had, forgotten, mended(had, order))
                    count += 1
    assert count > 500


def test_only_what_follows_from_what_is_committed_is_taken_as_pending() -> None:
    mine = Held(CHUNK, 1, 11)
    stale = Other(Held(CHUNK, 0, pending_version=4, pending_digest=41), 0, True)
    assert plan(mine, [stale]) == [], "it lost what came before, and drops it"
    first = Other(Held(CHUNK, 0, pending_version=1, pending_digest=11), 0, True)
    assert plan(Held(CHUNK), [first]) == [Pull(0, 1, 11, 0, False, 0, True)]


def test_what_was_removed_since_it_was_pending_is_a_removal_that_is_known() -> None:
    """The last replica had committed what is pending here, and readers have seen it."""
    before = Other(Held(CHUNK, 1, 11, pending_version=2, pending_digest=digest(2), pending_removed=True), 0, False)
    tail = Held(CHUNK, 0, pending_version=1, pending_digest=11)
    assert plan(tail, [before]) == [Remove(2)]


def test_what_only_a_replica_before_it_has_pending_is_not_taken() -> None:
    head = Held(CHUNK, 1, 11, pending_version=2, pending_digest=21)
    assert plan(Held(CHUNK, 1, 11), [Other(head, 0, False)]) == []
    assert plan(Held(CHUNK, 1, 11), [Other(head, 0, True)]) == [Pull(0, 2, 21, 0, False, 0, True)]


def test_what_cannot_be_decided_is_reported() -> None:
    mine = Held(CHUNK, 1, 11)
    two = [Other(Held(CHUNK, 2, 21), 0, True), Other(Held(CHUNK, 2, 22), 1, True)]
    pending = [Other(Held(CHUNK, 1, 11, pending_version=2, pending_digest=number), number, True) for number in (21, 22)]
    for others in (two, [Other(Held(CHUNK, 1, 12), 0, True)], pending):
        (step,) = plan(mine, others)
        assert isinstance(step, Conflict)
