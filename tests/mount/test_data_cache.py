"""The daemon's cache of file data: which pages answer, who may land in them, what goes first."""

import random

import pytest

from fs_client.fuse.data_cache import PAGE, DataCache, Reservation
from fs_common.limits import KIB

CHUNK = 64 * KIB


def fill(cache: DataCache, inode: int, index: int, offset: int, data: bytes) -> Reservation:
    reservation = cache.reserve(inode, index, CHUNK, offset, len(data))
    assert reservation is not None
    reservation.view[:] = data
    cache.filled(reservation)
    return reservation


def test_what_was_read_is_a_slice_of_the_memory_it_landed_in() -> None:
    cache = DataCache(1 << 20)
    data = bytes(range(256)) * 32
    fill(cache, 1, 0, PAGE, data)
    view = cache.get(1, 0, PAGE + 10, 100)
    assert view is not None and view == data[10:110]
    assert cache.get(1, 0, 0, PAGE) is None, "never read"
    assert cache.get(1, 0, PAGE, len(data) + 1) is None, "the last byte is of a page that was never read"
    assert cache.get(1, 1, PAGE, 1) is None and cache.get(2, 0, PAGE, 1) is None
    assert (cache.hits, cache.misses) == (1, 4)


def test_only_one_read_lands_in_a_page() -> None:
    cache = DataCache(1 << 20)
    first = cache.reserve(1, 0, CHUNK, 0, 2 * PAGE)
    assert first is not None
    assert cache.reserve(1, 0, CHUNK, PAGE, PAGE) is None
    assert cache.get(1, 0, 0, PAGE) is None, "nothing has landed"
    cache.failed(first)
    assert cache.held == 0
    assert cache.reserve(1, 0, CHUNK, PAGE, PAGE) is not None


@pytest.mark.parametrize(("offset", "length"), [(1, PAGE), (0, 100), (PAGE, PAGE + 1)])
def test_parts_of_pages_are_not_kept(offset: int, length: int) -> None:
    assert DataCache(1 << 20).reserve(1, 0, CHUNK, offset, length) is None


def test_a_read_that_a_write_overtook_is_not_kept() -> None:
    cache = DataCache(1 << 20)
    reservation = cache.reserve(1, 0, CHUNK, 0, 2 * PAGE)
    assert reservation is not None
    cache.invalidate(1, CHUNK, 0, 1)
    assert cache.reserve(1, 0, CHUNK, 0, PAGE) is None, "the old bytes may still land there"
    cache.filled(reservation)
    assert cache.get(1, 0, 0, PAGE) is None
    assert cache.get(1, 0, PAGE, PAGE) is not None
    assert cache.held == PAGE


def test_a_read_of_a_file_that_was_dropped_ends_in_memory_of_its_own() -> None:
    cache = DataCache(1 << 20)
    reservation = cache.reserve(1, 0, CHUNK, 0, PAGE)
    assert reservation is not None
    cache.invalidate(1)
    again = cache.reserve(1, 0, CHUNK, 0, PAGE)
    assert again is not None and again.chunk is not reservation.chunk
    cache.filled(reservation)
    assert cache.get(1, 0, 0, PAGE) is None
    cache.filled(again)
    assert cache.get(1, 0, 0, PAGE) is not None
    assert cache.held == PAGE


def test_an_open_with_another_version_or_length_starts_anew() -> None:
    cache = DataCache(1 << 20)
    cache.agree(1, version=3, length=CHUNK)
    fill(cache, 1, 0, 0, b"x" * PAGE)
    cache.agree(1, version=3, length=CHUNK)
    assert cache.get(1, 0, 0, 1) is not None
    cache.agree(1, version=4, length=CHUNK)
    assert cache.get(1, 0, 0, 1) is None
    fill(cache, 1, 0, 0, b"y" * PAGE)
    cache.follow(1, version=5, length=CHUNK)
    cache.agree(1, version=5, length=CHUNK)
    assert cache.get(1, 0, 0, 1) is not None, "the change was this mount's own"


def test_what_was_not_used_for_longest_goes_first_and_the_bound_holds() -> None:
    cache = DataCache(4 * PAGE)
    for index in range(4):
        fill(cache, 1, index, 0, bytes([index]) * PAGE)
    assert cache.held == 4 * PAGE
    # The first round only takes the mark of having been used away from those that are looked at.
    fill(cache, 1, 4, 0, b"4" * PAGE)
    assert cache.held == 4 * PAGE
    assert cache.get(1, 3, 0, 1) is not None
    fill(cache, 1, 5, 0, b"5" * PAGE)
    assert cache.get(1, 3, 0, 1) is not None
    assert cache.held == 4 * PAGE


def test_nothing_is_kept_without_memory() -> None:
    cache = DataCache(0)
    cache.agree(1, 1, 1)
    assert cache.reserve(1, 0, CHUNK, 0, PAGE) is None
    assert cache.get(1, 0, 0, 1) is None


