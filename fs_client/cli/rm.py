"""`emberfs rm`."""

from typing import TYPE_CHECKING

import click

from fs_client.cli.failure import Usage
from fs_client.cli.options import cluster_option, verbose_option
from fs_client.cli.remote import Connections, Failures, RemotePath, require_all, run, shown
from fs_client.cli.text import put

if TYPE_CHECKING:
    from fs_client.aio import AsyncFileSystem


@click.command()
@click.argument("paths", nargs=-1, metavar="PATH...")
@click.option("-r", "-R", "--recursive", is_flag=True, help="Remove directories with everything below them.")
@click.option("-f", "--force", is_flag=True, help="A path that does not exist is no error.")
@click.option("-d", "--dir", "empty", is_flag=True, help="Empty directories, too.")
@verbose_option
@cluster_option
def rm(paths: tuple[str, ...], recursive: bool, force: bool, empty: bool, verbose: bool, cluster: str) -> None:
    """Remove files and trees.

    A tree goes in one transaction, however large it is; its space comes back in the background, after the time the
    cluster leaves to readers that still have a file open. A symbolic link is removed, not what it points to.

    \b
    Example:
      emberfs rm ember:/data/old.bin
      emberfs rm -r ember:/scratch/run-17
    """
    if not paths and not force:
        raise Usage("nothing to remove: name a PATH")
    run(_rm(require_all(paths, cluster), recursive, force, empty, verbose))


async def _rm(locations: list[RemotePath], recursive: bool, force: bool, empty: bool, verbose: bool) -> None:
    failures = Failures()
    async with Connections() as connections:
        for location in locations:
            fs = await connections.to(location)
            try:
                if recursive:
                    await fs.rmtree(location.path)
                else:
                    await _unlink(fs, location.path, empty)
            except FileNotFoundError as error:
                if not force:
                    failures.add(location, error)
                continue
            except IsADirectoryError:
                failures.add(location, "is a directory; -r removes it with everything below")
                continue
            except OSError as error:
                failures.add(location, error)
                continue
            if verbose:
                put(shown(str(location)))
    failures.end()


async def _unlink(fs: "AsyncFileSystem", path: str, empty: bool) -> None:
    """`empty`: or an empty directory."""
    try:
        await fs.unlink(path)
    except IsADirectoryError:
        if not empty:
            raise
        await fs.rmdir(path)
