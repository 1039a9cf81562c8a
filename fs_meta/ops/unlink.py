"""unlink: a name of anything but a directory goes."""

from fs_common.errors import Code, EmberError
from fs_common.methods import UNLINK
from fs_common.records.meta import FileType, Unlink, User
from fs_common.records.session import Empty
from fs_meta import schema
from fs_meta.kv.interface import Transaction
from fs_meta.ops.context import Context
from fs_meta.ops.inodes import drop_link, get_directory, get_entry, touch_directory
from fs_meta.ops.once import EMPTY, once
from fs_meta.ops.permission import check_remove
from fs_meta.ops.resolve import SELF, get_inode, missing, place_of


async def unlink(context: Context, request: Unlink) -> Empty:
    """Remove the name; the last one removes the file, whose chunks outlive it while it is open for writing.

    POSIX unlink: symbolic links are removed, not followed. ENOENT. EISDIR: a directory (`.`, `..` and `/` included).
    ENOTDIR: it ends with `/` and is no directory. EACCES, EPERM: the name may not be taken from the directory. The
    parent's and the file's times change.
    """
    now_ns = context.now_ns()

    async def apply(txn: Transaction) -> tuple[Empty, int]:
        parent_id, name, slash = await place_of(txn, request.at, request.path, request.user)
        if not request.path:
            raise EmberError(Code.NOT_FOUND, "an empty path names nothing")
        if name in SELF:
            raise EmberError(Code.IS_DIRECTORY, f"{request.path!r} is a directory")
        entry = await get_entry(txn, parent_id, name)
        if entry is None:
            raise await missing(txn, parent_id, name)
        if slash and entry.type is not FileType.DIRECTORY:
            raise EmberError(Code.NOT_DIRECTORY, f"{name!r} in directory {parent_id} is not a directory")
        return EMPTY, await remove_name(txn, context, parent_id, name, entry, request.user, now_ns)

    return await once(context, UNLINK, request.request, apply, relaxed=request.relaxed)


async def remove_name(
    txn: Transaction, context: Context, parent_id: int, name: bytes, entry: schema.Entry, user: User, now_ns: int
) -> int:
    """Delete the entry of anything but a directory and take the link. Returns the change of the number of inodes.

    Raises what `check_remove` raises, then IS_DIRECTORY.
    """
    parent = await get_directory(txn, parent_id)
    record = await get_inode(txn, entry.inode)
    check_remove(parent_id, parent, entry.inode, record, user)
    if entry.type is FileType.DIRECTORY:
        raise EmberError(Code.IS_DIRECTORY, f"{name!r} in directory {parent_id} is a directory")
    txn.delete(schema.entry_key(parent_id, name))
    touch_directory(txn, parent_id, parent, now_ns)
    return await drop_link(txn, entry.inode, record, now_ns, context.due_ns())
