"""set_attr: mode, owner, times, flags, and a directory's layout.

Rules of Linux (fs/attr.c, fs/ioctl.c). A change that is refused refuses the whole request.

* mode: the owner or root, else EPERM. It takes the bits 0o7777; set-group-id only from root and members of the group
  (of the new one, if that changes too), from others it is dropped. EOPNOTSUPP: a symbolic link has none.
* uid: root; the owner may "change" it to himself. gid: root; the owner, to a group he is in or to the one it has. Else
  EPERM. Without a mode in the request set-user-id goes from anything but a directory, and so does set-group-id if the
  group may execute, or the user is neither root nor in the group; capabilities go.
* times: the owner or root, else EPERM. Both to the clock: who may write too, else EACCES.
* flags: the owner or root, IMMUTABLE and APPEND root alone, else EPERM. EOPNOTSUPP: an unknown flag, or neither file
  nor directory.
* layout: the owner or root, else EPERM; of directories, else ENOTDIR.
* What is immutable changes in nothing but that flag; what is append-only, in nothing but flags and both times to the
  clock: EPERM, root included.

Whatever is asked for, the ctime changes with it.
"""

import stat
from typing import Final

from fs_common.errors import Code, EmberError
from fs_common.layout import Layout
from fs_common.methods import SET_ATTR
from fs_common.records.meta import AttributesReply, FileType, InodeFlags, SetAttr, User
from fs_meta import schema
from fs_meta.kv.interface import Transaction
from fs_meta.ops.context import Context
from fs_meta.ops.inodes import MODE_MASK, attributes, put_inode
from fs_meta.ops.mkdir import inheritable
from fs_meta.ops.once import once
from fs_meta.ops.permission import FIXED, IMMUTABLE, WRITE, check_rights, in_group, is_owner
from fs_meta.ops.resolve import get_inode, resolve
from fs_meta.ops.xattrs import drop_capability
from fs_meta.schema import Inode

FLAGS: Final = int(InodeFlags.IMMUTABLE | InodeFlags.APPEND | InodeFlags.NO_DUMP | InodeFlags.NO_ATIME)
"""All there are."""
_ID_MAX = 2**32 - 2
"""2**32 - 1 means "leave it" in POSIX calls; here that is None."""
_TIMES_NS = range(-(2**63), 2**63)


async def set_attr(context: Context, request: SetAttr) -> AttributesReply:
    """Change what is not None, of a path or (empty path) an inode, by the rules of this module.

    A layout is for children made from now on. EINVAL: a value out of range, a time given twice, a wrong layout. The
    walk's errors.
    """
    _check_values(request)
    layout = None if request.layout is None else inheritable(request.layout)
    now_ns = context.now_ns()

    async def apply(txn: Transaction) -> tuple[AttributesReply, int]:
        inode = await resolve(txn, request.at, request.path, request.follow, request.user)
        record = await get_inode(txn, inode)
        if _asks(request):
            _check(inode, record, request)
            _change(record, request, layout, now_ns)
            if request.uid is not None or request.gid is not None:
                drop_capability(txn, inode, record)
            put_inode(txn, inode, record)
        return AttributesReply(attributes(inode, record)), 0

    return await once(context, SET_ATTR, request.request, apply, relaxed=request.relaxed)


def _check_values(request: SetAttr) -> None:
    for name, value in (("uid", request.uid), ("gid", request.gid)):
        if value is not None and not 0 <= value <= _ID_MAX:
            raise EmberError(Code.INVALID, f"{name} {value} is not from 0 to {_ID_MAX}")
    for name, value, now in (
        ("atime", request.atime_ns, request.atime_now),
        ("mtime", request.mtime_ns, request.mtime_now),
    ):
        if value is not None and (value not in _TIMES_NS or now):
            raise EmberError(Code.INVALID, f"{name} {value} ns is beyond 64 bits, or is to be the clock's too")


def _asks(request: SetAttr) -> bool:
    values = (
        request.mode, request.uid, request.gid, request.atime_ns, request.mtime_ns, request.layout, request.flags,
    )  # fmt: skip
    return request.atime_now or request.mtime_now or any(value is not None for value in values)


