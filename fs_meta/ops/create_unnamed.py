"""create_unnamed: a regular file that is in no directory (O_TMPFILE), opened for writing."""

from fs_common.methods import CREATE_UNNAMED
from fs_common.records.meta import CreateUnnamed, FileType, OpenReply
from fs_meta import schema
from fs_meta.kv.interface import Transaction
from fs_meta.ops.context import Context
from fs_meta.ops.inodes import attributes, get_directory, group_of_child, mode_of_child, put_inode
from fs_meta.ops.once import once
from fs_meta.ops.permission import check_make
from fs_meta.ops.sessions import add_session
from fs_meta.schema import Inode


async def create_unnamed(context: Context, request: CreateUnnamed) -> OpenReply:
    """Make a file without a name, with the layout and group it would have in the directory, and a write session.

    It is collected when its last session ends, unless `link` has named it by then, which it allows if `linkable`. The
    directory is not changed. EACCES, EPERM: nothing may be put into the directory. ENOTDIR. ESTALE, ENOENT: the
    directory is gone, or removed. CLUSTER_NOT_READY (retry).
    """
    inode = await context.inode_ids.take()
    session = context.new_session()
    now_ns = context.now_ns()
    user = request.user

    async def apply(txn: Transaction) -> tuple[OpenReply, int]:
        directory = await get_directory(txn, request.directory)
        check_make(request.directory, directory, user)
        assert directory.layout is not None
        mode, acl = mode_of_child(directory, request.mode, request.unmasked, user)
        record = Inode(
            FileType.FILE,
            mode,
            user.uid,
            group_of_child(directory, user),
            0,
            0,
            now_ns,
            now_ns,
            now_ns,
            now_ns,
            context.allocator.place(directory.layout),
            flags=schema.WRITTEN | schema.UNNAMED | (schema.LINKABLE if request.linkable else 0),
            acl=acl,
        )
        put_inode(txn, inode, record)
        add_session(txn, inode, session, request.client, now_ns)
        return OpenReply(attributes(inode, record), session), 1

    return await once(context, CREATE_UNNAMED, request.request, apply, relaxed=request.relaxed)
