"""stat: attributes of what a path or an inode id names."""

from fs_common.records.meta import AttributesReply, Stat
from fs_meta.kv.interface import Transaction
from fs_meta.ops.context import Context
from fs_meta.ops.inodes import attributes
from fs_meta.ops.resolve import get_inode, resolve


async def stat(context: Context, request: Stat) -> AttributesReply:
    """By path, or by inode when `path` is empty. A removed file can be asked for by inode until it is collected.

    ENOENT, ENOTDIR, ENAMETOOLONG, ELOOP, EACCES by the rules of `fs_meta.ops.resolve`. ESTALE: the inode is gone.
    """

    async def look(txn: Transaction) -> AttributesReply:
        inode = await resolve(txn, request.at, request.path, request.follow, request.user)
        return AttributesReply(attributes(inode, await get_inode(txn, inode)))

    return await context.kv.read(look)
