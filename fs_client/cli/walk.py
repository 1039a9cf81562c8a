"""Walking a remote tree depth first, in byte order of names, a page of entries at a time.

Memory: one page for each level of the tree, however large its directories are.
"""

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, NamedTuple

from fs_client.cli.remote import join

if TYPE_CHECKING:
    from fs_client.aio import AsyncFileSystem
    from fs_client.dir_entry import ListedEntry


class Found(NamedTuple):
    path: str
    entry: "ListedEntry"


async def walk(
    fs: "AsyncFileSystem",
    path: str,
    inode: int,
    *,
    attributes: bool,
    failed: Callable[[str, OSError], None],
) -> AsyncIterator[Found]:
    """Everything below the directory `inode` called `path`, each directory before its contents.

    A directory that cannot be listed is told to `failed`, and the walk goes on behind it.
    """
    from fs_common.records.meta import FileType

    levels = [_entries(fs, path, inode, attributes, failed)]
    while levels:
        try:
            found = await anext(levels[-1])
        except StopAsyncIteration:
            levels.pop()
            continue
        yield found
        if found.entry.type == FileType.DIRECTORY:
            levels.append(_entries(fs, found.path, found.entry.inode(), attributes, failed))


async def _entries(
    fs: "AsyncFileSystem", path: str, inode: int, attributes: bool, failed: Callable[[str, OSError], None]
) -> AsyncIterator[Found]:
    after, more = b"", True
    while more:
        try:
            entries, more = await fs.page(inode, after, path, attributes=attributes)
        except OSError as error:
            failed(path, error)
            return
        for entry in entries:
            yield Found(join(path, entry.name), entry)
        if not entries:
            return
        after = _bytes(entries[-1].name)


def _bytes(name: str) -> bytes:
    import os

    return os.fsencode(name)
