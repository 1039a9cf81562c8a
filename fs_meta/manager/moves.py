"""Moves: a chain gets a target and gives one up, while it serves. A pure state machine beside that of the chains.

A move names a chain, the target that joins it (a new id on a node, or none) and the one that leaves it (or none). It
changes the list of a chain's targets and nothing else: what state each has is decided by `chains.advance` alone, and a
target joins as OFFLINE, so it is made (verdict FORMAT), waits, is filled up and serves like any that was away. `step`
is one pass, made on the chains that `advance` has just made.

| state | means | goes on when |
| --- | --- | --- |
| QUEUED | nothing has changed | the limits allow it, and somebody able serves |
| FILLING | the joining target is on the chain | it serves |
| LEAVING | the leaving one is told to retire while enough others serve | it serves no more: it is taken off the chain |
| DONE, CANCELLED | it is over | |

A move that has nothing to fill begins as LEAVING, one that has nothing to give up ends when it has filled.

What holds, whatever dies meanwhile:

* Only a target that is no survivor is taken from a chain: never SERVING, never LASTSRV. So none that has acknowledged
  updates for itself goes, and the version of the chain grows, which tells everybody.
* A target is told to retire only while enough others serve and are able. It stops before it says OFFLINE, and
  `advance` takes it for dead then, as any that says so. If others die in between, it is told no more, and filled up.
* A leaving target that is dead stays on the list until the joining one serves: until then it may come back, and an
  operator may still need it as the last one that knows anything.
* A cancelled move gives up what joined, in the same way. What left is not brought back.
* A target id is used once; the store of one that was taken from its chain is marked retired in the same transaction.

One chain fills up one target at a time, and one node few (`Limits`): the bandwidth of each is bounded by the daemon
that fills it (`docs/concurrency/chains.md`).

Called by: the manager, in the transaction that publishes the result.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

import msgspec

from fs_common.records.routing import Chain, ChainTarget, PublicState
from fs_meta.manager.records import Move, MoveCause, MoveState

OVER = (MoveState.DONE, MoveState.CANCELLED)
_SURVIVES = (PublicState.SERVING, PublicState.LASTSRV)


class Limits(NamedTuple):
    wanted: int
    """Serving targets that a chain has without the one that leaves."""
    per_node: int = 2
    """Moves that fill a target on one node at a time."""
    at_once: int = 64
    """Moves that fill at a time, in the whole cluster."""


class Edits(NamedTuple):
    """What one pass changes; all of it is one transaction."""

    chains: dict[int, Chain]
    """The changed ones."""
    moves: dict[int, Move]
    """The changed ones, by move id."""
    placed: list[int]
    """Target ids that joined a chain: they have no store yet."""
    retired: list[int]
    """Target ids that were taken from their chain: their stores are worth nothing any more."""


def step(chains: Mapping[int, Chain], moves: Iterable[Move], able: Collection[int], limits: Limits) -> Edits:
    """One pass over all moves, in the order of their ids. `chains`: by id, as they are now; `able`: ids of the targets
    that are alive and whole (`chains.Standing.ABLE`)."""
    edits = Edits({}, {}, [], [])
    filling = [move for move in moves if move.state is MoveState.FILLING]
    busy_chains = {move.chain for move in filling}
    busy_nodes = Counter(move.node for move in filling)
    for move in sorted(moves, key=lambda move: move.move):
        if move.state in OVER:
            continue
        chain = edits.chains.get(move.chain) or chains.get(move.chain)
        if chain is None:
            edits.moves[move.move] = msgspec.structs.replace(move, state=MoveState.CANCELLED)
            continue
        if move.state is MoveState.QUEUED:
            full = busy_nodes[move.node] >= limits.per_node or busy_nodes.total() >= limits.at_once
            if move.joins and (full or move.chain in busy_chains):
                continue
            after, changed = _begin(chain, move, able)
            if after.state is MoveState.FILLING:
                busy_chains.add(move.chain)
                busy_nodes[move.node] += 1
        else:
            after, changed = _go_on(chain, move, able, limits.wanted)
        if after != move:
            edits.moves[move.move] = after
        if changed != chain:
            edits.chains[move.chain] = changed
            was, now = ({target.target for target in each.targets} for each in (chain, changed))
            edits.placed.extend(now - was)
            edits.retired.extend(was - now)
    return edits


def retiring(chains: Mapping[int, Chain], moves: Iterable[Move], able: Collection[int], limits: Limits) -> set[int]:
    """Target ids that are to be told to retire, as things are now."""
    told = set()
    for move in moves:
        chain = chains.get(move.chain)
        if chain is not None and move.state is MoveState.LEAVING and _enough(chain, move, able, limits.wanted):
            told.add(move.leaves)
    return told


def cancelled(move: Move) -> Move:
    """The move that undoes it: what joined leaves again. One that is over stays over."""
    if move.state in OVER or move.cancelled:
        return move
    if move.state is MoveState.QUEUED or not move.joins:
        return msgspec.structs.replace(move, state=MoveState.CANCELLED, cancelled=True)
    return msgspec.structs.replace(move, state=MoveState.LEAVING, leaves=move.joins, joins=0, node=0, cancelled=True)


def needless(chain: Chain, move: Move) -> bool:
    """Whether a move that replaces a lost target has lost its reason: that one serves again before the new one does."""
    if move.cause is not MoveCause.LOST or move.state not in (MoveState.QUEUED, MoveState.FILLING):
        return False
    return _state(chain, move.leaves) is PublicState.SERVING and _state(chain, move.joins) is not PublicState.SERVING


def waits_for(chain: Chain | None, move: Move, able: Collection[int], limits: Limits) -> str:
    """One line for people: what a move is doing or waiting for."""
    if chain is None:
        return "its chain is gone"
    serving = _serving(chain, able)
    match move.state:
        case MoveState.QUEUED:
            if move.joins and not serving:
                return f"waits: nobody who has everything serves chain {chain.chain}"
            return "waits for its turn"
        case MoveState.FILLING:
            match _state(chain, move.joins):
                case PublicState.SYNCING:
                    return f"fills up target {move.joins}"
                case PublicState.WAITING:
                    return f"target {move.joins} waits for its turn on chain {chain.chain}"
                case _:
                    return f"waits for node {move.node} to make target {move.joins}"
        case MoveState.LEAVING:
            others = serving - {move.leaves}
            if _state(chain, move.leaves) in _SURVIVES and len(others) < limits.wanted:
                return (
                    f"target {move.leaves} serves on: chain {chain.chain} has {len(others)} others of {limits.wanted}"
                )
            return f"target {move.leaves} retires"
        case MoveState.DONE:
            return "done"
        case MoveState.CANCELLED:
            return "cancelled"


def _begin(chain: Chain, move: Move, able: Collection[int]) -> tuple[Move, Chain]:
    if not move.joins:
        return msgspec.structs.replace(move, state=MoveState.LEAVING), chain
    if not _serving(chain, able):
        return move, chain
    kept = chain.targets
    there = next((target for target in kept if target.node == move.node), None)
    if there is not None:
        # A lost target is replaced on its own node: it makes room for the new one, as a node is on a chain once.
        if there.target != move.leaves or there.state in _SURVIVES:
            return msgspec.structs.replace(move, state=MoveState.CANCELLED), chain  # the lost one is back, or another
        kept = [target for target in kept if target is not there]
    joined = [*kept, ChainTarget(move.joins, move.node, PublicState.OFFLINE)]
    return msgspec.structs.replace(move, state=MoveState.FILLING), Chain(chain.chain, chain.version + 1, joined)


def _go_on(chain: Chain, move: Move, able: Collection[int], wanted: int) -> tuple[Move, Chain]:
    if move.state is MoveState.FILLING:
        if not _has(chain, move.joins):
            return msgspec.structs.replace(move, state=MoveState.CANCELLED), chain
        if _state(chain, move.joins) is not PublicState.SERVING:
            return move, chain
        leaves = bool(move.leaves) and _has(chain, move.leaves)
        return msgspec.structs.replace(move, state=MoveState.LEAVING if leaves else MoveState.DONE), chain
    over = MoveState.CANCELLED if move.cancelled else MoveState.DONE
    if not _has(chain, move.leaves):
        return msgspec.structs.replace(move, state=over), chain
    if not _may_go(chain, move, able, wanted):
        return move, chain
    left = [target for target in chain.targets if target.target != move.leaves]
    return msgspec.structs.replace(move, state=over), Chain(chain.chain, chain.version + 1, left)


def _may_go(chain: Chain, move: Move, able: Collection[int], wanted: int) -> bool:
    """Whether the leaving target can be taken from the chain now."""
    if _state(chain, move.leaves) in _SURVIVES:
        return False
    if move.cancelled:
        return True  # it has nothing that others do not have
    serving = _serving(chain, able)
    return move.joins in serving if _has(chain, move.joins) else len(serving) >= wanted


def _enough(chain: Chain, move: Move, able: Collection[int], wanted: int) -> bool:
    """Whether the chain has enough without the leaving target."""
    return len(_serving(chain, able) - {move.leaves}) >= wanted


def _serving(chain: Chain, able: Collection[int]) -> set[int]:
    return {target.target for target in chain.targets if target.state is PublicState.SERVING and target.target in able}


def _state(chain: Chain, target: int) -> PublicState | None:
    return next((member.state for member in chain.targets if member.target == target), None)


def _has(chain: Chain, target: int) -> bool:
    return any(member.target == target for member in chain.targets)
