"""`emberfs rm`."""

import click

from fs_client.cli.options import cluster_option
from fs_client.cli.remote import Connections, Failures, RemotePath, require_all, run


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("-r", "--recursive", is_flag=True, help="Remove directories with everything below them.")
@click.option("-f", "--force", is_flag=True, help="A path that does not exist is no error.")
@cluster_option
def rm(paths: tuple[str, ...], recursive: bool, force: bool, cluster: str) -> None:
    """Remove files and trees.

    A tree goes in one transaction, however large it is; its space comes back in the background, after the time the
    cluster leaves to readers that still have a file open. A symbolic link is removed, not what it points to.

    \b
    Example:
      emberfs rm ember:/data/old.bin
      emberfs rm -r ember:/scratch/run-17
    """
    run(_rm(require_all(paths, cluster), recursive, force))


async def _rm(locations: list[RemotePath], recursive: bool, force: bool) -> None:
    failures = Failures()
    async with Connections() as connections:
        for location in locations:
            fs = await connections.to(location)
            try:
                if recursive:
                    await fs.rmtree(location.path)
                else:
                    await fs.unlink(location.path)
            except FileNotFoundError as error:
                if not force:
                    failures.add(location, error)
            except IsADirectoryError:
                failures.add(location, "is a directory; -r removes it with everything below")
            except OSError as error:
                failures.add(location, error)
    failures.end()
