"""Held locks against the plainest model there is: for each kind and owner, the type of lock on every byte."""

import hypothesis.strategies as st
from hypothesis import given

from fs_common.records.locks import LOCK_END, LockKind, LockType
from fs_meta.locks.ranges import (
    conflict,
    conflicting,
    give_up,
    give_up_all,
    owner_of,
    problems,
    sorted_locks,
    take,
    without_client,
)
from fs_meta.schema import HeldLock

SHARED, EXCLUSIVE = int(LockType.SHARED), int(LockType.EXCLUSIVE)
RANGE, FLOCK = int(LockKind.RANGE), int(LockKind.FLOCK)
BYTES = 12
"""Of the model; its last byte stands for everything behind."""

owners = st.tuples(st.sampled_from([b"a" * 16, b"b" * 16]), st.integers(1, 2))
ranges = st.tuples(st.integers(0, BYTES - 1), st.integers(0, BYTES - 1)).map(lambda pair: (min(pair), max(pair)))
steps = st.tuples(owners, st.sampled_from([RANGE, FLOCK]), st.sampled_from([0, SHARED, EXCLUSIVE]), ranges)
Model = dict[tuple[tuple[bytes, int], int], list[int]]


def _lock(owner: tuple[bytes, int], kind: int, type_: int, start: int, end: int) -> HeldLock:
    return HeldLock(kind, type_, owner[0], owner[1], start, LOCK_END if end == BYTES - 1 else end, 0)


def _bytes(held: list[HeldLock]) -> Model:
    model: Model = {}
    for lock in held:
        row = model.setdefault((owner_of(lock), lock.kind), [0] * BYTES)
        for byte in range(lock.start, min(lock.end, BYTES - 1) + 1):
            row[byte] = lock.type
    return model


def _clash(model: Model, owner: tuple[bytes, int], kind: int, type_: int, start: int, end: int) -> bool:
    return any(
        {type_, row[byte]} not in ({SHARED}, {type_, 0})
        for (other, of_kind), row in model.items()
        if other != owner and of_kind == kind
        for byte in range(start, end + 1)
    )


@given(st.lists(steps, max_size=30))
def test_every_history_agrees_with_the_bytes(
    history: list[tuple[tuple[bytes, int], int, int, tuple[int, int]]],
) -> None:
    held: list[HeldLock] = []
    model: Model = {}
    for owner, kind, type_, (start, end) in history:
        lock = _lock(owner, kind, type_, start, end)
        if type_ == 0:
            held = give_up(held, kind, owner, lock.start, lock.end)
        elif _clash(model, owner, kind, type_, start, end):
            assert conflicting(held, lock)
            continue
        else:
            assert not conflicting(held, lock)
            held = take(held, lock)
        row = model.setdefault((owner, kind), [0] * BYTES)
        row[start : end + 1] = [type_] * (end + 1 - start)
        assert _bytes(held) == {key: row for key, row in model.items() if any(row)}
        assert not problems(held)
        # As few as can be: what touches and is of one type is one lock.
        assert len(held) == sum(
            sum(1 for byte in range(BYTES) if row[byte] and (byte == 0 or row[byte - 1] != row[byte]))
            for row in model.values()
        )


@given(st.lists(steps, max_size=12), owners)
def test_giving_up_all_leaves_the_others(
    history: list[tuple[tuple[bytes, int], int, int, tuple[int, int]]], owner: tuple[bytes, int]
) -> None:
    held: list[HeldLock] = []
    for who, kind, type_, (start, end) in history:
        lock = _lock(who, kind, type_ or SHARED, start, end)
        if not conflicting(held, lock):
            held = take(held, lock)
    assert give_up_all(held, RANGE, owner) == [lock for lock in held if owner_of(lock) != owner or lock.kind != RANGE]
    assert without_client(held, owner[0]) == [lock for lock in held if lock.client != owner[0]]


A, B = (b"a" * 16, 1), (b"b" * 16, 1)


def test_a_range_in_the_middle_splits_and_comes_together_again() -> None:
    whole = take([], _lock(A, RANGE, EXCLUSIVE, 0, 9))
    split = take(whole, _lock(A, RANGE, SHARED, 3, 5))
    assert [(lock.type, lock.start, lock.end) for lock in split] == [
        (EXCLUSIVE, 0, 2),
        (SHARED, 3, 5),
        (EXCLUSIVE, 6, 9),
    ]
    assert take(split, _lock(A, RANGE, EXCLUSIVE, 3, 5)) == whole
    assert [(lock.start, lock.end) for lock in give_up(whole, RANGE, A, 3, 5)] == [(0, 2), (6, 9)]


def test_locks_reach_to_the_end_of_any_file() -> None:
    held = take([], HeldLock(RANGE, EXCLUSIVE, *A, 2**62, LOCK_END, 0))
    assert conflicting(held, HeldLock(RANGE, SHARED, *B, LOCK_END, LOCK_END, 0)) == held
    assert not conflicting(held, HeldLock(RANGE, SHARED, *B, 0, 2**62 - 1, 0))
    assert take(held, HeldLock(RANGE, EXCLUSIVE, *A, 0, 2**62 - 1, 0))[0].end == LOCK_END


def test_an_owner_is_a_client_and_its_number() -> None:
    one = HeldLock(RANGE, EXCLUSIVE, b"a" * 16, 1, 0, 9, 0)
    assert not conflict(one, one)
    assert conflict(one, HeldLock(RANGE, SHARED, b"a" * 16, 2, 9, 9, 0))
    assert conflict(one, HeldLock(RANGE, SHARED, b"b" * 16, 1, 0, 0, 0))
    assert not conflict(one, HeldLock(FLOCK, EXCLUSIVE, b"b" * 16, 1, 0, 9, 0))
    assert not conflict(one, HeldLock(RANGE, SHARED, b"b" * 16, 1, 10, 10, 0))


def test_what_is_wrong_with_a_list_is_found() -> None:
    one, other = _lock(A, RANGE, EXCLUSIVE, 0, 4), _lock(B, RANGE, EXCLUSIVE, 5, 6)
    assert problems(sorted_locks([one, other])) == []
    assert problems([other, one]) == ["not in order"]
    assert "conflicts" in problems([one, _lock(B, RANGE, SHARED, 4, 6)])[0]
    assert "overlap" in problems([one, _lock(A, RANGE, SHARED, 4, 6)])[0]
    assert "range" in problems([HeldLock(RANGE, SHARED, *A, 5, 4, 0)])[0]
