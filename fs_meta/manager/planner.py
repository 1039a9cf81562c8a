"""Layouts and plans computed in a process of their own: `python -m fs_meta.manager.planner`.

A request comes as one JSON value on standard input, the answer goes as one to standard output, and nothing else does.
The search and the integer programs take seconds of a processor, and hold the interpreter meanwhile: the manager's loop,
on which the leases of all nodes hang, has no such time. So it, and `emberfs placement`, run this and wait (`ask`).

The search (`placement`, `rebalancing`) always answers; where it does not reach what is proven to be possible, and the
solver is installed (`emberfs[placement]`), `design_solver` is asked for better until the time limit.

Called by: the manager; `emberfs placement`.
"""

import asyncio
import contextlib
import os
import sys
from pathlib import Path
from typing import Literal

import msgspec

import fs_common
from fs_common.errors import Code, EmberError
from fs_meta.manager import design_solver
from fs_meta.manager.designs import pairs_at_least
from fs_meta.manager.new_chains import shared_counts
from fs_meta.manager.placement import ReadSpread, layout, read_spread
from fs_meta.manager.rebalancing import Plan, Relocation, plan

_GRACE_S = 60.0
"""How much longer than its time limit a planner may take: the search before it, and reading what it was given."""


class LayoutRequest(msgspec.Struct, frozen=True, kw_only=True, tag="layout", forbid_unknown_fields=True):
    """How a new cluster would be laid out."""

    nodes: int
    replicas: int
    targets_per_node: int
    solver: bool = True
    time_limit_s: float = design_solver.TIME_LIMIT_S


class PlanRequest(msgspec.Struct, frozen=True, kw_only=True, tag="plan", forbid_unknown_fields=True):
    """What moves, and which chains are added: the arguments of `rebalancing.plan`."""

    chains: list[list[int]]
    able: list[int]
    emptied: list[int]
    replicas: int
    targets_per_node: int
    balance: bool = True
    solver: bool = True
    time_limit_s: float = design_solver.TIME_LIMIT_S


class LayoutReply(msgspec.Struct, frozen=True, kw_only=True):
    chains: list[list[int]]
    """Of each the indices of its nodes, head first."""
    spread: ReadSpread
    by: Literal["search", "solver"]
    solver: bool
    """Whether it is installed."""


class PlanReply(msgspec.Struct, frozen=True, kw_only=True):
    relocations: list[Relocation]
    chains: list[list[int]]
    least: int
    stuck: list[tuple[int, int]]
    before: ReadSpread
    after: ReadSpread


def compute_layout(request: LayoutRequest) -> LayoutReply:
    nodes = request.nodes
    chains = layout(nodes, request.replicas, request.targets_per_node)
    spread = read_spread(chains, range(nodes))
    by: Literal["search", "solver"] = "search"
    solver = design_solver.available()
    if solver and request.solver and chains:
        most = max(max(row) for row in shared_counts(nodes, chains))
        if most > pairs_at_least(nodes, request.targets_per_node, request.replicas):
            better = design_solver.better_layout(
                nodes, request.replicas, request.targets_per_node, most, request.time_limit_s
            )
            if better is not None:
                chains, by = better, "solver"
                spread = read_spread(chains, range(nodes))
    return LayoutReply(chains=[list(chain) for chain in chains], spread=spread, by=by, solver=solver)


def compute_plan(request: PlanRequest) -> PlanReply:
    found = plan(
        request.chains,
        request.able,
        request.emptied,
        request.replicas,
        request.targets_per_node,
        balance=request.balance,
    )
    spread = _spread_after(request, found)
    if request.solver and spread.largest > spread.bound and design_solver.available():
        better = design_solver.better_plan(request.chains, request.able, found, request.time_limit_s)
        if better is not None and (found_spread := _spread_after(request, better)).largest < spread.largest:
            found, spread = better, found_spread
    return PlanReply(
        relocations=found.relocations,
        chains=[list(chain) for chain in found.chains],
        least=found.least,
        stuck=found.stuck,
        before=read_spread(request.chains),
        after=spread,
    )


def _spread_after(request: PlanRequest, found: Plan) -> ReadSpread:
    after = [list(chain) for chain in request.chains]
    for relocation in found.relocations:
        chain = after[relocation.chain]
        chain[chain.index(relocation.source)] = relocation.node
    return read_spread([*after, *found.chains], request.able)


async def ask(request: PlanRequest) -> PlanReply:
    """The plan, by a process of its own. Raises INTERNAL when it fails; cancelled, it ends the process."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "fs_meta.manager.planner"),
        env=_environment(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(request.time_limit_s + _GRACE_S):
            answer, said = await process.communicate(msgspec.json.encode(request))
    except TimeoutError:
        raise EmberError(Code.INTERNAL, "no plan was found in time: ask again") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode != 0:
        last = said.decode(errors="replace").strip().rpartition("\n")[2]
        raise EmberError(Code.INTERNAL, f"the planner failed: {last}")
    return msgspec.json.decode(answer, type=PlanReply)


def _environment() -> dict[str, str]:
    """Ours, with the packages this process was imported from, whether they are installed or not."""
    root = str(Path(fs_common.__file__).parent.parent)
    return dict(os.environ) | {"PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}


def main() -> int:
    # What a solver prints goes where errors go: it takes no word for it.
    answer = os.dup(1)
    os.dup2(2, 1)
    decoder: msgspec.json.Decoder[LayoutRequest | PlanRequest] = msgspec.json.Decoder(LayoutRequest | PlanRequest)
    request = decoder.decode(sys.stdin.buffer.read())
    match request:
        case LayoutRequest():
            reply: LayoutReply | PlanReply = compute_layout(request)
        case PlanRequest():
            reply = compute_plan(request)
    with open(answer, "wb") as output:
        output.write(msgspec.json.encode(reply) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
