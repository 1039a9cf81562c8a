"""`emberfs status`."""

import asyncio
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from fs_client.cli.failure import Failure, Usage
from fs_client.cli.options import cluster_argument, cluster_option, json_option
from fs_client.cli.remote import run
from fs_client.cli.text import counted, put, put_json, size_words
from fs_client.cli.took_long import put_slow, slow_operations

if TYPE_CHECKING:
    from fs_client.aio import AsyncFileSystem
    from fs_common.records.chains import ListChainsReply
    from fs_common.records.routing import NodeInfo
    from fs_common.records.storage import SpaceInfoReply

NODES_MAX = 10
"""Nodes that are named in one line."""
HEALING_LINES_MAX = 20
"""Chains that are shown with what is wrong with them."""
CERTIFICATE_WARN_DAYS = 30
_SPACE_TIMEOUT_S = 2.0
"""A daemon that does not say how full it is within this time is shown without."""


@click.command()
@cluster_argument
@json_option
@cluster_option
def status(address: str | None, as_json: bool, cluster: str) -> None:
    """Show the nodes, chains and space of a cluster.

    Exit code 1 if no metadata server answers, or if something is missing: such a cluster is degraded, and serves
    from the other replicas. For each chain that is degraded it says what is missing, what is being done about it and
    how long that takes, and at the end which nodes to bring back. Space is logical, with the replicas divided out; what
    other programs have on the same disks is told apart from what holds files of the cluster.

    \b
    Example:
      emberfs status
      emberfs status --json storage.example:9700 | jq .healthy
    """
    run(_status(address or cluster, as_json))


async def _status(cluster: str, as_json: bool) -> None:
    from fs_client import aio

    try:
        fs = await aio.connect(cluster)
    except ValueError as error:
        raise Usage(str(error)) from None
    async with fs:
        # What the client knows may be as old as its connection; this is a moment old at most.
        value = await _collect(fs)
    if as_json:
        put_json(value, indent=2)
    else:
        _print(value)
    if not value["healthy"]:
        from fs_common.cluster_words import what_is_missing

        raise Failure(f"the cluster is degraded: {', '.join(what_is_missing(value))}")


async def _collect(fs: "AsyncFileSystem") -> dict[str, Any]:
    """The value of `--json`."""
    from fs_common import chain_words
    from fs_common.cluster_words import state_of
    from fs_common.release import RELEASE

    routing = fs.routing.routing
    space, spaces, manager, slow = await asyncio.gather(
        fs.statvfs("/"),
        asyncio.gather(*(_space(fs, n) for n in routing.nodes)),
        _ask_manager(fs),
        slow_operations(fs, _SPACE_TIMEOUT_S),
    )
    views = manager.degraded
    held = sum(target.used_bytes for found in spaces if found is not None for target in found.targets)
    found = [] if views is None else [(chain, chain_words.what_happens(chain)) for chain in views.chains]
    return {
        "cluster": routing.cluster,
        "address": fs.options.cluster,
        "client_release": RELEASE,
        "routing_version": routing.version,
        "replicas": routing.replicas,
        "capacity_bytes": space.f_frsize * space.f_blocks,
        "free_bytes": space.f_frsize * space.f_bavail,
        "stored_bytes": held // max(routing.replicas, 1),
        "files": space.f_files,
        "resting": views is not None and views.resting,
        "slow_operations": slow,
        "healing": [{"chain": chain.chain, "what": lines} for chain, lines in found],
        "helps": [] if views is None else chain_words.what_helps(views),
        "manager_silent": manager.silent,
        "configurations": manager.configurations,
        "certificates": _certificates(fs),
        "transports": _transports(fs),
    } | state_of(routing, spaces)


def _transports(fs: "AsyncFileSystem") -> dict[str, str]:
    """Of the nodes that answered: how contents would travel between them and this machine."""
    found = fs.pool.transports()
    nodes = sorted((node.host, node.port) for node in fs.routing.routing.nodes)
    return {f"{host}:{port}": found[host, port] for host, port in nodes if (host, port) in found}


def _certificates(fs: "AsyncFileSystem") -> list[dict[str, Any]]:
    """Of the daemons that were asked, over TLS: how long their certificates are good."""
    now_s = time.time()
    ends = fs.pool.certificate_ends()
    return [
        {"address": f"{host}:{port}", "days_left": round((end_s - now_s) / 86_400, 1)}
        for (host, port), end_s in sorted(ends.items())
    ]


class _ManagerSays(NamedTuple):
    degraded: "ListChainsReply | None" = None
    """Chains that are not as they should be; None: nothing is known."""
    configurations: list[dict[str, Any]] = []  # noqa: RUF012 - never changed
    """Nodes that are up and do not work by the newest version of the cluster's configuration."""
    silent: str = ""
    """Why nothing is known."""


