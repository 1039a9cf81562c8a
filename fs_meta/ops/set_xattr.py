"""set_xattr: an extended attribute is made or replaced."""

from fs_common.errors import Code, EmberError
from fs_common.limits import XATTR_LIST_BYTES_MAX, XATTR_VALUE_BYTES_MAX
from fs_common.methods import SET_XATTR
from fs_common.records.meta import SetXattr, XattrFlags
from fs_common.records.session import Empty
from fs_meta import acl, schema
from fs_meta.kv.interface import Transaction
from fs_meta.ops.context import Context
from fs_meta.ops.inodes import put_inode
from fs_meta.ops.once import EMPTY, once
from fs_meta.ops.resolve import get_inode
from fs_meta.ops.xattrs import CAPABILITY, check_write, no_xattr, set_list
from fs_meta.schema import Xattr

_FLAGS = int(XattrFlags.CREATE | XattrFlags.REPLACE)
"""A number: the complement of an enum's flags has its known bits alone."""


async def set_xattr(context: Context, request: SetXattr) -> Empty:
    """Set the value; ctime changes. Rights by the table in `fs_meta.ops.xattrs`.

    As setxattr(2): EEXIST with CREATE if it is there; ENODATA with REPLACE if not. E2BIG: a value over 64 KiB, or the
    object's names would be over 64 KiB together. EPERM, EACCES. ERANGE, EOPNOTSUPP, EINVAL: the name; EINVAL: an
    unknown flag. ESTALE: the inode is gone. Of an access control list the flags do not count, and the mode changes with
    it; EACCES: it is a default one, and the object no directory.
    """
    if request.flags & ~_FLAGS:
        raise EmberError(Code.INVALID, f"flags {request.flags}: create (1) or replace (2)")
    if len(request.value) > XATTR_VALUE_BYTES_MAX:
        raise EmberError(
            Code.XATTR_TOO_LARGE, f"a value of {len(request.value)} bytes, at most {XATTR_VALUE_BYTES_MAX}"
        )
    now_ns = context.now_ns()

    async def apply(txn: Transaction) -> tuple[Empty, int]:
        inode, name = request.inode, request.name
        record = await get_inode(txn, inode)
        if name in acl.NAMES:
            set_list(inode, record, name, request.value, request.user)
            record.ctime_ns = now_ns
            put_inode(txn, inode, record)
            return EMPTY, 0
        check_write(inode, record, name, request.user)
        key = schema.xattr_key(inode, name)
        if await txn.get(key) is None:
            if request.flags & XattrFlags.REPLACE:
                raise no_xattr(inode, name)
            await _check_room(txn, inode, name)
        elif request.flags & XattrFlags.CREATE:
            raise EmberError(Code.EXISTS, f"inode {inode} has an extended attribute {name!r}")
        txn.put(key, schema.encode(Xattr(request.value)))
        if name == CAPABILITY:
            record.flags |= schema.CAPABLE
        record.ctime_ns = now_ns
        put_inode(txn, inode, record)
        return EMPTY, 0

    return await once(context, SET_XATTR, request.request, apply, relaxed=request.relaxed)


async def _check_room(txn: Transaction, inode: int, name: bytes) -> None:
    """A list of all names, each with its NUL, stays below what listxattr(2) can return."""
    pairs = await txn.range(*schema.xattrs_range(inode))
    prefix = len(schema.xattr_key(inode, b""))
    size = sum(len(key) - prefix + 1 for key, _ in pairs) + len(name) + 1
    if size > XATTR_LIST_BYTES_MAX:
        raise EmberError(
            Code.XATTR_TOO_LARGE,
            f"inode {inode} would have {size} bytes of names of extended attributes, at most {XATTR_LIST_BYTES_MAX}",
        )
