"""`emberfs head`."""

from typing import TYPE_CHECKING

import click

from fs_client.cli.options import Size, cluster_option
from fs_client.cli.remote import Connections, Failures, RemotePath, require_all, run

if TYPE_CHECKING:
    from fs_client.aio import AsyncFileSystem
    from fs_client.file_ref import FileRef


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("-n", "--lines", type=click.IntRange(0), default=10, show_default=True, help="So many lines.")
@click.option("-c", "--bytes", "count", type=Size(), help="So many bytes instead: 512, 64K, 1M.")
@click.option("-q", "--quiet", is_flag=True, help="No titles of several files.")
@cluster_option
def head(paths: tuple[str, ...], lines: int, count: int | None, quiet: bool, cluster: str) -> None:
    """Write the beginning of files to standard output.

    \b
    Example:
      emberfs head -n 3 ember:/data/labels.csv
      emberfs head -c 4K ember:/data/train.bin | xxd
    """
    run(_head(require_all(paths, cluster), lines, count, quiet))


async def _head(locations: list[RemotePath], lines: int, count: int | None, quiet: bool) -> None:
    from fs_client.cli.output import files, write_range
    from fs_client.cli.tail import Titles

    failures = Failures()
    titles = Titles(len(locations) > 1 and not quiet)
    async with Connections() as connections:
        async for fs, location, ref in files(connections, locations, failures):
            try:
                stop = min(count, ref.length) if count is not None else await end_of_lines(fs, ref, 0, lines)
                titles.show(location)
                await write_range(fs, ref, 0, stop)
            except OSError as error:
                failures.add(location, error)
    failures.end()


_LOOK_BYTES = 256 << 10


async def end_of_lines(fs: "AsyncFileSystem", ref: "FileRef", start: int, lines: int) -> int:
    """Where so many lines from `start` on end."""
    offset = start
    while lines > 0 and offset < ref.length:
        (view,) = await fs.read_ranges([(ref, offset, min(_LOOK_BYTES, ref.length - offset))])
        block = bytes(view)
        at = -1
        while lines > 0 and (at := block.find(b"\n", at + 1)) >= 0:
            lines -= 1
        if lines == 0:
            return offset + at + 1
        offset += len(block)
    return offset
