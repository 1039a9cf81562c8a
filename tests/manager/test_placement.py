"""Placement: what every chain table has, and how a dead node's reads spread."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fs_common.checks import InvariantViolation
from fs_common.records.routing import Chain, PublicState
from fs_meta.manager.designs import base_blocks, differences, most_shared, pairs_at_least
from fs_meta.manager.placement import chain_count, layout, place, read_spread


def nodes_of(chains: list[Chain]) -> list[list[int]]:
    return [[target.node for target in chain.targets] for chain in chains]


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_each_node_heads_one_chain_and_hosts_as_many_targets_as_there_are_replicas(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 30))
    replicas = data.draw(st.integers(1, min(count, 6)))
    nodes = data.draw(st.lists(st.integers(1, 999), min_size=count, max_size=count, unique=True))
    chains = place(nodes, replicas)
    assert [chain.chain for chain in chains] == list(range(1, count + 1))
    for place_on_chain in range(replicas):
        assert sorted(chain.targets[place_on_chain].node for chain in chains) == sorted(nodes)
    for chain in chains:
        assert chain.version == 1
        assert len({target.node for target in chain.targets}) == len(chain.targets) == replicas
        assert all(target.state is PublicState.SERVING for target in chain.targets)
    targets = [target for chain in chains for target in chain.targets]
    assert sorted(target.target for target in targets) == sorted(
        node * 100 + number for node in nodes for number in range(1, replicas + 1)
    )
    assert all(target.target // 100 == target.node for target in targets)
    assert Counter(target.node for target in targets) == dict.fromkeys(nodes, replicas)


def test_as_many_nodes_as_replicas_is_a_plain_rotation() -> None:
    chains = place([4, 5, 6], 3)
    assert [[target.node for target in chain.targets] for chain in chains] == [[4, 5, 6], [5, 6, 4], [6, 4, 5]]
    assert [[target.target for target in chain.targets] for chain in chains] == [
        [401, 501, 601],
        [502, 602, 402],
        [603, 403, 503],
    ]


@pytest.mark.parametrize(
    ("count", "replicas", "over_even"),
    [
        (3, 3, 1),
        (4, 3, 1),
        (7, 3, 1),
        (13, 4, 1),
        (21, 5, 1),
        (5, 3, 4 / 3),
        (6, 3, 5 / 3),
        (8, 3, 7 / 6),
        (10, 3, 1.5),
    ],
)
def test_a_dead_node_s_reads_spread_over_the_others(count: int, replicas: int, over_even: float) -> None:
    """1: each of the others gets the same. Consecutive offsets would give (count-1)/3 for 3 replicas."""
    spread = read_spread(nodes_of(place(range(1, count + 1), replicas)))
    assert spread.even == pytest.approx(1 / (count - 1))
    assert spread.over_even == pytest.approx(over_even)
    assert spread.bound_over_even == pytest.approx(over_even), "nothing better is possible in any of these"


@pytest.mark.parametrize("replicas", [2, 3, 5, 8])
def test_large_clusters_share_at_most_one_chain_between_two_nodes(replicas: int) -> None:
    assert most_shared(200, base_blocks(200, 1, replicas)) == 1


@pytest.mark.parametrize(
    ("nodes", "cycles", "replicas"),
    [(7, 1, 3), (13, 2, 3), (25, 4, 3), (31, 5, 3), (61, 10, 3), (13, 1, 4), (21, 1, 5), (16, 8, 2), (12, 8, 5)],
)
def test_the_search_finds_designs_as_even_as_any_can_be(nodes: int, cycles: int, replicas: int) -> None:
    """Among them difference families, in which every two nodes share exactly one chain."""
    blocks = base_blocks(nodes, cycles, replicas)
    assert len(blocks) == cycles
    assert all(len(set(block)) == replicas and set(block) <= set(range(nodes)) for block in blocks)
    assert most_shared(nodes, blocks) == pairs_at_least(nodes, cycles * replicas, replicas)
    assert sum(differences(nodes, blocks)) == cycles * replicas * (replicas - 1)
    assert base_blocks(nodes, cycles, replicas) == blocks, "the same arguments give the same design"


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_any_number_of_targets_is_laid_out_evenly(data: st.DataObject) -> None:
    nodes = data.draw(st.integers(2, 14))
    replicas = data.draw(st.integers(1, min(nodes, 5)))
    targets = data.draw(st.integers(1, 9))
    chains = layout(nodes, replicas, targets)
    assert len(chains) == chain_count(nodes, replicas, targets) == nodes * targets // replicas
    assert all(len(set(chain)) == replicas for chain in chains)
    hosted = Counter(dict.fromkeys(range(nodes), 0)) + Counter(node for chain in chains for node in chain)
    counts = [hosted[node] for node in range(nodes)]
    assert max(counts) - min(counts) <= 1
    spread = read_spread(chains, range(nodes))
    assert spread.largest >= spread.bound - 1e-9 or not chains or replicas == 1


def test_a_bound_is_what_the_average_comes_to_rounded_up() -> None:
    """Two chains over four nodes, three apart: nodes 0 and 1 share both, and need not share more than one."""
    spread = read_spread([[0, 1, 2], [0, 1, 3]])
    assert spread.largest == pytest.approx(0.5)
    assert spread.over_even == pytest.approx(1.5)
    assert spread.bound == pytest.approx(max(2 / 4, 1 / 2))


def test_nodes_without_a_chain_are_survivors_that_take_nothing() -> None:
    assert read_spread([[1, 2]], [1, 2, 3]).over_even == pytest.approx(2)


def test_one_replica_has_nothing_to_spread() -> None:
    assert read_spread(nodes_of(place([1, 2], 1))).largest == 0


@pytest.mark.parametrize(("nodes", "replicas"), [([1, 2], 3), ([1, 2], 0), ([1, 1, 2], 2), ([], 1)])
def test_impossible_placements_are_violations(nodes: list[int], replicas: int) -> None:
    with pytest.raises(InvariantViolation):
        place(nodes, replicas)
