"""Requests of the kernel, from bytes to values.

A parser takes a request's body: what follows the header, without a WRITE's data and without extensions. It gives a
typed value or raises `ProtocolError` with the name of the bad field. Bytes behind a structure that has no names or
data after it are left alone: a newer kernel may know more fields.

Names are any bytes but `/` and NUL.

Pure. Layouts: `abi`.
"""

import struct
from typing import Any, NamedTuple

from fs_client.fuse import abi
from fs_client.fuse.abi import Layout

Body = bytes | bytearray | memoryview
_SECOND = 1_000_000_000
TIME_NS_MIN, TIME_NS_MAX = -(2**63), 2**63 - 1


_new = tuple.__new__
"""Makes a named tuple of a tuple without a call of Python code: half the time, for what comes most often."""


class ProtocolError(Exception):
    """Bytes that are no message of this protocol. `field` is what is wrong with them."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"bad FUSE message: {field}: {message}")
        self.field = field


class Header(NamedTuple):
    len: int
    """Bytes of the whole message."""
    opcode: int
    unique: int
    nodeid: int
    uid: int
    gid: int
    pid: int
    total_extlen: int
    """Extensions at the end, in units of 8 bytes."""


class GetAttr(NamedTuple):
    getattr_flags: int
    fh: int
    """Valid with `GETATTR_FH`."""


class Statx(NamedTuple):
    getattr_flags: int
    fh: int
    sx_flags: int
    sx_mask: int


def _nanoseconds(seconds: int, nsec: int) -> int:
    """Since 1970. The kernel's seconds reach farther than times are kept (1677 to 2262): the nearest that is kept, as
    Linux does on file systems of its own."""
    return min(max(seconds * _SECOND + nsec, TIME_NS_MIN), TIME_NS_MAX)


class SetAttr(NamedTuple):
    valid: int
    """`FATTR_*`: which of the others count."""
    fh: int
    size: int
    lock_owner: int
    atime: int
    mtime: int
    ctime: int
    atimensec: int
    mtimensec: int
    ctimensec: int
    mode: int
    uid: int
    gid: int

    @property
    def atime_ns(self) -> int:
        return _nanoseconds(self.atime, self.atimensec)

    @property
    def mtime_ns(self) -> int:
        return _nanoseconds(self.mtime, self.mtimensec)

    @property
    def ctime_ns(self) -> int:
        return _nanoseconds(self.ctime, self.ctimensec)


class Symlink(NamedTuple):
    name: bytes
    target: bytes


class MkNod(NamedTuple):
    mode: int
    """Type and permission bits; with DONT_MASK the umask is still to be applied."""
    rdev: int
    """As `os.makedev` gives it, in 32 bits."""
    umask: int
    name: bytes


class MkDir(NamedTuple):
    mode: int
    umask: int
    name: bytes


class Rename2(NamedTuple):
    newdir: int
    flags: int
    """`RENAME_NOREPLACE` 1, `RENAME_EXCHANGE` 2, `RENAME_WHITEOUT` 4; 0 from a plain RENAME."""
    old: bytes
    new: bytes


class Link(NamedTuple):
    oldnodeid: int
    name: bytes


class Open(NamedTuple):
    flags: int
    """`O_*`."""
    open_flags: int
    """`OPEN_KILL_SUIDGID`."""


class Create(NamedTuple):
    flags: int
    mode: int
    umask: int
    open_flags: int
    name: bytes
    """For TMPFILE a word that names nothing."""


class Release(NamedTuple):
    fh: int
    flags: int
    release_flags: int
    """`RELEASE_FLUSH`, `RELEASE_FLOCK_UNLOCK`."""
    lock_owner: int


class Flush(NamedTuple):
    fh: int
    lock_owner: int


class Read(NamedTuple):
    """Of a file or a directory."""

    fh: int
    offset: int
    size: int
    read_flags: int
    lock_owner: int
    """Valid with `READ_LOCKOWNER`."""
    flags: int
    """`O_*` of the open file."""


class Write(NamedTuple):
    fh: int
    offset: int
    size: int
    write_flags: int
    lock_owner: int
    """Valid with `WRITE_LOCKOWNER`."""
    flags: int


class Fsync(NamedTuple):
    fh: int
    fsync_flags: int
    """`FSYNC_FDATASYNC`."""


class SetXattr(NamedTuple):
    flags: int
    """`XATTR_CREATE` 1, `XATTR_REPLACE` 2."""
    setxattr_flags: int
    name: bytes
    value: bytes


class GetXattr(NamedTuple):
    size: int
    """Room for the value; 0: only its size is asked for."""
    name: bytes


class Lock(NamedTuple):
    fh: int
    owner: int
    start: int
    end: int
    """The last byte, inclusive; 2**63 - 1 is "to the end of the file, wherever that is"."""
    type: int
    """`F_RDLCK` 0, `F_WRLCK` 1, `F_UNLCK` 2."""
    pid: int
    lk_flags: int
    """`LK_FLOCK`."""


class Init(NamedTuple):
    major: int
    minor: int
    max_readahead: int
    flags: int
    """All 64 bits."""


class Bmap(NamedTuple):
    block: int
    blocksize: int


class Ioctl(NamedTuple):
    fh: int
    flags: int
    cmd: int
    arg: int
    in_size: int
    out_size: int
    """Room for the answer's data."""
    data: bytes


