"""Operations that took long: what each daemon remembers of them."""

from typing import Annotated, Final

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from fs_common.errors import Code, EmberError
from fs_common.methods import SLOW_OPERATIONS
from fs_common.records.routing import NodeState
from fs_common.records.session import Empty
from fs_common.records.slow import SlowOperation
from fs_meta.http.asking import ask_all
from fs_meta.http.callers import Reader, TheBackend
from fs_meta.http.problems import responses
from fs_meta.http.rest.names import time_of
from fs_meta.http.rest.paging import ID_MAX, LIMIT_DEFAULT, LIMIT_MAX

router = APIRouter(tags=["clients"])

NODES_MAX: Final = 100
"""That are asked for one answer."""


class SlowView(BaseModel):
    daemon: str = Field(description="Where: `meta`, or `node` and its number.", examples=["meta", "node 3"])
    operation: str = Field(examples=["create"])
    trace: str = Field(
        description="Of the client's operation, as in the logs of all daemons; zeros: of none.", examples=["0a1b2c3d"]
    )
    ended: str = Field(description="By the daemon's clock.", examples=["2026-01-02T03:04:05.000000000Z"])
    took_ms: float
    about: str = Field(description="Which inode and names, as far as the request says; for administrators.")
    times_ms: dict[str, float] = Field(description="Where the time went, as far as it is known.")
    peer: str = Field(description="Who asked.")
    error: str = Field(description="Name of the error that it ended with; empty: none.")


class SlowList(BaseModel):
    operations: list[SlowView] = Field(description="The newest first.")
    silent_nodes: list[int] = Field(description="That did not answer.")


@router.get("/slow-operations", responses=responses(404))
async def list_slow_operations(
    backend: TheBackend,
    caller: Reader,
    node: Annotated[
        int | None,
        Query(ge=0, le=ID_MAX, description="Of this storage node alone; 0: of this metadata server alone."),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=LIMIT_MAX, description="How many.")] = LIMIT_DEFAULT,
) -> SlowList:
    """What took long lately, on this metadata server and on the first hundred storage nodes."""
    nodes = (await backend.look(lambda: backend.manager.routing)).nodes
    if node:
        nodes = [each for each in nodes if each.node == node]
        if not nodes:
            raise EmberError(Code.NODE_UNKNOWN, f"there is no node {node}")
    asked = [] if node == 0 else [each for each in nodes if each.state is NodeState.UP][:NODES_MAX]
    replies = await backend.ask(lambda: ask_all(backend.pool, asked, SLOW_OPERATIONS, Empty()))
    said = {each.node: reply for each, reply in zip(asked, replies, strict=True)}
    # Names are seen by those who may look at them, and nobody knows here who may.
    names = caller is None or caller.admin
    found = [
        (slow.ended_s, _shown(slow, f"node {number}", names=names))
        for number, reply in said.items()
        if reply is not None
        for slow in reply.operations
    ]
    if not node:
        own = await backend.look(backend.server.slow_operations.snapshot)
        found += [(slow.ended_s, _shown(slow, "meta", names=names)) for slow in own]
    found.sort(key=lambda each: each[0], reverse=True)
    silent = [number for number, reply in said.items() if reply is None]
    return SlowList(operations=[view for _, view in found[:limit]], silent_nodes=silent)


def _shown(slow: SlowOperation, daemon: str, *, names: bool) -> SlowView:
    return SlowView(
        daemon=daemon,
        operation=slow.operation,
        trace=slow.trace,
        ended=time_of(int(slow.ended_s * 1000) * 1_000_000),
        took_ms=slow.took_ms,
        about=slow.about if names else "",
        times_ms=slow.times_ms,
        peer=slow.peer,
        error=slow.error,
    )
