"""Whether what was written and not synced is still there, as a client concludes it from daemons' answers."""

import operator
import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fs_client import unsynced as module
from fs_client.unsynced import Share, Unsynced
from fs_common.layout import Durability
from fs_common.records.storage import Holder, ItemError, UpdateItem, UpdateKind

CHAIN = 1
INODE = 7


def item(inode: int = INODE, chain: int = CHAIN, durability: Durability = Durability.MEMORY) -> UpdateItem:
    return UpdateItem(chain, 1, inode, 0, UpdateKind.WRITE, 0, 10, 65536, 0, 1, b"", durability)


def holders(*incarnations: int | None, chain: int = CHAIN) -> list[Holder]:
    """Of targets 1, 2, ...; None: that one is not named."""
    return [Holder(chain, target, was) for target, was in enumerate(incarnations, 1) if was is not None]


def lost(unsynced: Unsynced, share: Share) -> bool:
    """Since it was asked last."""
    before = share.losses
    unsynced.look(share)
    return share.losses > before


def written(*answers: Sequence[int | None]) -> tuple[Unsynced, Share]:
    """A file with one write for each answer."""
    unsynced = Unsynced()
    share = unsynced.open(INODE)
    for answer in answers:
        unsynced.stored([item()], [], holders(*answer))
    return unsynced, share


@pytest.mark.parametrize(
    ("answers", "synced", "expected"),
    [
        ([(1, 1, 1)], (1, 1, 1), False),
        ([(1, 1, 1)], (2, 1, 1), False),
        ([(1, 1, 1)], (2, 2, 1), False),
        ([(1, 1, 1)], (2, 2, 2), True),
        ([(1,)], (2,), True),
        # One after another: each was given everything by the others.
        ([(1, 1, 1), (2, 1, 1), (2, 2, 1)], (2, 2, 2), False),
        ([(1, 1, 1), (2, 2, 1)], (3, 3, 2), True),
        # The answer to an update that came twice is the head's alone.
        ([(1, 1, 1), (1, None, None)], (2, 1, 1), False),
        ([(1, 1, 1), (2, None, None)], (2, 1, 1), False),
        ([(1, 1, 1), (2, None, None)], (2, 2, 2), True),
        ([(1, 1, 1), (2, None, None)], (3, 1, 2), False),
        # An answer that was overtaken by one from after a loss.
        ([(2, 1, 1), (1, 1, 1)], (2, 1, 1), False),
        ([(2, 2, 2), (1, 1, 1)], (2, 2, 2), True),
        # Another chain: a replica has left, one has come.
        ([(1, 1, 1)], (None, 1, 1), False),
        ([(1, 1, 1)], (None, 1, 1, 1), False),
        ([(1, 1, 1)], (None, 2, 2, 1), True),
        # Daemons that name nobody.
        ([()], (), False),
    ],
)
def test_what_an_answer_says(
    answers: list[tuple[int | None, ...]], synced: tuple[int | None, ...], expected: bool
) -> None:
    unsynced, share = written(*answers)
    unsynced.seen(holders(*synced), all_of_them=True)
    assert lost(unsynced, share) is expected
    assert not lost(unsynced, share), "once"


@pytest.mark.parametrize(
    ("answers", "synced", "expected"),
    [
        # (opening, position, recovered)
        ([(1, 10, 0)], (1, 12, 0), False),
        ([(1, 10, 0)], (2, 10, 10), False),
        ([(1, 10, 0)], (2, 20, 9), True),
        ([(1, 10, 0), (1, 15, 0)], (2, 20, 12), True),
        ([(1, 10, 0), (2, 15, 11)], (3, 20, 16), False),
        ([(1, 10, 0), (2, 15, 9)], (3, 20, 16), True),
        # The first answer was overtaken by the second.
        ([(2, 15, 11), (1, 10, 0)], (2, 16, 11), False),
        ([(2, 15, 9), (1, 10, 0)], (2, 16, 9), True),
        # It counts its openings from before once more.
        ([(2, 15, 11)], (1, 20, 0), True),
    ],
)
def test_an_old_copy_in_the_place_of_a_store(
    answers: list[tuple[int, int, int]], synced: tuple[int, int, int], expected: bool
) -> None:
    """It has the same incarnation, but its log had not come as far."""
    unsynced = Unsynced()
    share = unsynced.open(INODE)
    for answer in answers:
        unsynced.stored([item()], [], [Holder(CHAIN, 1, 1, *answer)])
    unsynced.seen([Holder(CHAIN, 1, 1, *synced)], all_of_them=True)
    unsynced.look(share)
    assert (share.losses > 0) is expected
    # Where another replica is as it was, nothing is lost.
    unsynced = Unsynced()
    share = unsynced.open(INODE)
    for answer in answers:
        unsynced.stored([item()], [], [Holder(CHAIN, 1, 1, *answer), Holder(CHAIN, 2, 1, 1, 100, 0)])
    unsynced.seen([Holder(CHAIN, 1, 1, *synced), Holder(CHAIN, 2, 1, 1, 100, 0)], all_of_them=True)
    assert not lost(unsynced, share)


