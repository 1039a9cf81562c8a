"""The only encoder of the namespace's keys and values in the metadata store.

Keys: one prefix byte, then big-endian fields, so that the order of bytes is the order of numbers and everything that
is read together lies together. Values: one version byte, then msgpack (an array of the record's fields in the order
declared here). A field is only ever appended, with a default, under the same version byte; any other change is a new
version byte and a new `SCHEMA_VERSION`.

| table            | key                                          | value                              |
| ---------------- | -------------------------------------------- | ---------------------------------- |
| format           | "F"                                          | Format: what this store is          |
| inode            | "I" inode:8                                  | Inode: one for each object          |
| directory entry  | "D" parent:8 name:1..255                     | Entry: one name in one directory    |
| session          | "S" inode:8 session:16                       | Session: one open that keeps a file |
| pruned session   | "P" session:16                               | Pruned: what a dead client had open |
| extended attr.   | "A" inode:8 name:1..255                      | Xattr                               |
| locks            | "L" inode:8                                  | Locks: all on one file              |
| answered request | "R" request:16                               | Answer: what a retry is told        |
| request age      | "X" time_ns:8 request:16                     | (empty): answered requests by age   |
| collection queue | "G" due_ns:8 inode:8                         | Garbage: what to free, and when     |
| inode counter    | "N"                                          | Counter: the next inode id          |
| inodes in use    | "C"                                          | Counter: approximate, for `statfs`  |
| followed         | "W"                                          | Counter: clients may hold promises  |
| service time     | "T"                                          | Counter: ns, as it was last kept    |
| delay promised   | "K"                                          | Counter: ns files are kept, at most |

Keys that begin with the byte 2 belong to the cluster manager. Names are raw bytes without "/" and NUL.

Invariants (checked by `fs_meta.fsck`):
* the root is inode 1, a directory, parent of itself, in no entry;
* every entry's child exists and has the entry's type; `links` of anything but a directory is the number of its entries;
* a directory is in exactly one entry, which is the one its `parent` and `name` say; `links` is 2 + subdirectories;
* an inode with `links` 0 is a file with a session or a queue entry, or a detached directory (parent 0) with a queue
  entry; an unnamed file has `links` 0;
* a file that is queued, and no other inode, has the service time from which its chunks may be gone (`due_ns`);
* files and directories alone have a layout and flags, symbolic links alone a target, devices alone a device number;
* extended attributes, locks and sessions belong to an inode that exists;
* the next inode id is above every inode.
"""

import struct
from typing import Any, Final, TypeVar

import msgspec

from fs_common.ids import InodeId
from fs_common.layout import Layout
from fs_common.records.meta import FileType, User

SCHEMA_VERSION: Final = 1
"""In the format record; a store of another version is refused."""

USER_FLAGS: Final = 2**32 - 1
"""Bits of `Inode.flags` that are `InodeFlags`; those above are the service's own and never leave it."""
UNNAMED: Final = 1 << 32
"""In `Inode.flags`: a file made without a name that has none yet."""
LINKABLE: Final = 1 << 33
"""In `Inode.flags`: an unnamed file that may get its first name."""
WRITTEN: Final = 1 << 34
"""In `Inode.flags`: a file that was open for writing once, so it may have chunks."""
SPARSE: Final = 1 << 35
"""In `Inode.flags`: chunks may be missing before its end (`Attributes.sparse`); until it is cut to nothing."""
CAPABLE: Final = 1 << 36
"""In `Inode.flags`: it may have file capabilities, an extended attribute."""

_T = TypeVar("_T")


class CorruptRecord(Exception):
    """A key or value of the store is not what this schema writes. The message names the table and the field."""


# Values


class Format(msgspec.Struct, frozen=True, array_like=True):
    """What the store is; written once, in the transaction that makes the root."""

    cluster: str
    schema: int
    """`SCHEMA_VERSION` of the writer."""
    created_ns: int
    uuid: bytes = b""
    """Of the cluster: 16 random bytes, made once with the store. b"": of a release without; the next start adds it."""


