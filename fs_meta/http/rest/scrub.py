"""The scrub: the reading of all that is stored, to find what is damaged and what differs."""

import asyncio
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from fs_common.errors import EmberError
from fs_common.methods import SCRUB
from fs_common.records.routing import NodeInfo, NodeState
from fs_common.records.scrubbing import Scrub, ScrubReply
from fs_meta.http.backend import Backend
from fs_meta.http.callers import Administrator, Reader, TheBackend
from fs_meta.http.problems import responses
from fs_meta.http.rest.paging import ID_MAX, LIMIT_DEFAULT, After, Limit, Page

router = APIRouter(tags=["scrub"])

_ASK_TIMEOUT_S = 3.0
_ASKED_AT_ONCE = 16
NODES_MAX = 100
"""Nodes of a page: each has up to 99 targets."""


class Scrubbed(BaseModel):
    """How far a target has come."""

    target: int
    node: int
    chain: int
    number: int = Field(description="Of the pass; 0: there was none yet.")
    running: bool
    began_s: float | None = Field(description="By the daemon's clock, since the epoch; null: there was no pass yet.")
    ended_s: float | None = Field(description="Of the last pass that ended; null: there was none.")
    chunks: int = Field(description="Looked at in this pass.")
    chunks_total: int = Field(description="In the store now.")
    bytes: int
    repaired: int = Field(description="Chunks that were damaged and were repaired, in this pass.")
    not_compared: int = Field(description="Chunks of which another replica did not answer, in this pass.")
    damaged: list[str] = Field(description="Chunks that are damaged now: a line each, a hundred at most.")
    differing: list[str] = Field(description="Chunks of which another replica has something else: the same.")


class ScrubPage(Page):
    targets: list[Scrubbed]
    silent_nodes: list[int] = Field(description="That did not answer.")


class Scrubbing(BaseModel):
    """Read everything now."""

    model_config = ConfigDict(extra="forbid")

    chains: list[Annotated[int, Field(ge=1, le=ID_MAX)]] = Field(
        default=[], max_length=1000, description="Which ones to begin with; none: all."
    )
    bytes_per_s: int = Field(
        default=0, ge=0, le=2**40, description="Of each daemon, for the pass that begins; 0: as configured."
    )


@router.get("/scrub", responses=responses())
async def show_scrub(backend: TheBackend, caller: Reader, after: After = 0, limit: Limit = LIMIT_DEFAULT) -> ScrubPage:
    """How far the scrub of each target has come and what it found, for a page of nodes (100 at most)."""
    return await backend.ask(lambda: _asked(backend, Scrub(), after, min(limit, NODES_MAX)))


@router.post("/scrub", responses=responses(409))
async def begin_scrub(backend: TheBackend, caller: Administrator, scrubbing: Scrubbing) -> ScrubPage:
    """Begin a pass now, on all nodes; the answer is of the first hundred."""
    request = Scrub(True, scrubbing.chains, scrubbing.bytes_per_s)
    first = await backend.ask(lambda: _asked(backend, request, 0, NODES_MAX))
    page = first
    while page.next is not None:
        after = page.next
        page = await backend.ask(lambda after=after: _asked(backend, request, after, NODES_MAX))  # type: ignore[misc]
    return first


async def _asked(backend: Backend, request: Scrub, after: int, limit: int) -> ScrubPage:
    """On the service's loop: ask the daemons of a page of nodes."""
    nodes = sorted(
        (node for node in backend.manager.routing.nodes if node.state is not NodeState.LEFT and node.node > after),
        key=lambda node: node.node,
    )
    page = nodes[:limit]
    left = iter(page)
    replies: dict[int, ScrubReply] = {}

    async def ask() -> None:
        for node in left:
            reply = await _ask(backend, node, request)
            if reply is not None:
                replies[node.node] = reply

    await asyncio.gather(*(ask() for _ in range(_ASKED_AT_ONCE)))
    return ScrubPage(
        targets=[
            Scrubbed(
                target=one.target,
                node=node.node,
                chain=one.chain,
                number=one.number,
                running=one.running,
                began_s=one.began_s if one.number else None,
                ended_s=one.ended_s or None,
                chunks=one.chunks,
                chunks_total=one.chunks_total,
                bytes=one.bytes,
                repaired=one.repaired,
                not_compared=one.not_compared,
                damaged=one.damaged,
                differing=one.differing,
            )
            for node in page
            if node.node in replies
            for one in sorted(replies[node.node].targets, key=lambda each: each.target)
        ],
        silent_nodes=[node.node for node in page if node.node not in replies],
        next=page[-1].node if len(nodes) > limit else None,
    )


async def _ask(backend: Backend, node: NodeInfo, request: Scrub) -> ScrubReply | None:
    if node.state is not NodeState.UP:
        return None
    try:
        reply: ScrubReply = await backend.pool.call((node.host, node.port), SCRUB, request, timeout=_ASK_TIMEOUT_S)
    except EmberError:
        return None
    return reply
