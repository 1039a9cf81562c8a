"""The replica's table of states, event by event."""

import pytest

from fs_common.checks import InvariantViolation
from fs_common.errors import Code, Retry
from fs_common.records.routing import Chain, ChainTarget, PublicState
from fs_common.records.storage import UpdateKind
from fs_storage.craq.apportion import Serve, serve
from fs_storage.craq.operation import Duty, Failure, Operation, Step
from fs_storage.craq.position import position_of
from fs_storage.craq.replica import Replica
from fs_storage.engine.interface import ChunkState
from tests.storage.craq.model_store import ModelStore

CHAIN = Chain(7, 3, [ChainTarget(101 + n * 100, 1 + n, PublicState.SERVING) for n in range(3)])
HEAD, MIDDLE, TAIL = 101, 201, 301
CHUNK = b"chunk-number"
UNCLEAR = Failure(Code.TIMED_OUT, "no answer")
REFUSED = Failure(Code.NO_SPACE, "full")


class Bench:
    """A replica with a model store; performs disk instructions when told."""

    def __init__(self, target: int, store: ModelStore | None = None) -> None:
        self.store = store if store is not None else ModelStore()
        self.replica = Replica(self.store, set(self.store.pending()))
        self.replica.position = position_of(CHAIN, target)

    def submit(self, **changes: object) -> Operation:
        what: dict[str, object] = {"kind": UpdateKind.WRITE, "chain_version": 3, "client": b"c" * 16, "sequence": 1}
        what |= changes
        operation = Operation(CHUNK, what.pop("kind"), **what)  # type: ignore[arg-type]
        self.replica.submit(operation)
        return operation

    def do(self, operation: Operation) -> None:
        """What the store does for the operation's step, reported."""
        match operation.step:
            case Step.PREPARE:
                marker = f"{operation.client!r}{operation.sequence}"
                argument: object = {UpdateKind.WRITE: marker, UpdateKind.TRUNCATE: 0}.get(operation.kind)  # type: ignore[call-overload]
                length = self.store.prepare(
                    CHUNK,
                    operation.version,
                    operation.kind,  # type: ignore[arg-type]
                    argument,
                    operation.identity,
                )
                self.replica.prepared(operation, length)
            case Step.COMMIT:
                self.store.commit(CHUNK, operation.version)
                self.replica.committed(operation)
            case Step.CONFIRM:
                self.store.commit(CHUNK, operation.leftover)
                self.replica.committed(operation)
            case Step.ABANDON:
                self.store.abandon(CHUNK, operation.version)
                self.replica.abandoned(operation)
            case _:
                raise AssertionError(operation)


def settled(target: int) -> Bench:
    """A replica whose chunk has version 1 committed."""
    bench = Bench(target)
    bench.store.prepare(CHUNK, 1, UpdateKind.WRITE, "first", (b"d" * 16, 1, 1))
    bench.store.commit(CHUNK, 1)
    return bench


def left(target: int) -> Bench:
    """The same, with version 2 pending, of client c's sequence 1."""
    bench = settled(target)
    bench.store.prepare(CHUNK, 2, UpdateKind.WRITE, "second", (b"c" * 16, 0, 1))
    return Bench(target, bench.store)


def test_the_head_prepares_forwards_commits() -> None:
    bench = Bench(HEAD)
    operation = bench.submit()
    assert bench.replica.take() == [operation] and operation.step is Step.PREPARE
    assert bench.replica.unsettled == {CHUNK}
    bench.do(operation)
    assert operation.step is Step.FORWARD and (operation.version, operation.length) == (1, 1)
    bench.replica.forwarded(operation, 1, 1)
    assert operation.step is Step.COMMIT
    bench.do(operation)
    assert operation.step is Step.DONE and operation.failure is None
    assert not bench.replica.unsettled and not bench.replica.busy_chunks
    assert bench.replica.take() == [operation] * 3, "one instruction for each step"


def test_the_tail_commits_at_once() -> None:
    bench = Bench(TAIL)
    operation = bench.submit(version=1, source=MIDDLE)
    bench.do(operation)
    assert operation.step is Step.COMMIT


def test_the_next_in_line_is_judged_when_the_first_is_done() -> None:
    bench = Bench(HEAD)
    first = bench.submit()
    second = bench.submit(sequence=2)
    late = bench.submit(sequence=1)
    assert (second.step, late.step) == (Step.QUEUED, Step.QUEUED)
    bench.do(first)
    bench.replica.forwarded(first, 1, 1)
    bench.do(first)
    assert second.step is Step.PREPARE and second.version == 2
    bench.replica.prepare_refused(second, REFUSED)
    assert second.failure is REFUSED
    assert late.step is Step.DONE and (late.version, late.length) == (1, 1), "the stored answer"


