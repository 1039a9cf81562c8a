"""The order in which waiters get their locks, who is held back by whom, and which waits never end."""

import hypothesis.strategies as st
from hypothesis import given

from fs_common.records.locks import LOCK_END, LockKind, LockType
from fs_meta.locks.queues import LockQueues, Waiter
from fs_meta.locks.ranges import conflicting, give_up_all, take
from fs_meta.schema import HeldLock

SHARED, EXCLUSIVE = LockType.SHARED, LockType.EXCLUSIVE
CLIENT = b"c" * 16


class Bench:
    """Queues, and the locks that are held on each file."""

    def __init__(self) -> None:
        self.queues = LockQueues()
        self.held: dict[int, list[HeldLock]] = {}

    def lock(self, owner: int, type_: int, kind: int, start: int = 0, end: int = LOCK_END) -> HeldLock:
        return HeldLock(kind, type_, CLIENT, owner, start, end, 0)

    def hold(self, owner: int, type_: int = EXCLUSIVE, inode: int = 1, kind: int = LockKind.RANGE) -> None:
        wanted = self.lock(owner, type_, kind)
        assert not conflicting(self.held.get(inode, []), wanted)
        self.held[inode] = take(self.held.get(inode, []), wanted)
        self.queues.learn(inode, self.held[inode])

    def drop(self, owner: int, inode: int = 1, kind: int = LockKind.RANGE) -> None:
        self.held[inode] = give_up_all(self.held[inode], kind, (CLIENT, owner))
        self.queues.learn(inode, self.held[inode])

    def wait(self, owner: int, type_: int = EXCLUSIVE, inode: int = 1, kind: int = LockKind.RANGE) -> Waiter:
        waiter = Waiter(inode, self.lock(owner, type_, kind), b"r" * 16)
        self.queues.join(waiter)
        self.queues.learn(inode, self.held.get(inode, []))
        return waiter

    def ready(self, inode: int = 1) -> list[int]:
        return [waiter.owner[1] for waiter in self.queues.ready(inode)]


def test_exclusive_waiters_get_it_one_after_another() -> None:
    bench = Bench()
    bench.hold(1)
    first, second = bench.wait(2), bench.wait(3)
    assert bench.ready() == []
    bench.drop(1)
    assert bench.ready() == [2] and bench.queues.is_held_back(second) and not bench.queues.is_held_back(first)
    bench.queues.leave(first)
    assert bench.ready() == [3]
    bench.queues.leave(second)
    assert 1 not in bench.queues and bench.ready() == [] and list(bench.queues) == []


def test_shared_waiters_get_it_together_up_to_the_next_exclusive_one() -> None:
    bench = Bench()
    bench.hold(1)
    for owner, type_ in ((2, SHARED), (3, SHARED), (4, EXCLUSIVE), (5, SHARED)):
        bench.wait(owner, type_)
    bench.drop(1)
    assert bench.ready() == [2, 3]


def test_an_exclusive_waiter_holds_later_shared_ones_back() -> None:
    bench = Bench()
    bench.hold(1, SHARED)
    exclusive, later = bench.wait(2), bench.wait(3, SHARED)
    assert bench.ready() == [] and bench.queues.is_held_back(later)
    later.impatient = True
    assert bench.ready() == [3] and not bench.queues.is_held_back(later)
    later.impatient = False
    bench.queues.leave(exclusive)
    assert bench.ready() == [3]


def test_ranges_that_do_not_touch_pass_each_other() -> None:
    bench = Bench()
    bench.hold(1)
    for owner, start in ((2, 0), (3, 10)):
        bench.queues.join(Waiter(1, bench.lock(owner, EXCLUSIVE, LockKind.RANGE, start, start + 9), b""))
    bench.drop(1)
    assert bench.ready() == [2, 3]


def test_kinds_and_files_do_not_know_of_each_other() -> None:
    bench = Bench()
    bench.hold(1, kind=LockKind.FLOCK)
    bench.wait(2, kind=LockKind.FLOCK)
    bench.wait(3, kind=LockKind.APPEND)
    bench.wait(4, inode=2)
    assert bench.ready() == [3] and bench.ready(2) == [4]


def test_an_owner_is_not_held_back_by_itself() -> None:
    bench = Bench()
    bench.hold(1, SHARED)
    bench.wait(2, EXCLUSIVE)
    other_thread = bench.wait(2, SHARED)
    assert not bench.queues.is_held_back(other_thread) and bench.ready() == [2]


