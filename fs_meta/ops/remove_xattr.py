"""remove_xattr: an extended attribute goes."""

from fs_common.methods import REMOVE_XATTR
from fs_common.records.meta import RemoveXattr
from fs_common.records.session import Empty
from fs_meta import acl, schema
from fs_meta.kv.interface import Transaction
from fs_meta.ops.context import Context
from fs_meta.ops.inodes import put_inode
from fs_meta.ops.once import EMPTY, once
from fs_meta.ops.resolve import get_inode
from fs_meta.ops.xattrs import CAPABILITY, check_write, no_xattr, set_list


async def remove_xattr(context: Context, request: RemoveXattr) -> Empty:
    """Remove it; ctime changes. Rights by the table in `fs_meta.ops.xattrs`.

    ENODATA: it has none of that name, unless it is an access control list. EPERM, EACCES. ERANGE, EOPNOTSUPP, EINVAL:
    the name. ESTALE: the inode is gone.
    """
    now_ns = context.now_ns()

    async def apply(txn: Transaction) -> tuple[Empty, int]:
        inode, name = request.inode, request.name
        record = await get_inode(txn, inode)
        if name in acl.NAMES:
            set_list(inode, record, name, b"", request.user)
            record.ctime_ns = now_ns
            put_inode(txn, inode, record)
            return EMPTY, 0
        check_write(inode, record, name, request.user)
        key = schema.xattr_key(inode, name)
        if await txn.get(key) is None:
            raise no_xattr(inode, name)
        txn.delete(key)
        if name == CAPABILITY:
            record.flags &= ~schema.CAPABLE
        record.ctime_ns = now_ns
        put_inode(txn, inode, record)
        return EMPTY, 0

    return await once(context, REMOVE_XATTR, request.request, apply, relaxed=request.relaxed)
