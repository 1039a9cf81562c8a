"""`emberfs truncate`."""

from typing import TYPE_CHECKING

import click

from fs_client.cli.options import Size, cluster_option
from fs_client.cli.remote import RemotePath, for_each, require_all, run

if TYPE_CHECKING:
    from fs_client.aio import AsyncFileSystem


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("-s", "--size", type=Size(), required=True, help="The length: bytes, or 64K, 1M, 2G.")
@click.option("-c", "--no-create", is_flag=True, help="Make no file; a path that does not exist is no error.")
@cluster_option
def truncate(paths: tuple[str, ...], size: int, no_create: bool, cluster: str) -> None:
    """Cut or extend files to a length.

    What is added is a hole, which reads as zeros. A file that does not exist is made.

    \b
    Example:
      emberfs truncate -s 0 ember:/logs/run.log
    """

    async def cut(fs: "AsyncFileSystem", location: RemotePath) -> None:
        try:
            await fs.truncate(location.path, size)
        except FileNotFoundError:
            if no_create:
                return
            file = await fs.open(location.path, "ab")
            await file.close()
            await fs.truncate(location.path, size)

    run(for_each(require_all(paths, cluster), cut))