def test_an_owner_is_not_held_back_by_who_waits_for_it() -> None:
    """It holds a shared lock and wants another range of the file; the exclusive waiter waits for it."""
    bench = Bench()
    bench.hold(1, SHARED)
    bench.wait(2)
    again = bench.wait(1, SHARED)
    assert not bench.queues.is_held_back(again) and bench.ready() == [1]


def test_nor_over_other_files_and_owners() -> None:
    bench = Bench()
    bench.hold(1, inode=2)
    bench.hold(3, SHARED)
    bench.wait(4)  # for 3, on file 1
    held_back = bench.wait(1, SHARED)
    assert bench.queues.is_held_back(held_back)
    closing = bench.wait(3, inode=2)  # 3 waits for 1, who waits for 4, who waits for 3
    assert not bench.queues.is_held_back(held_back)
    assert set(bench.queues.untangle(closing)) == {w for w in bench.queues if w.owner[1] in (4, 1)}
    assert bench.ready() == [1]
    assert not bench.queues.deadlock(closing), "being held back ends"


def test_a_circle_of_two_over_two_files_is_a_deadlock() -> None:
    bench = Bench()
    bench.hold(1, inode=1)
    bench.hold(2, inode=2)
    first = bench.wait(1, inode=2)
    assert not bench.queues.deadlock(first)
    assert bench.queues.deadlock(bench.wait(2, inode=1))


def test_two_shared_holders_who_both_want_it_alone_are_a_deadlock() -> None:
    bench = Bench()
    bench.hold(1, SHARED)
    bench.hold(2, SHARED)
    assert not bench.queues.deadlock(bench.wait(1))
    assert bench.queues.deadlock(bench.wait(2))


def test_a_circle_of_three_and_waiters_who_are_in_none() -> None:
    bench = Bench()
    for owner in (1, 2, 3):
        bench.hold(owner, inode=owner)
    assert not bench.queues.deadlock(bench.wait(1, inode=2))
    assert not bench.queues.deadlock(bench.wait(2, inode=3))
    assert not bench.queues.deadlock(bench.wait(9, inode=1))
    assert bench.queues.deadlock(bench.wait(3, inode=1))


def test_waits_for_other_kinds_make_no_deadlock() -> None:
    bench = Bench()
    bench.hold(1, inode=1, kind=LockKind.FLOCK)
    bench.hold(2, inode=2)
    bench.wait(1, inode=2)
    assert not bench.queues.deadlock(bench.wait(2, inode=1, kind=LockKind.FLOCK))


def test_copies_of_a_request_are_found() -> None:
    bench = Bench()
    bench.hold(1)
    one, two = bench.wait(2), bench.wait(2)
    assert bench.queues.copies(1, b"r" * 16) == [one, two]
    assert bench.queues.copies(1, b"x" * 16) == bench.queues.copies(2, b"r" * 16) == []


events = st.lists(
    st.tuples(
        st.sampled_from(["want", "want", "want", "drop", "leave"]),
        st.integers(1, 5),
        st.sampled_from([SHARED, EXCLUSIVE]),
        st.integers(1, 2),
    ),
    max_size=40,
)


@given(events, st.sampled_from([LockKind.RANGE, LockKind.FLOCK]))
def test_once_every_holder_lets_go_every_waiter_gets_its_lock(
    history: list[tuple[str, int, int, int]], kind: LockKind
) -> None:
    """Locks are given to who is ready, one by one, as calls do it; nobody who is ready is ever refused."""
    bench = Bench()
    waiting: list[Waiter] = []

    def give(inode: int) -> None:
        for waiter in bench.queues.ready(inode):
            assert not conflicting(bench.held.get(inode, []), waiter.wanted)
            assert not bench.queues.is_held_back(waiter), "ready, and held back"
            bench.held[inode] = take(bench.held.get(inode, []), waiter.wanted)
            bench.queues.leave(waiter)
            waiting.remove(waiter)
            bench.queues.learn(inode, bench.held[inode])

    for event, owner, type_, inode in history:
        if event == "want":
            waiter = bench.wait(owner, type_, inode, kind)
            waiting.append(waiter)
            if bench.queues.deadlock(waiter):
                bench.queues.leave(waiter)
                waiting.remove(waiter)
        elif event == "drop" and inode in bench.held:
            bench.drop(owner, inode, kind)
        elif event == "leave":
            mine = [waiter for waiter in waiting if waiter.owner[1] == owner]
            if mine:
                bench.queues.leave(mine[0])
                waiting.remove(mine[0])
        for file in (1, 2):
            give(file)
    for _ in range(100):
        for inode in bench.held:
            for lock in list(bench.held[inode]):
                bench.drop(lock.owner, inode, kind)
        for file in (1, 2):
            give(file)
    assert not waiting
