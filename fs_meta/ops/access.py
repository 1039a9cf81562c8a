"""access: whether a user may read, write or execute an inode."""

from fs_common.errors import Code, EmberError
from fs_common.records.meta import Access, AttributesReply
from fs_meta.kv.interface import Transaction
from fs_meta.ops.context import Context
from fs_meta.ops.inodes import attributes
from fs_meta.ops.permission import EXECUTE, READ, WRITE, check_rights
from fs_meta.ops.resolve import get_inode


async def access(context: Context, request: Access) -> AttributesReply:
    """The inode's attributes if the user has all rights of `mask`; 0 asks whether it exists.

    POSIX access: EACCES. EPERM: to write what is immutable. EINVAL: an unknown bit. ESTALE: the inode is gone.
    """
    if not 0 <= request.mask <= READ | WRITE | EXECUTE:
        raise EmberError(Code.INVALID, f"access mask {request.mask}: read (4), write (2), execute (1)")

    async def look(txn: Transaction) -> AttributesReply:
        record = await get_inode(txn, request.inode)
        check_rights(request.inode, record, request.user, request.mask)
        return AttributesReply(attributes(request.inode, record))

    return await context.kv.read(look)
