"""The planner: what it answers, and that it does so from a process of its own."""

import asyncio

import pytest

from fs_common.errors import Code, EmberError
from fs_meta.manager import design_solver, planner
from fs_meta.manager.placement import layout
from fs_meta.manager.planner import LayoutRequest, PlanRequest, ask, compute_layout, compute_plan

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
