"""`emberfs warmup`."""

import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import click

from fs_client.cli.options import cluster_option, json_option, quiet_option
from fs_client.cli.remote import Connections, Failures, RemotePath, require_all, run
from fs_client.cli.text import counted, put, put_json, size_words

if TYPE_CHECKING:
    from fs_client.aio import AsyncFileSystem
    from fs_client.file_ref import FileRef
    from fs_client.stat_result import StatResult
    from fs_client.warmup import Warmed
    from fs_common.errors import EmberError

_PATHS_MAX = 10_000


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--all-replicas", is_flag=True, help="At every replica, not only where clients read from.")
@quiet_option
@json_option
@cluster_option
def warmup(paths: tuple[str, ...], all_replicas: bool, quiet: bool, as_json: bool, cluster: str) -> None:
    """Read files and trees into the page caches of the storage daemons.

    The daemons read their disks and send nothing, so the first epoch is as fast as the second. Reads of others come
    first. What is more than their memory does not stay: the last chunks do.

    \b
    Example:
      emberfs warmup ember:/datasets/imagenet
      emberfs warmup --all-replicas ember:/models/llama.safetensors
    """
    run(_warmup(require_all(paths, cluster), all_replicas, quiet, as_json))


async def _warmup(locations: list[RemotePath], all_replicas: bool, quiet: bool, as_json: bool) -> None:
    from fs_client.warmup import Warmed

    failures = Failures()
    total = Warmed(0, 0, 0)
    began = time.monotonic()
    async with Connections() as connections:
        for location in locations:
            try:
                fs = await connections.to(location)
                done = await _Place(fs, location, failures).warm(all_replicas, quiet)
            except OSError as error:
                failures.add(location, error)
                continue
            total = Warmed(*(one + other for one, other in zip(total, done, strict=True)))
    took_s = time.monotonic() - began
    if as_json:
        put_json(total._asdict() | {"seconds": round(took_s, 3), "failed": failures.count})
    elif not quiet:
        put(
            f"{counted(total.files, 'file')}, {counted(total.chunks, 'chunk')}, {size_words(total.bytes)} "
            f"in {took_s:.1f} s ({size_words(int(total.bytes / max(took_s, 1e-9)))}/s)"
        )
    failures.end()


class _Place:
    """One PATH of the command: a file, or a tree."""

    def __init__(self, fs: "AsyncFileSystem", location: RemotePath, failures: Failures) -> None:
        self._fs = fs
        self._location = location
        self._failures = failures
        self._paths: dict[int, str] = {}
        """What files are called that may fail yet: the last thousands."""
        self._failed: set[int] = set()
        self._bytes = 0

    async def warm(self, all_replicas: bool, quiet: bool) -> "Warmed":
        """Raises `OSError`: PATH is not there, or nobody answers."""
        from fs_client.cli.progress import Progress
        from fs_client.warmup import Warmup
        from fs_common.limits import MIB
        from fs_common.records.meta import FileType

        fs, path = self._fs, self._location.path
        top = await fs.stat(path)
        size = (await fs.usage(path)).total_bytes if top.type == FileType.DIRECTORY else top.st_size
        copies = max(fs.routing.routing.replicas, 1) if all_replicas else 1
        with Progress(f"warming {self._location}", size * copies // MIB, "MiB", hidden=quiet) as progress:

            def advanced(length: int) -> None:
                before, self._bytes = self._bytes, self._bytes + length
                progress.advance(self._bytes // MIB - before // MIB)

            warming = Warmup(fs, all_replicas=all_replicas, advanced=advanced, failed=self._chunk_failed)
            return await warming.run(self._files(top))

    def _chunk_failed(self, file: "FileRef", error: "EmberError") -> None:
        if file.inode not in self._failed:  # one line for each file
            self._failed.add(file.inode)
            self._failures.add(self._paths.get(file.inode, f"inode {file.inode}"), error.message)

    async def _files(self, top: "StatResult") -> AsyncIterator["FileRef"]:
        from fs_client.cli.walk import walk
        from fs_client.file_ref import file_ref
        from fs_common.records.meta import FileType

        prefix = self._location.prefix
        if top.type != FileType.DIRECTORY:
            self._paths[top.inode] = str(self._location)
            file = file_ref(top.attributes)
            if file is not None:
                yield file
            return

        def failed(path: str, error: OSError) -> None:
            self._failures.add(prefix + path, error)

        async for found in walk(self._fs, self._location.path, top.inode, attributes=True, failed=failed):
            told = found.entry.attributes
            file = file_ref(told.attributes) if told is not None else None
            if file is not None and file.length:
                if len(self._paths) >= _PATHS_MAX:
                    del self._paths[next(iter(self._paths))]
                self._paths[file.inode] = prefix + found.path
                yield file
