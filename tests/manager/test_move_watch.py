"""Moves made by themselves, new chains in the table, ids: one manager's memory, with a clock that is set."""

import msgspec
import pytest

from fs_common.records.routing import Chain, ChainTable, ChainTarget, PublicState, Routing
from fs_meta.manager.move_watch import Look, MoveWatch, Room, best_node, with_new_chains
from fs_meta.manager.moves import Limits
from fs_meta.manager.records import Move, MoveCause, MoveState, Store
from fs_meta.manager.target_ids import FURTHER, TargetIds

S, Y, O = PublicState.SERVING, PublicState.SYNCING, PublicState.OFFLINE
LOST_MS = 1000


def chain(number: int, *states: tuple[int, PublicState], version: int = 1) -> Chain:
    return Chain(number, version, [ChainTarget(target, target // 100, state) for target, state in states])


class Bench:
    """A watch, and the chains that it is shown."""

    def __init__(self, *chains: Chain, moves: tuple[Move, ...] = (), lost_after_ms: int = LOST_MS) -> None:
        self.chains = list(chains)
        self.watch = MoveWatch(moves, Limits(3), lost_after_ms)
        self.tables = [ChainTable(1, 1, [each.chain for each in chains])]
        self.rooms = [Room(node, 1000) for node in (1, 2, 3, 4)]
        self.dead: set[int] = set()
        used = [member.target for each in chains for member in each.targets]
        self.ids = TargetIds({target: Store(target, b"u" * 16, 1, 1, 1) for target in used})

    def able(self, each: Chain) -> set[int]:
        return {member.target for member in each.targets} - self.dead

    def look(self, now_ms: int) -> Look:
        routing = Routing(1, "test", [], self.chains, self.tables, 3)
        look = self.watch.look(routing, self.chains, self.able, self.rooms, self.ids, now_ms)
        self.watch.committed(look, self.able)
        self.chains, self.tables = look.chains, look.tables
        return look

    def become(self, number: int, *states: tuple[int, PublicState]) -> None:
        at = next(at for at, each in enumerate(self.chains) if each.chain == number)
        version = self.chains[at].version + 1
        self.chains = [*self.chains[:at], chain(number, *states, version=version), *self.chains[at + 1 :]]


HEALTHY = chain(1, (101, S), (201, S), (301, S))
DEGRADED = chain(1, (101, S), (201, S), (301, O))


def test_a_target_that_is_away_for_long_is_replaced_elsewhere() -> None:
    bench = Bench(DEGRADED)
    bench.dead = {301}
    bench.rooms.pop(2)
    assert not bench.look(0).moves and not bench.look(LOST_MS - 1).moves
    look = bench.look(LOST_MS)
    assert look.moves == {1: Move(1, 1, 401, 4, 301, MoveCause.LOST, MoveState.FILLING)}
    assert [member.target for member in look.chains[0].targets] == [101, 201, 301, 401]
    assert look.stores == [Store(401, b"", 0, 0, 0)]
    assert not bench.look(LOST_MS * 5).moves, "once"


def test_nothing_is_replaced_by_itself_unless_that_is_wanted() -> None:
    bench = Bench(DEGRADED, lost_after_ms=0)
    bench.dead = {301}
    assert not bench.look(0).moves and not bench.look(10**9).moves


def test_a_target_that_comes_back_in_time_is_not_replaced() -> None:
    bench = Bench(DEGRADED)
    bench.look(0)
    bench.become(1, (101, S), (201, S), (301, S))
    bench.look(LOST_MS - 1)
    bench.become(1, (101, S), (201, S), (301, O))
    assert not bench.look(LOST_MS).moves, "it is counted anew"


def test_a_target_that_comes_back_while_it_is_replaced_is_kept() -> None:
    bench = Bench(DEGRADED)
    bench.look(0)
    bench.look(LOST_MS)
    bench.become(1, (101, S), (201, S), (301, S), (401, Y))
    look = bench.look(LOST_MS + 1)
    assert [member.target for member in look.chains[0].targets] == [101, 201, 301]
    assert bench.watch.moves[1].state is MoveState.CANCELLED
    assert [store.target for store in look.stores if store.retired] == [401]


def test_a_replacement_that_dies_is_replaced() -> None:
    bench = Bench(DEGRADED)
    bench.dead = {301}
    bench.rooms.pop(2)
    bench.look(0)
    bench.look(LOST_MS)
    bench.look(LOST_MS + 1)  # the new target is seen OFFLINE: its node has died
    bench.rooms = [Room(1, 1000), Room(2, 1000), Room(5, 1000)]
    bench.look(LOST_MS * 2 + 1)
    bench.look(LOST_MS * 2 + 2)
    assert [member.target for member in bench.chains[0].targets] == [101, 201, 301, 501]


@pytest.mark.parametrize(
    "broken", [chain(1, (101, PublicState.LASTSRV), (201, O), (301, O)), chain(1, (101, S), (201, O), (301, O))]
)
def test_a_chain_that_nobody_able_serves_is_left_as_it_is(broken: Chain) -> None:
    bench = Bench(broken)
    bench.dead = {101, 201, 301}
    bench.look(0)
    assert not bench.look(LOST_MS).moves


def test_without_a_node_with_room_nothing_moves() -> None:
    bench = Bench(DEGRADED)
    bench.rooms = bench.rooms[:3]
    bench.look(0)
    assert not bench.look(LOST_MS).moves, "all others are on the chain"
    bench.rooms.append(Room(4, 1000))
    assert bench.look(LOST_MS + 1).moves


def test_a_chain_with_too_few_targets_gets_one() -> None:
    bench = Bench(chain(1, (101, S), (201, S)))
    bench.look(0)
    look = bench.look(LOST_MS)
    assert look.moves[1].leaves == 0 and look.moves[1].joins == 301


def test_who_is_to_retire_is_known_after_the_commit() -> None:
    move = Move(1, 1, 401, 4, 301, MoveCause.DRAIN, MoveState.FILLING)
    bench = Bench(chain(1, (101, S), (201, S), (301, S), (401, S)), moves=(move,))
    bench.look(0)
    assert bench.watch.told == {301}
    bench.dead = {101}
    bench.watch.tell(bench.chains, bench.able)
    assert not bench.watch.told


def test_members_are_those_when_all_moves_are_over() -> None:
    moves = (
        Move(1, 1, 401, 4, 301, MoveCause.DRAIN, MoveState.FILLING),
        Move(2, 1, 501, 5, 201, MoveCause.DRAIN),
        Move(3, 1, 601, 6, 101, MoveCause.DRAIN, MoveState.DONE),
    )
    watch = MoveWatch(moves, Limits(3))
    now = chain(1, (101, S), (201, S), (301, S), (401, Y))
    assert watch.members(now) == [(101, 1), (401, 4), (501, 5)]


def test_the_node_with_the_fewest_takes_a_target() -> None:
    rooms = [Room(1, 10), Room(2, 50), Room(3, 50), Room(4, 40)]
    assert best_node(rooms, {1}, {2: 3, 3: 1, 4: 1}) == 3, "of equal ones, that with the most room"
    assert best_node(rooms, {1}, {2: 3, 3: 1, 4: 1}, doubtful={3}) == 4
    assert best_node(rooms, {3, 4}, {2: 3, 1: 0}, needed_bytes=20) == 2
    assert best_node(rooms, {1, 2, 3, 4}, {}) is None


def test_new_chains_enter_the_table_when_all_of_them_can_be_used() -> None:
    tables = [ChainTable(1, 1, [1])]
    chains = [HEALTHY, chain(2, (102, S), (202, S)), chain(3, (302, S), (402, O))]
    able = {101, 201, 301, 102, 302, 402}
    assert with_new_chains(tables, chains, lambda each: able) is tables, "target 202 has no store yet"
    grown = with_new_chains(tables, chains, lambda each: able | {202})
    assert grown == [ChainTable(1, 1, [1]), ChainTable(1, 2, [1, 2])]
    assert with_new_chains(grown, chains[:2], lambda each: able) is grown


def test_ids_are_not_given_twice() -> None:
    stores = {401: Store(401, b"u" * 16, 1, 1, 1), 402: Store(402, b"u" * 16, 1, 1, 1, retired=True)}
    ids = TargetIds(stores, [403])
    assert [ids.allocate(4), ids.allocate(4), ids.allocate(5)] == [404, 405, 501]
    for number in range(406, 500):
        assert ids.allocate(4) == number
    assert [ids.allocate(4), ids.allocate(4)] == [FURTHER + 1, FURTHER + 2]
    assert ids.allocate(30_000_000) == FURTHER + 3, "whose own ids would not fit"
    assert ids.retired(401) == msgspec.structs.replace(stores[401], retired=True)


def test_moves_that_are_over_are_listed_for_a_while() -> None:
    moves = tuple(Move(n, 1, 400 + n, 4, 0, MoveCause.OPERATOR, MoveState.DONE) for n in range(1, 131))
    bench = Bench(HEALTHY, moves=moves, lost_after_ms=0)
    look = bench.look(0)
    assert look.over == list(range(1, 31)) and len(bench.watch.moves) == 100
    assert bench.watch.next_id() == 131
