"""remove_tree: a file or a whole tree goes in one transaction."""

from fs_common.errors import Code, EmberError
from fs_common.methods import REMOVE_TREE
from fs_common.records.meta import FileType, RemoveTree
from fs_common.records.session import Empty
from fs_meta import schema
from fs_meta.kv.interface import Transaction
from fs_meta.ops.context import Context
from fs_meta.ops.inodes import get_directory, get_entry, put_inode, queue_garbage, touch_directory
from fs_meta.ops.once import EMPTY, once
from fs_meta.ops.resolve import SELF, get_inode, missing, place_of
from fs_meta.ops.rmdir import no_entry
from fs_meta.ops.unlink import remove_name


async def remove_tree(context: Context, request: RemoveTree) -> Empty:
    """Detach what the path names, whatever its size; the collector frees it afterwards.

    A directory loses its entry, its parent and its links and is queued; what is below it cannot be reached from the
    root any more. A file or symbolic link is unlinked. ENOENT; ENOTDIR: it ends with `/` and is no directory; EBUSY:
    the root; EINVAL: `.`; ENOTEMPTY: `..`.
    """
    now_ns = context.now_ns()

    async def apply(txn: Transaction) -> tuple[Empty, int]:
        parent_id, name, slash = await place_of(txn, request.at, request.path, request.user)
        if name in SELF:
            raise no_entry(request.path, name)
        entry = await get_entry(txn, parent_id, name)
        if entry is None:
            raise await missing(txn, parent_id, name)
        if entry.type is not FileType.DIRECTORY:
            if slash:
                raise EmberError(Code.NOT_DIRECTORY, f"{name!r} in directory {parent_id} is not a directory")
            return EMPTY, await remove_name(txn, context, parent_id, name, entry, request.user, now_ns)
        parent = await get_directory(txn, parent_id)
        txn.delete(schema.entry_key(parent_id, name))
        touch_directory(txn, parent_id, parent, now_ns, -1)
        await detach(txn, entry.inode, now_ns)
        return EMPTY, 0

    return await once(context, REMOVE_TREE, request.request, apply, relaxed=request.relaxed)


async def detach(txn: Transaction, directory: int, now_ns: int) -> None:
    """Make a directory that has lost its entry the root of a tree for the collector, due at once."""
    record = await get_inode(txn, directory)
    record.parent = record.links = 0
    record.name = b""
    record.ctime_ns = now_ns
    put_inode(txn, directory, record)
    queue_garbage(txn, directory, FileType.DIRECTORY, now_ns, now_ns)
