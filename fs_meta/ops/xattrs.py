"""Extended attributes: which names there are, who may read and write them, and their bounds.

| namespace   | on                            | read by          | written by                               |
| ----------- | ----------------------------- | ---------------- | ---------------------------------------- |
| `user.`     | regular files and directories | who may read it  | who may write it; a sticky directory's:  |
|             |                               |                  | its owner and root alone                 |
| `trusted.`  | everything                    | root; not shown  | root                                     |
|             |                               | to others        |                                          |
| `security.` | everything                    | everybody        | root                                     |
| `system.`   | access control lists alone, of what is no symbolic link: everybody  | its owner and root    |

Every other namespace or name in `system.` is not there: EOPNOTSUPP. Nobody writes attributes of an object that is
flagged immutable or append-only. Access control lists are part of the inode (`fs_meta.acl`).

Attributes belong to the inode and go with it (`fs_meta.ops.inodes.delete_inode`). A change moves its ctime.

Source: xattr(7), and the order of checks of Linux's `setxattr`.
"""

import stat
from typing import Final

from fs_common.errors import Code, EmberError
from fs_common.limits import KIB, XATTR_NAME_BYTES_MAX
from fs_common.records.meta import FileType, User
from fs_meta import acl, schema
from fs_meta.kv.interface import Transaction
from fs_meta.ops.permission import FIXED, READ, WRITE, check_rights, in_group, is_owner
from fs_meta.schema import Inode

CAPABILITY: Final = b"security.capability"
"""File capabilities: privileges of whoever executes the file, so they go when its bytes or its owner change."""
LIST_BYTES_MAX: Final = 8 * KIB
"""Of an access control list, which is read with its inode: a thousand entries."""
USER: Final = b"user."
TRUSTED: Final = b"trusted."
SECURITY: Final = b"security."
_NAMESPACES = (USER, TRUSTED, SECURITY)


def namespace_of(name: bytes) -> bytes:
    """The namespace, with its dot. Raises XATTR_NAME (0 or over 255 bytes), NOT_SUPPORTED, INVALID (nothing behind the
    dot, or a NUL)."""
    if not 1 <= len(name) <= XATTR_NAME_BYTES_MAX:
        raise EmberError(Code.XATTR_NAME, f"an extended attribute's name of {len(name)} bytes, 1 to 255 are allowed")
    for namespace in _NAMESPACES:
        if name.startswith(namespace):
            if name == namespace or b"\0" in name:
                raise EmberError(Code.INVALID, f"{name!r} names no extended attribute")
            return namespace
    raise EmberError(Code.NOT_SUPPORTED, f"{name!r} is in none of the namespaces user, trusted and security")


def check_read(inode: int, record: Inode, name: bytes, user: User) -> None:
    """Raises as `namespace_of`; NO_XATTR where this user or this type of object has no such names; ACCESS_DENIED."""
    match namespace_of(name):
        case b"trusted." if user.uid:
            raise no_xattr(inode, name)
        case b"user.":
            if not _has_user_names(record):
                raise no_xattr(inode, name)
            check_rights(inode, record, user, READ)


def check_write(inode: int, record: Inode, name: bytes, user: User) -> None:
    """Raises as `namespace_of`; NOT_PERMITTED (flags, privilege, type of object, sticky directory); ACCESS_DENIED."""
    namespace = namespace_of(name)
    if record.flags & FIXED:
        raise EmberError(Code.NOT_PERMITTED, f"inode {inode} is flagged immutable or append-only")
    if namespace != USER:
        if user.uid:
            raise EmberError(Code.NOT_PERMITTED, f"only root writes {name!r}")
        return
    if not _has_user_names(record):
        raise EmberError(Code.NOT_PERMITTED, f"inode {inode} is no file or directory: it has no `user.` attributes")
    sticky = record.type is FileType.DIRECTORY and record.mode & stat.S_ISVTX
    if sticky and not is_owner(record, user):
        raise EmberError(Code.NOT_PERMITTED, f"directory {inode} is sticky: its owner writes its attributes")
    check_rights(inode, record, user, WRITE)


def is_shown(name: bytes, user: User) -> bool:
    """Whether a listing for this user has the name."""
    return not user.uid or not name.startswith(TRUSTED)


def no_xattr(inode: int, name: bytes) -> EmberError:
    return EmberError(Code.NO_XATTR, f"inode {inode} has no extended attribute {name!r}")


def drop_capability(txn: Transaction, inode: int, record: Inode) -> None:
    """The file's bytes or owner changed: its capabilities go, as its set-id bits do. The caller puts the record."""
    txn.delete(schema.xattr_key(inode, CAPABILITY))
    record.flags &= ~schema.CAPABLE


def get_list(inode: int, record: Inode, name: bytes) -> bytes:
    """An access control list. Raises NO_XATTR; NOT_SUPPORTED (a symbolic link)."""
    _check_has_lists(inode, record)
    if name == acl.ACCESS and record.acl:
        return acl.pack(acl.access_list(record.acl, record.mode))
    if name == acl.DEFAULT and record.default_acl:
        return record.default_acl
    raise no_xattr(inode, name)


def set_list(inode: int, record: Inode, name: bytes, value: bytes, user: User) -> None:
    """Change the list, and the mode with it; b"": take it away. The caller puts the record.

    Raises NOT_SUPPORTED (a symbolic link, another version), INVALID, XATTR_TOO_LARGE, ACCESS_DENIED (a default list of
    what is no directory), NOT_PERMITTED.
    """
    _check_has_lists(inode, record)
    if record.flags & FIXED:
        raise EmberError(Code.NOT_PERMITTED, f"inode {inode} is flagged immutable or append-only")
    if len(value) > LIST_BYTES_MAX:
        raise EmberError(
            Code.XATTR_TOO_LARGE, f"an access control list of {len(value)} bytes, at most {LIST_BYTES_MAX}"
        )
    entries = acl.parse(value) if value else ()
    if name == acl.DEFAULT and record.type is not FileType.DIRECTORY:
        if not entries:
            return
        raise EmberError(Code.ACCESS_DENIED, f"inode {inode} is no directory: nothing is made in it")
    if not is_owner(record, user):
        raise EmberError(Code.NOT_PERMITTED, f"user {user.uid} is not the owner of inode {inode}")
    kept = acl.pack(entries) if entries else b""
    if name == acl.DEFAULT:
        record.default_acl = kept
        return
    record.acl = kept
    if entries:
        record.mode, says_more = acl.mode_of(entries, record.mode)
        if not says_more:
            record.acl = b""
        if user.uid and not in_group(user, record.gid):
            record.mode &= ~stat.S_ISGID


def lists_of(record: Inode) -> list[bytes]:
    """Names of the lists that it has."""
    return [name for name, kept in ((acl.ACCESS, record.acl), (acl.DEFAULT, record.default_acl)) if kept]


def _check_has_lists(inode: int, record: Inode) -> None:
    if record.type is FileType.SYMLINK:
        raise EmberError(Code.NOT_SUPPORTED, f"inode {inode} is a symbolic link: it has no access control list")


def _has_user_names(record: Inode) -> bool:
    return record.type is FileType.FILE or record.type is FileType.DIRECTORY
