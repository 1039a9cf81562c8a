"""The replica's table of states, event by event."""

from collections.abc import Callable

import pytest

from fs_common.checks import InvariantViolation
from fs_common.errors import Code, Retry
from fs_common.records.routing import Chain, ChainTarget, PublicState
from fs_common.records.storage import UpdateKind
from fs_storage.craq.apportion import Serve, Told, serve
from fs_storage.craq.operation import Duty, Failure, Operation, Step
from fs_storage.craq.position import position_of
from fs_storage.craq.replica import Replica
from fs_storage.engine.interface import ChunkState
from tests.storage.craq.model_store import Chunk, ModelStore, digest

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
        if "source" in changes:
            what = {**self.as_the_predecessor_has_it(what), **what}
        operation = Operation(CHUNK, what.pop("kind"), **what)  # type: ignore[arg-type]
        self.replica.submit(operation)
        return operation

    def as_the_predecessor_has_it(self, what: dict[str, object]) -> dict[str, object]:
        """Digest and base of an update that a predecessor sends which has what is here, and made this of it."""
        version = what.get("version", 0)
        found = self.store.chunks.get(CHUNK, Chunk())
        if found.pending is not None and found.pending.version == version:
            return {"digest": self.store.digest(CHUNK, pending=True), "base": self.store.digest(CHUNK)}
        if found.version == version:
            return {"digest": self.store.digest(CHUNK)}
        before = found.pending.content if found.pending is not None else found.content
        marker = f"{what['client']!r}{what['sequence']}"
        content = (*(before or ()), marker) if what["kind"] is UpdateKind.WRITE else None
        base = self.store.digest(CHUNK, pending=found.pending is not None) if before is not None else 0
        return {"digest": digest(version, content), "base": base}  # type: ignore[arg-type]

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


def removed(target: int) -> Bench:
    """A replica whose chunk is removed, as version 2."""
    bench = settled(target)
    bench.store.prepare(CHUNK, 2, UpdateKind.REMOVE, None, (b"d" * 16, 1, 2))
    bench.store.commit(CHUNK, 2)
    return bench


def test_the_head_prepares_forwards_commits() -> None:
    bench = Bench(HEAD)
    operation = bench.submit()
    assert bench.replica.take() == [operation] and operation.step is Step.PREPARE
    assert bench.replica.unsettled == {CHUNK}
    bench.do(operation)
    assert operation.step is Step.FORWARD and (operation.version, operation.length) == (1, 1)
    bench.replica.forwarded(operation, 1, 1, operation.asked)
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
    bench.replica.forwarded(first, 1, 1, first.asked)
    bench.do(first)
    assert second.step is Step.PREPARE and second.version == 2
    bench.replica.prepare_refused(second, REFUSED)
    assert second.failure is REFUSED
    assert late.step is Step.DONE and (late.version, late.length) == (1, 1), "the stored answer"


def test_an_update_that_certainly_reached_nobody_is_dropped() -> None:
    bench = settled(HEAD)
    operation = bench.submit()
    bench.do(operation)
    bench.replica.forward_attempt_failed(operation, Failure(Code.UNREACHABLE, "down"), operation.asked)
    bench.replica.forward_failed(operation, REFUSED, operation.asked)
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
    bench.replica.forward_attempt_failed(operation, UNCLEAR, operation.asked)
    bench.replica.forward_failed(operation, last, operation.asked)
    assert operation.step is Step.DONE
    assert operation.failure is not None and operation.failure.code.value.retry is Retry.MAYBE_APPLIED
    assert bench.store.pending() == [CHUNK] and bench.replica.unsettled == {CHUNK}


def test_a_leftover_is_settled_before_anything_else() -> None:
    bench = left(HEAD)
    operation = bench.submit(client=b"e" * 16)
    assert operation.step is Step.RESEND and (operation.leftover, operation.leftover_length) == (2, 2)
    bench.replica.forwarded(operation, 2, 2, operation.asked)
    assert operation.step is Step.CONFIRM
    bench.do(operation)
    assert operation.step is Step.PREPARE and operation.version == 3


def test_a_retry_of_the_leftover_gets_its_answer() -> None:
    bench = left(HEAD)
    operation = bench.submit()
    assert operation.step is Step.RESEND
    bench.replica.forwarded(operation, 2, 2, operation.asked)
    bench.do(operation)
    assert operation.step is Step.DONE and (operation.version, operation.length) == (2, 2)