async def _ask_manager(fs: "AsyncFileSystem") -> _ManagerSays:
    """What the manager alone knows."""
    from fs_client.cli.chains import listed_chains
    from fs_client.cli.manager_api import manager_of
    from fs_client.cli.targets import listed_nodes
    from fs_common.errors import EmberError
    from fs_common.records.cluster_config import ConfigStatus
    from fs_common.records.routing import NodeState

    try:
        async with manager_of(fs) as api:
            degraded = await listed_chains(api, degraded=True, timeout_s=_SPACE_TIMEOUT_S)
            listed = await listed_nodes(api, timeout_s=_SPACE_TIMEOUT_S)
    except EmberError as error:
        return _ManagerSays(silent=error.message)
    except Failure as failure:
        return _ManagerSays(silent=failure.message)
    configurations = [
        {"node": node.node, "status": node.config.status.name.lower(), "version": node.config.version}
        for node in listed.nodes
        if node.state is NodeState.UP and node.config.status is not ConfigStatus.NORMAL
    ]
    return _ManagerSays(degraded, configurations)


async def _space(fs: "AsyncFileSystem", node: "NodeInfo") -> "SpaceInfoReply | None":
    from fs_common.errors import EmberError
    from fs_common.methods import SPACE_INFO
    from fs_common.records.storage import SpaceInfo

    try:
        found: SpaceInfoReply = await fs.pool.call(
            (node.host, node.port), SPACE_INFO, SpaceInfo(), timeout=_SPACE_TIMEOUT_S
        )
    except EmberError:
        return None
    return found


def _print(value: dict[str, Any]) -> None:
    from fs_common.cluster_words import RESTING, note_of

    health = "healthy" if value["healthy"] else "degraded"
    replicas = counted(value["replicas"], "replica")
    put(f"cluster {value['cluster']} at {value['address']}: {health}, {replicas}")
    put(f"space   {_space_words(value)}; {counted(value['files'], 'inode')}")
    put(f"release {value['client_release']} (this command), routing version {value['routing_version']}")
    if "rdma" in value.get("transports", {}).values():
        over = sum(transport == "rdma" for transport in value["transports"].values())
        put(f"data    by RDMA between this machine and {over} of {counted(len(value['transports']), 'node')}")
    put("\nnode  address               state     release   free of capacity")
    for node in value["nodes"]:
        state = node["state"] if node["answers"] or node["state"] != "up" else "up, silent"
        space = f"{size_words(node['free_bytes'])} of {size_words(node['capacity_bytes'])}"
        note = note_of(node, bool(value["chains"]))
        put(
            f"{node['node']:>4}  {node['address']:<20}  {state:<8}  {node['release'] or '-':<8}  {space}"
            f"{f'  {note}' if note else ''}"
        )
    put("\nchain  version  state     targets, head first")
    for chain in value["chains"]:
        targets = "  ".join(_target(target) for target in chain["targets"])
        put(f"{chain['chain']:>5}  {chain['version']:>7}  {chain['state']:<8}  {targets}")
    if value["troubles"]:
        put("\ntarget  node  does not serve, because")
        for trouble in value["troubles"]:
            put(f"{trouble['target']:>6}  {trouble['node']:>4}  {trouble['reason']}")
    if value["warnings"]:
        put("\ntarget  node  serves, but")
        for warning in value["warnings"]:
            put(f"{warning['target']:>6}  {warning['node']:>4}  {warning['reason']}")
    ending = [one for one in value["certificates"] if one["days_left"] < CERTIFICATE_WARN_DAYS]
    if ending:
        put("\ncertificates that end soon, after which nobody talks to their daemons: emberfs certs rotate")
        for one in ending:
            put(f"{one['address']:<20}  {counted(max(int(one['days_left']), 0), 'day')} left")
    if value["healing"]:
        put("\nchain  what is wrong, and what is done about it")
        for healing in value["healing"][:HEALING_LINES_MAX]:
            for line in healing["what"]:
                put(f"{healing['chain']:>5}  {line}")
        if len(value["healing"]) > HEALING_LINES_MAX:
            more = counted(len(value["healing"]) - HEALING_LINES_MAX, "more chain")
            put(f"       and {more}: emberfs chains --degraded")
    put_slow(value["slow_operations"])
    if value["manager_silent"]:
        put(f"\nwhat is done about chains is not known: {value['manager_silent']}")
    if value["configurations"]:
        nodes = ", ".join(f"node {each['node']} ({each['status']})" for each in value["configurations"][:NODES_MAX])
        more = " and others" if len(value["configurations"]) > NODES_MAX else ""
        put(f"\nnot at the newest configuration: {nodes}{more}: emberfs config status")
    if value["resting"]:
        put(f"\n{RESTING}")
    for line in value["helps"]:
        put(f"\nto do: {line}" if line is value["helps"][0] else f"to do: {line}")


def _space_words(value: dict[str, Any]) -> str:
    """Who has how much of the disks: other programs may have more than the cluster."""
    capacity, free, stored = value["capacity_bytes"], value["free_bytes"], value["stored_bytes"]
    at_least = "" if all(node["answers"] for node in value["nodes"]) else "at least "
    others = max(capacity - free - stored, 0)
    return (
        f"{size_words(free)} free of {size_words(capacity)}; {at_least}{size_words(stored)} hold files, "
        f"the other {size_words(others)} on the disks are not of this cluster's files"
    )


def _target(target: dict[str, Any]) -> str:
    content = (
        f", {counted(target['chunks'], 'chunk')}, {size_words(target['used_bytes'])}" if "chunks" in target else ""
    )
    return f"{target['target']} ({target['state']}{content})"
