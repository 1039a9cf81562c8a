"""`emberfs cp`."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from fs_client.cli.copy.bar import Bar, NoBar, bar_wanted, progress_option
from fs_client.cli.copy.existing import Existing
from fs_client.cli.copy.plan import ends_as_directory, is_below, name_inside, split
from fs_client.cli.failure import EXIT_FAILED, Done, Failure, Usage, reason
from fs_client.cli.options import cluster_option, quiet_option, target_options, verbose_option
from fs_client.cli.remote import Connections, RemotePath, join, parse, printable, run

if TYPE_CHECKING:
    from fs_client.cli.copy.engine import Counts, Source
    from fs_client.cli.copy.place import Place

JOBS_DEFAULT = 16


@click.command()
@click.argument("arguments", nargs=-1, required=True, metavar="SOURCE... DESTINATION")
@click.option("-r", "-R", "--recursive", is_flag=True, help="Copy directories with everything below them.")
@click.option("-p", "--preserve", is_flag=True, help="Keep permissions and times; as root also owners.")
@click.option("-a", "--archive", is_flag=True, help="The same as -r -p.")
@click.option("-n", "--no-clobber", is_flag=True, help="Leave files alone that are there already.")
@click.option("-u", "--update", is_flag=True, help="Leave files alone that are there and not older than the source.")
@click.option("-f", "--force", is_flag=True, help="Remove files that are there and may not be written, and copy then.")
@target_options
@verbose_option
@click.option(
    "-j", "--jobs", type=click.IntRange(1, 256), default=JOBS_DEFAULT, show_default=True, help="Files at a time."
)
@progress_option
@quiet_option
@cluster_option
def cp(
    arguments: tuple[str, ...],
    recursive: bool,
    preserve: bool,
    archive: bool,
    no_clobber: bool,
    update: bool,
    force: bool,
    target_directory: str | None,
    no_target_directory: bool,
    verbose: bool,
    jobs: int,
    progress: bool | None,
    quiet: bool,
    cluster: str,
) -> None:
    """Copy files and trees into, out of and between clusters.

    A DESTINATION that is a directory gets the sources in it; SOURCE/. means what is in it. A file goes to what ends
    with a slash only if there is such a directory. With -r, symbolic links are copied as links, and nothing is copied
    through one: a link that stands where a file goes is replaced, and where a directory goes it is a failure
    (DESTINATION itself may be a link). With -p, owner and group are kept as far as the caller may set them, and set-id
    bits only with them. A file that cannot be copied whole is removed again and named on stderr, the rest is copied,
    and the exit code is 1.
    Memory does not grow with the size of files or trees.

    \b
    Example:
      emberfs cp -r ./images ember:/data/images     a tree into the cluster
      emberfs cp ember:/data/model.bin /tmp/        a file out of it
      emberfs cp -au ./images/. ember:/data/images  what has changed since
      emberfs cp -a ember:/data ember://other.example:9700/data
    """
    sources, destination, into = split(arguments, target_directory, no_target_directory)
    *places, target = [parse(text, cluster) for text in (*sources, destination)]
    if target is None and None in places:
        raise Usage(_both_local(sources[places.index(None)], destination))
    existing = Existing.KEEP if no_clobber else Existing.UPDATE if update else Existing.REPLACE
    with Bar() if bar_wanted(progress, quiet) else NoBar() as bar:
        copy = _Copy(
            bar,
            recursive=recursive or archive,
            preserve=preserve or archive,
            existing=existing,
            force=force and not no_clobber,
            verbose=verbose,
            jobs=jobs,
        )
        started = time.monotonic()
        try:
            run(copy.run(sources, places, destination, target, None if no_target_directory else into))
        finally:
            if not quiet and copy.counts is not None:
                _summarize(bar, copy.counts, time.monotonic() - started)
    if copy.failures:
        raise Done(EXIT_FAILED)


def _both_local(source: str, destination: str) -> str:
    """Why nothing is copied; with the remote path of what lies on a mount."""
    from fs_client.cli.on_a_mount import path_on_cluster

    on_mounts = ((text, path_on_cluster(text)) for text in (source, destination))
    meant = [f"{text!r} lies on a mount and is ember:{path}" for text, path in on_mounts if path is not None]
    what_to_do = "; ".join(meant) or "write remote ones as ember:/..."
    return f"{source!r} and {destination!r} are both local: {what_to_do}"


class _Copy:
    def __init__(
        self,
        bar: Bar | NoBar,
        *,
        recursive: bool,
        preserve: bool,
        existing: Existing,
        force: bool,
        verbose: bool,
        jobs: int,
    ) -> None:
        self.recursive = recursive
        self.preserve = preserve
        self.existing = existing
        self.force = force
        self.verbose = verbose
        self.jobs = jobs
        self.bar = bar
        self.failures = 0
        self.counts: Counts | None = None
        """None until the copying begins."""

    async def run(
        self,
        texts: Sequence[str],
        sources: list[RemotePath | None],
        destination: str,
        target: RemotePath | None,
        into: bool | None,
    ) -> None:
        """`into`: whether the destination has to be a directory that gets them; None: it is a name."""
        from fs_client.cli.copy.engine import Copier

        async with Connections() as connections:
            to = await self._place(connections, destination, target)
            copier = Copier(
                to,
                jobs=self.jobs,
                preserve=self.preserve,
                failed=self._failed,
                moved=self.bar.update,
                existing=self.existing,
                force=self.force,
                copied=self._copied if self.verbose else None,
            )
            root = destination if target is None else target.path
            planned = await self._plan(connections, texts, sources, to, root, into)
            self.counts = copier.counts
            await copier.copy(*_apart(planned))

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
        texts: Sequence[str],
        sources: list[RemotePath | None],
        to: "Place",
        root: str,
        into: bool | None,
    ) -> "list[Source]":
        """Where each source goes. What cannot be copied is reported here and left out."""
        from fs_client.cli.copy.engine import Source
        from fs_client.cli.copy.place import Type

        present = await to.look(root, follow=True)
        inside = into is not None and present is not None and present.type == Type.DIRECTORY
        if into and not inside:
            raise Failure(f"{to.show(root)} {'is not a directory' if present else 'does not exist'}")
        planned: list[Source] = []
        for text, remote in zip(texts, sources, strict=True):
            place = await self._place(connections, text, remote)
            path = text if remote is None else remote.path
            try:
                item = await place.look(path, follow=not self.recursive)
            except OSError as error:
                self._failed(place.show(path), reason(error))
                continue
            name = name_inside(path, text)
            target = join(root, name) if inside and name else root
            if item is None:
                self._failed(place.show(path), "No such file or directory")
            elif item.type == Type.DIRECTORY and not self.recursive:
                self._failed(place.show(path), "is a directory; -r copies it with everything below")
            elif item.type != Type.DIRECTORY and ends_as_directory(target):
                self._failed(place.show(path), f"cannot go to {to.show(target)}, which is no directory; make it first")
            elif place.identity == to.identity and item.type == Type.DIRECTORY and is_below(target, path):
                self._failed(place.show(path), f"cannot be copied into itself, {to.show(target)}")
            elif item.type != Type.DIRECTORY and any(target == other.target for other in planned):
                self._failed(place.show(path), f"would replace {to.show(target)}, which was only just copied")
            else:
                planned.append(Source(place, path, item, target))
        return planned

    def _failed(self, subject: str, reason: str) -> None:
        self.failures += 1
        self.bar.print(f"emberfs: {printable(subject)}: {reason}")

    def _copied(self, source: str, target: str) -> None:
        self.bar.tell(f"{source} -> {target}")


def _apart(planned: "list[Source]") -> "list[list[Source]]":
    """In batches of which no two sources go to the same place: of two files for one name the later one wins, and they
    are never written at once."""
    batches: list[list[Source]] = []
    for source in planned:
        if not batches or any(
            is_below(source.target, other.target) or is_below(other.target, source.target) for other in batches[-1]
        ):
            batches.append([])
        batches[-1].append(source)
    return batches


def _summarize(bar: Bar | NoBar, counts: "Counts", seconds: float) -> None:
    from fs_client.cli.text import counted, size_words

    files, size, speed = (
        counted(counts.files, "file"),
        size_words(counts.bytes),
        size_words(int(counts.bytes / seconds)),
    )
    stay = "left as it was" if counts.kept == 1 else "left as they were"
    kept = f"; {counted(counts.kept, 'file')} {stay}" if counts.kept else ""
    failed = f"; {counted(counts.failures, 'failure')}, named above" if counts.failures else ""
    bar.print(f"copied {files}, {size} in {seconds:.1f} s, {speed}/s{kept}{failed}")
