"""remove_tree: a file or a whole tree goes in one transaction.

Who may remove a tree is who could remove it name by name: the name of its top may be taken from its directory, and
every directory in it that has entries may be read, written and searched (`check_emptied`), its sticky bit and the
children's flags allowing. Checked are

1. the top, in the transaction that detaches it;
2. before that, in a snapshot, a sample of what is below: the first `SAMPLE_DIRECTORIES` directories among the first
   `SAMPLE_ENTRIES` entries, breadth first; not for root, whom only flags stop;
3. everything else when the collector comes to it, as the same user (`fs_meta.trees`).

What is refused in (1) or (2) refuses the request, nothing is removed. What is refused in (3) is out of the namespace by
then; it is put into `lost+found`, never destroyed.

Commit point: the transaction that detaches the top.
"""

import stat
from typing import Final

from fs_common.errors import Code, EmberError
from fs_common.ids import ROOT_INODE
from fs_common.limits import PATH_BYTES_MAX, PATH_DEPTH_MAX
from fs_common.methods import REMOVE_TREE
from fs_common.records.meta import FileType, RemoveTree, User
from fs_common.records.session import Empty
from fs_meta import schema
from fs_meta.kv.interface import Transaction
from fs_meta.ops.context import Context
from fs_meta.ops.inodes import get_directory, get_entry, is_empty, put_inode, touch_directory
from fs_meta.ops.once import EMPTY, once
from fs_meta.ops.permission import check_emptied, check_remove, check_taken, is_owner
from fs_meta.ops.resolve import SELF, get_inode, missing, place_of
from fs_meta.ops.rmdir import no_entry
from fs_meta.ops.unlink import remove_name
from fs_meta.schema import Garbage, Inode

SAMPLE_DIRECTORIES: Final = 1024
SAMPLE_ENTRIES: Final = 4096
"""Some milliseconds of the loop at most."""


async def remove_tree(context: Context, request: RemoveTree) -> Empty:
    """Detach what the path names, whatever its size; the collector frees it afterwards.

    A directory loses its entry, its parent and its links and is queued; what is below it cannot be reached from the
    root any more. Anything else is unlinked. ENOENT; ENOTDIR: it ends with `/` and is no directory; EBUSY: the root;
    EINVAL: `.`; ENOTEMPTY: `..`. EACCES, EPERM: the user may not remove it, or something in it.
    """
    now_ns = context.now_ns()
    user = request.user
    refusal = await context.kv.read(lambda txn: _sample(txn, request)) if user.uid else None

    async def apply(txn: Transaction) -> tuple[Empty, int]:
        parent_id, name, slash = await place_of(txn, request.at, request.path, user)
        if name in SELF:
            raise no_entry(request.path, name)
        entry = await get_entry(txn, parent_id, name)
        if entry is None:
            raise await missing(txn, parent_id, name)
        if entry.type is not FileType.DIRECTORY:
            if slash:
                raise EmberError(Code.NOT_DIRECTORY, f"{name!r} in directory {parent_id} is not a directory")
            return EMPTY, await remove_name(txn, context, parent_id, name, entry, user, now_ns)
        parent = await get_directory(txn, parent_id)
        record = await get_inode(txn, entry.inode)
        check_remove(parent_id, parent, entry.inode, record, user)
        if user.uid and not await is_empty(txn, entry.inode):
            check_emptied(entry.inode, record, user)
        if refusal is not None:
            raise refusal
        txn.delete(schema.entry_key(parent_id, name))
        touch_directory(txn, parent_id, parent, now_ns, -1)
        path = await _path_of(txn, parent_id, parent, name)
        detach(txn, entry.inode, record, user, path, now_ns, context.service_time.now_ns())
        return EMPTY, 0

    return await once(context, REMOVE_TREE, request.request, apply, relaxed=request.relaxed)


def detach(txn: Transaction, directory: int, record: Inode, user: User, path: bytes, now_ns: int, due_ns: int) -> None:
    """Make a directory that has lost its entry the root of a tree for the collector, due at once.

    `user` removes it; `path` is where it was.
    """
    record.parent = record.links = 0
    record.name = b""
    record.ctime_ns = now_ns
    put_inode(txn, directory, record)
    garbage = Garbage(FileType.DIRECTORY, now_ns, 0, user, path)
    txn.put(schema.garbage_key(due_ns, directory), schema.encode(garbage))


async def _sample(txn: Transaction, request: RemoveTree) -> EmberError | None:
    """Why the user may not remove something of what is looked at below the top. What the walk says is not said here."""
    try:
        parent_id, name, _ = await place_of(txn, request.at, request.path, request.user)
        entry = None if name in SELF else await get_entry(txn, parent_id, name)
    except EmberError:
        return None
    if entry is None or entry.type is not FileType.DIRECTORY:
        return None
    try:
        await _check_below(txn, entry.inode, request.user)
    except EmberError as error:
        return error
    return None


async def _check_below(txn: Transaction, top: int, user: User) -> None:
    pending = [top]
    left = SAMPLE_ENTRIES
    for directory in pending:
        record = await get_inode(txn, directory)
        begin, end = schema.entries_range(directory)
        pairs = await txn.range(begin, end, left)
        if pairs:
            check_emptied(directory, record, user)
        # Without a sticky bit against the user, only directories and flags can be in the way of a name.
        names_count = bool(record.mode & stat.S_ISVTX) and not is_owner(record, user)
        for _, value in pairs:
            entry = schema.decode_entry(value)
            is_directory = entry.type is FileType.DIRECTORY
            if is_directory or names_count:
                check_taken(directory, record, entry.inode, await get_inode(txn, entry.inode), user)
            if is_directory and len(pending) < SAMPLE_DIRECTORIES:
                pending.append(entry.inode)
        left -= len(pairs)
        if left == 0:
            return


async def _path_of(txn: Transaction, parent: int, record: Inode, name: bytes) -> bytes:
    """The path of a directory's entry, as far as it can be told; for people. Snapshot reads: a move above may come."""
    names = [name]
    size = len(name) + 1
    for _ in range(PATH_DEPTH_MAX):
        if parent == ROOT_INODE or not record.parent:
            break
        names.append(record.name)
        size += len(record.name) + 1
        value = await txn.snapshot_get(schema.inode_key(record.parent))
        if value is None or size > PATH_BYTES_MAX:
            break
        parent, record = record.parent, schema.decode_inode(value)
    return b"/" + b"/".join(reversed(names))
