"""set_attr: mode, owner, times, and a directory's layout."""

import stat

from fs_common.errors import Code, EmberError
from fs_common.methods import SET_ATTR
from fs_common.records.meta import AttributesReply, FileType, SetAttr
from fs_meta.kv.interface import Transaction
from fs_meta.ops.context import Context
from fs_meta.ops.inodes import MODE_MASK, attributes, put_inode
from fs_meta.ops.mkdir import inheritable
from fs_meta.ops.once import once
from fs_meta.ops.resolve import get_inode, resolve
from fs_meta.schema import Inode

_ID_MAX = 2**32 - 2
"""2**32 - 1 means "leave it" in POSIX calls; here that is None."""
_TIMES_NS = range(2**63)


async def set_attr(context: Context, request: SetAttr) -> AttributesReply:
    """Change what is not None, of a path or (empty path) an inode; ctime changes if anything does.

    Mode takes the bits 0o7777. Without a mode in the request, a new owner or group of a file clears set-user-id, and
    set-group-id if the group may execute, as Linux does. A layout is for directories (ENOTDIR) and changes children
    made from now on. EINVAL: a value out of range, a wrong layout. The walk's errors.
    """
    for name, value in (("uid", request.uid), ("gid", request.gid)):
        if value is not None and not 0 <= value <= _ID_MAX:
            raise EmberError(Code.INVALID, f"{name} {value} is not from 0 to {_ID_MAX}")
    for name, value in (("atime_ns", request.atime_ns), ("mtime_ns", request.mtime_ns)):
        if value is not None and value not in _TIMES_NS:
            raise EmberError(Code.INVALID, f"{name} {value} is not from 0 to {_TIMES_NS[-1]}")
    layout = None if request.layout is None else inheritable(request.layout)
    now_ns = context.now_ns()

    async def apply(txn: Transaction) -> tuple[AttributesReply, int]:
        inode = await resolve(txn, request.at, request.path, request.follow)
        record = await get_inode(txn, inode)
        if layout is not None:
            if record.type is not FileType.DIRECTORY:
                raise EmberError(Code.NOT_DIRECTORY, f"inode {inode} is not a directory; its layout is fixed")
            record.layout = layout
        _change_owner(record, request)
        if request.mode is not None:
            record.mode = request.mode & MODE_MASK
        if request.atime_ns is not None:
            record.atime_ns = request.atime_ns
        if request.mtime_ns is not None:
            record.mtime_ns = request.mtime_ns
        changes = (request.mode, request.uid, request.gid, request.atime_ns, request.mtime_ns, layout)
        if any(change is not None for change in changes):
            record.ctime_ns = now_ns
            put_inode(txn, inode, record)
        return AttributesReply(attributes(inode, record)), 0

    return await once(context, SET_ATTR, request.request, apply, relaxed=request.relaxed)


def _change_owner(record: Inode, request: SetAttr) -> None:
    if request.uid is None and request.gid is None:
        return
    if request.uid is not None:
        record.uid = request.uid
    if request.gid is not None:
        record.gid = request.gid
    if record.type is FileType.FILE:
        record.mode &= ~stat.S_ISUID
        if record.mode & stat.S_IXGRP:
            record.mode &= ~stat.S_ISGID