def test_an_update_that_certainly_reached_nobody_is_dropped() -> None:
    bench = settled(HEAD)
    operation = bench.submit()
    bench.do(operation)
    bench.replica.forward_attempt_failed(operation, Failure(Code.UNREACHABLE, "down"))
    bench.replica.forward_failed(operation, REFUSED)
    assert operation.step is Step.ABANDON
    bench.do(operation)
    assert operation.failure is REFUSED and not bench.store.pending() and not bench.replica.unsettled
    again = bench.submit()
    assert again.step is Step.PREPARE and again.version == 2


@pytest.mark.parametrize("last", [UNCLEAR, REFUSED])
def test_an_update_that_may_have_reached_somebody_stays(last: Failure) -> None:
    bench = settled(HEAD)
    operation = bench.submit()
    bench.do(operation)
    bench.replica.forward_attempt_failed(operation, UNCLEAR)
    bench.replica.forward_failed(operation, last)
    assert operation.step is Step.DONE
    assert operation.failure is not None and operation.failure.code.value.retry is Retry.MAYBE_APPLIED
    assert bench.store.pending() == [CHUNK] and bench.replica.unsettled == {CHUNK}


def test_a_leftover_is_settled_before_anything_else() -> None:
    bench = left(HEAD)
    operation = bench.submit(client=b"e" * 16)
    assert operation.step is Step.RESEND and (operation.leftover, operation.leftover_length) == (2, 2)
    bench.replica.forwarded(operation, 2, 2)
    assert operation.step is Step.CONFIRM
    bench.do(operation)
    assert operation.step is Step.PREPARE and operation.version == 3


def test_a_retry_of_the_leftover_gets_its_answer() -> None:
    bench = left(HEAD)
    operation = bench.submit()
    assert operation.step is Step.RESEND
    bench.replica.forwarded(operation, 2, 2)
    bench.do(operation)
    assert operation.step is Step.DONE and (operation.version, operation.length) == (2, 2)


def test_a_leftover_that_cannot_be_settled_stays() -> None:
    bench = left(HEAD)
    operation = bench.submit(client=b"e" * 16)
    bench.replica.forward_failed(operation, REFUSED)
    assert operation.failure is not None and operation.failure.code is Code.CHAIN_BROKEN
    assert bench.store.pending() == [CHUNK]


@pytest.mark.parametrize(("target", "step"), [(HEAD, Step.RESEND), (MIDDLE, Step.DONE), (TAIL, Step.CONFIRM)])
def test_settling_by_place(target: int, step: Step) -> None:
    assert left(target).submit(kind=Duty.SETTLE).step is step


def test_the_tails_word_confirms_up_to_its_version() -> None:
    assert left(MIDDLE).submit(kind=Duty.CONFIRM, version=1).step is Step.DONE
    assert left(MIDDLE).submit(kind=Duty.CONFIRM, version=2).step is Step.CONFIRM


def test_what_a_successor_makes_of_versions() -> None:
    source = HEAD
    assert settled(MIDDLE).submit(version=2, source=source).step is Step.PREPARE
    done = settled(MIDDLE).submit(version=1, source=source)
    assert (done.step, done.failure, done.version, done.length) == (Step.DONE, None, 1, 1)
    gap = settled(MIDDLE).submit(version=3, source=source)
    assert gap.failure is not None and gap.failure.code is Code.UPDATE_MISSING
    assert settled(MIDDLE).submit(version=9, source=source, kind=UpdateKind.REPLACE).step is Step.PREPARE
    assert settled(MIDDLE).submit(version=9, source=source, kind=UpdateKind.REMOVE).step is Step.PREPARE
    # The same pending version again goes on from the store; one after it proves that it is committed.
    assert left(MIDDLE).submit(version=2, source=source).step is Step.RESEND
    assert left(TAIL).submit(version=2, source=MIDDLE).step is Step.CONFIRM
    following = left(MIDDLE)
    operation = following.submit(version=3, source=source, sequence=2)
    assert operation.step is Step.CONFIRM
    following.do(operation)
    assert operation.step is Step.PREPARE


@pytest.mark.parametrize(
    "changes",
    [
        {"sequence": 9},
        {"client": b"e" * 16},
        {"kind": UpdateKind.REMOVE},
        {"kind": UpdateKind.REPLACE, "length": 77},
    ],
)
def test_other_content_under_a_pending_version_is_reported(changes: dict[str, object]) -> None:
    bench = left(MIDDLE)
    operation = bench.submit(version=2, source=HEAD, **changes)
    assert operation.failure is not None and operation.failure.code is Code.CHECKSUM
    assert bench.store.newest(CHUNK) == (2, ("first", "second"))


