"""A keyed permutation of 0 .. n-1: the order of an epoch as a pure function of (seed, epoch, position).

Nothing is materialised: any position is computed on its own in O(1), so an epoch can be sharded, entered in the middle
and resumed under another number of ranks without replaying anything. Pure; vectorised over NumPy arrays.

The order is part of what users save in checkpoints, so it is specified here bit by bit and pinned by test vectors;
it never changes under the same `VERSION`. All arithmetic is modulo 2**64 unless it says otherwise:

    mix(z):  z = (z xor (z >> 30)) * 0xBF58476D1CE4E5B9
             z = (z xor (z >> 27)) * 0x94D049BB133111EB
             z xor (z >> 31)                                        (the finaliser of splitmix64)
    GOLDEN = 0x9E3779B97F4A7C15
    state  = mix(mix(seed + GOLDEN) xor epoch)
    rounds = 24 if n < 65536 else 8
    key[k] = mix(state + (k + 1) * GOLDEN)                          for k in 0 .. rounds-1

    a = ceil(sqrt(n)),  b = ceil(n / a)                             (so n <= a * b < n + a)
    walk(x), 0 <= x < a * b:
        left, right = x div b, x mod b                              (0 <= left < a, 0 <= right < b)
        for k in 0 .. rounds-1:
            even k: left  = (left  + ((mix(right + key[k]) >> 32) * a >> 32)) mod a
            odd k:  right = (right + ((mix(left  + key[k]) >> 32) * b >> 32)) mod b
        left * b + right
    index(position) = walk(position), and walk again while the result is >= n.

This is the generalised Feistel network of Black and Rogaway (2002) on a grid that is hardly larger than n: each round
adds to one half a function of the other half, so `walk` is a bijection of 0 .. a*b-1 whatever `mix` is, and walking
along its cycles until a value below n makes a bijection of 0 .. n-1. Because a * b < n + a, a second walk is needed
for one position in about sqrt(n). A small grid needs more rounds to reach all orders equally often (over 6 samples 16
rounds still show in a chi-square test, 24 do not); a large one mixes in 8. It is a shuffle for training, not a cipher.
"""

import math

import numpy as np
from numpy.typing import NDArray

from fs_common.errors import Code, EmberError

VERSION = 1
COUNT_MAX = 2**62
"""Halves then fit 32 bits, so that their products fit 64."""

_ROUNDS = 8
_ROUNDS_SMALL = 24
_SMALL_COUNT = 65_536
_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MULTIPLIER_1 = 0xBF58476D1CE4E5B9
_MULTIPLIER_2 = 0x94D049BB133111EB

Words = NDArray[np.uint64]


def mix(z: int) -> int:
    """The finaliser of splitmix64, on one 64-bit number."""
    z = ((z ^ (z >> 30)) * _MULTIPLIER_1) & _MASK
    z = ((z ^ (z >> 27)) * _MULTIPLIER_2) & _MASK
    return z ^ (z >> 31)


def round_keys(count: int, seed: int, epoch: int) -> tuple[int, ...]:
    """The 64-bit keys of one epoch, one for each round. `seed` and `epoch` are taken modulo 2**64."""
    rounds = _ROUNDS_SMALL if count < _SMALL_COUNT else _ROUNDS
    state = mix(mix((seed + _GOLDEN) & _MASK) ^ (epoch & _MASK))
    return tuple(mix((state + (k + 1) * _GOLDEN) & _MASK) for k in range(rounds))


def grid(count: int) -> tuple[int, int]:
    """(a, b): the sides of the grid the network works on."""
    side = math.isqrt(count)
    a = side if side * side == count else side + 1
    a = max(a, 1)
    return a, -(-count // a)


class Permutation:
    """The order of one epoch over `count` samples. A value: equal arguments give equal orders, in every process."""

    __slots__ = ("_a", "_b", "_keys", "count")

    def __init__(self, count: int, seed: int, epoch: int) -> None:
        """`count`: 0 .. 2**62. Raises `EmberError(INVALID)` outside."""
        if not 0 <= count <= COUNT_MAX:
            raise EmberError(Code.INVALID, f"cannot permute {count} samples: 0 to 2**62 are possible")
        self.count = count
        self._a, self._b = grid(count)
        self._keys = tuple(np.uint64(key) for key in round_keys(count, seed, epoch))

    def __call__(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """The sample indices at these positions of the epoch, as a new int64 array of the same shape.

        `positions`: any int64 values from 0 to count-1, in any order. Raises `EmberError(INVALID)` outside.
        """
        if positions.size == 0:
            return np.empty(positions.shape, np.int64)
        if int(positions.min()) < 0 or int(positions.max()) >= self.count:
            raise EmberError(Code.INVALID, f"positions outside 0 .. {self.count - 1}")
        indices = self._walk(positions.astype(np.uint64))
        outside = np.flatnonzero(indices.ravel() >= self.count)
        flat = indices.ravel()
        while outside.size:
            flat[outside] = self._walk(flat[outside])
            outside = outside[flat[outside] >= self.count]
        return flat.reshape(positions.shape).astype(np.int64)

    def _walk(self, x: Words) -> Words:
        left, right = np.divmod(x, np.uint64(self._b))
        for k, key in enumerate(self._keys):
            if k % 2 == 0:
                _add_round(left, right, key, self._a)
            else:
                _add_round(right, left, key, self._b)
        left *= np.uint64(self._b)
        left += right
        return left


def _add_round(target: Words, source: Words, key: np.uint64, side: int) -> None:
    """target = (target + F(source)) mod side, in place; F is `mix` scaled to 0 .. side-1."""
    z = source + key
    z ^= z >> np.uint64(30)
    z *= np.uint64(_MULTIPLIER_1)
    z ^= z >> np.uint64(27)
    z *= np.uint64(_MULTIPLIER_2)
    z ^= z >> np.uint64(31)
    z >>= np.uint64(32)
    z *= np.uint64(side)
    z >>= np.uint64(32)
    target += z
    np.subtract(target, np.uint64(side), out=target, where=target >= np.uint64(side))