class Poll(NamedTuple):
    fh: int
    kh: int
    flags: int
    events: int


class Fallocate(NamedTuple):
    fh: int
    offset: int
    length: int
    mode: int
    """`FALLOC_FL_*`."""


class Lseek(NamedTuple):
    fh: int
    offset: int
    whence: int


class CopyFileRange(NamedTuple):
    fh_in: int
    off_in: int
    nodeid_out: int
    fh_out: int
    off_out: int
    len: int
    flags: int


class Retrieved(NamedTuple):
    """A NOTIFY_REPLY: pages the kernel was asked for; their bytes come as the request's data."""

    offset: int
    size: int


class ForgetOne(NamedTuple):
    nodeid: int
    nlookup: int


def parse_header(buffer: Body) -> Header:
    """The header of a whole message. Raises `ProtocolError` also if the message is not as long as it says."""
    header = Header(*_unpack(abi.IN_HEADER, buffer))
    if header.len != len(buffer):
        raise ProtocolError("len", f"the message says {header.len} bytes and has {len(buffer)}")
    if header.total_extlen * 8 > header.len - abi.IN_HEADER.size:
        raise ProtocolError("total_extlen", f"{header.total_extlen * 8} bytes of extensions in {header.len}")
    return header


def parse_lookup(body: Body) -> bytes:
    """The name."""
    return _names(body, 0, "name")[0]


def parse_forget(body: Body) -> int:
    """How many look-ups are forgotten."""
    count: int = _unpack(abi.FORGET_IN, body)[0]
    return count


def parse_batch_forget(body: Body) -> list[ForgetOne]:
    (count,) = _unpack(abi.BATCH_FORGET_IN, body)
    entries = memoryview(body)[abi.BATCH_FORGET_IN.size :]
    if len(entries) != count * abi.FORGET_ONE.size:
        raise ProtocolError("count", f"{count} entries do not fill {len(entries)} bytes")
    return [ForgetOne(*entry) for entry in abi.FORGET_ONE.iter_unpack(entries)]


def parse_getattr(body: Body) -> GetAttr:
    return GetAttr(*_unpack(abi.GETATTR_IN, body))


def parse_statx(body: Body) -> Statx:
    return Statx(*_unpack(abi.STATX_IN, body))


def parse_setattr(body: Body) -> SetAttr:
    return SetAttr(*_unpack(abi.SETATTR_IN, body))


def parse_symlink(body: Body) -> Symlink:
    return Symlink(*_names(body, 0, "name", "target"))


def parse_mknod(body: Body) -> MkNod:
    return MkNod(*_unpack(abi.MKNOD_IN, body), *_names(body, abi.MKNOD_IN.size, "name"))


def parse_mkdir(body: Body) -> MkDir:
    return MkDir(*_unpack(abi.MKDIR_IN, body), *_names(body, abi.MKDIR_IN.size, "name"))


def parse_unlink(body: Body) -> bytes:
    return _names(body, 0, "name")[0]


def parse_rmdir(body: Body) -> bytes:
    return _names(body, 0, "name")[0]


def parse_rename(body: Body) -> Rename2:
    (newdir,) = _unpack(abi.RENAME_IN, body)
    return Rename2(newdir, 0, *_names(body, abi.RENAME_IN.size, "old", "new"))


