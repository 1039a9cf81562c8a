"""`emberfs df`."""

from typing import TYPE_CHECKING, Any

import click

from fs_client.cli.failure import Failure, Usage
from fs_client.cli.options import HUMAN_H, cluster_option, json_option
from fs_client.cli.remote import Connections, RemotePath, parse, run
from fs_client.cli.text import human_size, put, put_json

if TYPE_CHECKING:
    from fs_client.aio import AsyncFileSystem


@click.command(context_settings=HUMAN_H)
@click.argument("clusters", nargs=-1, metavar="[CLUSTER]...")
@click.option("-h", "-H", "--human-readable", "human", is_flag=True, help="Sizes as 1.5G, as without it.")
@click.option("-b", "--bytes", "in_bytes", is_flag=True, help="Exact sizes in bytes instead of 1.5G.")
@click.option("-n", "--nodes", is_flag=True, help="Each storage node as well, as its disks count: with all replicas.")
@json_option
@cluster_option
def df(clusters: tuple[str, ...], human: bool, in_bytes: bool, nodes: bool, as_json: bool, cluster: str) -> None:
    """Show how much space clusters have, and how much of it is free.

    A CLUSTER is HOST:PORT or a path in one, as ember://HOST:PORT/. Sizes are what files can use, with the replicas
    divided out: three replicas of 3 TiB of disks have 1 TiB. --json prints one object a line.

    \b
    Example:
      emberfs df
      emberfs df --nodes storage.example:9700
    """
    locations = []
    for text in clusters or (cluster,):
        location = parse(text, cluster)
        if location is None and "/" in text:
            raise Usage(f"{text!r} is a local path: `df {text}` shows it, a mount of EmberFS too")
        locations.append(location or RemotePath(text, "/", f"ember://{text}"))
    run(_df(locations, in_bytes and not human, nodes, as_json))


async def _df(locations: list[RemotePath], in_bytes: bool, nodes: bool, as_json: bool) -> None:
    values = []
    async with Connections() as connections:
        for location in locations:
            values.append(await _of(await connections.to(location), location))
    if as_json:
        for value in values:
            put_json(value)
    else:
        _print(values, in_bytes, nodes)
    if any(not value["size_bytes"] for value in values):
        raise Failure("a cluster without a chain has no space yet: `emberfs status` says what it waits for")


async def _of(fs: "AsyncFileSystem", location: RemotePath) -> dict[str, Any]:
    space = await fs.statvfs(location.path)
    routing = fs.routing.routing
    return {
        "cluster": routing.cluster,
        "address": location.cluster,
        "replicas": routing.replicas,
        "size_bytes": space.f_blocks * space.f_frsize,
        "used_bytes": (space.f_blocks - space.f_bfree) * space.f_frsize,
        "available_bytes": space.f_bavail * space.f_frsize,
        "files": space.f_files,
        "nodes": [
            {
                "node": node.node,
                "address": f"{node.host}:{node.port}",
                "state": node.state.name.lower(),
                "size_bytes": node.capacity_bytes,
                "used_bytes": node.used_bytes,
            }
            for node in routing.nodes
        ],
    }


def _print(values: list[dict[str, Any]], in_bytes: bool, nodes: bool) -> None:
    rows: list[tuple[str, ...]] = [("cluster", "size", "used", "available", "use", "files")]
    for value in values:
        size, used, free = value["size_bytes"], value["used_bytes"], value["available_bytes"]
        sizes = [str(one) if in_bytes else human_size(one) for one in (size, used, free)]
        rows.append((value["address"], *sizes, _percent(used, used + free), f"{value['files']:,}"))
        for node in value["nodes"] if nodes else ():
            size, used = node["size_bytes"], node["used_bytes"]
            free = max(size - used, 0)
            sizes = [str(one) if in_bytes else human_size(one) for one in (size, used, free)]
            state = "" if node["state"] == "up" else f", {node['state']}"
            rows.append((f"  node {node['node']} at {node['address']}{state}", *sizes, _percent(used, size), ""))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        put("  ".join(cells).rstrip())


def _percent(used: int, size: int) -> str:
    return f"{-(-100 * used // size)} %" if size else "-"
