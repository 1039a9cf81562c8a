"""Copies within a cluster: contents go from daemon to daemon through this process, many pieces and files at a time.

Holes stay holes. Names and behaviour are those of `shutil`; a file whose copying fails is left as far as it came, as
there.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from fs_client.dir_entry import AsyncDirEntry
from fs_client.extents import data_in
from fs_client.file import AsyncFile
from fs_client.file_ref import FileRef
from fs_client.globbing import each
from fs_client.memory import allocate
from fs_client.paths import Path, decode_like
from fs_client.stat_result import StatResult
from fs_common.errors import EmberError, to_os_error
from fs_common.records.meta import FileType

if TYPE_CHECKING:
    from fs_client.aio import AsyncFileSystem

BLOCK_BYTES = 4 << 20
"""Several chunks of the default size: one block is read from, and written to, several chains at once."""
BLOCKS_IN_FLIGHT = 6
"""Of one file. A tree copies several files at a time: `FILES_IN_FLIGHT` of them hold 200 MB at most."""
FILES_IN_FLIGHT = 8
Ignore = Callable[[Any, list[Any]], Iterable[Any]]


async def copy_file(
    fs: "AsyncFileSystem", src: Path, dst: Path, *, follow_symlinks: bool = True, mode: int = 0o666
) -> StatResult:
    """Contents alone, or the link itself. `mode`: of a file that is made. Returns what `src` is."""
    found = await fs.stat(src, follow_symlinks=follow_symlinks)
    if found.type == FileType.SYMLINK:
        await fs.symlink(await fs.readlink(src), dst)
        return found
    # Before `dst` is cut to nothing, which `src` may be.
    await _refuse_itself(fs, src, found, dst)
    source = await fs.ref(src)
    async with await fs.open_as(AsyncFile, dst, "wb", permissions=mode) as target:
        await _copy_contents(fs, source, target, src)
    return found


async def _refuse_itself(fs: "AsyncFileSystem", src: Path, found: StatResult, dst: Path) -> None:
    try:
        there = await fs.stat(dst)
    except FileNotFoundError:
        return
    if there.inode == found.inode:
        raise shutil.SameFileError(f"{src!r} and {dst!r} are the same file")


async def _copy_contents(fs: "AsyncFileSystem", source: FileRef, target: AsyncFile, src: Path) -> None:
    async def copy_block(block: tuple[int, int]) -> None:
        offset, size = block
        buffer = allocate(size)
        (view,) = await fs.read_ranges([(source, offset, size)], buffer)
        await target.write_at(offset, view)

    if source.length <= source.layout.chunk_size:
        await copy_block((0, source.length))
        return
    start = 0
    while start < source.length:
        try:
            ranges, start = await data_in(fs, source, start, source.length)
        except EmberError as error:
            raise to_os_error(error, src) from error
        await each(list(_blocks(ranges)), copy_block, BLOCKS_IN_FLIGHT)
    if target.length < source.length:
        await target.truncate(source.length)


def _blocks(ranges: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """(offset, size), cut where chunks of any size end."""
    for begin, end in ranges:
        while begin < end:
            size = min(end, begin - begin % BLOCK_BYTES + BLOCK_BYTES) - begin
            yield begin, size
            begin += size


async def copy_attributes(
    fs: "AsyncFileSystem", src: Path, found: StatResult, dst: Path, *, follow_symlinks: bool = True
) -> None:
    """As `shutil.copystat`: mode, times, and the extended attributes that this user may set. `found`: what `src` is."""
    for name in await fs.list_xattrs(found.inode, src):
        value = await fs.getxattr(src, name, follow_symlinks=follow_symlinks)
        try:
            await fs.setxattr(dst, name, value, follow_symlinks=follow_symlinks)
        except PermissionError:
            if name.startswith("user."):
                raise
    await fs.set_mode_and_times(dst, found, follow_symlinks=follow_symlinks)


async def into(fs: "AsyncFileSystem", src: Path, dst: Path) -> Any:
    """`dst`, or what `src` is called in it if that is a directory."""
    if not await fs.isdir(dst):
        return dst
    name = decode_like(dst, os.path.basename(os.fsencode(src).rstrip(b"/")))
    return os.path.join(os.fspath(dst), name)  # type: ignore[arg-type]


class TreeCopy:
    """One `copytree`. What fails is collected, as (source, destination, reason), and the copying goes on."""

    def __init__(
        self,
        fs: "AsyncFileSystem",
        *,
        symlinks: bool,
        ignore: Ignore | None,
        ignore_dangling_symlinks: bool,
        dirs_exist_ok: bool,
    ) -> None:
        self._fs = fs
        self._symlinks = symlinks
        self._ignore = ignore
        self._ignore_dangling = ignore_dangling_symlinks
        self._exist_ok = dirs_exist_ok
        self._failures: list[tuple[Any, Any, str]] = []

    async def copy(self, src: Any, dst: Any) -> None:
        """Raises `shutil.Error` with all failures; OSError for `src` and `dst` themselves."""
        found = await self._fs.stat(src)
        levels = [(src, dst, found)]
        made = []
        while levels:
            entries: list[tuple[AsyncDirEntry, Any]] = []
            below: list[tuple[Any, Any, StatResult]] = []
            for folder, target, found in levels:
                made.append((folder, target, found))
                try:
                    listed = [entry async for entry in self._fs.scandir(folder, attributes=True)]
                    await self._fs.makedirs(target, exist_ok=self._exist_ok)
                except OSError as error:
                    if folder is src:
                        raise
                    self._failures.append((folder, target, str(error)))
                    continue
                ignored = set(self._ignore(folder, [entry.name for entry in listed])) if self._ignore else ()
                entries += [(entry, os.path.join(target, entry.name)) for entry in listed if entry.name not in ignored]
            for entry, target in entries:
                if entry.is_dir(follow_symlinks=not self._symlinks):
                    below.append((entry.path, target, await entry.stat()))
            await each(
                [pair for pair in entries if not pair[0].is_dir(follow_symlinks=not self._symlinks)],
                self._copy_entry,
                FILES_IN_FLIGHT,
            )
            levels = below
        # From below, as what is made in a directory changes its time.
        for folder, target, found in reversed(made):
            try:
                await copy_attributes(self._fs, folder, found, target)
            except OSError as error:
                self._failures.append((folder, target, str(error)))
        if self._failures:
            raise shutil.Error(self._failures)

    async def _copy_entry(self, pair: tuple[AsyncDirEntry, Any]) -> None:
        entry, target = pair
        follow = not self._symlinks
        try:
            if entry.is_symlink() and follow and self._ignore_dangling and not await self._fs.exists(entry.path):
                return
            if entry.type not in (FileType.FILE, FileType.SYMLINK):
                raise shutil.SpecialFileError(f"{entry.path!r} is a {entry.type.name.lower()}")
            mode = entry.attributes.st_mode & 0o777 if entry.attributes is not None else 0o666
            found = await copy_file(self._fs, entry.path, target, follow_symlinks=follow, mode=mode)
            await copy_attributes(self._fs, entry.path, found, target, follow_symlinks=follow)
        except OSError as error:
            self._failures.append((entry.path, target, str(error)))
