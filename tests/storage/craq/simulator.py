"""Three replicas, a bad network, restarting processes and retrying clients, from one seed.

Everything that takes time (a disk write, a message, a restart) is an entry of one schedule with a random delay, so
one seed is one interleaving. The network loses, delays and reorders; it also duplicates what clients send. What one
replica sends another arrives at most once per attempt, maybe long after the sender gave up on it: that is what TCP
connections that are lost and remade do. A restarted process finds on its disk what it had been told is durable, and
by chance what was under way.

The simulator is the shell of the real core (`fs_storage.craq`): it runs instructions and knows no protocol.
"""

import heapq
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field, replace
from itertools import pairwise
from random import Random

from fs_common.errors import Code, Retry
from fs_common.records.routing import Chain, ChainTarget, PublicState
from fs_common.records.storage import UpdateKind
from fs_storage.craq.apportion import Serve, Told, serve
from fs_storage.craq.operation import Duty, Failure, Operation, Step
from fs_storage.craq.position import Position, position_of
from fs_storage.craq.replica import Replica
from fs_storage.engine.digest import NOTHING_DIGEST
from tests.storage.craq.linearizable import FOREVER, Event, TooHard, linearizable
from tests.storage.craq.model_store import Chunk, Content, ModelStore

CHAIN_VERSION = 1
LATE_MAX = 30.0
"""Where removals are forgotten, no message is later than this."""


@dataclass(frozen=True)
class Plan:
    """How bad this run is. Probabilities per occasion; times in units of one message delay."""

    replicas: int = 3
    clients: int = 3
    steps: int = 5
    chunks: int = 2
    loss: float = 0.05
    duplication: float = 0.05
    no_space: float = 0.0
    crashes: int = 2
    attempts: int = 3
    """Of a replica to forward, and of a client."""
    forgets: int = 0
    """Removals that a replica forgets, each when it likes."""
    cuts: int = 0
    """Of the power of one machine, or of several (`power`)."""
    many: bool = False
    """More than one may have lost its power, or not be whole yet."""
    memory: bool = False
    """What is stored is durable some time later only."""
    losses: int = 0
    """Replicas that forget, unnoticed, some or all of what they have told others is durable."""


def plan_of(random: Random) -> Plan:
    """Quiet runs and terrible ones."""
    return Plan(
        replicas=random.choice((1, 2, 3, 3, 3)),
        clients=random.choice((1, 2, 3, 4)),
        steps=random.choice((3, 5, 7)),
        chunks=random.choice((1, 1, 2)),
        loss=random.choice((0.0, 0.05, 0.2)),
        duplication=random.choice((0.0, 0.1, 0.3)),
        no_space=random.choice((0.0, 0.0, 0.1)),
        crashes=random.choice((0, 0, 1, 3, 5)),
        forgets=random.choice((0, 0, 10)),
    )


def plan_of_losses(random: Random) -> Plan:
    """Runs in which replicas lose what they have."""
    return replace(plan_of(random), replicas=random.choice((2, 3)), chunks=1, losses=random.choice((1, 1, 2)))


class Violation(AssertionError):
    """A promise of the protocol is broken."""


@dataclass
class Work:
    """What an operation means in the model, and who waits for it."""

    kind: UpdateKind
    argument: object
    reply: Callable[[Operation], None]


@dataclass
class Message:
    """An update from a replica to its successor."""

    chunk: bytes
    version: int
    kind: UpdateKind
    argument: object
    identity: tuple[bytes, int, int]
    source: int
    digest: int
    base: int


@dataclass(eq=False)
class Node:
    target: int
    position: Position
    store: ModelStore = field(default_factory=ModelStore)
    replica: Replica | None = None
    """None while the process is down."""
    ready: bool = False
    """A tail serves once it has committed what it found pending."""
    life: int = 0
    under_way: dict[int, Operation] = field(default_factory=dict)
    """Disk work of this life that has not ended."""
    away_until: float = 0.0
    """Its machine is without power until then."""
    copy: ModelStore = field(default_factory=ModelStore)
    """The store as it was some time ago."""


