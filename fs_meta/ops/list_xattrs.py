"""list_xattrs: the names of an object's extended attributes."""

from fs_common.records.meta import ListXattrs, ListXattrsReply
from fs_meta import schema
from fs_meta.kv.interface import Transaction
from fs_meta.ops.context import Context
from fs_meta.ops.resolve import get_inode
from fs_meta.ops.xattrs import is_shown, lists_of


async def list_xattrs(context: Context, request: ListXattrs) -> ListXattrsReply:
    """In byte order; `trusted.` names for root alone. No right on the object itself is needed, as in listxattr(2).

    ESTALE: the inode is gone.
    """
    begin, end = schema.xattrs_range(request.inode)

    async def look(txn: Transaction) -> ListXattrsReply:
        record = await get_inode(txn, request.inode)
        names = [schema.split_xattr_key(key)[1] for key, _ in await txn.range(begin, end)]
        shown = [name for name in names if is_shown(name, request.user)]
        return ListXattrsReply(sorted([*shown, *lists_of(record)]))

    return await context.kv.read(look)
