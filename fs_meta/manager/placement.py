"""Which nodes form which chain, for a new cluster. Pure.

Cyclic: N nodes, R replicas, chain `i` (1 .. N) is on the nodes at positions `i - 1 + offset` (mod N) for R fixed
offsets, the first of which is 0. So each node heads one chain, is once at every place of a chain, and hosts R
targets.

The offsets decide what a dead node costs: its reads go to the nodes it shares chains with. Each pair of nodes at
distance d shares as many chains as there are pairs of offsets whose difference is d or -d. Offsets whose differences
are all different (a cyclic difference set, when N = R(R-1)+1) spread the reads evenly; consecutive offsets put most
of them on the two neighbours. `offsets` takes the set with the smallest largest share, consecutive ones when equal.

Source: DESIGN section 5; reference 1.6.
"""

from collections.abc import Sequence
from itertools import combinations
from math import comb
from typing import NamedTuple

from fs_common.checks import check
from fs_common.records.routing import Chain, ChainTarget, PublicState

TARGETS_PER_NODE_MAX = 99
"""A target's id is `node * 100 + k`."""
_SEARCH_MAX = 20_000
"""Sets of offsets tried before a greedy choice: about a second."""


class ReadSpread(NamedTuple):
    """What the death of any one node adds to the others' reads, as shares of the dead node's reads."""

    even: float
    """The share if it went evenly to all others."""
    largest: float
    """The largest share any one node gets."""


def place(nodes: Sequence[int], replicas: int) -> list[Chain]:
    """One chain for each node, version 1, all targets serving. Needs `1 <= replicas <= len(nodes)`, nodes distinct."""
    check(1 <= replicas <= len(nodes), "a chain has its replicas on different nodes", replicas, len(nodes))
    check(len(set(nodes)) == len(nodes), "a node is placed once", nodes)
    check(replicas <= TARGETS_PER_NODE_MAX, "targets of a node are numbered to 99", replicas)
    hosted = dict.fromkeys(nodes, 0)
    chains = []
    steps = offsets(len(nodes), replicas)
    for index in range(len(nodes)):
        targets = []
        for step in steps:
            node = nodes[(index + step) % len(nodes)]
            hosted[node] += 1
            targets.append(ChainTarget(node * 100 + hosted[node], node, PublicState.SERVING))
        chains.append(Chain(index + 1, 1, targets))
    return chains


def offsets(count: int, replicas: int) -> tuple[int, ...]:
    """`replicas` distinct offsets below `count`, ascending from 0, chosen as the module says."""
    best = tuple(range(replicas))
    if comb(count - 1, replicas - 1) > _SEARCH_MAX:
        return min(best, _greedy(count, replicas), key=lambda steps: _most_shared(steps, count))
    for rest in combinations(range(1, count), replicas - 1):
        if _most_shared((0, *rest), count) < _most_shared(best, count):
            best = (0, *rest)
    return best


def _greedy(count: int, replicas: int) -> tuple[int, ...]:
    """Add the smallest offset that repeats a difference least, until there are enough."""
    steps = [0]
    while len(steps) < replicas:
        free = (step for step in range(1, count) if step not in steps)
        steps.append(min(free, key=lambda step: (_most_shared((*steps, step), count), step)))
    return tuple(sorted(steps))


def _most_shared(steps: Sequence[int], count: int) -> int:
    """The most chains any two nodes share."""
    shared = [0] * count
    for first in steps:
        for second in steps:
            if first != second:
                shared[(second - first) % count] += 1
    return max(shared)


def read_spread(chains: Sequence[Chain]) -> ReadSpread:
    """Over every node that might die, when each chain's reads go evenly to its targets."""
    nodes = {target.node for chain in chains for target in chain.targets}
    largest = 0.0
    for dead in nodes:
        added = dict.fromkeys(nodes - {dead}, 0.0)
        reads = 0.0
        for chain in chains:
            members = [target.node for target in chain.targets]
            if dead not in members or len(members) == 1:
                continue
            share = 1 / len(members)  # of the chain's reads: what the dead node used to answer
            reads += share
            for node in members:
                if node != dead:
                    added[node] += share / (len(members) - 1)
        largest = max(largest, max(added.values(), default=0.0) / reads if reads else 0.0)
    return ReadSpread(1 / (len(nodes) - 1) if len(nodes) > 1 else 0.0, largest)
