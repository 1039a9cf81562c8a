"""`emberfs rmdir`."""

import click

from fs_client.cli.options import cluster_option, verbose_option
from fs_client.cli.remote import Connections, Failures, RemotePath, require_all, run, shown
from fs_client.cli.text import put


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("-p", "--parents", is_flag=True, help="Their parents, too, as far as they are empty then.")
@verbose_option
@cluster_option
def rmdir(paths: tuple[str, ...], parents: bool, verbose: bool, cluster: str) -> None:
    """Remove empty directories.

    \b
    Example:
      emberfs rmdir ember:/data/empty
    """

    run(_rmdir(require_all(paths, cluster), parents, verbose))


async def _rmdir(locations: list[RemotePath], parents: bool, verbose: bool) -> None:
    failures = Failures()
    async with Connections() as connections:
        for top in locations:
            fs = await connections.to(top)
            location = top
            try:
                while True:
                    await fs.rmdir(location.path)
                    if verbose:
                        put(shown(str(location)))
                    above = location.path.rstrip("/").rpartition("/")[0]
                    if not parents or not above:
                        break
                    location = location._replace(path=above)
            except OSError as error:
                failures.add(location, error)
    failures.end()
