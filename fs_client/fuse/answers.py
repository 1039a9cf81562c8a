"""Answers and notifications to the kernel, from values to bytes.

What is named `..._out` gives the body of an answer; the channel puts the header in front. What is named `notify_...`
gives a whole message. Valid times and times of files are nanoseconds; times of files count from 1970.

Every value has a form for the kernel (`packed`): one that does not fit its field is a fault, and no reason for a
program's call to fail.

Pure. Layouts: `abi`.
"""

import logging
import struct
from collections.abc import Sequence

from fs_client.fuse import abi
from fs_client.fuse.abi import Notify

logger = logging.getLogger(__name__)

_SECOND = 1_000_000_000
_RANGES = {"H": (0, 2**16 - 1), "I": (0, 2**32 - 1), "Q": (0, 2**64 - 1), "q": (-(2**63), 2**63 - 1)}
"""Of the field codes of `struct` that the layouts have."""


def packed(layout: struct.Struct, values: Sequence[int]) -> bytes:
    """The values, each as the nearest that fits its field. The log names those that do not fit."""
    try:
        return layout.pack(*values)
    except struct.error:
        ranges = [_RANGES[code] for code in layout.format if code in _RANGES]
        fitting = [min(max(value, low), high) for value, (low, high) in zip(values, ranges, strict=True)]
        logger.error("the kernel is shown %s as %s: not all of it fits the fields", values, fitting)
        return layout.pack(*fitting)


def attr(
    inode: int,
    mode: int,
    *,
    size: int,
    blocks: int,
    atime_ns: int,
    mtime_ns: int,
    ctime_ns: int,
    nlink: int,
    uid: int,
    gid: int,
    rdev: int = 0,
    blksize: int = 4096,
    flags: int = 0,
) -> bytes:
    """A `fuse_attr`, as `entry_out` and `attr_out` take it. `mode` with type bits; `blocks` of 512 bytes."""
    atime, atimensec = divmod(atime_ns, _SECOND)
    mtime, mtimensec = divmod(mtime_ns, _SECOND)
    ctime, ctimensec = divmod(ctime_ns, _SECOND)
    fields = (
        inode, size, blocks, atime, mtime, ctime, atimensec, mtimensec, ctimensec, mode, nlink, uid, gid, rdev, blksize,
        flags,
    )  # fmt: skip
    return packed(abi.ATTR, fields)


def entry_out(node: int, attributes: bytes, entry_valid_ns: int, attr_valid_ns: int, generation: int = 0) -> bytes:
    """LOOKUP, MKNOD, MKDIR, SYMLINK, LINK. The kernel counts one look-up of `node` for it."""
    entry_s, entry_ns = divmod(entry_valid_ns, _SECOND)
    attr_s, attr_ns = divmod(attr_valid_ns, _SECOND)
    return packed(abi.ENTRY_OUT, (node, generation, entry_s, attr_s, entry_ns, attr_ns)) + attributes


def no_entry_out(entry_valid_ns: int) -> bytes:
    """LOOKUP: there is no such name, and that may be believed for so long."""
    entry_s, entry_ns = divmod(entry_valid_ns, _SECOND)
    return packed(abi.ENTRY_OUT, (0, 0, entry_s, 0, entry_ns, 0)) + bytes(abi.ATTR.size)


def attr_out(attributes: bytes, attr_valid_ns: int) -> bytes:
    """GETATTR, SETATTR."""
    return packed(abi.ATTR_OUT, divmod(attr_valid_ns, _SECOND)) + attributes


def statx_out(
    inode: int,
    mode: int,
    attr_valid_ns: int,
    *,
    mask: int,
    size: int,
    blocks: int,
    atime_ns: int,
    btime_ns: int,
    mtime_ns: int,
    ctime_ns: int,
    nlink: int,
    uid: int,
    gid: int,
    rdev_major: int = 0,
    rdev_minor: int = 0,
    blksize: int = 4096,
    attributes: int = 0,
    attributes_mask: int = 0,
) -> bytes:
    """STATX. `mask`: `STATX_*` bits of what is given; `attributes`: `STATX_ATTR_*`."""
    valid_s, valid_ns = divmod(attr_valid_ns, _SECOND)
    fields = (
        mask, blksize, attributes, nlink, uid, gid, mode, inode, size, blocks, attributes_mask,
        *divmod(atime_ns, _SECOND), *divmod(btime_ns, _SECOND), *divmod(ctime_ns, _SECOND), *divmod(mtime_ns, _SECOND),
        rdev_major, rdev_minor, 0, 0,
    )  # fmt: skip
    return packed(abi.STATX_OUT, (valid_s, valid_ns, 0)) + packed(abi.STATX, fields)


def open_out(fh: int, open_flags: int = 0) -> bytes:
    """OPEN, OPENDIR. CREATE and TMPFILE are answered with `entry_out(...) + open_out(...)`."""
    return abi.OPEN_OUT.pack(fh, open_flags, 0)


def write_out(size: int) -> bytes:
    """WRITE, COPY_FILE_RANGE."""
    return abi.WRITE_OUT.pack(size)


def copy_file_range_64_out(size: int) -> bytes:
    return abi.COPY_FILE_RANGE_OUT.pack(size)


def statfs_out(
    *,
    blocks: int,
    bfree: int,
    bavail: int,
    files: int,
    ffree: int,
    bsize: int,
    namelen: int,
    frsize: int,
) -> bytes:
    """STATFS. Blocks of `frsize` bytes."""
    return packed(abi.STATFS_OUT, (blocks, bfree, bavail, files, ffree, bsize, namelen, frsize))


