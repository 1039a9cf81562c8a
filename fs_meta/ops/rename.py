"""rename: an entry moves, or two change places.

Checks in this order (Linux where POSIX leaves a choice); nothing is put before the last of them:

1. flags: EXCHANGE with any other, or an unknown bit: EINVAL. A last component `.` or `..`: EINVAL; the root: EBUSY.
2. The source must exist; for EXCHANGE the destination too: ENOENT. For NO_REPLACE the destination must not: EEXIST.
3. A trailing `/` on either name: what moves must be a directory, else ENOTDIR (EXCHANGE: each its own).
4. Source and destination are the same inode (the same entry, or two names of one file): success, nothing is done.
5. A directory may not move into itself or below: EINVAL. For EXCHANGE this holds for both. Every ancestor of the
   directory it moves to is read inside the transaction, so that a concurrent move of one of them conflicts.
6. The directory moved to must still hang together with the root: ENOENT, else what moves would vanish with a removed
   tree. A chain of more than 1024 ancestors is ENAMETOOLONG.
7. Nothing replaces a directory that it is below: ENOTEMPTY.
8. Rights: the name may be taken from its directory as in unlink, flags and sticky bit included; so may what is replaced
   or exchanged; a new name may be made. EACCES, EPERM.
9. Replacing: a directory over anything else is ENOTDIR, anything else over a directory EISDIR.
10. A directory that changes its parent must be writable (its `..` changes): EACCES. For EXCHANGE this holds for both.
11. A replaced directory must be empty: ENOTEMPTY.

A replaced file loses a link as in unlink, a replaced empty directory goes. A white-out is the user's, like what mknod
makes; anybody may leave one.
"""

from dataclasses import dataclass

from fs_common.errors import Code, EmberError
from fs_common.ids import ROOT_INODE, InodeId
from fs_common.limits import PATH_DEPTH_MAX
from fs_common.methods import RENAME
from fs_common.records.meta import FileType, Rename, RenameFlags, User
from fs_common.records.session import Empty
from fs_meta import schema
from fs_meta.kv.interface import Transaction
from fs_meta.ops.context import Context
from fs_meta.ops.inodes import (
    delete_inode,
    drop_link,
    get_directory,
    get_entry,
    group_of_child,
    is_empty,
    put_inode,
    touch_directory,
)
from fs_meta.ops.once import EMPTY, once
from fs_meta.ops.permission import WRITE, check_make, check_remove, check_rights
from fs_meta.ops.resolve import SELF, get_inode, missing, place_of
from fs_meta.schema import Entry, Inode

_DIRECTORY = FileType.DIRECTORY
_FLAGS = (
    RenameFlags.NONE,
    RenameFlags.NO_REPLACE,
    RenameFlags.EXCHANGE,
    RenameFlags.WHITEOUT,
    RenameFlags.NO_REPLACE | RenameFlags.WHITEOUT,
)
"""All that go together."""


@dataclass(slots=True)
class _Side:
    """One side of a rename: a place, and what is there."""

    parent: int
    name: bytes
    slash: bool
    entry: Entry | None
    directory: Inode | None = None
    """The parent's inode, once it is read; one object on both sides if they have one parent."""
    record: Inode | None = None
    """The entry's inode, likewise."""


