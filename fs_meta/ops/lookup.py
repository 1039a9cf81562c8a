"""lookup: one name in one directory."""

from fs_common.errors import Code, EmberError
from fs_common.records.meta import AttributesReply, Lookup
from fs_meta.kv.interface import Transaction
from fs_meta.ops.context import Context
from fs_meta.ops.inodes import attributes
from fs_meta.ops.resolve import get_inode, resolve


async def lookup(context: Context, request: Lookup) -> AttributesReply:
    """The child's attributes; a symbolic link's own. `.` and `..` are answered.

    ENOENT: no such name. ENOTDIR: the parent is no directory. ESTALE: the parent is gone. ENAMETOOLONG. EINVAL: the
    name is empty or has a `/` or NUL in it. EACCES: the parent may not be searched.
    """
    name = request.name
    if not name or b"/" in name:
        raise EmberError(Code.INVALID, f"{name!r} is not one name")

    async def look(txn: Transaction) -> AttributesReply:
        inode = await resolve(txn, request.parent, name, False, request.user)
        return AttributesReply(attributes(inode, await get_inode(txn, inode)))

    return await context.kv.read(look)
