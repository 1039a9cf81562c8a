"""Detached trees are taken apart: what goes, what becomes a tree of its own, and what may not be removed.

Each entry of a detached directory is taken as the user who removed the tree would have taken it by name, with today's
owners, modes and flags (`fs_meta.ops.permission`):

* anything but a directory loses a link, as in unlink;
* a directory becomes the top of a tree of its own, of the same user;
* what the user may not take (flags, a sticky bit), and a directory with entries that he may not empty, is moved as it
  is to the orphans: the directory `lost+found` in the root directory, under its inode's number and the path it had,
  with `:` for `/`. It is made when it is needed first, with the owner of the root directory and the mode of /tmp, so
  that everybody finds and takes back what is his.

A directory is judged in the transaction that detaches it, and not again: its links are given up there.

A name `lost+found` that is something else, or somebody's own, is left alone: `lost+found.1` takes its place, and so on.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from fs_common.errors import Code, EmberError
from fs_common.ids import ROOT_INODE, InodeId
from fs_common.limits import NAME_BYTES_MAX, PATH_BYTES_MAX
from fs_common.records.meta import FileType, User
from fs_meta import schema
from fs_meta.kv.interface import Transaction
from fs_meta.ops.inodes import add_directory, drop_link, get_entry, is_empty, put_inode, touch_directory
from fs_meta.ops.permission import check_emptied, check_taken
from fs_meta.ops.remove_tree import detach
from fs_meta.ops.resolve import get_inode
from fs_meta.schema import Entry, Garbage, Inode

ORPHANS: Final = b"lost+found"
ORPHANS_MODE: Final = 0o1777
_PLACES_MAX: Final = 10
_NAME_OFFSET = len(schema.entry_key(0, b""))


class NeedsInode(Exception):
    """Raised inside the transaction, to abort it: a place for orphans has to be made, and there is no inode id for
    it."""


@dataclass(slots=True)
class Taken:
    """What came of some entries."""

    change: int = 0
    """Of the number of inodes."""
    kept: list[tuple[bytes, str]] = field(default_factory=list)
    """Path and reason of what was put to the orphans."""


async def take_entries(
    txn: Transaction,
    directory: int,
    record: Inode,
    garbage: Garbage,
    pairs: Sequence[tuple[bytes, bytes]],
    now_ns: int,
    service_ns: int,
    due_ns: int,
    spare: InodeId | None,
) -> Taken:
    """Take the entries `pairs` from a detached directory.

    `service_ns`: now, in the service's time; `due_ns`: when, in that, the contents of a file that loses its last name
    may go. `spare`: an inode id that nobody has, for the place of orphans. Raises `NeedsInode` if that is needed and
    None.
    """
    taken = Taken()
    user = garbage.user
    for key, value in pairs:
        entry = schema.decode_entry(value)
        path = (garbage.path + b"/" + key[_NAME_OFFSET:])[-PATH_BYTES_MAX:]
        txn.delete(key)
        child = await get_inode(txn, entry.inode)
        is_directory = entry.type is FileType.DIRECTORY
        try:
            check_taken(directory, record, entry.inode, child, user)
            if is_directory and user.uid and not await is_empty(txn, entry.inode):
                check_emptied(entry.inode, child, user)
        except EmberError as refusal:
            taken.change += await _keep(txn, entry, child, path, now_ns, spare)
            taken.kept.append((path, refusal.message))
            continue
        if is_directory:
            detach(txn, entry.inode, child, user, path, now_ns, service_ns)
        else:
            taken.change += await drop_link(txn, entry.inode, child, now_ns, due_ns)
    return taken


async def _keep(txn: Transaction, entry: Entry, record: Inode, path: bytes, now_ns: int, spare: InodeId | None) -> int:
    """Move something that has lost its entry to the orphans. Returns the change of the number of inodes."""
    place_id, place, made = await _place(txn, now_ns, spare)
    name = b"%d%b" % (entry.inode, path.replace(b"/", b":"))
    if len(name) > NAME_BYTES_MAX:
        number = b"%d:..." % entry.inode
        name = number + name[len(number) - NAME_BYTES_MAX :]
    attempt = 1
    while await get_entry(txn, place_id, name) is not None:
        name = b"%d~%d" % (entry.inode, attempt)
        attempt += 1
    txn.put(schema.entry_key(place_id, name), schema.encode(Entry(entry.inode, entry.type)))
    is_directory = entry.type is FileType.DIRECTORY
    if is_directory:
        record.parent, record.name = place_id, name
    record.ctime_ns = now_ns
    put_inode(txn, entry.inode, record)
    touch_directory(txn, place_id, place, now_ns, int(is_directory))
    return made


async def _place(txn: Transaction, now_ns: int, spare: InodeId | None) -> tuple[int, Inode, int]:
    """The place of orphans and its record, made if there is none; and how many inodes that made."""
    root = await get_inode(txn, ROOT_INODE)
    for number in range(_PLACES_MAX):
        name = ORPHANS + b".%d" % number if number else ORPHANS
        entry = await get_entry(txn, ROOT_INODE, name)
        if entry is None:
            if spare is None:
                raise NeedsInode
            owner = User(root.uid, root.gid)
            place = add_directory(txn, ROOT_INODE, root, name, spare, ORPHANS_MODE, owner, b"", now_ns)
            touch_directory(txn, ROOT_INODE, root, now_ns)
            return spare, place, 1
        if entry.type is FileType.DIRECTORY:
            place = await get_inode(txn, entry.inode)
            if place.uid == root.uid:
                return entry.inode, place, 0
    raise EmberError(Code.EXISTS, f"/{ORPHANS.decode()} and its substitutes are other things; give one of them up")
