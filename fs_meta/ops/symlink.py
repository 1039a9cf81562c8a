"""symlink: a new symbolic link."""

from fs_common.errors import Code, EmberError
from fs_common.limits import SYMLINK_BYTES_MAX
from fs_common.methods import SYMLINK
from fs_common.records.meta import AttributesReply, FileType, Symlink
from fs_meta import schema
from fs_meta.kv.interface import Transaction
from fs_meta.ops.context import Context
from fs_meta.ops.inodes import attributes, get_directory, get_entry, group_of_child, put_inode, touch_directory
from fs_meta.ops.once import once
from fs_meta.ops.permission import check_make
from fs_meta.ops.resolve import SELF, missing, place_of
from fs_meta.schema import Entry, Inode


async def symlink(context: Context, request: Symlink) -> AttributesReply:
    """Make a symbolic link; its target is kept as it is and need not exist.

    POSIX symlink: EEXIST if the name is there. ENOENT: an empty target, or a name that ends with `/`. ENAMETOOLONG: a
    target over 4095 bytes. EINVAL: a NUL byte in it. EACCES, EPERM: nothing may be put into the directory. The parent's
    times change.
    """
    target = request.target
    if not target:
        raise EmberError(Code.NOT_FOUND, "a symbolic link with an empty target")
    if len(target) > SYMLINK_BYTES_MAX:
        raise EmberError(Code.NAME_TOO_LONG, f"a target of {len(target)} bytes, at most {SYMLINK_BYTES_MAX}")
    if b"\0" in target:
        raise EmberError(Code.INVALID, f"a NUL byte in the target {target!r}")
    inode = await context.inode_ids.take()
    now_ns = context.now_ns()

    async def apply(txn: Transaction) -> tuple[AttributesReply, int]:
        parent_id, name, slash = await place_of(txn, request.at, request.path, request.user)
        if not request.path:
            raise EmberError(Code.NOT_FOUND, "an empty path names nothing")
        if name in SELF or await get_entry(txn, parent_id, name) is not None:
            raise EmberError(Code.EXISTS, f"{name!r} exists in directory {parent_id}")
        if slash:
            raise await missing(txn, parent_id, name)
        parent = await get_directory(txn, parent_id)
        check_make(parent_id, parent, request.user)
        gid = group_of_child(parent, request.user)
        record = Inode(
            FileType.SYMLINK, 0o777, request.user.uid, gid, 1, len(target), now_ns, now_ns, now_ns, now_ns, None,
            target=target,
        )  # fmt: skip
        put_inode(txn, inode, record)
        txn.put(schema.entry_key(parent_id, name), schema.encode(Entry(inode, FileType.SYMLINK, request.request)))
        touch_directory(txn, parent_id, parent, now_ns)
        return AttributesReply(attributes(inode, record)), 1

    return await once(context, SYMLINK, request.request, apply, relaxed=request.relaxed)