def _check(inode: int, record: Inode, request: SetAttr) -> None:
    """Raise unless the user may do all of it: NOT_PERMITTED, ACCESS_DENIED, NOT_SUPPORTED, NOT_DIRECTORY."""
    user = request.user
    both_now = request.atime_now and request.mtime_now
    explicit = request.atime_ns is not None or request.mtime_ns is not None or request.atime_now != request.mtime_now
    owned = explicit or request.mode is not None or request.layout is not None
    chown = request.uid is not None or request.gid is not None
    if record.flags & FIXED and (owned or chown or (both_now and record.flags & IMMUTABLE)):
        raise EmberError(Code.NOT_PERMITTED, f"inode {inode} is flagged immutable or append-only")
    if owned and not is_owner(record, user):
        raise _not_owner(inode, record, user)
    if chown and not _may_give(record, request):
        raise _not_owner(inode, record, user)
    if both_now and not explicit and not is_owner(record, user):
        check_rights(inode, record, user, WRITE)
    if request.mode is not None and record.type is FileType.SYMLINK:
        raise EmberError(Code.NOT_SUPPORTED, f"inode {inode} is a symbolic link: it has no mode of its own")
    if request.layout is not None and record.type is not FileType.DIRECTORY:
        raise EmberError(Code.NOT_DIRECTORY, f"inode {inode} is not a directory; its layout is fixed")
    if request.flags is not None:
        _check_flags(inode, record, request.flags, user)


def _may_give(record: Inode, request: SetAttr) -> bool:
    user, uid, gid = request.user, request.uid, request.gid
    if not user.uid:
        return True
    if user.uid != record.uid or (uid is not None and uid != record.uid):
        return False
    return gid is None or gid == record.gid or in_group(user, gid)


def _check_flags(inode: int, record: Inode, flags: int, user: User) -> None:
    if flags & ~FLAGS or record.type not in (FileType.FILE, FileType.DIRECTORY):
        raise EmberError(Code.NOT_SUPPORTED, f"flags {flags:#x} of inode {inode}, a {record.type.name.lower()}")
    if not is_owner(record, user):
        raise _not_owner(inode, record, user)
    changed = flags ^ record.flags & schema.USER_FLAGS
    if changed & FIXED and user.uid:
        raise EmberError(Code.NOT_PERMITTED, "only root may change the flags immutable and append-only")
    if changed and flags & record.flags & IMMUTABLE:
        raise EmberError(Code.NOT_PERMITTED, f"inode {inode} is flagged immutable")


def _change(record: Inode, request: SetAttr, layout: Layout | None, now_ns: int) -> None:
    if request.mode is not None:
        record.mode = _mode_from(record, request.mode, request)
    elif request.uid is not None or request.gid is not None:
        record.mode = _mode_of_given(record, request.user)
    if request.uid is not None:
        record.uid = request.uid
    if request.gid is not None:
        record.gid = request.gid
    if request.atime_ns is not None or request.atime_now:
        record.atime_ns = now_ns if request.atime_ns is None else request.atime_ns
    if request.mtime_ns is not None or request.mtime_now:
        record.mtime_ns = now_ns if request.mtime_ns is None else request.mtime_ns
    if request.flags is not None:
        record.flags = record.flags & ~schema.USER_FLAGS | request.flags
    if layout is not None:
        record.layout = layout
    record.ctime_ns = now_ns


def _mode_from(record: Inode, mode: int, request: SetAttr) -> int:
    gid = record.gid if request.gid is None else request.gid
    if request.user.uid and not in_group(request.user, gid):
        mode &= ~stat.S_ISGID
    return mode & MODE_MASK


def _mode_of_given(record: Inode, user: User) -> int:
    """What a change of owner or group leaves; root loses set-id bits like everybody."""
    mode = record.mode
    if record.type is FileType.DIRECTORY:
        return mode
    mode &= ~stat.S_ISUID
    if mode & stat.S_IXGRP or (user.uid and not in_group(user, record.gid)):
        mode &= ~stat.S_ISGID
    return mode


def _not_owner(inode: int, record: Inode, user: User) -> EmberError:
    return EmberError(Code.NOT_PERMITTED, f"user {user.uid} may not do this: inode {inode} is of {record.uid}")
