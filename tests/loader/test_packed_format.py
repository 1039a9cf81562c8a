"""The packed format: golden bytes, any bytes decode or are refused by field, every flipped bit is noticed."""

import struct

import numpy as np
import pytest
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from fs_client.loader import packed_format
from fs_client.loader.packed_format import Header, PackedFormatError

INDEX = struct.pack("<3q", 4096, 4101, 4104)
NAMES = struct.pack("<3q", 0, 1, 3) + b"abc"
HEADER = Header(2, 8192, crc32c(INDEX), 12288, len(NAMES), crc32c(NAMES), 12288 + len(NAMES))
GOLDEN = bytes.fromhex(
    "89454d4250414b0a010000000100000002000000000000000020000000000000"
    "180000000000000000300000000000001b000000000000001b30000000000000"
    "e616af4eef60ceb5000000000000000000000000000000000000000000000000"
    "0000000000000000000000000000000000000000000000000000000063a54275"
)


def repaired(data: bytes) -> bytes:
    """The header with its checksum made right again, so that a check behind it is what refuses it."""
    return data[:124] + struct.pack("<I", crc32c(data[:124]))


def test_golden_bytes() -> None:
    assert packed_format.encode_header(HEADER) == GOLDEN
    assert packed_format.decode_header(GOLDEN) == HEADER


def test_sections_decode() -> None:
    assert packed_format.decode_index(HEADER, INDEX).tolist() == [4096, 4101, 4104]
    offsets, blob = packed_format.decode_names(HEADER, NAMES)
    assert (offsets.tolist(), bytes(blob)) == ([0, 1, 3], b"abc")


def test_decoded_offsets_cannot_be_written() -> None:
    offsets = packed_format.decode_index(HEADER, bytearray(INDEX))
    with pytest.raises(ValueError, match="read-only"):
        offsets[0] = 0


def test_every_flipped_bit_of_a_header_is_refused() -> None:
    for bit in range(128 * 8):
        data = bytearray(GOLDEN)
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(PackedFormatError):
            packed_format.decode_header(bytes(data))


@pytest.mark.parametrize(
    ("offset", "size", "value", "field"),
    [
        (0, 8, 1, "magic"),
        (8, 4, 2, "version"),
        (12, 4, 2, "flags"),
        (12, 4, 0, "names_offset"),
        (16, 8, 3, "index_size"),
        (16, 8, 2**41, "count"),
        (24, 8, 8193, "index_offset"),
        (24, 8, 0, "index_offset"),
        (32, 8, 16, "index_size"),
        (40, 8, 16384, "names_offset"),
        (48, 8, 8, "names_size"),
        (56, 8, 12288, "file_size"),
        (72, 1, 1, "reserved"),
    ],
)
def test_a_wrong_field_is_named(offset: int, size: int, value: int, field: str) -> None:
    data = bytearray(GOLDEN)
    data[offset : offset + size] = value.to_bytes(size, "little")
    with pytest.raises(PackedFormatError, match=field):
        packed_format.decode_header(repaired(bytes(data)))


def test_an_unfinished_file_says_so() -> None:
    with pytest.raises(PackedFormatError, match="did not finish"):
        packed_format.decode_header(bytes(128))


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=300) | st.binary(min_size=124, max_size=124).map(lambda b: GOLDEN[:8] + b[8:] + bytes(4)))
def test_any_bytes_are_a_header_or_a_clean_error(data: bytes) -> None:
    for candidate in (data, repaired(data) if len(data) >= 124 else data):
        try:
            header = packed_format.decode_header(candidate)
        except PackedFormatError:
            continue
        assert packed_format.encode_header(header) == candidate[:128]


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=3, max_size=3))
def test_any_index_grows_within_the_samples_or_is_refused(values: list[int]) -> None:
    data = struct.pack("<3q", *values)
    header = Header(2, 8192, crc32c(data), 0, 0, 0, 8192 + 24)
    try:
        offsets = packed_format.decode_index(header, data)
    except PackedFormatError:
        return
    assert offsets[0] == 4096
    assert offsets[-1] <= 8192
    assert (np.diff(offsets) >= 0).all()


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ([0, 4096, 4096], r"offsets\[0\]"),
        ([4096, 4096, 8193], r"offsets\[count\]"),
        ([4096, 4100, 4099], r"offsets\[2\]"),
    ],
)
def test_a_wrong_offset_is_named(values: list[int], field: str) -> None:
    data = struct.pack("<3q", *values)
    header = Header(2, 8192, crc32c(data), 0, 0, 0, 8192 + 24)
    with pytest.raises(PackedFormatError, match=field):
        packed_format.decode_index(header, data)


@pytest.mark.parametrize("section", ["index", "names"])
@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_damaged_sections_are_refused(section: str, damage: str) -> None:
    data = INDEX if section == "index" else NAMES
    decode = packed_format.decode_index if section == "index" else packed_format.decode_names
    changed = data[:-1] if damage == "cut" else bytes([data[0] ^ 1]) + data[1:]
    with pytest.raises(PackedFormatError, match="size" if damage == "cut" else "crc"):
        decode(HEADER, changed)


@pytest.mark.parametrize("values", [[1, 1, 3], [0, 4, 3], [0, 1, 2]])
def test_wrong_name_offsets_are_refused(values: list[int]) -> None:
    data = struct.pack("<3q", *values) + b"abc"
    header = Header(2, 8192, 0, 12288, len(data), crc32c(data), 12288 + len(data))
    with pytest.raises(PackedFormatError, match="name_offsets"):
        packed_format.decode_names(header, data)
