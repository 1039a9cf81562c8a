"""Chains, the targets on them, and the last resort for those that serve nothing."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from fs_common import chain_words
from fs_common.errors import Code, EmberError
from fs_meta.http.callers import Administrator, Reader, TheBackend
from fs_meta.http.problems import responses
from fs_meta.http.rest.paging import ID_MAX, LIMIT_DEFAULT, After, Id, Limit, Page
from fs_meta.http.rest.states import ChainState, TargetStanding, TargetState

router = APIRouter(tags=["chains"])


class Filling(BaseModel):
    """How far a target has come with filling up its successor."""

    target: int = Field(description="That is filled up.")
    chunks_done: int = Field(description="Compared, and sent where they differed.")
    chunks_total: int
    chunks_sent: int
    bytes_sent: int
    seconds: float = Field(description="That it has taken so far.")
    seconds_left: float | None = Field(description="At the pace so far; null: nobody can say yet.")


class Target(BaseModel):
    """One replica of a chain, on one node."""

    target: int
    node: int
    state: TargetState = Field(description="What the manager lets it do.")
    standing: TargetStanding = Field(description="How the manager sees it.")
    reason: str = Field(description="One line: why it is not able; empty for one that is.")
    used_bytes: int
    fills: Filling | None = Field(default=None, description="Its successor, which it fills up.")


class Chain(BaseModel):
    """An ordered list of targets that hold the same chunks."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "chain": 1,
                    "version": 4,
                    "state": "degraded",
                    "what": ["target 301 on node 3 is missing: node 3 has failed"],
                    "targets": [
                        {
                            "target": 101,
                            "node": 1,
                            "state": "serving",
                            "standing": "able",
                            "reason": "",
                            "used_bytes": 1048576,
                        }
                    ],
                }
            ]
        }
    )

    chain: int
    version: int = Field(description="Grows at every change of the chain.")
    state: ChainState
    what: list[str] = Field(description="What is wrong and what is done about it; empty: all is well.")
    targets: list[Target] = Field(description="Head first.")


class ChainPage(Page):
    routing_version: int = Field(description="Of which the page is a snapshot.")
    resting: bool = Field(description="The cluster is taken down, or comes back from that: no chain changes.")
    chains: list[Chain]


class ChainedTarget(Target):
    chain: int


class TargetPage(Page):
    routing_version: int = Field(description="Of which the page is a snapshot.")
    targets: list[ChainedTarget] = Field(description="Chain by chain, head first.")


class Rotation(BaseModel):
    """Give up the last replicas of a chain that are dead, so that what is alive serves."""

    model_config = ConfigDict(extra="forbid")

    accept_loss: bool = Field(default=False, description="False: nothing is changed, and what may be lost is told.")
    target: int = Field(
        default=0,
        ge=0,
        le=ID_MAX,
        description="Who is to serve where no last replica is alive; 0: the first on the chain that is.",
    )


class RotatedTarget(BaseModel):
    target: int
    node: int
    state: TargetState


class Rotated(BaseModel):
    chain: int
    version: int
    changed: bool = Field(description="False: it is what would happen.")
    targets: list[RotatedTarget] = Field(description="As they are then, or would be; head first.")
    given_up: list[int] = Field(description="Targets whose updates are given up.")
    loses: str = Field(description="What that may lose, in words.")


OfNode = Annotated[int, Query(ge=0, le=ID_MAX, description="Only what has to do with this node; 0: all.")]
Degraded = Annotated[bool, Query(description="Only what is not as it should be.")]


@router.get("/chains", responses=responses())
async def list_chains(
    backend: TheBackend,
    caller: Reader,
    after: After = 0,
    limit: Limit = LIMIT_DEFAULT,
    node: OfNode = 0,
    degraded: Degraded = False,
) -> ChainPage:
    """A page of the chains, by id, with what is wrong with each."""
    reply = await backend.list_chains(degraded=degraded, node=node, after=after, limit=limit)
    return ChainPage.model_validate({**chain_words.as_json(reply), "next": reply.next or None})


@router.get("/chains/{chain}", responses=responses(404))
async def show_chain(backend: TheBackend, caller: Reader, chain: Id) -> Chain:
    """One chain."""
    reply = await backend.list_chains((chain,))
    found: list[dict[str, Any]] = chain_words.as_json(reply)["chains"]
    if not found:
        raise no_chain(chain)
    return Chain.model_validate(found[0])


@router.post("/chains/{chain}/rotation", responses=responses(404, 409))
async def rotate_chain(backend: TheBackend, caller: Administrator, chain: Id, rotation: Rotation) -> Rotated:
    """Give up the last replicas of a chain that are dead: **what only they had is lost**.

    It is refused while a replica that has everything is there, or may still come by itself. Without `accept_loss` it
    only tells what may be lost.
    """
    await show_chain(backend, caller, chain)
    reply = await backend.ask(lambda: backend.manager.rotate(chain, rotation.target, accept_loss=rotation.accept_loss))
    return Rotated(
        chain=reply.chain.chain,
        version=reply.chain.version,
        changed=rotation.accept_loss,
        targets=[
            RotatedTarget(target=member.target, node=member.node, state=member.state.name.lower())  # type: ignore[arg-type]
            for member in reply.chain.targets
        ],
        given_up=reply.given_up,
        loses=reply.loses,
    )


@router.get("/targets", tags=["targets"], responses=responses())
async def list_targets(
    backend: TheBackend,
    caller: Reader,
    after: After = 0,
    limit: Limit = LIMIT_DEFAULT,
    node: OfNode = 0,
    degraded: Degraded = False,
) -> TargetPage:
    """The targets of a page of chains. `after` and `limit` are of chains, so that none is torn apart."""
    reply = await backend.list_chains(degraded=degraded, node=node, after=after, limit=limit)
    targets = [
        {**target, "chain": chain["chain"]}
        for chain in chain_words.as_json(reply)["chains"]
        for target in chain["targets"]
        if node in (0, target["node"]) and not (degraded and _is_well(target))
    ]
    return TargetPage.model_validate(
        {"routing_version": reply.routing_version, "targets": targets, "next": reply.next or None}
    )


def _is_well(target: dict[str, Any]) -> bool:
    return (target["state"], target["standing"]) == ("serving", "able")


def no_chain(chain: int) -> EmberError:
    return EmberError(Code.NOT_FOUND, f"there is no chain {chain}")
