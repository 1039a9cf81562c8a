"""`emberfs targets`: where replicas are, and what moves them."""

from typing import TYPE_CHECKING, Any

import click

from fs_client.cli.moving import (
    ask,
    connected,
    dry_run_option,
    move_of,
    move_targets,
    show_moves,
    wait_option,
)
from fs_client.cli.options import cluster_option, json_option
from fs_client.cli.remote import run
from fs_client.cli.text import counted, human_size, put, put_json

if TYPE_CHECKING:
    from fs_common.records.targets import ListTargetsReply, MovesReply, NodeView


@click.group(invoke_without_command=True)
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
        listed = await _listed(cluster)
        if as_json:
            put_json([move_of(move) for move in listed.moves], indent=2)
        elif not listed.moves:
            put("nothing was moved")
        else:
            show_moves(listed.moves)

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
    from fs_common.methods import ADD_TARGETS
    from fs_common.records.targets import AddTargets

    def said(reply: "MovesReply") -> str:
        if not reply.moves:
            return f"node {node} has its share of the targets: nothing moves"
        return f"{counted(len(reply.moves), 'target')} {'would move' if dry_run else 'move'} to node {node}"

    move_targets(cluster, ADD_TARGETS, AddTargets(node, dry_run), said, wait=wait, as_json=as_json)


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
    from fs_common.methods import REPLACE_TARGET
    from fs_common.records.targets import ReplaceTarget

    def said(reply: "MovesReply") -> str:
        (move,) = reply.moves
        return f"target {move.leaves} {'would be' if dry_run else 'is'} replaced on node {move.node}"

    requests = [ReplaceTarget(each, node or 0, dry_run) for each in target]
    move_targets(cluster, REPLACE_TARGET, requests, said, wait=wait, as_json=as_json)


@targets.command("cancel")
@click.argument("moves", type=click.IntRange(1), nargs=-1)
@wait_option
@json_option
@cluster_option
def cancel_command(moves: tuple[int, ...], wait: bool, as_json: bool, cluster: str) -> None:
    """Stop moves; all without a number.

    What has joined a chain leaves it again, when it is not needed. What has left stays away.
    """
    from fs_common.methods import CANCEL_MOVES
    from fs_common.records.targets import CancelMoves

    def said(reply: "MovesReply") -> str:
        return f"{counted(len(reply.moves), 'move')} stopped"

    move_targets(cluster, CANCEL_MOVES, CancelMoves(list(moves)), said, wait=wait, as_json=as_json)


@targets.command("forget")
@click.argument("node", type=click.IntRange(1))
@json_option
@cluster_option
def forget_command(node: int, as_json: bool, cluster: str) -> None:
    """Take a node that has no targets, and does not run, from the list.

    Its id stays used: a daemon that is started with it is refused.
    """
    from fs_common.methods import FORGET_NODE
    from fs_common.records.targets import ForgetNode

    move_targets(
        cluster, FORGET_NODE, ForgetNode(node), lambda reply: f"node {node} is not listed any more", as_json=as_json
    )


async def _listed(cluster: str) -> "ListTargetsReply":
    from fs_common.methods import LIST_TARGETS
    from fs_common.records.targets import ListTargets

    async with await connected(cluster) as fs:
        reply: ListTargetsReply = await ask(fs, LIST_TARGETS, ListTargets())
        return reply


async def _list(cluster: str, as_json: bool) -> None:
    listed = await _listed(cluster)
    moves = [move for move in listed.moves if move.state not in ("done", "cancelled")]
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
        used = f"{human_size(node.used_bytes)}B of {human_size(node.capacity_bytes)}B"
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
