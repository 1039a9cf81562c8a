"""`emberfs targets`: where replicas are, and what moves them."""

from typing import TYPE_CHECKING, Any

import click

from fs_client.cli.manager_api import TIMEOUT_S, Administered, ManagerApi
from fs_client.cli.moving import (
    dry_run_option,
    listed_moves,
    move_of,
    move_targets,
    show_moves,
    wait_option,
)
from fs_client.cli.options import cluster_option, json_option
from fs_client.cli.remote import run
from fs_client.cli.suggest import SuggestingGroup
from fs_client.cli.text import counted, put, put_json, size_words

if TYPE_CHECKING:
    from fs_common.records.targets import ListNodesReply, MovesReply, NodeView


@click.group(cls=SuggestingGroup, invoke_without_command=True)
@json_option
@cluster_option
@click.pass_context
def targets(ctx: click.Context, as_json: bool, cluster: str) -> None:
    """Show which node holds how many replicas, and what is moving.

    A target is one replica of a chain, on one node. Without a command it lists the nodes, and the moves that are not
    over. A move fills up a new target first, and takes the old one from its chain when it is not needed any more; files
    stay readable and writable meanwhile, and moves go on by themselves, whatever becomes of this command.

    \b
    Example:
      emberfs targets                       nodes, their targets, and moves
      emberfs targets add 4                 give a node that has joined its share of the targets
      emberfs targets replace 301           the disk of target 301 is gone for good
      emberfs targets cancel                stop all moves
    """
    if ctx.invoked_subcommand is None:
        run(_list(cluster, as_json))


@targets.command("list")
@json_option
@cluster_option
def list_command(as_json: bool, cluster: str) -> None:
    """List the nodes, and the moves that are not over."""
    run(_list(cluster, as_json))


@targets.command("moves")
@json_option
@cluster_option
def moves_command(as_json: bool, cluster: str) -> None:
    """List moves, also the last ones that are over."""

    async def show() -> None:
        async with Administered(cluster) as api:
            moves = await listed_moves(api)
        if as_json:
            put_json([move_of(move) for move in moves], indent=2)
        elif not moves:
            put("nothing was moved")
        else:
            show_moves(moves)

    run(show())


@targets.command("add")
@click.argument("node", type=click.IntRange(1))
@dry_run_option
@wait_option
@json_option
@cluster_option
def add_command(node: int, dry_run: bool, wait: bool, as_json: bool, cluster: str) -> None:
    """Give a node its share of the targets.

    Chains that lack a replica come first; then others' replicas move here, as few as make it even. `emberfs rebalance`
    does that for all nodes, and adds the chains that a grown cluster has.
    """

    def said(reply: "MovesReply") -> str:
        if not reply.moves:
            return f"node {node} has its share of the targets: nothing moves"
        return f"{counted(len(reply.moves), 'target')} {'would move' if dry_run else 'move'} to node {node}"

    move_targets(cluster, "AddTargets", {"node": node, "dry_run": dry_run}, said, wait=wait, as_json=as_json)


@targets.command("replace")
@click.argument("target", type=click.IntRange(1), nargs=-1, required=True)
@click.option("--node", type=click.IntRange(1), default=None, help="Where.  [default: its own node if that is up]")
@dry_run_option
@wait_option
@json_option
@cluster_option
def replace_command(
    target: tuple[int, ...], node: int | None, dry_run: bool, wait: bool, as_json: bool, cluster: str
) -> None:
    """Replace targets whose disk is gone for good.

    A new target is filled up from the chain, on its own node if that is up (with another disk), or on the node with
    the fewest targets. What the old one held is never used again, also if its disk comes back.
    """

    def said(reply: "MovesReply") -> str:
        (move,) = reply.moves
        return f"target {move.leaves} {'would be' if dry_run else 'is'} replaced on node {move.node}"

    requests = [{"target": each, "node": node or 0, "dry_run": dry_run} for each in target]
    move_targets(cluster, "ReplaceTarget", requests, said, wait=wait, as_json=as_json)


@targets.command("cancel")
@click.argument("moves", type=click.IntRange(1), nargs=-1)
@wait_option
@json_option
@cluster_option
def cancel_command(moves: tuple[int, ...], wait: bool, as_json: bool, cluster: str) -> None:
    """Stop moves; all without a number.

    What has joined a chain leaves it again, when it is not needed. What has left stays away.
    """

    def said(reply: "MovesReply") -> str:
        return f"{counted(len(reply.moves), 'move')} stopped"

    move_targets(cluster, "CancelMoves", {"moves": list(moves)}, said, wait=wait, as_json=as_json)


@targets.command("forget")
@click.argument("node", type=click.IntRange(1))
@json_option
@cluster_option
def forget_command(node: int, as_json: bool, cluster: str) -> None:
    """Take a node that has no targets, and does not run, from the list.

    Its id stays used: a daemon that is started with it is refused.
    """
    move_targets(
        cluster, "ForgetNode", {"node": node}, lambda reply: f"node {node} is not listed any more", as_json=as_json
    )


async def listed_nodes(api: ManagerApi, *, timeout_s: float = TIMEOUT_S) -> "ListNodesReply":
    """All nodes."""
    import msgspec

    from fs_common.admin_records import list_nodes_record

    pages = [list_nodes_record(page) async for page in api.pages("ListNodes", timeout_s=timeout_s)]
    return msgspec.structs.replace(pages[-1], nodes=[node for page in pages for node in page.nodes])


async def _list(cluster: str, as_json: bool) -> None:
    async with Administered(cluster) as api:
        listed = await listed_nodes(api)
        moves = await listed_moves(api, active=True)
    if as_json:
        put_json(
            {
                "replicas": listed.replicas,
                "targets_per_node": listed.targets_per_node,
                "nodes": [_node_of(node) for node in listed.nodes],
                "moves": [move_of(move) for move in moves],
            },
            indent=2,
        )
        return
    put("node  address               state   targets  joining  leaving  used of capacity")
    for node in listed.nodes:
        used = f"{size_words(node.used_bytes)} of {size_words(node.capacity_bytes)}"
        note = note_of(node)
        put(
            f"{node.node:>4}  {f'{node.host}:{node.port}':<20}  {node.state.name.lower():<6}  {node.targets:>7}"
            f"  {node.joining:>7}  {node.leaving:>7}  {used}{f'  {note}' if note else ''}"
        )
    if moves:
        put("")
        show_moves(moves)


def note_of(node: "NodeView") -> str:
    """What an operator should know of a node."""
    from fs_common.records.routing import NodeState

    if node.drained:
        return f"drained, {counted(node.targets, 'target')} left" if node.targets else "drained: it can be stopped"
    if node.targets or node.joining:
        return ""
    if node.state is NodeState.UP:
        return "not used yet: `emberfs rebalance` gives it targets"
    return f"not used: `emberfs targets forget {node.node}` takes it from the list"


def _node_of(node: "NodeView") -> dict[str, Any]:
    return {
        "node": node.node,
        "address": f"{node.host}:{node.port}",
        "state": node.state.name.lower(),
        "drained": node.drained,
        "used": bool(node.targets),
        "targets": node.targets,
        "joining": node.joining,
        "leaving": node.leaving,
        "capacity_bytes": node.capacity_bytes,
        "used_bytes": node.used_bytes,
    }
