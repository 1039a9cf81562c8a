"""What a replica's core does when its chain changes, and what the tail and the syncing replica do with each other."""

from collections.abc import Sequence

import pytest

from fs_common.errors import Code, Retry
from fs_common.records.routing import Chain, ChainTarget, PublicState
from fs_common.records.storage import UpdateKind
from fs_storage.craq.operation import Duty, Failure, Operation, Step
from fs_storage.craq.position import Position, position_of
from fs_storage.craq.replica import Replica
from tests.storage.craq.model_store import Content, ModelStore, digest

A, B, C, D = 101, 201, 301, 401
CHUNK = b"chunk-number"
UNCLEAR = Failure(Code.TIMED_OUT, "no answer")
REFUSED = Failure(Code.UNREACHABLE, "down")
CLIENT = b"c" * 16


def place(target: int, version: int, serving: Sequence[int], syncing: int = 0) -> Position | None:
    members = [ChainTarget(member, member, PublicState.SERVING) for member in serving]
    if syncing:
        members.append(ChainTarget(syncing, syncing, PublicState.SYNCING))
    return position_of(Chain(7, version, members), target)


class Bench:
    """A replica with a model store; performs disk instructions when told."""

    def __init__(self, target: int, version: int, serving: Sequence[int], syncing: int = 0) -> None:
        self.target = target
        self.store = ModelStore()
        self.replica = Replica(self.store, set())
        self.replica.position = place(target, version, serving, syncing)

    def has(self, version: int, content: Content, *, pending: bool = False, chain_version: int = 1) -> "Bench":
        """The store has this version of the chunk."""
        kind = UpdateKind.REMOVE if content is None else UpdateKind.REPLACE
        identity = (CLIENT, 1, 1) if pending else (b"", 0, 0)
        self.store.prepare(CHUNK, version, kind, content, identity, chain_version)
        if pending:
            self.replica.unsettled.add(CHUNK)
        else:
            self.store.commit(CHUNK, version)
        return self

    def moves(self, version: int, serving: Sequence[int], syncing: int = 0) -> None:
        self.replica.position = place(self.target, version, serving, syncing)
        self.replica.moved()

    def submit(self, kind: UpdateKind | Duty = UpdateKind.WRITE, **what: object) -> Operation:
        position = self.replica.position
        assert position is not None
        if "identity" not in what and not isinstance(kind, Duty):
            what |= {"client": CLIENT, "channel": 1, "sequence": 2}
        what.pop("identity", None)
        content = what.pop("content", None)
        operation = Operation(CHUNK, kind, **{"chain_version": position.version, **what})  # type: ignore[arg-type]
        operation.request = content
        self.replica.submit(operation)
        return operation

    def sent(self, kind: UpdateKind, version: int, content: Content, base: int = 0, **what: object) -> Operation:
        """What a predecessor sends: `content` is what the chunk is afterwards."""
        position = self.replica.position
        assert position is not None and position.predecessor is not None
        made = digest(version, content) if version else 0
        return self.submit(
            kind,
            **{"version": version, "source": position.predecessor.target, "digest": made, "base": base} | what,
            content=content,
        )

    def do(self, operation: Operation) -> None:
        """What the store does for the operation's step, reported."""
        store, replica = self.store, self.replica
        match operation.step:
            case Step.PREPARE:
                argument: object = "new"
                if operation.kind is UpdateKind.REPLACE:
                    argument = operation.request
                length = store.prepare(
                    CHUNK,
                    operation.version,
                    operation.kind,  # type: ignore[arg-type]
                    argument,
                    operation.identity,
                    operation.chain_version,
                )
                replica.prepared(operation, length)
            case Step.COMMIT | Step.CONFIRM:
                store.commit(CHUNK, operation.leftover if operation.step is Step.CONFIRM else operation.version)
                replica.committed(operation)
            case Step.ABANDON:
                store.abandon(CHUNK, operation.version)
                replica.abandoned(operation)
            case Step.FORGET:
                store.forget(CHUNK)
                replica.forgotten(operation)
            case _:
                raise AssertionError(operation)

    def ends(self, operation: Operation) -> Failure | None:
        """Do what only the store is needed for, until it is done; how it ended."""
        while operation.step is not Step.DONE:
            self.do(operation)
        return operation.failure

    @property
    def committed(self) -> tuple[int, Content]:
        found = self.store.chunks.get(CHUNK)
        return (found.version, found.content) if found is not None else (0, None)


