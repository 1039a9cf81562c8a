"""rmdir: an empty directory goes."""

from fs_common.errors import Code, EmberError
from fs_common.methods import RMDIR
from fs_common.records.meta import FileType, Rmdir
from fs_common.records.session import Empty
from fs_meta import schema
from fs_meta.kv.interface import Transaction
from fs_meta.ops.context import Context
from fs_meta.ops.inodes import delete_inode, get_directory, get_entry, is_empty, touch_directory
from fs_meta.ops.once import EMPTY, once
from fs_meta.ops.permission import check_remove
from fs_meta.ops.resolve import SELF, get_inode, missing, place_of


async def rmdir(context: Context, request: Rmdir) -> Empty:
    """Remove an empty directory and its inode; a trailing `/` is fine.

    POSIX rmdir: ENOTEMPTY (also for `..`). ENOTDIR: not a directory; a symbolic link to one is none. EINVAL: `.`.
    EBUSY: the root. ENOENT. EACCES, EPERM: the name may not be taken from its directory. The parent loses a link and
    gets new times.
    """
    now_ns = context.now_ns()

    async def apply(txn: Transaction) -> tuple[Empty, int]:
        parent_id, name, _ = await place_of(txn, request.at, request.path, request.user)
        if name in SELF:
            raise no_entry(request.path, name)
        entry = await get_entry(txn, parent_id, name)
        if entry is None:
            raise await missing(txn, parent_id, name)
        parent = await get_directory(txn, parent_id)
        check_remove(parent_id, parent, entry.inode, await get_inode(txn, entry.inode), request.user)
        if entry.type is not FileType.DIRECTORY:
            raise EmberError(Code.NOT_DIRECTORY, f"{name!r} in directory {parent_id} is not a directory")
        if not await is_empty(txn, entry.inode):
            raise EmberError(Code.NOT_EMPTY, f"directory {name!r} in directory {parent_id} has entries")
        txn.delete(schema.entry_key(parent_id, name))
        delete_inode(txn, entry.inode)
        touch_directory(txn, parent_id, parent, now_ns, -1)
        return EMPTY, -1

    return await once(context, RMDIR, request.request, apply, relaxed=request.relaxed)


def no_entry(path: bytes, name: bytes) -> EmberError:
    """Why a path whose last component is one of `SELF` cannot be removed."""
    if not path:
        return EmberError(Code.NOT_FOUND, "an empty path names nothing")
    if name == b".":
        return EmberError(Code.INVALID, f"{path!r} ends with `.`")
    if name == b"..":
        return EmberError(Code.NOT_EMPTY, f"{path!r} ends with `..`")
    return EmberError(Code.ROOT_DIRECTORY, "the root directory cannot be removed")
