"""Path walking inside a transaction.

Rules (POSIX pathname resolution, as Linux has it):
* a path is relative to the inode `at`; one that begins with `/` is relative to the root; an empty one is `at` itself;
* every component but the last must be a directory or a symbolic link to one: ENOTDIR where it is something else,
  ENOENT where it is missing; symbolic links on the way are always followed, relative to the directory they are in;
* a path that ends with `/` names a directory: a symbolic link there is followed, and what is no directory is ENOTDIR;
* `.` is the directory itself, `..` its parent (the root's is the root); both need a directory before them;
* a component over 255 bytes or a path over 4096 is ENAMETOOLONG, a NUL byte EINVAL, more than 40 links ELOOP;
* `at` that does not exist is ESTALE, and ENOENT for the parent of a directory that was removed;
* every directory that a component is looked up in, `.` and `..` too, must grant search (x) to the user: EACCES, before
  the component is looked at. A directory that the path only ends with is not asked.

An entry carries its child's type, so a component costs root one `get`: of the entry. For others the directory's inode
is read too, only its head if it is theirs, and without a conflict: a walk sees rights as they are when its transaction
begins, as a walk on a local file system may have passed a directory just before its rights change; and a directory's
changing times do not conflict with everyone who walks past.
"""

from typing import Final, NamedTuple

from fs_common.errors import Code, EmberError
from fs_common.ids import ROOT_INODE
from fs_common.limits import NAME_BYTES_MAX, PATH_BYTES_MAX, SYMLINK_FOLLOW_MAX
from fs_common.records.meta import FileType, User
from fs_meta import schema
from fs_meta.kv.interface import Transaction
from fs_meta.ops.permission import SEARCH, check_search, denied

SELF: Final = frozenset((b"", b".", b".."))
"""Last components that do not name an entry: the path is `/`, `.`, `..` or ends so."""

OWNER_SEARCHES: Final = SEARCH << 6
_DIRECTORY = FileType.DIRECTORY
_SYMLINK = FileType.SYMLINK


class Place(NamedTuple):
    """Where the last component of a path is, or would be."""

    parent: int
    """A directory's inode, except that `at` itself has not been looked at when the path has one component."""
    name: bytes
    """May be one of `SELF`."""
    slash: bool
    """The path ends with `/`: the name must be, or become, a directory."""


def check_name(name: bytes) -> None:
    """Raise unless `name` can be the name of an entry: NAME_TOO_LONG, INVALID."""
    if len(name) > NAME_BYTES_MAX:
        raise EmberError(Code.NAME_TOO_LONG, f"a name of {len(name)} bytes, at most {NAME_BYTES_MAX}")
    if b"\0" in name:
        raise EmberError(Code.INVALID, f"a NUL byte in the name {name!r}")


def _check_path(path: bytes) -> None:
    if len(path) > PATH_BYTES_MAX:
        raise EmberError(Code.NAME_TOO_LONG, f"a path of {len(path)} bytes, at most {PATH_BYTES_MAX}")


async def resolve(txn: Transaction, at: int, path: bytes, follow: bool, user: User) -> int:
    """The inode `path` names; a symbolic link in last place is followed if `follow`. `at` unseen if `path` is empty.

    Raises NOT_FOUND, NOT_DIRECTORY, NAME_TOO_LONG, INVALID, LOOP, STALE, ACCESS_DENIED.
    """
    if not path:
        return at
    if b"/" not in path and path not in SELF:
        if user.uid:
            await search(txn, at, user)
        check_name(path)
        value = await txn.get(schema.entry_key(at, path))
        if value is None:
            raise await missing(txn, at, path)
        entry = schema.decode_entry(value)
        if not follow or entry.type is not _SYMLINK:
            return entry.inode
    return await _walk(txn, at, path, follow, user)


async def place_of(txn: Transaction, at: int, path: bytes, user: User) -> Place:
    """Walk to the directory of the last component, which is not looked up. Raises as `resolve`."""
    if b"/" not in path:
        if user.uid and path:
            await search(txn, at, user)
        check_name(path)
        return Place(at, path, False)
    _check_path(path)
    stripped = path.rstrip(b"/")
    head, slash, name = stripped.rpartition(b"/")
    if not slash:
        parent = ROOT_INODE if path.startswith(b"/") else at
    else:
        parent = await _walk(txn, at, head + b"/", True, user)
    if user.uid and name:
        await search(txn, parent, user)
    check_name(name)
    return Place(parent, name, len(stripped) < len(path))


