"""Bytes of the journal: pinned, round trips, and what any bytes are taken for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fs_meta.kv.interface import KEY_BYTES_MAX
from fs_meta.kv.journal_format import (
    FILE_HEADER_SIZE,
    JournalDamaged,
    decode_file_header,
    decode_frame,
    encode_file_header,
    encode_frame,
    find_frame,
)

ID = b"journal!"
CHANGES = st.dictionaries(
    st.binary(min_size=1, max_size=KEY_BYTES_MAX), st.none() | st.binary(max_size=100), min_size=1, max_size=20
)


def test_golden_bytes() -> None:
    header = encode_file_header(ID)
    assert len(header) == FILE_HEADER_SIZE and not any(header[24:])
    assert header[:24].hex() == "454d4245524b564a01000000" + "57384c62" + "6a6f75726e616c21"
    frame = encode_frame(ID, 7, 5, {b"key": b"value", b"gone": None, b"k": b""})
    assert (
        frame.hex()
        == (
            "454b4a31" + "d9d12ba5" + "1f000000" + "03000000"  # magic, checksum, body length, changes
            "0700000000000000" + "0500000000000000" + "6a6f75726e616c21"  # sequence, synced, journal id
            "0300" + "0400" + "0100" + "05000000" + "ffffffff" + "00000000"  # lengths of keys and values
            "6b6579" + "676f6e65" + "6b" + "76616c7565" + "00"  # keys, values, padding
        )
    )


@given(st.integers(1, 2**64 - 1), st.integers(0, 2**64 - 1), CHANGES)
def test_a_frame_comes_back_from_any_place(sequence: int, synced: int, changes: dict[bytes, bytes | None]) -> None:
    frame = encode_frame(ID, sequence, synced, changes)
    assert len(frame) % 8 == 0
    for before in (b"", b"EKJ1" + bytes(12)):
        content = memoryview(before + frame + frame[:-8])
        found = decode_frame(content, len(before), ID)
        assert found is not None and found.changes() == changes
        assert (found.sequence, found.synced) == (sequence, synced)
        assert (found.start, found.end) == (len(before), len(before) + len(frame))
        assert list(found.changes()) == list(changes)
        assert find_frame(content, 0, ID) == found
        assert find_frame(content, found.end, ID) is None


@given(CHANGES, st.data())
def test_a_frame_with_any_bit_changed_is_no_frame(changes: dict[bytes, bytes | None], data: st.DataObject) -> None:
    frame = bytearray(encode_frame(ID, 1, 0, changes))
    body_length = int.from_bytes(frame[8:12], "little")
    bit = data.draw(st.integers(0, (40 + body_length) * 8 - 1))
    frame[bit // 8] ^= 1 << bit % 8
    assert decode_frame(memoryview(frame), 0, ID) is None


@given(CHANGES, st.data())
def test_a_frame_that_is_cut_short_is_no_frame(changes: dict[bytes, bytes | None], data: st.DataObject) -> None:
    frame = encode_frame(ID, 1, 0, changes)
    body_length = int.from_bytes(frame[8:12], "little")
    assert decode_frame(memoryview(frame)[: data.draw(st.integers(0, 39 + body_length))], 0, ID) is None


def test_another_journal_s_frame_is_no_frame() -> None:
    frame = memoryview(encode_frame(b"another!", 1, 0, {b"k": b""}))
    assert decode_frame(frame, 0, ID) is None
    assert find_frame(frame, 0, ID) is None


@given(st.binary(max_size=200))
def test_any_bytes_are_a_frame_or_none(raw: bytes) -> None:
    for content in (raw, b"EKJ1" + raw):
        assert decode_frame(memoryview(content), 0, ID) is None
        assert find_frame(memoryview(content), 0, ID) is None


@given(st.binary(max_size=60), st.integers(0, 2**32 - 1))
def test_a_frame_whose_content_cannot_be_is_damage_with_its_number(body: bytes, count: int) -> None:
    """Bodies that no encoder makes, under a checksum that is right."""
    from crc32c import crc32c

    rest = len(body).to_bytes(4, "little") + count.to_bytes(4, "little") + (9).to_bytes(8, "little") + bytes(8) + ID
    content = memoryview(b"EKJ1" + crc32c(body, crc32c(rest)).to_bytes(4, "little") + rest + body)
    frame = decode_frame(content, 0, ID)
    assert frame is not None
    try:
        changes = frame.changes()
    except JournalDamaged as error:
        assert "frame 9 " in str(error)
    else:
        assert len(changes) == count and all(0 < len(key) <= KEY_BYTES_MAX for key in changes)


@given(st.binary(max_size=40))
def test_any_bytes_are_a_header_or_damage(raw: bytes) -> None:
    with pytest.raises(JournalDamaged):
        decode_file_header(raw)
    assert decode_file_header(encode_file_header(ID)) == ID


def test_a_header_says_what_is_wrong_with_it() -> None:
    header = encode_file_header(ID)
    with pytest.raises(JournalDamaged, match="no header"):
        decode_file_header(header[:20])
    with pytest.raises(JournalDamaged, match="damaged"):
        decode_file_header(b"x" + header[1:])
    newer = bytearray(header[:24])
    newer[8] = 2
    from crc32c import crc32c

    newer[12:16] = crc32c(bytes(newer[16:24]), crc32c(bytes(newer[:12]))).to_bytes(4, "little")
    with pytest.raises(JournalDamaged, match="format version 2"):
        decode_file_header(bytes(newer))
