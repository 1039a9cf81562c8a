"""`emberfs find`."""

import fnmatch
import re
from typing import TYPE_CHECKING, Any

import click

from fs_client.cli.options import Size, cluster_option, json_option
from fs_client.cli.remote import Connections, Failures, RemotePath, require_all, run, shown
from fs_client.cli.text import put, put_json

if TYPE_CHECKING:
    from fs_client.aio import AsyncFileSystem
    from fs_client.stat_result import StatResult

SizeTest = tuple[str, int]
"""("+", "-" or "=", bytes): more than, less than, exactly."""


class _SizeTest(click.ParamType[SizeTest]):
    name = "[+|-]size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> SizeTest:
        text = str(value)
        sign = text[0] if text[:1] in ("+", "-") else "="
        return sign, Size().convert(text.lstrip("+-"), param, ctx)


@click.command()
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("-name", "--name", metavar="GLOB", help="The last component matches, as in *.jpg.")
@click.option(
    "-type",
    "--type",
    "letter",
    type=click.Choice(list("fdlpscb")),
    help="File, directory, symbolic link, fifo, socket, character or block device.",
)
@click.option("-size", "--size", type=_SizeTest(), help="Files of more than, less than, exactly so many bytes: +10M.")
@click.option("-0", "--print0", is_flag=True, help="End each path with a NUL character, for xargs -0.")
@json_option
@cluster_option
def find(
    paths: tuple[str, ...],
    name: str | None,
    letter: str | None,
    size: SizeTest | None,
    print0: bool,
    as_json: bool,
    cluster: str,
) -> None:
    """Find files by name, type and size.

    Walks the trees depth first and prints what passes all tests as it is found, as paths that other commands take.
    Symbolic links are not followed. --json prints one object a line.

    \b
    Example:
      emberfs find ember:/data -name '*.jpg' -size +1M
      emberfs find ember:/tmp -type f -0 | xargs -0 emberfs rm
    """
    search = _Search(name, letter, size, print0, as_json)
    run(search.run(require_all(paths or ("ember:/",), cluster)))


class _Search:
    def __init__(
        self, name: str | None, letter: str | None, size: SizeTest | None, print0: bool, as_json: bool
    ) -> None:
        from fs_client.cli.attributes import TYPE_LETTERS

        self.pattern = None if name is None else re.compile(fnmatch.translate(name), re.DOTALL)
        self.type = None if letter is None else TYPE_LETTERS[letter]
        self.size = size
        self.print0 = print0
        self.as_json = as_json
        self.failures = Failures()

    async def run(self, locations: list[RemotePath]) -> None:
        async with Connections() as connections:
            for location in locations:
                fs = await connections.to(location)
                try:
                    found = await fs.stat(location.path, follow_symlinks=False)
                except OSError as error:
                    self.failures.add(location, error)
                    continue
                self._consider(location, location.name, found.type, found)
                await self._search_below(fs, location, found)
        self.failures.end()

    async def _search_below(self, fs: "AsyncFileSystem", location: RemotePath, found: "StatResult") -> None:
        from fs_client.cli.walk import walk
        from fs_common.records.meta import FileType

        if found.type != FileType.DIRECTORY:
            return

        def failed(path: str, error: OSError) -> None:
            self.failures.add(location._replace(path=path), error)

        attributes = self.as_json or self.size is not None
        async for path, entry in walk(fs, location.path, found.inode, attributes=attributes, failed=failed):
            self._consider(location._replace(path=path), entry.name, entry.type, entry.attributes)

    def _consider(self, location: RemotePath, name: str, file_type: int, found: "StatResult | None") -> None:
        """Print it if it passes. `found` is there if a test or the output needs it."""
        if self.pattern is not None and self.pattern.match(name) is None:
            return
        if self.type is not None and file_type != self.type:
            return
        if self.size is not None and (found is None or file_type != 1 or not _passes(self.size, found.st_size)):
            return
        if self.as_json and found is not None:
            from fs_client.cli.attributes import as_json

            put_json(as_json(location.path, found))
        elif self.print0:
            put(str(location) + "\0", end="")
        else:
            put(shown(str(location)))


def _passes(test: SizeTest, size: int) -> bool:
    sign, limit = test
    match sign:
        case "+":
            return size > limit
        case "-":
            return size < limit
        case _:
            return size == limit
