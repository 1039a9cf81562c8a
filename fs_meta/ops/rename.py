"""rename: an entry moves, or two change places.

Checks in this order (Linux where POSIX leaves a choice); nothing is put before the last of them:

1. flags: NO_REPLACE with EXCHANGE, or an unknown bit: EINVAL. A last component `.` or `..`: EINVAL; the root: EBUSY.
2. The source must exist; for EXCHANGE the destination too: ENOENT. For NO_REPLACE the destination must not: EEXIST.
3. A trailing `/` on either name: what moves must be a directory, else ENOTDIR (EXCHANGE: each its own).
4. Source and destination are the same inode (the same entry, or two names of one file): success, nothing is done.
5. A directory may not move into itself or below: EINVAL. For EXCHANGE this holds for both. Every ancestor of the
   directory it moves to is read inside the transaction, so that a concurrent move of one of them conflicts.
6. The directory moved to must still hang together with the root: ENOENT, else what moves would vanish with a removed
   tree. A chain of more than 1024 ancestors is ENAMETOOLONG.
7. Replacing: a directory over a file is ENOTDIR, a file over a directory EISDIR, a directory that has entries
   ENOTEMPTY.

A replaced file loses a link as in unlink, a replaced empty directory goes.

Source: reference 3.5.
"""

from typing import NamedTuple

from fs_common.errors import Code, EmberError
from fs_common.ids import ROOT_INODE
from fs_common.limits import PATH_DEPTH_MAX
from fs_common.methods import RENAME
from fs_common.records.meta import FileType, Rename, RenameFlags
from fs_common.records.session import Empty
from fs_meta import schema
from fs_meta.kv.interface import Transaction
from fs_meta.ops.context import Context
from fs_meta.ops.inodes import delete_inode, drop_link, get_directory, get_entry, is_empty, put_inode, touch_directory
from fs_meta.ops.once import EMPTY, once
from fs_meta.ops.resolve import SELF, get_inode, missing, place_of
from fs_meta.schema import Entry, Inode

_DIRECTORY = FileType.DIRECTORY


class _End(NamedTuple):
    """One side of a rename."""

    parent: int
    name: bytes
    slash: bool
    entry: Entry | None


async def rename(context: Context, request: Rename) -> Empty:
    """Move `path` to `new_path` in one transaction, replacing what is there; see the module for flags and errors.

    The times of both directories and the ctime of what moved change; a moved directory's parent counts its link.
    """
    flags = request.flags
    exchange = bool(flags & RenameFlags.EXCHANGE)
    if flags not in (0, RenameFlags.NO_REPLACE, RenameFlags.EXCHANGE):
        raise EmberError(Code.INVALID, f"rename flags {flags}: none, no-replace (1) or exchange (2)")
    now_ns = context.now_ns()

    async def apply(txn: Transaction) -> tuple[Empty, int]:
        source = await _end(txn, request.at, request.path)
        target = await _end(txn, request.new_at, request.new_path)
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
        if exchange and replaced is not None:
            await _check_loop(txn, replaced, source)
        elif replaced is not None:
            await _check_replace(txn, moved, replaced, target)
        return EMPTY, await _move(txn, context, request.request, source, target, exchange, now_ns)

    return await once(context, RENAME, request.request, apply, relaxed=request.relaxed)


async def _end(txn: Transaction, at: int, path: bytes) -> _End:
    parent, name, slash = await place_of(txn, at, path)
    if not path:
        raise EmberError(Code.NOT_FOUND, "an empty path names nothing")
    if name in SELF:
        if name:
            raise EmberError(Code.INVALID, f"{path!r} ends with {name!r}")
        raise EmberError(Code.ROOT_DIRECTORY, "the root directory cannot be renamed or replaced")
    return _End(parent, name, slash, await get_entry(txn, parent, name))


def _check_slashes(source: _End, target: _End, moved: Entry, replaced: Entry | None, exchange: bool) -> None:
    if moved.type is not _DIRECTORY and (source.slash or (target.slash and not exchange)):
        raise EmberError(Code.NOT_DIRECTORY, f"{source.name!r} in directory {source.parent} is not a directory")
    if exchange and target.slash and replaced is not None and replaced.type is not _DIRECTORY:
        raise EmberError(Code.NOT_DIRECTORY, f"{target.name!r} in directory {target.parent} is not a directory")


async def _check_loop(txn: Transaction, moved: Entry, target: _End) -> None:
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


async def _check_replace(txn: Transaction, moved: Entry, replaced: Entry, target: _End) -> None:
    if moved.type is _DIRECTORY:
        if replaced.type is not _DIRECTORY:
            raise EmberError(Code.NOT_DIRECTORY, f"{target.name!r} in directory {target.parent} is not a directory")
        if not await is_empty(txn, replaced.inode):
            raise EmberError(Code.NOT_EMPTY, f"directory {target.name!r} in directory {target.parent} has entries")
    elif replaced.type is _DIRECTORY:
        raise EmberError(Code.IS_DIRECTORY, f"{target.name!r} in directory {target.parent} is a directory")


async def _move(
    txn: Transaction, context: Context, request: bytes, source: _End, target: _End, exchange: bool, now_ns: int
) -> int:
    """Everything has been checked: put it. Returns the change of the number of inodes."""
    moved, replaced = source.entry, target.entry
    assert moved is not None
    old_parent = await get_directory(txn, source.parent)
    same = source.parent == target.parent
    new_parent = old_parent if same else await get_directory(txn, target.parent)
    change = 0
    if exchange:
        assert replaced is not None
        txn.put(schema.entry_key(source.parent, source.name), schema.encode(_renamed(replaced, request)))
        await _settle_in(txn, replaced, source, now_ns)
        _count_subdirectory(replaced, new_parent, old_parent)
    else:
        txn.delete(schema.entry_key(source.parent, source.name))
        if replaced is not None:
            change = await _drop(txn, context, replaced, new_parent, now_ns)
    txn.put(schema.entry_key(target.parent, target.name), schema.encode(_renamed(moved, request)))
    await _settle_in(txn, moved, target, now_ns)
    _count_subdirectory(moved, old_parent, new_parent)
    touch_directory(txn, source.parent, old_parent, now_ns)
    if not same:
        touch_directory(txn, target.parent, new_parent, now_ns)
    return change


def _renamed(entry: Entry, request: bytes) -> Entry:
    return Entry(entry.inode, entry.type, request)


async def _settle_in(txn: Transaction, entry: Entry, end: _End, now_ns: int) -> None:
    """A moved inode's own side: ctime, and where a directory is."""
    record = await get_inode(txn, entry.inode)
    record.ctime_ns = now_ns
    if entry.type is _DIRECTORY:
        record.parent, record.name = end.parent, end.name
    put_inode(txn, entry.inode, record)


def _count_subdirectory(entry: Entry, leaves: Inode, joins: Inode) -> None:
    if entry.type is _DIRECTORY:
        leaves.links -= 1
        joins.links += 1


async def _drop(txn: Transaction, context: Context, replaced: Entry, parent: Inode, now_ns: int) -> int:
    """What was at the destination goes; an empty directory at once."""
    if replaced.type is _DIRECTORY:
        delete_inode(txn, replaced.inode)
        parent.links -= 1
        return -1
    record = await get_inode(txn, replaced.inode)
    return await drop_link(txn, replaced.inode, record, now_ns, now_ns + context.gc_delay_ns)
