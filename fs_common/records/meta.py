"""Requests to the metadata service.

Names and paths are bytes: any bytes but `/` and NUL. A path is relative to the inode `at`; an absolute path is one
relative to the root. Every mutating request carries a `request` id; a retry under the same id is applied once and
answered the same.
"""

import enum

import msgspec

from fs_common.layout import Layout
from fs_common.records.bounds import Identifier, Number, Place, UserNumber


class FileType(enum.IntEnum):
    FILE = 1
    DIRECTORY = 2
    SYMLINK = 3
    FIFO = 4
    SOCKET = 5
    CHARACTER_DEVICE = 6
    BLOCK_DEVICE = 7


class InodeFlags(enum.IntFlag):
    """Flags of an inode; numbers are those of Linux's `FS_IOC_SETFLAGS`."""

    NONE = 0
    IMMUTABLE = 0x10
    """Nothing about it changes: no write, no new or lost name, no attribute but this flag."""
    APPEND = 0x20
    """Opened for writing only to append; no truncate, no unlink, no rename."""
    NO_DUMP = 0x40
    NO_ATIME = 0x80


class Attributes(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What `stat` shows, and what a client needs to read the file."""

    inode: Number
    type: FileType
    mode: int
    """Permission bits, 0 .. 0o7777."""
    uid: UserNumber
    gid: UserNumber
    links: int
    length: Number
    """Bytes. For a directory 0; for a symbolic link the target's bytes."""
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    layout: Layout | None = None
    truncate_version: Number = 0
    parent: Number = 0
    """Directories only."""
    target: bytes = b""
    """Symbolic links only."""
    btime_ns: int = 0
    device: Number = 0
    """Devices only: `os.makedev` number."""
    flags: int = 0
    """`InodeFlags`"""
    version: int = 0
    """Of the contents: grows whenever bytes or length of a file change, or the entries of a directory."""
    sparse: bool = False
    """A file that may have holes of whole chunks: what it takes on the daemons may be less than its length."""
    acl: bool = False
    """It has an access control list, which says more than the mode."""
    default_acl: bool = False
    """A directory that hands one down."""
    capable: bool = False
    """It may have file capabilities."""


class User(msgspec.Struct, frozen=True, array_like=True, gc=False):
    uid: UserNumber = 0
    gid: UserNumber = 0
    groups: list[UserNumber] = []


class Stat(msgspec.Struct, frozen=True, array_like=True):
    """By path, or by inode when `path` is empty."""

    at: Number
    path: bytes
    follow: bool = True
    user: User = User()


class AttributesReply(msgspec.Struct, frozen=True, array_like=True):
    attributes: Attributes
    promised: int = 0
    """`Promised`."""


class BatchStat(msgspec.Struct, frozen=True, array_like=True):
    """Many paths relative to one directory, in one snapshot."""

    at: Number
    paths: list[bytes]
    follow: bool = True
    user: User = User()
    read: bool = False
    """Also fail what the user may not open for reading."""


class NameFailure(msgspec.Struct, frozen=True, array_like=True):
    index: int
    code: int
    message: str


class BatchAttributesReply(msgspec.Struct, frozen=True, array_like=True):
    attributes: list[Attributes | None]
    """None where `errors` has the index."""
    errors: list[NameFailure] = []


class Lookup(msgspec.Struct, frozen=True, array_like=True):
    """One name in one directory; no path, no following."""

    parent: Number
    name: bytes
    user: User = User()


class Statfs(msgspec.Struct, frozen=True, array_like=True):
    inode: Number = 1


class StatfsReply(msgspec.Struct, frozen=True, array_like=True):
    """Logical space: replicas divided out."""

    capacity_bytes: int
    free_bytes: int
    files: int
    """Inodes in use."""
    replicas: int


class Create(msgspec.Struct, frozen=True, array_like=True):
    """Make a regular file; with `write`, open it for writing in the same transaction."""

    at: Number
    path: bytes
    mode: int
    request: Identifier
    exclusive: bool = True
    """False: an existing file is opened instead."""
    truncate: bool = False
    """With `exclusive` false: an existing file is cut to 0 by the client afterwards (it gets `existed`)."""
    write: bool = False
    client: Identifier = b""
    layout: Layout | None = None
    """None: inherited from the directory."""
    user: User = User()
    relaxed: bool = False
    """Answer once it is applied and survives the death of processes; `Sync` makes it survive that of the machine."""
    read: bool = True
    """An existing file is also opened for reading, which takes the right to. What is made is not asked."""
    append: bool = False
    """As in `Open`, for an existing file."""
    unmasked: int | None = None
    """`mode` before the umask, for a directory that hands down an access control list; None: the same."""


class OpenReply(msgspec.Struct, frozen=True, array_like=True):
    attributes: Attributes
    session: Identifier = b""
    """Empty for read-only opens."""
    existed: bool = False
    promised: int = 0
    """`Promised`: attributes only."""


class BatchCreate(msgspec.Struct, frozen=True, array_like=True):
    """Many new files in one directory, in one transaction; each name succeeds or fails by itself."""

    parent: Number
    names: list[bytes]
    mode: int
    request: Identifier
    layout: Layout | None = None
    user: User = User()
    relaxed: bool = False
    """As in `Create`."""
    unmasked: int | None = None
    """`mode` before the umask, for a directory that hands down an access control list; None: the same."""


class Open(msgspec.Struct, frozen=True, array_like=True):
    """By path, or by inode when `path` is empty. Follows symbolic links."""

    at: Number
    path: bytes
    write: bool = False
    client: Identifier = b""
    request: Identifier = b""
    user: User = User()
    hold: bool = False
    """Without `write`: a session all the same, so that the file's contents outlive its last name until `Close`."""
    truncate: bool = False
    """Only checked here (permission, flags): the client truncates afterwards."""
    append: bool = False
    """With `write`: only to append, which a file flagged `APPEND` allows."""
    relaxed: bool = False
    """As in `Create`."""
    read: bool = True
    """For reading, which takes the right to; False: only for writing, or to execute."""
    execute: bool = False
    """To execute, which takes the right to."""


class Close(msgspec.Struct, frozen=True, array_like=True):
    """End a write session. The file's length is exact afterwards."""

    inode: Number
    session: Identifier
    request: Identifier
    written_end: int = -1
    """Hint: highest end offset this session wrote and got acknowledged; -1: it wrote nothing."""
    truncate_version: Number = 0
    """The version the hint was made under."""
    exact: bool = False
    """Ask the storage daemons instead of believing the hint (a write failed, so the hint may be too low)."""
    mtime_ns: int = 0
    clear_set_id: bool = False
    """Somebody without privilege wrote: the set-user-id and set-group-id bits go."""
    sparse: bool = False
    """Whole chunks were left out or removed; see `Attributes.sparse`."""
    relaxed: bool = False
    """As in `Create`."""


class Fsync(msgspec.Struct, frozen=True, array_like=True):
    """Settle length and times while the session goes on."""

    inode: Number
    session: Identifier
    request: Identifier
    written_end: int = -1
    truncate_version: Number = 0
    exact: bool = False
    mtime_ns: int = 0
    clear_set_id: bool = False
    sparse: bool = False
    """These as in `Close`."""
    relaxed: bool = False
    """As in `Create`."""


class Mkdir(msgspec.Struct, frozen=True, array_like=True):
    at: Number
    path: bytes
    mode: int
    request: Identifier
    parents: bool = False
    """Make missing ancestors too, and succeed if the directory exists."""
    layout: Layout | None = None
    user: User = User()
    relaxed: bool = False
    """As in `Create`."""
    unmasked: int | None = None
    """`mode` before the umask, for a directory that hands down an access control list; None: the same."""


class Readdir(msgspec.Struct, frozen=True, array_like=True):
    """One page, in byte order of names. `.` and `..` are not listed."""

    inode: Number
    after: Place = b""
    """Last name of the page before; empty: from the start."""
    limit: Number = 1024
    with_attributes: bool = False
    """Where the user may search the directory."""
    user: User = User()


class DirectoryEntry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    name: bytes
    inode: Number
    type: FileType
    attributes: Attributes | None = None


class ReaddirReply(msgspec.Struct, frozen=True, array_like=True):
    entries: list[DirectoryEntry]
    more: bool
    promised: int = 0
    """`Promised`: of the attributes of all entries, of the names."""


class Unlink(msgspec.Struct, frozen=True, array_like=True):
    at: Number
    path: bytes
    request: Identifier
    user: User = User()
    relaxed: bool = False
    """As in `Create`."""


class Rmdir(msgspec.Struct, frozen=True, array_like=True):
    at: Number
    path: bytes
    request: Identifier
    user: User = User()
    relaxed: bool = False
    """As in `Create`."""


class RemoveTree(msgspec.Struct, frozen=True, array_like=True):
    """Detach a file or a whole tree in one transaction; the collector frees it afterwards."""

    at: Number
    path: bytes
    request: Identifier
    user: User = User()
    relaxed: bool = False
    """As in `Create`."""


class RenameFlags(enum.IntFlag):
    NONE = 0
    NO_REPLACE = 1
    EXCHANGE = 2
    WHITEOUT = 4
    """In the place of what moves a white-out is left: a character device 0:0, which hides a name of a layer below."""


class Rename(msgspec.Struct, frozen=True, array_like=True):
    at: Number
    path: bytes
    new_at: Number
    new_path: bytes
    request: Identifier
    flags: int = 0
    """`RenameFlags`"""
    user: User = User()
    relaxed: bool = False
    """As in `Create`."""


class Symlink(msgspec.Struct, frozen=True, array_like=True):
    at: Number
    path: bytes
    target: bytes
    request: Identifier
    user: User = User()
    relaxed: bool = False
    """As in `Create`."""


class Readlink(msgspec.Struct, frozen=True, array_like=True):
    at: Number
    path: bytes
    user: User = User()


class ReadlinkReply(msgspec.Struct, frozen=True, array_like=True):
    target: bytes


class Link(msgspec.Struct, frozen=True, array_like=True):
    """A second name for a file (not for a directory)."""

    at: Number
    path: bytes
    new_at: Number
    new_path: bytes
    request: Identifier
    user: User = User()
    relaxed: bool = False
    """As in `Create`."""


class SetAttr(msgspec.Struct, frozen=True, array_like=True):
    """Change what is not None. By path, or by inode when `path` is empty."""

    at: Number
    path: bytes
    request: Identifier
    mode: int | None = None
    uid: UserNumber | None = None
    gid: UserNumber | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None
    layout: Layout | None = None
    """Directories only: for children made from now on."""
    follow: bool = True
    user: User = User()
    atime_now: bool = False
    """Set it to the service's clock: also allowed to who may write, not only to the owner."""
    mtime_now: bool = False
    flags: int | None = None
    """`InodeFlags`"""
    relaxed: bool = False
    """As in `Create`."""


class Truncate(msgspec.Struct, frozen=True, array_like=True):
    """Set a file's length. The service cuts the chunks on the storage daemons before it answers."""

    inode: Number
    length: Number
    request: Identifier
    user: User = User()
    session: Identifier = b""
    """Of an open for writing, whose right was checked then; empty: the user must have the right to write."""
    relaxed: bool = False
    """As in `Create`."""


class RealPath(msgspec.Struct, frozen=True, array_like=True):
    inode: Number
    user: User = User()
    """Must be able to walk there."""


class RealPathReply(msgspec.Struct, frozen=True, array_like=True):
    path: bytes


class Usage(msgspec.Struct, frozen=True, array_like=True):
    """Count what is below a directory, by the server."""

    inode: Number
    user: User = User()


class UsageReply(msgspec.Struct, frozen=True, array_like=True):
    files: int
    directories: int
    symlinks: int
    total_bytes: int
    specials: int = 0
    """Fifos, sockets and devices."""
    unreadable: int = 0
    """Directories that the user may not list: what is below them is not counted."""


class Access(msgspec.Struct, frozen=True, array_like=True):
    """May the user do this (access(2))? Answered by attributes or ACCESS_DENIED."""

    inode: Number
    mask: int
    """`os.R_OK | os.W_OK | os.X_OK`; 0: it exists."""
    user: User = User()


class Mknod(msgspec.Struct, frozen=True, array_like=True):
    """Make a name that is not opened: a regular file, fifo, socket or device."""

    at: Number
    path: bytes
    type: FileType
    mode: int
    request: Identifier
    device: Number = 0
    layout: Layout | None = None
    """Regular files only; None: inherited."""
    user: User = User()
    relaxed: bool = False
    """As in `Create`."""
    unmasked: int | None = None
    """`mode` before the umask, for a directory that hands down an access control list; None: the same."""


class CreateUnnamed(msgspec.Struct, frozen=True, array_like=True):
    """Make a file without a name (O_TMPFILE), opened for writing. It goes with its session unless `Link` names it."""

    directory: Number
    """Where it would be: its layout and group."""
    mode: int
    request: Identifier
    client: Identifier
    linkable: bool = True
    """False (O_EXCL): it can never get a name."""
    user: User = User()
    relaxed: bool = False
    """As in `Create`."""
    unmasked: int | None = None
    """`mode` before the umask, for a directory that hands down an access control list; None: the same."""


class XattrFlags(enum.IntFlag):
    """As in setxattr(2)."""

    NONE = 0
    CREATE = 1
    """It must not exist."""
    REPLACE = 2
    """It must exist."""


class GetXattr(msgspec.Struct, frozen=True, array_like=True):
    inode: Number
    name: bytes
    user: User = User()


class XattrReply(msgspec.Struct, frozen=True, array_like=True):
    value: bytes


class ListXattrs(msgspec.Struct, frozen=True, array_like=True):
    inode: Number
    user: User = User()


class ListXattrsReply(msgspec.Struct, frozen=True, array_like=True):
    names: list[bytes]
    """In byte order; those that the user may see."""


class SetXattr(msgspec.Struct, frozen=True, array_like=True):
    inode: Number
    name: bytes
    value: bytes
    request: Identifier
    flags: int = 0
    """`XattrFlags`"""
    user: User = User()
    relaxed: bool = False
    """As in `Create`."""


class RemoveXattr(msgspec.Struct, frozen=True, array_like=True):
    inode: Number
    name: bytes
    request: Identifier
    user: User = User()
    relaxed: bool = False
    """As in `Create`."""


class Sync(msgspec.Struct, frozen=True, array_like=True):
    """Answered once everything that was answered before is durable."""


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """Whether the contents of files are kept: what tells a hole from a chunk that went with its file."""

    inodes: list[Number]
    """At most `limits.BATCH_NAMES_MAX`."""


class KeptReply(msgspec.Struct, frozen=True, array_like=True):
    for_ms: list[int]
    """For each: its chunks are all there, and stay for so long from now on, at least; -1: it is gone, or chunks of it
    may be."""