def test_random_histories_never_answer_old_bytes_and_count_what_they_hold() -> None:
    for seed in range(60):
        rng = random.Random(seed)
        cache = DataCache(rng.choice([3, 8, 40]) * PAGE)
        contents = {(inode, index): bytearray(CHUNK) for inode in (1, 2) for index in (0, 1)}
        landing: list[tuple[tuple[int, int], int, Reservation, bytes]] = []
        for step in range(300):
            key = rng.choice(list(contents))
            first = rng.randrange(16)
            count = rng.randint(1, 16 - first)
            offset, size = first * PAGE, count * PAGE
            match rng.randrange(5):
                case 0:
                    reservation = cache.reserve(*key, CHUNK, offset, size)
                    if reservation is not None:
                        landing.append((key, offset, reservation, bytes(contents[key][offset : offset + size])))
                case 1 if landing:
                    key, offset, reservation, seen = landing.pop(rng.randrange(len(landing)))
                    reservation.view[:] = seen
                    if rng.random() < 0.2:
                        cache.failed(reservation)
                    else:
                        cache.filled(reservation)
                case 2:
                    at = rng.randrange(CHUNK)
                    contents[key][at] = step & 255
                    start = key[1] * CHUNK + at
                    cache.invalidate(key[0], CHUNK, start, start + 1)
                case 3 if rng.random() < 0.1:
                    cache.invalidate(key[0])
                case _:
                    view = cache.get(*key, offset, size)
                    assert view is None or view == contents[key][offset : offset + size], f"seed {seed} step {step}"
            held = sum(chunk.taken for chunk in cache._chunks.values()) * PAGE
            assert cache.held == held, f"seed {seed} step {step}"


def test_nothing_is_kept_of_files_of_which_nothing_is_here() -> None:
    cache = DataCache(4 * PAGE)
    for inode in range(10):
        cache.agree(inode, 1, 2 * PAGE)
        reservation = cache.reserve(inode, 0, 1 << 16, 0, 2 * PAGE)
        assert reservation is not None
        cache.filled(reservation)
        cache.closed(inode)
    assert cache.get(9, 0, 0, PAGE) is not None
    assert len(cache._inodes) == 2, "the others have made room"
    cache.agree(20, 1, 0)
    cache.closed(20)
    assert 20 not in cache._inodes


def kept(cache: DataCache, index: int, offset: int, data: bytes, *, last: bool = False) -> None:
    cache.keep(1, index, CHUNK, offset, memoryview(data), last=last)


def test_what_was_stored_answers_reads() -> None:
    cache = DataCache(1 << 20)
    cache.agree(1, 1, 3 * PAGE + 5)
    data = bytes(range(256)) * 48 + b"tail!"
    assert not cache.holds(1)
    kept(cache, 0, 0, data, last=True)
    assert cache.holds(1) and cache.held == 4 * PAGE
    assert cache.get(1, 0, 0, len(data)) == data
    cache.invalidate(1, CHUNK, len(data), len(data) + 1)
    assert cache.get(1, 0, 3 * PAGE, 1) is None, "the file has become longer within its last page"
    assert cache.get(1, 0, 0, 3 * PAGE) == data[: 3 * PAGE]


def test_parts_of_pages_are_not_kept_unless_the_file_ends_there() -> None:
    cache = DataCache(1 << 20)
    cache.agree(1, 1, CHUNK)
    kept(cache, 0, 100, bytes([7]) * (2 * PAGE))
    assert cache.get(1, 0, PAGE, PAGE) == bytes([7]) * PAGE
    assert cache.get(1, 0, 100, 1) is None and cache.get(1, 0, 2 * PAGE, 1) is None
    kept(cache, 1, 100, b"x" * 50, last=True)
    assert cache.get(1, 1, 100, 50) is None and cache.held == PAGE


def test_what_was_stored_does_not_land_where_a_read_lands() -> None:
    cache = DataCache(1 << 20)
    cache.agree(1, 1, CHUNK)
    reservation = cache.reserve(1, 0, CHUNK, 0, 2 * PAGE)
    assert reservation is not None
    cache.invalidate(1, CHUNK, 0, PAGE)
    kept(cache, 0, 0, b"n" * PAGE)
    reservation.view[:] = b"o" * (2 * PAGE)
    cache.filled(reservation)
    assert cache.get(1, 0, 0, 1) is None


def test_nothing_is_kept_of_a_file_of_which_no_version_is_known_nor_beyond_the_bound() -> None:
    cache = DataCache(2 * PAGE)
    kept(cache, 0, 0, b"x" * PAGE)
    assert cache.held == 0
    cache.agree(1, 1, CHUNK)
    kept(cache, 0, 0, b"x" * (3 * PAGE))
    assert cache.held == 0
    for index in range(5):
        kept(cache, index, 0, b"x" * PAGE)
        assert cache.get(1, index, 0, PAGE) == b"x" * PAGE
        assert cache.held <= 2 * PAGE
