"""`emberfs stats`: what a mount did and holds."""

import json
from pathlib import Path

import click

from fs_client.cli.failure import Failure, Usage
from fs_client.cli.text import size_words


@click.command()
@click.argument("mountpoint", required=False, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="As the mount gives it, for programs.")
def stats(mountpoint: Path | None, as_json: bool) -> None:
    """Show what a mount did and holds.

    Operations and their latency since it began, caches, open files, bytes that are not stored yet. Errors are failures:
    that there is no such name or attribute is an answer. Without a MOUNTPOINT it is the only mount of this machine.

    \b
    Example:
      emberfs stats /mnt/ember
    """
    mountpoint = mountpoint or _only_mount()
    try:
        text = (mountpoint / ".emberfs" / "stats").read_text()
    except FileNotFoundError:
        raise Failure(f"{mountpoint} is no mount of EmberFS, or one with -o nocontrol") from None
    if as_json:
        click.echo(text, nl=False)
        return
    found = json.loads(text)
    click.echo(
        f"{found['cluster']}, {found['consistency']}, FUSE {found['protocol']}, up {found['uptime_s']:.0f} s, "
        f"{found['open_files']} open files, {found['nodes']} inodes known"
    )
    reads = found["cache_hits"] + found["cache_misses"]
    hits = f", {found['cache_hits'] / reads:.0%} of {reads} reads from it" if reads else ""
    click.echo(f"not stored yet {size_words(found['dirty_bytes'])}; cache {size_words(found['cache_bytes'])}{hits}")
    click.echo(f"{'operation':<18}{'count':>12}{'errors':>10}{'mean us':>12}{'p50 us':>12}{'p99 us':>12}")
    for line in found["operations"]:
        click.echo(
            f"{line['name']:<18}{line['count']:>12}{line['errors']:>10}"
            f"{line['mean_us']:>12.1f}{line['p50_us']:>12.1f}{line['p99_us']:>12.1f}"
        )


def _only_mount() -> Path:
    from fs_client.fuse.mountpoint import TYPE, mounts

    found = sorted({entry.mountpoint for entry in mounts() if entry.type == TYPE})
    if len(found) == 1:
        return Path(found[0])
    if not found:
        raise Failure("nothing of EmberFS is mounted on this machine: emberfs mount CLUSTER DIRECTORY")
    raise Usage(f"which mount? There are {', '.join(found)}")
