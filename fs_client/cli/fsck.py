"""`emberfs fsck`."""

import time
from typing import TYPE_CHECKING

import click

from fs_client.cli.failure import Failure, Usage
from fs_client.cli.options import cluster_argument, cluster_option, json_option
from fs_client.cli.remote import run
from fs_client.cli.text import counted, put, put_json, size_words

if TYPE_CHECKING:
    from fs_client.fsck import Report

_LINE_EVERY_S = 2.0
_SHOWN_MAX = 50


@click.command()
@cluster_argument
@click.option("--repair", is_flag=True, help="Remove chunks of files that are gone; fill up replicas that differ.")
@click.option(
    "--grace", "grace_s", type=click.FloatRange(0), default=60.0, show_default=True, metavar="SECONDS",
    help="How long chunks must have been without a file.",
)  # fmt: skip
@click.option("--no-paths", is_flag=True, help="Do not walk the names: no paths, no lengths compared.")
@json_option
@cluster_option
def fsck(address: str | None, repair: bool, grace_s: float, no_paths: bool, as_json: bool, cluster: str) -> None:
    """Check the whole cluster: chunks against files, replicas against each other.

    May run while the cluster is used. Finds chunks whose file is gone, replicas of a chain that differ, and damage that
    the daemons could not repair (`emberfs scrub` reads the disks). Bytes missing inside a file cannot be told from a
    hole, so they are only counted. Exit code 0: sound; 1: something was found and not repaired, or not all could
    be checked.

    \b
    Example:
      emberfs fsck
      emberfs fsck --repair --json > report.json
    """
    report = run(_fsck(address or cluster, repair, grace_s, not no_paths))
    if as_json:
        import msgspec

        put_json({"sound": report.sound} | msgspec.to_builtins(report), indent=2)
    else:
        _print(report)
    found = len(report.orphans) + len(report.differing) + len(report.damaged)
    if repair and not report.not_repaired and not report.damaged and not report.not_checked:
        return
    if not report.sound:
        raise Failure(
            f"{counted(found, 'finding')}"
            + (f", {len(report.not_checked)} could not be checked" if report.not_checked else "")
            + ("" if repair or not found else "; --repair repairs what is safe")
        )


async def _fsck(cluster: str, repair: bool, grace_s: float, paths: bool) -> "Report":
    from fs_client import aio
    from fs_client.fsck import Fsck

    last = [0.0]

    def told(line: str) -> None:
        now = time.monotonic()
        if now - last[0] >= _LINE_EVERY_S:
            last[0] = now
            click.echo(line, err=True)

    try:
        fs = await aio.connect(cluster)
    except ValueError as error:
        raise Usage(str(error)) from None
    async with fs:
        return await Fsck(fs, grace_s=grace_s, repair=repair, paths=paths, told=told).run()


def _print(report: "Report") -> None:
    put(
        f"{counted(report.chains, 'chain')}, {counted(report.chunks, 'chunk')}, {size_words(report.bytes)}, "
        f"{counted(report.files, 'file')} with chunks"
    )
    for orphan in report.orphans[:_SHOWN_MAX]:
        put(
            f"orphan: {counted(orphan.chunks, 'chunk')}, {size_words(orphan.bytes)} on chain {orphan.chain} are of"
            f" inode {orphan.inode}, which is gone"
        )
    for found in report.differing[:_SHOWN_MAX]:
        path = found.path or f"inode {found.inode}"
        has = ", ".join(f"target {target} has {words}" for target, words in found.replicas.items())
        put(f"differs: chunk {found.index} of {path} on chain {found.chain}: {has}")
    for line in report.damaged[:_SHOWN_MAX]:
        put(f"damaged: {line}")
    for line in report.not_checked[:_SHOWN_MAX]:
        put(f"not checked: {line}")
    total = len(report.orphans) + len(report.differing) + len(report.damaged) + len(report.not_checked)
    if total > _SHOWN_MAX:
        put(f"{total} lines in all; --json has every one")
    if report.collected:
        put(f"{counted(report.collected, 'removed file')} wait for the collector")
    if report.past_the_end:
        put(f"{counted(report.past_the_end, 'file has', 'files have')} chunks past the end: being written, or left so")
    if report.holes:
        put(f"{counted(report.holes, 'file has', 'files have')} parts without chunks: holes, as far as can be known")
    for line in report.repaired:
        put(f"repaired: {line}")
    for line in report.not_repaired:
        put(f"not repaired: {line}")
    if report.sound:
        put("sound")
