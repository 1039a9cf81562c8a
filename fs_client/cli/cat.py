"""`emberfs cat`."""

import click

from fs_client.cli.options import cluster_option
from fs_client.cli.remote import Connections, Failures, RemotePath, require_all, run


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@cluster_option
def cat(paths: tuple[str, ...], cluster: str) -> None:
    """Write files to standard output.

    One after another, in blocks: the next is read while one is written. Every byte was checked against the checksum
    its writer computed.

    \b
    Example:
      emberfs cat ember:/data/labels.csv | head
    """
    run(_cat(require_all(paths, cluster)))


async def _cat(locations: list[RemotePath]) -> None:
    from fs_client.cli.output import files, write_range

    failures = Failures()
    async with Connections() as connections:
        async for fs, location, ref in files(connections, locations, failures):
            try:
                await write_range(fs, ref, 0, ref.length)
            except OSError as error:
                failures.add(location, error)
    failures.end()
