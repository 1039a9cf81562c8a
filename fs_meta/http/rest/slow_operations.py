"""Operations of this metadata server that took long."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from fs_common.records.slow import SlowOperation
from fs_common.slow_operations import KEPT
from fs_meta.http.callers import Reader, TheBackend
from fs_meta.http.problems import responses
from fs_meta.http.rest.names import time_of
from fs_meta.http.rest.paging import LIMIT_DEFAULT

router = APIRouter(tags=["clients"])


class SlowView(BaseModel):
    operation: str = Field(examples=["create"])
    trace: str = Field(
        description="Of the client's operation, as in the logs of all daemons; zeros: of none.", examples=["0a1b2c3d"]
    )
    ended: str
    took_ms: float
    about: str = Field(description="Which inode and names, as far as the request says; for administrators.")
    times_ms: dict[str, float] = Field(description="Where the time went, as far as it is known.")
    peer: str = Field(description="Who asked.")
    error: str = Field(description="Name of the error that it ended with; empty: none.")


class SlowList(BaseModel):
    threshold_ms: int | None = Field(description="What takes longer is slow; null: nothing is.")
    counts: dict[str, int] = Field(description="By operation, since the start of this server.")
    operations: list[SlowView] = Field(description="The newest first.")


@router.get("/slow-operations", responses=responses())
async def list_slow_operations(
    backend: TheBackend,
    caller: Reader,
    limit: Annotated[int, Query(ge=1, le=KEPT, description="How many; all that are kept are few.")] = LIMIT_DEFAULT,
) -> SlowList:
    """The operations of this metadata server that took long, and are remembered."""
    slow = backend.server.slow_operations
    found, counts, threshold_ns = await backend.look(
        lambda: (slow.snapshot()[:limit], dict(slow.counts), slow.threshold_ns)
    )
    # Names are seen by those who may look at them, and nobody knows here who may.
    names = caller is None or caller.admin
    return SlowList(
        threshold_ms=None if threshold_ns >= 1 << 62 else threshold_ns // 1_000_000,
        counts=counts,
        operations=[_shown(each, names=names) for each in found],
    )


def _shown(slow: SlowOperation, *, names: bool) -> SlowView:
    return SlowView(
        operation=slow.operation,
        trace=slow.trace,
        ended=time_of(int(slow.ended_s * 1000) * 1_000_000),
        took_ms=slow.took_ms,
        about=slow.about if names else "",
        times_ms=slow.times_ms,
        peer=slow.peer,
        error=slow.error,
    )
