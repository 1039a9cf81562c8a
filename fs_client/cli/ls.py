"""`emberfs ls`."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fs_client.cli.options import HUMAN_H, cluster_option, json_option
from fs_client.cli.remote import Connections, Failures, RemotePath, join, require_all, run, shown
from fs_client.cli.text import human_size, put, put_json

if TYPE_CHECKING:
    from fs_client.aio import AsyncFileSystem
    from fs_client.dir_entry import ListedEntry
    from fs_client.stat_result import StatResult

T = TypeVar("T")


@click.command(context_settings=HUMAN_H)
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("-l", "--long", is_flag=True, help="Mode, links, owner, size, time of the last change.")
@click.option("-n", "--numeric-uid-gid", "numeric", is_flag=True, help="As -l, with the numbers of owners and groups.")
@click.option("-h", "-H", "--human-readable", "--human", "human", is_flag=True, help="With -l: sizes as 1.5M.")
@click.option("-a", "-A", "--all", "hidden", is_flag=True, help="Names that begin with a dot, too; they always come.")
@click.option("-1", "one", is_flag=True, help="One name a line, as without it.")
@click.option("-R", "--recursive", is_flag=True, help="List directories below, too.")
@click.option("-d", "--directory", is_flag=True, help="List directories themselves, not what is in them.")
@click.option("-t", "by_time", is_flag=True, help="The newest first.")
@click.option("-S", "by_size", is_flag=True, help="The largest first.")
@click.option("-r", "--reverse", is_flag=True, help="The other way round.")
@click.option("-i", "--inode", is_flag=True, help="The inode number before each name.")
@click.option("-F", "--classify", is_flag=True, help="A character behind each name that tells its type: / @ * | =.")
@json_option
@cluster_option
def ls(
    paths: tuple[str, ...],
    long: bool,
    numeric: bool,
    human: bool,
    hidden: bool,
    one: bool,
    recursive: bool,
    directory: bool,
    by_time: bool,
    by_size: bool,
    reverse: bool,
    inode: bool,
    classify: bool,
    as_json: bool,
    cluster: str,
) -> None:
    """List directories.

    Names come in byte order and are printed as they arrive, so a directory of millions needs no memory; -t, -S and -r
    need it. Without a PATH the root is listed. --json prints one object a line.

    \b
    Example:
      emberfs ls ember:/data
      emberfs ls -lat ember:/data
      emberfs ls --json ember://storage.example:9700/ | jq .size
    """
    look = Look(
        long=long or numeric,
        numeric=numeric,
        human=human,
        recursive=recursive,
        directory=directory,
        by_time=by_time,
        by_size=by_size and not by_time,
        reverse=reverse,
        inode=inode,
        classify=classify,
        as_json=as_json,
    )
    run(_List(look).run(require_all(paths or ("ember:/",), cluster)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What is listed, in which order, and how it looks."""

    long: bool = False
    numeric: bool = False
    human: bool = False
    recursive: bool = False
    directory: bool = False
    by_time: bool = False
    by_size: bool = False
    reverse: bool = False
    inode: bool = False
    classify: bool = False
    as_json: bool = False

    @property
    def attributes(self) -> bool:
        """More than names and types has to be known."""
        return self.long or self.as_json or self.by_time or self.by_size or self.inode or self.classify

    @property
    def follows(self) -> bool:
        """A symbolic link that is named shows where it leads, not itself."""
        return not (self.long or self.as_json or self.directory or self.classify)

    @property
    def sorted(self) -> bool:
        return self.by_time or self.by_size or self.reverse

    def key(self, name: str, found: "StatResult | None") -> Any:
        """By which names are sorted: the newest or the largest first, equal ones by name."""
        if found is not None and (self.by_time or self.by_size):
            return (-(found.st_mtime_ns if self.by_time else found.st_size), name)
        return (0, name)


class _List:
    def __init__(self, look: Look) -> None:
        self.look = look
        self.failures = Failures()
        self.blocks = 0
        """Directories listed so far: an empty line stands between two."""

    async def run(self, locations: list[RemotePath]) -> None:
        files: list[tuple[RemotePath, StatResult]] = []
        directories: list[RemotePath] = []
        async with Connections() as connections:
            for location in locations:
                fs = await connections.to(location)
                try:
                    found = await fs.stat(location.path, follow_symlinks=self.look.follows)
                except OSError as error:
                    self.failures.add(location, error)
                    continue
                if self.look.directory or found.st_mode & 0o170000 != 0o040000:
                    files.append((location, found))
                else:
                    directories.append(location)
            for location, found in self._in_order(files, lambda file: (str(file[0]), file[1])):
                self._print(location.path, str(location), found)
            self.blocks += bool(files)
            for location in directories:
                titled = len(locations) > 1 or self.look.recursive
                await self._list(await connections.to(location), location, titled=titled)
        self.failures.end()

    async def _list(self, fs: "AsyncFileSystem", top: RemotePath, *, titled: bool) -> None:
        """A directory and, depth first, those below it. Their names are kept, nothing else of them."""
        pending = [top]
        while pending:
            location = pending.pop()
            if titled and not self.look.as_json:
                put(("\n" if self.blocks else "") + shown(f"{location}:"))
            self.blocks += 1
            below: list[RemotePath] = []
            kept: list[ListedEntry] = []
            try:
                async for page in fs.pages(location.path, attributes=self.look.attributes):
                    if self.look.sorted:
                        kept += page
                    else:
                        self._print_all(location, page, below)
            except OSError as error:
                self.failures.add(location, error)
            self._print_all(location, self._in_order(kept, lambda entry: (entry.name, entry.attributes)), below)
            pending += reversed(below)

    def _print_all(self, location: RemotePath, entries: "Iterable[ListedEntry]", below: list[RemotePath]) -> None:
        from fs_common.records.meta import FileType

        for entry in entries:
            self._print(join(location.path, entry.name), entry.name, entry.attributes)
            if self.look.recursive and entry.type == FileType.DIRECTORY:
                below.append(location.child(entry.name))

    def _in_order(self, things: list[T], of: "Callable[[T], tuple[str, StatResult | None]]") -> list[T]:
        if not self.look.sorted:
            return things
        return sorted(things, key=lambda thing: self.look.key(*of(thing)), reverse=self.look.reverse)

    def _print(self, path: str, name: str, found: "StatResult | None") -> None:
        from fs_client.cli.attributes import as_json, long_line, mark_of

        if found is not None and self.look.as_json:
            put_json(as_json(path, found))
            return
        text = shown(name)
        if found is not None and self.look.classify and not (self.look.long and found.attributes.target):
            text += mark_of(found)
        if found is not None and self.look.long:
            size = human_size(found.st_size) if self.look.human else str(found.st_size)
            text = long_line(found, text, size, numeric=self.look.numeric)
        if found is not None and self.look.inode:
            text = f"{found.inode:>10} {text}"
        put(text)
