"""Contents of files on standard output: what `cat`, `head` and `tail` share."""

import asyncio
import os
from typing import TYPE_CHECKING

from fs_client.cli.remote import Connections, Failures, RemotePath

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fs_client.aio import AsyncFileSystem
    from fs_client.file_ref import FileRef

_BLOCK_BYTES = 8 << 20


async def files(
    connections: Connections, locations: list[RemotePath], failures: Failures
) -> "AsyncIterator[tuple[AsyncFileSystem, RemotePath, FileRef]]":
    """Those of the paths that are files."""
    from fs_common.records.meta import FileType

    for location in locations:
        fs = await connections.to(location)
        try:
            found = await fs.stat(location.path)
            if found.type == FileType.DIRECTORY:
                failures.add(location, "is a directory")
                continue
            yield fs, location, found.ref
        except OSError as error:
            failures.add(location, error)


async def write_range(fs: "AsyncFileSystem", ref: "FileRef", start: int, stop: int) -> None:
    """Bytes `[start, stop)` of a file, which has them: the next block is read while one is written."""
    buffers = [bytearray(min(_BLOCK_BYTES, max(stop - start, 0))) for _ in range(2)]
    writing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    writing.set_result(None)
    for number, offset in enumerate(range(start, stop, _BLOCK_BYTES)):
        try:
            ranges = [(ref, offset, min(_BLOCK_BYTES, stop - offset))]
            (view,) = await fs.read_ranges(ranges, buffers[number % 2])
        finally:
            await writing
        writing = asyncio.ensure_future(asyncio.to_thread(write_all, view))
    await writing


def write_all(view: memoryview) -> None:
    """To standard output, past its text layer."""
    while view:
        view = view[os.write(1, view) :]
