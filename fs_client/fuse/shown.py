"""What the kernel is shown of an inode: attributes and entries as bytes, with what was written here and is not settled.

How long it may believe them is what is left of the time this daemon itself believes them.

No call of a program fails for how something is shown: what does not fit its field is shown as the nearest that does
(`answers.packed`).
"""

import errno
import os
import stat
import struct
from struct import Struct

from fs_client.fuse import abi, answers, kernel_size
from fs_client.fuse.nodes import Node
from fs_common.records.meta import Attributes, FileType

TYPE_BITS = {
    FileType.FILE: stat.S_IFREG,
    FileType.DIRECTORY: stat.S_IFDIR,
    FileType.SYMLINK: stat.S_IFLNK,
    FileType.FIFO: stat.S_IFIFO,
    FileType.SOCKET: stat.S_IFSOCK,
    FileType.CHARACTER_DEVICE: stat.S_IFCHR,
    FileType.BLOCK_DEVICE: stat.S_IFBLK,
}
TYPE_OF_MODE = {bits: type_ for type_, bits in TYPE_BITS.items()}
BLOCK_SIZE = 4096
DIRECTORY_SIZE = 4096
"""Shown for every directory: some programs take 0 for an empty one."""
_SECOND = 1_000_000_000
FOREVER_S = 1 << 30
"""Longer than any mount lives; the kernel adds it to its clock."""

_ENTRY = Struct(abi.ENTRY_OUT.format + abi.ATTR.format.removeprefix("="))
_ATTR_OUT = Struct(abi.ATTR_OUT.format + abi.ATTR.format.removeprefix("="))
assert _ENTRY.size == abi.ENTRY_OUT_SIZE
assert _ATTR_OUT.size == abi.ATTR_OUT.size + abi.ATTR.size


def entry(node: Node, name_until: float, now: float, number: int = 0) -> bytes:
    """An entry for a look-up that found `node`, which has attributes. The caller counts the look-up. `number`: the
    kernel's for it, if it is not the inode's."""
    name_s, name_ns = _left(name_until, now)
    attr_s, attr_ns = believed(node, now)
    fields = _fields(node)
    try:
        return _ENTRY.pack(number or node.inode, 0, name_s, attr_s, name_ns, attr_ns, *fields)
    except struct.error:
        return answers.packed(_ENTRY, (number or node.inode, 0, name_s, attr_s, name_ns, attr_ns, *fields))


def attr_out(node: Node, now: float) -> bytes:
    """The answer to GETATTR and SETATTR."""
    valid_s, valid_ns = believed(node, now)
    fields = _fields(node)
    try:
        return _ATTR_OUT.pack(valid_s, valid_ns, *fields)
    except struct.error:
        return answers.packed(_ATTR_OUT, (valid_s, valid_ns, *fields))


def no_entry(until: float, now: float) -> bytes:
    """There is no such name; where that may not be believed at all, it is an error and raised."""
    valid_s, valid_ns = _left(until, now)
    if not valid_s and not valid_ns:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    return _ENTRY.pack(0, 0, valid_s, 0, valid_ns, *_NO_FIELDS)


_NO_FIELDS = (0,) * (len(abi.ATTR.fields) + 1)


def believed(node: Node, now: float) -> tuple[int, int]:
    """(s, ns) that the kernel may believe its attributes."""
    return (0, 0) if unmeasured(node) else _left(node.expires, now)


def _left(until: float, now: float) -> tuple[int, int]:
    left = until - now
    if left <= 0:
        return 0, 0
    if left >= FOREVER_S:
        return FOREVER_S, 0
    seconds = int(left)
    return seconds, int((left - seconds) * _SECOND)


def mode(attributes: Attributes) -> int:
    return TYPE_BITS[attributes.type] | attributes.mode & 0o7777


def device(attributes: Attributes) -> int:
    """In the kernel's 32 bits."""
    return min(max(attributes.device, 0), 2**32 - 1)


def size_and_mtime(node: Node) -> tuple[int, int]:
    attributes = node.attributes
    assert attributes is not None
    if node.file is not None:
        return node.file.shown(attributes)
    if attributes.type is FileType.DIRECTORY:
        return DIRECTORY_SIZE, attributes.mtime_ns
    return attributes.length, attributes.mtime_ns


def ctime_ns(node: Node) -> int:
    """A write that is not settled changes it as it changes mtime."""
    attributes = node.attributes
    assert attributes is not None
    if node.file is not None and node.file.mtime_ns > attributes.ctime_ns:
        return node.file.mtime_ns
    return attributes.ctime_ns


def tell(node: Node) -> None:
    """The kernel is told the node's attributes now."""
    attributes = node.attributes
    assert attributes is not None
    node.told_version = attributes.version
    node.told_ctime_ns = ctime_ns(node)


def sparse(node: Node) -> bool:
    """It may take less than its length."""
    attributes = node.attributes
    assert attributes is not None
    return attributes.sparse or (node.file is not None and node.file.sparse)


def unmeasured(node: Node) -> bool:
    """Nobody knows what it takes until the daemons are asked."""
    attributes = node.attributes
    assert attributes is not None
    return node.stored_version != attributes.version and sparse(node)


def blocks(node: Node, size: int) -> int:
    """Of 512 bytes: what its length takes, or, of a sparse file, what is stored."""
    attributes = node.attributes
    assert attributes is not None
    if sparse(node) and node.stored_version == attributes.version:
        size = min(size, node.stored_bytes)
    return (size + 511) >> 9


def _fields(node: Node) -> tuple[int, ...]:
    """Of `fuse_attr`, in order."""
    attributes = node.attributes
    assert attributes is not None
    tell(node)
    size, mtime = size_and_mtime(node)
    kernel_size.told(node, size)
    ctime = node.told_ctime_ns
    atime = attributes.atime_ns
    return (
        attributes.inode,
        size,
        blocks(node, size),
        atime // _SECOND,
        mtime // _SECOND,
        ctime // _SECOND,
        atime % _SECOND,
        mtime % _SECOND,
        ctime % _SECOND,
        TYPE_BITS[attributes.type] | attributes.mode & 0o7777,
        0 if node.removed else attributes.links,
        attributes.uid,
        attributes.gid,
        attributes.device,
        BLOCK_SIZE,
        0,
    )