def test_a_leftover_that_cannot_be_settled_stays() -> None:
    bench = left(HEAD)
    operation = bench.submit(client=b"e" * 16)
    bench.replica.forward_failed(operation, REFUSED, operation.asked)
    assert operation.failure is not None and operation.failure.code is Code.CHAIN_BROKEN
    assert bench.store.pending() == [CHUNK]


@pytest.mark.parametrize(("target", "step"), [(HEAD, Step.RESEND), (MIDDLE, Step.DONE), (TAIL, Step.CONFIRM)])
def test_settling_by_place(target: int, step: Step) -> None:
    assert left(target).submit(kind=Duty.SETTLE).step is step


def test_the_tails_word_confirms_up_to_its_version() -> None:
    first, second = digest(1, ("first",)), digest(2, ("first", "second"))
    for place in (HEAD, MIDDLE):
        behind = left(place).submit(kind=Duty.CONFIRM, version=1, digest=first)
        assert behind.step is Step.DONE and behind.failure is None
        assert left(place).submit(kind=Duty.CONFIRM, version=2, digest=second).step is Step.CONFIRM
        for version, other in ((2, first), (2, 0), (3, second)):
            bench = left(place)
            operation = bench.submit(kind=Duty.CONFIRM, version=version, digest=other)
            assert operation.failure is not None and operation.failure.code is Code.REPLICAS_DIFFER
            assert len(bench.replica.take_reports()) == 1 and bench.store.pending() == [CHUNK]


def test_a_removal_that_the_tail_and_the_head_have_forgotten_ends_in_the_middle() -> None:
    def left_with(place: int, kind: UpdateKind) -> Bench:
        bench = settled(place)
        bench.store.prepare(CHUNK, 2, kind, None if kind is UpdateKind.REMOVE else "second", (b"c" * 16, 1, 2))
        bench.replica.unsettled.add(CHUNK)
        return bench

    removal, write = digest(2, None), digest(2, ("first", "second"))
    middle = left_with(MIDDLE, UpdateKind.REMOVE)
    operation = middle.submit(kind=Duty.CONFIRM, version=0, digest=0, base=removal)
    assert operation.step is Step.CONFIRM
    middle.do(operation)
    assert not middle.store.pending() and not middle.replica.unsettled and operation.failure is None
    # The head sends it again; what came after the question says nothing of it; and no write is forgotten.
    for bench, asked in (
        (left_with(HEAD, UpdateKind.REMOVE), removal),
        (left_with(MIDDLE, UpdateKind.REMOVE), 0),
        (left_with(MIDDLE, UpdateKind.REMOVE), digest(3, None)),
        (left_with(MIDDLE, UpdateKind.WRITE), write),
    ):
        operation = bench.submit(kind=Duty.CONFIRM, version=0, digest=0, base=asked)
        assert operation.step is Step.DONE and bench.store.pending() == [CHUNK]


def test_what_a_successor_makes_of_versions() -> None:
    source = HEAD
    assert settled(MIDDLE).submit(version=2, source=source).step is Step.PREPARE
    done = settled(MIDDLE).submit(version=1, source=source)
    assert (done.step, done.failure, done.version, done.length) == (Step.DONE, None, 1, 1)
    assert Bench(MIDDLE).submit(version=9, source=source).step is Step.PREPARE, "nothing is followed by any version"
    # Whatever the predecessor removed here is forgotten, or is removed once more.
    assert Bench(MIDDLE).submit(version=9, source=source, base=5, kind=UpdateKind.REMOVE).step is Step.PREPARE
    # The same pending version again goes on from the store; one after it proves that it is committed.
    assert left(MIDDLE).submit(version=2, source=source).step is Step.RESEND
    assert left(TAIL).submit(version=2, source=MIDDLE).step is Step.CONFIRM
    following = left(MIDDLE)
    operation = following.submit(version=3, source=source, sequence=2)
    assert operation.step is Step.CONFIRM
    following.do(operation)
    assert operation.step is Step.PREPARE


