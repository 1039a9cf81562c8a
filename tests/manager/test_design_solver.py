"""What the integer programs find that the search leaves open; without the solver's package nothing of it is asked."""

from collections import Counter
from collections.abc import Sequence

import pytest

from fs_meta.manager import design_solver
from fs_meta.manager.designs import pairs_at_least
from fs_meta.manager.new_chains import shared_counts
from fs_meta.manager.placement import layout
from fs_meta.manager.rebalancing import Plan, Relocation

needs_solver = pytest.mark.skipif(not design_solver.available(), reason="emberfs[placement] is not installed")


def most(nodes: int, chains: Sequence[Sequence[int]]) -> int:
    return max(max(row) for row in shared_counts(nodes, chains))


@needs_solver
@pytest.mark.parametrize(("nodes", "replicas", "targets"), [(9, 3, 4), (6, 3, 12)])
def test_designs_that_no_rotation_gives(nodes: int, replicas: int, targets: int) -> None:
    """The affine plane of order three, and one whose middle distance would have to be odd."""
    known = most(nodes, layout(nodes, replicas, targets))
    found = design_solver.better_layout(nodes, replicas, targets, known)
    assert found is not None
    assert most(nodes, found) == pairs_at_least(nodes, targets, replicas) < known
    assert all(len(set(chain)) == replicas for chain in found)
    assert set(Counter(node for chain in found for node in chain).values()) == {targets}


@needs_solver
def test_orbits_are_chosen_where_there_are_too_many_sets() -> None:
    """A cyclic difference family: 27 nodes would be 2,925 sets, 31 are 4,495."""
    found = design_solver.better_layout(31, 3, 15, known=2)
    assert found is not None and len(found) == 155
    assert most(31, found) == 1


@needs_solver
def test_what_cannot_be_better_is_said_so() -> None:
    assert design_solver.better_layout(7, 3, 3, known=1) is None


@needs_solver
def test_a_plan_moves_other_targets_so_that_nodes_share_less() -> None:
    """Nodes 0 and 1 share two chains; of the three targets of node 1, moving one of those two is better."""
    chains = [[0, 1], [0, 1], [1, 2]]
    known = Plan([Relocation(2, 1, 3)], [], 1, [])
    found = design_solver.better_plan(chains, [0, 1, 2, 3], known)
    assert found is not None
    assert [(move.source, move.node) for move in found.relocations] == [(1, 3)]
    assert found.relocations[0].chain in (0, 1)


@needs_solver
def test_new_chains_make_up_for_what_the_old_ones_share() -> None:
    chains = [[0, 1, 2], [0, 1, 3]]
    known = Plan([], [(0, 1, 4), (2, 3, 5)], 0, [])
    found = design_solver.better_plan(chains, range(6), known)
    assert found is not None and not found.relocations
    assert Counter(node for chain in found.chains for node in chain) == Counter(range(6))
    assert most(6, [*map(tuple, chains), *found.chains]) == 2
