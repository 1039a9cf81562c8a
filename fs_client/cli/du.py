"""`emberfs du`."""

from typing import TYPE_CHECKING

import click

from fs_client.cli.options import cluster_option, json_option
from fs_client.cli.remote import Connections, Failures, RemotePath, require_all, run, shown
from fs_client.cli.text import counted, human_size, put, put_json

if TYPE_CHECKING:
    from fs_client.aio import AsyncFileSystem
    from fs_common.records.meta import UsageReply


@click.command()
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("-s", "--summarize", is_flag=True, help="One line for each PATH only.")
@click.option("-b", "--bytes", "in_bytes", is_flag=True, help="Exact sizes in bytes instead of 1.5M.")
@json_option
@cluster_option
def du(paths: tuple[str, ...], summarize: bool, in_bytes: bool, as_json: bool, cluster: str) -> None:
    """Add up the space below directories.

    The metadata service counts, so a large tree costs a few calls. One line for each directory directly in PATH, then
    PATH itself. Sizes are the lengths of files, once, not times the replicas. --json prints one object a line.

    \b
    Example:
      emberfs du ember:/data
      emberfs du -s ember:/data ember:/scratch
    """
    run(_Usage(summarize, in_bytes, as_json).run(require_all(paths or ("ember:/",), cluster)))


class _Usage:
    def __init__(self, summarize: bool, in_bytes: bool, as_json: bool) -> None:
        self.summarize = summarize
        self.in_bytes = in_bytes
        self.as_json = as_json
        self.failures = Failures()

    async def run(self, locations: list[RemotePath]) -> None:
        async with Connections() as connections:
            for location in locations:
                fs = await connections.to(location)
                try:
                    await self._add_up(fs, location)
                except OSError as error:
                    self.failures.add(location, error)
        self.failures.end()

    async def _add_up(self, fs: "AsyncFileSystem", location: RemotePath) -> None:
        from fs_common.records.meta import FileType, UsageReply

        found = await fs.stat(location.path, follow_symlinks=False)
        if found.type != FileType.DIRECTORY:
            is_file, is_link = found.type == FileType.FILE, found.type == FileType.SYMLINK
            usage = UsageReply(int(is_file), 0, int(is_link), found.st_size, int(not is_file and not is_link))
            self._print(location, usage)
            return
        if not self.summarize:
            async for page in fs.pages(location.path):
                for entry in page:
                    if entry.is_dir():
                        await self._count(fs, location.child(entry.name))
        await self._count(fs, location)

    async def _count(self, fs: "AsyncFileSystem", location: RemotePath) -> None:
        try:
            usage = await fs.usage(location.path)
        except PermissionError as error:
            self.failures.add(location, error)
            return
        self._print(location, usage)
        if usage.unreadable:
            directories = counted(usage.unreadable, "directory", "directories")
            self.failures.add(location, f"{directories} below cannot be read and are not counted")

    def _print(self, location: RemotePath, usage: "UsageReply") -> None:
        if self.as_json:
            value = {"path": location.path, "bytes": usage.total_bytes, "files": usage.files}
            put_json(value | {"directories": usage.directories, "symlinks": usage.symlinks})
            return
        size = str(usage.total_bytes) if self.in_bytes else human_size(usage.total_bytes)
        put(f"{size:>14}  {counted(usage.files, 'file'):>18}  {shown(str(location))}")