def test_a_successor_that_answers_differently_stops_the_commit() -> None:
    for version, length in ((1, 5), (2, 1)):
        bench = Bench(HEAD)
        operation = bench.submit()
        bench.do(operation)
        bench.replica.forwarded(operation, version, length)
        assert operation.failure is not None and operation.failure.code is Code.CHAIN_BROKEN
        assert bench.store.pending() == [CHUNK]


def test_gates() -> None:
    def refusal(bench: Bench, **changes: object) -> Code:
        failure = bench.submit(**changes).failure
        assert failure is not None
        return failure.code

    assert refusal(Bench(HEAD), chain_version=2) is Code.CHAIN_VERSION
    assert refusal(Bench(MIDDLE)) is Code.NOT_HEAD
    assert refusal(Bench(MIDDLE), source=TAIL, version=1) is Code.CHAIN_VERSION
    assert refusal(Bench(HEAD), source=TAIL, version=1) is Code.CHAIN_VERSION
    outside = Bench(HEAD)
    outside.replica.position = None
    assert refusal(outside) is Code.NOT_SERVING


def test_the_gate_is_checked_again_when_the_turn_comes() -> None:
    bench = Bench(HEAD)
    first = bench.submit()
    second = bench.submit(sequence=2)
    bench.do(first)
    bench.replica.position = None
    bench.replica.forwarded(first, 1, 1)
    bench.do(first)
    assert second.failure is not None and second.failure.code is Code.NOT_SERVING


def test_events_out_of_place_are_violations() -> None:
    bench = Bench(HEAD)
    operation = bench.submit()
    waiting = bench.submit(sequence=2)
    for event in (
        lambda: bench.replica.committed(operation),
        lambda: bench.replica.forwarded(operation, 1, 1),
        lambda: bench.replica.abandoned(operation),
        lambda: bench.replica.prepared(waiting, 1),
    ):
        with pytest.raises(InvariantViolation):
            event()


def test_a_failed_store_leaves_the_answer_open() -> None:
    bench = Bench(HEAD)
    operation = bench.submit()
    bench.replica.prepare_lost(operation, Failure(Code.DISK_FAILED, "broken"))
    assert operation.failure is not None and operation.failure.code is Code.CHAIN_BROKEN
    bench = Bench(HEAD)
    operation = bench.submit()
    bench.do(operation)
    bench.replica.forwarded(operation, 1, 1)
    bench.replica.commit_failed(operation, Failure(Code.DISK_FAILED, "broken"))
    assert operation.failure is not None and operation.failure.code is Code.CHAIN_BROKEN
    assert bench.replica.unsettled == {CHUNK}


def state(version: int, pending: int = 0) -> ChunkState:
    return ChunkState(version, 1, False, pending, 1, 1)


@pytest.mark.parametrize(
    ("before", "now", "tail", "expected"),
    [
        (1, state(1, 2), 1, Serve.COMMITTED),
        (1, state(1, 2), 2, Serve.PENDING),
        (1, state(2), 2, Serve.COMMITTED),
        (1, state(3, 4), 2, Serve.COMMITTED),
        (1, state(1, 2), 3, Serve.BEHIND),
        (0, state(0, 1), 0, Serve.COMMITTED),
        (0, None, 0, Serve.COMMITTED),
        (0, None, 1, Serve.BEHIND),
        (6, state(6, 7), 0, Serve.GONE),
    ],
)
def test_which_version_is_served(before: int, now: ChunkState | None, tail: int, expected: Serve) -> None:
    assert serve(before, now, tail) is expected


def test_positions() -> None:
    states = [PublicState.SERVING, PublicState.OFFLINE, PublicState.SERVING, PublicState.SYNCING]
    chain = Chain(1, 5, [ChainTarget(n, n, state) for n, state in enumerate(states, 1)])
    head = position_of(chain, 1)
    assert head is not None and head.is_head and not head.is_tail
    assert head.successor is not None and head.successor.target == 3
    tail = position_of(chain, 3)
    assert tail is not None and tail.is_tail and tail.index == 1 and tail.tail.target == 3
    assert position_of(chain, 2) is None and position_of(chain, 4) is None and position_of(chain, 9) is None
    alone = position_of(Chain(1, 5, [ChainTarget(1, 1, PublicState.SERVING)]), 1)
    assert alone is not None and alone.is_head and alone.is_tail