class Simulation:
    """One run. `run()` raises `Violation` (or what an invariant of the core raises)."""

    replica_class: type[Replica] = Replica
    words_are_of_now = True
    """What the tail has said is dropped if the chunk is held then."""

    def __init__(self, seed: int, plan: Plan | None = None) -> None:
        self.random = Random(seed)
        self.plan = plan if plan is not None else plan_of(self.random)
        self.now = 0.0
        self.healed = False
        self._schedule: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        chain = Chain(
            1, CHAIN_VERSION, [ChainTarget(101 + n, 1 + n, PublicState.SERVING) for n in range(self.plan.replicas)]
        )
        self.nodes: list[Node] = []
        for member in chain.targets:
            position = position_of(chain, member.target)
            assert position is not None
            self.nodes.append(Node(member.target, position))
        self.chunks = [b"chunk-%06d" % n for n in range(self.plan.chunks)]
        self.history: dict[bytes, list[Event]] = {chunk: [] for chunk in self.chunks}
        self.statistics = {"acknowledged": 0, "failed": 0, "reads": 0, "abandoned": 0, "resent": 0, "undecided": 0}
        if self.plan.losses:
            self.statistics |= {"lost": 0, "differing": 0, "acknowledged_after_loss": 0}
        self._clients_left = self.plan.clients
        self.lost_at = FOREVER if self.plan.losses else 0.0
        """When a replica last lost something. What began before may be lost with it."""
        self._loser = self.random.randrange(self.plan.replicas) if self.plan.losses else 0

    # -- running -------------------------------------------------------------------------------------------------

    def run(self) -> None:
        for node in self.nodes:
            self.start(node)
        for number in range(self.plan.clients):
            Client(self, number).next_step()
        for _ in range(self.plan.crashes):
            self.after(self.random.uniform(0, 25 * self.plan.steps), self.crash_one)
        for _ in range(3):
            self.after(self.random.uniform(0, 25 * self.plan.steps), self.settle_one)
        for _ in range(self.plan.forgets):
            self.after(self.random.uniform(LATE_MAX, 25 * self.plan.steps), self.forget_one)
        for _ in range(self.plan.losses):
            self.after(self.random.uniform(0, 15 * self.plan.steps), self.copy_one)
            self.after(self.random.uniform(0, 15 * self.plan.steps), self.lose_one)
        self._drain(lambda: self._clients_left == 0)
        if self.plan.losses:
            return
        self._heal()
        self._check_end()

    def after(self, delay: float, action: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._schedule, (self.now + delay, self._count, action))

    def delay(self) -> float:
        """Mostly short, sometimes very long: a message that waits in a dead connection."""
        random = self.random
        late = random.expovariate(1.0) * (20.0 if not self.healed and random.random() < 0.05 else 1.0)
        return min(late, LATE_MAX) if self.plan.forgets or self.plan.cuts else late

    def lost(self) -> bool:
        return not self.healed and self.random.random() < self.plan.loss

    def _drain(self, enough: Callable[[], bool]) -> None:
        while self._schedule and not enough():
            self.now, _, action = heapq.heappop(self._schedule)
            action()
            self.check_prefix_order()

    # -- processes -----------------------------------------------------------------------------------------------

    def start(self, node: Node) -> None:
        if node.replica is not None:
            return
        node.life += 1
        node.replica = self.replica_class(node.store, set(node.store.pending()))
        node.replica.position = node.position
        node.ready = not node.position.is_tail
        self.settle(node)

    def settle(self, node: Node) -> None:
        """What a process does in the background with versions that are pending: at its start, and now and then.

        A head asks the tail first or sends them again at once; both have to be right.
        """
        left = node.store.pending()
        if node.position.is_tail:
            waiting = len(left)
            if not waiting:
                node.ready = True

            def settled(operation: Operation) -> None:
                nonlocal waiting
                waiting -= 1
                if waiting == 0:
                    node.ready = True

            for chunk in left:
                self.submit(node, Operation(chunk, Duty.SETTLE, chain_version=CHAIN_VERSION), None, settled)
            return
        for chunk in left:
            if node.position.is_head and (self.healed or self.random.random() < 0.5):
                self.submit(node, Operation(chunk, Duty.SETTLE, chain_version=CHAIN_VERSION), None, ignore)
            else:
                self._confirm_by_tail(node, chunk)

    def _confirm_by_tail(self, node: Node, chunk: bytes) -> None:
        life = node.life
        asked = node.store.digest(chunk, pending=True)

        def heard(told: Told) -> None:
            if told.version or node.position.is_head:
                confirm(told, asked)
            else:
                self.ask_pending_before(node, chunk, lambda left: confirm(told, NOTHING_DIGEST if left else asked))

        def confirm(told: Told, asked: int) -> None:
            if (
                node.life == life
                and node.replica is not None
                and not (self.words_are_of_now and node.replica.holds(chunk))
            ):
                duty = Operation(
                    chunk,
                    Duty.CONFIRM,
                    chain_version=CHAIN_VERSION,
                    version=told.version,
                    digest=told.digest,
                    base=asked,
                )
                self.submit(node, duty, None, ignore)

        self.ask_tail(chunk, heard, lambda: None)

    def forget_one(self) -> None:
        """A replica that runs forgets removals that no copy of an update on its way can precede."""
        node = self.random.choice(self.nodes)
        if node.replica is None:
            return
        for chunk in self.chunks:
            found = node.store.chunks.get(chunk)
            if found is not None and self.now > found.committed_at + LATE_MAX:
                self.forget(node, chunk)

    def forget(self, node: Node, chunk: bytes) -> None:
        node.store.forget_removal(chunk)

    def settle_one(self) -> None:
        node = self.random.choice(self.nodes)
        if node.replica is not None and node.ready:
            self.settle(node)

    def crash_one(self) -> None:
        if self.healed:
            return
        self.crash(self.random.choice(self.nodes))

    def crash(self, node: Node) -> None:
        if node.replica is None:
            return
        node.life += 1
        node.replica = None
        node.ready = False
        for operation in node.under_way.values():
            if self.random.random() < 0.5:
                self._reach_disk(node, operation)
        node.under_way.clear()
        for chunk in self.chunks:
            if chunk in node.store.chunks and self.random.random() < 0.5:
                node.store.lose_last_commit(chunk)
        self.after(self.random.expovariate(0.1), lambda: self.start(node))

    def copy_one(self) -> None:
        node = self.random.choice(self.nodes)
        node.copy = deepcopy(node.store)

    def lose_one(self) -> None:
        """A replica comes back without some or all of what it had: an old copy, an empty disk, a log cut short.

        Always the same one: what another then says of it proves nothing once both have lost something.
        """
        node = self.nodes[self._loser]
        if node.replica is None:
            return
        self.crash(node)
        self.lost_at = self.now
        self.statistics["lost"] += 1
        kind = self.random.choice(("everything", "everything since", "some since"))
        if kind == "everything":
            node.store = ModelStore()
        elif kind == "everything since":
            node.store = deepcopy(node.copy)
        else:
            for chunk in list(node.store.chunks):
                if self.random.random() < 0.5:
                    node.store.chunks[chunk] = deepcopy(node.copy.chunks.get(chunk, Chunk()))
            node.store.answers = deepcopy(node.copy.answers)
            node.store.versions = deepcopy(node.copy.versions)
            for chunk, found in node.store.chunks.items():
                node.store.versions[chunk, found.version] = found.content

    def check_acknowledged(self, operation: Operation) -> None:
        """An update that began after the last loss is acknowledged: every replica has it, and nothing else.

        A removal may have ended in the middle where the tail has nothing.
        """
        self.statistics["acknowledged_after_loss"] += 1
        made = self.nodes[0].store.versions[operation.chunk, operation.version]
        for node in self.nodes:
            there = node.store.versions.get((operation.chunk, operation.version), "nothing")
            if made is None and node.store.newest(operation.chunk)[1] is None:
                continue
            if there != made:
                raise Violation(
                    f"version {operation.version} is acknowledged: {made} at the head, {there} at target {node.target}"
                )

    # -- the shell of the core -------------------------------------------------------------------------------------

    def submit(self, node: Node, operation: Operation, work: Work | None, reply: Callable[[Operation], None]) -> None:
        assert node.replica is not None
        operation.request = work if work is not None else Work(UpdateKind.WRITE, "", reply)
        node.replica.submit(operation)
        self.execute(node)

    def execute(self, node: Node) -> None:
        replica = node.replica
        assert replica is not None
        for operation in replica.take():
            match operation.step:
                case Step.PREPARE | Step.COMMIT | Step.CONFIRM | Step.ABANDON:
                    self._to_disk(node, operation)
                case Step.FORWARD | Step.RESEND:
                    self._forward(node, operation, attempt=1)
                case Step.DONE:
                    operation.request.reply(operation)
                case Step.QUEUED:
                    raise Violation(f"an operation that waits is an instruction: {operation}")

    def _to_disk(self, node: Node, operation: Operation) -> None:
        life = node.life
        self._count += 1
        number = self._count
        node.under_way[number] = operation

        def done() -> None:
            if node.life != life:
                return
            replica = node.replica
            assert replica is not None
            del node.under_way[number]
            match operation.step:
                case Step.PREPARE:
                    if not self.healed and self.random.random() < self.plan.no_space:
                        replica.prepare_refused(operation, Failure(Code.NO_SPACE, "full"))
                    else:
                        replica.prepared(operation, self._reach_disk(node, operation))
                case Step.COMMIT | Step.CONFIRM:
                    self._reach_disk(node, operation)
                    replica.committed(operation)
                case Step.ABANDON:
                    self._reach_disk(node, operation)
                    self.statistics["abandoned"] += 1
                    replica.abandoned(operation)
            self.execute(node)

        self.after(self.random.expovariate(2.0), done)

    def _reach_disk(self, node: Node, operation: Operation) -> int:
        store, work = node.store, operation.request
        match operation.step:
            case Step.PREPARE:
                return store.prepare(operation.chunk, operation.version, work.kind, work.argument, operation.identity)
            case Step.COMMIT:
                store.commit(operation.chunk, operation.version)
                store.chunks[operation.chunk].committed_at = self.now
            case Step.CONFIRM:
                store.commit(operation.chunk, operation.leftover)
                store.chunks[operation.chunk].committed_at = self.now
            case Step.ABANDON:
                store.abandon(operation.chunk, operation.version)
        return 0

    def _forward(self, node: Node, operation: Operation, attempt: int) -> None:
        life, asked = node.life, operation.asked
        message = self._message(node, operation)
        successor = self.nodes[node.position.index + 1]
        answered = False

        def failed(failure: Failure) -> None:
            nonlocal answered
            if answered or node.life != life:
                return
            answered = True
            assert node.replica is not None
            if attempt < self.plan.attempts and failure.code is not Code.NO_SPACE:
                node.replica.forward_attempt_failed(operation, failure, asked)
                self.after(self.delay(), lambda: retry())
            else:
                node.replica.forward_failed(operation, failure, asked)
                self.execute(node)

        def retry() -> None:
            if node.life == life:
                self._forward(node, operation, attempt + 1)

        def answer(result: Operation) -> None:
            """The successor's reply is on its way back."""
            if result.failure is not None:
                failure = result.failure
                if not self.lost():
                    self.after(self.delay(), lambda: failed(failure))
                return
            version, length = result.version, result.length
            if not self.lost():
                self.after(self.delay(), lambda: arrived(version, length))

        def arrived(version: int, length: int) -> None:
            nonlocal answered
            if answered or node.life != life:
                return
            answered = True
            assert node.replica is not None
            node.replica.forwarded(operation, version, length, asked)
            self.execute(node)

        if successor.replica is None and self.random.random() < 0.5:
            failed(Failure(Code.UNREACHABLE, "refused"))
            return
        if not self.lost():
            self.after(self.delay(), lambda: self._deliver(successor, message, answer))
        patience = 1000.0 if self.healed else self.random.uniform(2.0, 20.0)
        self.after(patience, lambda: failed(Failure(Code.TIMED_OUT, "no answer")))

    def _message(self, node: Node, operation: Operation) -> Message:
        work: Work = operation.request
        if operation.step is Step.FORWARD:
            return Message(
                operation.chunk,
                operation.version,
                work.kind,
                work.argument,
                operation.identity,
                node.target,
                operation.digest,
                operation.base,
            )
        self.statistics["resent"] += 1
        pending = node.store.chunks[operation.chunk].pending
        if pending is None or pending.version != operation.leftover:
            raise Violation(f"nothing to resend: {operation}")
        kind = UpdateKind.REMOVE if pending.content is None else UpdateKind.REPLACE
        store, chunk = node.store, operation.chunk
        base = store.digest(chunk) if store.chunks[chunk].content is not None else 0
        digest = store.digest(chunk, pending=True)
        return Message(chunk, pending.version, kind, pending.content, pending.identity, node.target, digest, base)

    def _deliver(self, node: Node, message: Message, reply: Callable[[Operation], None]) -> None:
        if node.replica is None:
            return
        client, channel, sequence = message.identity
        length = len(message.argument) if isinstance(message.argument, tuple) else 0
        operation = Operation(
            message.chunk,
            message.kind,
            chain_version=CHAIN_VERSION,
            version=message.version,
            length=length,
            source=message.source,
            client=client,
            channel=channel,
            sequence=sequence,
            digest=message.digest,
            base=message.base,
        )
        self.submit(node, operation, Work(message.kind, message.argument, reply), reply)

    # -- reads -----------------------------------------------------------------------------------------------------

    def ask_tail(self, chunk: bytes, heard: Callable[[Told], None], failed: Callable[[], None]) -> None:
        tail = self.nodes[-1]

        def arrives() -> None:
            if tail.replica is None or not tail.ready:
                self.after(self.delay(), failed)
                return
            state = tail.store.state(chunk)
            told = Told(state.version if state is not None else 0, tail.store.digest(chunk))
            self.after(self.delay(), lambda: heard(told))

        if self.lost():
            self.after(self.delay(), failed)
        else:
            self.after(self.delay(), arrives)

    def ask_pending_before(self, node: Node, chunk: bytes, heard: Callable[[int], None]) -> None:
        before = self.nodes[self.nodes.index(node) - 1]

        def arrives() -> None:
            if before.replica is None or not before.ready:
                return
            state = before.store.state(chunk)
            left = state.pending_version if state is not None else 0
            self.after(self.delay(), lambda: heard(left))

        if not self.lost():
            self.after(self.delay(), arrives)

    def read(self, node: Node, chunk: bytes, heard: Callable[[Content], None], failed: Callable[[], None]) -> None:
        """What a replica does with a read that has just arrived."""
        if node.replica is None or not node.ready:
            failed()
            return
        if node.position.is_tail or not self.must_ask(node, chunk):
            found = node.store.chunks.get(chunk)
            heard(found.content if found is not None else None)
            return
        life = node.life
        before = node.store.state(chunk)
        committed_before = before.version if before is not None else 0

        def told(tail: Told) -> None:
            if node.life != life:
                failed()
                return
            found = node.store.chunks.get(chunk)
            store = node.store
            digests = store.digest(chunk), store.digest(chunk, pending=True)
            left = store.pending_update(chunk)
            removing = left is not None and left.removed
            match serve(committed_before, store.state(chunk), digests, tail, removing=removing):
                case Serve.COMMITTED:
                    heard(found.content if found is not None else None)
                case Serve.PENDING:
                    assert found is not None and found.pending is not None
                    heard(found.pending.content)
                case Serve.GONE:
                    heard(None)
                case Serve.BEHIND if self.plan.losses:
                    failed()
                case Serve.BEHIND:
                    raise Violation(f"target {node.target} misses version {tail.version} that the tail committed")

        self.ask_tail(chunk, told, failed)

    def must_ask(self, node: Node, chunk: bytes) -> bool:
        assert node.replica is not None
        return chunk in node.replica.unsettled

    def client_done(self) -> None:
        self._clients_left -= 1

    # -- what is promised --------------------------------------------------------------------------------------------

    def believed(self) -> list[Node]:
        """Those that hold what they were told is durable."""
        return self.nodes

    def check_prefix_order(self) -> None:
        """Whatever a replica has, its predecessor has, with the same content."""
        if self.plan.losses:
            return
        for before, after in pairwise(self.believed()):
            for chunk in self.chunks:
                newest_before, content_before = before.store.newest(chunk)
                newest_after, content_after = after.store.newest(chunk)
                if content_before is None and content_after is None:
                    continue  # removals are forgotten in any order
                if newest_after > newest_before:
                    raise Violation(f"target {after.target} has version {newest_after}, {before.target} does not")
                if newest_after == newest_before and content_before != content_after:
                    raise Violation(f"version {newest_after} differs: {content_before} and {content_after}")

    def _heal(self) -> None:
        """No more faults: everything restarts, everything pending is settled."""
        self.healed = True
        self._drain(lambda: False)
        for node in self.nodes:
            self.start(node)
        for _ in range(20):
            self._drain(lambda: False)
            if not any(node.store.pending() for node in self.nodes) and len(self.believed()) == len(self.nodes):
                return
            for node in self.nodes:
                self.settle(node)
        raise Violation(f"versions stay pending for ever: {[node.store.chunks for node in self.nodes]}")

    def _check_end(self) -> None:
        for node in self.nodes:
            assert node.replica is not None
            if node.replica.busy_chunks:
                raise Violation(f"target {node.target} still works on {node.replica.busy_chunks} chunks")
            if node.replica.unsettled:
                raise Violation(f"target {node.target} believes something is pending: {node.replica.unsettled}")
        for chunk in self.chunks:
            contents = {node.store.newest(chunk) for node in self.nodes}
            contents = {(version if content is not None else 0, content) for version, content in contents}
            if len(contents) != 1:
                raise Violation(f"replicas differ in the end: {contents}")
            ((_, content),) = contents
            if content is not None and len(set(content)) != len(content):
                raise Violation(f"an update was applied twice: {content}")
            self.history[chunk].append(Event(self.now + 1, self.now + 2, None, result=content))
            self._check_history(chunk)

    def _check_history(self, chunk: bytes) -> None:
        try:
            if linearizable(self.history[chunk]):
                return
        except TooHard:
            self.statistics["undecided"] += 1
            return
        raise Violation(f"not linearizable: {chunk!r}: {self.history[chunk]}")


