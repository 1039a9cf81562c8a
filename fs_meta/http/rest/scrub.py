"""The scrub: the reading of all that is stored, to find what is damaged and what differs."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from fs_common.records.scrubbing import Scrub
from fs_meta.http.backend import Backend
from fs_meta.http.callers import Administrator, Reader, TheBackend
from fs_meta.http.problems import responses
from fs_meta.http.rest.paging import ID_MAX, LIMIT_DEFAULT, After, Limit, Page

router = APIRouter(tags=["scrub"])


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
    return await backend.ask(lambda: _asked(backend, after, limit))


@router.post("/scrub", responses=responses(409))
async def begin_scrub(backend: TheBackend, caller: Administrator, scrubbing: Scrubbing) -> ScrubPage:
    """Begin a pass now, on all nodes; the answer is of the first hundred."""
    await backend.ask(lambda: backend.server.scrubs.begin(scrubbing.chains, scrubbing.bytes_per_s))
    return await backend.ask(lambda: _asked(backend, 0, 0))


async def _asked(backend: Backend, after: int, limit: int) -> ScrubPage:
    """On the service's loop: ask the daemons of a page of nodes."""
    page = await backend.server.scrubs.page(Scrub(), after, limit)
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
            for node, reply in page.replies
            if reply is not None
            for one in sorted(reply.targets, key=lambda each: each.target)
        ],
        silent_nodes=[node.node for node, reply in page.replies if reply is None],
        next=page.next or None,
    )
