"""`emberfs ls`."""

from typing import TYPE_CHECKING

import click

from fs_client.cli.options import cluster_option, json_option
from fs_client.cli.remote import Connections, Failures, RemotePath, join, require_all, run, shown
from fs_client.cli.text import human_size, put, put_json

if TYPE_CHECKING:
    from fs_client.aio import AsyncFileSystem
    from fs_client.stat_result import StatResult


@click.command()
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("-l", "--long", is_flag=True, help="Mode, links, owner, size, time of the last change.")
@click.option("-R", "--recursive", is_flag=True, help="List directories below, too.")
@click.option("-d", "--directory", is_flag=True, help="List directories themselves, not what is in them.")
@click.option("-H", "--human", is_flag=True, help="With -l: sizes as 1.5M.")
@json_option
@cluster_option
def ls(
    paths: tuple[str, ...],
    long: bool,
    recursive: bool,
    directory: bool,
    human: bool,
    as_json: bool,
    cluster: str,
) -> None:
    """List directories.

    Names come in byte order and are printed as they arrive, so a directory of millions needs no memory. Without a
    PATH the root is listed. --json prints one object a line.

    \b
    Example:
      emberfs ls ember:/data
      emberfs ls -lR ember:/data
      emberfs ls --json ember://storage.example:9700/ | jq .size
    """
    locations = require_all(paths or ("ember:/",), cluster)
    run(_List(long, recursive, directory, human, as_json).run(locations))


class _List:
    def __init__(self, long: bool, recursive: bool, directory: bool, human: bool, as_json: bool) -> None:
        self.long = long
        self.recursive = recursive
        self.directory = directory
        self.human = human
        self.as_json = as_json
        self.failures = Failures()
        self.blocks = 0
        """Directories listed so far: an empty line stands between two."""

    async def run(self, locations: list[RemotePath]) -> None:
        async with Connections() as connections:
            for location in locations:
                fs = await connections.to(location)
                try:
                    found = await fs.stat(location.path, follow_symlinks=not (self.long or self.as_json))
                except OSError as error:
                    self.failures.add(location, error)
                    continue
                if self.directory or found.st_mode & 0o170000 != 0o040000:
                    self._print(location.path, str(location), found)
                else:
                    await self._list(fs, location, titled=len(locations) > 1 or self.recursive)
        self.failures.end()

    async def _list(self, fs: "AsyncFileSystem", top: RemotePath, *, titled: bool) -> None:
        """A directory and, depth first, those below it. Their names are kept, nothing else of them."""
        pending = [top]
        while pending:
            location = pending.pop()
            if titled and not self.as_json:
                put(("\n" if self.blocks else "") + shown(f"{location}:"))
            self.blocks += 1
            below: list[RemotePath] = []
            try:
                async for page in fs.pages(location.path, attributes=self.long or self.as_json):
                    for entry in page:
                        self._print(join(location.path, entry.name), entry.name, entry.attributes)
                        if self.recursive and entry.is_dir():
                            below.append(location.child(entry.name))
            except OSError as error:
                self.failures.add(location, error)
            pending += reversed(below)

    def _print(self, path: str, name: str, found: "StatResult | None") -> None:
        from fs_client.cli.attributes import as_json, long_line

        if found is None or not (self.long or self.as_json):
            put(shown(name))
        elif self.as_json:
            put_json(as_json(path, found))
        else:
            size = human_size(found.st_size) if self.human else str(found.st_size)
            put(long_line(found, shown(name), size))