def parse_rename2(body: Body) -> Rename2:
    return Rename2(*_unpack(abi.RENAME2_IN, body), *_names(body, abi.RENAME2_IN.size, "old", "new"))


def parse_link(body: Body) -> Link:
    return Link(*_unpack(abi.LINK_IN, body), *_names(body, abi.LINK_IN.size, "name"))


def parse_open(body: Body) -> Open:
    """OPEN and OPENDIR."""
    return Open(*_unpack(abi.OPEN_IN, body))


def parse_create(body: Body) -> Create:
    """CREATE and TMPFILE."""
    return Create(*_unpack(abi.CREATE_IN, body), *_names(body, abi.CREATE_IN.size, "name"))


def parse_release(body: Body) -> Release:
    """RELEASE and RELEASEDIR."""
    return Release(*_unpack(abi.RELEASE_IN, body))


def parse_flush(body: Body) -> Flush:
    return Flush(*_unpack(abi.FLUSH_IN, body))


def parse_read(body: Body) -> Read:
    """READ, READDIR and READDIRPLUS."""
    try:
        return _new(Read, abi.READ_IN.unpack_from(body))
    except struct.error:
        raise _too_short(abi.READ_IN, body) from None


def parse_write(body: Body) -> Write:
    try:
        return _new(Write, abi.WRITE_IN.unpack_from(body))
    except struct.error:
        raise _too_short(abi.WRITE_IN, body) from None


def parse_fsync(body: Body) -> Fsync:
    """FSYNC and FSYNCDIR."""
    return Fsync(*_unpack(abi.FSYNC_IN, body))


def parse_setxattr(body: Body, *, extended: bool) -> SetXattr:
    """`extended`: SETXATTR_EXT was negotiated."""
    if extended:
        layout = abi.SETXATTR_IN
        size, flags, setxattr_flags = _unpack(layout, body)
    else:
        layout = abi.SETXATTR_IN_SHORT
        size, flags = _unpack(layout, body)
        setxattr_flags = 0
    name, nul, value = bytes(body[layout.size :]).partition(b"\0")
    if not name:
        raise ProtocolError("name", "it is empty")
    if not nul:
        raise ProtocolError("name", "it has no end")
    if len(value) != size:
        raise ProtocolError("size", f"a value of {size} bytes is announced and {len(value)} came")
    return SetXattr(flags, setxattr_flags, name, value)


def parse_getxattr(body: Body) -> GetXattr:
    return GetXattr(*_unpack(abi.GETXATTR_IN, body), *_names(body, abi.GETXATTR_IN.size, "name"))


def parse_listxattr(body: Body) -> int:
    """Room for the list; 0: only its size is asked for."""
    size: int = _unpack(abi.GETXATTR_IN, body)[0]
    return size


def parse_removexattr(body: Body) -> bytes:
    return _names(body, 0, "name")[0]


def parse_lock(body: Body) -> Lock:
    """GETLK, SETLK and SETLKW."""
    return Lock(*_unpack(abi.LK_IN, body))


def parse_access(body: Body) -> int:
    """The mask: `R_OK` 4, `W_OK` 2, `X_OK` 1."""
    mask: int = _unpack(abi.ACCESS_IN, body)[0]
    return mask


def parse_init(body: Body) -> Init:
    if len(body) < abi.INIT_IN.size:
        return Init(*_unpack(abi.INIT_IN_SHORT, body))
    major, minor, max_readahead, flags, flags2 = _unpack(abi.INIT_IN, body)
    if flags & abi.INIT_INIT_EXT:
        flags |= flags2 << 32
    return Init(major, minor, max_readahead, flags)


def parse_interrupt(body: Body) -> int:
    """`unique` of the request that is not waited for any more."""
    unique: int = _unpack(abi.INTERRUPT_IN, body)[0]
    return unique


def parse_bmap(body: Body) -> Bmap:
    return Bmap(*_unpack(abi.BMAP_IN, body))


def parse_ioctl(body: Body) -> Ioctl:
    fh, flags, cmd, arg, in_size, out_size = _unpack(abi.IOCTL_IN, body)
    data = bytes(body[abi.IOCTL_IN.size :])
    if len(data) != in_size:
        raise ProtocolError("in_size", f"{in_size} bytes are announced and {len(data)} came")
    return Ioctl(fh, flags, cmd, arg, in_size, out_size, data)


def parse_poll(body: Body) -> Poll:
    return Poll(*_unpack(abi.POLL_IN, body))


