"""Names and attributes for blocking programs: what `os`, `os.path`, `shutil` and `pathlib` have, for a cluster.

Each method is a call of the asynchronous core, made by `FileSystem`, whose base this is.
"""

import os
from collections.abc import Callable, Coroutine, Iterable, Iterator
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar

from fs_client.aio import AsyncFileSystem
from fs_client.copying import Ignore
from fs_client.dir_entry import DirEntry, ListedEntry
from fs_client.namespace import DiskUsage
from fs_client.paths import Path
from fs_client.stat_result import StatResult
from fs_common.layout import Layout
from fs_common.records import meta

P = ParamSpec("P")
T = TypeVar("T")


class BlockingNames:
    """See the module."""

    def _call(
        self,
        method: Callable[Concatenate[AsyncFileSystem, P], Coroutine[Any, Any, T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run a method of the core of this process."""
        raise NotImplementedError

    # Looking

    def stat(self, path: Path, *, follow_symlinks: bool = True) -> StatResult:
        return self._call(AsyncFileSystem.stat, path, follow_symlinks=follow_symlinks)

    def lstat(self, path: Path) -> StatResult:
        return self._call(AsyncFileSystem.lstat, path)

    def exists(self, path: Path) -> bool:
        """False only if the path names nothing; a cluster that does not answer raises."""
        return self._call(AsyncFileSystem.exists, path)

    def lexists(self, path: Path) -> bool:
        return self._call(AsyncFileSystem.lexists, path)

    def isdir(self, path: Path) -> bool:
        return self._call(AsyncFileSystem.isdir, path)

    def isfile(self, path: Path) -> bool:
        return self._call(AsyncFileSystem.isfile, path)

    def islink(self, path: Path) -> bool:
        return self._call(AsyncFileSystem.islink, path)

    def getsize(self, path: Path) -> int:
        return self._call(AsyncFileSystem.getsize, path)

    def stat_many(
        self, parent: Path, names: Iterable[str | bytes], *, follow_symlinks: bool = True
    ) -> list[StatResult | None]:
        """Stat many paths relative to one directory, each 4096 in one snapshot. None: there is none."""
        return self._call(AsyncFileSystem.stat_many, parent, names, follow_symlinks=follow_symlinks)

    def listdir(self, path: Path = "/") -> list[Any]:
        """Names, as `str` or, if `path` is bytes, as bytes."""
        return self._call(AsyncFileSystem.listdir, path)

    def scandir(self, path: Path = "/", *, attributes: bool = False) -> "Scandir":
        """Entries, fetched page by page as they are asked for; `attributes`: each with its stat result."""
        return Scandir(self, path, attributes)

    def walk(
        self,
        top: Path = "/",
        topdown: bool = True,
        onerror: Callable[[OSError], object] | None = None,
        followlinks: bool = False,
    ) -> Iterator[tuple[Any, list[Any], list[Any]]]:
        """Like `os.walk`."""
        folder = os.fspath(top)
        directories: list[Any] = []
        others: list[Any] = []
        links: set[Any] = set()
        try:
            for entry in self.scandir(folder):
                if entry.is_symlink():
                    links.add(entry.name)
                (directories if _leads_to_directory(entry) else others).append(entry.name)
        except OSError as error:
            if onerror is not None:
                onerror(error)
            return
        if topdown:
            yield folder, directories, others
        for name in directories:
            if followlinks or name not in links:
                yield from self.walk(os.path.join(folder, name), topdown, onerror, followlinks)
        if not topdown:
            yield folder, directories, others

    def readlink(self, path: Path) -> Any:
        return self._call(AsyncFileSystem.readlink, path)

    def statvfs(self, path: Path = "/") -> os.statvfs_result:
        """Space of the cluster as files can use it, replicas divided out."""
        return self._call(AsyncFileSystem.statvfs, path)

    def usage(self, path: Path = "/") -> meta.UsageReply:
        """Files, directories, symbolic links and bytes below a directory, counted by the service."""
        return self._call(AsyncFileSystem.usage, path)

    def disk_usage(self, path: Path = "/") -> DiskUsage:
        """As `shutil.disk_usage`, replicas divided out."""
        return self._call(AsyncFileSystem.disk_usage, path)

    def samefile(self, first: Path, second: Path) -> bool:
        return self._call(AsyncFileSystem.samefile, first, second)

    def realpath(self, path: Path, *, strict: bool = False) -> Any:
        """The absolute path without symbolic links. What is not there stays as it is written; `strict`: raises."""
        return self._call(AsyncFileSystem.realpath, path, strict=strict)

    def glob(
        self,
        pathname: Path,
        *,
        root_dir: Path | None = None,
        recursive: bool = False,
        include_hidden: bool = False,
    ) -> list[Any]:
        """As `glob.glob`: the paths that match, in no particular order."""
        return self._call(
            AsyncFileSystem.glob, pathname, root_dir=root_dir, recursive=recursive, include_hidden=include_hidden
        )

    def iglob(self, pathname: Path, **how: Any) -> Iterator[Any]:
        """`glob`, as an iterator."""
        return iter(self.glob(pathname, **how))

    def real_path(self, inode: int) -> str:
        """The path of a directory by its inode."""
        return self._call(AsyncFileSystem.real_path, inode)

    # Names

    def mkdir(
        self,
        path: Path,
        mode: int = 0o777,
        *,
        parents: bool = False,
        exist_ok: bool = False,
        layout: Layout | None = None,
    ) -> None:
        """Make a directory. `parents`, `exist_ok`: as for `pathlib.Path.mkdir`."""
        self._call(AsyncFileSystem.mkdir, path, mode, parents=parents, exist_ok=exist_ok, layout=layout)

    def makedirs(self, path: Path, mode: int = 0o777, exist_ok: bool = False, *, layout: Layout | None = None) -> None:
        """Make a directory and its missing ancestors, in one call."""
        self._call(AsyncFileSystem.makedirs, path, mode, exist_ok, layout=layout)

    def unlink(self, path: Path, missing_ok: bool = False) -> None:
        self._call(AsyncFileSystem.unlink, path, missing_ok)

    def touch(self, path: Path, mode: int = 0o666, exist_ok: bool = True) -> None:
        """As `pathlib.Path.touch`: make an empty file, or set the times of what is there to now."""
        self._call(AsyncFileSystem.touch, path, mode, exist_ok)

    def remove(self, path: Path) -> None:
        self._call(AsyncFileSystem.unlink, path)

    def rmdir(self, path: Path) -> None:
        self._call(AsyncFileSystem.rmdir, path)

    def rmtree(
        self,
        path: Path,
        ignore_errors: bool = False,
        onerror: Callable[[Callable[..., Any], Path, Any], object] | None = None,
        *,
        onexc: Callable[[Callable[..., Any], Path, OSError], object] | None = None,
    ) -> None:
        """Remove a whole tree (or a file) from the namespace at once; its space is freed afterwards.

        `onexc`, `onerror`: called as `shutil.rmtree` calls them, with this function, instead of raising.
        """
        try:
            self._call(AsyncFileSystem.rmtree, path, ignore_errors)
        except OSError as error:
            if onexc is not None:
                onexc(self.rmtree, path, error)
            elif onerror is not None:
                onerror(self.rmtree, path, (type(error), error, error.__traceback__))
            else:
                raise

    def copyfile(self, src: Path, dst: Path, *, follow_symlinks: bool = True) -> Path:
        """As `shutil.copyfile`: contents alone, many pieces at a time; holes stay holes. Returns `dst`."""
        return self._call(AsyncFileSystem.copyfile, src, dst, follow_symlinks=follow_symlinks)

    def copy(self, src: Path, dst: Path, *, follow_symlinks: bool = True) -> Any:
        """As `shutil.copy`: contents and mode; `dst` may be a directory. Returns where it is."""
        return self._call(AsyncFileSystem.copy, src, dst, follow_symlinks=follow_symlinks)

    def copy2(self, src: Path, dst: Path, *, follow_symlinks: bool = True) -> Any:
        """As `shutil.copy2`: `copy`, and times and extended attributes. Returns where it is."""
        return self._call(AsyncFileSystem.copy2, src, dst, follow_symlinks=follow_symlinks)

    def copytree(
        self,
        src: Path,
        dst: Path,
        symlinks: bool = False,
        ignore: Ignore | None = None,
        ignore_dangling_symlinks: bool = False,
        dirs_exist_ok: bool = False,
    ) -> Any:
        """As `shutil.copytree`, several files at a time. Returns `dst`.

        `ignore`: as `shutil.ignore_patterns` makes them; it may not use this file system. What fails is collected, and
        raised as one `shutil.Error` at the end.
        """
        return self._call(AsyncFileSystem.copytree, src, dst, symlinks, ignore, ignore_dangling_symlinks, dirs_exist_ok)

    def move(self, src: Path, dst: Path) -> Any:
        """As `shutil.move`, in one step; `dst` may be a directory. Returns where it is."""
        return self._call(AsyncFileSystem.move, src, dst)

    def rename(self, src: Path, dst: Path, *, no_replace: bool = False, exchange: bool = False) -> None:
        """Move `src` to `dst` in one step, replacing what is there as `os.rename` does on POSIX systems.

        `no_replace`: FileExistsError if `dst` exists. `exchange`: swap the two, both of which must exist.
        """
        self._call(AsyncFileSystem.rename, src, dst, no_replace=no_replace, exchange=exchange)

    def replace(self, src: Path, dst: Path) -> None:
        self._call(AsyncFileSystem.rename, src, dst)

    def symlink(self, src: Path, dst: Path) -> None:
        """Make `dst` a symbolic link with the text `src`."""
        self._call(AsyncFileSystem.symlink, src, dst)

    def link(self, src: Path, dst: Path) -> None:
        """Give the file `src` a second name `dst`."""
        self._call(AsyncFileSystem.link, src, dst)

    def create_many(
        self,
        parent: Path,
        names: Iterable[str | bytes],
        mode: int = 0o666,
        *,
        exist_ok: bool = False,
        layout: Layout | None = None,
    ) -> list[StatResult]:
        """Make many empty files in one directory, each 4096 in one transaction.

        Every name is tried; then the error of the first that failed is raised. `exist_ok`: a name that exists is no
        error, and its result is what is there.
        """
        return self._call(AsyncFileSystem.create_many, parent, names, mode, exist_ok=exist_ok, layout=layout)

    # Attributes

    def chmod(self, path: Path, mode: int, *, follow_symlinks: bool = True) -> None:
        self._call(AsyncFileSystem.chmod, path, mode, follow_symlinks=follow_symlinks)

    def chown(self, path: Path, uid: int, gid: int, *, follow_symlinks: bool = True) -> None:
        """-1 leaves an id as it is."""
        self._call(AsyncFileSystem.chown, path, uid, gid, follow_symlinks=follow_symlinks)

    def utime(
        self,
        path: Path,
        times: tuple[float, float] | None = None,
        *,
        ns: tuple[int, int] | None = None,
        follow_symlinks: bool = True,
    ) -> None:
        """Set access and modification time, in seconds or nanoseconds; neither: now."""
        self._call(AsyncFileSystem.utime, path, times, ns=ns, follow_symlinks=follow_symlinks)

    def getmtime(self, path: Path) -> float:
        return self._call(AsyncFileSystem.getmtime, path)

    def getatime(self, path: Path) -> float:
        return self._call(AsyncFileSystem.getatime, path)

    def getctime(self, path: Path) -> float:
        return self._call(AsyncFileSystem.getctime, path)

    def access(self, path: Path, mode: int, *, follow_symlinks: bool = True) -> bool:
        """Whether this user may do with `path` what `mode` says: `os.F_OK`, or `os.R_OK | os.W_OK | os.X_OK`.

        False only for what is not there or not allowed; a cluster that does not answer raises.
        """
        return self._call(AsyncFileSystem.access, path, mode, follow_symlinks=follow_symlinks)

    def getxattr(self, path: Path, attribute: str | bytes, *, follow_symlinks: bool = True) -> bytes:
        """Raises OSError (ENODATA) if there is none of that name."""
        return self._call(AsyncFileSystem.getxattr, path, attribute, follow_symlinks=follow_symlinks)

    def listxattr(self, path: Path = "/", *, follow_symlinks: bool = True) -> list[str]:
        return self._call(AsyncFileSystem.listxattr, path, follow_symlinks=follow_symlinks)

    def setxattr(
        self, path: Path, attribute: str | bytes, value: Any, flags: int = 0, *, follow_symlinks: bool = True
    ) -> None:
        """`value`: a buffer. `flags`: `os.XATTR_CREATE`, it must not exist; `os.XATTR_REPLACE`, it must."""
        self._call(AsyncFileSystem.setxattr, path, attribute, value, flags, follow_symlinks=follow_symlinks)

    def removexattr(self, path: Path, attribute: str | bytes, *, follow_symlinks: bool = True) -> None:
        self._call(AsyncFileSystem.removexattr, path, attribute, follow_symlinks=follow_symlinks)

    def get_layout(self, path: Path) -> Layout:
        """Of a file: its own. Of a directory: what its new children get."""
        return self._call(AsyncFileSystem.get_layout, path)

    def set_layout(
        self,
        path: Path,
        *,
        chunk_size: int | None = None,
        stripe: int | None = None,
        durability: int | None = None,
    ) -> Layout:
        """Change what new children of a directory get; what is None stays. Returns the new layout."""
        return self._call(AsyncFileSystem.set_layout, path, chunk_size=chunk_size, stripe=stripe, durability=durability)

    def truncate(self, path: Path, length: int) -> None:
        """Cut a file, or extend it with zeros, to `length` bytes."""
        self._call(AsyncFileSystem.truncate, path, length)


def _leads_to_directory(entry: DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        # As `os.walk` has it: a link into what may not be searched is no directory.
        return False


class Scandir:
    """What `scandir` returns: an iterator that is also a context manager, like that of `os.scandir`."""

    def __init__(self, fs: BlockingNames, path: Path, attributes: bool) -> None:
        self._fs = fs
        self._path = path
        self._attributes = attributes
        self._inode = fs._call(AsyncFileSystem.directory, path)
        self._page: list[ListedEntry] = []
        """What is left of the page that is here, last entry first."""
        self._after = b""
        """Name of the last entry that was fetched."""
        self._more = True

    def __iter__(self) -> "Scandir":
        return self

    def __next__(self) -> DirEntry:
        while not self._page:
            if not self._more:
                raise StopIteration
            page, more = self._fs._call(
                AsyncFileSystem.page, self._inode, self._after, self._path, attributes=self._attributes
            )
            after = os.fsencode(page[-1].name) if page else self._after
            page.reverse()
            # In one step: a signal handler that raises finds all of it done, or nothing.
            self._page, self._after, self._more = page, after, more
        return DirEntry(self._page.pop(), self._fs)

    def close(self) -> None:
        self._page = []
        self._more = False

    def __enter__(self) -> "Scandir":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
