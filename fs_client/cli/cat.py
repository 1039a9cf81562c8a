"""`emberfs cat`."""

import asyncio
import os

import click

from fs_client.cli.options import cluster_option
from fs_client.cli.remote import Connections, Failures, RemotePath, require_all, run

_BLOCK_BYTES = 8 << 20


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
    from fs_common.records.meta import FileType

    failures = Failures()
    async with Connections() as connections:
        for location in locations:
            fs = await connections.to(location)
            try:
                found = await fs.stat(location.path)
            except OSError as error:
                failures.add(location, error)
                continue
            if found.type == FileType.DIRECTORY:
                failures.add(location, "is a directory")
                continue
            ref = found.ref
            buffers = [bytearray(min(_BLOCK_BYTES, ref.length)) for _ in range(2)]
            writing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            writing.set_result(None)
            for number, offset in enumerate(range(0, ref.length, _BLOCK_BYTES)):
                buffer = buffers[number % 2]
                try:
                    (view,) = await fs.read_ranges([(ref, offset, min(_BLOCK_BYTES, ref.length - offset))], buffer)
                except OSError as error:
                    failures.add(location, error)
                    break
                finally:
                    await writing
                writing = asyncio.ensure_future(asyncio.to_thread(_write_all, view))
            await writing
    failures.end()


def _write_all(view: memoryview) -> None:
    """To standard output, past its text layer."""
    while view:
        view = view[os.write(1, view) :]