def asked(operation: Operation) -> int:
    assert operation.asked is not None and operation.asked.successor is not None
    return operation.asked.successor.target


# -- updates under way --------------------------------------------------------------------------------------------


def forwarding(bench: Bench) -> tuple[Operation, Position | None]:
    """An update that waits for its successor, and who was asked."""
    operation = bench.submit()
    bench.do(operation)
    assert operation.step is Step.FORWARD
    bench.replica.take()
    return operation, operation.asked


def test_an_update_goes_to_the_successor_of_now() -> None:
    bench = Bench(A, 1, (A, B, C)).has(1, ("old",))
    operation, first = forwarding(bench)
    bench.moves(2, (A, C))
    assert bench.replica.take() == [operation]
    assert operation.step is Step.FORWARD and asked(operation) == C
    bench.replica.forwarded(operation, 2, 2, first)
    assert operation.step is Step.FORWARD and not bench.replica.take(), "the former successor's answer is none"
    bench.replica.forward_failed(operation, REFUSED, first)
    assert operation.step is Step.FORWARD, "neither is its refusal"
    bench.replica.forwarded(operation, 2, 2, operation.asked)
    assert operation.step is Step.COMMIT
    assert bench.ends(operation) is None and bench.committed == (2, ("old", "new"))


def test_the_same_successor_is_asked_again_under_another_chain_version() -> None:
    bench = Bench(A, 1, (A, B, C))
    operation, first = forwarding(bench)
    bench.moves(2, (A, B))
    assert asked(operation) == B and operation.asked is not first
    bench.replica.forwarded(operation, 1, 1, first)
    assert operation.step is Step.FORWARD


def test_an_answer_that_comes_with_the_change_is_none() -> None:
    bench = Bench(A, 1, (A, B))
    operation, first = forwarding(bench)
    bench.replica.position = place(A, 2, (A, C))
    bench.replica.forwarded(operation, 1, 1, first)
    assert operation.step is Step.FORWARD and asked(operation) == C and bench.replica.take() == [operation]


def test_the_last_one_left_commits() -> None:
    bench = Bench(A, 1, (A, B)).has(1, ("old",))
    operation, first = forwarding(bench)
    bench.moves(2, (A,))
    assert operation.step is Step.COMMIT
    bench.replica.forward_failed(operation, REFUSED, first)
    assert bench.ends(operation) is None and bench.committed == (2, ("old", "new"))


def test_a_replica_that_is_off_the_chain_leaves_the_version_pending() -> None:
    bench = Bench(A, 1, (A, B))
    operation, first = forwarding(bench)
    bench.moves(2, (B,))
    assert operation.step is Step.DONE and operation.failure is not None
    assert operation.failure.code.value.retry is Retry.MAYBE_APPLIED
    assert bench.store.pending() == [CHUNK] and bench.replica.unsettled == {CHUNK}
    bench.replica.forwarded(operation, 1, 1, first)
    assert operation.failure is not None


def test_what_was_sent_once_is_never_given_up_as_not_applied() -> None:
    bench = Bench(A, 1, (A, B, C))
    operation, _ = forwarding(bench)
    bench.moves(2, (A, C))
    bench.replica.forward_failed(operation, REFUSED, operation.asked)
    assert operation.step is Step.DONE and operation.failure is not None
    assert operation.failure.code.value.retry is Retry.MAYBE_APPLIED and bench.store.pending() == [CHUNK]


def test_an_update_that_was_prepared_as_the_last_one_is_forwarded_with_its_base() -> None:
    bench = Bench(A, 1, (A,)).has(1, ("old",))
    operation = bench.submit()
    bench.moves(2, (A, B))
    bench.do(operation)
    assert operation.step is Step.FORWARD and asked(operation) == B
    assert (operation.digest, operation.base) == (digest(2, ("old", "new")), digest(1, ("old",)))


def test_an_update_of_a_head_that_is_gone_goes_on() -> None:
    bench = Bench(B, 1, (A, B, C)).has(1, ("old",))
    operation = bench.sent(UpdateKind.WRITE, 2, ("old", "new"), digest(1, ("old",)))
    bench.do(operation)
    bench.moves(2, (B, C))
    assert operation.step is Step.FORWARD and asked(operation) == C
    bench.replica.forwarded(operation, 2, 2, operation.asked)
    assert bench.ends(operation) is None