@pytest.mark.parametrize(
    ("filled_by", "expected"),
    [
        # (target, incarnation, opening, position, recovered)
        ((1, 1, 3, 50, 40), False),
        ((1, 1, 3, 10, 5), False),  # it was told of before what the client was told: those answers named both
        ((1, 1, 4, 70, 60), False),  # started again since, with all that it had
        ((1, 1, 4, 70, 50), True),  # an old copy in its place
        ((1, 2, 3, 50, 40), True),  # it had lost something
        ((3, 1, 3, 50, 40), True),  # of which the client knows nothing
    ],
)
def test_who_was_filled_up_by_one_that_had_everything_has_it(
    filled_by: tuple[int, int, int, int, int], expected: bool
) -> None:
    """Replica 1 alone has acknowledged it; it filled up replica 2, and is gone."""
    unsynced = Unsynced()
    share = unsynced.open(INODE)
    unsynced.stored([item()], [], [Holder(CHAIN, 1, 1, 3, 60, 40)])
    other = Holder(CHAIN + 1, 1, 1, 3, 60, 40)
    unsynced.seen(
        [Holder(CHAIN, 2, 9)], all_of_them=True, lineage=[other, Holder(CHAIN, 4, 1), Holder(CHAIN, *filled_by)]
    )
    assert lost(unsynced, share) is expected
    unsynced.seen([Holder(CHAIN, 2, 9)], all_of_them=True)
    assert not lost(unsynced, share), "it is the witness from now on"


class Members:
    """A chain whose members change: its routing, and what its daemons are."""

    def __init__(self) -> None:
        self.serving: frozenset[int] = frozenset({1, 2})
        self.incarnations = {1: 1, 2: 1}
        self.unsynced = Unsynced(lambda chain: self.serving)
        self.share = self.unsynced.open(INODE)

    def holders(self) -> list[Holder]:
        return [Holder(CHAIN, target, self.incarnations[target]) for target in sorted(self.serving)]

    def become(self, *serving: int) -> None:
        self.serving = frozenset(serving)
        self.unsynced.routing_changed()

    def write(self) -> None:
        self.unsynced.stored([item()], [], self.holders())

    def power_cut(self, target: int) -> None:
        """It serves alone, and loses what was not on its disk."""
        self.incarnations[target] += 1

    def filled(self, target: int) -> None:
        """It serves again, with what the others have."""
        self.incarnations[target] += 1
        self.become(*self.serving, target)

    def sync_loses(self) -> bool:
        self.unsynced.seen(self.holders(), all_of_them=True)
        return lost(self.unsynced, self.share)


def test_one_that_was_filled_up_is_no_witness_of_what_it_had_before() -> None:
    """Both had it; one was dropped, the other lost it, and then filled the first one up without it."""
    members = Members()
    members.write()
    members.become(1)
    members.power_cut(1)
    members.filled(2)
    assert members.sync_loses()


def test_one_that_has_served_without_a_break_is_a_witness() -> None:
    members = Members()
    members.write()
    members.become(1)
    members.write()
    members.filled(2)
    assert not members.sync_loses()
    # One after the other is dropped and filled up, and each time an answer names one that was there before.
    members.write()
    members.become(2)
    members.write()
    members.filled(1)
    members.write()
    members.become(1)
    assert not members.sync_loses()


def test_who_hears_of_nobody_in_between_takes_the_safe_side() -> None:
    """The last one that had it has filled up the first one, and is gone. Whether it still had it then nobody says."""
    members = Members()
    members.write()
    members.become(2)
    members.filled(1)
    members.become(1)
    assert members.sync_loses()


def test_an_operator_who_takes_one_that_lacks_something_is_told_of_by_the_sync() -> None:
    """`emberfs chains rotate`: it serves as it was, and has not been filled up."""
    members = Members()
    members.write()
    before = members.holders()
    members.become(1)
    members.write()
    members.unsynced.seen(before)  # an answer of before the change, which comes late
    members.become(2)
    assert members.sync_loses()


def test_while_nobody_serves_nothing_changes() -> None:
    members = Members()
    members.write()
    members.become()
    members.become(2)
    assert not members.sync_loses()