class Inode(msgspec.Struct, array_like=True, gc=False):
    """A file, directory, symbolic link, fifo, socket or device. Its id is in the key.

    Not frozen: a transaction decodes its own copy, changes fields and puts it back (a copy for each changed field
    would cost ten times the assignment, on the hottest path there is).
    """

    type: FileType
    mode: int
    """Permission bits, 0 .. 0o7777."""
    uid: int
    gid: int
    links: int
    """Names of it; for a directory 2 + subdirectories, 0 once it is removed or detached."""
    length: int
    """Bytes of a file, a symbolic link's target; 0 for a directory. Never above what was acknowledged or set."""
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    btime_ns: int
    layout: Layout | None
    """File: where its chunks are. Directory: what children inherit. None for everything else."""
    truncate_version: int = 0
    """Grows with every truncate, so that an older length hint is recognised."""
    parent: int = 0
    """Directories: the directory it is in (root: itself); 0 once detached."""
    name: bytes = b""
    """Directories: its name there; empty for the root."""
    target: bytes = b""
    """Symbolic links."""
    flags: int = 0
    """`InodeFlags` in the bits of `USER_FLAGS`; `UNNAMED`, `LINKABLE`, `WRITTEN`, `SPARSE`, `CAPABLE`."""
    device: int = 0
    """Devices only."""
    version: int = 0
    """Of the contents: grows with every change of bytes, length or entries."""
    due_ns: int = 0
    """Files that are queued for collection: from when on, in the service's time, chunks may be missing. Else 0."""
    acl: bytes = b""
    """Access control list (`fs_meta.acl`) where it says more than the mode; empty: none."""
    default_acl: bytes = b""
    """Directories: the one for what is made in them; empty: none."""


