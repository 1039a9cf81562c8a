"""`emberfs stats`: what a mount did and holds."""

import json
from pathlib import Path

import click

from fs_client.cli.failure import Failure
from fs_client.cli.text import human_size


@click.command()
@click.argument("mountpoint", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="As the mount gives it, for programs.")
def stats(mountpoint: Path, as_json: bool) -> None:
    """Show what a mount did and holds.

    Operations and their latency since it began, caches, open files, bytes that are not stored yet.

    \b
    Example:
      emberfs stats /mnt/ember
    """
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
    click.echo(f"not stored yet {human_size(found['dirty_bytes'])}; cache {human_size(found['cache_bytes'])}{hits}")
    click.echo(f"{'operation':<18}{'count':>12}{'errors':>10}{'mean us':>12}{'p50 us':>12}{'p99 us':>12}")
    for line in found["operations"]:
        click.echo(
            f"{line['name']:<18}{line['count']:>12}{line['errors']:>10}"
            f"{line['mean_us']:>12.1f}{line['p50_us']:>12.1f}{line['p99_us']:>12.1f}"
        )