def test_a_leftover_goes_to_the_successor_of_now_too() -> None:
    bench = Bench(A, 1, (A, B, C)).has(1, ("old",)).has(2, ("old", "left"), pending=True)
    operation = bench.submit(Duty.SETTLE)
    first = operation.asked
    assert operation.step is Step.RESEND and asked(operation) == B
    bench.moves(2, (A, C))
    assert operation.step is Step.RESEND and asked(operation) == C
    bench.replica.forwarded(operation, 2, 2, first)
    assert operation.step is Step.RESEND
    bench.moves(3, (A,))
    assert operation.step is Step.CONFIRM and bench.ends(operation) is None
    assert bench.committed == (2, ("old", "left"))


def test_a_new_head_makes_no_version_while_one_is_pending() -> None:
    bench = Bench(B, 1, (A, B, C)).has(1, ("old",)).has(2, ("old", "left"), pending=True)
    bench.moves(2, (B, C))
    operation = bench.submit()
    assert operation.step is Step.RESEND and operation.leftover == 2
    bench.replica.forwarded(operation, 2, 2, operation.asked)
    bench.do(operation)
    assert operation.step is Step.PREPARE and operation.version == 3


def test_the_word_of_another_tail_counts_no_more() -> None:
    bench = Bench(B, 1, (A, B, C)).has(1, ("old",)).has(2, ("old", "left"), pending=True)
    holds = bench.submit(Duty.SETTLE)
    assert holds.step is Step.DONE
    bench.moves(2, (A, B, D))
    word = bench.submit(Duty.CONFIRM, chain_version=1, version=2, digest=digest(2, ("other",)))
    assert word.step is Step.DONE and word.failure is None and not bench.replica.take_reports()


def test_a_pause_ends_where_the_chain_has_gone() -> None:
    bench = Bench(A, 1, (A, B))
    operation, first = forwarding(bench)
    bench.replica.forward_attempt_failed(operation, REFUSED, first)
    assert bench.replica.try_again(operation, first)
    bench.moves(2, (A, C))
    assert not bench.replica.try_again(operation, first)
    assert bench.replica.try_again(operation, operation.asked)


def test_an_update_that_was_prepared_without_a_lease_goes_on_with_one() -> None:
    bench = Bench(A, 1, (A, B))
    operation = bench.submit()
    held = bench.replica.position
    bench.replica.position = None
    bench.do(operation)
    assert operation.step is Step.FORWARD and operation.asked is None
    bench.replica.forward_attempt_failed(operation, Failure(Code.NOT_SERVING, "no lease"), None)
    assert bench.replica.try_again(operation, None), "nobody can be asked yet"
    bench.replica.position = held
    assert not bench.replica.try_again(operation, None)
    assert operation.step is Step.FORWARD and asked(operation) == B and not operation.uncertain


def test_a_pause_without_a_lease_ends_while_the_last_one_left_commits() -> None:
    bench = Bench(A, 1, (A, B))
    operation = bench.submit()
    bench.replica.position = None
    bench.do(operation)
    assert operation.step is Step.FORWARD and operation.asked is None
    bench.replica.forward_attempt_failed(operation, Failure(Code.NOT_SERVING, "no lease"), None)
    bench.moves(2, (A,))
    assert operation.step is Step.COMMIT
    assert not bench.replica.try_again(operation, None)
    bench.replica.forward_failed(operation, REFUSED, None)
    assert operation.step is Step.COMMIT
    assert bench.ends(operation) is None


@pytest.mark.parametrize("as_head", [True, False])
def test_what_a_replica_began_while_it_served_is_not_stored_because_it_syncs_now(as_head: bool) -> None:
    bench = Bench(B, 1, (B, C) if as_head else (A, B, C))
    operation = bench.submit() if as_head else bench.sent(UpdateKind.REPLACE, 1, ("new",))
    assert operation.step is Step.PREPARE
    bench.moves(3, (C,), syncing=B)
    bench.do(operation)
    assert operation.step is Step.DONE
    assert operation.failure is not None and operation.failure.code is Code.CHAIN_BROKEN
    state = bench.store.state(CHUNK)
    assert state is not None and state.pending_version == 1, "it is pushed over"


