"""`emberfs cp`."""

import os
import time
from typing import TYPE_CHECKING

import click

from fs_client.cli.copy.bar import Bar, NoBar, bar_wanted, progress_option
from fs_client.cli.failure import EXIT_FAILED, Done, Failure, Usage, reason
from fs_client.cli.options import cluster_option, quiet_option
from fs_client.cli.remote import Connections, RemotePath, join, parse, printable, run

if TYPE_CHECKING:
    from fs_client.cli.copy.engine import Counts, Source
    from fs_client.cli.copy.place import Place

JOBS_DEFAULT = 16


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.argument("destination")
@click.option("-r", "-R", "--recursive", is_flag=True, help="Copy directories with everything below them.")
@click.option("-p", "--preserve", is_flag=True, help="Keep permissions and times; as root also owners.")
@click.option(
    "-j", "--jobs", type=click.IntRange(1, 256), default=JOBS_DEFAULT, show_default=True, help="Files at a time."
)
@progress_option
@quiet_option
@cluster_option
def cp(
    sources: tuple[str, ...],
    destination: str,
    recursive: bool,
    preserve: bool,
    jobs: int,
    progress: bool | None,
    quiet: bool,
    cluster: str,
) -> None:
    """Copy files and trees into, out of and between clusters.

    A DESTINATION that is a directory gets the sources in it; SOURCE/. means what is in it. With -r, symbolic links are
    copied as links, and nothing is copied through one: a link that stands where a file goes is replaced, and where a
    directory goes it is a failure (DESTINATION itself may be a link). With -p, owner and group are kept as far as the
    caller may set them, and set-id bits only with them. A file that cannot be copied whole is removed again and named
    on stderr, the rest is copied, and the exit code is 1. Memory does not grow with the size of files or trees.

    \b
    Example:
      emberfs cp -r ./images ember:/data/images     a tree into the cluster
      emberfs cp ember:/data/model.bin /tmp/        a file out of it
      emberfs cp -rp ember:/data ember://other.example:9700/data
    """
    *places, target = [parse(text, cluster) for text in (*sources, destination)]
    if target is None and None in places:
        local = sources[places.index(None)]
        raise Usage(f"{local!r} and {destination!r} are both local: write remote ones as ember:/...")
    with Bar() if bar_wanted(progress, quiet) else NoBar() as bar:
        copy = _Copy(recursive, preserve, jobs, bar)
        started = time.monotonic()
        try:
            run(copy.run(sources, places, destination, target))
        finally:
            if not quiet and copy.counts is not None:
                _summarize(bar, copy.counts, time.monotonic() - started)
    if copy.failures:
        raise Done(EXIT_FAILED)


class _Copy:
    def __init__(self, recursive: bool, preserve: bool, jobs: int, bar: Bar | NoBar) -> None:
        self.recursive = recursive
        self.preserve = preserve
        self.jobs = jobs
        self.bar = bar
        self.failures = 0
        self.counts: Counts | None = None
        """None until the copying begins."""

    async def run(
        self, texts: tuple[str, ...], sources: list[RemotePath | None], destination: str, target: RemotePath | None
    ) -> None:
        from fs_client.cli.copy.engine import Copier

        async with Connections() as connections:
            to = await self._place(connections, destination, target)
            copier = Copier(to, jobs=self.jobs, preserve=self.preserve, failed=self._failed, moved=self.bar.update)
            root = destination if target is None else target.path
            work = await self._plan(connections, texts, sources, to, root)
            self.counts = copier.counts
            await copier.copy(work)

    async def _place(self, connections: Connections, text: str, path: RemotePath | None) -> "Place":
        """The file system of `text`, as far as it is below that."""
        if path is None:
            from fs_client.cli.copy.local import LocalPlace

            return LocalPlace(text)
        from fs_client.cli.copy.remote import RemotePlace

        return RemotePlace(await connections.to(path), path)

    async def _plan(
        self,
        connections: Connections,
        texts: tuple[str, ...],
        sources: list[RemotePath | None],
        to: "Place",
        root: str,
    ) -> "list[Source]":
        """Where each source goes. What cannot be copied is reported here and left out."""
        from fs_client.cli.copy.engine import Source
        from fs_client.cli.copy.place import Type

        present = await to.look(root, follow=True)
        inside = present is not None and present.type == Type.DIRECTORY
        if not inside and (len(sources) > 1 or root.endswith("/")):
            raise Failure(f"{to.show(root)} is not a directory")
        planned = []
        for text, remote in zip(texts, sources, strict=True):
            place = await self._place(connections, text, remote)
            path = text if remote is None else remote.path
            try:
                item = await place.look(path, follow=not self.recursive)
            except OSError as error:
                self._failed(place.show(path), reason(error))
                continue
            name = _name(text if remote is None else remote.path, text)
            target = join(root, name) if inside and name else root
            if item is None:
                self._failed(place.show(path), "No such file or directory")
            elif item.type == Type.DIRECTORY and not self.recursive:
                self._failed(place.show(path), "is a directory; -r copies it with everything below")
            elif place.identity == to.identity and item.type == Type.DIRECTORY and _is_below(target, path):
                self._failed(place.show(path), f"cannot be copied into itself, {to.show(target)}")
            else:
                planned.append(Source(place, path, item, target))
        return planned

    def _failed(self, subject: str, reason: str) -> None:
        self.failures += 1
        self.bar.print(f"emberfs: {printable(subject)}: {reason}")


def _name(path: str, text: str) -> str:
    """What the copy of `path`, given as `text`, is called in a directory; empty: it is its contents that are meant."""
    if text.endswith("/.") or text == ".":
        return ""
    name = os.path.basename(path.rstrip("/"))
    return "" if name in (".", "..") else name


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _summarize(bar: Bar | NoBar, counts: "Counts", seconds: float) -> None:
    from fs_client.cli.text import counted, human_size

    files, size, speed = (
        counted(counts.files, "file"),
        human_size(counts.bytes),
        human_size(int(counts.bytes / seconds)),
    )
    failed = f"; {counted(counts.failures, 'failure')}, named above" if counts.failures else ""
    bar.print(f"copied {files}, {size}B in {seconds:.1f} s, {speed}B/s{failed}")
