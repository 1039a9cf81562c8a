"""The cluster as a whole."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from fs_common.release import RELEASE
from fs_meta.http.callers import Reader, TheBackend
from fs_meta.http.problems import responses

router = APIRouter(tags=["cluster"])


class ClusterView(BaseModel):
    cluster: str = Field(description="Its id.", examples=["ember-0c5a1f22"])
    release: str = Field(description="Of this metadata server.", examples=["0.1.0"])
    routing_version: int
    nodes: int
    chains: int


@router.get("/cluster", responses=responses())
async def show_cluster(backend: TheBackend, caller: Reader) -> ClusterView:
    """The cluster in short."""
    routing = await backend.bridge.call(lambda: backend.manager.routing)
    return ClusterView(
        cluster=routing.cluster,
        release=RELEASE,
        routing_version=routing.version,
        nodes=len(routing.nodes),
        chains=len(routing.chains),
    )