def test_what_waited_for_a_successor_is_not_stored_because_it_syncs_now() -> None:
    bench = Bench(A, 1, (A, B))
    operation, _ = forwarding(bench)
    bench.moves(3, (B,), syncing=A)
    assert operation.step is Step.DONE
    assert operation.failure is not None and operation.failure.code is Code.CHAIN_BROKEN


# -- the tail that fills ------------------------------------------------------------------------------------------


def test_an_update_is_committed_at_the_tail_when_the_syncing_replica_has_it() -> None:
    bench = Bench(B, 1, (A, B), D).has(1, ("old",))
    operation = bench.sent(UpdateKind.WRITE, 2, ("old", "new"), digest(1, ("old",)))
    bench.do(operation)
    assert operation.step is Step.FORWARD and asked(operation) == D
    bench.replica.needs_whole(operation, operation.asked)
    assert operation.step is Step.FORWARD_WHOLE
    bench.replica.forwarded(operation, 2, 2, operation.asked)
    assert operation.step is Step.COMMIT and bench.ends(operation) is None


def test_a_whole_version_that_the_syncing_replica_refuses_is_dropped_as_any() -> None:
    bench = Bench(A, 1, (A,), D)
    operation, first = forwarding(bench)
    bench.replica.needs_whole(operation, first)
    bench.replica.forward_failed(operation, REFUSED, first)
    assert operation.step is Step.ABANDON


def test_a_syncing_replica_that_goes_is_waited_for_no_more() -> None:
    for step in (Step.FORWARD, Step.FORWARD_WHOLE):
        bench = Bench(A, 1, (A,), D)
        operation, first = forwarding(bench)
        if step is Step.FORWARD_WHOLE:
            bench.replica.needs_whole(operation, first)
        bench.moves(2, (A,))
        assert operation.step is Step.COMMIT
    bench = Bench(A, 1, (A,), D).has(1, ("old",))
    push = bench.submit(Duty.PUSH)
    bench.moves(2, (A,))
    assert push.failure is not None and push.failure.code is Code.CHAIN_VERSION


def test_what_is_pending_of_an_older_chain_version_waits_for_nobody() -> None:
    """The tail before may have committed it, and it may have been acknowledged."""
    bench = Bench(B, 1, (A, B, C)).has(1, ("old",)).has(2, ("old", "left"), pending=True, chain_version=1)
    bench.moves(2, (A, B), D)
    operation = bench.submit(Duty.SETTLE)
    assert operation.step is Step.CONFIRM and bench.ends(operation) is None


def test_what_is_pending_of_this_chain_version_goes_to_the_syncing_replica_first() -> None:
    bench = Bench(B, 2, (A, B), D).has(1, ("old",)).has(2, ("old", "left"), pending=True, chain_version=2)
    operation = bench.submit(Duty.SETTLE)
    assert operation.step is Step.RESEND and asked(operation) == D
    bench.replica.forwarded(operation, 2, 2, operation.asked)
    assert operation.step is Step.CONFIRM and bench.ends(operation) is None


@pytest.mark.parametrize("when", ["preparing", "forwarding"])
def test_what_a_new_tail_has_under_way_is_of_the_older_version(when: str) -> None:
    bench = Bench(B, 1, (A, B, C)).has(1, ("old",))
    operation = bench.sent(UpdateKind.WRITE, 2, ("old", "new"), digest(1, ("old",)))
    if when == "forwarding":
        bench.do(operation)
    bench.moves(2, (A, B), D)
    bench.replica.expect_settled()
    assert bench.replica.owed == {CHUNK}
    if when == "preparing":
        bench.do(operation)
    assert operation.step is Step.COMMIT
    bench.do(operation)
    assert not bench.replica.owed


def test_what_is_owed_is_what_was_pending_at_the_change() -> None:
    bench = Bench(B, 1, (A, B, C)).has(1, ("old",)).has(2, ("old", "left"), pending=True)
    bench.replica.unsettled.add(b"in conflict!")
    bench.moves(2, (A, B))
    bench.replica.expect_settled()
    assert bench.replica.owed == {CHUNK}, "a conflict has nothing that could be settled"
    bench.ends(bench.submit(Duty.SETTLE))
    assert not bench.replica.owed


