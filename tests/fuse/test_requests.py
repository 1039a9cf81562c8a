"""Requests of the kernel: what each byte means, and what bytes that mean nothing give."""

import struct
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fs_client.fuse import abi, requests
from fs_client.fuse.abi import Layout, Opcode
from fs_client.fuse.requests import ProtocolError
from tests.fuse.parsers import PARSERS

NAME = bytes(range(1, 47)) + bytes(range(48, 256))
"""Every byte that a name may have."""


def u32(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


def u64(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}Q", *values)


# Bodies written down by hand from the kernel's header, with every field a different number.
GOLDEN: list[tuple[Opcode, bytes, Any]] = [
    (Opcode.LOOKUP, NAME + b"\0", NAME),
    (Opcode.FORGET, u64(5), 5),
    (Opcode.BATCH_FORGET, u32(2, 0) + u64(7, 1, 2**64 - 1, 3), [(7, 1), (2**64 - 1, 3)]),
    (Opcode.GETATTR, u32(1, 0) + u64(2), (1, 2)),
    (Opcode.STATX, u32(1, 0) + u64(2) + u32(3, 0xFFF), (1, 2, 3, 0xFFF)),
    (
        Opcode.SETATTR,
        u32(0x7FF, 0) + u64(1, 2, 3, 4, 2**64 - 5, 6) + u32(7, 8, 9, 0o644, 0, 10, 11, 0),
        (0x7FF, 1, 2, 3, 4, -5, 6, 7, 8, 9, 0o644, 10, 11),
    ),
    (Opcode.READLINK, b"", None),
    (Opcode.SYMLINK, b"name\0to/ target\0", (b"name", b"to/ target")),
    (Opcode.MKNOD, u32(0o20644, 0x103, 0o22, 0) + b"null\0", (0o20644, 0x103, 0o22, b"null")),
    (Opcode.MKDIR, u32(0o755, 0o22) + b"d\0", (0o755, 0o22, b"d")),
    (Opcode.UNLINK, b"x\0", b"x"),
    (Opcode.RMDIR, b"x\0", b"x"),
    (Opcode.RENAME, u64(9) + b"a\0b\0", (9, 0, b"a", b"b")),
    (Opcode.RENAME2, u64(9) + u32(2, 0) + b"a\0b\0", (9, 2, b"a", b"b")),
    (Opcode.LINK, u64(9) + b"n\0", (9, b"n")),
    (Opcode.OPEN, u32(0o100002, 1), (0o100002, 1)),
    (Opcode.OPENDIR, u32(0o200000, 0), (0o200000, 0)),
    (Opcode.READ, u64(1, 2) + u32(3, 4) + u64(5) + u32(6, 0), (1, 2, 3, 4, 5, 6)),
    (Opcode.READDIR, u64(1, 2) + u32(3, 4) + u64(5) + u32(6, 0), (1, 2, 3, 4, 5, 6)),
    (Opcode.READDIRPLUS, u64(1, 2) + u32(3, 4) + u64(5) + u32(6, 0), (1, 2, 3, 4, 5, 6)),
    (Opcode.WRITE, u64(1, 2) + u32(3, 4) + u64(5) + u32(6, 0), (1, 2, 3, 4, 5, 6)),
    (Opcode.STATFS, b"", None),
    (Opcode.RELEASE, u64(1) + u32(2, 3) + u64(4), (1, 2, 3, 4)),
    (Opcode.RELEASEDIR, u64(1) + u32(2, 3) + u64(4), (1, 2, 3, 4)),
    (Opcode.FSYNC, u64(1) + u32(1, 0), (1, 1)),
    (Opcode.FSYNCDIR, u64(1) + u32(1, 0), (1, 1)),
    (Opcode.SETXATTR, u32(3, 1, 2, 0) + b"user.a\0v\0w", (1, 2, b"user.a", b"v\0w")),
    (Opcode.GETXATTR, u32(64, 0) + b"user.a\0", (64, b"user.a")),
    (Opcode.LISTXATTR, u32(64, 0), 64),
    (Opcode.REMOVEXATTR, b"user.a\0", b"user.a"),
    (Opcode.FLUSH, u64(1) + u32(0, 0) + u64(2), (1, 2)),
    (Opcode.INIT, u32(7, 31, 131072, 0xFFF), (7, 31, 131072, 0xFFF)),
    (Opcode.INIT, u32(7, 45, 5, 1 << 30, 1 << 4) + bytes(44), (7, 45, 5, 1 << 30 | 1 << 36)),
    (Opcode.INIT, u32(7, 45, 5, 1, 1 << 4) + bytes(44), (7, 45, 5, 1)),
    (Opcode.GETLK, u64(1, 2, 3, 4) + u32(5, 6, 1, 0), (1, 2, 3, 4, 5, 6, 1)),
    (Opcode.SETLK, u64(1, 2, 3, 4) + u32(5, 6, 1, 0), (1, 2, 3, 4, 5, 6, 1)),
    (Opcode.SETLKW, u64(1, 2, 3, 4) + u32(5, 6, 1, 0), (1, 2, 3, 4, 5, 6, 1)),
    (Opcode.ACCESS, u32(4, 0), 4),
    (Opcode.CREATE, u32(1, 2, 3, 4) + b"n\0", (1, 2, 3, 4, b"n")),
    (Opcode.TMPFILE, u32(1, 2, 3, 4) + b"/\0", (1, 2, 3, 4, b"/")),
    (Opcode.INTERRUPT, u64(77), 77),
    (Opcode.BMAP, u64(1) + u32(2, 0), (1, 2)),
    (Opcode.DESTROY, b"", None),
    (Opcode.IOCTL, u64(1) + u32(2, 3) + u64(4) + u32(2, 6) + b"in", (1, 2, 3, 4, 2, 6, b"in")),
    (Opcode.POLL, u64(1, 2) + u32(3, 4), (1, 2, 3, 4)),
    (Opcode.NOTIFY_REPLY, u64(0, 4096) + u32(5, 0) + u64(0, 0), (4096, 5)),
    (Opcode.FALLOCATE, u64(1, 2, 3) + u32(4, 0), (1, 2, 3, 4)),
    (Opcode.LSEEK, u64(1, 2) + u32(3, 0), (1, 2, 3)),
    (Opcode.COPY_FILE_RANGE, u64(1, 2, 3, 4, 5, 6, 7), (1, 2, 3, 4, 5, 6, 7)),
    (Opcode.COPY_FILE_RANGE_64, u64(1, 2, 3, 4, 5, 6, 7), (1, 2, 3, 4, 5, 6, 7)),
    (Opcode.SYNCFS, u64(0), None),
]


def test_every_operation_has_a_parser_and_golden_bytes() -> None:
    """Mapping memory is asked for only where it was negotiated, which it never is."""
    served = set(Opcode) - {Opcode.SETUPMAPPING, Opcode.REMOVEMAPPING}
    assert set(PARSERS) == served
    assert {opcode for opcode, _, _ in GOLDEN} == served


@pytest.mark.parametrize(("opcode", "body", "value"), GOLDEN, ids=lambda case: getattr(case, "name", ""))
def test_golden_bytes(opcode: Opcode, body: bytes, value: Any) -> None:
    assert PARSERS[opcode](body) == value
    assert PARSERS[opcode](memoryview(bytearray(body))) == value


@pytest.mark.parametrize(("opcode", "body", "value"), GOLDEN, ids=lambda case: getattr(case, "name", ""))
def test_a_body_cut_anywhere_is_an_error_that_names_a_field(opcode: Opcode, body: bytes, value: Any) -> None:
    for length in range(len(body)):
        try:
            cut = PARSERS[opcode](body[:length])
        except ProtocolError as error:
            assert error.field and error.field in str(error)
        else:
            # An INIT of before 7.36 is the beginning of a newer one; SYNCFS says nothing.
            assert opcode in (Opcode.INIT, Opcode.SYNCFS)
            assert cut is None or cut[:2] == value[:2]


def test_the_field_named_is_the_one_that_is_missing() -> None:
    body = u64(1, 2) + u32(3, 4) + u64(5)
    with pytest.raises(ProtocolError, match="flags") as caught:
        requests.parse_read(body)
    assert caught.value.field == "flags"
    with pytest.raises(ProtocolError) as caught:
        requests.parse_write(body[:9])
    assert caught.value.field == "offset"


@pytest.mark.parametrize(
    ("opcode", "body", "field"),
    [
        (Opcode.LOOKUP, b"\0", "name"),
        (Opcode.LOOKUP, b"no end", "name"),
        (Opcode.LOOKUP, b"a\0b\0", "name"),
        (Opcode.SYMLINK, b"name\0", "target"),
        (Opcode.SYMLINK, b"name\0\0", "target"),
        (Opcode.RENAME2, bytes(16) + b"\0b\0", "old"),
        (Opcode.RENAME2, bytes(16) + b"a\0b", "new"),
        (Opcode.RENAME2, bytes(16) + b"a\0b\0c", "new"),
        (Opcode.SETXATTR, u32(3, 0, 0, 0) + b"\0abc", "name"),
        (Opcode.SETXATTR, u32(3, 0, 0, 0) + b"user.a", "name"),
        (Opcode.SETXATTR, u32(3, 0, 0, 0) + b"user.a\0ab", "size"),
        (Opcode.BATCH_FORGET, u32(2, 0) + bytes(16), "count"),
        (Opcode.BATCH_FORGET, u32(2**32 - 1, 0), "count"),
        (Opcode.IOCTL, bytes(24) + u32(3, 0) + b"ab", "in_size"),
    ],
)
def test_names_and_counts_that_are_wrong(opcode: Opcode, body: bytes, field: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        PARSERS[opcode](body)
    assert caught.value.field == field


@pytest.mark.parametrize("opcode", PARSERS)
@given(body=st.binary(max_size=200))
@example(body=b"")
@example(body=b"\xff" * 200)
def test_any_bytes_give_a_value_or_one_clean_error(opcode: Opcode, body: bytes) -> None:
    try:
        PARSERS[opcode](body)
    except ProtocolError as error:
        assert error.field


@given(message=st.binary(max_size=80), length=st.integers(0, 100))
def test_any_bytes_as_header(message: bytes, length: int) -> None:
    message = struct.pack("<I", length) + message
    try:
        header = requests.parse_header(message)
    except ProtocolError as error:
        assert error.field
    else:
        assert header.len == len(message) >= 40 + header.total_extlen * 8


def test_header() -> None:
    message = u32(44, 15) + u64(3, 4) + u32(5, 6, 7) + struct.pack("<HH", 0, 0) + b"body"
    assert requests.parse_header(message) == (44, 15, 3, 4, 5, 6, 7, 0)
    with pytest.raises(ProtocolError) as caught:
        requests.parse_header(message[:-1])
    assert caught.value.field == "len"
    with pytest.raises(ProtocolError) as caught:
        requests.parse_header(message[:36] + struct.pack("<HH", 1, 0) + message[40:])
    assert caught.value.field == "total_extlen"


def test_short_setxattr() -> None:
    body = u32(3, 1) + b"user.a\0abc"
    assert requests.parse_setxattr(body, extended=False) == (1, 0, b"user.a", b"abc")


def test_groups_of_extensions() -> None:
    groups = u32(8 + 4 + 4, 32) + u32(1, 1234)
    other = u32(12, 1) + b"ctx!" + bytes(4)
    assert requests.parse_groups(b"") == ()
    assert requests.parse_groups(groups) == (1234,)
    assert requests.parse_groups(other + groups) == (1234,)
    for wrong, field in (
        (groups[:4], "type"),
        (u32(7, 32) + bytes(8), "extension size"),
        (u32(17, 32) + u32(1, 1234), "extension size"),
        (u32(16, 32) + u32(2, 1234), "nr_groups"),
    ):
        with pytest.raises(ProtocolError) as caught:
            requests.parse_groups(wrong)
        assert caught.value.field == field


@given(extensions=st.binary(max_size=100))
def test_any_bytes_as_extensions(extensions: bytes) -> None:
    try:
        groups = requests.parse_groups(extensions)
    except ProtocolError as error:
        assert error.field
    else:
        assert len(groups) * 4 <= len(extensions)


@given(data=st.data())
def test_structures_come_back_as_they_were_packed(data: st.DataObject) -> None:
    layouts = [layout for layout in vars(abi).values() if isinstance(layout, Layout)]
    layout = data.draw(st.sampled_from(layouts), label="layout")
    content = data.draw(st.binary(min_size=layout.size, max_size=layout.size))
    values = layout.unpack(content)
    assert layout.unpack(layout.pack(*values)) == values


def test_a_structure_of_another_size_is_refused() -> None:
    with pytest.raises(AssertionError, match="8 bytes; the kernel's has 12"):
        Layout("wrong", 12, "I a, 4x")


@pytest.mark.parametrize(
    ("year_s", "kept_ns"), [(32_503_680_000, 2**63 - 1), (-11_676_096_000, -(2**63)), (5, 5 * 10**9)]
)
def test_times_beyond_those_that_are_kept_are_the_nearest_one(year_s: int, kept_ns: int) -> None:
    body = abi.SETATTR_IN.pack(0, 0, 0, 0, year_s, year_s, year_s, 0, 0, 0, 0, 0, 0)
    asked = requests.parse_setattr(bytearray(body))
    assert (asked.atime_ns, asked.mtime_ns, asked.ctime_ns) == (kept_ns,) * 3
