"""`emberfs mv`."""

import click

from fs_client.cli.failure import Usage
from fs_client.cli.options import cluster_option
from fs_client.cli.remote import Connections, Failures, RemotePath, require_all, run


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.argument("destination")
@click.option("-n", "--no-clobber", is_flag=True, help="Fail rather than replace what is there.")
@cluster_option
def mv(sources: tuple[str, ...], destination: str, no_clobber: bool, cluster: str) -> None:
    """Rename files and directories.

    Each rename is one transaction: nobody ever sees both names, or none. A DESTINATION that is a directory gets the
    sources in it. Between two clusters, use `emberfs cp -r` and `emberfs rm -r`.

    \b
    Example:
      emberfs mv ember:/data/new ember:/data/current
    """
    *locations, target = require_all((*sources, destination), cluster)
    for location in locations:
        if location.cluster != target.cluster:
            raise Usage(f"{location} and {target} are in two clusters: use `emberfs cp -r`, then `emberfs rm -r`")
    run(_mv(locations, target, no_clobber))


async def _mv(locations: list[RemotePath], target: RemotePath, no_clobber: bool) -> None:
    failures = Failures()
    async with Connections() as connections:
        fs = await connections.to(target)
        inside = await fs.isdir(target.path)
        if len(locations) > 1 and not inside:
            raise Usage(f"{target} is not a directory, and there are {len(locations)} sources")
        for location in locations:
            place = target.child(location.name) if inside else target
            try:
                await fs.rename(location.path, place.path, no_replace=no_clobber)
            except OSError as error:
                failures.add(f"{location} -> {place}", error)
    failures.end()
