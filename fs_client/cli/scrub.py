"""`emberfs scrub`."""

import asyncio
import re
from typing import Any

import click

from fs_client.cli.failure import Failure, Usage
from fs_client.cli.manager_api import Administered, ManagerApi
from fs_client.cli.options import cluster_argument, cluster_option, json_option
from fs_client.cli.remote import run
from fs_client.cli.text import counted, local_time, put, put_json, size_words

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
@cluster_argument
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
    async with Administered(cluster) as api:
        if now:
            await api.order("BeginScrub", chains=chains, bytes_per_s=rate)
        value = await _collect(api)
        while now and not no_wait and any(target["running"] for target in value["targets"]):
            await asyncio.sleep(_EVERY_S)
            value = await _collect(api)
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


async def _collect(api: ManagerApi) -> dict[str, Any]:
    """The value of `--json`."""
    pages = [page async for page in api.pages("ListScrubs")]
    targets = [
        {
            "target": one.target,
            "node": one.node,
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
            "damaged": list(one.damaged),
            "differing": list(one.differing),
        }
        for page in pages
        for one in page.scrubs
    ]
    silent = [node for page in pages for node in page.silent_nodes]
    return {"targets": sorted(targets, key=lambda target: target["target"]), "silent_nodes": silent}


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
            f"{looked:>10}  {size_words(target['bytes']):>9}  {target['repaired']:>8}  {len(target['damaged']):>7}  "
            f"{len(target['differing']):>6}"
        )
    for target in value["targets"]:
        for line in target["damaged"] + target["differing"]:
            put(f"\ntarget {target['target']}: {line}")
