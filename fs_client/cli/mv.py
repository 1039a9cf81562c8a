"""`emberfs mv`."""

from collections.abc import Sequence

import click

from fs_client.cli.copy.plan import split
from fs_client.cli.failure import Failure, Usage
from fs_client.cli.options import cluster_option, target_options, verbose_option
from fs_client.cli.remote import Connections, Failures, RemotePath, parse, run, shown
from fs_client.cli.text import put


@click.command()
@click.argument("arguments", nargs=-1, required=True, metavar="SOURCE... DESTINATION")
@click.option("-n", "--no-clobber", is_flag=True, help="Fail rather than replace what is there.")
@click.option("-f", "--force", is_flag=True, help="Replace what is there, as without it.")
@click.option("-u", "--update", is_flag=True, help="Leave alone what is there and not older than the source.")
@target_options
@verbose_option
@cluster_option
def mv(
    arguments: tuple[str, ...],
    no_clobber: bool,
    force: bool,
    update: bool,
    target_directory: str | None,
    no_target_directory: bool,
    verbose: bool,
    cluster: str,
) -> None:
    """Rename files and directories.

    Each rename is one transaction: nobody ever sees both names, or none. A DESTINATION that is a directory gets the
    sources in it; one that ends with a slash takes nothing but directories where there is none. Between two clusters,
    use `emberfs cp -a` and `emberfs rm -r`.

    \b
    Example:
      emberfs mv ember:/data/new ember:/data/current
      emberfs mv -t ember:/archive ember:/run-1 ember:/run-2
    """
    sources, destination, into = split(arguments, target_directory, no_target_directory)
    *locations, target = (_require(text, cluster) for text in (*sources, destination))
    for location in locations:
        if location.cluster != target.cluster:
            raise Usage(f"{location} and {target} are in two clusters: use `emberfs cp -a`, then `emberfs rm -r`")
    move = _Move(update=update, no_clobber=no_clobber and not force, verbose=verbose)
    run(move.run(locations, target, None if no_target_directory else into))


def _require(text: str, cluster: str) -> RemotePath:
    location = parse(text, cluster)
    if location is None:
        raise Usage(f"{text!r} is a local path: mv renames within a cluster; `emberfs cp -a` copies between both")
    return location


class _Move:
    def __init__(self, *, update: bool, no_clobber: bool, verbose: bool) -> None:
        self.update = update
        self.no_clobber = no_clobber
        self.verbose = verbose

    async def run(self, locations: Sequence[RemotePath], target: RemotePath, into: bool | None) -> None:
        """`into`: whether the target has to be a directory that gets them; None: it is a name."""
        failures = Failures()
        moved: set[str] = set()
        async with Connections() as connections:
            fs = await connections.to(target)
            inside = into is not None and await fs.isdir(target.path)
            if into and not inside:
                raise Failure(f"{target} {'is not a directory' if await fs.lexists(target.path) else 'does not exist'}")
            for location in locations:
                place = target.child(location.name) if inside else target
                if place.path in moved:
                    failures.add(location, f"would replace {place}, which was only just moved there")
                    continue
                try:
                    if self.update and await self._is_newer(connections, location, place):
                        continue
                    await fs.rename(location.path, place.path, no_replace=self.no_clobber)
                except OSError as error:
                    failures.add(f"{location} -> {place}", error)
                    continue
                moved.add(place.path)
                if self.verbose:
                    put(f"renamed {shown(str(location))} -> {shown(str(place))}")
        failures.end()

    async def _is_newer(self, connections: Connections, location: RemotePath, place: RemotePath) -> bool:
        """Whether what is in the way is as new as what would replace it."""
        fs = await connections.to(place)
        try:
            present = await fs.stat(place.path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return present.st_mtime_ns >= (await fs.stat(location.path, follow_symlinks=False)).st_mtime_ns