@pytest.mark.parametrize("content", [("old",), None])
def test_a_push_sends_what_is_committed_when_its_turn_comes(content: Content) -> None:
    bench = Bench(A, 1, (A,), D).has(3, content)
    push = bench.submit(Duty.PUSH)
    assert push.step is Step.PUSH and (push.version, push.length) == (3, len(content or ()))
    waiting = bench.submit()
    assert waiting.step is Step.QUEUED, "nothing changes the chunk meanwhile"
    bench.replica.forwarded(push, push.version, push.length, push.asked)
    assert push.step is Step.DONE and push.failure is None and waiting.step is Step.PREPARE


def test_a_push_of_what_is_not_here_and_one_that_fails() -> None:
    bench = Bench(A, 1, (A,), D)
    push = bench.submit(Duty.PUSH)
    assert push.step is Step.PUSH and push.version == 0
    bench.replica.forward_attempt_failed(push, UNCLEAR, push.asked)
    bench.replica.forward_failed(push, REFUSED, push.asked)
    assert push.failure is REFUSED and not bench.replica.busy_chunks


def test_a_push_sends_a_leftover_first() -> None:
    bench = Bench(A, 2, (A,), D).has(1, ("old",)).has(2, ("old", "left"), pending=True, chain_version=2)
    push = bench.submit(Duty.PUSH)
    assert push.step is Step.RESEND
    bench.replica.forwarded(push, 2, 2, push.asked)
    bench.do(push)
    assert push.step is Step.PUSH and push.version == 2


def test_only_a_tail_pushes() -> None:
    for bench in (Bench(A, 1, (A, B), D), Bench(A, 1, (A,)), Bench(D, 1, (A,), D)):
        push = bench.submit(Duty.PUSH)
        assert push.failure is not None and push.failure.code is Code.CHAIN_VERSION
    late = Bench(A, 2, (A,), D).submit(Duty.PUSH, chain_version=1)
    assert late.failure is not None and late.failure.code is Code.CHAIN_VERSION


# -- the syncing replica ------------------------------------------------------------------------------------------

OLD, NEW = ("old",), ("old", "new")


def syncing() -> Bench:
    return Bench(D, 5, (A, B), D)


@pytest.mark.parametrize(
    "has",
    [
        lambda bench: bench,
        lambda bench: bench.has(1, OLD),
        lambda bench: bench.has(9, ("another",)),  # it was ahead, in what nobody was acknowledged
        lambda bench: bench.has(3, ("another",)),  # another version under that number
        lambda bench: bench.has(7, None),
        lambda bench: bench.has(2, OLD).has(3, ("another",), pending=True),
        lambda bench: bench.has(2, OLD).has(9, ("another",), pending=True),
        lambda bench: bench.has(3, NEW),
        lambda bench: bench.has(2, OLD).has(3, NEW, pending=True),
    ],
)
@pytest.mark.parametrize("content", [NEW, None])
def test_the_serving_side_wins(has: object, content: Content) -> None:
    bench = has(syncing())  # type: ignore[operator]
    kind = UpdateKind.REMOVE if content is None else UpdateKind.REPLACE
    operation = bench.sent(kind, 3, content)
    assert bench.ends(operation) is None
    assert bench.committed == (3, content) and not bench.replica.unsettled
    assert (operation.version, operation.length) == (3, len(content or ()))


def test_a_part_is_taken_over_what_it_changes_alone() -> None:
    base = digest(2, OLD)
    takes = (
        syncing().has(2, OLD),
        syncing().has(1, ("o",)).has(2, OLD, pending=True),  # what it changes is pending here
    )
    for bench in takes:
        assert bench.ends(bench.sent(UpdateKind.WRITE, 3, NEW, base)) is None
        assert bench.committed == (3, NEW)
    for bench in (
        syncing(),
        syncing().has(2, ("another",)),
        syncing().has(1, ("o",)),
        syncing().has(9, ("another",)),
        syncing().has(2, None),
        syncing().has(2, OLD).has(3, ("another",), pending=True),
    ):
        before = bench.store.newest(CHUNK)
        failure = bench.ends(bench.sent(UpdateKind.WRITE, 3, NEW, base))
        assert failure is not None and failure.code is Code.NEEDS_WHOLE
        assert failure.code.value.retry is Retry.SAFE and bench.store.newest(CHUNK) == before


