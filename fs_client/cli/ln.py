"""`emberfs ln`."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from fs_client.cli.copy.plan import split
from fs_client.cli.failure import Failure, Usage
from fs_client.cli.options import cluster_option, target_options, verbose_option
from fs_client.cli.remote import SCHEME, Connections, Failures, RemotePath, parse, require, run, shown
from fs_client.cli.text import put

if TYPE_CHECKING:
    from fs_client.aio import AsyncFileSystem


@click.command()
@click.argument("arguments", nargs=-1, required=True, metavar="TARGET... LINK")
@click.option("-s", "--symbolic", is_flag=True, help="A symbolic link; without it, another name of the same file.")
@click.option("-f", "--force", is_flag=True, help="Remove a file or link that is there already.")
@click.option("-n", "--no-dereference", is_flag=True, help="A LINK that leads to a directory is a link all the same.")
@target_options
@verbose_option
@cluster_option
def ln(
    arguments: tuple[str, ...],
    symbolic: bool,
    force: bool,
    no_dereference: bool,
    target_directory: str | None,
    no_target_directory: bool,
    verbose: bool,
    cluster: str,
) -> None:
    """Make links.

    A LINK that is a directory gets links called as their targets. With -s, a TARGET that is written ember:/path is
    stored relative to the link, so that it leads there in a mount, too; anything else is stored as it is.

    \b
    Example:
      emberfs ln -s ember:/data/run-17 ember:/data/latest
      emberfs ln -sfn run-18 ember:/data/latest
      emberfs ln ember:/data/a.bin ember:/data/b.bin
    """
    targets, link, into = split(arguments, target_directory, no_target_directory)
    at = require(link, cluster)
    for target in targets:
        there = parse(target, cluster) if symbolic and target.startswith(SCHEME) else None
        there = require(target, cluster) if not symbolic else there
        if there is not None and there.cluster != at.cluster:
            raise Usage(f"{there} and {at} are in two clusters: a link stays in its own")
    as_name = no_target_directory or no_dereference
    make = _Link(symbolic=symbolic, force=force, verbose=verbose, cluster=cluster)
    run(make.run(targets, at, into, as_name=as_name, follow=not as_name))


class _Link:
    def __init__(self, *, symbolic: bool, force: bool, verbose: bool, cluster: str) -> None:
        self.symbolic = symbolic
        self.force = force
        self.verbose = verbose
        self.cluster = cluster

    async def run(self, targets: Sequence[str], at: RemotePath, into: bool, *, as_name: bool, follow: bool) -> None:
        """`into`: `at` has to be a directory that gets them. `follow`: also if it is a link to one."""
        from fs_common.records.meta import FileType

        failures = Failures()
        async with Connections() as connections:
            fs = await connections.to(at)
            try:
                present = await fs.stat(at.path, follow_symlinks=follow or into)
            except FileNotFoundError:
                present = None
            inside = present is not None and present.type == FileType.DIRECTORY
            if into and not inside:
                raise Failure(f"{at} {'is not a directory' if present else 'does not exist'}")
            for target in targets:
                name = os.path.basename(target.rstrip("/"))
                place = at.child(name) if inside and (into or not as_name) else at
                try:
                    await self._make(fs, target, place)
                except OSError as error:
                    failures.add(place, error)
                    continue
                if self.verbose:
                    put(shown(f"{place} -> {target}"))
        failures.end()

    async def _make(self, fs: "AsyncFileSystem", target: str, place: RemotePath) -> None:
        there = parse(target, self.cluster) if target.startswith(SCHEME) else None
        path = target if there is None else there.path

        async def make() -> None:
            if self.symbolic:
                await fs.symlink(path if there is None else relative(path, place.path), place.path)
            else:
                await fs.link(path, place.path)

        try:
            await make()
        except FileExistsError:
            if not self.force:
                raise
            await fs.unlink(place.path)
            await make()


def relative(path: str, link: str) -> str:
    """The text of a link at `link` that leads to `path`, both from the root. What is between them should be no link."""
    return os.path.relpath(path, os.path.dirname(link.rstrip("/")) or "/")
