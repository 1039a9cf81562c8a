"""What has to move when nodes come and go, and which chains a grown cluster gets. Pure.

Two steps. First the chains there are, which hold data, are spread over the nodes that there are now: each target of a
node that is to be emptied moves, and from nodes with more targets than their share some move to nodes with fewer.
`least` is what any plan has to move for that; this one moves as few wherever a chain does not already have the node
that lacks a target. Which target of a node moves where is chosen so that every two nodes share about as many chains
afterwards. Then, while there are fewer chains than the nodes' wanted targets make, chains are added (`new_chains`):
they are empty, so nothing moves for them, and new files are laid on them at once.

Nodes that are neither to be emptied nor able to take anything (they are down, say) keep what they have.

Called by: the planner (`planner.py`).
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from fs_common.checks import check
from fs_meta.manager.designs import Dice
from fs_meta.manager.new_chains import add_chains, in_roles, replace, shared_counts
from fs_meta.manager.placement import chain_count

TRIES = 20_000
"""Other choices tried of what moves where."""


class Relocation(NamedTuple):
    """A replica of a chain goes from one node to another."""

    chain: int
    """Index of the chain."""
    source: int
    """Node id."""
    node: int
    """Node id: where to."""


class Plan(NamedTuple):
    relocations: list[Relocation]
    chains: list[tuple[int, ...]]
    """New ones: node ids, head first."""
    least: int
    """Relocations that any plan has that leaves each node its share."""
    stuck: list[tuple[int, int]]
    """(index of a chain, node to be emptied): no able node is left that is not on that chain."""


def plan(
    chains: Sequence[Sequence[int]],
    able: Collection[int],
    emptied: Collection[int],
    replicas: int,
    targets_per_node: int = 0,
    *,
    balance: bool = True,
) -> Plan:
    """`chains`: the node ids of each, distinct. `able`: nodes that may get targets. `emptied`: nodes that may keep
    none. `balance`: False: only what has to leave an emptied node moves, and no chain is added."""
    check(not set(able) & set(emptied), "an emptied node gets nothing", able, emptied)
    return _Planner(chains, sorted(able), set(emptied), replicas, targets_per_node or replicas).plan(balance)


class _Planner:
    def __init__(
        self,
        chains: Sequence[Sequence[int]],
        able: list[int],
        emptied: set[int],
        replicas: int,
        targets_per_node: int,
    ) -> None:
        others = {node for chain in chains for node in chain} - set(able)
        self._nodes = [*able, *sorted(others)]
        """Index to node id: the able ones first."""
        index = {node: at for at, node in enumerate(self._nodes)}
        self._able = len(able)
        self._emptied = {index[node] for node in emptied if node in index}
        self._replicas = replicas
        self._targets_per_node = targets_per_node
        self._chains = [[index[node] for node in chain] for chain in chains]
        self._origin = [list(chain) for chain in self._chains]
        """Who was there before: whatever differs from it moves."""
        self._shared = shared_counts(len(self._nodes), self._chains)
        self._have = [0] * len(self._nodes)
        for chain in self._chains:
            for node in chain:
                self._have[node] += 1
        self._stuck: list[tuple[int, int]] = []

    def plan(self, balance: bool) -> Plan:
        shares = self._shares()
        forced = sum(self._have[node] for node in self._emptied)
        excess = sum(max(0, self._have[node] - shares[node]) for node in range(self._able)) if balance else 0
        missing = sum(max(0, shares[node] - self._have[node]) for node in range(self._able))
        least = max(forced + excess, missing) if balance else forced
        self._empty(shares)
        if balance:
            self._even_out(shares)
        self._improve()
        new = self._new_chains() if balance and self._able >= self._replicas else []
        relocations = []
        for chain, (origin, now) in enumerate(zip(self._origin, self._chains, strict=True)):
            # A node that only has another place on the chain now stays where it is: the other one's move is enough.
            sources = [node for node in origin if node not in now]
            receivers = [node for node in now if node not in origin]
            relocations += [
                Relocation(chain, self._nodes[source], self._nodes[receiver])
                for source, receiver in zip(sources, receivers, strict=True)
            ]
        return Plan(self._taking_turns(relocations), new, least, self._stuck)

    def _shares(self) -> list[int]:
        """How many targets of the present chains each able node is to have; as close to what it has as can be."""
        places = sum(self._have[: self._able]) + sum(self._have[node] for node in self._emptied)
        if not self._able:
            return []
        low, rest = divmod(places, self._able)
        fullest = sorted(range(self._able), key=lambda node: (-self._have[node], node))
        shares = [low] * self._able
        for node in fullest[:rest]:
            shares[node] += 1
        return shares

    def _empty(self, shares: Sequence[int]) -> None:
        for at, chain in enumerate(self._chains):
            for place, node in enumerate(chain):
                if node not in self._emptied:
                    continue
                free = [other for other in range(self._able) if other not in chain]
                if not free:
                    self._stuck.append((at, self._nodes[node]))
                    continue
                lacking = [other for other in free if self._have[other] < shares[other]] or free
                self._move(at, place, min(lacking, key=lambda other: self._cost(chain, place, other, shares)))

    def _cost(self, chain: Sequence[int], place: int, node: int, shares: Sequence[int]) -> tuple[int, int, int]:
        together = sum(2 * self._shared[node][other] + 1 for at, other in enumerate(chain) if at != place)
        return together, self._have[node] - shares[node], node

    def _even_out(self, shares: Sequence[int]) -> None:
        """Move targets from nodes over their share to nodes under it."""
        while True:
            over = [node for node in range(self._able) if self._have[node] > shares[node]]
            under = [node for node in range(self._able) if self._have[node] < shares[node]]
            if not over or not under:
                return
            lowest = min(under, key=lambda node: (self._have[node] - shares[node], node))
            most = max(self._have[node] - shares[node] for node in over)
            sources = {node for node in over if self._have[node] - shares[node] == most}
            best = self._best(sources, [lowest]) or self._best(set(over), under)
            if best is None:
                return  # each of them is on all chains that could give it something
            self._move(*best)

    def _best(self, sources: Collection[int], receivers: Collection[int]) -> tuple[int, int, int] | None:
        """(chain, place, node) whose move makes the counts most even."""
        best: tuple[int, int, int] | None = None
        least = 0
        for at, chain in enumerate(self._chains):
            for place, source in enumerate(chain):
                if source not in sources:
                    continue
                for node in receivers:
                    if node in chain:
                        continue
                    change = 0
                    for other in chain:
                        if other != source:
                            change += self._shared[node][other] - self._shared[source][other]
                    # A target that is to move anyway costs nothing more, whichever node it goes to.
                    change -= 1_000_000 * (source != self._origin[at][place])
                    if best is None or change < least:
                        best, least = (at, place, node), change
        return best

    def _move(self, at: int, place: int, node: int) -> None:
        chain = self._chains[at]
        self._have[chain[place]] -= 1
        self._have[node] += 1
        replace(self._shared, chain, place, node)

    def _improve(self) -> None:
        """Exchange choices of the same cost in moves while that makes the counts more even."""
        moved = [
            (at, place)
            for at, origin in enumerate(self._origin)
            for place, node in enumerate(origin)
            if self._chains[at][place] != node
        ]
        if not moved:
            return
        dice = Dice(len(self._nodes) * 104_729 + len(moved))
        hosting: dict[int, list[tuple[int, int]]] = {}
        for at, origin in enumerate(self._origin):
            for place, node in enumerate(origin):
                hosting.setdefault(node, []).append((at, place))
        for _ in range(TRIES if len(self._chains) > 1 else 0):
            pick = dice.below(len(moved))
            if dice.below(2):
                self._exchange_receivers(moved[pick], moved[dice.below(len(moved))])
            else:
                at, place = moved[pick]
                own = hosting[self._origin[at][place]]
                other = own[dice.below(len(own))]
                if self._exchange_sources((at, place), other):
                    moved[pick] = other

    def _exchange_receivers(self, one: tuple[int, int], other: tuple[int, int]) -> None:
        """Two targets that move go to each other's places."""
        here, there = self._chains[one[0]], self._chains[other[0]]
        first, second = here[one[1]], there[other[1]]
        if here is there or second in here or first in there:
            return
        change = replace(self._shared, here, one[1], second) + replace(self._shared, there, other[1], first)
        if change > 0:
            replace(self._shared, there, other[1], second)
            replace(self._shared, here, one[1], first)

    def _exchange_sources(self, one: tuple[int, int], other: tuple[int, int]) -> bool:
        """Another target of the same node moves instead."""
        here, there = self._chains[one[0]], self._chains[other[0]]
        source, node = self._origin[one[0]][one[1]], here[one[1]]
        if here is there or there[other[1]] != source or source in self._emptied or node in there or source in here:
            return False
        change = replace(self._shared, here, one[1], source) + replace(self._shared, there, other[1], node)
        if change > 0:
            replace(self._shared, there, other[1], source)
            replace(self._shared, here, one[1], node)
            return False
        return True

    def _new_chains(self) -> list[tuple[int, ...]]:
        count = chain_count(self._able, self._replicas, self._targets_per_node) - len(self._chains)
        if count <= 0:
            return []
        present = [[node for node in chain if node < self._able] for chain in self._chains]
        added = in_roles(present, add_chains(self._able, present, count, self._replicas))
        return [tuple(self._nodes[node] for node in chain) for chain in added]

    @staticmethod
    def _taking_turns(relocations: list[Relocation]) -> list[Relocation]:
        """In an order in which the receivers take turns, so that those under way at a time are on many nodes."""
        turns: dict[int, int] = {}
        keyed = []
        for relocation in relocations:
            turn = turns.get(relocation.node, 0)
            turns[relocation.node] = turn + 1
            keyed.append((turn, relocation.chain, relocation))
        return [relocation for *_, relocation in sorted(keyed)]
