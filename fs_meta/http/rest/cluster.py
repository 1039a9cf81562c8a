"""The cluster as a whole."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from fs_common.cluster_words import RESTING
from fs_common.records.meta import Statfs
from fs_common.records.routing import NodeState
from fs_common.release import RELEASE
from fs_meta.http.callers import Reader, TheBackend
from fs_meta.http.health import HealthWatch
from fs_meta.http.problems import responses
from fs_meta.ops.statfs import statfs

router = APIRouter(tags=["cluster"])

SHOWN_MAX = 50
"""Of each list: a summary is read by people."""


class Trouble(BaseModel):
    target: int
    node: int
    reason: str


class Healing(BaseModel):
    chain: int
    what: list[str] = Field(description="What is wrong, and what is done about it.")


class ChainCounts(BaseModel):
    total: int
    serving: int
    degraded: int
    offline: int


class NodeCounts(BaseModel):
    total: int
    up: int
    failed: int
    left: int


class ClusterView(BaseModel):
    """What `emberfs status` says."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "cluster": "ember-0c5a1f22",
                    "release": "0.1.0",
                    "routing_version": 12,
                    "replicas": 3,
                    "healthy": False,
                    "health": "the cluster is degraded: node 3 is failed, chain 1 is degraded",
                    "missing": ["node 3 is failed", "chain 1 is degraded"],
                    "nodes": {"total": 3, "up": 2, "failed": 1, "left": 0},
                    "chains": {"total": 3, "serving": 2, "degraded": 1, "offline": 0},
                    "troubles": [],
                    "warnings": [],
                    "healing": [{"chain": 1, "what": ["target 301 on node 3 is missing: node 3 has failed"]}],
                    "helps": ["bring back node 3: node 3 has failed"],
                    "resting": False,
                    "manager": True,
                }
            ]
        }
    )

    cluster: str = Field(description="Its id.")
    release: str = Field(description="Of this metadata server.")
    routing_version: int
    replicas: int = Field(description="Targets of each chain.")
    healthy: bool = Field(description="All nodes are there, and all chains have all of their replicas.")
    health: str = Field(description="The same in one line.")
    missing: list[str] = Field(description="What is, the shortest first; the first fifty, as of the lists below.")
    nodes: NodeCounts
    chains: ChainCounts
    troubles: list[Trouble] = Field(description="Targets that do not serve, and why.")
    warnings: list[Trouble] = Field(description="Targets that serve and want to be looked at.")
    healing: list[Healing]
    helps: list[str] = Field(description="What people can do.")
    resting: bool = Field(description=f"If so: {RESTING}.")
    manager: bool = Field(
        description="This metadata server is the manager. Another one does not know what is done about chains."
    )


class Space(BaseModel):
    """Logical space, the replicas divided out."""

    capacity_bytes: int
    used_bytes: int
    free_bytes: int
    files: int = Field(description="Inodes in use, about.")
    replicas: int


def _watch(request: Request) -> HealthWatch:
    watch: HealthWatch = request.app.state.health
    return watch


@router.get("/cluster", responses=responses())
async def show_cluster(caller: Reader, watch: Annotated[HealthWatch, Depends(_watch)]) -> ClusterView:
    """Whether the cluster is well, what is missing, what is done about it and what people can do."""
    found = await watch.look()
    routing, missing = found.routing, found.missing[:SHOWN_MAX]
    states = [node.state for node in routing.nodes]
    health = "the cluster is healthy" if found.healthy else f"the cluster is degraded: {', '.join(missing)}"
    return ClusterView(
        cluster=routing.cluster,
        release=RELEASE,
        routing_version=routing.version,
        replicas=routing.replicas,
        healthy=found.healthy,
        health=f"{health}; {RESTING}" if found.resting else health,
        missing=missing,
        nodes=NodeCounts(
            total=len(states),
            up=states.count(NodeState.UP),
            failed=states.count(NodeState.FAILED),
            left=states.count(NodeState.LEFT),
        ),
        chains=ChainCounts(
            total=len(routing.chains),
            serving=found.chains["serving"],
            degraded=found.chains["degraded"],
            offline=found.chains["offline"],
        ),
        troubles=[Trouble(**each._asdict()) for each in found.troubles[:SHOWN_MAX]],
        warnings=[Trouble(**each._asdict()) for each in found.warnings[:SHOWN_MAX]],
        healing=[Healing(chain=chain, what=what) for chain, what in found.healing[:SHOWN_MAX]],
        helps=found.helps[:SHOWN_MAX],
        resting=found.resting,
        manager=found.manager,
    )


@router.get("/space", responses=responses())
async def show_space(backend: TheBackend, caller: Reader) -> Space:
    """How full the cluster is, as its users see it."""
    found = await backend.ask(lambda: statfs(backend.context, Statfs()))
    return Space(
        capacity_bytes=found.capacity_bytes,
        used_bytes=found.capacity_bytes - found.free_bytes,
        free_bytes=found.free_bytes,
        files=found.files,
        replicas=found.replicas,
    )
