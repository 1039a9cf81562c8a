"""Moves of targets, and what begins and ends them.

A move fills up a new target, then takes the old one from its chain: files are read and written meanwhile. Moves go on
by themselves, whatever becomes of the request that ordered them.
"""

from typing import Annotated, Final

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from fs_common.chain_words import seconds_left
from fs_common.errors import Code, EmberError
from fs_common.records.chains import SyncProgress
from fs_common.records.targets import CancelMoves, Drain, MovesReply, MoveView, Rebalance, ReplaceTarget
from fs_meta.http.callers import Administrator, Reader, TheBackend
from fs_meta.http.problems import responses
from fs_meta.http.rest.chains import Filling
from fs_meta.http.rest.paging import ID_MAX, LIMIT_DEFAULT, After, Id, Limit, Page
from fs_meta.http.rest.states import MoveCause, MoveState

router = APIRouter(tags=["moves"])

PLAN_TIMEOUT_S: Final = 60.0
"""A plan for hundreds of nodes takes seconds."""


class Move(BaseModel):
    """A chain gets a target and gives one up."""

    move: int | None = Field(description="Its number; null: it is not made (a dry run).")
    chain: int
    joins: int | None = Field(description="The target that joins; null: none, or its id is not chosen yet.")
    node: int | None = Field(description="Where it joins; null: none joins.")
    leaves: int | None = Field(description="The target that leaves; null: none.")
    source: int | None = Field(description="Where that one is; null: none leaves, or it is gone.")
    cause: MoveCause
    state: MoveState
    doing: str = Field(description="One line: what it does or waits for.")
    filling: Filling | None = Field(description="While it is filled up: how far.")


class MovePage(Page):
    moves: list[Move] = Field(description="In the order in which they were made; the last that are over, too.")


class Plan(BaseModel):
    """What was ordered, or would be."""

    dry_run: bool
    moves: list[Move]
    new_chains: list[list[int]] = Field(description="The nodes of each chain that is added, head first.")
    least_moves: int = Field(description="What any plan has to move.")
    spread_before: float = Field(description="A dead node's reads: the most loaded survivor, over the average one.")
    spread_after: float = Field(description="The same, when the moves are over.")
    spread_possible: float = Field(description="The least there can be.")


class Order(BaseModel):
    model_config = ConfigDict(extra="forbid")

    dry_run: bool = Field(default=False, description="Only say what would move.")


class Draining(Order):
    undo: bool = Field(default=False, description="It may have targets again; what has not moved stays.")


class Replacement(Order):
    node: int = Field(
        default=0,
        ge=0,
        le=ID_MAX,
        description="Where; 0: its own node if that is up, otherwise the one with the fewest targets.",
    )


class Cancellation(BaseModel):
    model_config = ConfigDict(extra="forbid")

    moves: list[Annotated[int, Field(ge=1, le=ID_MAX)]] = Field(
        default=[], max_length=1000, description="Their numbers; none: all that are not over."
    )


def filling_of(sync: SyncProgress | None) -> Filling | None:
    if sync is None:
        return None
    return Filling(
        target=sync.target,
        chunks_done=sync.chunks_done,
        chunks_total=sync.chunks_total,
        chunks_sent=sync.chunks_sent,
        bytes_sent=sync.bytes_sent,
        seconds=sync.began_ms / 1000,
        seconds_left=seconds_left(sync),
    )


def move_of(view: MoveView) -> Move:
    return Move(
        move=view.move or None,
        chain=view.chain,
        joins=view.joins or None,
        node=view.node or None,
        leaves=view.leaves or None,
        source=view.source or None,
        cause=view.cause,  # type: ignore[arg-type]
        state=view.state,  # type: ignore[arg-type]
        doing=view.doing,
        filling=filling_of(view.sync),
    )


def plan_of(reply: MovesReply, *, dry_run: bool = False) -> Plan:
    return Plan(
        dry_run=dry_run,
        moves=[move_of(view) for view in reply.moves],
        new_chains=reply.new_chains,
        least_moves=reply.least_moves,
        spread_before=reply.spread_before,
        spread_after=reply.spread_after,
        spread_possible=reply.spread_possible,
    )


@router.get("/moves", responses=responses())
async def list_moves(
    backend: TheBackend,
    caller: Reader,
    after: After = 0,
    limit: Limit = LIMIT_DEFAULT,
    active: Annotated[bool, Query(description="Only those that are not over.")] = False,
) -> MovePage:
    """A page of the moves, by number."""
    reply = await backend.look(lambda: backend.growth.moves(after, limit, active=active))
    return MovePage(moves=[move_of(view) for view in reply.moves], next=reply.next or None)


@router.get("/moves/{move}", responses=responses(404))
async def show_move(backend: TheBackend, caller: Reader, move: Id) -> Move:
    """One move, while it is remembered."""
    reply = await backend.look(lambda: backend.growth.moves(move - 1, 1))
    if not reply.moves or reply.moves[0].move != move:
        raise EmberError(Code.NOT_FOUND, f"there is no move {move}, or it is long over")
    return move_of(reply.moves[0])


@router.post("/moves/cancellation", responses=responses(409))
async def cancel_moves(backend: TheBackend, caller: Administrator, cancellation: Cancellation) -> Plan:
    """Stop moves. What has joined a chain leaves it again when it is not needed; what has left stays away."""
    return plan_of(await backend.ask(lambda: backend.growth.cancel(CancelMoves(cancellation.moves))))


@router.post("/rebalance", responses=responses(409))
async def rebalance(backend: TheBackend, caller: Administrator, order: Order) -> Plan:
    """Spread targets over all nodes, moving as few as possible, and add the chains that a grown cluster has."""
    request = Rebalance(order.dry_run)
    reply = await backend.ask(lambda: backend.growth.rebalance(request), PLAN_TIMEOUT_S)
    return plan_of(reply, dry_run=order.dry_run)


@router.post("/targets/{target}/replacement", tags=["targets"], responses=responses(409))
async def replace_target(backend: TheBackend, caller: Administrator, target: Id, replacement: Replacement) -> Plan:
    """Replace a target whose disk is gone for good. What the old one held is never used again."""
    request = ReplaceTarget(target, replacement.node, replacement.dry_run)
    reply = await backend.ask(lambda: backend.growth.replace(request), PLAN_TIMEOUT_S)
    return plan_of(reply, dry_run=replacement.dry_run)


@router.post("/targets/{target}/drain", tags=["targets"], responses=responses(409))
async def drain_target(backend: TheBackend, caller: Administrator, target: Id, draining: Draining) -> Plan:
    """Move one target to another node."""
    request = Drain(target=target, undo=draining.undo, dry_run=draining.dry_run)
    reply = await backend.ask(lambda: backend.growth.drain(request), PLAN_TIMEOUT_S)
    return plan_of(reply, dry_run=draining.dry_run)
