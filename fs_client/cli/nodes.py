"""`emberfs nodes`."""

from typing import TYPE_CHECKING, Any

import click

from fs_client.cli.manager_api import Administered
from fs_client.cli.moving import move_targets
from fs_client.cli.options import cluster_option, json_option
from fs_client.cli.remote import run
from fs_client.cli.suggest import SuggestingGroup
from fs_client.cli.targets import listed_nodes, note_of
from fs_client.cli.text import put, put_json, size_words

if TYPE_CHECKING:
    from fs_common.records.targets import ListNodesReply, NodeView


@click.group(cls=SuggestingGroup, invoke_without_command=True)
@json_option
@cluster_option
@click.pass_context
def nodes(ctx: click.Context, as_json: bool, cluster: str) -> None:
    """Show the storage nodes: state, release, space, configuration.

    As the manager knows them; `emberfs status` asks the nodes themselves. How a node stands to the cluster's
    configuration is in `emberfs config status`. `emberfs drain NODE` lets a node have no targets any more.

    \b
    Example:
      emberfs nodes
      emberfs nodes --json | jq '.nodes[] | select(.state != "up")'
      emberfs nodes forget 3               it does not run any more, and has no targets
    """
    ctx.obj = cluster
    if ctx.invoked_subcommand is None:
        run(_list(cluster, as_json))


@nodes.command()
@click.argument("node", type=click.IntRange(1))
@json_option
@cluster_option
@click.pass_context
def forget(ctx: click.Context, node: int, as_json: bool, cluster: str) -> None:
    """Take a node that has no targets, and does not run, from the list.

    Its id stays used: a daemon that is started with it is refused.
    """
    given = ctx.get_parameter_source("cluster") is click.core.ParameterSource.COMMANDLINE
    where = cluster if given else ctx.obj
    move_targets(
        where, "ForgetNode", {"node": node}, lambda reply: f"node {node} is not listed any more", as_json=as_json
    )


async def _list(cluster: str, as_json: bool) -> None:
    async with Administered(cluster) as api:
        listed = await listed_nodes(api)
    if as_json:
        put_json(_as_json(listed), indent=2)
        return
    put("node  address               state   release  targets  used of capacity      configuration      heard")
    for node in listed.nodes:
        used = f"{size_words(node.used_bytes)} of {size_words(node.capacity_bytes)}"
        note = note_of(node)
        put(
            f"{node.node:>4}  {f'{node.host}:{node.port}':<20}  {node.state.name.lower():<6}  {node.release or '-':<7}"
            f"  {node.targets:>7}  {used:<20}  {_configuration(node):<17}  {_heard(node)}{f'  {note}' if note else ''}"
        )


def _configuration(node: "NodeView") -> str:
    status = node.config.status.name.lower()
    return f"{node.config.version} {status}" if node.config.version else status


def _heard(node: "NodeView") -> str:
    from fs_common.records.routing import NodeState

    return f"{node.silent_ms / 1000:.1f} s ago" if node.state is NodeState.UP else "-"


def _as_json(listed: "ListNodesReply") -> dict[str, Any]:
    from fs_common.records.routing import NodeState

    return {
        "config_version": listed.config_version,
        "nodes": [
            {
                "node": node.node,
                "address": f"{node.host}:{node.port}",
                "state": node.state.name.lower(),
                "drained": node.drained,
                "release": node.release,
                "targets": node.targets,
                "joining": node.joining,
                "leaving": node.leaving,
                "capacity_bytes": node.capacity_bytes,
                "used_bytes": node.used_bytes,
                "silent_ms": node.silent_ms if node.state is NodeState.UP else None,
                "routing_version": node.routing_version,
                "config": {
                    "version": node.config.version,
                    "status": node.config.status.name.lower(),
                    "reason": node.config.reason,
                    "waiting": node.config.waiting,
                },
            }
            for node in listed.nodes
        ],
    }
