"""Answers and notifications: each byte, written down by hand from the kernel's header."""

import stat
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fs_client.fuse import abi, answers
from fs_client.fuse.answers import DirentPacker, DirentPlusPacker

SECOND = 10**9


def u32(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


def u64(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}Q", *values)


ATTR = answers.attr(
    1, 0o100644, size=2, blocks=3, atime_ns=4 * SECOND + 7, mtime_ns=5 * SECOND + 8, ctime_ns=6 * SECOND + 9,
    nlink=10, uid=11, gid=12, rdev=13, blksize=14, flags=15,
)  # fmt: skip
ATTR_BYTES = u64(1, 2, 3, 4, 5, 6) + u32(7, 8, 9, 0o100644, 10, 11, 12, 13, 14, 15)


@pytest.mark.parametrize(
    ("built", "expected"),
    [
        (ATTR, ATTR_BYTES),
        (answers.entry_out(1, ATTR, 2 * SECOND + 4, 3 * SECOND + 5), u64(1, 0, 2, 3) + u32(4, 5) + ATTR_BYTES),
        (answers.entry_out(1, ATTR, 0, 0, generation=9), u64(1, 9, 0, 0) + u32(0, 0) + ATTR_BYTES),
        (answers.no_entry_out(2 * SECOND + 4), u64(0, 0, 2, 0) + u32(4, 0) + bytes(88)),
        (answers.attr_out(ATTR, 2 * SECOND + 4), u64(2) + u32(4, 0) + ATTR_BYTES),
        (
            answers.statx_out(
                1, 0o100644, 2 * SECOND + 3, mask=4, size=5, blocks=6, atime_ns=7 * SECOND + 8,
                btime_ns=9 * SECOND + 10, mtime_ns=11 * SECOND + 12, ctime_ns=13 * SECOND + 14, nlink=15, uid=16,
                gid=17, rdev_major=18, rdev_minor=19, blksize=20, attributes=21, attributes_mask=22,
            ),
            u64(2) + u32(3, 0) + bytes(16)
            + u32(4, 20) + u64(21) + u32(15, 16, 17) + struct.pack("<HH", 0o100644, 0) + u64(1, 5, 6, 22)
            + u64(7) + u32(8, 0) + u64(9) + u32(10, 0) + u64(13) + u32(14, 0) + u64(11) + u32(12, 0)
            + u32(18, 19, 0, 0) + bytes(112),
        ),
        (answers.open_out(1, 2), u64(1) + u32(2, 0)),
        (answers.write_out(1), u32(1, 0)),
        (answers.copy_file_range_64_out(2**40), u64(2**40)),
        (
            answers.statfs_out(blocks=1, bfree=2, bavail=3, files=4, ffree=5, bsize=6, namelen=7, frsize=8),
            u64(1, 2, 3, 4, 5) + u32(6, 7, 8, 0) + bytes(24),
        ),
        (answers.xattr_out(1), u32(1, 0)),
        (answers.lk_out(1, 2, 3, 4), u64(1, 2) + u32(3, 4)),
        (answers.lseek_out(1), u64(1)),
        (answers.bmap_out(1), u64(1)),
        (answers.ioctl_out(-1, b"data"), struct.pack("<iIII", -1, 0, 0, 0) + b"data"),
        (answers.poll_out(1), u32(1, 0)),
        (answers.notify_inval_inode(1, -1, 3), struct.pack("<IiQQqq", 40, 2, 0, 1, -1, 3)),
        (answers.notify_inval_entry(1, b"name"), struct.pack("<IiQQII", 37, 3, 0, 1, 4, 0) + b"name\0"),
        (
            answers.notify_inval_entry(1, b"name", expire_only=True),
            struct.pack("<IiQQII", 37, 3, 0, 1, 4, 1) + b"name\0",
        ),
        (answers.notify_delete(1, 2, b"name"), struct.pack("<IiQQQII", 45, 6, 0, 1, 2, 4, 0) + b"name\0"),
        (b"".join(answers.notify_store(1, 2, b"data")), struct.pack("<IiQQQII", 44, 4, 0, 1, 2, 4, 0) + b"data"),
        (answers.notify_retrieve(1, 2, 3, 4), struct.pack("<IiQQQQII", 48, 5, 0, 1, 2, 3, 4, 0)),
        (answers.notify_poll(1), struct.pack("<IiQQ", 24, 1, 0, 1)),
        (answers.notify_resend(), struct.pack("<IiQ", 16, 7, 0)),
        (answers.notify_inc_epoch(), struct.pack("<IiQ", 16, 8, 0)),
        (answers.notify_prune([5, 2**63]), struct.pack("<IiQIIQQQ", 48, 9, 0, 2, 0, 0, 5, 2**63)),
    ],
)  # fmt: skip
def test_golden_bytes(built: bytes, expected: bytes) -> None:
    assert built == expected


def test_sizes_are_those_of_the_kernel() -> None:
    assert len(ATTR) == 88
    assert len(answers.entry_out(1, ATTR, 0, 0)) == len(answers.no_entry_out(0)) == len(answers.NO_ENTRY) == 128
    assert len(answers.attr_out(ATTR, 0)) == 104


@given(times=st.tuples(*[st.integers(-(2**40) * SECOND, 2**40 * SECOND)] * 3))
def test_times_before_1970(times: tuple[int, int, int]) -> None:
    atime, mtime, ctime = times
    packed = answers.attr(1, 0, size=0, blocks=0, atime_ns=atime, mtime_ns=mtime, ctime_ns=ctime, nlink=0, uid=0, gid=0)
    fields = dict(zip(abi.ATTR.fields, abi.ATTR.unpack(packed), strict=True))
    for name, expected in (("atime", atime), ("mtime", mtime), ("ctime", ctime)):
        assert 0 <= fields[f"{name}nsec"] < SECOND
        assert fields[name] * SECOND + fields[f"{name}nsec"] == expected


def dirents(body: bytes) -> list[tuple[int, int, int, bytes]]:
    """What the kernel reads: (inode, offset, type, name)."""
    found = []
    position = 0
    while position < len(body):
        inode, offset, length, kind = abi.DIRENT.unpack_from(body, position)
        begin = position + abi.DIRENT.size
        found.append((inode, offset, kind, body[begin : begin + length]))
        end = begin + length
        position = (end + 7) & ~7
        assert body[end:position] == bytes(position - end)
    assert position == len(body)
    return found


@given(names=st.lists(st.binary(min_size=1, max_size=255), max_size=30), size=st.integers(0, 2000))
def test_directory_entries_fill_a_page_and_no_more(names: list[bytes], size: int) -> None:
    packer = DirentPacker(size)
    kind = stat.S_IFREG >> 12
    taken = 0
    for number, name in enumerate(names):
        if not packer.add(number + 10, number + 1, kind, name):
            break
        taken += 1
    body = packer.body()
    assert len(body) <= size
    assert dirents(body) == [(number + 10, number + 1, kind, name) for number, name in enumerate(names[:taken])]
    if taken < len(names):
        assert len(body) + ((24 + len(names[taken]) + 7) & ~7) > size, "the next one would have fitted"
        assert not packer.add(1, 1, kind, b"x" * 255)
        assert packer.body() == body


@given(names=st.lists(st.binary(min_size=1, max_size=255), max_size=10), size=st.integers(0, 2000))
def test_directory_entries_with_attributes(names: list[bytes], size: int) -> None:
    packer = DirentPlusPacker(size)
    entry = answers.entry_out(5, ATTR, 0, 0)
    taken = 0
    for number, name in enumerate(names):
        if not packer.add(answers.NO_ENTRY if number % 2 else entry, number + 10, number + 1, 4, name):
            break
        taken += 1
    body = packer.body()
    assert len(body) <= size
    position = 0
    for number, name in enumerate(names[:taken]):
        assert body[position : position + 128] == (answers.NO_ENTRY if number % 2 else entry)
        length = 128 + ((24 + len(name) + 7) & ~7)
        assert dirents(body[position + 128 : position + length]) == [(number + 10, number + 1, 4, name)]
        position += length
    assert position == len(body)


ANYTHING = st.integers(-(2**70), 2**70)
TOTAL = {
    "attr": (
        answers.attr,
        ("inode", "mode", "size", "blocks", "atime_ns", "mtime_ns", "ctime_ns", "nlink", "uid", "gid"),
    ),
    "entry": (
        lambda **values: answers.entry_out(attributes=ATTR, **values),
        ("node", "entry_valid_ns", "attr_valid_ns"),
    ),
    "statfs": (
        answers.statfs_out,
        ("blocks", "bfree", "bavail", "files", "ffree", "bsize", "namelen", "frsize"),
    ),
    "lk": (answers.lk_out, ("start", "end", "type", "pid")),
    "lseek": (answers.lseek_out, ("offset",)),
    "inval_inode": (answers.notify_inval_inode, ("node", "offset", "length")),
}
"""Answers and notifications with values that others say."""


@pytest.mark.parametrize("name", TOTAL)
@given(data=st.data())
def test_no_value_makes_an_answer_fail(name: str, data: st.DataObject) -> None:
    build, fields = TOTAL[name]
    built = build(**{field: data.draw(ANYTHING, field) for field in fields})  # type: ignore[operator]
    usual = build(**dict.fromkeys(fields, 0))  # type: ignore[operator]
    assert len(built) == len(usual)
