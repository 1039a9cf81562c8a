"""Storage nodes: what each is and holds, and what takes them in and out of use."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from fs_common.cluster_words import note_of
from fs_common.errors import Code, EmberError
from fs_common.records.targets import AddTargets, Drain, ForgetNode, NodeView
from fs_meta.http.backend import Backend
from fs_meta.http.callers import Administrator, Reader, TheBackend
from fs_meta.http.problems import responses
from fs_meta.http.rest.moves import PLAN_TIMEOUT_S, Draining, Order, Plan, plan_of
from fs_meta.http.rest.paging import LIMIT_DEFAULT, After, Id, Limit, Page
from fs_meta.http.rest.states import NodeState

router = APIRouter(tags=["nodes"])


class NodeConfig(BaseModel):
    """How a node stands to the cluster's configuration."""

    version: int = Field(description="That it has taken, or could not take; 0: none.")
    status: Literal["normal", "dirty", "failed", "stale", "unknown"] = Field(
        description="normal: it runs on the newest; dirty: some keys take effect when it is started again; failed: it"
        " could not take it; stale: it has not said that it has it yet; unknown: it does not run, or does not say."
    )
    reason: str = Field(description="With `failed`: why.")
    waiting: list[str] = Field(description="With `dirty`: the keys that take effect at the next start.")


class Node(BaseModel):
    """A storage daemon."""

    node: int
    host: str
    port: int = Field(description="Of the data plane.")
    state: NodeState
    drained: bool = Field(description="It gets no targets, and those that it has move away.")
    note: str = Field(description="What an operator should know of it; empty: nothing.")
    targets: int = Field(description="On chains.")
    joining: int = Field(description="Moves that bring a target here and are not over.")
    leaving: int = Field(description="Moves that take a target away and are not over.")
    capacity_bytes: int
    used_bytes: int
    release: str
    silent_ms: int = Field(description="Since its last heartbeat; 0 when it is not up.")
    routing_version: int = Field(description="The newest it has said it has.")
    config: NodeConfig


class NodePage(Page):
    replicas: int = Field(description="Targets of each chain.")
    targets_per_node: int = Field(description="As many as a node is meant to have.")
    nodes: list[Node] = Field(description="By id.")


class Forgotten(BaseModel):
    node: int


def node_of(view: NodeView, *, chains: bool) -> Node:
    said: dict[str, Any] = {"drained": view.drained, "targets": view.targets, "state": view.state.name.lower()}
    config = view.config
    return Node(
        node=view.node,
        host=view.host,
        port=view.port,
        state=view.state.name.lower(),  # type: ignore[arg-type]
        drained=view.drained,
        note=note_of(said, chains),
        targets=view.targets,
        joining=view.joining,
        leaving=view.leaving,
        capacity_bytes=view.capacity_bytes,
        used_bytes=view.used_bytes,
        release=view.release,
        silent_ms=view.silent_ms,
        routing_version=view.routing_version,
        config=NodeConfig(
            version=config.version,
            status=config.status.name.lower(),  # type: ignore[arg-type]
            reason=config.reason,
            waiting=config.waiting,
        ),
    )


@router.get("/nodes", responses=responses())
async def list_nodes(
    backend: TheBackend,
    caller: Reader,
    after: After = 0,
    limit: Limit = LIMIT_DEFAULT,
    state: Annotated[list[NodeState] | None, Query(description="Only those in one of these states.")] = None,
) -> NodePage:
    """A page of the nodes, by id."""
    reply, routing = await backend.look(lambda: (backend.growth.nodes(after, limit), backend.manager.routing))
    nodes = [node_of(view, chains=bool(routing.chains)) for view in reply.nodes]
    return NodePage(
        nodes=[node for node in nodes if not state or node.state in state],
        next=reply.next or None,
        replicas=reply.replicas,
        targets_per_node=reply.targets_per_node,
    )


@router.get("/nodes/{node}", responses=responses(404))
async def show_node(backend: TheBackend, caller: Reader, node: Id) -> Node:
    """One node."""
    view, routing = await backend.look(lambda: (_known(backend, node), backend.manager.routing))
    return node_of(view, chains=bool(routing.chains))


@router.delete("/nodes/{node}", responses=responses(404, 409))
async def forget_node(backend: TheBackend, caller: Administrator, node: Id) -> Forgotten:
    """Take a node that has no targets, and does not run, from the list. Its id stays used."""
    await backend.ask(lambda: (_known(backend, node), backend.growth.forget(ForgetNode(node)))[1])
    return Forgotten(node=node)


@router.post("/nodes/{node}/drain", responses=responses(404, 409))
async def drain_node(backend: TheBackend, caller: Administrator, node: Id, draining: Draining) -> Plan:
    """Move everything off a node that is to be taken out of service."""
    request = Drain(node=node, undo=draining.undo, dry_run=draining.dry_run)
    reply = await backend.ask(lambda: (_known(backend, node), backend.growth.drain(request))[1], PLAN_TIMEOUT_S)
    return plan_of(reply, dry_run=draining.dry_run)


@router.post("/nodes/{node}/targets", responses=responses(404, 409))
async def fill_node(backend: TheBackend, caller: Administrator, node: Id, order: Order) -> Plan:
    """Give a node its share of the targets: of chains that lack one first, then of the others."""
    request = AddTargets(node, order.dry_run)
    reply = await backend.ask(lambda: (_known(backend, node), backend.growth.add(request))[1], PLAN_TIMEOUT_S)
    return plan_of(reply, dry_run=order.dry_run)


def _known(backend: Backend, node: int) -> NodeView:
    """On the service's loop. Raises NODE_UNKNOWN."""
    if node not in backend.manager.members():
        raise EmberError(Code.NODE_UNKNOWN, f"there is no node {node}")
    return backend.growth.node(node)