def test_a_part_of_nothing_is_taken_over_nothing() -> None:
    for bench in (syncing(), syncing().has(2, None)):
        assert bench.ends(bench.sent(UpdateKind.WRITE, 3, ("new",))) is None
    for bench in (syncing().has(7, None), syncing().has(2, OLD)):
        failure = bench.ends(bench.sent(UpdateKind.WRITE, 3, ("new",)))
        assert failure is not None and failure.code is Code.NEEDS_WHOLE


def test_a_part_that_became_another_version_is_dropped_and_asked_for_whole() -> None:
    bench = syncing().has(2, OLD)
    operation = bench.sent(UpdateKind.WRITE, 3, ("unlike", "that"), digest(2, OLD))
    failure = bench.ends(operation)
    assert failure is not None and failure.code is Code.NEEDS_WHOLE and bench.committed == (2, OLD)


@pytest.mark.parametrize("pending", [False, True])
def test_what_the_predecessor_does_not_know_is_forgotten(pending: bool) -> None:
    for bench in (syncing().has(2, OLD), syncing().has(2, None), syncing()):
        if pending:
            bench.has(bench.committed[0] + 1, NEW, pending=True)
        assert bench.ends(bench.sent(UpdateKind.FORGET, 0, None)) is None
        assert CHUNK not in bench.store.chunks and not bench.replica.unsettled


@pytest.mark.parametrize("kind", [UpdateKind.REPLACE, UpdateKind.REMOVE, UpdateKind.FORGET])
def test_a_copy_that_is_late_brings_nothing_back(kind: UpdateKind) -> None:
    """What came at this chain version gives way to higher versions only."""
    bench = syncing()
    bench.ends(bench.sent(UpdateKind.REPLACE, 3, OLD))
    bench.ends(bench.sent(UpdateKind.WRITE, 4, NEW, digest(3, OLD)))
    failure = bench.ends(bench.sent(kind, 0 if kind is UpdateKind.FORGET else 3, OLD))
    if kind is UpdateKind.REMOVE:
        failure = bench.ends(bench.sent(kind, 3, None))
    assert failure is not None and failure.code is Code.REPLICAS_DIFFER and bench.committed == (4, NEW)
    gone = syncing()
    gone.ends(gone.sent(UpdateKind.REMOVE, 4, None))
    assert gone.ends(gone.sent(UpdateKind.FORGET, 0, None)) is None and gone.committed == (4, None)


def test_a_syncing_replica_settles_nothing_by_itself() -> None:
    bench = syncing().has(1, OLD).has(2, NEW, pending=True)
    for duty in (Duty.SETTLE, Duty.CONFIRM):
        operation = bench.submit(duty, version=2, digest=digest(2, NEW))
        assert operation.step is Step.DONE and bench.store.pending() == [CHUNK]


def test_only_the_predecessor_is_listened_to() -> None:
    bench = syncing()
    for what in ({"source": A, "version": 1, "digest": 1}, {}):
        failure = bench.submit(UpdateKind.WRITE, **what).failure  # type: ignore[arg-type]
        assert failure is not None and failure.code in (Code.CHAIN_VERSION, Code.NOT_HEAD)


def test_a_store_that_cannot_forget_leaves_the_answer_open() -> None:
    bench = syncing().has(9, OLD)
    operation = bench.sent(UpdateKind.REPLACE, 3, NEW)
    assert operation.step is Step.FORGET
    bench.replica.forget_failed(operation, Failure(Code.DISK_FAILED, "broken"))
    assert operation.failure is not None and operation.failure.code is Code.CHAIN_BROKEN


def test_a_promoted_replica_goes_on_as_a_tail() -> None:
    bench = syncing().has(2, OLD)
    operation = bench.sent(UpdateKind.WRITE, 3, NEW, digest(2, OLD))
    bench.moves(6, (A, B, D))
    assert bench.ends(operation) is None and bench.committed == (3, NEW)
    again = bench.sent(UpdateKind.WRITE, 3, NEW, digest(2, OLD))
    assert again.step is Step.DONE and again.failure is None, "it has that very version"
