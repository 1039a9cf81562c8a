"""get_xattr: the value of one extended attribute."""

from fs_common.records.meta import GetXattr, XattrReply
from fs_meta import acl, schema
from fs_meta.kv.interface import Transaction
from fs_meta.ops.context import Context
from fs_meta.ops.resolve import get_inode
from fs_meta.ops.xattrs import check_read, get_list, no_xattr


async def get_xattr(context: Context, request: GetXattr) -> XattrReply:
    """The value; rights by the table in `fs_meta.ops.xattrs`.

    ENODATA: it has none of that name, or none that this user may know of. EACCES. ERANGE, EOPNOTSUPP, EINVAL: the name.
    ESTALE: the inode is gone.
    """

    async def look(txn: Transaction) -> XattrReply:
        inode, name = request.inode, request.name
        if name in acl.NAMES:
            return XattrReply(get_list(inode, await get_inode(txn, inode), name))
        check_read(inode, await get_inode(txn, inode), name, request.user)
        value = await txn.get(schema.xattr_key(inode, name))
        if value is None:
            raise no_xattr(inode, name)
        return XattrReply(schema.decode_xattr(value).value)

    return await context.kv.read(look)
