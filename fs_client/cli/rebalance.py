"""`emberfs rebalance`: spread targets over the nodes that there are now."""

from typing import TYPE_CHECKING

import click

from fs_client.cli.moving import dry_run_option, move_targets, wait_option
from fs_client.cli.options import cluster_option, json_option
from fs_client.cli.text import counted

if TYPE_CHECKING:
    from fs_common.records.targets import MovesReply


@click.command()
@dry_run_option
@wait_option
@json_option
@cluster_option
def rebalance(dry_run: bool, wait: bool, as_json: bool, cluster: str) -> None:
    """Spread targets over all nodes.

    After nodes have joined: replicas move to them from the others until all have as many, as few as that takes, and
    chains are added, which new files use at once. After nodes have gone: what they held is spread over the others.
    Which replicas move is chosen so that a dead node's reads go to all others alike. Files stay readable and
    writable; few replicas move at a time (`moves_per_node` and `moves_at_once` of the metadata service).

    \b
    Example:
      emberfs rebalance --dry-run          what would move
      emberfs rebalance --wait             with progress
    """

    def said(reply: "MovesReply") -> str:
        if not reply.moves and not reply.new_chains:
            return "targets are spread evenly: nothing moves"
        moves = f"{counted(len(reply.moves), 'target')} {'would move' if dry_run else 'move'}"
        added = "would be added" if dry_run else "added"
        chains = f", {counted(len(reply.new_chains), 'chain')} {added}"
        return (
            f"{moves} (at least {reply.least_moves} have to){chains if reply.new_chains else ''}\n"
            f"a dead node's reads: the most loaded survivor takes {reply.spread_before:.2f} times the average now,"
            f" {reply.spread_after:.2f} times then (at least {reply.spread_possible:.2f})"
        )

    move_targets(cluster, "Rebalance", {"dry_run": dry_run}, said, wait=wait, as_json=as_json)
