"""Which nodes form which chain, for a new cluster, and what a dead node costs the others. Pure.

A cluster of N nodes with T targets on each and R replicas has `N * T / R` chains (rounded down). Each node is on as
many chains as any other, heads as many, and every two nodes share about as many chains (`designs`), so that a dead
node's reads go to all others alike. By default T is R: one chain for each node. With more targets on a node its reads
reach more of the others: all of them from `T * (R - 1) >= N - 1` on.

`design_solver`, where it is installed, may know better blocks than the search of `designs`; what it finds comes as
`blocks`. How chains move when nodes come and go: `rebalancing`.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from fs_common.checks import check
from fs_common.records.routing import Chain, ChainTarget, PublicState
from fs_meta.manager.designs import Block, base_blocks
from fs_meta.manager.new_chains import add_chains, in_roles

TARGETS_PER_NODE_MAX = 99
"""A target's id is `node * 100 + k` (`target_ids`)."""


class ReadSpread(NamedTuple):
    """What the death of any one node adds to the others' reads, as shares of the dead node's reads."""

    even: float
    """The share if it went evenly to all others."""
    largest: float
    """The largest share any one node gets."""
    bound: float
    """No layout of so many targets on these nodes has a smaller `largest`."""

    @property
    def over_even(self) -> float:
        """The most loaded survivor's share over the average; 1: perfectly even."""
        return self.largest / self.even if self.even else 0.0

    @property
    def bound_over_even(self) -> float:
        return self.bound / self.even if self.even else 0.0


def chain_count(nodes: int, replicas: int, targets_per_node: int) -> int:
    """How many chains a cluster has."""
    return nodes * targets_per_node // replicas


def place(
    nodes: Sequence[int], replicas: int, targets_per_node: int = 0, blocks: Sequence[Block] | None = None
) -> list[Chain]:
    """The chains of a new cluster: version 1, all targets serving. `targets_per_node`: 0: as many as replicas.
    `blocks`: sets of indices of `nodes` that form the chains; None: found here.

    Needs `1 <= replicas <= len(nodes)`, nodes distinct.
    """
    targets_per_node = targets_per_node or replicas
    check(1 <= replicas <= len(nodes), "a chain has its replicas on different nodes", replicas, len(nodes))
    check(len(set(nodes)) == len(nodes), "a node is placed once", nodes)
    check(targets_per_node <= TARGETS_PER_NODE_MAX, "targets of a node are numbered to 99", targets_per_node)
    if blocks is None:
        blocks = layout(len(nodes), replicas, targets_per_node)
    hosted: Counter[int] = Counter()
    chains = []
    for index, block in enumerate(blocks):
        targets = []
        for member in block:
            node = nodes[member]
            hosted[node] += 1
            targets.append(ChainTarget(node * 100 + hosted[node], node, PublicState.SERVING))
        chains.append(Chain(index + 1, 1, targets))
    return chains


def layout(nodes: int, replicas: int, targets_per_node: int) -> list[Block]:
    """For each chain the indices of its nodes, head first."""
    cycles = targets_per_node // replicas
    chains = [] if not cycles else translates(nodes, base_blocks(nodes, cycles, replicas))
    rest = chain_count(nodes, replicas, targets_per_node) - len(chains)
    if rest:
        chains += in_roles(chains, add_chains(nodes, chains, rest, replicas))
    return chains


def translates(nodes: int, base: Iterable[Block]) -> list[Block]:
    """The chains that base blocks stand for. Each node is once at every place of the chains of a block."""
    return [tuple((index + step) % nodes for step in block) for block in base for index in range(nodes)]


def read_spread(chains: Iterable[Sequence[int]], nodes: Iterable[int] = ()) -> ReadSpread:
    """Over every node that might die, when each chain's reads go evenly to its members. `chains`: the nodes of each;
    `nodes`: those without a chain count as survivors, too."""
    reads: dict[int, float] = {}
    added: dict[int, dict[int, float]] = {}
    places: Counter[int] = Counter()
    everybody = set(nodes)
    lengths = set()
    for members in chains:
        everybody.update(members)
        lengths.add(len(members))
        places.update(members)
        if len(members) < 2:
            continue
        share = 1 / len(members)  # of the chain's reads: what one member answers, and the others if it dies
        for node in members:
            reads[node] = reads.get(node, 0.0) + share
            others = added.setdefault(node, {})
            for other in members:
                if other != node:
                    others[other] = others.get(other, 0.0) + share / (len(members) - 1)
    survivors = len(everybody) - 1
    even = 1 / survivors if survivors > 0 else 0.0
    if not reads:
        return ReadSpread(even, 0.0, 0.0)
    largest = max(max(added[node].values()) / reads[node] for node in reads)
    bound = even
    if len(lengths) == 1:  # two nodes share a whole number of chains
        others_of_chain = lengths.pop() - 1
        least = (-(-places[node] * others_of_chain // survivors) for node in reads)
        bound = max(chains / (places[node] * others_of_chain) for chains, node in zip(least, reads, strict=True))
    return ReadSpread(even, largest, bound)
