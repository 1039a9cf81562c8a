import struct

import pytest
from crc32c import crc32c

from fs_common.checksums import matches, page_checksums
from fs_common.limits import KIB, MIB

DATA = memoryview(bytes(range(256)) * 64)


@pytest.mark.parametrize(
    ("offset", "length", "pieces"),
    [
        (0, 4096, [(0, 4096)]),
        (0, 8192, [(0, 4096), (4096, 8192)]),
        (4000, 200, [(0, 96), (96, 200)]),
        (4095, 4098, [(0, 1), (1, 4097), (4097, 4098)]),
        (5, 10, [(0, 10)]),
    ],
)
def test_one_checksum_for_each_page_piece(offset: int, length: int, pieces: list[tuple[int, int]]) -> None:
    data = DATA[:length]
    expected = struct.pack(f"<{len(pieces)}I", *(crc32c(data[a:b]) for a, b in pieces))
    assert page_checksums(data, offset, 64 * KIB) == expected
    assert matches(data, offset, 64 * KIB, expected)
    assert matches(data, offset, 64 * KIB, struct.pack("<I", crc32c(data)))


def test_pages_grow_with_the_chunk() -> None:
    assert len(page_checksums(DATA[:16384], 0, 4 * MIB)) == 4


def test_nothing_has_no_checksums() -> None:
    assert page_checksums(DATA[:0], 4096, 64 * KIB) == b""
    assert matches(DATA[:0], 0, 64 * KIB, b"")


def test_any_changed_byte_or_missing_checksum_shows() -> None:
    data = bytearray(DATA[:8192])
    good = page_checksums(memoryview(data), 0, 64 * KIB)
    assert not matches(memoryview(data), 0, 64 * KIB, good[:4])
    assert not matches(memoryview(data), 0, 64 * KIB, b"")
    assert not matches(memoryview(data), 0, 64 * KIB, good + good)
    data[8000] ^= 1
    assert not matches(memoryview(data), 0, 64 * KIB, good)
