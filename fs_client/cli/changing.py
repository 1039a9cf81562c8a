"""Changing attributes of files and whole trees, for `chmod` and `chown`.

Below a path that the user has named everything is changed by its inode, never by a path: whoever owns a directory of
the tree could put a symbolic link in its place between the look and the change. Symbolic links in the tree are left
alone.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from fs_client.cli.remote import Connections, Failures, RemotePath, run, shown
from fs_client.cli.text import put

if TYPE_CHECKING:
    from fs_client.aio import AsyncFileSystem
    from fs_client.stat_result import StatResult

Changes = Callable[["StatResult"], dict[str, Any]]
"""What is to be set of a file (fields of `SetAttr`); empty: it is as it should be."""


def change(
    locations: Sequence[RemotePath], changes: Changes, *, recursive: bool, follow: bool = True, verbose: bool = False
) -> None:
    """`follow`: of a symbolic link that is named, what it leads to is changed."""
    run(_Change(changes, recursive, follow, verbose).run(locations))


class _Change:
    def __init__(self, changes: Changes, recursive: bool, follow: bool, verbose: bool) -> None:
        self.changes = changes
        self.recursive = recursive
        self.follow = follow
        self.verbose = verbose
        self.failures = Failures()

    async def run(self, locations: Sequence[RemotePath]) -> None:
        async with Connections() as connections:
            for location in locations:
                fs = await connections.to(location)
                try:
                    found = await fs.stat(location.path, follow_symlinks=self.follow)
                except OSError as error:
                    self.failures.add(location, error)
                    continue
                await self._change(fs, location, found)
                if self.recursive:
                    await self._below(fs, location, found)
        self.failures.end()

    async def _below(self, fs: "AsyncFileSystem", top: RemotePath, found: "StatResult") -> None:
        from fs_client.cli.walk import walk
        from fs_common.records.meta import FileType

        if found.type != FileType.DIRECTORY:
            return

        def failed(path: str, error: OSError) -> None:
            self.failures.add(top._replace(path=path), error)

        async for path, entry in walk(fs, top.path, found.inode, attributes=True, failed=failed):
            if entry.attributes is not None and entry.type != FileType.SYMLINK:
                await self._change(fs, top._replace(path=path), entry.attributes)

    async def _change(self, fs: "AsyncFileSystem", location: RemotePath, found: "StatResult") -> None:
        from fs_common import methods
        from fs_common.records.meta import SetAttr

        changes = self.changes(found)
        if not changes:
            return
        request = SetAttr(found.inode, b"", fs.request_id(), user=fs.user, **changes)
        try:
            await fs.meta_call(methods.SET_ATTR, request, location.path)
        except OSError as error:
            self.failures.add(location, error)
            return
        if self.verbose:
            put(shown(str(location)))
