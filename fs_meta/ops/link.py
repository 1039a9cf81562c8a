"""link: another name for anything but a directory, or the first one for an unnamed file."""

from fs_common.errors import Code, EmberError
from fs_common.limits import LINK_COUNT_MAX
from fs_common.methods import LINK
from fs_common.records.meta import AttributesReply, FileType, Link
from fs_meta import schema
from fs_meta.kv.interface import Transaction
from fs_meta.ops.context import Context
from fs_meta.ops.inodes import attributes, get_directory, get_entry, has_sessions, put_inode, touch_directory
from fs_meta.ops.once import once
from fs_meta.ops.permission import FIXED, check_make
from fs_meta.ops.resolve import SELF, get_inode, missing, place_of, resolve
from fs_meta.schema import Entry


async def link(context: Context, request: Link) -> AttributesReply:
    """Give what `path` names (the inode `at` when it is empty) the new name; symbolic links are not followed.

    POSIX link: EPERM for a directory, and for what is flagged immutable or append-only. EEXIST if the new name is
    there. EACCES, EPERM: nothing may be put into the directory. EMLINK at 65,535 links. ENOENT: the old name is
    missing, the file has no name left, or the new name ends with `/`. An unnamed file that is still open gets its first
    name, unless it was made not to (ENOENT). The file's ctime and the parent's times change.
    """
    now_ns = context.now_ns()

    async def apply(txn: Transaction) -> tuple[AttributesReply, int]:
        inode = await resolve(txn, request.at, request.path, False, request.user)
        record = await get_inode(txn, inode)
        parent_id, name, slash = await place_of(txn, request.new_at, request.new_path, request.user)
        if not request.new_path:
            raise EmberError(Code.NOT_FOUND, "an empty path names nothing")
        if name in SELF or await get_entry(txn, parent_id, name) is not None:
            raise EmberError(Code.EXISTS, f"{name!r} exists in directory {parent_id}")
        if slash:
            raise await missing(txn, parent_id, name)
        parent = await get_directory(txn, parent_id)
        check_make(parent_id, parent, request.user)
        if record.flags & FIXED:
            raise EmberError(Code.NOT_PERMITTED, f"inode {inode} is flagged immutable or append-only")
        if record.type is FileType.DIRECTORY:
            raise EmberError(Code.NOT_PERMITTED, f"inode {inode} is a directory; those have one name")
        if not record.links:
            if not record.flags & schema.LINKABLE or not await has_sessions(txn, inode):
                raise EmberError(Code.NOT_FOUND, f"inode {inode} was removed, or may not have a name")
            record.flags &= ~(schema.UNNAMED | schema.LINKABLE)
        if record.links >= LINK_COUNT_MAX:
            raise EmberError(Code.TOO_MANY_LINKS, f"inode {inode} has {record.links} links")
        record.links += 1
        record.ctime_ns = now_ns
        put_inode(txn, inode, record)
        txn.put(schema.entry_key(parent_id, name), schema.encode(Entry(inode, record.type, request.request)))
        touch_directory(txn, parent_id, parent, now_ns)
        return AttributesReply(attributes(inode, record)), 0

    return await once(context, LINK, request.request, apply, relaxed=request.relaxed)
