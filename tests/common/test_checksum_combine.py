"""Combined checksums are those of the bytes."""

import random
import struct

import pytest
from crc32c import crc32c

from fs_common.checksum_combine import combine
from fs_common.checksums import page_checksums, whole_if_matches
from fs_common.limits import KIB, MIB


def packed(data: bytes, page: int) -> bytes:
    return b"".join(struct.pack("<I", crc32c(data[i : i + page])) for i in range(0, len(data), page))


@pytest.mark.parametrize(
    ("page", "pages"), [(4 * KIB, 1), (4 * KIB, 17), (4 * KIB, 256), (4 * KIB, 257), (64 * KIB, 40)]
)
def test_combined_is_the_checksum_of_the_bytes(page: int, pages: int) -> None:
    data = random.Random(pages).randbytes(page * pages)
    assert combine(packed(data, page), page) == crc32c(data)


def test_several_blocks_of_pages() -> None:
    data = random.Random(5).randbytes(600 * 512)
    assert combine(packed(data, 512), 512) == crc32c(data)


def test_zeros_and_nothing() -> None:
    assert combine(packed(bytes(8192), 4096), 4096) == crc32c(bytes(8192))
    assert combine(b"", 4096) == crc32c(b"") == 0
    with pytest.raises(ValueError, match="no checksums"):
        combine(b"abc", 4096)


@pytest.mark.parametrize("at", [0, 4095, 70_000, MIB - 1])
def test_one_changed_bit_of_the_bytes_shows(at: int) -> None:
    data = bytearray(random.Random(1).randbytes(MIB))
    good = page_checksums(memoryview(data), 0, MIB)
    assert whole_if_matches(memoryview(data), 0, MIB, good) == (True, crc32c(data))
    data[at] ^= 4
    assert not whole_if_matches(memoryview(data), 0, MIB, good)[0]


@pytest.mark.parametrize("at", [0, 3, 512, 1023])
def test_one_changed_bit_of_the_checksums_shows(at: int) -> None:
    data = memoryview(random.Random(2).randbytes(MIB))
    checksums = bytearray(page_checksums(data, 0, MIB))
    checksums[at] ^= 1
    assert not whole_if_matches(data, 0, MIB, bytes(checksums))[0]


def test_swapped_pages_and_a_wrong_number_of_checksums_show() -> None:
    data = memoryview(random.Random(3).randbytes(MIB))
    checksums = page_checksums(data, 0, MIB)
    assert not whole_if_matches(data, 0, MIB, checksums[4:8] + checksums[:4] + checksums[8:])[0]
    assert not whole_if_matches(data, 0, MIB, checksums[:-4])[0]
    assert not whole_if_matches(data, 0, MIB, b"")[0]


@pytest.mark.parametrize(("offset", "length"), [(0, 5000), (4096, 64 * KIB + 1), (100, 70_000), (0, 0), (8192, 4096)])
def test_ranges_that_are_not_whole_pages_are_verified_page_by_page(offset: int, length: int) -> None:
    data = memoryview(random.Random(4).randbytes(length))
    checksums = page_checksums(data, offset, MIB)
    assert whole_if_matches(data, offset, MIB, checksums) == (True, None)
