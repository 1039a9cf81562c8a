"""real_path: the path of a directory."""

from fs_common.errors import Code, EmberError
from fs_common.ids import ROOT_INODE
from fs_common.limits import PATH_BYTES_MAX
from fs_common.records.meta import FileType, RealPath, RealPathReply
from fs_meta.kv.interface import Transaction
from fs_meta.ops.context import Context
from fs_meta.ops.resolve import get_inode, search


async def real_path(context: Context, request: RealPath) -> RealPathReply:
    """The absolute path, without symbolic links, in one snapshot.

    EACCES: the user may not walk there from the root: names are not told to who could not look them up.
    ENOTDIR: only directories have one place. ESTALE: the inode is gone. ENOENT: it, or a directory above it, was
    removed. ENAMETOOLONG: the path is longer than 4096 bytes.
    """

    async def climb(txn: Transaction) -> RealPathReply:
        names: list[bytes] = []
        size = 0
        inode = request.inode
        while inode != ROOT_INODE:
            record = await get_inode(txn, inode)
            if record.type is not FileType.DIRECTORY:
                raise EmberError(Code.NOT_DIRECTORY, f"inode {inode} is not a directory")
            if not record.parent:
                raise EmberError(Code.NOT_FOUND, f"directory {inode} was removed")
            if request.user.uid:
                await search(txn, record.parent, request.user)
            names.append(record.name)
            size += len(record.name) + 1
            if size > PATH_BYTES_MAX:
                raise EmberError(
                    Code.NAME_TOO_LONG, f"the path of inode {request.inode} is over {PATH_BYTES_MAX} bytes"
                )
            inode = record.parent
        names.reverse()
        return RealPathReply(b"/" + b"/".join(names))

    return await context.kv.read(climb)