async def rename(context: Context, request: Rename) -> Empty:
    """Move `path` to `new_path` in one transaction, replacing what is there; see the module for flags and errors.

    The times of both directories and the ctime of what moved or was replaced change; a directory's parent counts it.
    """
    flags = request.flags
    exchange = bool(flags & RenameFlags.EXCHANGE)
    if flags not in _FLAGS:
        raise EmberError(
            Code.INVALID, f"rename flags {flags}: exchange (2) alone, or any of no-replace (1) and white-out (4)"
        )
    whiteout = await context.inode_ids.take() if flags & RenameFlags.WHITEOUT else None
    now_ns = context.now_ns()

    async def apply(txn: Transaction) -> tuple[Empty, int]:
        source = await _side(txn, request.at, request.path, request.user)
        target = await _side(txn, request.new_at, request.new_path, request.user)
        moved, replaced = source.entry, target.entry
        if moved is None:
            raise await missing(txn, source.parent, source.name)
        if replaced is None:
            if exchange:
                raise await missing(txn, target.parent, target.name)
        elif flags & RenameFlags.NO_REPLACE:
            raise EmberError(Code.EXISTS, f"{target.name!r} exists in directory {target.parent}")
        _check_slashes(source, target, moved, replaced, exchange)
        if replaced is not None and replaced.inode == moved.inode:
            return EMPTY, 0
        await _check_loop(txn, moved, target)
        if replaced is not None and exchange:
            await _check_loop(txn, replaced, source)
        elif replaced is not None and replaced.type is _DIRECTORY:
            await _check_not_above(txn, replaced.inode, source, target)
        await _load(txn, source, target)
        _check_rights(source, target, exchange, request.user)
        replaces = None if exchange or moved.type is not _DIRECTORY else replaced
        if replaces is not None and not await is_empty(txn, replaces.inode):
            raise EmberError(Code.NOT_EMPTY, f"directory {target.name!r} in directory {target.parent} has entries")
        if exchange:
            return EMPTY, _exchange(txn, request.request, source, target, now_ns)
        change = await _move(txn, context, request.request, source, target, now_ns)
        if whiteout is not None:
            change += _leave(txn, request, source, whiteout, now_ns)
        return EMPTY, change

    return await once(context, RENAME, request.request, apply, relaxed=request.relaxed)


async def _side(txn: Transaction, at: int, path: bytes, user: User) -> _Side:
    parent, name, slash = await place_of(txn, at, path, user)
    if not path:
        raise EmberError(Code.NOT_FOUND, "an empty path names nothing")
    if name in SELF:
        if name:
            raise EmberError(Code.INVALID, f"{path!r} ends with {name!r}")
        raise EmberError(Code.ROOT_DIRECTORY, "the root directory cannot be renamed or replaced")
    return _Side(parent, name, slash, await get_entry(txn, parent, name))


def _check_slashes(source: _Side, target: _Side, moved: Entry, replaced: Entry | None, exchange: bool) -> None:
    if moved.type is not _DIRECTORY and (source.slash or (target.slash and not exchange)):
        raise EmberError(Code.NOT_DIRECTORY, f"{source.name!r} in directory {source.parent} is not a directory")
    if exchange and target.slash and replaced is not None and replaced.type is not _DIRECTORY:
        raise EmberError(Code.NOT_DIRECTORY, f"{target.name!r} in directory {target.parent} is not a directory")


async def _check_loop(txn: Transaction, moved: Entry, target: _Side) -> None:
    """Rules 5 and 6 for `moved` becoming a child of `target.parent`."""
    here = target.parent
    for _ in range(PATH_DEPTH_MAX):
        if here == moved.inode:
            raise EmberError(Code.INVALID, f"directory {moved.inode} cannot move below itself")
        if here == ROOT_INODE:
            return
        record = await get_inode(txn, here)
        if record.type is not _DIRECTORY:
            raise EmberError(Code.NOT_DIRECTORY, f"inode {here} is not a directory")
        if not record.parent:
            raise EmberError(Code.NOT_FOUND, f"directory {here}, above the new name, was removed")
        here = record.parent
    raise EmberError(Code.NAME_TOO_LONG, f"directory {target.parent} is more than {PATH_DEPTH_MAX} levels deep")


async def _check_not_above(txn: Transaction, replaced: int, source: _Side, target: _Side) -> None:
    """Rule 7: NOT_EMPTY. Snapshot reads: a move that comes between changes at most which error is raised."""
    here = source.parent
    while here not in (ROOT_INODE, 0, target.parent):
        if here == replaced:
            raise EmberError(Code.NOT_EMPTY, f"directory {replaced} is above what would replace it")
        value = await txn.snapshot_get(schema.inode_key(here))
        here = 0 if value is None else schema.decode_inode(value).parent


async def _load(txn: Transaction, source: _Side, target: _Side) -> None:
    source.directory = target.directory = await get_directory(txn, source.parent)
    if target.parent != source.parent:
        target.directory = await get_directory(txn, target.parent)
    for side in (source, target):
        if side.entry is not None:
            side.record = await get_inode(txn, side.entry.inode)


