"""Building a `FileIndex`: pages of directory entries with attributes, many directories at a time.

A page brings everything a sample needs (inode, length, layout), so no file is opened or looked up by its path: a
million files cost about a thousand calls. The order is the byte order of paths whatever order the answers come in.

Symbolic links are not followed and are no samples; neither is a file that has no layout yet.
"""

import asyncio
import bisect
from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from fs_client.loader.index import FileIndex, NameFilter, NameTable
from fs_common.layout import Layout
from fs_common.records.meta import DirectoryEntry, FileType, ReaddirReply

_Number = TypeVar("_Number", bound=np.generic)
_DIRECTORIES_IN_FLIGHT = 16
"""Pages asked for at a time: enough to cover the round trip of a metadata server that answers thousands a second."""


class Directories(Protocol):
    """What the walk needs of a client."""

    async def page(self, inode: int, after: bytes) -> ReaddirReply:
        """One page of a directory, with attributes, in byte order, after the name `after`."""


@dataclass(slots=True)
class _Directory:
    """One directory while it is being read: its files as columns, its subdirectories as places between them."""

    inode: int
    path: bytes
    inodes: "array[int]" = field(default_factory=lambda: array("Q"))
    lengths: "array[int]" = field(default_factory=lambda: array("q"))
    layout_ids: "array[int]" = field(default_factory=lambda: array("i"))
    firsts: "array[int]" = field(default_factory=lambda: array("i"))
    seeds: "array[int]" = field(default_factory=lambda: array("Q"))
    names: list[bytes] = field(default_factory=list)
    children: list["_Directory"] = field(default_factory=list)

    def pieces(self) -> Iterator["tuple[int, int] | _Directory"]:
        """Runs of files and subdirectories, in byte order of the paths below this directory.

        A subdirectory stands where `name/` stands, not where `name` does: `a.txt` comes before `a/x`.
        """
        begin = 0
        for child in sorted(self.children, key=lambda child: child.path + b"/"):
            name = child.path[len(self.path) + 1 :] if self.path else child.path
            end = bisect.bisect_left(self.names, name + b"/", begin)
            yield begin, end
            yield child
            begin = end
        yield begin, len(self.names)


class _Layouts:
    """Numbers for distinct layouts."""

    def __init__(self) -> None:
        self._ids: dict[Layout, int] = {}

    def id_of(self, layout: Layout) -> int:
        plain = Layout(layout.chunk_size, layout.stripe, layout.table, layout.table_version, 0, 0, layout.durability)
        return self._ids.setdefault(plain, len(self._ids))

    def all(self) -> tuple[Layout, ...]:
        return tuple(self._ids)


async def walk(directories: Directories, root: int, accept: NameFilter) -> FileIndex:
    """The index of all accepted files below the directory with inode `root`. Raises what `directories` raises."""
    layouts = _Layouts()
    top = _Directory(root, b"")
    pending = deque([top])
    reading: set[asyncio.Task[None]] = set()
    try:
        while pending or reading:
            while pending and len(reading) < _DIRECTORIES_IN_FLIGHT:
                reading.add(asyncio.create_task(_read(directories, pending.popleft(), layouts, accept, pending)))
            done, reading = await asyncio.wait(reading, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    finally:
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
    return _assemble(top, layouts.all())


async def _read(
    directories: Directories,
    directory: _Directory,
    layouts: _Layouts,
    accept: NameFilter,
    pending: "deque[_Directory]",
) -> None:
    after = b""
    while True:
        page = await directories.page(directory.inode, after)
        for entry in page.entries:
            _add(directory, entry, layouts, accept, pending)
        if not page.more or not page.entries:
            return
        after = page.entries[-1].name


def _add(
    directory: _Directory,
    entry: DirectoryEntry,
    layouts: _Layouts,
    accept: NameFilter,
    pending: "deque[_Directory]",
) -> None:
    if entry.type == FileType.DIRECTORY:
        path = directory.path + b"/" + entry.name if directory.path else entry.name
        child = _Directory(entry.inode, path)
        directory.children.append(child)
        pending.append(child)
        return
    attributes = entry.attributes
    if entry.type != FileType.FILE or attributes is None or attributes.layout is None:
        return
    if not accept.accepts(directory.path, entry.name):
        return
    directory.inodes.append(entry.inode)
    directory.lengths.append(attributes.length)
    directory.layout_ids.append(layouts.id_of(attributes.layout))
    directory.firsts.append(attributes.layout.first)
    directory.seeds.append(attributes.layout.seed)
    directory.names.append(entry.name)


def _assemble(top: _Directory, layouts: tuple[Layout, ...]) -> FileIndex:
    """One set of columns from the directories', in byte order of paths."""
    runs: list[tuple[int, _Directory, int, int]] = []
    paths: list[bytes] = []
    stack: list[tuple[int, _Directory, Iterator[tuple[int, int] | _Directory]]] = []

    def enter(directory: _Directory) -> None:
        stack.append((len(paths), directory, directory.pieces()))
        paths.append(directory.path)

    enter(top)
    while stack:
        number, directory, pieces = stack[-1]
        piece = next(pieces, None)
        if piece is None:
            stack.pop()
        elif isinstance(piece, _Directory):
            enter(piece)
        elif piece[0] < piece[1]:
            runs.append((number, directory, *piece))

    counts = [end - begin for _, _, begin, end in runs]
    return FileIndex(
        inodes=_join(np.uint64, (run.inodes[begin:end] for _, run, begin, end in runs)),
        lengths=_join(np.int64, (run.lengths[begin:end] for _, run, begin, end in runs)),
        layout_ids=_join(np.int32, (run.layout_ids[begin:end] for _, run, begin, end in runs)),
        firsts=_join(np.int32, (run.firsts[begin:end] for _, run, begin, end in runs)),
        seeds=_join(np.uint64, (run.seeds[begin:end] for _, run, begin, end in runs)),
        layouts=layouts,
        directory_ids=np.repeat(np.array([number for number, *_ in runs], np.int32), counts),
        directories=NameTable.of(paths),
        names=NameTable.of([name for _, run, begin, end in runs for name in run.names[begin:end]]),
    )


def _join(dtype: type[_Number], parts: "Iterable[array[int]]") -> NDArray[_Number]:
    return np.concatenate([np.empty(0, dtype), *(np.asarray(part, dtype) for part in parts)])
