"""`emberfs tail`."""

import asyncio
import re
from typing import TYPE_CHECKING, Any

import click

from fs_client.cli.options import Size, cluster_option
from fs_client.cli.remote import Connections, Failures, RemotePath, require_all, run, shown

if TYPE_CHECKING:
    from fs_client.aio import AsyncFileSystem
    from fs_client.file import AsyncFile
    from fs_client.file_ref import FileRef

LOOK_S = 1.0
"""With -f: pause between two looks at a file's length."""
_LOOK_BYTES = 256 << 10
_LINES_DEFAULT = 10


class _Count(click.ParamType[tuple[bool, int]]):
    """(from the beginning, how many): `10` is the last ten, `+2` all from the second on."""

    name = "[+]count"

    def __init__(self, units: bool) -> None:
        self.units = units
        """It may be written as 64K."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[bool, int]:
        text = str(value)
        digits = text.removeprefix("+").removeprefix("-") if text[:1] in "+-" else text
        if self.units:
            return text.startswith("+"), Size().convert(digits, param, ctx)
        if not re.fullmatch(r"\d+", digits):
            self.fail(f"{text!r} is not a number like 10 or +2", param, ctx)
        return text.startswith("+"), int(digits)


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("-n", "--lines", type=_Count(False), help="So many lines; +N: all from line N on.  [default: 10]")
@click.option("-c", "--bytes", "count", type=_Count(True), help="So many bytes instead; +N: all from byte N on.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is added, until Ctrl-C.")
@click.option("-q", "--quiet", is_flag=True, help="No titles of several files.")
@cluster_option
def tail(
    paths: tuple[str, ...],
    lines: tuple[bool, int] | None,
    count: tuple[bool, int] | None,
    follow: bool,
    quiet: bool,
    cluster: str,
) -> None:
    """Write the end of files to standard output.

    Only the end is read. What -f shows is what writers have flushed.

    \b
    Example:
      emberfs tail ember:/logs/run-17.log
      emberfs tail -f ember:/logs/run-17.log
    """
    run(_Tail(lines or (False, _LINES_DEFAULT), count, follow, quiet).run(require_all(paths, cluster)))


class Titles:
    """The name of each file before what it has, if there are several."""

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted
        self._last: RemotePath | None = None

    def show(self, location: RemotePath) -> None:
        from fs_client.cli.output import write_all

        if self._wanted and location != self._last:
            import os

            before = "\n" if self._last is not None else ""
            write_all(memoryview(os.fsencode(f"{before}==> {shown(str(location))} <==\n")))
            self._last = location


class _Tail:
    def __init__(self, lines: tuple[bool, int], count: tuple[bool, int] | None, follow: bool, quiet: bool) -> None:
        self.lines = lines
        self.count = count
        self.follow = follow
        self.quiet = quiet

    async def run(self, locations: list[RemotePath]) -> None:
        from fs_client.cli.output import files, write_range

        failures = Failures()
        titles = Titles(len(locations) > 1 and not self.quiet)
        followed: list[tuple[RemotePath, AsyncFile, int]] = []
        async with Connections() as connections:
            async for fs, location, ref in files(connections, locations, failures):
                try:
                    if self.follow:
                        followed.append((location, await fs.open(location.path, "rb"), ref.length))
                    titles.show(location)
                    await write_range(fs, ref, await self._start(fs, ref), ref.length)
                except OSError as error:
                    failures.add(location, error)
            while followed:
                await asyncio.sleep(LOOK_S)
                followed = await self._go_on(followed, titles, failures)
        failures.end()

    async def _start(self, fs: "AsyncFileSystem", ref: "FileRef") -> int:
        if self.count is not None:
            from_beginning, count = self.count
            return min(max(count - 1, 0), ref.length) if from_beginning else max(ref.length - count, 0)
        from_beginning, lines = self.lines
        if from_beginning:
            from fs_client.cli.head import end_of_lines

            return await end_of_lines(fs, ref, 0, lines - 1)
        return await _start_of_lines(fs, ref, lines)

    async def _go_on(
        self, followed: "list[tuple[RemotePath, AsyncFile, int]]", titles: Titles, failures: Failures
    ) -> "list[tuple[RemotePath, AsyncFile, int]]":
        """What has been added to files since their last look. Those that are gone are not looked at again."""
        from fs_client.cli.output import write_range

        left = []
        for location, file, length in followed:
            try:
                now = await file.refresh()
                if now < length:
                    click.echo(f"emberfs: {location}: was cut to {now} bytes; going on from there", err=True)
                elif now > length:
                    titles.show(location)
                    await write_range(file.fs, file.ref, length, now)
            except OSError as error:
                failures.add(location, error)
                continue
            left.append((location, file, now))
        return left


async def _start_of_lines(fs: "AsyncFileSystem", ref: "FileRef", lines: int) -> int:
    """Where the last so many lines begin. The newline at the very end begins no line."""
    stop = ref.length
    if lines == 0:
        return stop
    first = True
    while stop > 0:
        start = max(stop - _LOOK_BYTES, 0)
        (view,) = await fs.read_ranges([(ref, start, stop - start)])
        block = bytes(view)
        at = len(block) - 1 if first and block.endswith(b"\n") else len(block)
        first = False
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            lines -= 1
            if lines == 0:
                return start + at + 1
        stop = start
    return 0
