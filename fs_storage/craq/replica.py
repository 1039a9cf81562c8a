"""One replica of a chain as a state machine for each chunk: events in, instructions out. Pure.

Owns the order of operations on a chunk. Knows nothing of files, sockets, time or tasks: the shell does what
`Operation.step` says and reports it by calling the matching event; `take()` then gives the operations whose step is
new. At most one operation of a chunk is under way (a FIFO queue for each chunk); chunks are independent.

States of a chunk = step of the operation that holds it:

    state          waiting for                       event -> next state
    -------------  -------------------------------   ---------------------------------------------------------------
    (idle)         nothing, no operation             submit -> judged: RESEND, CONFIRM, PREPARE, FORGET, PUSH or DONE
    RESEND         successor: leftover, whole        forwarded -> CONFIRM; forward_failed -> DONE (leftover stays)
    CONFIRM        store: commit of the leftover     committed -> judged again; commit_failed -> DONE
    FORGET         store: nothing known any more     forgotten -> PREPARE, or DONE; forget_failed -> DONE
    PREPARE        store: this update pending        prepared -> FORWARD (the last one: COMMIT), or ABANDON if it
                                                     became another version than the predecessor's; prepare_refused,
                                                     _lost -> DONE
    FORWARD        successor: this update            forwarded -> COMMIT; needs_whole -> FORWARD_WHOLE;
                                                     forward_failed -> ABANDON or DONE
    FORWARD_WHOLE  successor: the version, whole     forwarded -> COMMIT; forward_failed -> ABANDON or DONE
    COMMIT         store: commit of this update      committed -> DONE; commit_failed -> DONE (pending stays)
    ABANDON        store: this update dropped        abandoned -> DONE
    PUSH           successor: what is committed      forwarded, forward_failed -> DONE
    DONE           (left the chunk; the next in the queue is judged)

FORGET is of a syncing replica, FORWARD_WHOLE and PUSH are of the tail that fills one.

The event `moved` (the place on the chain, or the chain's version, is another one) decides anew what waits for a
successor: not on the chain: DONE, and the version stays pending; nobody behind that has to have it: COMMIT or CONFIRM;
otherwise the same step, and the successor of now is `asked`. An outcome is reported together with who was asked, and
ignored if that is not who is asked now.

Invariants:

* Prefix order: whatever version a replica has, committed or pending, its predecessor has. Hence prepare (durable)
  comes before forward, on every replica, and forward before commit.
* A version is committed once the tail has prepared it. The tail commits at once, if nobody syncs behind it; and also
  what was prepared under an older version of the chain, for the tail before it may have done so. Anything else it
  commits when the syncing successor has it, so that this one lacks nothing when it begins to serve.
* At a replica at most one version is pending: the committed one plus 1, or any higher one where nothing is committed
  or a removal is.
* Two replicas have the same version only if its digest is the same. A successor takes an update only over the very
  version that its predecessor had, and calls it done, or commits what it has pending, only if it is the very version
  that its predecessor, or the tail, has. Anything else is REPLICAS_DIFFER: the version stays pending, and is reported.
* A chunk that has nothing at the head gets a version above all that the head has forgotten, so a successor takes it
  whether or not it still remembers the removal. Each replica forgets when it likes.
* A version number, once it may have left this replica, is never given to another update: a pending version is
  abandoned only if every attempt to forward it, to whichever successor, was answered by a refusal that promises "not
  applied".
* An update with an identity is applied at most once: its answer is kept with the chunk and looked up in turn.

Rules of chain replication: docs/concurrency/storage.md.
"""

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from fs_common.checks import violated
from fs_common.errors import Code, Retry
from fs_common.records.storage import UpdateKind
from fs_storage.craq.operation import NO_IDENTITY, SENDING, Duty, Failure, Operation, Step
from fs_storage.craq.position import Position
from fs_storage.craq.taking import Take, as_successor, as_syncing, missing
from fs_storage.engine.digest import NOTHING_DIGEST

