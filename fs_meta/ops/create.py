"""create: a new regular file, opened in the same transaction."""

from fs_common.errors import Code, EmberError
from fs_common.layout import validate
from fs_common.limits import SYMLINK_FOLLOW_MAX
from fs_common.methods import CREATE
from fs_common.records.meta import Create, FileType, OpenReply
from fs_meta import schema
from fs_meta.kv.interface import Transaction
from fs_meta.ops.context import Context
from fs_meta.ops.inodes import (
    attributes,
    get_directory,
    get_entry,
    group_of_child,
    mode_of_child,
    put_inode,
    touch_directory,
)
from fs_meta.ops.once import once
from fs_meta.ops.permission import check_make
from fs_meta.ops.resolve import SELF, get_inode, place_of
from fs_meta.ops.sessions import add_session, open_existing
from fs_meta.schema import Entry, Inode

_FILE = FileType.FILE


async def create(context: Context, request: Create) -> OpenReply:
    """Make a file (or, not `exclusive`, open the one that is there); with `write`, it has a session on return.

    POSIX open(O_CREAT): EEXIST if `exclusive` and the name is there, a symbolic link included. Otherwise symbolic links
    are followed, and the target of a dangling one is made. EISDIR: the name is a directory, or ends with `/`. The
    walk's errors. EACCES, EPERM: nothing may be put into the directory; for a file that is there, as `open`. Owner is
    the user; the group is the directory's if that has set-group-id. The parent's mtime and ctime change.
    CLUSTER_NOT_READY (retry): there is no chain table yet. EINVAL: a wrong layout.
    """
    if request.layout is not None:
        validate(request.layout)
    inode = await context.inode_ids.take()
    session = context.new_session() if request.write else b""
    now_ns = context.now_ns()

    async def apply(txn: Transaction) -> tuple[OpenReply, int]:
        at, path = request.at, request.path
        if not path:
            raise EmberError(Code.NOT_FOUND, "an empty path names nothing")
        for _ in range(SYMLINK_FOLLOW_MAX + 1):
            parent_id, name, slash = await place_of(txn, at, path, request.user)
            if name in SELF:
                code = Code.EXISTS if request.exclusive else Code.IS_DIRECTORY
                raise EmberError(code, f"{request.path!r} is a directory")
            if slash:
                raise EmberError(Code.IS_DIRECTORY, f"{path!r} ends with a slash; a file cannot be made there")
            entry = await get_entry(txn, parent_id, name)
            if entry is None:
                return await make(txn, parent_id, name), 1
            if request.exclusive:
                raise EmberError(Code.EXISTS, f"{name!r} exists in directory {parent_id}")
            if entry.type is FileType.DIRECTORY:
                raise EmberError(Code.IS_DIRECTORY, f"{name!r} in directory {parent_id} is a directory")
            if entry.type is not FileType.SYMLINK:
                return await open_existing(txn, entry.inode, request, session, now_ns), 0
            at, path = parent_id, (await get_inode(txn, entry.inode)).target
        raise EmberError(Code.LOOP, f"more than {SYMLINK_FOLLOW_MAX} symbolic links, the last one to {path!r}")

    async def make(txn: Transaction, parent_id: int, name: bytes) -> OpenReply:
        parent = await get_directory(txn, parent_id)
        user = request.user
        check_make(parent_id, parent, user)
        wanted = request.layout or parent.layout
        assert wanted is not None
        layout = context.allocator.place(wanted)
        mode, acl = mode_of_child(parent, request.mode, request.unmasked, user)
        gid = group_of_child(parent, user)
        record = Inode(_FILE, mode, user.uid, gid, 1, 0, now_ns, now_ns, now_ns, now_ns, layout, acl=acl)
        if session:
            record.flags = schema.WRITTEN
        put_inode(txn, inode, record)
        txn.put(schema.entry_key(parent_id, name), schema.encode(Entry(inode, _FILE, request.request)))
        touch_directory(txn, parent_id, parent, now_ns)
        if session:
            add_session(txn, inode, session, request.client, now_ns, append=request.append)
        return OpenReply(attributes(inode, record), session)

    return await once(context, CREATE, request.request, apply, relaxed=request.relaxed)