async def search(txn: Transaction, directory: int, user: User) -> None:
    """Raises STALE, NOT_DIRECTORY, and ACCESS_DENIED unless the user may look names up here. Not needed for root."""
    value = await txn.snapshot_get(schema.inode_key(directory))
    if value is None:
        raise EmberError(Code.STALE, f"inode {directory} is gone; look its path up again")
    head = schema.decode_inode_head(value)
    if head.type is not _DIRECTORY:
        raise EmberError(Code.NOT_DIRECTORY, f"inode {directory} is not a directory")
    if user.uid != head.uid:
        check_search(directory, schema.decode_inode(value), user)
    elif not head.mode & OWNER_SEARCHES:
        raise denied(directory, head, user, SEARCH)


async def missing(txn: Transaction, at: int, name: bytes) -> EmberError:
    """Why `at` has no entry `name`: it is gone, it is no directory, or it has none."""
    value = await txn.get(schema.inode_key(at))
    if value is None:
        return EmberError(Code.STALE, f"inode {at} is gone; look its path up again")
    if schema.decode_inode(value).type is not _DIRECTORY:
        return EmberError(Code.NOT_DIRECTORY, f"inode {at} is not a directory")
    return EmberError(Code.NOT_FOUND, f"no {name!r} in directory {at}")


async def get_inode(txn: Transaction, inode: int) -> schema.Inode:
    """Raises STALE if it does not exist."""
    value = await txn.get(schema.inode_key(inode))
    if value is None:
        raise EmberError(Code.STALE, f"inode {inode} is gone; look its path up again")
    return schema.decode_inode(value)


async def parent_of(txn: Transaction, directory: int) -> int:
    """`..` of a directory. Raises STALE, NOT_DIRECTORY, NOT_FOUND (it was removed)."""
    record = await get_inode(txn, directory)
    if record.type is not _DIRECTORY:
        raise EmberError(Code.NOT_DIRECTORY, f"inode {directory} is not a directory")
    if not record.parent:
        raise EmberError(Code.NOT_FOUND, f"directory {directory} was removed")
    return record.parent


async def _walk(txn: Transaction, at: int, path: bytes, follow: bool, user: User) -> int:
    _check_path(path)
    here = ROOT_INODE if path.startswith(b"/") else at
    ahead = [name for name in reversed(path.split(b"/")) if name]
    """Components still to walk, the next one last."""
    want_directory = path.endswith(b"/")
    followed = 0
    while ahead:
        name = ahead.pop()
        if user.uid:
            await search(txn, here, user)
        if name == b".":
            if here == at and (await get_inode(txn, here)).type is not _DIRECTORY:
                raise EmberError(Code.NOT_DIRECTORY, f"inode {here} is not a directory")
            continue
        if name == b"..":
            here = await parent_of(txn, here)
            continue
        check_name(name)
        value = await txn.get(schema.entry_key(here, name))
        if value is None:
            raise await missing(txn, here, name)
        entry = schema.decode_entry(value)
        if entry.type is _DIRECTORY:
            here = entry.inode
            continue
        if entry.type is _SYMLINK and (ahead or follow or want_directory):
            followed += 1
            if followed > SYMLINK_FOLLOW_MAX:
                raise EmberError(Code.LOOP, f"more than {SYMLINK_FOLLOW_MAX} symbolic links, the last one {name!r}")
            target = (await get_inode(txn, entry.inode)).target
            if target.startswith(b"/"):
                here = ROOT_INODE
            if not ahead and target.endswith(b"/"):
                want_directory = True
            ahead.extend(part for part in reversed(target.split(b"/")) if part)
            continue
        if ahead or want_directory:
            raise EmberError(Code.NOT_DIRECTORY, f"{name!r} in directory {here} is not a directory")
        return entry.inode
    if here == at and want_directory and (await get_inode(txn, here)).type is not _DIRECTORY:
        raise EmberError(Code.NOT_DIRECTORY, f"inode {here} is not a directory")
    return here
