"""`emberfs scrub`."""

import asyncio
import re
from typing import TYPE_CHECKING, Any

import click

from fs_client.cli.failure import Failure, Usage
from fs_client.cli.options import cluster_option, json_option
from fs_client.cli.remote import run
from fs_client.cli.text import counted, human_size, local_time, put, put_json

if TYPE_CHECKING:
    from fs_client.aio import AsyncFileSystem
    from fs_common.records.routing import NodeInfo
    from fs_common.records.scrubbing import ScrubReply

_TIMEOUT_S = 10.0
_EVERY_S = 2.0
"""Between two lines of progress."""
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def _rate(ctx: click.Context, parameter: click.Parameter, value: str | None) -> int:
    if value is None:
        return 0
    match = re.fullmatch(r"(\d+)([kmg]?)(?:b|i?b?/s)?", value.strip().lower())
    if match is None or not int(match[1]):
        raise click.BadParameter(f"{value!r} is no rate; write for example 200M")
    return int(match[1]) * _UNITS[match[2]]


@click.command()
@click.argument("address", required=False, metavar="[CLUSTER]")
@click.option("--now", is_flag=True, help="Begin a pass over everything now, and follow it to its end.")
@click.option("--no-wait", is_flag=True, help="With --now: begin, and do not wait.")
@click.option("--chain", "chains", multiple=True, type=int, help="With --now: only this chain. May be repeated.")
@click.option("--rate", callback=_rate, help="With --now: bytes each daemon reads in a second, such as 200M.")
@json_option
@cluster_option
def scrub(
    address: str | None, now: bool, no_wait: bool, chains: tuple[int, ...], rate: int, as_json: bool, cluster: str
) -> None:
    """Show how far the scrub of stored bytes has come, or begin it now.

    Daemons read all that they store once a week, compare it with its checksums, repair what is damaged from another
    replica, and report replicas that differ. Exit code 1 if something is damaged or differs, or a node does not answer.
    What differs is repaired by `emberfs fsck --repair`.

    \b
    Example:
      emberfs scrub
      emberfs scrub --now --rate 500M
    """
    if (no_wait or chains or rate) and not now:
        raise Usage("--no-wait, --chain and --rate go with --now")
    run(_scrub(address or cluster, now, no_wait, list(chains), rate, as_json))


async def _scrub(cluster: str, now: bool, no_wait: bool, chains: list[int], rate: int, as_json: bool) -> None:
    from fs_client import aio

    try:
        fs = await aio.connect(cluster)
    except ValueError as error:
        raise Usage(str(error)) from None
    async with fs:
        known = {chain.chain for chain in fs.routing.routing.chains}
        if unknown := set(chains) - known:
            raise Failure(f"the cluster has no chain {min(unknown)}; `emberfs status` shows them")
        value = await _collect(fs, now, chains, rate)
        while now and not no_wait and any(target["running"] for target in value["targets"]):
            await asyncio.sleep(_EVERY_S)
            value = await _collect(fs, False, [], 0)
            running = [target for target in value["targets"] if target["running"]]
            done, total = (sum(target[name] for target in running) for name in ("chunks", "chunks_total"))
            if running:
                left = counted(len(running), "target")
                click.echo(f"scrubbing {left}: {done:,} of {counted(total, 'chunk')} looked at", err=True)
    if as_json:
        put_json(value, indent=2)
    else:
        _print(value)
    if troubles := _troubles(value):
        raise Failure("; ".join(troubles))


async def _collect(fs: "AsyncFileSystem", start: bool, chains: list[int], rate: int) -> dict[str, Any]:
    """The value of `--json`."""
    from fs_common.records.routing import NodeState

    nodes = [node for node in fs.routing.routing.nodes if node.state is not NodeState.LEFT]
    replies = await asyncio.gather(*(_ask(fs, node, start, chains, rate) for node in nodes))
    targets = [
        {
            "target": one.target,
            "node": node.node,
            "chain": one.chain,
            "pass": one.number,
            "running": one.running,
            "began_s": one.began_s if one.number else None,
            "ended_s": one.ended_s or None,
            "chunks": one.chunks,
            "chunks_total": one.chunks_total,
            "bytes": one.bytes,
            "repaired": one.repaired,
            "not_compared": one.not_compared,
            "damaged": one.damaged,
            "differing": one.differing,
        }
        for node, reply in zip(nodes, replies, strict=True)
        if reply is not None
        for one in reply.targets
    ]
    silent = [node.node for node, reply in zip(nodes, replies, strict=True) if reply is None]
    return {"targets": sorted(targets, key=lambda target: target["target"]), "silent_nodes": silent}


async def _ask(
    fs: "AsyncFileSystem", node: "NodeInfo", start: bool, chains: list[int], rate: int
) -> "ScrubReply | None":
    from fs_common.errors import EmberError
    from fs_common.methods import SCRUB
    from fs_common.records.scrubbing import Scrub

    try:
        reply: ScrubReply = await fs.pool.call(
            (node.host, node.port), SCRUB, Scrub(start, chains, rate), timeout=_TIMEOUT_S
        )
    except EmberError:
        return None
    return reply


def _troubles(value: dict[str, Any]) -> list[str]:
    damaged = sum(len(target["damaged"]) for target in value["targets"])
    differing = sum(len(target["differing"]) for target in value["targets"])
    troubles = [f"node {node} does not answer" for node in value["silent_nodes"]]
    if damaged:
        troubles.append(f"{counted(damaged, 'chunk is', 'chunks are')} damaged, and no replica can give them")
    if differing:
        troubles.append(f"replicas of {counted(differing, 'chunk')} differ; see `emberfs fsck --repair`")
    return troubles


def _print(value: dict[str, Any]) -> None:
    put("target  node  chain  pass  state                 looked at      bytes  repaired  damaged  differ")
    for target in value["targets"]:
        ended = target["ended_s"]
        state = "running" if target["running"] else local_time(int(ended * 1e9)) if ended else "not yet"
        looked = f"{target['chunks']:,}/{target['chunks_total']:,}"
        put(
            f"{target['target']:>6}  {target['node']:>4}  {target['chain']:>5}  {target['pass']:>4}  {state:<19}  "
            f"{looked:>10}  {human_size(target['bytes']):>8}B  {target['repaired']:>8}  {len(target['damaged']):>7}  "
            f"{len(target['differing']):>6}"
        )
    for target in value["targets"]:
        for line in target["damaged"] + target["differing"]:
            put(f"\ntarget {target['target']}: {line}")
