"""Where an answer's payload lands: the same for whoever lays it out."""

from random import Random

import pytest

from fs_common.landing import filled


@pytest.mark.parametrize(
    ("sizes", "lengths", "length", "expected"),
    [
        ([4, 4], None, 8, [4, 4]),
        ([4, 4], [9, 9], 8, [4, 4]),  # it fills everything: there is nothing to lay out
        ([4, 4, 4], None, 5, [4, 1, 0]),
        ([4, 4, 4], [3, 0, 2], 5, [3, 0, 2]),
        ([4, 4], [1], 1, None),
        ([4, 4], [1, 1], 3, None),
        ([4, 4], [5, 0], 5, None),
        ([4, 4], [-1, 4], 3, None),
        ([4], None, 5, None),
        ([], None, 1, None),
        ([], None, 0, []),
    ],
)
def test_rule(sizes: list[int], lengths: list[int] | None, length: int, expected: list[int] | None) -> None:
    assert filled(sizes, lengths, length) == expected


def test_nothing_lands_outside_or_is_lost() -> None:
    random = Random(5)
    fitted = 0
    for _ in range(3000):
        sizes = [random.randrange(5) for _ in range(random.randrange(6))]
        lengths = [random.randrange(-1, 6) for _ in range(random.randrange(6))] if random.random() < 0.7 else None
        length = sum(lengths) if lengths and random.random() < 0.7 else random.randrange(20)
        taken = filled(sizes, lengths, length)
        if taken is None:
            continue
        fitted += 1
        assert len(taken) == len(sizes)
        assert sum(taken) == length
        assert all(0 <= item <= size for item, size in zip(taken, sizes, strict=True))
    assert fitted > 300
