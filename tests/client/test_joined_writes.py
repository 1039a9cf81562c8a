"""Writes that become pieces: what is later counts, and pieces touch nobody."""

import random
from itertools import pairwise

from fs_client.joined_writes import join


def test_pieces_are_what_the_writes_come_to() -> None:
    for seed in range(300):
        rng = random.Random(seed)
        size = rng.choice([20, 200, 5000])
        plain = bytearray(size)
        touched = bytearray(size)
        writes = []
        for _ in range(rng.randint(1, 30)):
            offset = rng.randrange(size)
            data = rng.randbytes(rng.randint(1, min(size - offset, rng.choice([1, 8, size]))))
            writes.append((1000 + offset, memoryview(data)))
            plain[offset : offset + len(data)] = data
            touched[offset : offset + len(data)] = b"\1" * len(data)
        pieces = join(writes)
        joined = bytearray(size)
        for offset, data in pieces:
            joined[offset - 1000 : offset - 1000 + len(data)] = data
            touched[offset - 1000 : offset - 1000 + len(data)] = bytes(len(data))
        assert joined == plain and not any(touched), f"seed {seed}"
        assert all(offset + len(data) < after for (offset, data), (after, _) in pairwise(pieces)), f"seed {seed}"


def test_a_single_write_is_not_copied() -> None:
    data = memoryview(bytearray(b"abc"))
    ((offset, piece),) = join([(7, data)])
    assert offset == 7 and piece is data
