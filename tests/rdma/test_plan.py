"""READs and WRITEs for payloads: every byte once and in its place, few works, few of them signalled."""

from collections import deque
from itertools import pairwise
from random import Random

import pytest

from fs_common.checks import InvariantViolation
from fs_common.limits import KIB, MIB
from fs_common.transports.rdma.plan import SIGNAL_EVERY, WORK_BYTES_MAX, Move, Piece, WorkLedger, moves, take


def test_one_piece_is_one_work() -> None:
    assert moves([(100, 50, 1)], [(900, 50, 2)]) == [Move(100, 50, 1, 900, 2)]
    assert moves([], []) == []
    assert moves([(5, 0, 1)], [(7, 0, 2), (8, 0, 2)]) == []


@pytest.mark.parametrize(
    ("local", "remote", "count"),
    [
        ("dense", "dense", 1),
        ("dense", "apart", 256),
        ("apart", "dense", 256),
        ("apart", "apart", 256),
    ],
)
def test_256_reads_of_4_kib(local: str, remote: str, count: int) -> None:
    def pieces(how: str, key: int) -> list[Piece]:
        step = 4 * KIB if how == "dense" else 64 * KIB
        return [(MIB + i * step, 4 * KIB, key) for i in range(256)]

    works = moves(pieces(local, 1), pieces(remote, 2))
    assert len(works) == count
    assert sum(work.length for work in works) == MIB


def test_pieces_of_other_keys_are_not_merged() -> None:
    assert len(moves([(0, 10, 1), (10, 10, 2)], [(0, 20, 3)])) == 2
    assert len(moves([(0, 20, 1)], [(0, 10, 3), (10, 10, 4)])) == 2


def test_long_pieces_are_cut() -> None:
    works = moves([(0, 64 * MIB, 1)], [(0, 64 * MIB, 2)])
    assert len(works) == 64
    assert {work.length for work in works} == {WORK_BYTES_MAX}


@pytest.mark.parametrize("seed", range(300))
def test_every_byte_goes_to_its_place(seed: int) -> None:
    random = Random(seed)

    def pieces(total: int) -> list[Piece]:
        found: list[Piece] = []
        at = 1000
        while total:
            size = min(total, random.choice([0, 1, 2, 7, 100]))
            at += random.choice([0, 0, 3])
            found.append((at, size, random.choice([1, 1, 2])))
            at += size
            total -= size
        return found

    total = random.randrange(400)
    local, remote = pieces(total), pieces(total)
    bytes_max = random.choice([5, 50, 10_000])

    def each_byte(memory: list[Piece]) -> list[tuple[int, int]]:
        return [(address + i, key) for address, length, key in memory for i in range(length)]

    works = moves(local, remote, bytes_max)
    assert each_byte([(work.address, work.length, work.lkey) for work in works]) == each_byte(local)
    assert each_byte([(work.remote_address, work.length, work.rkey) for work in works]) == each_byte(remote)
    assert all(0 < work.length <= bytes_max for work in works)
    for first, second in pairwise(works):
        joined = (
            first.address + first.length == second.address
            and first.remote_address + first.length == second.remote_address
            and (first.lkey, first.rkey) == (second.lkey, second.rkey)
        )
        assert not joined or first.length == bytes_max, "neighbours that fit are one work"


@pytest.mark.parametrize("seed", range(20))
def test_pieces_are_taken_off_the_front(seed: int) -> None:
    random = Random(seed)
    pieces: list[Piece] = [(i * 100, random.randrange(10), i) for i in range(20)]
    left = deque(pieces)
    taken: list[Piece] = []
    while total := sum(size for _, size, _ in left):
        size = random.randrange(1, min(total, 25) + 1)
        some = take(left, size)
        assert sum(size for _, size, _ in some) == size
        taken += some

    def each_byte(memory: list[Piece]) -> list[tuple[int, int]]:
        return [(address + i, key) for address, length, key in memory for i in range(length)]

    assert each_byte(taken) == each_byte(pieces)


def test_sides_of_different_length_are_a_defect() -> None:
    with pytest.raises((InvariantViolation, IndexError)):
        moves([(0, 10, 1)], [(0, 9, 2)])
    with pytest.raises(InvariantViolation):
        moves([(0, 9, 1)], [(0, 10, 2)])
    with pytest.raises(InvariantViolation):
        moves([(0, 9, 1)], [(0, 9, 2), (100, 1, 2)])


def test_one_in_many_is_signalled() -> None:
    ledger = WorkLedger(300)
    signalled = [ledger.post() for _ in range(256)]
    assert sum(signalled) == 256 // SIGNAL_EVERY
    assert ledger.post(signalled=True)
    assert not ledger.unsignalled
    assert not ledger.post()
    assert ledger.unsignalled


@pytest.mark.parametrize("seed", range(50))
def test_many_are_numbered_as_one_after_another(seed: int) -> None:
    random = Random(seed)
    one, many = WorkLedger(1 << 20), WorkLedger(1 << 20)
    for _ in range(50):
        count = random.randrange(100)
        assert many.post_many(count) == [one.post() for _ in range(count)]
        if random.random() < 0.5:
            assert many.post(signalled=True) == one.post(signalled=True)
        assert (many.posted, many.signalled) == (one.posted, one.signalled)


def test_a_completion_tells_of_all_before_it() -> None:
    ledger = WorkLedger(64)
    done: list[int] = []
    for number in range(1, 41):
        ledger.post()
        ledger.when_complete(lambda number=number: done.append(number))  # type: ignore[misc]
    assert (ledger.room, done) == (24, [])
    ledger.completed(32)
    assert (ledger.room, done) == (56, list(range(1, 33)))
    ledger.end()
    assert (ledger.room, done) == (64, list(range(1, 41)))


def test_a_full_queue_has_a_signalled_work() -> None:
    for depth in (SIGNAL_EVERY + 1, 64, 256):
        ledger = WorkLedger(depth)
        last = 0
        for _ in range(1000):
            while ledger.room:
                if ledger.post():
                    last = ledger.posted
            with pytest.raises(InvariantViolation):
                ledger.post()
            assert last > ledger.complete, "nothing would ever be heard of"
            ledger.completed(last)


def test_the_last_work_can_be_signalled_when_one_has_to_wait_for_it() -> None:
    ledger = WorkLedger(64)
    ledger.post()
    ledger.signal_last()
    assert not ledger.unsignalled
    assert not any(ledger.post() for _ in range(SIGNAL_EVERY - 1))
    assert ledger.post()


def test_completions_that_cannot_be_are_a_defect() -> None:
    ledger = WorkLedger(64)
    ledger.post(signalled=True)
    with pytest.raises(InvariantViolation):
        ledger.completed(2)
    ledger.completed(1)
    with pytest.raises(InvariantViolation):
        ledger.completed(1)
