"""Placement decided by an integer program, with HiGHS: for what the search of `designs` and `rebalancing` leaves open.

The one module that imports the solver (`emberfs[placement]`); `available` says whether it is there. Each function has a
bound on its time and gives the best that was found in it, or None where that is nothing better than what was known.

*A new layout.* One integer variable for each candidate: a set of R nodes, where there are few of those, otherwise an
orbit of sets under the rotation of all nodes (a base block). Each says how many chains are made of its candidate.
Rows: how many chains each node is on; how many each two nodes share, at most `most`. Whether there is a solution is
asked with `most` as small as the average allows, then one larger, up to what is known.

*A plan.* One binary variable for each move that might be, of one target to one node, at most one in each chain, and
one integer variable for each set of nodes that might be a new chain. Rows: every node ends with the targets that the
known plan gives it, so no target more moves; what each two nodes share, as above.

Called by: the planner, in a process of its own.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from itertools import combinations
from math import comb
from typing import TYPE_CHECKING, NamedTuple

from fs_meta.manager.designs import Block, pairs_at_least
from fs_meta.manager.new_chains import in_roles, shared_counts
from fs_meta.manager.placement import chain_count, translates
from fs_meta.manager.rebalancing import Plan, Relocation

if TYPE_CHECKING:
    import highspy

SETS_MAX = 3_000
"""Sets of nodes up to which each is a variable of its own: 25 nodes with 3 replicas."""
ORBITS_MAX = 60_000
MOVES_MAX = 40_000
"""Moves that might be, up to which a plan is an integer program."""
TIME_LIMIT_S = 10.0


def available() -> bool:
    """Whether the solver is installed."""
    return find_spec("highspy") is not None


class _Program:
    """Rows and columns on their way to the solver. Every column is a whole number from 0 to its upper bound."""

    def __init__(self) -> None:
        self._upper: list[float] = []
        self._rows: list[dict[int, float]] = []
        self._low: list[float] = []
        self._high: list[float] = []

    def column(self, upper: float) -> int:
        self._upper.append(upper)
        return len(self._upper) - 1

    def row(self, low: float, high: float) -> int:
        self._rows.append({})
        self._low.append(low)
        self._high.append(high)
        return len(self._rows) - 1

    def add(self, row: int, column: int, value: float) -> None:
        entries = self._rows[row]
        entries[column] = entries.get(column, 0.0) + value

    def solve(self, time_limit_s: float) -> list[int] | None:
        """A value for each column; None: there is none, or none was found in time."""
        import highspy
        import numpy

        solver = highspy.Highs()
        solver.setOptionValue("output_flag", False)
        solver.setOptionValue("time_limit", time_limit_s)
        solver.setOptionValue("random_seed", 1)
        count = len(self._upper)
        infinity = highspy.kHighsInf
        solver.addVars(count, numpy.zeros(count), numpy.array(self._upper, dtype=numpy.float64))
        columns = numpy.arange(count, dtype=numpy.int32)
        solver.changeColsIntegrality(count, columns, numpy.ones(count, dtype=numpy.uint8))
        starts = numpy.cumsum([0, *(len(row) for row in self._rows[:-1])], dtype=numpy.int32)
        indices = numpy.array([column for row in self._rows for column in row], dtype=numpy.int32)
        values = numpy.array([value for row in self._rows for value in row.values()], dtype=numpy.float64)
        low = numpy.array([max(bound, -infinity) for bound in self._low], dtype=numpy.float64)
        high = numpy.array([min(bound, infinity) for bound in self._high], dtype=numpy.float64)
        solver.addRows(len(self._rows), low, high, len(indices), starts, indices, values)
        solver.run()
        return self._values(solver)

    @staticmethod
    def _values(solver: "highspy.Highs") -> list[int] | None:
        import highspy

        feasible = highspy.SolutionStatus.kSolutionStatusFeasible
        if solver.getInfo().primal_solution_status != feasible:
            return None
        return [round(value) for value in solver.getSolution().col_value]


class _Pairs:
    """One row for each two nodes: how many chains they share."""

    def __init__(self, program: _Program, shared: Sequence[Sequence[int]], most: int) -> None:
        self._program = program
        nodes = len(shared)
        self._rows = {
            (one, other): program.row(-float("inf"), most - shared[one][other])
            for one, other in combinations(range(nodes), 2)
        }

    def add(self, one: int, other: int, column: int, value: int) -> None:
        self._program.add(self._rows[min(one, other), max(one, other)], column, value)


def better_layout(
    nodes: int, replicas: int, targets_per_node: int, known: int, time_limit_s: float = TIME_LIMIT_S
) -> list[Block] | None:
    """Chains of which no two nodes share as many as `known`; None: none was found. Sets as in `placement.layout`."""
    for most in range(pairs_at_least(nodes, targets_per_node, replicas), known):
        if comb(nodes, replicas) <= SETS_MAX:
            found = _of_sets(nodes, replicas, targets_per_node, most, time_limit_s)
        elif targets_per_node % replicas == 0 and comb(nodes - 1, replicas - 1) <= ORBITS_MAX:
            found = _of_orbits(nodes, replicas, targets_per_node // replicas, most, time_limit_s)
        else:
            return None
        if found is not None:
            return found
    return None


def _of_sets(nodes: int, replicas: int, targets_per_node: int, most: int, time_limit_s: float) -> list[Block] | None:
    program = _Program()
    count = chain_count(nodes, replicas, targets_per_node)
    low, rest = divmod(count * replicas, nodes)
    total = program.row(count, count)
    on_chains = [program.row(low, low + (1 if rest else 0)) for _ in range(nodes)]
    pairs = _Pairs(program, [[0] * nodes] * nodes, most)
    sets = list(combinations(range(nodes), replicas))
    for members in sets:
        column = program.column(most)
        program.add(total, column, 1)
        for node in members:
            program.add(on_chains[node], column, 1)
        for one, other in combinations(members, 2):
            pairs.add(one, other, column, 1)
    values = program.solve(time_limit_s)
    if values is None:
        return None
    chosen = [members for members, times in zip(sets, values, strict=True) for _ in range(times)]
    return in_roles([], chosen)


def _of_orbits(nodes: int, replicas: int, cycles: int, most: int, time_limit_s: float) -> list[Block] | None:
    program = _Program()
    total = program.row(cycles, cycles)
    distances = [program.row(0, most) for _ in range(nodes // 2)]
    base: list[Block] = []
    for rest in combinations(range(1, nodes), replicas - 1):
        block = (0, *rest)
        steps = [(after - before) % nodes for before, after in zip(block, (*rest, 0), strict=True)]
        if steps[0] != min(steps):
            continue  # a translate of another one: its smallest step first
        column = program.column(cycles)
        base.append(block)
        program.add(total, column, 1)
        for one, other in combinations(block, 2):
            distance = min(other - one, nodes - other + one)
            program.add(distances[distance - 1], column, 2 if 2 * distance == nodes else 1)
    values = program.solve(time_limit_s)
    if values is None:
        return None
    return translates(nodes, [block for block, times in zip(base, values, strict=True) for _ in range(times)])


class _Move(NamedTuple):
    chain: int
    place: int
    node: int


def better_plan(
    chains: Sequence[Sequence[int]], able: Sequence[int], known: Plan, time_limit_s: float = TIME_LIMIT_S
) -> Plan | None:
    """A plan with as many moves and new chains as `known`, each node ending with as many targets, after which no two
    nodes share as many chains as after `known`; None: none was found."""
    nodes = sorted({*able, *(node for chain in chains for node in chain)})
    index = {node: at for at, node in enumerate(nodes)}
    present = [[index[node] for node in chain] for chain in chains]
    after = _applied(present, index, known)
    worst = _most(shared_counts(len(nodes), after))
    if known.stuck or not (known.relocations or known.chains):
        return None
    if len({relocation.chain for relocation in known.relocations}) < len(known.relocations):
        return None  # two targets of one chain move: what they share is no sum over moves
    gets = [0] * len(nodes)
    gives = [0] * len(nodes)
    for relocation in known.relocations:
        gets[index[relocation.node]] += 1
        gives[index[relocation.source]] += 1
    moves = [
        _Move(at, place, node)
        for at, chain in enumerate(present)
        for place, source in enumerate(chain)
        if gives[source]
        for node in range(len(nodes))
        if gets[node] and node not in chain
    ]
    takers = [index[node] for node in able]
    replicas = len(known.chains[0]) if known.chains else 0
    if len(moves) > MOVES_MAX or (known.chains and comb(len(takers), replicas) > SETS_MAX):
        return None
    sets = list(combinations(sorted(takers), replicas)) if known.chains else []
    targets = sum(len(chain) for chain in after)
    fewest = -(-targets * (max(map(len, after)) - 1) // len(nodes) // max(len(nodes) - 1, 1))
    for most in range(max(fewest, 1), worst):
        found = _plan_of(present, nodes, known, (gives, gets), moves, sets, most, time_limit_s)
        if found is not None:
            return found
    return None


def _applied(present: Sequence[Sequence[int]], index: dict[int, int], plan: Plan) -> list[list[int]]:
    after = [list(chain) for chain in present]
    for relocation in plan.relocations:
        chain = after[relocation.chain]
        chain[chain.index(index[relocation.source])] = index[relocation.node]
    return after + [[index[node] for node in chain] for chain in plan.chains]


def _most(shared: Sequence[Sequence[int]]) -> int:
    return max(max(row) for row in shared)


def _plan_of(
    present: Sequence[Sequence[int]],
    nodes: Sequence[int],
    known: Plan,
    degrees: tuple[Sequence[int], Sequence[int]],
    moves: Sequence[_Move],
    sets: Sequence[Block],
    most: int,
    time_limit_s: float,
) -> Plan | None:
    gives, gets = degrees
    program = _Program()
    leave = [program.row(count, count) for count in gives]
    come = [program.row(count, count) for count in gets]
    once = [program.row(0, 1) for _ in present]
    pairs = _Pairs(program, shared_counts(len(nodes), present), most)
    for move in moves:
        column = program.column(1)
        chain = present[move.chain]
        source = chain[move.place]
        program.add(leave[source], column, 1)
        program.add(come[move.node], column, 1)
        program.add(once[move.chain], column, 1)
        for other in chain:
            if other != source:
                pairs.add(source, other, column, -1)
                pairs.add(move.node, other, column, 1)
    wanted = [0] * len(nodes)
    at = {node: index for index, node in enumerate(nodes)}
    for chain in known.chains:
        for node in chain:
            wanted[at[node]] += 1
    on_new = [program.row(count, count) for count in wanted]
    for members in sets:
        column = program.column(most)
        for node in members:
            program.add(on_new[node], column, 1)
        for one, other in combinations(members, 2):
            pairs.add(one, other, column, 1)
    values = program.solve(time_limit_s)
    if values is None:
        return None
    relocations = [
        Relocation(move.chain, nodes[present[move.chain][move.place]], nodes[move.node])
        for move, value in zip(moves, values[: len(moves)], strict=True)
        if value
    ]
    new = [members for members, times in zip(sets, values[len(moves) :], strict=True) for _ in range(times)]
    added = [tuple(nodes[node] for node in chain) for chain in in_roles(present, new)]
    return known._replace(relocations=relocations, chains=added)