@pytest.mark.parametrize("kind", [UpdateKind.WRITE, UpdateKind.TRUNCATE, UpdateKind.REMOVE, UpdateKind.REPLACE])
@pytest.mark.parametrize(
    ("bench", "version", "base"),
    [
        (settled, 1, "nothing"),  # another version under a number that is committed here
        (settled, 2, "other"),  # a version of something else
        (settled, 2, "nothing"),  # a predecessor that has forgotten what is here
        (settled, 3, "committed"),  # one that knows more
        (settled, 9, "nothing"),
        (left, 1, "nothing"),
        (left, 2, "committed"),  # another version under a number that is pending here
        (left, 3, "committed"),
        (left, 3, "other"),
        (removed, 2, "nothing"),
        (removed, 1, "nothing"),
    ],
)
@pytest.mark.parametrize("place", [MIDDLE, TAIL])
def test_what_does_not_follow_from_what_is_here_is_refused(
    bench: Callable[[int], Bench], version: int, base: str, place: int, kind: UpdateKind
) -> None:
    replica = bench(place)
    before = (replica.store.newest(CHUNK), replica.store.state(CHUNK))
    bases = {"nothing": 0, "other": 77, "committed": replica.store.digest(CHUNK)}
    operation = replica.submit(
        version=version, source=HEAD if place == MIDDLE else MIDDLE, kind=kind, digest=78, base=bases[base]
    )
    assert operation.step is Step.DONE and operation.failure is not None
    assert operation.failure.code is Code.REPLICAS_DIFFER
    assert CHUNK.hex() in operation.failure.message and f"target {place}" in operation.failure.message
    assert (replica.store.newest(CHUNK), replica.store.state(CHUNK)) == before
    assert not replica.replica.take_reports(), "it may be late: only whoever still waits for the answer reports it"


@pytest.mark.parametrize("kind", [UpdateKind.WRITE, UpdateKind.TRUNCATE, UpdateKind.REPLACE])
def test_only_a_removal_follows_from_nothing_whatever_it_was_made_of(kind: UpdateKind) -> None:
    for bench in (Bench(MIDDLE), removed(MIDDLE)):
        operation = bench.submit(version=5, source=HEAD, kind=kind, digest=78, base=77)
        assert operation.failure is not None and operation.failure.code is Code.REPLICAS_DIFFER
    bench = left(MIDDLE)
    operation = bench.submit(version=3, source=HEAD, kind=kind, digest=78, base=0)
    assert operation.failure is not None and operation.failure.code is Code.REPLICAS_DIFFER


def test_what_became_another_version_than_the_predecessors_is_dropped() -> None:
    bench = settled(TAIL)
    operation = bench.submit(version=2, source=MIDDLE, digest=77)
    bench.do(operation)
    assert operation.step is Step.ABANDON
    bench.do(operation)
    assert operation.failure is not None and operation.failure.code is Code.REPLICAS_DIFFER
    assert bench.store.newest(CHUNK) == (1, ("first",)) and not bench.store.pending()


def test_a_successor_that_has_something_else_is_reported_once_and_nothing_is_committed() -> None:
    bench = left(HEAD)
    for _ in range(2):
        operation = bench.submit(client=b"e" * 16)
        assert operation.step is Step.RESEND
        bench.replica.forward_failed(operation, Failure(Code.REPLICAS_DIFFER, "it has something else"), operation.asked)
        assert operation.failure is not None and operation.failure.code is Code.REPLICAS_DIFFER
    assert bench.replica.take_reports() == ["it has something else"] and not bench.replica.take_reports()
    assert bench.replica.differing.keys() == bench.replica.unsettled == {CHUNK}
    again = bench.submit()
    assert again.step is Step.RESEND
    bench.replica.forwarded(again, 2, 2, again.asked)
    bench.do(again)
    assert not bench.replica.differing, "settled"


def test_a_successor_that_answers_differently_stops_the_commit() -> None:
    for version, length in ((1, 5), (2, 1)):
        bench = Bench(HEAD)
        operation = bench.submit()
        bench.do(operation)
        bench.replica.forwarded(operation, version, length, operation.asked)
        assert operation.failure is not None and operation.failure.code is Code.REPLICAS_DIFFER
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
    bench.replica.forwarded(first, 1, 1, first.asked)
    assert first.failure is not None and first.failure.code is Code.CHAIN_BROKEN
    assert bench.store.pending() == [CHUNK]
    assert second.failure is not None and second.failure.code is Code.NOT_SERVING


