"""Who may do what, as Linux has it: permission bits, access control lists, owners, sticky directories, inode flags.

Pure: inodes and a user in; nothing out, or an error. ACCESS_DENIED (EACCES): the permission bits say no.
NOT_PERMITTED (EPERM): it takes an owner or root, or a flag of the inode forbids it to everybody. Where both hold, a
missing right to enter or change a directory comes before what its sticky bit or the child's flags say, and a directory
or file flagged immutable is EPERM before its bits are looked at.

| what is done                                        | needs                                                        |
| --------------------------------------------------- | ------------------------------------------------------------ |
| a name is looked up in a directory                  | `check_search` of the directory                              |
| a name is made in a directory                       | `check_make`                                                 |
| a name is taken from a directory                    | `check_remove`: sticky bit and flags too                     |
| a directory with entries is removed with them       | `check_emptied`                                              |
| a file is opened, truncated, listed; access(2)      | `check_rights`                                               |
| mode, owner, times, flags                           | `is_owner`, `in_group`, and the rules in `set_attr`          |

Root (uid 0) has every right, but that to execute what nobody may execute. Flags bind root too. Set-id bits are dropped
by `without_set_id` when somebody without privilege changes a file's bytes or owner.

Source: Linux fs/namei.c (`inode_permission`, `may_create`, `may_delete`), fs/attr.c.
"""

import stat
from typing import Final, Protocol

from fs_common.errors import Code, EmberError
from fs_common.records.meta import FileType, InodeFlags, User
from fs_meta import acl
from fs_meta.schema import Inode

READ: Final = 4
WRITE: Final = 2
EXECUTE: Final = 1
SEARCH: Final = 1
"""Of a directory, what EXECUTE is of a file."""

IMMUTABLE: Final = int(InodeFlags.IMMUTABLE)
APPEND: Final = int(InodeFlags.APPEND)
FIXED: Final = IMMUTABLE | APPEND
"""Flags under which nothing may be taken away."""

_DIRECTORY = FileType.DIRECTORY


class Owned(Protocol):
    """What says whose it is: an inode, or the head of one."""

    @property
    def type(self) -> FileType: ...
    @property
    def mode(self) -> int: ...
    @property
    def uid(self) -> int: ...
    @property
    def gid(self) -> int: ...


def in_group(user: User, gid: int) -> bool:
    return user.gid == gid or gid in user.groups


def is_owner(record: Owned, user: User) -> bool:
    """The owner, or root."""
    return not user.uid or user.uid == record.uid


def allowed(record: Inode, user: User, rights: int) -> bool:
    """Whether the permission bits of the one class that the user is in, or the access control list, give all of
    `rights`."""
    if not user.uid:
        return not rights & EXECUTE or record.type is _DIRECTORY or bool(record.mode & 0o111)
    if user.uid == record.uid:
        bits = record.mode >> 6
    elif record.acl and record.mode & stat.S_IRWXG:
        # As in Linux a list with an empty mask does not count.
        groups = {user.gid, *user.groups}
        return acl.allows(record.acl, record.mode, record.gid, groups, user.uid, rights)
    elif in_group(user, record.gid):
        bits = record.mode >> 3
    else:
        bits = record.mode
    return not rights & ~bits


def check_rights(inode: int, record: Inode, user: User, rights: int) -> None:
    """Raises NOT_PERMITTED: to write what is immutable; ACCESS_DENIED."""
    if rights & WRITE and record.flags & IMMUTABLE:
        raise EmberError(Code.NOT_PERMITTED, f"inode {inode} is flagged immutable")
    if not allowed(record, user, rights):
        raise denied(inode, record, user, rights)


def check_search(inode: int, record: Inode, user: User) -> None:
    """Raises ACCESS_DENIED unless the user may look names up in the directory."""
    if not allowed(record, user, SEARCH):
        raise denied(inode, record, user, SEARCH)


def check_make(inode: int, directory: Inode, user: User) -> None:
    """Raises unless the user may put a name into the directory: NOT_PERMITTED (immutable), ACCESS_DENIED."""
    check_rights(inode, directory, user, WRITE | SEARCH)


def check_remove(parent: int, directory: Inode, inode: int, record: Inode, user: User) -> None:
    """Raises unless the user may take a name of `inode` from the directory `parent`.

    ACCESS_DENIED: the directory may not be changed. NOT_PERMITTED: one of the two is immutable or append-only, or the
    directory is sticky and neither it nor the inode is the user's.
    """
    check_make(parent, directory, user)
    check_taken(parent, directory, inode, record, user)


def check_taken(parent: int, directory: Inode, inode: int, record: Inode, user: User) -> None:
    """The part of `check_remove` that is about `inode`: raises NOT_PERMITTED for flags and the sticky bit."""
    if directory.flags & FIXED or record.flags & FIXED:
        raise EmberError(Code.NOT_PERMITTED, f"inode {inode} or directory {parent} is flagged immutable or append-only")
    if directory.mode & stat.S_ISVTX and not is_owner(record, user) and user.uid != directory.uid:
        raise EmberError(
            Code.NOT_PERMITTED, f"directory {parent} is sticky, and inode {inode} is not of user {user.uid}"
        )


def check_emptied(inode: int, directory: Inode, user: User) -> None:
    """Raises unless the user may take all names from a directory that he has found them in, sticky bit aside."""
    if directory.flags & FIXED:
        raise EmberError(Code.NOT_PERMITTED, f"directory {inode} is flagged immutable or append-only")
    check_rights(inode, directory, user, READ | WRITE | SEARCH)


def without_set_id(record: Inode, user: User | None) -> int:
    """The mode after `user` changed the bytes of a file: what of set-user-id and set-group-id stays.

    Root changes nothing. Without group execution set-group-id stays for members of the group. None: somebody without
    privilege of whom no more is known; he is taken for a member.
    """
    mode = record.mode
    if record.type is not FileType.FILE or (user is not None and not user.uid):
        return mode
    mode &= ~stat.S_ISUID
    if mode & stat.S_IXGRP or (user is not None and not in_group(user, record.gid)):
        mode &= ~stat.S_ISGID
    return mode


def denied(inode: int, record: Owned, user: User, rights: int) -> EmberError:
    wanted = "".join(letter for letter, bit in zip("rwx", (READ, WRITE, EXECUTE), strict=True) if rights & bit)
    return EmberError(
        Code.ACCESS_DENIED,
        f"user {user.uid} lacks {wanted} on inode {inode}, mode {record.mode:04o} of {record.uid}:{record.gid}",
    )
