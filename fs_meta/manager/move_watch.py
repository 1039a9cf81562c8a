"""The moves that there are, and those that are made by themselves. Pure: the memory of one manager.

`look` is one pass beside that of the chains (`chain_watch`): what the moves make of the chains (`moves`), which
targets have been away for so long that another takes their place, and whether new chains can be taken into the table.

*Lost targets.* A target that is OFFLINE for `lost_after_ms`, as this manager has seen it, while others of its chain
serve, is replaced on a node that is up, is not drained, is not on the chain, and has room. The move is cancelled if
the lost one serves again before, or if the new one is away for as long. 0: nothing is done by itself.

*New chains* enter the chain table, as its next version, when all of their targets are able: new files use them at once.

Called by: the manager, in the transaction that publishes the result (`docs/concurrency/manager.md`).
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from fs_common.records.routing import Chain, ChainTable, PublicState, Routing
from fs_meta.manager.moves import OVER, Edits, Limits, cancelled, needless, retiring, step
from fs_meta.manager.records import Move, MoveCause, MoveState, Store
from fs_meta.manager.target_ids import TargetIds

KEPT_MAX = 100
"""Moves that are over and still listed."""

Able = Callable[[Chain], Collection[int]]
"""The targets of a chain that are alive and whole."""


def _nothing(chain: Chain) -> int:
    return 0


class Room(NamedTuple):
    """A node that may get targets: it is up, and not drained."""

    node: int
    free_bytes: int


class Look(NamedTuple):
    """What one pass changes; all of it is one transaction."""

    chains: list[Chain]
    """All; the list that was given if none changes."""
    tables: list[ChainTable]
    moves: dict[int, Move]
    """The changed ones."""
    over: list[int]
    """Moves that are over for so long that they are not listed any more."""
    stores: list[Store]
    """Of targets that were placed, or taken from their chains."""


class MoveWatch:
    def __init__(self, moves: Iterable[Move], limits: Limits, lost_after_ms: int = 0) -> None:
        self.moves = {move.move: move for move in moves}
        """By id."""
        self.limits = limits
        self.lost_after_ms = lost_after_ms
        self.told: set[int] = set()
        """Targets that are to retire."""
        self._seen: list[Chain] | None = None
        """The list whose absent targets these are."""
        self._away: dict[int, int] = {}
        """Target id to when it was first seen OFFLINE."""
        self._short: dict[int, int] = {}
        """Chain id to when it was first seen with too few targets."""

    @property
    def active(self) -> list[Move]:
        """Those that are not over, in the order of their ids."""
        return sorted((move for move in self.moves.values() if move.state not in OVER), key=lambda move: move.move)

    def next_id(self) -> int:
        return max(self.moves, default=0) + 1

    def look(
        self,
        routing: Routing,
        chains: list[Chain],
        able: Able,
        rooms: Iterable[Room],
        ids: TargetIds,
        now_ms: int,
        size_of: Callable[[Chain], int] = _nothing,
    ) -> Look:
        """One pass. `chains`: as `advance` left them; `rooms`: nodes that may get targets; `size_of`: bytes that a
        replica of a chain takes."""
        by_id = {chain.chain: chain for chain in chains} if self.active or self.lost_after_ms else {}
        changed = self._undo_needless(by_id, now_ms)
        if self.lost_after_ms:
            changed |= self._replace_lost(chains, able, list(rooms), ids, now_ms, size_of)
        present = [changed.get(move.move, move) for move in self.active]
        present += [move for number, move in changed.items() if number not in self.moves]
        able_now = {
            target for number in {move.chain for move in present} & by_id.keys() for target in able(by_id[number])
        }
        edits = step(by_id, present, able_now, self.limits) if present else Edits({}, {}, [], [])
        after = [edits.chains.get(chain.chain, chain) for chain in chains] if edits.chains else chains
        moves = changed | edits.moves
        stores = [Store(target, b"", 0, 0, 0) for target in edits.placed]
        stores += [ids.retired(target) for target in edits.retired]
        tables = with_new_chains(routing.tables, after, able)
        return Look(after, tables, moves, self._outlived(moves), stores)

    def committed(self, look: Look, able: Able) -> None:
        """What `look` changed is durable."""
        self.moves |= look.moves
        for move in look.over:
            self.moves.pop(move, None)
        self.tell(look.chains, able)

    def tell(self, chains: Iterable[Chain], able: Able) -> None:
        """Who is to retire, as the chains are now."""
        leaving = {move.chain for move in self.moves.values() if move.state is MoveState.LEAVING}
        by_id = {chain.chain: chain for chain in chains if chain.chain in leaving} if leaving else {}
        able_now = {target for chain in by_id.values() for target in able(chain)}
        self.told = retiring(by_id, self.moves.values(), able_now, self.limits)

    def members(self, chain: Chain) -> list[tuple[int, int]]:
        """(target, node) of a chain as it will be when its moves are over."""
        active = [move for move in self.active if move.chain == chain.chain]
        leaving = {move.leaves for move in active}
        there = [(member.target, member.node) for member in chain.targets if member.target not in leaving]
        present = {target for target, _ in there}
        return there + [
            (move.joins, move.node) for move in active if move.joins and move.joins not in present | leaving
        ]

    def _undo_needless(self, chains: Mapping[int, Chain], now_ms: int) -> dict[int, Move]:
        undone = {}
        for move in self.active:
            chain = chains.get(move.chain)
            if chain is None or move.cancelled:
                continue
            since = self._away.get(move.joins)
            stuck = move.cause is MoveCause.LOST and since is not None and now_ms - since >= self.lost_after_ms > 0
            if stuck or needless(chain, move):
                undone[move.move] = cancelled(move)
        return undone

    def _replace_lost(
        self,
        chains: list[Chain],
        able: Able,
        rooms: list[Room],
        ids: TargetIds,
        now_ms: int,
        size_of: Callable[[Chain], int],
    ) -> dict[int, Move]:
        self._follow(chains, now_ms)
        due = {target for target, since in self._away.items() if now_ms - since >= self.lost_after_ms}
        short = {chain for chain, since in self._short.items() if now_ms - since >= self.lost_after_ms}
        made: dict[int, Move] = {}
        if not due and not short:
            return made
        moved = {target for move in self.active for target in (move.joins, move.leaves)}
        hosted = Counter(node for chain in chains for _, node in self.members(chain)) if due - moved or short else None
        for chain in chains:
            lost = [member.target for member in chain.targets if member.target in due - moved]
            members = self.members(chain)
            missing = self.limits.wanted - len(members) if chain.chain in short else 0
            if hosted is None or (not lost and missing <= 0):
                continue
            alive = able(chain)
            if not any(member.state is PublicState.SERVING and member.target in alive for member in chain.targets):
                continue
            for leaves in [*lost, *[0] * missing]:
                taken = {node for _, node in members} | {member.node for member in chain.targets}
                node = best_node(rooms, taken, hosted, self._nodes_away(chains), size_of(chain))
                if node is None:
                    break
                number = max([self.next_id() - 1, *made]) + 1
                joins = ids.allocate(node)
                made[number] = Move(number, chain.chain, joins, node, leaves, MoveCause.LOST)
                members.append((joins, node))
                hosted[node] += 1
        return made

    def _follow(self, chains: list[Chain], now_ms: int) -> None:
        """Since when targets are away; asked again only when some chain has changed."""
        if chains is self._seen:
            return
        self._seen = chains
        away = {
            member.target: chain.chain
            for chain in chains
            for member in chain.targets
            if member.state is PublicState.OFFLINE
        }
        self._away = {target: self._away.get(target, now_ms) for target in away}
        short = {chain.chain for chain in chains if len(self.members(chain)) < self.limits.wanted}
        self._short = {chain: self._short.get(chain, now_ms) for chain in short}

    def _nodes_away(self, chains: Iterable[Chain]) -> set[int]:
        return {member.node for chain in chains for member in chain.targets if member.target in self._away}

    def _outlived(self, changed: dict[int, Move]) -> list[int]:
        over = sorted(number for number, move in (self.moves | changed).items() if move.state in OVER)
        # The newest id stays, so that it is not given again.
        return [number for number in over[:-KEPT_MAX] if number != max(self.moves | changed)]


def best_node(
    rooms: Iterable[Room],
    taken: Collection[int],
    hosted: Mapping[int, int],
    doubtful: Collection[int] = (),
    needed_bytes: int = 0,
) -> int | None:
    """Where a target goes: the node with the fewest, best one whose own targets all work; None: nobody can take it.
    `taken`: nodes of its chain."""
    free = [room for room in rooms if room.node not in taken and room.free_bytes >= needed_bytes]
    if not free:
        return None
    best = min(free, key=lambda room: (room.node in doubtful, hosted.get(room.node, 0), -room.free_bytes, room.node))
    return best.node


def with_new_chains(tables: list[ChainTable], chains: Sequence[Chain], able: Able) -> list[ChainTable]:
    """With another version of the first table if there are chains that it lacks and that can be used: every target
    serves and is able. The same list otherwise."""
    if not tables:
        return tables
    newest = max((table for table in tables if table.table == tables[0].table), key=lambda table: table.version)
    if len(newest.chains) == len(chains):
        return tables
    known = set(newest.chains)
    ready = []
    for chain in chains:
        if chain.chain not in known and all(member.state is PublicState.SERVING for member in chain.targets):
            alive = able(chain)
            if all(member.target in alive for member in chain.targets):
                ready.append(chain.chain)
    if not ready:
        return tables
    return [*tables, ChainTable(newest.table, newest.version + 1, [*newest.chains, *ready])]