def test_events_out_of_place_are_violations() -> None:
    bench = Bench(HEAD)
    operation = bench.submit()
    waiting = bench.submit(sequence=2)
    for event in (
        lambda: bench.replica.committed(operation),
        lambda: bench.replica.forwarded(operation, 1, 1, None),
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
    bench.replica.forwarded(operation, 1, 1, operation.asked)
    bench.replica.commit_failed(operation, Failure(Code.DISK_FAILED, "broken"))
    assert operation.failure is not None and operation.failure.code is Code.CHAIN_BROKEN
    assert bench.replica.unsettled == {CHUNK}


def state(version: int, pending: int = 0, *, removed: bool = False) -> ChunkState:
    return ChunkState(version, 1, removed, pending, 1, 1)


@pytest.mark.parametrize(
    ("before", "now", "tail", "removing", "expected"),
    [
        (1, state(1, 2), Told(1, 10), False, Serve.COMMITTED),
        (1, state(1, 2), Told(1, 11), False, Serve.BEHIND),
        (1, state(1, 2), Told(2, 20), False, Serve.PENDING),
        (1, state(1, 2), Told(2, 21), False, Serve.BEHIND),
        (1, state(2), Told(2, 10), False, Serve.COMMITTED),
        (1, state(3, 4), Told(2, 99), False, Serve.COMMITTED),
        (1, state(1, 2), Told(3, 20), False, Serve.BEHIND),
        (0, state(0, 1), Told(0, 0), False, Serve.COMMITTED),
        (0, None, Told(0, 0), False, Serve.COMMITTED),
        (0, None, Told(1, 10), False, Serve.BEHIND),
        # The tail has committed a removal that this replica has forgotten, or has another of.
        (0, None, Told(9, digest(9, None)), False, Serve.COMMITTED),
        (0, state(0, 10), Told(9, digest(9, None)), False, Serve.COMMITTED),
        (7, state(7, 10, removed=True), Told(9, digest(9, None)), False, Serve.COMMITTED),
        (8, state(8, 10), Told(9, digest(9, None)), False, Serve.BEHIND),
        (6, state(6, 7), Told(0, 0), True, Serve.GONE),
        (6, state(7, removed=True), Told(0, 0), False, Serve.GONE),
        (6, None, Told(0, 0), False, Serve.GONE),
        # Written anew since the tail was asked, when it had forgotten the removal that was here.
        (6, state(7), Told(0, 0), False, Serve.COMMITTED),
        (6, state(7, 8), Told(0, 0), False, Serve.COMMITTED),
        (6, state(6, 7), Told(0, 0), False, Serve.BEHIND),  # a tail that has lost the chunk
    ],
)
def test_which_version_is_served(
    before: int, now: ChunkState | None, tail: Told, removing: bool, expected: Serve
) -> None:
    assert serve(before, now, (10, 20), tail, removing=removing) is expected


def test_positions() -> None:
    states = [PublicState.SERVING, PublicState.OFFLINE, PublicState.SERVING, PublicState.SYNCING]
    chain = Chain(1, 5, [ChainTarget(n, n, state) for n, state in enumerate(states, 1)])
    head = position_of(chain, 1)
    assert head is not None and head.is_head and not head.is_tail
    assert head.successor is not None and head.successor.target == 3
    tail = position_of(chain, 3)
    assert tail is not None and tail.is_tail and tail.index == 1 and tail.tail.target == 3
    assert tail.successor is not None and tail.successor.target == 4 and tail.fills and not tail.is_last
    syncing = position_of(chain, 4)
    assert syncing is not None and syncing.syncing and syncing.is_last and not syncing.is_tail
    assert syncing.predecessor is not None and syncing.predecessor.target == 3 and syncing.index == 2
    assert [member.target for member in syncing.members] == [1, 3]
    assert position_of(chain, 2) is None and position_of(chain, 9) is None
    nobody_serves = Chain(1, 6, [ChainTarget(1, 1, PublicState.LASTSRV), ChainTarget(2, 2, PublicState.SYNCING)])
    assert position_of(nobody_serves, 1) is None and position_of(nobody_serves, 2) is None
    alone = position_of(Chain(1, 5, [ChainTarget(1, 1, PublicState.SERVING)]), 1)
    assert alone is not None and alone.is_head and alone.is_tail
