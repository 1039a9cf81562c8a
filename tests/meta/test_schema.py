"""Keys and values of the store: golden bytes, order of keys, and what damaged bytes give."""

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fs_common.layout import Layout
from fs_common.records.meta import FileType, User
from fs_meta import schema
from fs_meta.schema import (
    Answer,
    CorruptRecord,
    Counter,
    Entry,
    Format,
    Garbage,
    HeldLock,
    Inode,
    Locks,
    Pruned,
    Session,
    Xattr,
)

FILE = Inode(FileType.FILE, 0o644, 1000, 1001, 2, 5, 1, 2, 3, 4, Layout(1 << 20, 16, 1, 3, 5, 2**63 + 5, 1), 7)
DIRECTORY = Inode(FileType.DIRECTORY, 0o2755, 0, 0, 2, 0, 1, 2, 3, 4, Layout(1 << 16), 0, 1, b"name")
SYMLINK = Inode(FileType.SYMLINK, 0o777, 0, 0, 1, 2, 1, 2, 3, 4, None, target=b"/x")

GOLDEN: list[tuple[Any, Callable[[bytes], Any], str]] = [
    (Format("c", 1, 2), schema.decode_format, "0194a1630102c400"),
    (
        FILE,
        schema.decode_inode,
        "01dc001501cd01a4cd03e8cd03e902050102030497ce0010000010010305cf80000000000000050107"
        + "00c400c40000000000c400c400",
    ),
    (
        DIRECTORY,
        schema.decode_inode,
        "01dc001502cd05ed000002000102030497ce00010000010100000000" + "0001c4046e616d65c40000000000c400c400",
    ),
    (SYMLINK, schema.decode_inode, "01dc001503cd01ff0000010201020304c00000c400c4022f7800000000c400c400"),
    (Entry(9, FileType.FILE, b"r" * 16), schema.decode_entry, "01930901c410" + "72" * 16),
    (Session(b"c" * 16, 5), schema.decode_session, "0194c410" + "63" * 16 + "05c3c2"),
    (
        Pruned(b"c" * 16, 7, 9, Session(b"c" * 16, 5)),
        schema.decode_pruned,
        "0194c410" + "63" * 16 + "0709" + "94c410" + "63" * 16 + "05c3c2",
    ),
    (Xattr(b"v"), schema.decode_xattr, "0191c40176"),
    (
        Locks([HeldLock(2, 1, b"c" * 16, 7, 0, 9, 11)]),
        schema.decode_locks,
        "0191" + "91970201c410" + "63" * 16 + "0700090b",
    ),
    (Answer(104, 5, 0, "", b"\x90"), schema.decode_answer, "019568" + "0500a0c40190"),
    (Answer(104, 5, 101, "no"), schema.decode_answer, "01956805" + "65a26e6fc400"),
    (
        Garbage(FileType.DIRECTORY, 5, 1, User(7, 8, [9]), b"/x"),
        schema.decode_garbage,
        "0195020501" + "9307089109" + "c4022f78",
    ),
    (Counter(300), schema.decode_counter, "0191cd012c"),
]


@pytest.mark.parametrize(("record", "decode", "golden"), GOLDEN, ids=lambda value: type(value).__name__)
def test_golden_values(record: Any, decode: Callable[[bytes], Any], golden: str) -> None:
    assert schema.encode(record).hex() == golden
    assert decode(bytes.fromhex(golden)) == record


def test_golden_keys() -> None:
    eight = "0000000000000102"
    assert schema.inode_key(0x102).hex() == "49" + eight
    assert schema.entry_key(0x102, b"n\xff").hex() == "44" + eight + "6eff"
    assert schema.session_key(0x102, b"s" * 16).hex() == "53" + eight + "73" * 16
    assert schema.pruned_key(b"s" * 16).hex() == "50" + "73" * 16
    assert schema.xattr_key(0x102, b"user.x").hex() == "41" + eight + b"user.x".hex()
    assert schema.locks_key(0x102).hex() == "4c" + eight
    assert schema.answer_key(b"r" * 16).hex() == "52" + "72" * 16
    assert schema.age_key(0x102, b"r" * 16).hex() == "58" + eight + "72" * 16
    assert schema.garbage_key(0x102, 3).hex() == "47" + eight + "0000000000000003"
    assert (schema.FORMAT_KEY, schema.NEXT_INODE_KEY, schema.INODES_IN_USE_KEY) == (b"F", b"N", b"C")
    assert (schema.FOLLOWED_KEY, schema.SERVICE_TIME_KEY) == (b"W", b"T")


def test_a_value_without_later_fields_still_decodes() -> None:
    """Fields are only appended: a record of before they were."""
    short = schema.decode_inode(bytes.fromhex("019b01cd01a4000001000102030491ce00010000"))
    assert (short.truncate_version, short.parent, short.name, short.target, short.flags) == (0, 0, b"", b"", 0)
    without_lists = "01dc001303cd01ff0000010201020304c00000c400c4022f7800000000"
    assert schema.decode_inode(bytes.fromhex(without_lists)) == SYMLINK


