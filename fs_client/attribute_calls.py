"""Attributes of files and directories: modes, owners, times, lengths, layouts, extended attributes.

Names and behaviour are those of `os` and `os.path`; errors are `OSError` with errno and filename.
"""

import os
import stat as stat_modes
from typing import Any

from fs_client.integers import integer, nanoseconds
from fs_client.meta_calls import ABSENT, MetaCalls
from fs_client.paths import Path, encode
from fs_client.stat_result import StatResult
from fs_common import methods
from fs_common.errors import Code, EmberError, to_os_error
from fs_common.ids import ROOT_INODE
from fs_common.layout import Layout, validate
from fs_common.records import meta
from fs_common.rpc import byte_view


class AttributeCalls(MetaCalls):
    """See the module. A base of the asynchronous file system."""

    async def _set(self, path: Path, follow: bool = True, **changes: Any) -> None:
        request = meta.SetAttr(ROOT_INODE, encode(path), self.request_id(), follow=follow, user=self.user, **changes)
        await self.meta_call(methods.SET_ATTR, request, path)

    async def chmod(self, path: Path, mode: int, *, follow_symlinks: bool = True) -> None:
        await self._set(path, follow_symlinks, mode=stat_modes.S_IMODE(integer(mode, "mode")))

    async def chown(self, path: Path, uid: int, gid: int, *, follow_symlinks: bool = True) -> None:
        """-1 leaves an id as it is."""
        uid, gid = integer(uid, "uid"), integer(gid, "gid")
        await self._set(path, follow_symlinks, uid=None if uid == -1 else uid, gid=None if gid == -1 else gid)

    async def utime(
        self,
        path: Path,
        times: tuple[float, float] | None = None,
        *,
        ns: tuple[int, int] | None = None,
        follow_symlinks: bool = True,
    ) -> None:
        """Set access and modification time, in seconds or nanoseconds; neither: to the service's clock."""
        if times is not None and ns is not None:
            raise ValueError("utime: you may specify either 'times' or 'ns' but not both")
        if times is not None:
            ns = (nanoseconds(times[0]), nanoseconds(times[1]))
        if ns is None:
            await self._set(path, follow_symlinks, atime_now=True, mtime_now=True)
        else:
            accessed, modified = integer(ns[0], "ns[0]"), integer(ns[1], "ns[1]")
            await self._set(path, follow_symlinks, atime_ns=accessed, mtime_ns=modified)

    async def set_mode_and_times(self, path: Path, like: StatResult, *, follow_symlinks: bool = True) -> None:
        """In one call, those of `like`; of a symbolic link only the times, as it has no mode."""
        changes = {} if like.type == meta.FileType.SYMLINK else {"mode": like.attributes.mode}
        times = {"atime_ns": like.st_atime_ns, "mtime_ns": like.st_mtime_ns}
        await self._set(path, follow_symlinks, **changes, **times)

    async def getmtime(self, path: Path) -> float:
        return StatResult(await self._attributes(path)).st_mtime

    async def getatime(self, path: Path) -> float:
        return StatResult(await self._attributes(path)).st_atime

    async def getctime(self, path: Path) -> float:
        return StatResult(await self._attributes(path)).st_ctime

    async def access(self, path: Path, mode: int, *, follow_symlinks: bool = True) -> bool:
        """Whether this user may do with `path` what `mode` says: `os.F_OK`, or `os.R_OK | os.W_OK | os.X_OK`.

        False only for what is not there or not allowed; a cluster that does not answer raises.
        """
        mode = integer(mode, "mode")
        try:
            inode = (await self._attributes(path, follow_symlinks)).inode
            await self.meta_call(methods.ACCESS, meta.Access(inode, mode, self.user), path)
        except OSError as error:
            cause = error.__cause__
            if isinstance(error, FileNotFoundError | NotADirectoryError | PermissionError):
                return False
            if isinstance(cause, EmberError) and cause.code in ABSENT:
                return False
            raise
        return True

    # Extended attributes

    async def getxattr(self, path: Path, attribute: str | bytes, *, follow_symlinks: bool = True) -> bytes:
        """Raises OSError (ENODATA) if there is none of that name."""
        inode = (await self._attributes(path, follow_symlinks)).inode
        request = meta.GetXattr(inode, os.fsencode(attribute), self.user)
        reply: meta.XattrReply = await self.meta_call(methods.GET_XATTR, request, path)
        return reply.value

    async def listxattr(self, path: Path = "/", *, follow_symlinks: bool = True) -> list[str]:
        return await self.list_xattrs((await self._attributes(path, follow_symlinks)).inode, path)

    async def list_xattrs(self, inode: int, path: Path | None = None) -> list[str]:
        reply: meta.ListXattrsReply = await self.meta_call(methods.LIST_XATTRS, meta.ListXattrs(inode, self.user), path)
        return [os.fsdecode(name) for name in reply.names]

    async def setxattr(
        self, path: Path, attribute: str | bytes, value: Any, flags: int = 0, *, follow_symlinks: bool = True
    ) -> None:
        """`value`: a buffer. `flags`: `os.XATTR_CREATE`, it must not exist; `os.XATTR_REPLACE`, it must."""
        flags = integer(flags, "flags")
        inode = (await self._attributes(path, follow_symlinks)).inode
        name = os.fsencode(attribute)
        request = meta.SetXattr(inode, name, bytes(byte_view(value)), self.request_id(), flags, self.user)
        await self.meta_call(methods.SET_XATTR, request, path)

    async def removexattr(self, path: Path, attribute: str | bytes, *, follow_symlinks: bool = True) -> None:
        inode = (await self._attributes(path, follow_symlinks)).inode
        request = meta.RemoveXattr(inode, os.fsencode(attribute), self.request_id(), self.user)
        await self.meta_call(methods.REMOVE_XATTR, request, path)

    # Layout and length

    async def get_layout(self, path: Path) -> Layout:
        """Of a file: its own. Of a directory: what its new children get."""
        layout = (await self._attributes(path)).layout
        if layout is None:
            raise to_os_error(EmberError(Code.INVALID, "it has no layout"), path)
        return layout

    async def set_layout(
        self,
        path: Path,
        *,
        chunk_size: int | None = None,
        stripe: int | None = None,
        durability: int | None = None,
    ) -> Layout:
        """Change what new children of a directory get; what is None stays. Returns the new layout."""
        old = await self.get_layout(path)
        new = Layout(
            chunk_size=old.chunk_size if chunk_size is None else integer(chunk_size, "chunk_size"),
            stripe=old.stripe if stripe is None else integer(stripe, "stripe"),
            table=old.table,
            durability=old.durability if durability is None else integer(durability, "durability"),
        )
        try:
            validate(new)
        except EmberError as error:
            raise to_os_error(error, path) from error
        await self._set(path, layout=new)
        return new

    async def truncate(self, path: Path, length: int) -> None:
        """Cut a file, or extend it with zeros, to `length` bytes."""
        length = integer(length, "length")
        attributes = await self._attributes(path)
        if attributes.type == meta.FileType.DIRECTORY:
            raise to_os_error(EmberError(Code.IS_DIRECTORY, "Is a directory"), path)
        await self.truncate_inode(attributes.inode, length, path)

    async def truncate_inode(
        self, inode: int, length: int, path: Path | None = None, session: bytes = b""
    ) -> meta.Attributes:
        """`session`: of an open for writing, whose right to write has been looked at then."""
        request = meta.Truncate(inode, length, self.request_id(), self.user, session)
        reply: meta.AttributesReply = await self.meta_call(methods.TRUNCATE, request, path)
        return reply.attributes