def parse_fallocate(body: Body) -> Fallocate:
    return Fallocate(*_unpack(abi.FALLOCATE_IN, body))


def parse_lseek(body: Body) -> Lseek:
    return Lseek(*_unpack(abi.LSEEK_IN, body))


def parse_copy_file_range(body: Body) -> CopyFileRange:
    """COPY_FILE_RANGE and COPY_FILE_RANGE_64."""
    return CopyFileRange(*_unpack(abi.COPY_FILE_RANGE_IN, body))


def parse_retrieved(body: Body) -> Retrieved:
    return Retrieved(*_unpack(abi.NOTIFY_RETRIEVE_IN, body))


def parse_nothing(body: Body) -> None:
    """READLINK, STATFS, SYNCFS, DESTROY: the node says it all."""


def parse_groups(extensions: Body) -> tuple[int, ...]:
    """Groups of the caller that the kernel sent along, from a message's extensions. Raises `ProtocolError`."""
    groups: tuple[int, ...] = ()
    position = 0
    while position < len(extensions):
        rest = memoryview(extensions)[position:]
        size, kind = _unpack(abi.EXT_HEADER, rest)
        if not abi.EXT_HEADER.size <= size <= len(rest):
            raise ProtocolError("extension size", f"{size} bytes of the {len(rest)} that are left")
        if kind == abi.EXT_GROUPS:
            content = rest[abi.EXT_HEADER.size : size]
            (count,) = _unpack(abi.SUPP_GROUPS, content)
            numbers = content[abi.SUPP_GROUPS.size :]
            if count * 4 > len(numbers):
                raise ProtocolError("nr_groups", f"{count} groups do not fit {len(numbers)} bytes")
            groups += struct.unpack_from(f"={count}I", numbers)
        position += (size + 7) & ~7
    return groups


def _unpack(layout: Layout, body: Body) -> tuple[Any, ...]:
    try:
        return layout.unpack_from(body)
    except struct.error:
        raise _too_short(layout, body) from None


def _too_short(layout: Layout, body: Body) -> ProtocolError:
    return ProtocolError(layout.field_at(len(body)), f"{layout.name} of {layout.size} bytes is cut after {len(body)}")


def _names(body: Body, start: int, *fields: str) -> list[bytes]:
    """The names at the end of a body, each with its NUL, as many as `fields`."""
    names = bytes(body[start:]).split(b"\0")
    for field, name in zip(fields, names, strict=False):
        if not name:
            raise ProtocolError(field, "it is empty")
    if len(names) <= len(fields):
        raise ProtocolError(fields[len(names) - 1], "it has no end")
    if len(names) > len(fields) + 1 or names[-1]:
        raise ProtocolError(fields[-1], "bytes follow its end")
    del names[-1]
    return names


# A typed request has the fields of its structure, in order, then what follows it.
for _kind, _layout, *_more in (
    (Header, abi.IN_HEADER),
    (GetAttr, abi.GETATTR_IN),
    (Statx, abi.STATX_IN),
    (SetAttr, abi.SETATTR_IN),
    (MkNod, abi.MKNOD_IN, "name"),
    (MkDir, abi.MKDIR_IN, "name"),
    (Rename2, abi.RENAME2_IN, "old", "new"),
    (Link, abi.LINK_IN, "name"),
    (Open, abi.OPEN_IN),
    (Create, abi.CREATE_IN, "name"),
    (Release, abi.RELEASE_IN),
    (Flush, abi.FLUSH_IN),
    (Read, abi.READ_IN),
    (Write, abi.WRITE_IN),
    (Fsync, abi.FSYNC_IN),
    (GetXattr, abi.GETXATTR_IN, "name"),
    (Lock, abi.LK_IN),
    (Init, abi.INIT_IN_SHORT),
    (Bmap, abi.BMAP_IN),
    (Ioctl, abi.IOCTL_IN, "data"),
    (Poll, abi.POLL_IN),
    (Fallocate, abi.FALLOCATE_IN),
    (Lseek, abi.LSEEK_IN),
    (CopyFileRange, abi.COPY_FILE_RANGE_IN),
    (Retrieved, abi.NOTIFY_RETRIEVE_IN),
    (ForgetOne, abi.FORGET_ONE),
):
    assert _kind._fields == (*_layout.fields, *_more), _kind