@pytest.mark.parametrize("record", [FILE, DIRECTORY, SYMLINK])
def test_the_head_of_an_inode_is_its_first_fields(record: Inode) -> None:
    head = schema.decode_inode_head(schema.encode(record))
    assert (head.type, head.mode, head.uid, head.gid) == (record.type, record.mode, record.uid, record.gid)


@given(st.integers(0, 2**64 - 2), st.binary(min_size=1, max_size=20), st.binary(min_size=1, max_size=20))
def test_entries_of_a_directory_are_one_range_in_byte_order(parent: int, first: bytes, second: bytes) -> None:
    begin, end = schema.entries_range(parent)
    assert begin <= schema.entry_key(parent, first) < end
    assert (schema.entry_key(parent, first) < schema.entry_key(parent, second)) == (first < second)
    after, _ = schema.entries_range(parent, first)
    assert (schema.entry_key(parent, second) >= after) == (second > first)
    assert not begin <= schema.entry_key(parent + 1, first) < end


def test_whole_tables_are_ranges() -> None:
    session, locks = schema.session_key(2**64 - 1, b"\xff" * 16), schema.locks_key(2**64 - 1)
    pruned = schema.pruned_key(b"\xff" * 16)
    for of_all, first, last in (
        (schema.all_sessions_range, schema.session_key(0, b"\0" * 16), session),
        (schema.all_locks_range, schema.locks_key(0), locks),
        (schema.all_pruned_range, schema.pruned_key(b"\0" * 16), pruned),
    ):
        begin, end = of_all()
        assert begin <= first < last < end
        assert of_all(first)[0] > first and of_all(first)[0] <= last


@given(st.integers(0, 2**63), st.integers(0, 2**63), st.integers(0, 2**64 - 1))
def test_due_garbage_is_a_range(due_ns: int, now_ns: int, inode: int) -> None:
    begin, end = schema.garbage_range(now_ns)
    assert (begin <= schema.garbage_key(due_ns, inode) < end) == (due_ns <= now_ns)


SPLITTERS = [
    schema.split_inode_key,
    schema.split_entry_key,
    schema.split_session_key,
    schema.split_pruned_key,
    schema.split_xattr_key,
    schema.split_locks_key,
    schema.split_answer_key,
    schema.split_age_key,
    schema.split_garbage_key,
]


def test_keys_split_into_what_they_were_made_of() -> None:
    request, session = b"r" * 16, b"s" * 16
    assert schema.split_inode_key(schema.inode_key(7)) == 7
    assert schema.split_entry_key(schema.entry_key(7, b"name")) == (7, b"name")
    assert schema.split_session_key(schema.session_key(7, session)) == (7, session)
    assert schema.split_pruned_key(schema.pruned_key(session)) == session
    assert schema.split_xattr_key(schema.xattr_key(7, b"user.a")) == (7, b"user.a")
    assert schema.split_locks_key(schema.locks_key(7)) == 7
    assert schema.split_answer_key(schema.answer_key(request)) == request
    assert schema.split_age_key(schema.age_key(7, request)) == (7, request)
    assert schema.split_garbage_key(schema.garbage_key(7, 8)) == (7, 8)


@given(st.binary(max_size=40), st.sampled_from(SPLITTERS))
def test_any_bytes_as_a_key_give_a_result_or_a_clean_error(key: bytes, split: Callable[[bytes], Any]) -> None:
    try:
        split(key)
    except CorruptRecord as error:
        assert ":" in str(error)


DECODERS = sorted({row[1] for row in GOLDEN}, key=lambda decode: decode.__name__)


@given(st.binary(max_size=60), st.booleans(), st.sampled_from(DECODERS))
def test_any_bytes_as_a_value_give_a_record_or_a_clean_error(
    value: bytes, versioned: bool, decode: Callable[[bytes], Any]
) -> None:
    try:
        decode(b"\x01" + value if versioned else value)
    except CorruptRecord as error:
        assert ":" in str(error)


@given(st.sampled_from(GOLDEN), st.data())
def test_a_damaged_value_gives_a_record_or_a_clean_error(row: Any, data: st.DataObject) -> None:
    value = bytearray(schema.encode(row[0]))
    value[data.draw(st.integers(0, len(value) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(CorruptRecord):
        row[1](bytes(value))


def test_an_error_names_table_and_field() -> None:
    with pytest.raises(CorruptRecord, match=r"directory entry: .*\$\[1\]"):
        schema.decode_entry(bytes.fromhex("01930909c400"))
    with pytest.raises(CorruptRecord, match="inode: version byte 2"):
        schema.decode_inode(b"\x02\x90")
    with pytest.raises(CorruptRecord, match="session: an empty value"):
        schema.decode_session(b"")