def _check_rights(source: _Side, target: _Side, exchange: bool, user: User) -> None:
    """Rules 8 to 10. Raises NOT_PERMITTED, ACCESS_DENIED, NOT_DIRECTORY, IS_DIRECTORY."""
    moved, replaced = source.entry, target.entry
    assert moved is not None and source.directory is not None and source.record is not None
    assert target.directory is not None
    check_remove(source.parent, source.directory, moved.inode, source.record, user)
    if replaced is None:
        check_make(target.parent, target.directory, user)
    else:
        assert target.record is not None
        check_remove(target.parent, target.directory, replaced.inode, target.record, user)
        if not exchange and moved.type is not replaced.type:
            if moved.type is _DIRECTORY:
                raise EmberError(Code.NOT_DIRECTORY, f"{target.name!r} in directory {target.parent} is no directory")
            if replaced.type is _DIRECTORY:
                raise EmberError(Code.IS_DIRECTORY, f"{target.name!r} in directory {target.parent} is a directory")
    if source.parent != target.parent:
        for side in (source, target) if exchange else (source,):
            if side.record is not None and side.entry is not None and side.entry.type is _DIRECTORY:
                check_rights(side.entry.inode, side.record, user, WRITE)


def _exchange(txn: Transaction, request: bytes, source: _Side, target: _Side, now_ns: int) -> int:
    """Everything has been checked: put it."""
    _settle_in(txn, request, target, source, now_ns)
    _settle_in(txn, request, source, target, now_ns)
    _touch_both(txn, source, target, now_ns)
    return 0


async def _move(txn: Transaction, context: Context, request: bytes, source: _Side, target: _Side, now_ns: int) -> int:
    """Everything has been checked: put it. Returns the change of the number of inodes."""
    change = 0
    txn.delete(schema.entry_key(source.parent, source.name))
    if target.entry is not None:
        replaced, record = target.entry.inode, target.record
        assert record is not None and target.directory is not None
        if target.entry.type is _DIRECTORY:
            delete_inode(txn, replaced)
            target.directory.links -= 1
            change = -1
        else:
            change = await drop_link(txn, replaced, record, now_ns, context.due_ns())
    _settle_in(txn, request, source, target, now_ns)
    _touch_both(txn, source, target, now_ns)
    return change


def _leave(txn: Transaction, request: Rename, source: _Side, whiteout: int, now_ns: int) -> int:
    """Put a white-out where the source was. Returns the change of the number of inodes."""
    parent, user = source.directory, request.user
    assert parent is not None
    type_ = FileType.CHARACTER_DEVICE
    gid = group_of_child(parent, user)
    put_inode(txn, whiteout, Inode(type_, 0, user.uid, gid, 1, 0, now_ns, now_ns, now_ns, now_ns, None))
    entry = Entry(InodeId(whiteout), type_, request.request)
    txn.put(schema.entry_key(source.parent, source.name), schema.encode(entry))
    return 1


def _settle_in(txn: Transaction, request: bytes, leaves: _Side, joins: _Side, now_ns: int) -> None:
    """Put what was on the side `leaves` into the place of `joins`: entry, ctime, for a directory parent and links."""
    entry, record = leaves.entry, leaves.record
    assert entry is not None and record is not None and leaves.directory is not None and joins.directory is not None
    txn.put(schema.entry_key(joins.parent, joins.name), schema.encode(Entry(entry.inode, entry.type, request)))
    record.ctime_ns = now_ns
    if entry.type is _DIRECTORY:
        record.parent, record.name = joins.parent, joins.name
        leaves.directory.links -= 1
        joins.directory.links += 1
    put_inode(txn, entry.inode, record)


def _touch_both(txn: Transaction, source: _Side, target: _Side, now_ns: int) -> None:
    assert source.directory is not None and target.directory is not None
    touch_directory(txn, source.parent, source.directory, now_ns)
    if target.parent != source.parent:
        touch_directory(txn, target.parent, target.directory, now_ns)