def test_a_write_after_a_loss_is_not_lost_with_those_before() -> None:
    unsynced, share = written((1, 1))
    other = unsynced.open(8)
    unsynced.stored([item(8)], [], holders(2, 2))
    assert lost(unsynced, share) and not lost(unsynced, other)


def test_what_is_durable_or_failed_is_not_remembered() -> None:
    unsynced = Unsynced()
    share = unsynced.open(INODE)
    unsynced.stored([item(durability=Durability.DISK), item(chain=2), item(chain=3)], [ItemError(1, 1, "")], [])
    assert share.marks.keys() == {3}


def test_a_sync_covers_what_was_acknowledged_when_it_was_sent() -> None:
    unsynced, share = written((1, 1))
    sent = unsynced.count
    unsynced.stored([item()], [], holders(1, 1))
    unsynced.synced([share], {CHAIN}, sent)
    assert share.marks
    unsynced.synced([share], {CHAIN}, unsynced.count)
    assert not share.marks
    unsynced.seen(holders(2, 2))
    assert not lost(unsynced, share), "it was on disks"


def test_a_file_that_is_opened_again_is_the_one_that_was_written() -> None:
    unsynced, share = written((1, 1))
    unsynced.close(share)
    unsynced.seen(holders(2, 2))
    again = unsynced.open(INODE)
    assert again is share and lost(unsynced, again)
    unsynced.synced(unsynced.shares_of(again), {CHAIN}, unsynced.count)
    unsynced.close(again)
    assert not unsynced.shares() and unsynced.open(INODE) is not again


def test_files_closed_long_ago_are_remembered_by_their_chains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLOSED_MAX", 3)
    unsynced = Unsynced()
    for inode in range(10):
        share = unsynced.open(inode)
        unsynced.stored([item(inode, chain=inode % 2)], [], [])
        unsynced.close(share)
    assert len(unsynced.shares()) == 4, "three, and the rest together"
    early = unsynced.open(0)
    everything = unsynced.shares_of(early)
    assert {chain for share in everything for chain in share.marks} == {0, 1}, "it may be one of those"
    unsynced.synced(unsynced.shares(), {0, 1}, unsynced.count)
    assert not unsynced.shares()
    assert unsynced.shares_of(early) == [early]


class Replica:
    def __init__(self) -> None:
        self.incarnation = 1
        self.whole = True
        self.memory: set[int] = set()
        self.disk: set[int] = set()

    def lose(self) -> None:
        self.incarnation += 1
        self.whole = False
        self.memory = set(self.disk)


@given(seed=st.integers(0, 2**32), count=st.integers(1, 3))
def test_random_histories(seed: int, count: int) -> None:
    """A chain whose replicas lose power and are given back what the others have. What has vanished is always told; and
    nothing is told to be lost unless each of them has lost something since it was written."""
    choose = random.Random(seed)
    replicas = [Replica() for _ in range(count)]
    unsynced = Unsynced()
    share = unsynced.open(INODE)
    acknowledged: set[int] = set()
    """Not known to be on disks, and not told to be lost."""
    since: list[int] = []
    """Incarnations at the first of these."""
    heads_alone = False
    """A head that knew nothing of those behind it answered in between: then more may be told than is lost."""
    for number in range(30):
        what = choose.choice(["write", "write", "again", "lose", "lose", "mend", "mend", "background", "sync"])
        replica = choose.choice(replicas)
        now = [replica.incarnation for replica in replicas]
        match what:
            case "lose":
                replica.lose()
            case "mend":
                replica.memory = set().union(*(other.memory for other in replicas))
                replica.disk = set(replica.memory)
                replica.whole = True
            case "background":
                replica.disk = set(replica.memory)
            case _ if not all(replica.whole for replica in replicas):
                continue  # the chain does not serve
            case "sync":
                for replica in replicas:
                    replica.disk = set(replica.memory)
                unsynced.seen(holders(*now), all_of_them=True)
                told = lost(unsynced, share)
                unsynced.synced([share], {CHAIN}, unsynced.count)
                assert told or acknowledged <= replicas[0].disk, f"seed {seed}: something is gone and nobody says so"
                assert not told or heads_alone or all(map(operator.ne, since, now)), f"seed {seed}: nothing is gone"
                acknowledged.clear()
                heads_alone = False
            case _:
                for replica in replicas:
                    replica.memory.add(number)
                unsynced.stored([item()], [], holders(*(now if what == "write" else now[:1])))
                heads_alone = heads_alone or what == "again"
                if lost(unsynced, share):
                    assert heads_alone or all(map(operator.ne, since, now)), f"seed {seed}: nothing is gone"
                    acknowledged.clear()
                if not acknowledged:
                    since = now
                acknowledged.add(number)
