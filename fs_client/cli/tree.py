"""`emberfs tree`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from fs_client.cli.options import HUMAN_H, cluster_option, json_option
from fs_client.cli.remote import Connections, Failures, RemotePath, join, require_all, run, shown
from fs_client.cli.text import counted, human_size, put, put_json

if TYPE_CHECKING:
    from fs_client.aio import AsyncFileSystem
    from fs_client.dir_entry import ListedEntry


@click.command(context_settings=HUMAN_H)
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("-L", "--level", type=click.IntRange(1), help="Only so many levels deep.")
@click.option("-d", "--directories", is_flag=True, help="Directories only.")
@click.option("-s", "--size", is_flag=True, help="The size of each file, in bytes.")
@click.option("-h", "--human-readable", "human", is_flag=True, help="The size of each file, as 1.5M.")
@json_option
@cluster_option
def tree(
    paths: tuple[str, ...],
    level: int | None,
    directories: bool,
    size: bool,
    human: bool,
    as_json: bool,
    cluster: str,
) -> None:
    """Show directories and all that is below them as a tree.

    Names come in byte order; symbolic links are shown and not followed. --json prints one object a line, with the depth
    of each.

    \b
    Example:
      emberfs tree -L 2 ember:/data
    """
    show = _Tree(level, directories, size or human, human, as_json)
    run(show.run(require_all(paths or ("ember:/",), cluster)))


class _Tree:
    def __init__(self, level: int | None, directories: bool, size: bool, human: bool, as_json: bool) -> None:
        self.level = level
        self.directories = directories
        self.size = size
        self.human = human
        self.as_json = as_json
        self.failures = Failures()
        self.counts = [0, 0]
        """Directories below the top ones, and everything else."""

    async def run(self, locations: list[RemotePath]) -> None:
        async with Connections() as connections:
            for location in locations:
                if not self.as_json:
                    put(shown(str(location)))
                await self._show(await connections.to(location), location)
        if not self.as_json:
            files = "" if self.directories else f", {counted(self.counts[1], 'file')}"
            put(f"\n{counted(self.counts[0], 'directory', 'directories')}{files}")
        self.failures.end()

    async def _show(self, fs: "AsyncFileSystem", top: RemotePath) -> None:
        """Depth first, on a stack of our own: the entries of each directory on the way are kept."""
        from fs_common.records.meta import FileType

        levels: list[tuple[str, Iterator[tuple[bool, ListedEntry]]]] = [(top.path, await self._entries(fs, top))]
        lasts: list[bool] = []
        """Of each level above: whether the directory we are in is the last of its own."""
        while levels:
            folder, entries = levels[-1]
            found = next(entries, None)
            if found is None:
                levels.pop()
                lasts = lasts[:-1]
                continue
            last, entry = found
            path = join(folder, entry.name)
            is_directory = entry.type == FileType.DIRECTORY
            self.counts[0 if is_directory else 1] += 1
            self._print(path, entry, [*lasts, last])
            if is_directory and (self.level is None or len(levels) < self.level):
                levels.append((path, await self._entries(fs, top._replace(path=path))))
                lasts = [*lasts, last]

    async def _entries(self, fs: "AsyncFileSystem", location: RemotePath) -> "Iterator[tuple[bool, ListedEntry]]":
        """(it is the last one, entry); what cannot be listed is named, and has none."""
        from fs_common.records.meta import FileType

        entries: list[ListedEntry] = []
        try:
            async for page in fs.pages(location.path, attributes=True):
                entries += [entry for entry in page if not self.directories or entry.type == FileType.DIRECTORY]
        except OSError as error:
            self.failures.add(location, error)
        return ((number == len(entries), entry) for number, entry in enumerate(entries, 1))

    def _print(self, path: str, entry: "ListedEntry", lasts: list[bool]) -> None:
        from fs_client.cli.attributes import as_json, target_of
        from fs_common.records.meta import FileType

        found = entry.attributes
        assert found is not None, "asked for with the page"
        if self.as_json:
            put_json({"depth": len(lasts)} | as_json(path, found))
            return
        lines = "".join("    " if last else "│   " for last in lasts[:-1]) + ("└── " if lasts[-1] else "├── ")
        size = ""
        if self.size and entry.type == FileType.FILE:
            size = f"[{human_size(found.st_size) if self.human else found.st_size}]  "
        arrow = f" -> {shown(target_of(found))}" if found.attributes.target else ""
        put(f"{lines}{size}{shown(entry.name)}{arrow}")