if TYPE_CHECKING:
    from fs_storage.engine.interface import Answer, ChunkState, PendingUpdate


_GOES_ON = "the chain goes on without this target"
_DIGESTS_MAX = 4096


class View(Protocol):
    """What the core may ask of the store: lookups in memory, without effect."""

    @property
    def floor(self) -> int: ...

    def state(self, chunk: bytes) -> "ChunkState | None": ...

    def answer(self, client: bytes, channel: int) -> "Answer | None": ...

    def pending_update(self, chunk: bytes) -> "PendingUpdate | None": ...

    def digest(self, chunk: bytes, *, pending: bool = False) -> int: ...


class Replica:
    """The chunks of one target. Single-threaded; no event may be reported from inside another."""

    def __init__(self, view: View, unsettled: set[bytes]) -> None:
        """`unsettled`: the chunks that have a pending version now (`ChunkStore.pending()`)."""
        self._view = view
        self.unsettled = unsettled
        """Chunks that have, or are about to get, a pending version. A read of any other is answered at once."""
        self.position: Position | None = None
        """None: not serving. Set by the shell whenever routing or lease changes; judged at each operation's turn."""
        self.owed: set[bytes] = set()
        """Chunks that had something pending when `expect_settled` was called, and have not been settled since."""
        self._queues: dict[bytes, deque[Operation]] = {}
        """For each busy chunk: the operation that holds it, then those that wait, in order of arrival."""
        self._out: list[Operation] = []
        self._digests: dict[bytes, tuple[int, int]] = {}
        """(version, digest) of what was committed last, of the chunks that are written again and again."""
        self.differing: dict[bytes, str] = {}
        """Of the unsettled chunks, those whose pending version stays because another replica has something else, and
        what that is."""
        self._reports: list[str] = []

    # -- events ------------------------------------------------------------------------------------------------

    def submit(self, operation: Operation) -> None:
        """A new operation; it is judged when the chunk is free."""
        queue = self._queues.get(operation.chunk)
        if queue is not None:
            queue.append(operation)
            return
        self._queues[operation.chunk] = queue = deque((operation,))
        self._judge_next(operation.chunk, queue)

    def moved(self) -> None:
        """`position` is another place, or one under another version of the chain."""
        position = self.position
        for queue in [*self._queues.values()]:
            operation = queue[0]
            if operation.step in SENDING and operation.asked != position:
                self._redirect(operation)

    def prepared(self, operation: Operation, length: int) -> None:
        """The store has the update pending, durably; the chunk will have `length` bytes."""
        self._expect(operation, Step.PREPARE)
        operation.length = length
        if operation.source and self._view.digest(operation.chunk, pending=True) != operation.digest:
            syncs = self.position is not None and self.position.syncing
            operation.failure = Failure(
                Code.NEEDS_WHOLE if syncs and operation.kind is not UpdateKind.REPLACE else Code.REPLICAS_DIFFER,
                f"version {operation.version} of chunk {operation.chunk.hex()} became another one at"
                f" {self._name()} than at target {operation.source}",
            )
            operation.step = Step.ABANDON
        elif self.position is not None and _is_of_before(operation, self.position):
            self._finish(operation, Failure(Code.CHAIN_BROKEN, _GOES_ON))
            return
        else:
            self._forward(operation)
        self._out.append(operation)

    def prepare_refused(self, operation: Operation, failure: Failure) -> None:
        """The store has no trace of the update (or it was never asked)."""
        self._expect(operation, Step.PREPARE)
        self._settled(operation.chunk)
        self._finish(operation, failure)

    def prepare_lost(self, operation: Operation, failure: Failure) -> None:
        """The store failed in a way that leaves open whether the update is pending. The target must not serve on."""
        self._expect(operation, Step.PREPARE)
        self._finish(operation, _maybe_applied(failure))

    def forwarded(self, operation: Operation, version: int, length: int, asked: Position | None) -> None:
        """The successor, as of `asked`, has committed `version`, and its chunk has `length` bytes then."""
        if self._is_late(operation, asked):
            return
        step = operation.step
        if step is Step.RESEND:
            if (version, length) != (operation.leftover, operation.leftover_length):
                self._answered_otherwise(operation, operation.leftover, operation.leftover_length, version, length)
                return
            operation.step = Step.CONFIRM
        elif (version, length) != (operation.version, operation.length):
            self._answered_otherwise(operation, operation.version, operation.length, version, length)
            return
        elif step is Step.PUSH:
            self._finish(operation, None)
            return
        else:
            operation.step = Step.COMMIT
        operation.asked = None
        self._out.append(operation)

    def needs_whole(self, operation: Operation, asked: Position | None) -> None:
        """The syncing successor has not what the update changes."""
        if self._is_late(operation, asked):
            return
        self._expect(operation, Step.FORWARD)
        operation.step = Step.FORWARD_WHOLE
        self._out.append(operation)

    def forward_attempt_failed(self, operation: Operation, failure: Failure, asked: Position | None) -> None:
        """One attempt failed and another follows, after a pause: the step stays."""
        if not self._is_late(operation, asked):
            self._attempt_failed(operation, failure)

    def try_again(self, operation: Operation, asked: Position | None) -> bool:
        """The pause is over. False: the operation does not wait for the successor of `asked` any more."""
        if self._is_late(operation, asked):
            return False
        if asked is None and self.position is not None:
            self._redirect(operation)  # the lease is back
            return False
        return True

    def forward_failed(self, operation: Operation, failure: Failure, asked: Position | None) -> None:
        """The last attempt failed.

        An update that certainly reached nobody is dropped, so that readers here need not ask the tail about it for
        ever; any other stays pending and is settled by a later operation.
        """
        if self._is_late(operation, asked):
            return
        self._attempt_failed(operation, failure)
        if operation.step is Step.PUSH:
            self._finish(operation, failure)
        elif operation.step is not Step.RESEND and not operation.uncertain:
            operation.asked = None
            operation.step = Step.ABANDON
            operation.failure = failure
            self._out.append(operation)
        else:
            self._finish(operation, _maybe_applied(failure))

    def committed(self, operation: Operation) -> None:
        """The store's committed version is now `version` (CONFIRM: `leftover`)."""
        self._expect(operation, Step.COMMIT, Step.CONFIRM)
        self._settled(operation.chunk)
        if operation.step is Step.COMMIT:
            if operation.digest:
                if len(self._digests) >= _DIGESTS_MAX:
                    self._digests.clear()
                self._digests[operation.chunk] = (operation.version, operation.digest)
            self._finish(operation, None)
            return
        self._judge_next(operation.chunk, self._queues[operation.chunk])

    def commit_failed(self, operation: Operation, failure: Failure) -> None:
        """The store could not commit. The version stays pending here though the chain has it."""
        self._expect(operation, Step.COMMIT, Step.CONFIRM)
        self._finish(operation, _maybe_applied(failure))

    def abandoned(self, operation: Operation) -> None:
        """The store has durably forgotten the pending version and the answer that went with it."""
        self._expect(operation, Step.ABANDON)
        self._settled(operation.chunk)
        self._finish(operation, operation.failure)

    def abandon_failed(self, operation: Operation, failure: Failure) -> None:
        """The pending version stays, and with it the promise "not applied" is void."""
        self._expect(operation, Step.ABANDON)
        self._finish(operation, _maybe_applied(failure))

    def forgotten(self, operation: Operation) -> None:
        """The store knows nothing of the chunk any more."""
        self._expect(operation, Step.FORGET)
        self._settled(operation.chunk)
        self._digests.pop(operation.chunk, None)
        if operation.kind is UpdateKind.FORGET:
            self._finish(operation, None)
        else:
            self._prepare(operation)
            self._out.append(operation)

    def forget_failed(self, operation: Operation, failure: Failure) -> None:
        """Nobody knows what the store has of the chunk."""
        self._expect(operation, Step.FORGET)
        self._finish(operation, _maybe_applied(failure))

    def expect_settled(self) -> None:
        """What is pending now, or on its way into the store, is `owed`."""
        self.owed = {
            chunk
            for chunk in self.unsettled
            if chunk in self._queues or ((state := self._view.state(chunk)) is not None and state.pending_version)
        }

    # -- instructions ------------------------------------------------------------------------------------------

    def take(self) -> list[Operation]:
        """Operations whose step is new since the last call, in order."""
        out = self._out
        self._out = []
        return out

    def take_reports(self) -> list[str]:
        """Chunks that were found to differ since the last call: one line for each."""
        reports = self._reports
        self._reports = []
        return reports

    @property
    def busy_chunks(self) -> int:
        return len(self._queues)

    def holds(self, chunk: bytes) -> bool:
        """Whether an operation is under way on `chunk`."""
        return chunk in self._queues

    def operations(self) -> list[Operation]:
        """All that are not done."""
        return [operation for queue in self._queues.values() for operation in queue]

    def in_steps(self, steps: Sequence[Step]) -> list[Operation]:
        """The operations that hold their chunk and are at one of `steps`."""
        return [queue[0] for queue in self._queues.values() if queue[0].step in steps]

    # -- judgement ---------------------------------------------------------------------------------------------

    def _judge_next(self, chunk: bytes, queue: deque[Operation]) -> None:
        """Give the chunk to the first operation that needs it; those that need nothing are done on the way."""
        while queue:
            operation = queue[0]
            self._judge(operation)
            self._out.append(operation)
            if operation.step is not Step.DONE:
                return
            queue.popleft()
        del self._queues[chunk]

    def _judge(self, operation: Operation) -> None:
        """An operation's turn, or its turn again after a leftover was settled."""
        position = self.position
        if position is None:
            self._done(operation, Failure(Code.NOT_SERVING, "the target has no valid lease or is not in the chain"))
        elif isinstance(operation.kind, Duty):
            if operation.kind is Duty.PUSH:
                self._judge_push(operation, position)
            else:
                self._judge_duty(operation, position)
        elif operation.chain_version != position.version:
            self._done(operation, _wrong_version(operation, position))
        elif operation.source == 0:
            self._judge_as_head(operation, position)
        else:
            self._judge_as_successor(operation, position)

    def _judge_duty(self, operation: Operation, position: Position) -> None:
        state = self._view.state(operation.chunk)
        if state is None or not state.pending_version or position.syncing:
            self._done(operation, None)
        elif operation.kind is Duty.CONFIRM:
            if operation.chain_version != position.version or position.is_tail:
                self._done(operation, None)  # what another tail has said
            elif state.pending_version > operation.version:
                if self._removal_is_forgotten(operation, position):
                    self._confirm(operation, state)
                else:
                    self._done(operation, None)
            elif (
                state.pending_version == operation.version
                and self._view.digest(operation.chunk, pending=True) == operation.digest
            ):
                self._confirm(operation, state)
            else:
                # Whatever the tail had committed when it was asked was here before (prefix order).
                same = state.pending_version == operation.version
                message = (
                    f"{self._name()} has version {state.pending_version} of chunk {operation.chunk.hex()} pending, the"
                    f" tail, target {position.tail.target}, has committed"
                    f" {'another one under that number' if same else operation.version}"
                )
                self._report(operation.chunk, message)
                self._done(operation, Failure(Code.REPLICAS_DIFFER, message))
        elif position.is_tail or position.is_head:
            self._settle(operation, state, position)
        else:
            self._done(operation, None)  # in the middle only the predecessor or the tail can tell

    def _judge_push(self, operation: Operation, position: Position) -> None:
        if not position.fills or operation.chain_version != position.version:
            self._done(
                operation,
                Failure(Code.CHAIN_VERSION, f"target {position.target} fills nobody at version {position.version}"),
            )
            return
        state = self._view.state(operation.chunk)
        if state is not None and state.pending_version:
            self._settle(operation, state, position)
            return
        operation.version = state.version if state is not None else 0
        operation.length = state.length if state is not None else 0
        operation.step = Step.PUSH
        operation.asked = position

    def _removal_is_forgotten(self, operation: Operation, position: Position) -> bool:
        """The tail has nothing, the predecessor has nothing pending any more, and what is pending here is the removal
        that was pending when they were asked.

        The predecessor had it first, and is past it: it was committed, and the tail has forgotten it. Nobody may come
        with this version again, as the head may have forgotten it as well. A tail that never had the removal looks the
        same, but then the predecessor has it pending, and sends it again. `base` is of nothing where that is so. The
        head itself sends what it has pending.
        """
        if operation.version or operation.base == NOTHING_DIGEST or position.is_head:
            return False
        left = self._view.pending_update(operation.chunk)
        return left is not None and left.removed and self._view.digest(operation.chunk, pending=True) == operation.base

    def _judge_as_head(self, operation: Operation, position: Position) -> None:
        if not position.is_head:
            self._done(
                operation, Failure(Code.NOT_HEAD, f"target {position.target} is not the head of chain {position.chain}")
            )
            return
        if operation.identity != NO_IDENTITY:
            answer = self._view.answer(operation.client, operation.channel)
            if answer is not None and answer.sequence >= operation.sequence and self._is_known(operation, answer):
                return
        state = self._view.state(operation.chunk)
        if state is not None and state.pending_version:
            self._settle(operation, state, position)
            return
        if operation.kind is UpdateKind.REMOVE and operation.identity == NO_IDENTITY and missing(state):
            # Only without an identity: a client's removal of nothing makes a version too, or a duplicate of it that
            # arrives after its answer would remove what was written since.
            operation.version = state.version if state is not None else 0
            operation.length = 0
            self._done(operation, None)
            return
        version = state.version if state is not None else 0
        if missing(state):
            # This replica may have forgotten a removal that others remember: their versions of it are passed.
            operation.version = max(version, self._view.floor) + 1
            operation.base = NOTHING_DIGEST
        else:
            operation.version = version + 1
            operation.base = NOTHING_DIGEST if position.is_last else self._digest(operation.chunk, version)
        self._prepare(operation)

    def _is_known(self, operation: Operation, answer: "Answer") -> bool:
        """The channel's last answer, of that sequence or a later one, decides: it was applied, or is too late."""
        channel = operation.channel
        if answer.sequence > operation.sequence:
            message = f"channel {channel} is at sequence {answer.sequence}, past {operation.sequence}"
            self._done(operation, Failure(Code.UPDATE_STALE, message))
        elif answer.chunk != operation.chunk:
            message = f"channel {channel} used sequence {answer.sequence} for another chunk"
            self._done(operation, Failure(Code.INVALID, message))
        elif answer.committed:
            operation.version = answer.version
            operation.length = answer.length
            self._done(operation, None)
        else:
            return False
        return True

    def _judge_as_successor(self, operation: Operation, position: Position) -> None:
        predecessor = position.predecessor
        if predecessor is None or predecessor.target != operation.source:
            self._done(
                operation,
                Failure(
                    Code.CHAIN_VERSION,
                    f"target {operation.source} does not precede target {position.target} on chain {position.chain}",
                ),
            )
            return
        chunk = operation.chunk
        state = self._view.state(chunk)
        if position.syncing:
            verdict = as_syncing(operation, state, self._view, position.version)
        else:
            digest = self._digest(chunk, state.version) if state is not None and state.version else NOTHING_DIGEST
            verdict = as_successor(operation, state, digest, self._view)
        match verdict:
            case Take.PREPARE:
                self._prepare(operation)
            case Take.DONE:
                operation.length = state.length if state is not None else 0
                self._done(operation, None)
            case Take.SETTLE:
                assert state is not None
                self._settle(operation, state, position)
            case Take.CONFIRM:
                assert state is not None
                if position.fills:
                    self._settle(operation, state, position)
                else:
                    self._confirm(operation, state)
            case Take.OVER:
                operation.step = Step.FORGET
                self.unsettled.add(chunk)  # as for PREPARE
            case Take.NEEDS_WHOLE:
                message = f"{self._name()} has not what version {operation.version} of chunk {chunk.hex()} was made of"
                self._done(operation, Failure(Code.NEEDS_WHOLE, message))
            case Take.DIFFERS:
                self._differs(operation, state)

    # -- moves -------------------------------------------------------------------------------------------------

    def _prepare(self, operation: Operation) -> None:
        operation.step = Step.PREPARE
        operation.uncertain = False
        # From here on a reader of this chunk asks the tail: the store may show the pending version at any moment.
        self.unsettled.add(operation.chunk)

    def _forward(self, operation: Operation) -> None:
        """The update is pending here: what it waits for, as things are now."""
        position = self.position
        chain_version = operation.chain_version
        if position is not None and _may_commit(position, chain_version):
            operation.step = Step.COMMIT
            return
        if not operation.source:
            if not operation.digest:
                operation.digest = self._view.digest(operation.chunk, pending=True)
            if position is None or position.version != chain_version:
                # When it was judged there was, perhaps, nobody to tell what it changes.
                state = self._view.state(operation.chunk)
                nothing = state is None or missing(state)
                operation.base = NOTHING_DIGEST if nothing else self._view.digest(operation.chunk)
        operation.step = Step.FORWARD
        operation.asked = position

    def _redirect(self, operation: Operation) -> None:
        """Who was asked is not the successor of now: what is sent may have been applied, and nobody waits for it."""
        position = self.position
        if operation.asked is not None:
            operation.uncertain = True
            operation.asked = None
        if position is None or _is_of_before(operation, position):
            self._finish(operation, Failure(Code.CHAIN_BROKEN, _GOES_ON))
            return
        if operation.kind is Duty.PUSH:
            self._finish(
                operation, Failure(Code.CHAIN_VERSION, f"chain {position.chain} is at version {position.version}")
            )
            return
        if operation.step is Step.RESEND:
            state = self._view.state(operation.chunk)
            if state is None or not state.pending_version:
                violated("a leftover stays pending while it is sent", operation)
            self._settle(operation, state, position)
        else:
            self._forward(operation)
        self._out.append(operation)

    def _is_late(self, operation: Operation, asked: Position | None) -> bool:
        """An outcome that counts no more: who was `asked` is not who is waited for."""
        if operation.asked is not asked:
            return True
        # Nobody was asked without a place, and nobody is while it commits: the step tells these apart.
        if operation.step not in SENDING:
            if operation.step in (Step.QUEUED, Step.PREPARE):
                violated("an outcome is of what was sent", operation)
            return True
        if asked is self.position or asked is None or asked == self.position:
            return False
        self._redirect(operation)
        return True

    def _attempt_failed(self, operation: Operation, failure: Failure) -> None:
        if failure.code.value.retry is Retry.MAYBE_APPLIED:
            operation.uncertain = True
            if failure.code is Code.REPLICAS_DIFFER:
                self._report(operation.chunk, failure.message)

    def _settle(self, operation: Operation, state: "ChunkState", position: Position) -> None:
        """Something is pending: who has to have it gets it, before it is committed here."""
        if _may_commit(position, state.chain_version):
            self._confirm(operation, state)
        else:
            self._resend(operation, state)

    def _resend(self, operation: Operation, state: "ChunkState") -> None:
        operation.leftover = state.pending_version
        operation.leftover_length = state.pending_length
        operation.step = Step.RESEND
        operation.asked = self.position

    def _confirm(self, operation: Operation, state: "ChunkState") -> None:
        operation.leftover = state.pending_version
        operation.leftover_length = state.pending_length
        operation.step = Step.CONFIRM

    def _done(self, operation: Operation, failure: Failure | None) -> None:
        operation.failure = failure
        operation.step = Step.DONE

    def _finish(self, operation: Operation, failure: Failure | None) -> None:
        """The operation that holds its chunk is done; the next is judged."""
        self._done(operation, failure)
        queue = self._queues[operation.chunk]
        queue.popleft()
        self._out.append(operation)
        if queue:
            self._judge_next(operation.chunk, queue)
        else:
            del self._queues[operation.chunk]

    def _differs(self, operation: Operation, state: "ChunkState | None") -> None:
        """What the predecessor sends does not follow from what is here."""
        committed, pending = (state.version, state.pending_version) if state is not None else (0, 0)
        here = (
            f"committed version {committed}" + (f", {pending} pending" if pending else "")
            if committed
            else (f"only version {pending}, pending" if pending else "nothing")
        )
        self._done(
            operation,
            Failure(
                Code.REPLICAS_DIFFER,
                f"version {operation.version} of chunk {operation.chunk.hex()} at target {operation.source} does not"
                f" go with what {self._name()} has: {here}",
            ),
        )

    def _answered_otherwise(
        self, operation: Operation, version: int, length: int, its_version: int, its_length: int
    ) -> None:
        message = (
            f"replicas of chunk {operation.chunk.hex()} differ: version {version} of {length} bytes at {self._name()},"
            f" version {its_version} of {its_length} bytes at its successor"
        )
        self._report(operation.chunk, message)
        self._finish(operation, Failure(Code.REPLICAS_DIFFER, message))

    def _report(self, chunk: bytes, message: str) -> None:
        if chunk in self.unsettled and chunk not in self.differing:
            self.differing[chunk] = message
            self._reports.append(message)

    def _settled(self, chunk: bytes) -> None:
        """Nothing is pending any more."""
        self.unsettled.discard(chunk)
        if self.owed:
            self.owed.discard(chunk)
        if self.differing:
            self.differing.pop(chunk, None)

    def _name(self) -> str:
        return f"target {self.position.target}" if self.position is not None else "a target that does not serve"

    def _digest(self, chunk: bytes, committed: int) -> int:
        """Of the committed version, which has that number."""
        version, digest = self._digests.get(chunk, (0, 0))
        return digest if version == committed else self._view.digest(chunk)

    def changed_beside(self) -> None:
        """The store was changed by others than this replica's operations, of which none is under way."""
        self._digests.clear()

    def _expect(self, operation: Operation, *steps: Step) -> None:
        if operation.step not in steps:
            violated("an event fits the operation's step", operation, steps)
        queue = self._queues.get(operation.chunk)
        if queue is None or queue[0] is not operation:
            violated("the operation holds its chunk", operation)


def _maybe_applied(failure: Failure) -> Failure:
    """The same failure, said so that the sender does not conclude "not applied"."""
    if failure.code.value.retry is Retry.MAYBE_APPLIED:
        return failure
    return Failure(Code.CHAIN_BROKEN, f"{failure.message} [{failure.code.name}]")


def _is_of_before(operation: Operation, position: Position) -> bool:
    """A replica that syncs is the last one, but not because everybody has what it began as one that served: the chain
    went on without it, and without that update, perhaps. Nobody is told that it is stored."""
    return position.syncing and operation.chain_version != position.version


def _may_commit(position: Position, chain_version: int) -> bool:
    """Whether what was prepared under `chain_version` waits for nobody."""
    return position.successor is None or (chain_version < position.version and position.is_tail)


def _wrong_version(operation: Operation, position: Position) -> Failure:
    return Failure(
        Code.CHAIN_VERSION,
        f"chain {position.chain} is at version {position.version}, the request at {operation.chain_version}",
    )
