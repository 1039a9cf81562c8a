"""Golden bytes of what is on the disk: a change here is a change of format."""

import struct

import pytest

from fs_storage.engine.index_format import (
    IndexDamaged,
    StoredAnswer,
    answer_key,
    decode_answer,
    decode_record,
    encode_answer,
    encode_record,
    glance,
)
from fs_storage.engine.log_format import (
    Begin,
    Commit,
    Forget,
    LogDamaged,
    Prepare,
    check_file_header,
    decode_frame,
    encode_begin,
    encode_commit,
    encode_file_header,
    encode_forget,
    encode_frame,
    encode_prepare,
)
from fs_storage.engine.versions import NOBODY, NOTHING, Block, BlockFile, Identity, Patch, Record, Version

CHUNK = bytes.fromhex("0000000000000007000000ff")
FILE = BlockFile(-1, "64k.0")

VERSION = Version(
    number=0x0102,
    chain_version=3,
    chunk_bits=16,
    length=5000,
    used=6000,
    removed=False,
    removed_at=0,
    block=Block(16, 9, FILE, 9 << 16),
    checksums=bytes(range(8)),
    whole=b"\xaa\xbb\xcc\xdd",
    patches=(Patch(100, b"patch"),),
)
REMOVAL = Version(7, 3, 16, 0, 0, True, 1_800_000_000, None, b"", b"", ())
PREPARE = Prepare(
    CHUNK, False, True, False, 16, 16, 9, 5000, 6000, b"\xaa\xbb\xcc\xdd", 1, b"page", (Patch(100, b"patch"),),
    4096, 5000, b"client", 4, 5, 6, 7, 8,
)  # fmt: skip


def locate(size_class: int, slot: int) -> Block:
    return Block(size_class, slot, FILE, slot << size_class)


RECORDS = {
    "committed": Record(VERSION, None, NOBODY),
    "first pending": Record(None, VERSION, Identity(b"client", 4, 5)),
    "removal pending": Record(VERSION, REMOVAL._replace(removed_at=0), Identity(b"", 0, 0)),
    "tombstone": Record(REMOVAL, None, NOBODY),
}

GOLDEN_RECORDS = {
    "committed": (
        "6fbbcf7d0101000006101000090000008813000070170000aabbccdd02000000010000000000000002010000000000000300"
        "0000000000000000000000000000000102030405060764000000050000007061746368"
    ),
    "tombstone": (
        "d88685ce01010000011000000000000000000000000000000000000000000000000000000000000007000000000000000300"
        "00000000000000d2496b00000000"
    ),
}


@pytest.mark.parametrize("name", RECORDS)
def test_a_chunk_record_comes_back(name: str) -> None:
    value = encode_record(RECORDS[name])
    assert decode_record(value, locate) == RECORDS[name]
    assert decode_record(memoryview(value), locate) == RECORDS[name]
    if name in GOLDEN_RECORDS:
        assert value.hex() == GOLDEN_RECORDS[name]


def test_a_glance_agrees_with_the_record() -> None:
    assert glance(encode_record(RECORDS["committed"])) == (True, 5000, True, 0, 16, 9, VERSION.number)
    assert glance(encode_record(RECORDS["first pending"])) == (False, 0, True, 0, 0, 0, 0)
    assert glance(encode_record(RECORDS["tombstone"])) == (False, 0, False, 1_800_000_000, 0, 0, REMOVAL.number)
    assert glance(encode_record(NOTHING)).present is False


@pytest.mark.parametrize("name", RECORDS)
def test_a_damaged_chunk_record_is_noticed(name: str) -> None:
    value = encode_record(RECORDS[name])
    for position in range(len(value)):
        changed = bytearray(value)
        changed[position] ^= 0x10
        with pytest.raises(IndexDamaged):
            decode_record(bytes(changed), locate)
    for length in range(len(value)):
        with pytest.raises(IndexDamaged):
            decode_record(value[:length], locate)


def test_an_answer_comes_back() -> None:
    answer = StoredAnswer(CHUNK, 5, 6, 7, 1_800_000_000)
    value = encode_answer(answer)
    assert value.hex() == ("904ca0f20000000000000007000000ff050000000000000006000000000000000700000000d2496b00000000")
    assert decode_answer(value) == answer
    assert answer_key(b"client", 258).hex() == b"client".hex() + "0000000000000102"
    for position in range(len(value)):
        changed = bytearray(value)
        changed[position] ^= 1
        with pytest.raises(IndexDamaged):
            decode_answer(bytes(changed))


def frame_bytes() -> bytes:
    body = [encode_begin(bytes(range(16))), *encode_prepare(PREPARE), encode_commit(CHUNK, 6, 9)]
    return b"".join(encode_frame(77, 70, 60, 3, body))


def test_a_frame_comes_back() -> None:
    data = frame_bytes()
    frame = decode_frame(memoryview(data), 0)
    assert frame is not None
    assert (frame.sequence, frame.log_synced, frame.data_synced, frame.end) == (77, 70, 60, len(data))
    assert frame.records == [Begin(bytes(range(16))), PREPARE, Commit(CHUNK, 6, 9)]
    assert len(data) % 8 == 0
    assert data.hex() == GOLDEN_FRAME


def test_a_record_that_forgets_comes_back() -> None:
    assert encode_forget(CHUNK).hex() == "05000000" + CHUNK.hex()
    data = b"".join(encode_frame(1, 0, 0, 2, [encode_forget(CHUNK), encode_commit(CHUNK, 6, 9)]))
    frame = decode_frame(memoryview(data), 0)
    assert frame is not None and frame.records == [Forget(CHUNK), Commit(CHUNK, 6, 9)]


GOLDEN_FRAME = (
    "45464c3139edc46bab000000030000004d0000000000000046000000000000003c0000000000000004000000000102030405"
    "060708090a0b0c0d0e0f010e1010090000000000000000000007000000ff8813000070170000aabbccdd0100000001000000"
    "0100000000100000881300000600000006000000000000000700000000000000040000000000000005000000000000000800"
    "000000000000636c69656e747061676564000000050000007061746368020000000000000000000007000000ff0600000000"
    "00000009000000000000000000000000"
)


def test_a_damaged_frame_is_none() -> None:
    data = frame_bytes()
    for position in range(len(data) - 8):
        changed = bytearray(data)
        changed[position] ^= 4
        assert decode_frame(memoryview(changed), 0) is None
    for length in range(len(data) - 8):
        assert decode_frame(memoryview(data[:length]), 0) is None


def test_a_frame_of_nonsense_is_an_error_that_says_so() -> None:
    for body, count, what in [
        (b"\x09" + bytes(40), 1, "record type 9 is unknown"),
        (encode_commit(CHUNK, 1, 1)[:20], 1, "ends within a record"),
        (encode_commit(CHUNK, 1, 1), 0, "bytes after its last record"),
        (encode_forget(CHUNK)[:9], 1, "ends within a record"),
        (b"".join(encode_prepare(PREPARE))[:-1], 1, "ends within a record"),
    ]:
        data = b"".join(encode_frame(1, 0, 0, count, [body]))
        with pytest.raises(LogDamaged, match=what):
            decode_frame(memoryview(data), 0)


def test_a_file_header_names_its_target() -> None:
    header = encode_file_header(101)
    assert len(header) == 4096
    assert header[:24].hex() == b"EMBERLOG".hex() + "01000000" + header[12:16].hex() + struct.pack("<Q", 101).hex()
    check_file_header(header, 101)
    with pytest.raises(LogDamaged, match="has no header"):
        check_file_header(header[:10], 101)
