"""readlink: the target of a symbolic link."""

from fs_common.errors import Code, EmberError
from fs_common.records.meta import FileType, Readlink, ReadlinkReply
from fs_meta.kv.interface import Transaction
from fs_meta.ops.context import Context
from fs_meta.ops.resolve import get_inode, resolve


async def readlink(context: Context, request: Readlink) -> ReadlinkReply:
    """The target as it was given. By path, or by inode when `path` is empty.

    EINVAL: not a symbolic link. The walk's errors.
    """

    async def look(txn: Transaction) -> ReadlinkReply:
        inode = await resolve(txn, request.at, request.path, False, request.user)
        record = await get_inode(txn, inode)
        if record.type is not FileType.SYMLINK:
            raise EmberError(Code.INVALID, f"inode {inode} is not a symbolic link")
        return ReadlinkReply(record.target)

    return await context.kv.read(look)
