"""Block designs: which sets of nodes share chains, so that every two nodes share about as many. Pure.

A dead node's reads go to the nodes that it shares chains with, in proportion to how many. With N nodes, R replicas and
T targets on each node, a node shares `T (R - 1) / (N - 1)` chains with another on average; the best there can be is
that no two share more than that, rounded up (`pairs_at_least`). A design that reaches it is a balanced incomplete
block design where the average is a whole number, and the nearest thing to one otherwise.

The designs made here are cyclic: *base blocks* of R residues modulo N, each of which stands for the N chains that it
and its N - 1 translates are. Two nodes at distance d share as many chains as there are ordered pairs, in all base
blocks, whose difference is d. So a design is as good as its differences are even, which is a search over k * R
numbers, whatever N is; and each node is once at each place of the chains of a block, so heads and tails are even, too.

The search is deterministic: the same arguments always give the same blocks. It walks downhill in the sum of the
squares of the differences' counts, over plateaus, with a bounded number of steps. `design_solver` decides what it
leaves open.

Called by: `placement`, `design_solver`.
"""

from collections.abc import Sequence
from itertools import combinations
from math import comb

Block = tuple[int, ...]
"""Residues, ascending from 0: the offsets of a chain's nodes from the first one."""

EXHAUSTIVE_MAX = 20_000
"""Sets tried one after another for a single base block: about a second."""
STEPS = 60_000
"""Changes tried for one design: about half a second."""
_STEPS_WITHOUT_GAIN = 4_000
"""After so many the search goes on from a disturbed copy of the best."""


class Dice:
    """A small deterministic generator (xorshift), so that the same cluster is always laid out in the same way."""

    def __init__(self, seed: int) -> None:
        self._state = (seed * 0x9E3779B97F4A7C15 + 0x2545F4914F6CDD1D) & 0xFFFFFFFFFFFFFFFF or 1

    def below(self, bound: int) -> int:
        """0 to `bound` - 1."""
        state = self._state
        state ^= (state << 13) & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 7
        state ^= (state << 17) & 0xFFFFFFFFFFFFFFFF
        self._state = state
        return (state >> 16) % bound


