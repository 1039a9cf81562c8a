"""The calls of a file system that only the metadata service answers.

Names and behaviour are those of `os`, `os.path` and `shutil`; errors are `OSError` with errno and filename. Every
mutating call carries a new request id, under which it may be retried.
"""

import os
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any, NamedTuple

from fs_client.attribute_calls import AttributeCalls
from fs_client.dir_entry import AsyncDirEntry, ListedEntry
from fs_client.file_ref import FileRef
from fs_client.integers import integer, plain_layout
from fs_client.meta_calls import ABSENT
from fs_client.paths import Path, decode_like, encode
from fs_client.stat_result import StatResult
from fs_common import methods
from fs_common.errors import Code, EmberError, code_of, to_os_error
from fs_common.ids import ROOT_INODE
from fs_common.layout import Layout
from fs_common.limits import (
    BATCH_NAMES_MAX,
    CHUNK_SIZE_DEFAULT,
    NAME_BYTES_MAX,
    READDIR_PAGE_DEFAULT,
    SYMLINK_FOLLOW_MAX,
)
from fs_common.records import meta


class DiskUsage(NamedTuple):
    """Bytes, as of `shutil.disk_usage`."""

    total: int
    used: int
    free: int


def _child(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}"


class Namespace(AttributeCalls):
    """Base of the asynchronous file system: everything but the contents of files."""

    # Looking

    async def stat(self, path: Path, *, follow_symlinks: bool = True) -> StatResult:
        return StatResult(await self._attributes(path, follow_symlinks))

    async def lstat(self, path: Path) -> StatResult:
        return StatResult(await self._attributes(path, False))

    async def exists(self, path: Path) -> bool:
        """False only if the path names nothing; a cluster that does not answer raises."""
        return await self._attributes_or_none(path) is not None

    async def lexists(self, path: Path) -> bool:
        return await self._attributes_or_none(path, False) is not None

    async def isdir(self, path: Path) -> bool:
        attributes = await self._attributes_or_none(path)
        return attributes is not None and attributes.type == meta.FileType.DIRECTORY

    async def isfile(self, path: Path) -> bool:
        attributes = await self._attributes_or_none(path)
        return attributes is not None and attributes.type == meta.FileType.FILE

    async def islink(self, path: Path) -> bool:
        attributes = await self._attributes_or_none(path, False)
        return attributes is not None and attributes.type == meta.FileType.SYMLINK

    async def getsize(self, path: Path) -> int:
        return (await self._attributes(path)).length

    async def stat_many(
        self, parent: Path, names: Iterable[str | bytes], *, follow_symlinks: bool = True
    ) -> list[StatResult | None]:
        """Stat many paths relative to one directory, each `BATCH_NAMES_MAX` in one snapshot. None: there is none."""
        wanted = list(names)
        results: list[StatResult | None] = []
        directory = await self.directory(parent)
        for start in range(0, len(wanted), BATCH_NAMES_MAX):
            batch = wanted[start : start + BATCH_NAMES_MAX]
            results += await self.stat_batch(directory, batch, follow_symlinks, parent)
        return results

    async def stat_batch(
        self,
        directory: int,
        paths: Sequence[Path],
        follow_symlinks: bool = True,
        parent: Path = "/",
        *,
        read: bool = False,
    ) -> list[StatResult | None]:
        """Stat up to `BATCH_NAMES_MAX` paths relative to the inode `directory`, in one snapshot. None: no such.

        `read`: PermissionError for what this user may not read.
        """
        names = [encode(path) for path in paths]
        request = meta.BatchStat(directory, names, follow_symlinks, self.user, read)
        reply: meta.BatchAttributesReply = await self.meta_call(methods.BATCH_STAT, request, parent)
        for failure in reply.errors:
            code = code_of(failure.code)
            if code not in ABSENT:
                name = os.path.join(os.fsencode(parent), names[failure.index])
                raise to_os_error(EmberError(code, failure.message), decode_like(parent, name))
        return [None if found is None else StatResult(found) for found in reply.attributes]

    async def kept(self, inodes: list[int], timeout_s: float) -> list[int]:
        """For how many ms the contents of each file certainly stay, whatever happens to its names; -1: they may be gone
        by now. Raises `EmberError`.
        """
        kept: list[int] = []
        for start in range(0, len(inodes), BATCH_NAMES_MAX):
            batch = inodes[start : start + BATCH_NAMES_MAX]
            try:
                reply: meta.KeptReply = await self.metadata.call(methods.KEPT, meta.Kept(batch), timeout_s=timeout_s)
                kept += reply.for_ms
            except EmberError as error:
                if error.code is not Code.UNKNOWN_METHOD:
                    raise
                kept += [await self._has_names(inode, timeout_s) for inode in batch]
        return kept

    async def _has_names(self, inode: int, timeout_s: float) -> int:
        """As `kept`, of a service of an older version: a file that has a name has all of its chunks."""
        try:
            request = meta.Stat(inode, b"", user=meta.User())
            reply: meta.AttributesReply = await self.metadata.call(methods.STAT, request, timeout_s=timeout_s)
        except EmberError as error:
            if error.code is not Code.STALE:
                raise
            return -1
        return 0 if reply.attributes.links else -1

    async def directory(self, path: Path) -> int:
        """The inode of a directory; NotADirectoryError for anything else."""
        attributes = await self._attributes(path)
        if attributes.type != meta.FileType.DIRECTORY:
            raise to_os_error(EmberError(Code.NOT_DIRECTORY, "Not a directory"), path)
        return attributes.inode

    async def pages(self, path: Path = "/", *, attributes: bool = False) -> AsyncIterator[list[ListedEntry]]:
        """The entries of a directory, a page at a time, in byte order of names; each page is one call."""
        inode = await self.directory(path)
        after = b""
        more = True
        while more:
            page, more = await self.page(inode, after, path, attributes=attributes)
            if page:
                after = os.fsencode(page[-1].name)
            yield page

    async def page(
        self, inode: int, after: bytes, path: Path, *, attributes: bool = False
    ) -> tuple[list[ListedEntry], bool]:
        """One page of the directory `inode` behind the name `after`, and whether there is more.

        PermissionError also for a directory that may be listed but not searched, if attributes are asked for.
        """
        folder = os.fspath(path)
        request = meta.Readdir(inode, after, READDIR_PAGE_DEFAULT, attributes, self.user)
        reply: meta.ReaddirReply = await self.meta_call(methods.READDIR, request, path)
        if attributes and reply.entries and reply.entries[0].attributes is None:
            raise to_os_error(EmberError(Code.ACCESS_DENIED, "Permission denied: it may be listed, not searched"), path)
        return [ListedEntry(entry, folder) for entry in reply.entries], reply.more and bool(reply.entries)

    async def listdir(self, path: Path = "/") -> list[Any]:
        """Names, as `str` or, if `path` is bytes, as bytes."""
        return [entry.name async for page in self.pages(path) for entry in page]

    async def scandir(self, path: Path = "/", *, attributes: bool = False) -> AsyncIterator[AsyncDirEntry]:
        """Entries, fetched page by page as they are asked for; `attributes`: each with its stat result.

        A page with symbolic links costs one more call, for what these lead to.
        """
        async for page in self.pages(path, attributes=attributes):
            targets = await self._targets([entry for entry in page if entry.is_symlink()])
            for entry in page:
                yield AsyncDirEntry(entry, self, targets.get(entry.name))

    async def _targets(self, links: list[ListedEntry]) -> dict[Any, StatResult | None]:
        """What links of one directory lead to, by name; None: nothing, or nothing that this user may look at."""
        paths = [entry.path for entry in links]
        try:
            found = await self.stat_batch(ROOT_INODE, paths) if links else []
        except PermissionError:
            found = [await self._seen(path) for path in paths]
        return {entry.name: target for entry, target in zip(links, found, strict=True)}

    async def _seen(self, path: Path) -> StatResult | None:
        try:
            return await self.stat(path)
        except OSError:
            return None

    async def walk(
        self,
        top: Path = "/",
        *,
        topdown: bool = True,
        onerror: Callable[[OSError], object] | None = None,
        followlinks: bool = False,
    ) -> AsyncIterator[tuple[Any, list[Any], list[Any]]]:
        """Like `os.walk`."""
        folder = os.fspath(top)
        directories: list[Any] = []
        others: list[Any] = []
        links: set[Any] = set()
        try:
            async for entry in self.scandir(folder):
                if entry.is_symlink():
                    links.add(entry.name)
                (directories if entry.is_dir() else others).append(entry.name)
        except OSError as error:
            if onerror is not None:
                onerror(error)
            return
        if topdown:
            yield folder, directories, others
        for name in directories:
            if followlinks or name not in links:
                below = self.walk(os.path.join(folder, name), topdown=topdown, onerror=onerror, followlinks=followlinks)
                async for found in below:
                    yield found
        if not topdown:
            yield folder, directories, others

    async def readlink(self, path: Path) -> Any:
        request = meta.Readlink(ROOT_INODE, encode(path), self.user)
        reply: meta.ReadlinkReply = await self.meta_call(methods.READLINK, request, path)
        return decode_like(path, reply.target)

    async def statvfs(self, path: Path = "/") -> os.statvfs_result:
        """Space of the cluster as files can use it, replicas divided out; in units of the default chunk size."""
        inode = (await self._attributes(path)).inode
        reply: meta.StatfsReply = await self.meta_call(methods.STATFS, meta.Statfs(inode), path)
        unit = 4096
        free = reply.free_bytes // unit
        blocks = (CHUNK_SIZE_DEFAULT, unit, reply.capacity_bytes // unit, free, free)
        return os.statvfs_result((*blocks, reply.files, 0, 0, 0, NAME_BYTES_MAX))

    async def usage(self, path: Path = "/") -> meta.UsageReply:
        """Files, directories, symbolic links and bytes below a directory, counted by the service.

        What is below a directory that this user may not list is not counted; `unreadable` is how many there are.
        """
        inode = (await self._attributes(path)).inode
        reply: meta.UsageReply = await self.meta_call(methods.USAGE, meta.Usage(inode, self.user), path)
        return reply

    async def disk_usage(self, path: Path = "/") -> DiskUsage:
        """As `shutil.disk_usage`, replicas divided out."""
        space = await self.statvfs(path)
        total, free = space.f_blocks * space.f_frsize, space.f_bavail * space.f_frsize
        return DiskUsage(total, total - free, free)

    async def samefile(self, first: Path, second: Path) -> bool:
        return (await self._attributes(first)).inode == (await self._attributes(second)).inode

    async def realpath(self, path: Path, *, strict: bool = False) -> Any:
        """The absolute path without symbolic links. What is not there stays as it is written; `strict`: raises."""
        text = os.fsdecode(path)
        found = await self._resolved(text, strict, 0)
        return os.fsencode(found) if isinstance(os.fspath(path), bytes) else found

    async def _resolved(self, path: str, strict: bool, links: int) -> str:
        """Directories by one question, whatever is above them; only the last name may have to be looked at itself."""
        head, _, name = path.rstrip("/").rpartition("/")
        if not name:
            return "/"
        try:
            found = await self._attributes(path, False)
            if found.type == meta.FileType.DIRECTORY:
                return await self.real_path(found.inode)
        except OSError as error:
            if strict or (isinstance(error.__cause__, EmberError) and error.__cause__.code not in ABSENT):
                raise
            above = await self._resolved(head, strict, links)
            return os.path.dirname(above) if name == ".." else above if name == "." else _child(above, name)
        above = await self._resolved(head, strict, links)
        if found.type != meta.FileType.SYMLINK:
            return _child(above, name)
        target = os.path.join(above, os.fsdecode(found.target))
        if links >= SYMLINK_FOLLOW_MAX:
            if strict:
                raise to_os_error(EmberError(Code.LOOP), path)
            return _child(above, name)
        return await self._resolved(target, strict, links + 1)

    async def real_path(self, inode: int) -> str:
        """The path of a directory by its inode."""
        request = meta.RealPath(integer(inode, "inode"), self.user)
        reply: meta.RealPathReply = await self.meta_call(methods.REAL_PATH, request)
        return os.fsdecode(reply.path)

    # Names

    async def mkdir(
        self,
        path: Path,
        mode: int = 0o777,
        *,
        parents: bool = False,
        exist_ok: bool = False,
        layout: Layout | None = None,
    ) -> None:
        """Make a directory. `parents`, `exist_ok`: as for `pathlib.Path.mkdir`."""
        if parents:
            await self.makedirs(path, mode, exist_ok, layout=layout)
            return
        try:
            await self.meta_call(methods.MKDIR, self._mkdir(path, mode, False, layout), path)
        except FileExistsError:
            if not exist_ok or not await self.isdir(path):
                raise

    async def makedirs(
        self, path: Path, mode: int = 0o777, exist_ok: bool = False, *, layout: Layout | None = None
    ) -> None:
        """Make a directory and its missing ancestors, in one call."""
        if not exist_ok and await self.lexists(path):
            raise to_os_error(EmberError(Code.EXISTS, "File exists"), path)
        await self.meta_call(methods.MKDIR, self._mkdir(path, mode, True, layout), path)

    def _mkdir(self, path: Path, mode: int, parents: bool, layout: Layout | None) -> meta.Mkdir:
        bits = integer(mode, "mode") & 0o7777
        masked = bits & ~self.umask
        layout = plain_layout(layout)
        return meta.Mkdir(
            ROOT_INODE, encode(path), masked, self.request_id(), parents, layout, self.user, unmasked=bits
        )

    async def unlink(self, path: Path, missing_ok: bool = False) -> None:
        request = meta.Unlink(ROOT_INODE, encode(path), self.request_id(), self.user)
        try:
            await self.meta_call(methods.UNLINK, request, path)
        except FileNotFoundError:
            if not missing_ok:
                raise

    async def remove(self, path: Path) -> None:
        await self.unlink(path)

    async def rmdir(self, path: Path) -> None:
        await self.meta_call(methods.RMDIR, meta.Rmdir(ROOT_INODE, encode(path), self.request_id(), self.user), path)

    async def rmtree(
        self,
        path: Path,
        ignore_errors: bool = False,
        *,
        onexc: Callable[[Callable[..., Any], Path, OSError], object] | None = None,
    ) -> None:
        """Remove a whole tree (or a file) from the namespace at once; its space is freed afterwards.

        `onexc`: called with this function, the path and the error, instead of raising it.
        """
        try:
            request = meta.RemoveTree(ROOT_INODE, encode(path), self.request_id(), self.user)
            await self.meta_call(methods.REMOVE_TREE, request, path)
        except OSError as error:
            if ignore_errors:
                return
            if onexc is None:
                raise
            onexc(self.rmtree, path, error)

    async def rename(self, src: Path, dst: Path, *, no_replace: bool = False, exchange: bool = False) -> None:
        """Move `src` to `dst` in one step, replacing what is there as `os.rename` does on POSIX systems.

        `no_replace`: FileExistsError if `dst` exists. `exchange`: swap the two, both of which must exist.
        """
        if no_replace and exchange:
            raise ValueError("no_replace and exchange exclude each other")
        flags = meta.RenameFlags.NO_REPLACE if no_replace else meta.RenameFlags.NONE
        if exchange:
            flags = meta.RenameFlags.EXCHANGE
        request = meta.Rename(
            ROOT_INODE, encode(src), ROOT_INODE, encode(dst), self.request_id(), int(flags), self.user
        )
        await self.meta_call(methods.RENAME, request, src, dst)

    async def replace(self, src: Path, dst: Path) -> None:
        await self.rename(src, dst)

    async def symlink(self, src: Path, dst: Path) -> None:
        """Make `dst` a symbolic link with the text `src`."""
        request = meta.Symlink(ROOT_INODE, encode(dst), os.fsencode(src), self.request_id(), self.user)
        await self.meta_call(methods.SYMLINK, request, src, dst)

    async def link(self, src: Path, dst: Path) -> None:
        """Give the file `src` a second name `dst`."""
        request = meta.Link(ROOT_INODE, encode(src), ROOT_INODE, encode(dst), self.request_id(), self.user)
        await self.meta_call(methods.LINK, request, src, dst)

    async def create_many(
        self,
        parent: Path,
        names: Iterable[str | bytes],
        mode: int = 0o666,
        *,
        exist_ok: bool = False,
        layout: Layout | None = None,
    ) -> list[StatResult]:
        """Make many empty files in one directory, each `BATCH_NAMES_MAX` in one transaction.

        Every name is tried; then the error of the first that failed is raised. `exist_ok`: a name that exists is no
        error, and its result is what is there.
        """
        wanted = [encode(name) for name in names]
        directory = await self.directory(parent)
        results: list[StatResult | None] = []
        failures: dict[int, EmberError] = {}
        bits = integer(mode, "mode") & 0o7777
        masked = bits & ~self.umask
        layout = plain_layout(layout)
        for start in range(0, len(wanted), BATCH_NAMES_MAX):
            batch = wanted[start : start + BATCH_NAMES_MAX]
            request = meta.BatchCreate(directory, batch, masked, self.request_id(), layout, self.user, unmasked=bits)
            reply: meta.BatchAttributesReply = await self.meta_call(methods.BATCH_CREATE, request, parent)
            results += [None if made is None else StatResult(made) for made in reply.attributes]
            for failure in reply.errors:
                failures[start + failure.index] = EmberError(code_of(failure.code), failure.message)
        existing = [place for place, error in failures.items() if exist_ok and error.code is Code.EXISTS]
        for place, found in zip(existing, await self._found(parent, [wanted[p] for p in existing]), strict=True):
            if found is not None:
                results[place] = found
                del failures[place]
        for place, error in sorted(failures.items()):
            raise to_os_error(error, decode_like(parent, os.path.join(os.fsencode(parent), wanted[place])))
        return [result for result in results if result is not None]

    async def _found(self, parent: Path, names: Sequence[bytes]) -> list[StatResult | None]:
        return await self.stat_many(parent, names) if names else []

    async def ref(self, path: Path) -> FileRef:
        """A light, picklable reference to a file, for `read_ranges`. Takes the right to read it."""
        request = meta.Open(ROOT_INODE, encode(path), user=self.user)
        reply: meta.OpenReply = await self.meta_call(methods.OPEN, request, path)
        try:
            return StatResult(reply.attributes).ref
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from None
