"""Plans for clusters that grow and shrink: they move as little as can be, and leave everything even."""

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fs_common.checks import InvariantViolation
from fs_meta.manager.placement import chain_count, layout, read_spread
from fs_meta.manager.rebalancing import Plan, plan


def carried_out(chains: Sequence[Sequence[int]], found: Plan) -> list[list[int]]:
    """The chains after the plan; each move has to be possible when it comes."""
    after = [list(chain) for chain in chains]
    for relocation in found.relocations:
        chain = after[relocation.chain]
        assert relocation.source in chain and relocation.node not in chain
        chain[chain.index(relocation.source)] = relocation.node
    after += [list(chain) for chain in found.chains]
    assert all(len(set(chain)) == len(chain) for chain in after)
    return after


def hosted(chains: Sequence[Sequence[int]], nodes: Sequence[int]) -> list[int]:
    counts = Counter(node for chain in chains for node in chain)
    return [counts[node] for node in nodes]


def test_three_nodes_become_four() -> None:
    chains = layout(3, 3, 3)
    found = plan(chains, range(4), (), 3)
    assert len(found.relocations) == found.least == 2
    assert {relocation.node for relocation in found.relocations} == {3}
    assert len(found.chains) == 1, "a cluster of four has four chains"
    after = carried_out(chains, found)
    assert hosted(after, range(4)) == [3, 3, 3, 3]
    assert read_spread(after).over_even == pytest.approx(1)


def test_a_cluster_that_is_even_is_left_alone() -> None:
    found = plan(layout(5, 3, 6), range(5), (), 3, 6)
    assert not found.relocations and not found.chains and found.least == 0


def test_a_node_is_emptied_and_nothing_else_moves() -> None:
    chains = layout(5, 3, 3)
    found = plan(chains, [0, 1, 2, 3], [4], 3, balance=False)
    assert [relocation.source for relocation in found.relocations] == [4, 4, 4]
    assert len(found.relocations) == found.least and not found.chains
    assert hosted(carried_out(chains, found), range(5))[4] == 0


def test_a_chain_that_is_on_all_able_nodes_is_stuck() -> None:
    found = plan([[1, 2, 3]], [1, 2], [3], 3)
    assert found.stuck == [(0, 3)] and not found.relocations


def test_nodes_that_are_down_keep_what_they_have_and_get_nothing() -> None:
    """Node 2 is neither able nor to be emptied."""
    chains = layout(3, 2, 4)
    found = plan(chains, [0, 1, 3], (), 2, 4)
    after = carried_out(chains, found)
    assert all(2 not in (relocation.source, relocation.node) for relocation in found.relocations)
    assert all(2 not in chain for chain in found.chains)
    assert hosted(after, [2]) == hosted(chains, [2])


def test_receivers_take_turns() -> None:
    found = plan(layout(6, 3, 6), range(8), (), 3, 6)
    receivers = [relocation.node for relocation in found.relocations]
    assert set(receivers[:2]) == {6, 7}


def test_a_node_cannot_be_able_and_emptied() -> None:
    with pytest.raises(InvariantViolation):
        plan([[1, 2]], [1, 2], [2], 2)


def test_a_node_that_stays_on_a_chain_moves_nothing() -> None:
    """Two nodes are emptied and one joins: a chain of four then has one of its nodes in another place."""
    chains = layout(6, 4, 5)
    found = plan(chains, [2, 3, 4, 5, 6], [0, 1], 4, 5)
    for relocation in found.relocations:
        chain = chains[relocation.chain]
        assert relocation.source in chain and relocation.node not in chain
    assert not {0, 1} & {node for chain in carried_out(chains, found) for node in chain}


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_change_of_the_nodes_is_met_with_few_moves(data: st.DataObject) -> None:
    before = data.draw(st.integers(2, 10))
    replicas = data.draw(st.integers(1, min(before, 4)))
    targets = data.draw(st.integers(replicas, 7))
    leaving = data.draw(st.sets(st.integers(0, before - 1), max_size=before - replicas))
    joining = data.draw(st.integers(0, 5))
    able = [node for node in range(before + joining) if node not in leaving]
    chains = layout(before, replicas, targets)
    found = plan(chains, able, leaving, replicas, targets)
    assert not found.stuck
    after = carried_out(chains, found)
    assert hosted(after, sorted(leaving)) == [0] * len(leaving)
    assert len(after) == max(len(chains), chain_count(len(able), replicas, targets))
    # What holds data is on every node alike, for as few moves as that can have, but where chains are in the way.
    old = hosted(after[: len(chains)], able)
    assert len(found.relocations) <= found.least + 1
    assert max(old) - min(old) <= 2
    counts = hosted(after, able)
    assert max(counts) - min(counts) <= 2


@pytest.mark.parametrize(
    ("before", "after", "targets", "over_bound"),
    [(10, 11, 6, 1.0), (10, 12, 9, 1.0), (20, 21, 9, 2.0), (21, 20, 9, 1.2), (50, 55, 12, 1.0), (100, 110, 12, 1.0)],
)
def test_growth_keeps_the_reads_of_a_dead_node_spread(before: int, after: int, targets: int, over_bound: float) -> None:
    chains = layout(before, 3, targets)
    found = plan(chains, range(after), range(after, before), 3, targets)
    assert len(found.relocations) == found.least
    spread = read_spread(carried_out(chains, found), range(min(before, after)))
    assert spread.largest / spread.bound <= over_bound + 1e-9