class InodeHead(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The first fields of an `Inode`: all that a walk through a directory has to know, read without the rest."""

    type: FileType
    mode: int
    uid: int
    gid: int


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A name in a directory."""

    inode: int
    type: FileType
    request: bytes = b""
    """The request that made it; for looking into histories."""


class Session(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A file open for writing, or held. While it exists the file's chunks outlive an unlink."""

    client: bytes
    opened_ns: int
    """The wall clock's, for people."""
    write: bool = True
    """False: it only holds the contents, for readers."""
    append: bool = False
    """It may only append."""


class Pruned(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A session that was ended because its client was taken for dead. If it was not, it has the session again."""

    client: bytes
    inode: int
    pruned_ns: int
    """The service's time."""
    session: Session


class Xattr(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An extended attribute."""

    value: bytes


class HeldLock(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One lock of one owner on a file."""

    kind: int
    """`LockKind`"""
    type: int
    """`LockType`, SHARED or EXCLUSIVE"""
    client: bytes
    owner: int
    start: int
    end: int
    """The last byte, inclusive."""
    process: int


class Locks(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """All locks on a file; no record where there are none."""

    held: list[HeldLock]
    """Ordered by kind, client, owner, start; those of one owner and kind do not overlap."""


class Answer(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The outcome of a mutating request, written in the transaction that applied it."""

    method: int
    """Number of the method; a request id used for another method is a caller's bug."""
    time_ns: int
    """The service's; where its age entry is."""
    error: int = 0
    """Number in the error table; 0: it succeeded."""
    message: str = ""
    body: bytes = b""
    """The encoded response of a success."""


class Garbage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Something without a name that has to be freed."""

    type: FileType
    """FILE: its chunks, then its inode. DIRECTORY: its entries, then its inode."""
    removed_ns: int
    """The wall clock's, for people."""
    attempts: int = 0
    """How often freeing failed."""
    user: User = User()
    """Directories: who removed the tree, and may remove of it what he could remove name by name."""
    path: bytes = b""
    """Directories: where it was, for whoever looks for what could not be removed."""


class Counter(msgspec.Struct, frozen=True, array_like=True, gc=False):
    value: int


_VERSION = b"\x01"
_VERSION_BYTE = 1
_encode = msgspec.msgpack.Encoder().encode


def encode(record: Format | Inode | Entry | Session | Pruned | Xattr | Locks | Answer | Garbage | Counter) -> bytes:
    """The value of any record of this schema."""
    return _VERSION + _encode(record)


def _decode(table: str, decoder: msgspec.msgpack.Decoder[_T], value: bytes) -> _T:
    try:
        if value[0] != _VERSION_BYTE:
            raise CorruptRecord(f"{table}: version byte {value[0]}, this program knows {_VERSION_BYTE}")
        return decoder.decode(value[1:])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CorruptRecord(f"{table}: {error}") from error
    except IndexError:
        raise CorruptRecord(f"{table}: an empty value") from None


_FORMAT = msgspec.msgpack.Decoder(Format)
_INODE = msgspec.msgpack.Decoder(Inode)
_INODE_HEAD = msgspec.msgpack.Decoder(InodeHead)
_ENTRY = msgspec.msgpack.Decoder(Entry)
_SESSION = msgspec.msgpack.Decoder(Session)
_PRUNED = msgspec.msgpack.Decoder(Pruned)
_XATTR = msgspec.msgpack.Decoder(Xattr)
_LOCKS = msgspec.msgpack.Decoder(Locks)
_ANSWER = msgspec.msgpack.Decoder(Answer)
_GARBAGE = msgspec.msgpack.Decoder(Garbage)
_COUNTER = msgspec.msgpack.Decoder(Counter)


def decode_format(value: bytes) -> Format:
    return _decode("format", _FORMAT, value)


def decode_inode(value: bytes) -> Inode:
    return _decode("inode", _INODE, value)


def decode_inode_head(value: bytes) -> InodeHead:
    return _decode("inode", _INODE_HEAD, value)


def decode_entry(value: bytes) -> Entry:
    return _decode("directory entry", _ENTRY, value)


def decode_session(value: bytes) -> Session:
    return _decode("session", _SESSION, value)


def decode_pruned(value: bytes) -> Pruned:
    return _decode("pruned session", _PRUNED, value)


def decode_xattr(value: bytes) -> Xattr:
    return _decode("extended attribute", _XATTR, value)


def decode_locks(value: bytes) -> Locks:
    return _decode("locks", _LOCKS, value)


def decode_answer(value: bytes) -> Answer:
    return _decode("answered request", _ANSWER, value)


def decode_garbage(value: bytes) -> Garbage:
    return _decode("collection queue", _GARBAGE, value)


def decode_counter(value: bytes) -> Counter:
    return _decode("counter", _COUNTER, value)


# Keys

FORMAT_KEY: Final = b"F"
NEXT_INODE_KEY: Final = b"N"
INODES_IN_USE_KEY: Final = b"C"
SERVICE_TIME_KEY: Final = b"T"
DELAY_PROMISED_KEY: Final = b"K"
"""Both: `fs_meta.service_time`."""
FOLLOWED_KEY: Final = b"W"
"""There once it may matter that clients hold promises (`fs_meta.following`); a counter that means nothing."""

_pack_id = struct.Struct(">cQ").pack
_pack_two = struct.Struct(">cQQ").pack
_PREFIXED = struct.Struct(">cQ")
_QUEUE = struct.Struct(">cQQ")
_AGE = struct.Struct(">cQ16s")

NAMESPACE_PREFIXES: Final = b"FIDSPALRXGNCWTK"
"""First bytes of all keys of this schema."""


def inode_key(inode: int) -> bytes:
    return _pack_id(b"I", inode)


def entry_key(parent: int, name: bytes) -> bytes:
    return _pack_id(b"D", parent) + name


def entries_range(parent: int, after: bytes = b"") -> tuple[bytes, bytes]:
    """Begin and end of a directory's entries; with `after`, of those whose name sorts behind it."""
    begin = _pack_id(b"D", parent)
    return (begin + after + b"\0" if after else begin), _pack_id(b"D", parent + 1)


def session_key(inode: int, session: bytes) -> bytes:
    return _pack_id(b"S", inode) + session


def sessions_range(inode: int) -> tuple[bytes, bytes]:
    return _pack_id(b"S", inode), _pack_id(b"S", inode + 1)


def all_sessions_range(after: bytes = b"") -> tuple[bytes, bytes]:
    """Begin and end of the sessions of all files; `after`: behind this key."""
    return (after + b"\0" if after else b"S"), b"T"


def pruned_key(session: bytes) -> bytes:
    return b"P" + session


def all_pruned_range(after: bytes = b"") -> tuple[bytes, bytes]:
    """Begin and end of the pruned sessions; `after`: behind this key."""
    return (after + b"\0" if after else b"P"), b"Q"


def xattr_key(inode: int, name: bytes) -> bytes:
    return _pack_id(b"A", inode) + name


def xattrs_range(inode: int) -> tuple[bytes, bytes]:
    return _pack_id(b"A", inode), _pack_id(b"A", inode + 1)


def locks_key(inode: int) -> bytes:
    return _pack_id(b"L", inode)


def all_locks_range(after: bytes = b"") -> tuple[bytes, bytes]:
    """Begin and end of the locks on all files; `after`: behind this key."""
    return (after + b"\0" if after else b"L"), b"M"


def answer_key(request: bytes) -> bytes:
    return b"R" + request


def age_key(time_ns: int, request: bytes) -> bytes:
    return _AGE.pack(b"X", time_ns, request)


def ages_range(before_ns: int) -> tuple[bytes, bytes]:
    """Requests answered before a time, oldest first."""
    return b"X", _pack_id(b"X", before_ns)


def all_ages_range() -> tuple[bytes, bytes]:
    return b"X", b"Y"


def garbage_key(due_ns: int, inode: int) -> bytes:
    return _pack_two(b"G", due_ns, inode)


def garbage_range(until_ns: int) -> tuple[bytes, bytes]:
    """Queue entries due at a time (inclusive), the longest due first."""
    return b"G", _pack_id(b"G", until_ns + 1)


def all_garbage_range() -> tuple[bytes, bytes]:
    return b"G", b"H"


def _unpack(table: str, form: struct.Struct, prefix: bytes, key: bytes) -> tuple[Any, ...]:
    if len(key) != form.size or key[:1] != prefix:
        raise CorruptRecord(f"{table}: key {key.hex()} has {len(key)} bytes, not {form.size} after {prefix!r}")
    return form.unpack(key)[1:]


def split_inode_key(key: bytes) -> InodeId:
    return InodeId(_unpack("inode", _PREFIXED, b"I", key)[0])


def split_entry_key(key: bytes) -> tuple[InodeId, bytes]:
    """(parent, name)"""
    name = key[_PREFIXED.size :]
    if not 1 <= len(name) <= 255 or b"/" in name or b"\0" in name:
        raise CorruptRecord(f"directory entry: key {key.hex()} holds no name of 1 to 255 bytes")
    return InodeId(_unpack("directory entry", _PREFIXED, b"D", key[: _PREFIXED.size])[0]), name


def split_session_key(key: bytes) -> tuple[InodeId, bytes]:
    """(inode, session)"""
    inode, session = _unpack("session", struct.Struct(">cQ16s"), b"S", key)
    return InodeId(inode), session


def split_pruned_key(key: bytes) -> bytes:
    """The session."""
    return bytes(_unpack("pruned session", struct.Struct(">c16s"), b"P", key)[0])


def split_xattr_key(key: bytes) -> tuple[InodeId, bytes]:
    """(inode, name)"""
    name = key[_PREFIXED.size :]
    if not 1 <= len(name) <= 255 or b"\0" in name:
        raise CorruptRecord(f"extended attribute: key {key.hex()} holds no name of 1 to 255 bytes")
    return InodeId(_unpack("extended attribute", _PREFIXED, b"A", key[: _PREFIXED.size])[0]), name


def split_locks_key(key: bytes) -> InodeId:
    return InodeId(_unpack("locks", _PREFIXED, b"L", key)[0])


def split_answer_key(key: bytes) -> bytes:
    """The request id."""
    return bytes(_unpack("answered request", struct.Struct(">c16s"), b"R", key)[0])


def split_age_key(key: bytes) -> tuple[int, bytes]:
    """(time_ns, request)"""
    time_ns, request = _unpack("request age", _AGE, b"X", key)
    return time_ns, request


def split_garbage_key(key: bytes) -> tuple[int, InodeId]:
    """(due_ns, inode)"""
    due_ns, inode = _unpack("collection queue", _QUEUE, b"G", key)
    return due_ns, InodeId(inode)
