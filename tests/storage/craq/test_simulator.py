"""The simulator finds nothing in the core, and finds every defect that is planted in it."""

from random import Random

import pytest

from fs_common.errors import Code
from fs_storage.craq.operation import Duty, Failure, Operation, Step
from fs_storage.craq.position import Position
from fs_storage.craq.replica import Replica, View
from tests.storage.craq.simulator import Node, Plan, Simulation, plan_of_losses


@pytest.mark.parametrize("first", range(0, 1500, 250))
def test_random_histories_keep_every_promise(first: int) -> None:
    for seed in range(first, first + 250):
        simulation = Simulation(seed)
        try:
            simulation.run()
        except Exception as error:
            error.add_note(f"seed {seed}, {simulation.plan}")
            raise


@pytest.mark.parametrize("seed", [7201443, 7202117])
def test_a_removal_that_the_others_have_forgotten_does_not_stay_pending(seed: int) -> None:
    Simulation(seed).run()


def test_a_healthy_chain_answers_everything() -> None:
    for seed in range(100):
        simulation = Simulation(seed, Plan(loss=0.0, duplication=0.0, crashes=0, attempts=50))
        simulation.run()
        assert simulation.statistics["failed"] == 0


def test_the_same_seed_is_the_same_run() -> None:
    runs = []
    for _ in range(2):
        simulation = Simulation(12345)
        simulation.run()
        runs.append((simulation.now, simulation.statistics, simulation.history))
    assert runs[0] == runs[1]


def test_the_runs_reach_what_they_are_for() -> None:
    totals: dict[str, int] = {}
    for seed in range(200):
        simulation = Simulation(seed)
        simulation.run()
        for name, value in simulation.statistics.items():
            totals[name] = totals.get(name, 0) + value
    assert totals.pop("undecided") <= 2
    assert min(totals.values()) > 20, totals


def test_what_is_acknowledged_after_a_silent_loss_is_on_every_replica() -> None:
    totals: dict[str, int] = {}
    for seed in range(400):
        simulation = Simulation(seed, plan_of_losses(Random(seed)))
        try:
            simulation.run()
        except Exception as error:
            error.add_note(f"seed {seed}, {simulation.plan}")
            raise
        for name, value in simulation.statistics.items():
            totals[name] = totals.get(name, 0) + value
    assert min(totals["lost"], totals["differing"], totals["acknowledged_after_loss"]) > 100, totals


class ComparesNumbers(Replica):
    def __init__(self, view: View, unsettled: set[bytes]) -> None:
        super().__init__(Numbers(view), unsettled)


class Numbers:
    """A store whose versions are the same when their numbers are."""

    def __init__(self, view: View) -> None:
        self._view = view
        self.state = view.state
        self.answer = view.answer
        self.pending_update = view.pending_update
        self.floor = 0

    def digest(self, chunk: bytes, *, pending: bool = False) -> int:
        state = self._view.state(chunk)
        return 0 if state is None else state.pending_version if pending else state.version


class CommitsWhatTheTailIsPast(Replica):
    def _judge_duty(self, operation: Operation, position: Position) -> None:
        state = self._view.state(operation.chunk)
        if operation.kind is Duty.CONFIRM and state is not None and 0 < state.pending_version <= operation.version:
            self._confirm(operation, state)
        else:
            super()._judge_duty(operation, position)


@pytest.mark.parametrize("defect", [ComparesNumbers, CommitsWhatTheTailIsPast])
def test_a_defect_that_believes_a_replica_which_lost_something_is_found(defect: type[Replica]) -> None:
    class Defective(Simulation):
        replica_class = defect

    assert any(fails(Defective(seed, plan_of_losses(Random(seed)))) for seed in range(1500))


class ForgetsWhatItForgot(Replica):
    def __init__(self, view: View, unsettled: set[bytes]) -> None:
        super().__init__(view, unsettled)
        view.floor = 0  # type: ignore[misc]

    def _judge_as_head(self, operation: Operation, position: Position) -> None:
        self._view.floor = 0  # type: ignore[misc]
        super()._judge_as_head(operation, position)


class ForwardsBeforeItIsDurable(Replica):
    def _prepare(self, operation: Operation) -> None:
        super()._prepare(operation)
        if self.position is not None and not self.position.is_last:
            operation.step = Step.FORWARD
            operation.asked = self.position
            operation.length = operation.length or 1


class AnswersBeforeTheTail(Replica):
    def prepared(self, operation: Operation, length: int) -> None:
        super().prepared(operation, length)
        operation.step = Step.COMMIT


class AbandonsWhatMayHaveArrived(Replica):
    def _attempt_failed(self, operation: Operation, failure: Failure) -> None:
        super()._attempt_failed(operation, failure)
        operation.uncertain = False


class SaysNotAppliedOfWhatStays(Replica):
    def commit_or_fail(self, operation: Operation, failure: Failure, asked: Position | None) -> None:
        operation.uncertain = True
        super().forward_failed(operation, failure, asked)
        operation.failure = Failure(Code.NO_SPACE, "full")

    forward_failed = commit_or_fail


class ForgetsWhoWrote(Replica):
    def submit(self, operation: Operation) -> None:
        operation.client = b""
        operation.channel = operation.sequence = 0
        super().submit(operation)


class SkipsTheLeftover(Replica):
    def _resend(self, operation: Operation, state: object) -> None:
        super()._resend(operation, state)  # type: ignore[arg-type]
        operation.step = Step.CONFIRM


class LetsTwoIn(Replica):
    def submit(self, operation: Operation) -> None:
        self._queues.pop(operation.chunk, None)
        super().submit(operation)

    def _expect(self, operation: Operation, *steps: Step) -> None:
        pass


DEFECTS = [
    ForwardsBeforeItIsDurable,
    AnswersBeforeTheTail,
    AbandonsWhatMayHaveArrived,
    SaysNotAppliedOfWhatStays,
    ForgetsWhoWrote,
    SkipsTheLeftover,
    LetsTwoIn,
    ForgetsWhatItForgot,
]


def fails(simulation: Simulation) -> bool:
    try:
        simulation.run()
    except Exception:
        return True
    return False


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_planted_defect_is_found(defect: type[Replica]) -> None:
    class Defective(Simulation):
        replica_class = defect

    assert any(fails(Defective(seed)) for seed in range(400))


def test_reads_that_do_not_ask_the_tail_are_found() -> None:
    class ReadsCommitted(Simulation):
        def must_ask(self, node: Node, chunk: bytes) -> bool:
            return False

    assert any(fails(ReadsCommitted(seed)) for seed in range(400))


def test_a_tail_that_serves_before_it_settled_is_found() -> None:
    class ServesAtOnce(Simulation):
        def start(self, node: Node) -> None:
            super().start(node)
            node.ready = True

    assert any(fails(ServesAtOnce(seed)) for seed in range(1500))
