"""Steps that several operations share: a directory to change, a new object in it, a link less, what `stat` shows.

All run inside a transaction; none checks what its caller has checked. What a step puts is visible to later reads of the
same transaction.
"""

import stat
from typing import Final

from fs_common.checks import check
from fs_common.errors import Code, EmberError
from fs_common.records.meta import Attributes, FileType, User
from fs_meta import schema
from fs_meta.acl import inherited
from fs_meta.kv.interface import Transaction
from fs_meta.ops.permission import in_group
from fs_meta.ops.resolve import get_inode
from fs_meta.schema import Entry, Garbage, Inode

MODE_MASK: Final = 0o7777
DIRECTORY_LINKS: Final = 2
"""Of an empty directory: its entry and its own `.`; each subdirectory's `..` adds one."""

_DIRECTORY = FileType.DIRECTORY
_SET_GROUP_ID = stat.S_ISGID | stat.S_IXGRP
"""Together: who executes the file has its group. Alone, set-group-id is no privilege."""


def attributes(inode: int, record: Inode) -> Attributes:
    """What `stat` shows of an inode."""
    return Attributes(
        inode,
        record.type,
        record.mode,
        record.uid,
        record.gid,
        record.links,
        record.length,
        record.atime_ns,
        record.mtime_ns,
        record.ctime_ns,
        record.layout,
        record.truncate_version,
        record.parent,
        record.target,
        record.btime_ns,
        record.device,
        record.flags & schema.USER_FLAGS,
        record.version,
        record.flags & schema.SPARSE != 0,
        record.acl != b"",
        record.default_acl != b"",
        record.flags & schema.CAPABLE != 0,
    )


def put_inode(txn: Transaction, inode: int, record: Inode) -> None:
    txn.put(schema.inode_key(inode), schema.encode(record))


def delete_inode(txn: Transaction, inode: int) -> None:
    """The inode goes, with what belongs to it alone: extended attributes and locks. Its chunks are gone already."""
    txn.delete(schema.inode_key(inode))
    txn.delete_range(*schema.xattrs_range(inode))
    txn.delete(schema.locks_key(inode))


async def get_directory(txn: Transaction, inode: int) -> Inode:
    """A directory whose entries are about to change.

    Raises STALE (gone), NOT_DIRECTORY, NOT_FOUND (removed or detached: nothing may be put into it).
    """
    record = await get_inode(txn, inode)
    if record.type is not _DIRECTORY:
        raise EmberError(Code.NOT_DIRECTORY, f"inode {inode} is not a directory")
    if not record.links:
        raise EmberError(Code.NOT_FOUND, f"directory {inode} was removed")
    return record


async def get_entry(txn: Transaction, parent: int, name: bytes) -> Entry | None:
    value = await txn.get(schema.entry_key(parent, name))
    return None if value is None else schema.decode_entry(value)


def touch_directory(txn: Transaction, inode: int, record: Inode, now_ns: int, subdirectories: int = 0) -> None:
    """Put a directory whose entries changed: times, version, and links for `subdirectories` more (or fewer)."""
    record.mtime_ns = record.ctime_ns = now_ns
    record.version += 1
    record.links += subdirectories
    check(record.links >= DIRECTORY_LINKS, "a directory keeps its own two links", inode, record.links)
    put_inode(txn, inode, record)


def group_of_child(parent: Inode, user: User) -> int:
    """A set-group-id directory hands its group down."""
    return parent.gid if parent.mode & stat.S_ISGID else user.gid


def mode_of_child(parent: Inode, mode: int, unmasked: int | None, user: User) -> tuple[int, bytes]:
    """(mode, access control list) of anything but a directory or symbolic link. `unmasked`: before the umask, which
    does not count where the parent hands down a list. The group that is handed down is given as set-group-id to its
    members alone."""
    mode, acl = _handed_down(parent, mode, unmasked)
    mode &= MODE_MASK
    handed_down = mode & _SET_GROUP_ID == _SET_GROUP_ID and parent.mode & stat.S_ISGID
    if handed_down and user.uid and not in_group(user, parent.gid):
        mode &= ~stat.S_ISGID
    return mode, acl


def _handed_down(parent: Inode, mode: int, unmasked: int | None) -> tuple[int, bytes]:
    if not parent.default_acl:
        return mode, b""
    return inherited(parent.default_acl, mode if unmasked is None else unmasked)


def add_directory(
    txn: Transaction,
    parent_id: int,
    parent: Inode,
    name: bytes,
    inode: int,
    mode: int,
    user: User,
    request: bytes,
    now_ns: int,
    unmasked: int | None = None,
) -> Inode:
    """Put a new empty directory and its entry; `parent` gets a link, but is not put. Returns the new inode."""
    layout = parent.layout
    mode, acl = _handed_down(parent, mode, unmasked)
    # Linux: a mkdir's set-id bits are dropped, and set-group-id is inherited.
    bits = (mode & 0o1777) | (parent.mode & stat.S_ISGID)
    gid = group_of_child(parent, user)
    record = Inode(
        _DIRECTORY, bits, user.uid, gid, DIRECTORY_LINKS, 0, now_ns, now_ns, now_ns, now_ns, layout, 0, parent_id, name,
        acl=acl, default_acl=parent.default_acl,
    )  # fmt: skip
    parent.links += 1
    put_inode(txn, inode, record)
    txn.put(schema.entry_key(parent_id, name), schema.encode(Entry(inode, _DIRECTORY, request)))
    return record


async def has_sessions(txn: Transaction, inode: int) -> bool:
    """Whether the file's contents are kept: it is open for writing, or held. The range joins the conflict set, so an
    open meanwhile conflicts."""
    begin, end = schema.sessions_range(inode)
    return bool(await txn.range(begin, end, 1))


async def drop_link(txn: Transaction, inode: int, record: Inode, now_ns: int, due_ns: int) -> int:
    """Take a name from anything but a directory. Returns by how much the number of inodes changes.

    The last one: what has no contents goes at once; a file stays with `links` 0 and is queued for collection at
    `due_ns` (the service's time), unless it is open for writing or held: then the close of its last session queues it.
    """
    check(
        record.type is not _DIRECTORY and record.links > 0, "an entry's child has a link to lose", inode, record.links
    )
    record.links -= 1
    record.ctime_ns = now_ns
    if record.links == 0:
        if record.type is not FileType.FILE:
            delete_inode(txn, inode)
            return -1
        if not await has_sessions(txn, inode):
            queue_file(txn, inode, record, now_ns, due_ns)
    put_inode(txn, inode, record)
    return 0


def queue_file(txn: Transaction, inode: int, record: Inode, now_ns: int, due_ns: int) -> None:
    """Hand a file without links to the collector, not before `due_ns`; the caller puts it."""
    record.due_ns = due_ns
    txn.put(schema.garbage_key(due_ns, inode), schema.encode(Garbage(FileType.FILE, now_ns)))


async def is_empty(txn: Transaction, directory: int) -> bool:
    """The range joins the conflict set: an entry that is made meanwhile conflicts."""
    begin, end = schema.entries_range(directory)
    return not await txn.range(begin, end, 1)
