"""Moves of targets beside the chain state machine: examples, then random histories with deaths in between.

The histories hold what is promised: a chain loses no serving target to a move, and no update that was acknowledged.
"""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fs_common.records.routing import Chain, ChainTarget, LocalState, PublicState
from fs_meta.manager.chains import Report, advance
from fs_meta.manager.moves import OVER, Limits, cancelled, needless, retiring, step, waits_for
from fs_meta.manager.records import Move, MoveCause, MoveState

S, L, Y, W, O = (
    PublicState.SERVING,
    PublicState.LASTSRV,
    PublicState.SYNCING,
    PublicState.WAITING,
    PublicState.OFFLINE,
)
LIMITS = Limits(wanted=3)


def chain(*states: tuple[int, PublicState], number: int = 1, version: int = 5) -> Chain:
    """Target 101 is on node 1."""
    return Chain(number, version, [ChainTarget(target, target // 100, state) for target, state in states])


HEALTHY = chain((101, S), (201, S), (301, S))
REPLACE = Move(1, 1, joins=401, node=4, leaves=301, cause=MoveCause.OPERATOR)
ALL = {101, 201, 301, 401}


def with_state(move: Move, state: MoveState) -> Move:
    return msgspec.structs.replace(move, state=state)


def test_a_target_joins_as_offline_and_has_no_store_yet() -> None:
    edits = step({1: HEALTHY}, [REPLACE], ALL, LIMITS)
    assert edits.chains == {1: chain((101, S), (201, S), (301, S), (401, O), version=6)}
    assert edits.moves == {1: with_state(REPLACE, MoveState.FILLING)}
    assert edits.placed == [401] and not edits.retired


def test_nobody_retires_before_the_new_target_serves() -> None:
    filling = with_state(REPLACE, MoveState.FILLING)
    syncing = {1: chain((101, S), (201, S), (301, S), (401, Y))}
    assert step(syncing, [filling], ALL, LIMITS) == ({}, {}, [], [])
    assert not retiring(syncing, [filling], ALL, LIMITS)
    serving = {1: chain((101, S), (201, S), (301, S), (401, S))}
    edits = step(serving, [filling], ALL, LIMITS)
    assert edits.moves == {1: with_state(REPLACE, MoveState.LEAVING)} and not edits.chains
    assert retiring(serving, edits.moves.values(), ALL, LIMITS) == {301}


@pytest.mark.parametrize("dead", [101, 401])
def test_nobody_retires_while_too_few_others_are_able(dead: int) -> None:
    leaving = with_state(REPLACE, MoveState.LEAVING)
    serving = {1: chain((101, S), (201, S), (301, S), (401, S))}
    assert not retiring(serving, [leaving], ALL - {dead}, LIMITS)


def test_a_target_is_taken_off_when_it_serves_no_more() -> None:
    leaving = with_state(REPLACE, MoveState.LEAVING)
    assert not step({1: chain((101, S), (201, S), (401, S), (301, S))}, [leaving], ALL, LIMITS).chains
    edits = step({1: chain((101, S), (201, S), (401, S), (301, O))}, [leaving], ALL - {301}, LIMITS)
    assert edits.chains == {1: chain((101, S), (201, S), (401, S), version=6)}
    assert edits.moves == {1: with_state(REPLACE, MoveState.DONE)}
    assert edits.retired == [301]


def test_a_dead_target_stays_until_its_replacement_serves() -> None:
    filling = with_state(REPLACE, MoveState.FILLING)
    alive = ALL - {301}
    assert not step({1: chain((101, S), (201, S), (401, Y), (301, O))}, [filling], alive, LIMITS).chains
    after = step({1: chain((101, S), (201, S), (401, S), (301, O))}, [filling], alive, LIMITS)
    assert after.moves[1].state is MoveState.LEAVING
    gone = step({1: chain((101, S), (201, S), (401, S), (301, O))}, list(after.moves.values()), alive, LIMITS)
    assert gone.retired == [301] and gone.moves[1].state is MoveState.DONE


@pytest.mark.parametrize("state", [S, L])
def test_a_survivor_is_never_taken_off(state: PublicState) -> None:
    leaving = with_state(REPLACE, MoveState.LEAVING)
    others = S if state is S else L
    stays = {1: chain((101, others), (201, others), (401, others), (301, state))}
    assert not step(stays, [leaving], set(), LIMITS).chains
    assert not step(stays, [leaving], ALL, LIMITS).chains


def test_nothing_begins_on_a_chain_that_nobody_able_serves() -> None:
    for broken in (chain((101, L), (201, O), (301, O)), HEALTHY):
        assert step({1: broken}, [REPLACE], set(), LIMITS) == ({}, {}, [], [])
    assert "nobody who has everything" in waits_for(HEALTHY, REPLACE, set(), LIMITS)


def test_a_lost_target_is_replaced_on_its_own_node() -> None:
    """A node is on a chain once, so the lost one makes room at once; it has nothing."""
    again = Move(1, 1, joins=302, node=3, leaves=301, cause=MoveCause.OPERATOR)
    edits = step({1: chain((101, S), (201, S), (301, O))}, [again], {101, 201}, LIMITS)
    assert edits.chains == {1: chain((101, S), (201, S), (302, O), version=6)}
    assert edits.retired == [301] and edits.placed == [302]
    done = step({1: chain((101, S), (201, S), (302, S))}, list(edits.moves.values()), {101, 201, 302}, LIMITS)
    assert done.moves[1].state is MoveState.DONE and not done.chains and not done.retired


def test_a_target_that_serves_is_not_replaced_on_its_own_node() -> None:
    """It was lost, and is back."""
    again = Move(1, 1, joins=302, node=3, leaves=301, cause=MoveCause.OPERATOR)
    edits = step({1: HEALTHY}, [again], ALL, LIMITS)
    assert edits.moves[1].state is MoveState.CANCELLED and not edits.chains


def test_a_move_to_a_node_that_is_on_the_chain_by_now_is_over() -> None:
    edits = step({1: chain((101, S), (201, S), (301, S), (402, S))}, [REPLACE], ALL, LIMITS)
    assert edits.moves[1].state is MoveState.CANCELLED and not edits.chains


def test_a_cancelled_move_gives_up_what_joined() -> None:
    filling = with_state(REPLACE, MoveState.FILLING)
    undone = cancelled(filling)
    edits = step({1: chain((101, S), (201, S), (301, S), (401, Y))}, [undone], ALL, LIMITS)
    assert edits.chains == {1: chain((101, S), (201, S), (301, S), version=6)}
    assert edits.retired == [401] and edits.moves[1].state is MoveState.CANCELLED


def test_a_cancelled_move_whose_target_serves_retires_it_first() -> None:
    undone = cancelled(with_state(REPLACE, MoveState.LEAVING))
    serving = {1: chain((101, S), (201, S), (301, S), (401, S))}
    assert not step(serving, [undone], ALL, LIMITS).chains
    assert retiring(serving, [undone], ALL, LIMITS) == {401}


def test_a_queued_move_is_cancelled_at_once_and_one_that_is_over_stays_over() -> None:
    assert cancelled(REPLACE).state is MoveState.CANCELLED
    done = with_state(REPLACE, MoveState.DONE)
    assert cancelled(done) is done
    undone = cancelled(with_state(REPLACE, MoveState.FILLING))
    assert cancelled(undone) is undone


def test_a_lost_target_that_is_back_needs_no_replacement() -> None:
    lost = msgspec.structs.replace(REPLACE, cause=MoveCause.LOST, state=MoveState.FILLING)
    assert needless(chain((101, S), (201, S), (301, S), (401, Y)), lost)
    assert not needless(chain((101, S), (201, S), (301, O), (401, Y)), lost)
    assert not needless(chain((101, S), (201, S), (301, S), (401, S)), lost), "it serves already"
    assert not needless(HEALTHY, REPLACE), "an operator wanted it"


def test_one_chain_fills_one_target_and_one_node_few() -> None:
    chains = {
        number: Chain(number, 1, [ChainTarget(node * 100 + number, node, S) for node in (1, 2, 3)])
        for number in range(1, 6)
    }
    able = {target.target for each in chains.values() for target in each.targets}
    moves = [Move(n, n, joins=400 + n, node=4, leaves=100 + n, cause=MoveCause.REBALANCE) for n in range(1, 6)]
    moves.append(Move(6, 1, joins=501, node=5, leaves=201, cause=MoveCause.REBALANCE))
    edits = step(chains, moves, able, Limits(3, per_node=2))
    assert edits.placed == [401, 402], "in the order of their ids, two on node 4"
    assert all(len(each.targets) == 4 for each in edits.chains.values())
    both = step(chains, moves[1:], able, Limits(3, per_node=2))
    assert set(both.placed) == {402, 403, 501}
    assert step(chains, moves, able, Limits(3, at_once=1)).placed == [401]


class World:
    """One chain of a cluster of six nodes; how many updates each store has."""

    def __init__(self) -> None:
        self.chain = HEALTHY
        self.moves: dict[int, Move] = {}
        self.acknowledged = 0
        self.stores = {101: 0, 201: 0, 301: 0}
        self.nodes_down: set[int] = set()
        self.lost: set[int] = set()
        """Targets whose disks are gone for good."""
        self.told: set[int] = set()
        """Targets that serve nothing since the manager told them to retire."""
        self.synced: dict[int, int] = {}
        self.next_target = 1

    def alive(self, target: int) -> bool:
        return target // 100 not in self.nodes_down and target not in self.lost

    def reports(self) -> dict[int, Report]:
        says = {}
        for member in self.chain.targets:
            target = member.target
            if not self.alive(target) or target in self.told or target not in self.stores:
                continue
            if member.state is S or self.synced.get(target) == self.chain.version:
                says[target] = Report(LocalState.UPTODATE, self.chain.version)
            else:
                says[target] = Report(LocalState.ONLINE, self.chain.version)
        return says

    def able(self) -> set[int]:
        return set(self.reports())

    def manager(self) -> None:
        """One pass of the manager: the chain, then the moves, in one transaction."""
        before = self.serving()
        self.chain = advance(self.chain, self.reports())
        between = self.serving()
        # Whoever stopped serving had died, or was told to while enough others were there.
        assert all(not self.alive(target) or target in self.told for target in before - between)
        edits = step({1: self.chain}, self.moves.values(), self.able(), LIMITS)
        self.chain = edits.chains.get(1, self.chain)
        self.moves |= edits.moves
        for target in edits.retired:
            self.stores.pop(target, None)  # its node removes it at once
        assert self.serving() == between, "a move takes nobody who serves"
        self.check()

    def serving(self) -> set[int]:
        return {member.target for member in self.chain.targets if member.state is S}

    def check(self) -> None:
        survivors = {member.target for member in self.chain.targets if member.state in (S, L)}
        assert survivors, "somebody serves, or is waited for"
        for target in survivors:
            assert target in self.lost or self.stores[target] == self.acknowledged, "nothing acknowledged is lost"
        nodes = [member.node for member in self.chain.targets]
        assert len(set(nodes)) == len(nodes)

    def write(self) -> None:
        """Acknowledged only when all that serve have it, and the one that is filled up, behind them."""
        reached = [member.target for member in self.chain.targets if member.state in (S, Y)]
        if self.serving() and all(self.alive(target) and target not in self.told for target in reached):
            self.acknowledged += 1
            for target in reached:
                if self.stores.get(target) == self.acknowledged - 1:
                    self.stores[target] = self.acknowledged

    def format(self) -> None:
        for member in self.chain.targets:
            if member.target not in self.stores and self.alive(member.target):
                self.stores[member.target] = 0

    def sync(self) -> None:
        """A round of filling ends: by then every update goes through the syncing target."""
        if not any(self.alive(target) and target not in self.told for target in self.serving()):
            return
        for member in self.chain.targets:
            if member.state is Y and self.alive(member.target) and member.target in self.stores:
                self.stores[member.target] = self.acknowledged
                self.synced[member.target] = self.chain.version

    def verdicts(self) -> None:
        told = retiring({1: self.chain}, self.moves.values(), self.able(), LIMITS)
        for target in told:
            others = self.serving() & self.able() - {target}
            assert len(others) >= LIMITS.wanted
        self.told |= {target for target in told if self.alive(target)}
        serving = self.serving()
        # Who was told stays silent for as long as it might still be taken to serve.
        self.told -= {target for target in self.told - told if target not in serving}

    def begin(self, node: int, leaves: int | None) -> None:
        joins = node * 100 + 50 + self.next_target
        self.next_target += 1
        number = len(self.moves) + 1
        self.moves[number] = Move(number, 1, joins, node, leaves or 0, MoveCause.OPERATOR)

    def settle(self) -> None:
        """Faults have stopped: nodes come back, disks that are gone do not."""
        self.nodes_down.clear()
        for _ in range(200):
            self.format()
            self.verdicts()
            self.manager()
            self.sync()
            self.write()


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_no_history_of_moves_and_deaths_costs_a_replica_or_an_update(data: st.DataObject) -> None:
    world = World()
    for _ in range(data.draw(st.integers(1, 60))):
        match data.draw(st.sampled_from("wwwmmmmvvfsskkrbcl")):
            case "w":
                world.write()
            case "m":
                world.manager()
            case "v":
                world.verdicts()
            case "f":
                world.format()
            case "s":
                world.sync()
            case "k":
                world.nodes_down.add(data.draw(st.integers(1, 6)))
            case "r" if world.nodes_down:
                world.nodes_down.discard(data.draw(st.sampled_from(sorted(world.nodes_down))))
            case "b" if len(world.moves) < 6:
                members = [member.target for member in world.chain.targets]
                world.begin(data.draw(st.integers(1, 6)), data.draw(st.sampled_from([None, *members])))
            case "c" if world.moves:
                number = data.draw(st.sampled_from(sorted(world.moves)))
                world.moves[number] = cancelled(world.moves[number])
            case "l" if not world.lost and len(world.serving() & world.able()) > 1:
                world.lost.add(data.draw(st.sampled_from(sorted(world.serving()))))
            case _:
                pass
    world.settle()
    serving = world.serving()
    members = {member.target for member in world.chain.targets}
    assert serving == members - world.lost, "all that are not gone for good serve in the end"
    for move in world.moves.values():
        # One that waits says what for: another target that is gone keeps the leaving one on its chain.
        assert move.state in OVER or world.lost or len(serving - {move.leaves}) < LIMITS.wanted
