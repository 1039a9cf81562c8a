"""Placement: what every chain table has, and how a dead node's reads spread."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fs_common.checks import InvariantViolation
from fs_common.records.routing import PublicState
from fs_meta.manager.placement import offsets, place, read_spread


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
    spread = read_spread(place(range(1, count + 1), replicas))
    assert spread.even == pytest.approx(1 / (count - 1))
    assert spread.largest / spread.even == pytest.approx(over_even)


@pytest.mark.parametrize("replicas", [2, 3, 5, 8])
def test_large_clusters_share_at_most_one_chain_between_two_nodes(replicas: int) -> None:
    """The choice is greedy there, and still no two nodes share two chains."""
    steps = offsets(200, replicas)
    assert len(steps) == replicas and steps[0] == 0
    differences = Counter((second - first) % 200 for first in steps for second in steps if first != second)
    assert max(differences.values()) == 1


def test_one_replica_has_nothing_to_spread() -> None:
    assert read_spread(place([1, 2], 1)).largest == 0


@pytest.mark.parametrize(("nodes", "replicas"), [([1, 2], 3), ([1, 2], 0), ([1, 1, 2], 2), ([], 1)])
def test_impossible_placements_are_violations(nodes: list[int], replicas: int) -> None:
    with pytest.raises(InvariantViolation):
        place(nodes, replicas)