def xattr_out(size: int) -> bytes:
    """GETXATTR and LISTXATTR that asked for the size; otherwise the value itself is the answer."""
    return abi.GETXATTR_OUT.pack(size)


def lk_out(start: int, end: int, type: int, pid: int) -> bytes:
    """GETLK: a lock that is in the way, or one of type `F_UNLCK`."""
    return packed(abi.FILE_LOCK, (start, end, type, pid))


def lseek_out(offset: int) -> bytes:
    return packed(abi.LSEEK_OUT, (offset,))


def bmap_out(block: int) -> bytes:
    return abi.BMAP_OUT.pack(block)


def ioctl_out(result: int, data: bytes = b"") -> bytes:
    """`data`: at most the request's `out_size`."""
    return abi.IOCTL_OUT.pack(result, 0, 0, 0) + data


def poll_out(revents: int) -> bytes:
    return abi.POLL_OUT.pack(revents)


class DirentPacker:
    """The answer to a READDIR of `size` bytes, entry after entry."""

    def __init__(self, size: int) -> None:
        self._parts: list[bytes] = []
        self._left = size

    def add(self, inode: int, offset: int, type: int, name: bytes) -> bool:
        """False: there is no room, and nothing was added.

        `offset` is where reading goes on behind this entry; `type` is the file type's four bits (`mode >> 12`).
        """
        length = len(name)
        padding = -length & 7
        self._left -= abi.DIRENT.size + length + padding
        if self._left < 0:
            self._left = 0
            return False
        self._parts.append(abi.DIRENT.pack(inode, offset, length, type) + name + _PADDING[padding])
        return True

    def body(self) -> bytes:
        return b"".join(self._parts)


class DirentPlusPacker:
    """The answer to a READDIRPLUS of `size` bytes. The kernel counts one look-up for every entry but `.` and `..`."""

    def __init__(self, size: int) -> None:
        self._parts: list[bytes] = []
        self._left = size

    def add(self, entry: bytes, inode: int, offset: int, type: int, name: bytes) -> bool:
        """As `DirentPacker.add`. `entry`: what `entry_out` gives, or `NO_ENTRY` where attributes are not known."""
        length = len(name)
        padding = -length & 7
        self._left -= abi.ENTRY_OUT_SIZE + abi.DIRENT.size + length + padding
        if self._left < 0:
            self._left = 0
            return False
        self._parts.append(entry + abi.DIRENT.pack(inode, offset, length, type) + name + _PADDING[padding])
        return True

    def body(self) -> bytes:
        return b"".join(self._parts)


NO_ENTRY = bytes(abi.ENTRY_OUT_SIZE)
_PADDING = tuple(bytes(length) for length in range(8))


# Notifications: whole messages


def notify_inval_inode(node: int, offset: int, length: int) -> bytes:
    """Attributes, and cached pages from `offset` on (`length` 0: to the end; `offset` negative: no pages)."""
    return _notification(Notify.INVAL_INODE, packed(abi.NOTIFY_INVAL_INODE_OUT, (node, offset, length)))


def notify_inval_entry(parent: int, name: bytes, *, expire_only: bool = False) -> bytes:
    """`expire_only` (HAS_EXPIRE_ONLY): look it up again before the next use, instead of dropping it now."""
    flags = abi.EXPIRE_ONLY if expire_only else 0
    return _notification(Notify.INVAL_ENTRY, abi.NOTIFY_INVAL_ENTRY_OUT.pack(parent, len(name), flags) + name + b"\0")


def notify_delete(parent: int, child: int, name: bytes) -> bytes:
    """The name was removed elsewhere: also from directories that processes are in."""
    return _notification(Notify.DELETE, abi.NOTIFY_DELETE_OUT.pack(parent, child, len(name)) + name + b"\0")


def notify_store(node: int, offset: int, data: bytes | memoryview) -> list[bytes | memoryview]:
    """Put bytes into the page cache."""
    head = _notification(Notify.STORE, abi.NOTIFY_STORE_OUT.pack(node, offset, len(data)), len(data))
    return [head, data]


def notify_retrieve(unique: int, node: int, offset: int, size: int) -> bytes:
    """Ask for bytes of the page cache; they come as a NOTIFY_REPLY with that `unique`."""
    return _notification(Notify.RETRIEVE, abi.NOTIFY_RETRIEVE_OUT.pack(unique, node, offset, size))


def notify_poll(kh: int) -> bytes:
    return _notification(Notify.POLL, abi.NOTIFY_POLL_OUT.pack(kh))


def notify_resend() -> bytes:
    """Send again what was read and not answered (HAS_RESEND)."""
    return _notification(Notify.RESEND, b"")


def notify_inc_epoch() -> bytes:
    """Look up every name again before its next use (7.44)."""
    return _notification(Notify.INC_EPOCH, b"")


def notify_prune(nodes: Sequence[int]) -> bytes:
    """Forget these inodes, as far as nobody uses them (7.45)."""
    head = _notification(Notify.PRUNE, abi.NOTIFY_PRUNE_OUT.pack(len(nodes)), 8 * len(nodes))
    return head + struct.pack(f"<{len(nodes)}Q", *nodes)


def _notification(code: Notify, body: bytes, data_length: int = 0) -> bytes:
    return abi.OUT_HEADER.pack(abi.OUT_HEADER.size + len(body) + data_length, code, 0) + body
