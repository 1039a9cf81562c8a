"""The chains of a file are the same for ever, on every version and machine."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fs_common.errors import Code, EmberError
from fs_common.layout import Layout, split, stripe_chains, validate
from fs_common.limits import CHUNK_INDEX_MAX, KIB, MIB

# Computed once from the specification in layout.py; splitmix64's first outputs for seed 0 are the published
# 0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F. A change here is a change of the format.
VECTORS = [
    (1, 0, 0, [10], (10,)),
    (4, 0, 0, [1, 2, 3, 4], (3, 1, 2, 4)),
    (4, 2, 1, [1, 2, 3, 4], (3, 4, 2, 1)),
    (3, 4, 0xDEADBEEF, [11, 22, 33, 44, 55], (22, 11, 55)),
    (8, 5, 0x0123456789ABCDEF, [1, 2, 3, 4, 5, 6], (2, 3, 1, 5, 4, 6)),
    (
        16,
        7,
        2**64 - 1,
        list(range(100, 120)),
        (108, 102, 118, 119, 111, 114, 107, 113, 109, 117, 116, 115, 112, 110, 100, 101),
    ),
    (
        32,
        63,
        42,
        list(range(1, 65)),
        (
            *(22, 6, 2, 12, 16, 21, 13, 19, 18, 25, 64, 17, 26, 15, 7, 27),
            *(3, 11, 28, 24, 10, 30, 14, 29, 20, 5, 31, 1, 9, 8, 4, 23),
        ),
    ),
]


@pytest.mark.parametrize(("stripe", "first", "seed", "table", "chains"), VECTORS)
def test_vectors(stripe: int, first: int, seed: int, table: list[int], chains: tuple[int, ...]) -> None:
    assert stripe_chains(Layout(stripe=stripe, first=first, seed=seed), table) == chains


def splitmix64(state: int) -> tuple[int, int]:
    """From its author's C code, written independently of layout.py."""
    state = (state + 0x9E3779B97F4A7C15) % 2**64
    z = state
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return state, z ^ z >> 31


@given(stripe=st.integers(1, 40), first=st.integers(0, 100), seed=st.integers(0, 2**64 - 1), size=st.integers(1, 40))
@settings(deadline=None)
def test_every_file_uses_consecutive_chains_of_its_table_in_an_order_of_its_own(
    stripe: int, first: int, seed: int, size: int
) -> None:
    table = list(range(1000, 1000 + size))
    chains = stripe_chains(Layout(stripe=stripe, first=first, seed=seed), table)
    count = min(stripe, size)
    expected = [table[(first + k) % size] for k in range(count)]
    state = seed
    for k in reversed(range(1, count)):
        state, z = splitmix64(state)
        j = z * (k + 1) // 2**64
        expected[k], expected[j] = expected[j], expected[k]
    assert chains == tuple(expected)
    assert len(set(chains)) == count


def test_first_chunks_of_many_files_are_spread_evenly() -> None:
    """Small files have one chunk: the seed must not favour a chain."""
    table = list(range(8))
    counts = Counter(stripe_chains(Layout(stripe=8, seed=seed), table)[0] for seed in range(8000))
    assert set(counts) == set(table)
    assert all(880 < count < 1120 for count in counts.values()), counts


def test_every_order_of_a_small_stripe_comes_up_evenly() -> None:
    counts = Counter(stripe_chains(Layout(stripe=3, seed=seed), [1, 2, 3]) for seed in range(6000))
    assert len(counts) == 6
    assert all(850 < count < 1150 for count in counts.values()), counts


@given(
    chunk_size=st.sampled_from([64 * KIB, MIB, 64 * MIB]), offset=st.integers(0, 2**40), length=st.integers(0, 2**26)
)
@settings(deadline=None)
def test_split_covers_the_range_once_and_crosses_no_border(chunk_size: int, offset: int, length: int) -> None:
    position = 0
    for extent in split(chunk_size, offset, length):
        assert extent.position == position
        assert extent.index * chunk_size + extent.offset == offset + position
        assert 1 <= extent.length <= chunk_size - extent.offset
        position += extent.length
    assert position == length


def test_split_examples() -> None:
    assert list(split(MIB, 0, 0)) == []
    assert list(split(MIB, 5, 10)) == [(0, 5, 10, 0)]
    assert list(split(MIB, MIB - 1, 2)) == [(0, MIB - 1, 1, 0), (1, 0, 1, 1)]
    assert list(split(MIB, MIB, 2 * MIB)) == [(1, 0, MIB, 0), (2, 0, MIB, MIB)]


def test_split_ends_with_the_last_chunk_a_file_can_have() -> None:
    end = (CHUNK_INDEX_MAX + 1) * 64 * KIB
    assert [extent.index for extent in split(64 * KIB, end - 1, 1)] == [CHUNK_INDEX_MAX]
    with pytest.raises(EmberError, match="beyond the last chunk") as caught:
        list(split(64 * KIB, end - 1, 2))
    assert caught.value.code is Code.FILE_TOO_LARGE


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        (Layout(chunk_size=32 * KIB), "chunk size 32768"),
        (Layout(chunk_size=128 * MIB), "chunk size"),
        (Layout(chunk_size=MIB + 1), "power of two"),
        (Layout(stripe=0), "stripe 0"),
        (Layout(durability=2), "durability 2"),
    ],
)
def test_bad_layouts_are_refused_by_name(layout: Layout, words: str) -> None:
    validate(Layout())
    with pytest.raises(EmberError, match=words) as caught:
        validate(layout)
    assert caught.value.code is Code.INVALID
