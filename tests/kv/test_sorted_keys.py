"""Keys in order against a sorted list."""

from hypothesis import given
from hypothesis import strategies as st

from fs_meta.kv.sorted_keys import BLOCK, SortedKeys

KEYS = st.binary(min_size=1, max_size=3)


@given(st.lists(st.lists(KEYS, max_size=40), max_size=8), st.lists(st.tuples(KEYS, KEYS), min_size=1, max_size=6))
def test_any_keys_in_any_order(groups: list[list[bytes]], ranges: list[tuple[bytes, bytes]]) -> None:
    keys = SortedKeys()
    model: set[bytes] = set()
    for group in [*groups, []]:
        for key in group:
            if key not in model:
                model.add(key)
                keys.add(key)
        for begin, end in ranges:
            expected = sorted(key for key in model if begin <= key < end)
            for reverse in (False, True):
                found = keys.between(begin, end, reverse)
                assert list(found or ()) == (expected[::-1] if reverse else expected)
                assert (found is None) == (not expected)


def test_many_keys_between_many_reads() -> None:
    """Blocks are split, and ranges go over many of them."""
    keys = SortedKeys(b"%06d" % number for number in range(0, 40 * BLOCK, 2))
    model = {b"%06d" % number for number in range(0, 40 * BLOCK, 2)}
    assert list(keys.between(b"", b"\xff") or ()) == sorted(model)
    for number in [*range(1, 6 * BLOCK, 2), *(BLOCK * 20 + 1 + step * 2 for step in range(BLOCK))]:
        keys.add(b"%06d" % number)
        model.add(b"%06d" % number)
        begin, end = b"%06d" % max(number - 30, 0), b"%06d" % (number + 31)
        expected = sorted(key for key in model if begin <= key < end)
        assert list(keys.between(begin, end) or ()) == expected
    for reverse in (False, True):
        assert list(keys.between(b"000100", b"009000", reverse) or ()) == sorted(
            (key for key in model if b"000100" <= key < b"009000"), reverse=reverse
        )
