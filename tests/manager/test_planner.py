"""The planner: what it answers, and that it does so from a process of its own."""

import asyncio
import subprocess
import sys

import msgspec
import pytest

from fs_common.errors import Code, EmberError
from fs_meta.manager import design_solver, planner
from fs_meta.manager.placement import layout
from fs_meta.manager.planner import LayoutReply, LayoutRequest, PlanRequest, ask, compute_layout, compute_plan

GROWN = PlanRequest(
    chains=[list(chain) for chain in layout(3, 3, 3)], able=[0, 1, 2, 3], emptied=[], replicas=3, targets_per_node=3
)


def test_a_plan_says_what_it_does_to_the_spread() -> None:
    reply = compute_plan(GROWN)
    assert len(reply.relocations) == reply.least == 2 and len(reply.chains) == 1
    assert reply.after.over_even == pytest.approx(1)


def test_a_process_of_its_own_answers_the_same() -> None:
    assert asyncio.run(ask(GROWN)) == compute_plan(GROWN)


def test_what_a_planner_dies_of_is_told() -> None:
    impossible = PlanRequest(chains=[], able=[1], emptied=[1], replicas=1, targets_per_node=1)
    with pytest.raises(EmberError) as caught:
        asyncio.run(ask(impossible))
    assert caught.value.code is Code.INTERNAL and "gets nothing" in caught.value.message


def test_the_solver_is_asked_where_the_search_has_not_found_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def better(nodes: int, *arguments: object) -> None:
        asked.append(nodes)

    monkeypatch.setattr(design_solver, "available", lambda: True)
    monkeypatch.setattr(planner.design_solver, "better_layout", better)
    assert compute_layout(LayoutRequest(nodes=7, replicas=3, targets_per_node=3)).by == "search"
    assert not asked, "nothing is better than a projective plane"
    compute_layout(LayoutRequest(nodes=9, replicas=3, targets_per_node=4))
    assert asked == [9]
    compute_layout(LayoutRequest(nodes=9, replicas=3, targets_per_node=4, solver=False))
    assert asked == [9]


def test_what_a_solver_prints_is_no_part_of_the_answer() -> None:
    """HiGHS prints its version wherever standard output leads, whatever it is told."""
    program = (
        "import os; from fs_meta.manager import design_solver, planner;"
        "design_solver.available = lambda: True;"
        "design_solver.better_layout = lambda *given: os.write(1, b'Running a solver\\n') and None;"
        "planner.main()"
    )
    request = LayoutRequest(nodes=9, replicas=3, targets_per_node=4)
    done = subprocess.run(
        [sys.executable, "-c", program], input=msgspec.json.encode(request), capture_output=True, check=True
    )
    assert msgspec.json.decode(done.stdout, type=LayoutReply).by == "search"
    assert b"Running a solver" in done.stderr


@pytest.mark.skipif(not design_solver.available(), reason="emberfs[placement] is not installed")
def test_the_solver_answers_through_the_process() -> None:
    request = LayoutRequest(nodes=9, replicas=3, targets_per_node=4)
    done = subprocess.run(
        [sys.executable, "-m", "fs_meta.manager.planner"],
        input=msgspec.json.encode(request),
        capture_output=True,
        check=True,
    )
    reply = msgspec.json.decode(done.stdout, type=LayoutReply)
    assert reply.by == "solver" and reply.spread.over_even == pytest.approx(1)
