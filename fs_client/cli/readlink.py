"""`emberfs readlink`."""

from typing import TYPE_CHECKING

import click

from fs_client.cli.options import cluster_option
from fs_client.cli.remote import RemotePath, for_each, require_all, run, shown
from fs_client.cli.text import put

if TYPE_CHECKING:
    from fs_client.aio import AsyncFileSystem


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@cluster_option
def readlink(paths: tuple[str, ...], cluster: str) -> None:
    """Show where symbolic links lead.

    The text of each link, as it is stored.

    \b
    Example:
      emberfs readlink ember:/data/latest
    """

    async def show(fs: "AsyncFileSystem", location: RemotePath) -> None:
        put(shown(await fs.readlink(location.path)))

    run(for_each(require_all(paths, cluster), show))
