"""Chains that are added to those there are: which nodes they take, and in what order. Pure.

Nodes are indices from 0; a chain is the sequence of its nodes. A chain that is added carries nothing yet, so its nodes
are free to choose: each node gets so many that all are on equally many chains afterwards, and every two nodes share
about as many (`designs` says why). One node after another is chosen, the one that shares least with those chosen; then
nodes of the new chains are swapped while that makes the counts more even.

Called by: `placement`, `rebalancing`.
"""

from collections.abc import Sequence

from fs_common.checks import check
from fs_meta.manager.designs import Dice

SWAPS = 20_000
"""Swaps tried: about a tenth of a second."""


def shared_counts(nodes: int, chains: Sequence[Sequence[int]]) -> list[list[int]]:
    """How many chains each two nodes share."""
    shared = [[0] * nodes for _ in range(nodes)]
    for chain in chains:
        for one in chain:
            row = shared[one]
            for other in chain:
                if other != one:
                    row[other] += 1
    return shared


def even_needs(have: Sequence[int], places: int, most: int) -> list[int]:
    """How many of `places` each node gets so that all have as equally many as can be, and none gets over `most`.

    Needs `places <= most * len(have)`.
    """
    check(places <= most * len(have), "there is room for all places", places, most)
    needs = [0] * len(have)
    for _ in range(places):
        free = (node for node in range(len(have)) if needs[node] < most)
        needs[min(free, key=lambda node: (have[node] + needs[node], node))] += 1
    return needs


def add_chains(nodes: int, chains: Sequence[Sequence[int]], count: int, replicas: int) -> list[tuple[int, ...]]:
    """`count` more chains of `replicas` nodes. Needs `1 <= replicas <= nodes`."""
    have = [0] * nodes
    for members in chains:
        for node in members:
            have[node] += 1
    needs = even_needs(have, count * replicas, count)
    shared = shared_counts(nodes, chains)
    added: list[list[int]] = []
    for left in range(count, 0, -1):
        chain: list[int] = []
        while len(chain) < replicas:
            # Who needs a place on every chain that is left has to be on this one.
            must = [node for node in range(nodes) if needs[node] == left and node not in chain]
            able = must or [node for node in range(nodes) if needs[node] and node not in chain]
            best = min(able, key=lambda node: (_together(shared, chain, node), -needs[node], node))
            for other in chain:
                shared[best][other] += 1
                shared[other][best] += 1
            needs[best] -= 1
            chain.append(best)
        added.append(chain)
    _swap(shared, added, Dice(nodes * 7919 + count))
    return [tuple(chain) for chain in added]


def _together(shared: Sequence[Sequence[int]], chain: Sequence[int], node: int) -> tuple[int, int]:
    """What it costs to put a node on a chain with these: how much the sum of squares grows."""
    counts = [shared[node][other] for other in chain]
    return sum(2 * count + 1 for count in counts), max(counts, default=0)


def _swap(shared: list[list[int]], chains: list[list[int]], dice: Dice) -> None:
    """Swap nodes of two chains while the sum of the squares of the counts does not grow."""
    if len(chains) < 2:
        return
    replicas = len(chains[0])
    for _ in range(SWAPS):
        one, other = chains[dice.below(len(chains))], chains[dice.below(len(chains))]
        here, there = dice.below(replicas), dice.below(replicas)
        first, second = one[here], other[there]
        if second in one or first in other:
            continue
        change = replace(shared, one, here, second) + replace(shared, other, there, first)
        if change > 0:
            replace(shared, other, there, second)
            replace(shared, one, here, first)


def replace(shared: list[list[int]], chain: list[int], place: int, node: int) -> int:
    """Put another node there; by how much the sum of the squares of the counts grows. `shared` follows."""
    before = chain[place]
    change = 0
    for index, other in enumerate(chain):
        if index != place:
            change += 2 * shared[node][other] - 2 * shared[before][other] + 2
            shared[node][other] += 1
            shared[other][node] += 1
            shared[before][other] -= 1
            shared[other][before] -= 1
    chain[place] = node
    return change


def in_roles(chains: Sequence[Sequence[int]], added: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """The added chains with their nodes in an order that gives each node every place equally often, as far as it goes:
    the head takes in all that is written, the tail passes nothing on."""
    seen: dict[tuple[int, int], int] = {}
    for chain in chains:
        for place, node in enumerate(chain):
            seen[place, node] = seen.get((place, node), 0) + 1
    ordered = []
    for members in added:
        left = list(members)
        chain = []
        for place in range(len(members)):
            node = min(left, key=lambda node: (seen.get((place, node), 0), node))
            seen[place, node] = seen.get((place, node), 0) + 1
            left.remove(node)
            chain.append(node)
        ordered.append(tuple(chain))
    return ordered
