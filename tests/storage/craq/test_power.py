"""Power cuts of one machine, of two, of all: nothing that was durable is lost, and no replica is older than another."""

import pytest

from fs_storage.craq.mend import Other, Pull, Remove, Step, plan
from fs_storage.engine.interface import Held
from tests.storage.craq.power import PowerSimulation


def test_power_cuts_take_nothing_that_was_promised() -> None:
    totals: dict[str, int] = {}
    for seed in range(500):
        simulation = PowerSimulation(seed)
        try:
            simulation.run()
        except Exception as error:
            error.add_note(f"seed {seed}, {simulation.plan}")
            raise
        for name, value in simulation.statistics.items():
            totals[name] = totals.get(name, 0) + value
    assert min(totals["cut"], totals["pulled"], totals["mended"]) > 100 and totals["removed"] > 10, totals


def takes_nothing(mine: Held, others: list[Other]) -> list[Step]:
    return []


def leaves_what_is_pending_behind(mine: Held, others: list[Other]) -> list[Step]:
    return [step for step in plan(mine, others) if not (isinstance(step, Pull) and step.pending)]


def keeps_what_was_removed(mine: Held, others: list[Other]) -> list[Step]:
    return [step for step in plan(mine, others) if not isinstance(step, Remove)]


def believes_the_first_it_hears(mine: Held, others: list[Other]) -> list[Step]:
    return plan(mine, others[:1])


@pytest.mark.parametrize(
    "decide", [takes_nothing, leaves_what_is_pending_behind, keeps_what_was_removed, believes_the_first_it_hears]
)
def test_a_defect_of_mending_is_found(decide: object) -> None:
    class Defective(PowerSimulation):
        pass

    Defective.decide = staticmethod(decide)  # type: ignore[assignment, arg-type]
    assert any(fails(Defective(seed)) for seed in range(1500))


def test_answers_that_are_not_taken_are_found() -> None:
    class Forgets(PowerSimulation):
        takes_answers = False

    # One in some hundreds; the first of these is early.
    assert any(fails(Forgets(seed)) for seed in range(1700, 3200))


def fails(simulation: PowerSimulation) -> bool:
    try:
        simulation.run()
    except Exception:
        return True
    return False
