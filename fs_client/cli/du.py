"""`emberfs du`."""

from typing import TYPE_CHECKING

import click

from fs_client.cli.options import HUMAN_H, cluster_option, json_option
from fs_client.cli.remote import Connections, Failures, RemotePath, require_all, run, shown
from fs_client.cli.text import counted, human_size, put, put_json

if TYPE_CHECKING:
    from fs_client.aio import AsyncFileSystem
    from fs_common.records.meta import UsageReply


@click.command(context_settings=HUMAN_H)
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("-s", "--summarize", is_flag=True, help="One line for each PATH only.")
@click.option(
    "-d", "--max-depth", "depth", type=click.IntRange(0), default=1, show_default=True, help="Levels of lines."
)
@click.option("-c", "--total", is_flag=True, help="Also a line for all PATHs together.")
@click.option("-h", "-H", "--human-readable", "human", is_flag=True, help="Sizes as 1.5M, as without it.")
@click.option("-b", "--bytes", "in_bytes", is_flag=True, help="Exact sizes in bytes instead of 1.5M.")
@json_option
@cluster_option
def du(
    paths: tuple[str, ...],
    summarize: bool,
    depth: int,
    total: bool,
    human: bool,
    in_bytes: bool,
    as_json: bool,
    cluster: str,
) -> None:
    """Add up the space below directories.

    The metadata service counts, so a large tree costs a few calls. One line for each directory directly in PATH, then
    PATH itself. Sizes are the lengths of files, once, not times the replicas. --json prints one object a line.

    \b
    Example:
      emberfs du ember:/data
      emberfs du -sh ember:/data ember:/scratch
    """
    run(
        _Usage(0 if summarize else depth, total, in_bytes and not human, as_json).run(
            require_all(paths or ("ember:/",), cluster)
        )
    )


class _Usage:
    def __init__(self, depth: int, total: bool, in_bytes: bool, as_json: bool) -> None:
        self.depth = depth
        self.total = total
        self.in_bytes = in_bytes
        self.as_json = as_json
        self.failures = Failures()
        self.sums = [0, 0, 0, 0]
        """Of all PATHs: bytes, files, directories, symbolic links."""

    async def run(self, locations: list[RemotePath]) -> None:
        async with Connections() as connections:
            for location in locations:
                fs = await connections.to(location)
                try:
                    await self._add_up(fs, location)
                except OSError as error:
                    self.failures.add(location, error)
        if self.total:
            size, files, directories, links = self.sums
            self._put("total", size, files, directories, links)
        self.failures.end()

    async def _add_up(self, fs: "AsyncFileSystem", location: RemotePath) -> None:
        from fs_common.records.meta import FileType, UsageReply

        found = await fs.stat(location.path, follow_symlinks=False)
        if found.type != FileType.DIRECTORY:
            is_file, is_link = found.type == FileType.FILE, found.type == FileType.SYMLINK
            usage = UsageReply(int(is_file), 0, int(is_link), found.st_size, int(not is_file and not is_link))
            self._print(location, usage, top=True)
            return
        await self._below(fs, location, self.depth)
        await self._count(fs, location, top=True)

    async def _below(self, fs: "AsyncFileSystem", location: RemotePath, depth: int) -> None:
        """A line for each directory below, down to `depth`, those inside first."""
        from fs_common.records.meta import FileType

        if depth == 0:
            return
        try:
            async for page in fs.pages(location.path):
                for entry in page:
                    if entry.type == FileType.DIRECTORY:
                        await self._below(fs, location.child(entry.name), depth - 1)
                        await self._count(fs, location.child(entry.name))
        except PermissionError as error:
            self.failures.add(location, error)

    async def _count(self, fs: "AsyncFileSystem", location: RemotePath, *, top: bool = False) -> None:
        try:
            usage = await fs.usage(location.path)
        except PermissionError as error:
            self.failures.add(location, error)
            return
        self._print(location, usage, top=top)
        if usage.unreadable:
            directories = counted(usage.unreadable, "directory", "directories")
            self.failures.add(location, f"{directories} below cannot be read and are not counted")

    def _print(self, location: RemotePath, usage: "UsageReply", *, top: bool) -> None:
        counts = (usage.total_bytes, usage.files, usage.directories, usage.symlinks)
        if top:
            self.sums = [one + other for one, other in zip(self.sums, counts, strict=True)]
        self._put(location.path if self.as_json else shown(str(location)), *counts)

    def _put(self, path: str, size: int, files: int, directories: int, links: int) -> None:
        if self.as_json:
            put_json({"path": path, "bytes": size, "files": files, "directories": directories, "symlinks": links})
            return
        text = str(size) if self.in_bytes else human_size(size)
        put(f"{text:>14}  {counted(files, 'file'):>18}  {path}")
