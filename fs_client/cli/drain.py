"""`emberfs drain`: move everything off a node."""

from typing import TYPE_CHECKING

import click

from fs_client.cli.failure import Usage
from fs_client.cli.moving import dry_run_option, move_targets, wait_option
from fs_client.cli.options import cluster_option, json_option
from fs_client.cli.text import counted

if TYPE_CHECKING:
    from fs_common.records.targets import MovesReply


@click.command()
@click.argument("node", type=click.IntRange(1), required=False)
@click.option("--target", type=click.IntRange(1), default=None, help="Only this target of a node.")
@click.option("--undo", is_flag=True, help="Stop, and let the node have targets again.")
@dry_run_option
@wait_option
@json_option
@cluster_option
def drain(
    node: int | None, target: int | None, undo: bool, dry_run: bool, wait: bool, as_json: bool, cluster: str
) -> None:
    """Move everything off a node, or one target off its node.

    Each replica is built up on another node before the one here is given up, so no chain has fewer than before, and
    files stay readable and writable. The node gets no new targets. When it is empty, its daemon can be stopped and
    `emberfs targets forget NODE` takes it from the list. It is refused where too few other nodes are left.

    \b
    Example:
      emberfs drain 3 --wait               node 3 is to be taken out of service
      emberfs drain --target 301           only target 301, because its disk is slow, say
      emberfs drain 3 --undo               it stays after all
    """
    if (node is None) == (target is None):
        raise Usage("name the node to drain, or one target with --target")
    what = f"node {node}" if node is not None else f"target {target}"

    def said(reply: "MovesReply") -> str:
        count = counted(len(reply.moves), "target")
        if undo:
            return f"{what} is not drained any more: {counted(len(reply.moves), 'move')} stopped"
        if not reply.moves:
            return f"{what} {'would be' if dry_run else 'is'} drained: nothing is left to move"
        return f"{what} {'would be' if dry_run else 'is'} drained: {count} {'would move' if dry_run else 'move'}"

    request = {"node": node or 0, "target": target or 0, "undo": undo, "dry_run": dry_run}
    move_targets(cluster, "Drain", request, said, wait=wait, as_json=as_json)
