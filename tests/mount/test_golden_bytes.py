"""The bytes of attributes and entries that the kernel is sent, written down by hand from its header."""

import struct

import pytest

from fs_client.fuse import shown
from fs_client.fuse.nodes import Node, Nodes
from fs_common.layout import Layout
from fs_common.records.meta import Attributes, FileType

SECOND = 10**9
NOW = 1000.0
RECORD = Attributes(
    inode=2**40 + 1, type=FileType.FILE, mode=0o4755, uid=11, gid=12, links=10, length=513, atime_ns=4 * SECOND + 7,
    mtime_ns=5 * SECOND + 8, ctime_ns=6 * SECOND + 9, layout=Layout(), device=13,
)  # fmt: skip
ATTR_BYTES = struct.pack(
    "<QQQQQQIIIIIIIIII", 2**40 + 1, 513, 2, 4, 5, 6, 7, 8, 9, 0o104755, 10, 11, 12, 13, 4096, 0
)  # fmt: skip
"""ino size blocks atime mtime ctime atimensec mtimensec ctimensec mode nlink uid gid rdev blksize flags"""


def node(record: Attributes = RECORD, *, believed_s: float = 2.25) -> Node:
    nodes = Nodes(1, attribute_s=believed_s, name_s=1.0, absent_s=1.0)
    return nodes.adopt(record, nodes.stamp(), NOW)


def test_attributes() -> None:
    assert shown.attr_out(node(), NOW) == struct.pack("<QII", 2, SECOND // 4, 0) + ATTR_BYTES
    assert shown.attr_out(node(), NOW + 1.75) == struct.pack("<QII", 0, SECOND // 2, 0) + ATTR_BYTES
    assert shown.attr_out(node(), NOW + 5) == struct.pack("<QII", 0, 0, 0) + ATTR_BYTES, "not believed any more"


def test_entry() -> None:
    head = struct.pack("<QQQQII", 2**40 + 1, 0, 3, 2, SECOND // 2, SECOND // 4)
    assert shown.entry(node(), NOW + 3.5, NOW) == head + ATTR_BYTES
    assert len(head + ATTR_BYTES) == 128


def test_no_entry() -> None:
    assert shown.no_entry(NOW + 3.5, NOW) == struct.pack("<QQQQII", 0, 0, 3, 0, SECOND // 2, 0) + bytes(88)
    with pytest.raises(FileNotFoundError):
        shown.no_entry(NOW, NOW)


def test_a_directory_and_a_removed_file() -> None:
    directory = Attributes(5, FileType.DIRECTORY, 0o1777, 1, 2, 3, 77, -SECOND + 1, 5, 6, Layout())
    body = struct.pack("<QQQqQQIIIIIIIIII", 5, 4096, 8, -1, 0, 0, 1, 5, 6, 0o041777, 3, 1, 2, 0, 4096, 0)
    assert shown.attr_out(node(directory), NOW)[16:] == body
    removed = node()
    removed.removed = True
    assert shown.attr_out(removed, NOW)[16:] == ATTR_BYTES[:64] + struct.pack("<I", 0) + ATTR_BYTES[68:]
