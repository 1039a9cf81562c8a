"""The simulator's machines lose their power: what was not durable is gone, and the replicas mend each other.

All machines of the chain lose it at once: where a replica is left that has lost nothing, the chain goes on with that
one (`tests/sim`). A machine comes back with a prefix of what its store did: at least up to the last update that was
made durable; some come back with all of it, and do not know that. No target is whole then. Each asks the others what
they have, takes what the real plan (`fs_storage.craq.mend`) says, pulling from what the others have at that moment,
and takes part again when all are mended: nobody goes on mending beside one that takes part.

Machines are away for longer than any message is late: what they sent before dies with their connections.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from random import Random

from fs_common.records.storage import UpdateKind
from fs_storage.craq.mend import Commit, Conflict, Drop, Other, Pull, Remove, Step, plan
from fs_storage.craq.operation import Operation
from fs_storage.craq.operation import Step as OperationStep
from fs_storage.engine.interface import Held
from tests.storage.craq.model_store import Chunk, ModelStore, Pending
from tests.storage.craq.simulator import LATE_MAX, Node, Plan, Simulation, Violation, plan_of

TRAIL_MAX = 40

Decide = Callable[[Held, list[Other]], list[Step]]


def plan_of_cuts(random: Random) -> Plan:
    made = plan_of(random)
    return replace(
        made,
        replicas=random.choice((2, 3, 3)),
        steps=random.choice((5, 9)),
        crashes=random.choice((0, 0, 2)),
        cuts=random.choice((1, 2, 4)),
        many=random.random() < 0.5,
        memory=random.random() < 0.5,
    )


def held(store: ModelStore, chunk: bytes) -> Held:
    found = store.chunks.get(chunk)
    if found is None:
        return Held(chunk)
    pending = found.pending
    return Held(
        chunk,
        found.version,
        store.digest(chunk),
        removed=found.version > 0 and found.content is None,
        pending_version=pending.version if pending is not None else 0,
        pending_digest=store.digest(chunk, pending=True),
        pending_removed=pending is not None and pending.content is None,
    )


class PowerSimulation(Simulation):
    decide: Decide = staticmethod(plan)  # type: ignore[assignment]
    takes_answers = True

    def __init__(self, seed: int, plan: Plan | None = None) -> None:
        super().__init__(seed, plan if plan is not None else plan_of_cuts(Random(seed)))
        self.broken: set[int] = set()
        """Targets that are not whole."""
        self._trails: dict[int, list[tuple[float, ModelStore]]] = {
            node.target: [(0.0, ModelStore())] for node in self.nodes
        }
        """Of each, what a power cut may leave: the last state that is durable, then those since, and when they were."""
        self.statistics |= {"cut": 0, "pulled": 0, "removed": 0, "mended": 0}

    def run(self) -> None:
        for _ in range(self.plan.cuts):
            self.after(self.random.uniform(0, 25 * self.plan.steps), self.cut)
        super().run()

    def believed(self) -> list[Node]:
        return [node for node in self.nodes if node.target not in self.broken]

    # -- power -------------------------------------------------------------------------------------------------

    def _reach_disk(self, node: Node, operation: Operation) -> int:
        length = super()._reach_disk(node, operation)
        # An update is abandoned durably, or its number could not be given away.
        durable = operation.step is OperationStep.ABANDON
        self._note(node, durable=durable or (not self.plan.memory and operation.step is OperationStep.PREPARE))
        return length

    def _note(self, node: Node, *, durable: bool = False) -> None:
        trail = self._trails[node.target]
        if durable:
            trail.clear()
        trail.append((self.now, deepcopy(node.store)))
        if len(trail) > TRAIL_MAX:
            trail.pop(0)
        self._write_index(trail)

    def _write_index(self, trail: list[tuple[float, ModelStore]]) -> None:
        """Stores make all durable now and then, long before they forget a removal."""
        while len(trail) > 1 and trail[1][0] < self.now - LATE_MAX:
            trail.pop(0)

    def crash(self, node: Node) -> None:
        super().crash(node)
        self._note(node)

    def forget(self, node: Node, chunk: bytes) -> None:
        if self.broken:
            return
        super().forget(node, chunk)
        # A store forgets when it writes its index, and with it everything before.
        self._note(node, durable=True)

    def cut(self) -> None:
        if self.healed or (self.broken and not self.plan.many):
            return
        count = self.random.randint(1, len(self.nodes)) if self.plan.many else 1
        lose = self.random.sample(self.nodes, count)
        for node in self.nodes:
            self.statistics["cut"] += 1
            if node.replica is not None:
                self.crash(node)
            self.broken.add(node.target)
            node.life += 1
            node.away_until = self.now + LATE_MAX
            trail = self._trails[node.target]
            self._write_index(trail)
            node.store = deepcopy((self.random.choice(trail) if node in lose else trail[-1])[1])
            trail[:] = [(self.now, deepcopy(node.store))]

    # -- mending -----------------------------------------------------------------------------------------------

    def start(self, node: Node) -> None:
        if not self.broken:
            super().start(node)
            return
        if node.replica is not None:
            return
        if self.now < node.away_until:
            self.after(node.away_until - self.now, lambda: self.start(node))
            return
        node.life += 1
        node.replica = self.replica_class(node.store, set(node.store.pending()))
        if node.target in self.broken:
            self.mend(node)

    def settle(self, node: Node) -> None:
        if not self.broken:
            super().settle(node)

    def mend(self, node: Node) -> None:
        life = node.life
        others = [other for other in self.nodes if other is not node]
        heard: dict[int, dict[bytes, Held]] = {}

        def again() -> None:
            if node.life == life:
                self.mend(node)

        def ask(other: Node) -> None:
            if node.life != life:
                return
            if other.replica is None or self.lost():
                self.after(5.0 + self.delay(), again)
                return
            lists = {chunk: held(other.store, chunk) for chunk in self.chunks}
            self.after(self.delay(), lambda: answer(other, lists))

        def answer(other: Node, lists: dict[bytes, Held]) -> None:
            if node.life != life:
                return
            heard[other.target] = lists
            if len(heard) == len(others):
                self._take(node, others, heard, again)
            else:
                self.after(self.delay(), lambda: ask(others[len(heard)]))

        self.after(self.delay(), lambda: ask(others[0]))

    def _take(
        self,
        node: Node,
        others: list[Node],
        heard: dict[int, dict[bytes, Held]],
        again: Callable[[], None],
    ) -> None:
        store = node.store
        floor = 0
        for chunk in self.chunks:
            found = [
                Other(
                    heard[other.target][chunk],
                    place,
                    other.position.index > node.position.index,
                )
                for place, other in enumerate(others)
            ]
            for one in found:
                floor = max(floor, one.held.version if one.held.removed else 0)
                floor = max(floor, one.held.pending_version if one.held.pending_removed else 0)
            for step in type(self).decide(held(store, chunk), found):
                if not self._do(node, chunk, step, others):
                    self.after(5.0 + self.delay(), again)
                    return
                self._note(node)
        if any(other.replica is None for other in others):
            self.after(5.0 + self.delay(), again)
            return
        for other in others:
            floor = max(floor, other.store.floor)
            for key, answer in other.store.answers.items():
                mine = store.answers.get(key)
                older = mine is None or (mine.sequence, mine.version) < (answer.sequence, 1)
                if self.takes_answers and answer.committed and older:
                    store.answers[key] = answer
        store.floor = max(store.floor, floor)
        for found in store.chunks.values():
            found.last_commit = None  # it writes its index before it is whole
        self._note(node, durable=True)
        self.broken.discard(node.target)
        self.statistics["mended"] += 1
        if self.broken:
            return
        for one in self.nodes:
            if one.replica is not None:
                one.replica = None
                super().start(one)

    def _do(self, node: Node, chunk: bytes, step: Step, others: list[Node]) -> bool:
        """False: the source does not have it any more."""
        store = node.store
        match step:
            case Remove(version):
                self._drop(store, chunk)
                store.chunks[chunk] = Chunk(version)
                self.statistics["removed"] += 1
            case Commit(version):
                store.commit(chunk, version)
            case Drop(version):
                self._drop(store, chunk)
            case Pull():
                source = others[step.source]
                if source.replica is None or source.store.digest(chunk, pending=step.pending) != step.digest:
                    return False
                there = source.store.chunks[chunk]
                mine = store.chunks.setdefault(chunk, Chunk())
                self._drop(store, chunk)
                mine = store.chunks.setdefault(chunk, mine)
                if step.pending:
                    assert there.pending is not None
                    pending = there.pending
                    kind = UpdateKind.REMOVE if pending.content is None else UpdateKind.REPLACE
                    store.prepare(chunk, pending.version, kind, pending.content, pending.identity)
                else:
                    mine.version, mine.content, mine.last_commit = there.version, there.content, None
                self.statistics["pulled"] += 1
            case Conflict(message):
                raise Violation(message)
        return True

    @staticmethod
    def _drop(store: ModelStore, chunk: bytes) -> None:
        found = store.chunks.get(chunk)
        if found is not None and isinstance(found.pending, Pending):
            store.abandon(chunk, found.pending.version)

    # -- what is promised --------------------------------------------------------------------------------------

    def _check_history(self, chunk: bytes) -> None:
        if self.plan.memory and self.plan.many:
            return  # what all of them had in memory only is gone
        if self.plan.memory:
            # What was acknowledged is there. But a reader may have seen what nobody was acknowledged, at a tail that
            # lost it (docs/concurrency/storage.md, "Mending").
            self.history[chunk] = [event for event in self.history[chunk][:-1] if event.kind is not None] + [
                self.history[chunk][-1]
            ]
        super()._check_history(chunk)
