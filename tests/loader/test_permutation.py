"""The epoch order: pinned, a bijection, evenly spread, the same whichever way it is asked."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fs_client.loader.permutation import COUNT_MAX, Permutation, grid, mix, round_keys
from fs_common.errors import EmberError

MASK = 2**64 - 1
VECTORS = [
    (10, 0, 0, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [8, 3, 2, 6, 1, 7, 0, 9, 5, 4]),
    (10, 0, 1, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [6, 0, 8, 4, 3, 1, 5, 2, 7, 9]),
    (10, 1, 0, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [8, 0, 1, 5, 4, 6, 7, 9, 2, 3]),
    (7, -1, 18446744073709551615, [0, 1, 2, 3, 4, 5, 6], [3, 5, 1, 2, 4, 0, 6]),
    (65535, 42, 3, [0, 1, 2, 65534], [64783, 24769, 19344, 39952]),
    (65536, 42, 3, [0, 1, 2, 65535], [31872, 22508, 9765, 64414]),
    (1000000000, 123456789, 17, [0, 1, 999999998, 999999999], [640735898, 125535672, 826331038, 267564654]),
    (
        4611686018427387904,
        18446744073709551615,
        5,
        [0, 1, 4611686018427387903],
        [143845038216312638, 3655677632687053863, 3729543117420519830],
    ),
]


def reference(count: int, seed: int, epoch: int, position: int) -> int:
    """The specification of the module's docstring, word by word, on Python's integers."""
    keys = round_keys(count, seed, epoch)
    a, b = grid(count)
    value = position
    while True:
        left, right = divmod(value, b)
        for k, key in enumerate(keys):
            if k % 2 == 0:
                left = (left + ((mix((right + key) & MASK) >> 32) * a >> 32)) % a
            else:
                right = (right + ((mix((left + key) & MASK) >> 32) * b >> 32)) % b
        value = left * b + right
        if value < count:
            return value


@pytest.mark.parametrize(("count", "seed", "epoch", "positions", "indices"), VECTORS)
def test_the_order_is_pinned(count: int, seed: int, epoch: int, positions: list[int], indices: list[int]) -> None:
    assert Permutation(count, seed, epoch)(np.array(positions)).tolist() == indices


def test_mix_is_the_finaliser_of_splitmix64() -> None:
    # The published first outputs of splitmix64 from state 0.
    golden = 0x9E3779B97F4A7C15
    assert [mix(golden * k & MASK) for k in (1, 2, 3)] == [
        0xE220A8397B1DCDAF,
        0x6E789E6AA1B965F4,
        0x06C45D188009454F,
    ]


@settings(deadline=None, max_examples=150)
@given(st.integers(1, 3000), st.integers(-(2**70), 2**70), st.integers(0, 2**64))
def test_every_index_comes_exactly_once(count: int, seed: int, epoch: int) -> None:
    indices = Permutation(count, seed, epoch)(np.arange(count))
    assert np.array_equal(np.sort(indices), np.arange(count))


@settings(deadline=None, max_examples=150)
@given(st.integers(1, COUNT_MAX), st.integers(0, MASK), st.integers(0, MASK), st.data())
def test_vectorised_equals_the_specification(count: int, seed: int, epoch: int, data: st.DataObject) -> None:
    positions = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=8))
    indices = Permutation(count, seed, epoch)(np.array(positions))
    assert indices.tolist() == [reference(count, seed, epoch, position) for position in positions]


@given(st.integers(1, COUNT_MAX))
def test_the_grid_hardly_exceeds_the_count(count: int) -> None:
    a, b = grid(count)
    assert count <= a * b < count + a
    assert max(a, b) < 2**32


def test_all_orders_of_five_are_equally_frequent() -> None:
    tries_each = 20
    counts = dict.fromkeys(itertools.permutations(range(5)), 0)
    positions = np.arange(5)
    for seed in range(tries_each * math.factorial(5)):
        counts[tuple(Permutation(5, seed, 0)(positions).tolist())] += 1
    chi_square = sum((count - tries_each) ** 2 / tries_each for count in counts.values())
    assert chi_square < 190, "119 degrees of freedom: above 190 once in 40,000 tries of a true shuffle"


@pytest.mark.parametrize("count", [1000, 100_000])
def test_positions_and_indices_are_uncorrelated(count: int) -> None:
    positions = np.arange(count)
    for epoch in range(20):
        indices = Permutation(count, 1, epoch)(positions)
        assert abs(np.corrcoef(positions, indices)[0, 1]) < 5 / math.sqrt(count)
        steps = np.diff(indices)
        assert np.count_nonzero(steps == 1) < 10, "neighbours are not kept together"


def test_epochs_and_seeds_give_other_orders() -> None:
    positions = np.arange(1000)
    orders = {Permutation(1000, seed, epoch)(positions).tobytes() for seed in range(10) for epoch in range(10)}
    assert len(orders) == 100


@pytest.mark.parametrize("position", [-1, 10])
def test_positions_outside_are_refused(position: int) -> None:
    with pytest.raises(EmberError, match="outside"):
        Permutation(10, 0, 0)(np.array([0, position]))


@pytest.mark.parametrize("count", [-1, COUNT_MAX + 1])
def test_counts_outside_are_refused(count: int) -> None:
    with pytest.raises(EmberError, match="permute"):
        Permutation(count, 0, 0)


def test_nothing_to_permute() -> None:
    assert Permutation(0, 0, 0)(np.arange(0)).size == 0


def test_any_shape_is_kept() -> None:
    flat = Permutation(5, 3, 1)(np.arange(4))
    assert Permutation(5, 3, 1)(np.arange(4).reshape(2, 2)).tolist() == flat.reshape(2, 2).tolist()