def ignore(operation: Operation) -> None:
    """The reply nobody waits for."""


class Client:
    """Does one thing after another: updates under one channel, retried under the same identity, and reads."""

    def __init__(self, simulation: Simulation, number: int) -> None:
        self.simulation = simulation
        self.number = number
        self.identity = b"client-%d" % number
        self.sequence = 0
        self.steps_left = simulation.plan.steps

    def next_step(self) -> None:
        simulation = self.simulation
        if self.steps_left == 0:
            simulation.client_done()
            return
        self.steps_left -= 1
        random = simulation.random
        chunk = random.choice(simulation.chunks)
        if random.random() < 0.4:
            simulation.after(simulation.delay(), lambda: self._read(chunk))
            return
        self.sequence += 1
        kind = random.choice(
            (UpdateKind.WRITE, UpdateKind.WRITE, UpdateKind.WRITE, UpdateKind.TRUNCATE, UpdateKind.REMOVE)
        )
        argument: object = None
        if kind is UpdateKind.WRITE:
            argument = f"{self.number}.{self.sequence}"
        elif kind is UpdateKind.TRUNCATE:
            argument = random.randrange(3)
        event = Event(0.0, FOREVER, kind, argument)

        def begin() -> None:
            event.start = simulation.now
            simulation.history[chunk].append(event)
            self._update(chunk, event, self.sequence, attempt=1, maybe=False)

        simulation.after(simulation.delay(), begin)

    def _update(self, chunk: bytes, event: Event, sequence: int, *, attempt: int, maybe: bool) -> None:
        simulation = self.simulation
        answered = False

        def finished(failure: Failure | None) -> None:
            nonlocal answered
            if answered:
                return
            answered = True
            if failure is None:
                event.end = simulation.now
                simulation.statistics["acknowledged"] += 1
                self.next_step()
                return
            unknown = maybe or failure.code.value.retry is Retry.MAYBE_APPLIED
            final = failure.code.value.retry is Retry.FINAL
            if final and not maybe and failure.code is Code.UPDATE_STALE:
                raise Violation(f"an update that was sent once is stale: {failure}")
            if final or attempt == simulation.plan.attempts:
                simulation.statistics["failed"] += 1
                if not unknown:
                    simulation.history[chunk].remove(event)
                self.next_step()
                return
            again = attempt + 1
            simulation.after(
                simulation.delay(),
                lambda: self._update(chunk, event, sequence, attempt=again, maybe=unknown),
            )

        def reply(operation: Operation) -> None:
            failure = operation.failure
            if simulation.plan.losses:
                if failure is None and event.start > simulation.lost_at:
                    simulation.check_acknowledged(operation)
                elif failure is not None and failure.code is Code.REPLICAS_DIFFER:
                    simulation.statistics["differing"] += 1
            if not simulation.lost():
                simulation.after(simulation.delay(), lambda: finished(failure))

        def arrives() -> None:
            head = simulation.nodes[0]
            if head.replica is None:
                return
            operation = Operation(
                chunk,
                event.kind,  # type: ignore[arg-type]
                chain_version=CHAIN_VERSION,
                client=self.identity,
                channel=1,
                sequence=sequence,
            )
            work = Work(event.kind, event.argument, reply)  # type: ignore[arg-type]
            simulation.submit(head, operation, work, reply)

        copies = 2 if not simulation.healed and simulation.random.random() < simulation.plan.duplication else 1
        # A refusal promises that this copy was not applied; it cannot speak for a copy that is still on its way.
        maybe = maybe or copies > 1
        for _ in range(copies):
            if not simulation.lost():
                simulation.after(simulation.delay(), arrives)
        patience = simulation.random.uniform(5.0, 60.0)
        simulation.after(patience, lambda: finished(Failure(Code.TIMED_OUT, "no answer")))

    def _read(self, chunk: bytes) -> None:
        simulation = self.simulation
        node = simulation.random.choice(simulation.nodes)
        event = Event(simulation.now, FOREVER, None)

        def heard(content: Content) -> None:
            event.result = content

            def arrives() -> None:
                event.end = simulation.now
                simulation.history[chunk].append(event)
                simulation.statistics["reads"] += 1
                self.next_step()

            simulation.after(simulation.delay(), arrives)

        def failed() -> None:
            simulation.after(simulation.delay(), self.next_step)

        simulation.after(simulation.delay(), lambda: simulation.read(node, chunk, heard, failed))