def pairs_at_least(nodes: int, targets_per_node: int, replicas: int) -> int:
    """How many chains some two nodes share, in every design: the average, rounded up."""
    if nodes < 2:
        return 0
    return -(-targets_per_node * (replicas - 1) // (nodes - 1))


def differences(nodes: int, blocks: Sequence[Block]) -> list[int]:
    """By distance (index 0: none): how many chains two nodes at that distance share."""
    counts = [0] * nodes
    for block in blocks:
        for one in block:
            for other in block:
                if one != other:
                    counts[(other - one) % nodes] += 1
    return counts


def most_shared(nodes: int, blocks: Sequence[Block]) -> int:
    """The most chains any two nodes share."""
    return max(differences(nodes, blocks), default=0)


def base_blocks(nodes: int, count: int, replicas: int, steps: int = STEPS) -> list[Block]:
    """`count` base blocks of `replicas` residues modulo `nodes`. Needs `1 <= replicas <= nodes`, `count >= 1`."""
    if count == 1 and comb(nodes - 1, replicas - 1) <= EXHAUSTIVE_MAX:
        return [_best_single(nodes, replicas)]
    if replicas == nodes:
        return [tuple(range(replicas))] * count
    blocks = _greedy(nodes, count, replicas)
    aim = pairs_at_least(nodes, count * replicas, replicas)
    if most_shared(nodes, blocks) > aim:
        blocks = _Search(nodes, blocks, Dice(nodes * 1009 + count * 31 + replicas)).run(aim, steps)
    return sorted(_normal(block, nodes) for block in blocks)


def _best_single(nodes: int, replicas: int) -> Block:
    """Of all sets, the one with the fewest chains shared by any two nodes; consecutive residues when equal."""
    best = tuple(range(replicas))
    least = most_shared(nodes, [best])
    for rest in combinations(range(1, nodes), replicas - 1):
        found = most_shared(nodes, [(0, *rest)])
        if found < least:
            best, least = (0, *rest), found
    return best


def _normal(block: Sequence[int], nodes: int) -> Block:
    """The translate that begins at 0 and is the smallest."""
    return min(tuple(sorted((residue - first) % nodes for residue in block)) for first in block)


def _greedy(nodes: int, count: int, replicas: int) -> list[Block]:
    """Residue by residue, the one that repeats differences least."""
    counts = [0] * nodes
    blocks = []
    for _ in range(count):
        block = [0]
        while len(block) < replicas:
            free = (residue for residue in range(1, nodes) if residue not in block)
            best = min(free, key=lambda residue: (_added(counts, nodes, block, residue), residue))
            for other in block:
                counts[(best - other) % nodes] += 1
                counts[(other - best) % nodes] += 1
            block.append(best)
        blocks.append(tuple(block))
    return blocks


def _added(counts: Sequence[int], nodes: int, block: Sequence[int], residue: int) -> tuple[int, int]:
    """What a residue would make of the counts: the largest it touches, and their sum."""
    touched = [counts[(residue - other) % nodes] for other in block]
    own = {(residue - other) % nodes for other in block} | {(other - residue) % nodes for other in block}
    repeated = 2 * len(block) - len(own)
    return max(touched) + (1 if repeated else 0), sum(touched) + repeated


class _Search:
    """Downhill in the sum of squares of the counts, one residue of one block at a time."""

    def __init__(self, nodes: int, blocks: Sequence[Block], dice: Dice) -> None:
        self._nodes = nodes
        self._dice = dice
        self._blocks = [list(block) for block in blocks]
        self._counts = differences(nodes, blocks)

    def run(self, aim: int, steps: int) -> list[Block]:
        """The best blocks met: those whose largest count is `aim`, or after `steps` tries."""
        counts, dice, nodes = self._counts, self._dice, self._nodes
        best = [tuple(block) for block in self._blocks]
        least = (max(counts), sum(count * count for count in counts))
        cost, idle = least[1], 0
        replicas = len(best[0])
        for _ in range(steps):
            block = self._blocks[dice.below(len(self._blocks))]
            place, residue = dice.below(replicas), dice.below(nodes)
            if residue in block:
                continue
            before = block[place]
            change = self._change(block, place, residue)
            if change > 0:
                self._change(block, place, before)
            cost += min(change, 0)
            idle += 1
            if change < 0 and (found := (max(counts), cost)) < least:
                best, least, idle = [tuple(block) for block in self._blocks], found, 0
                if found[0] <= aim:
                    break
            elif idle >= _STEPS_WITHOUT_GAIN:
                cost, idle = self._disturb(best), 0
        return best

    def _change(self, block: list[int], place: int, residue: int) -> int:
        """Put another residue there; by how much the sum of squares grows."""
        counts, nodes = self._counts, self._nodes
        change = 0
        before = block[place]
        for index, other in enumerate(block):
            if index != place:
                for distance in ((before - other) % nodes, (other - before) % nodes):
                    counts[distance] -= 1
                    change -= 2 * counts[distance] + 1
                for distance in ((residue - other) % nodes, (other - residue) % nodes):
                    change += 2 * counts[distance] + 1
                    counts[distance] += 1
        block[place] = residue
        return change

    def _disturb(self, best: Sequence[Block]) -> int:
        """Go on from the best met, with a few residues thrown anew; the sum of squares there."""
        dice, nodes = self._dice, self._nodes
        self._blocks = [list(block) for block in best]
        for _ in range(1 + len(best) // 8):
            block = self._blocks[dice.below(len(best))]
            residue = dice.below(nodes)
            if residue not in block:
                block[dice.below(len(block))] = residue
        self._counts[:] = differences(nodes, [tuple(block) for block in self._blocks])
        return sum(count * count for count in self._counts)
