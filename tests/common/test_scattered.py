"""The payload of a scattered update, byte for byte, and what is refused."""

import random

import pytest

from fs_common.errors import Code, EmberError
from fs_common.records.scattered import PIECES_MAX, pack, unpack

CHUNK = 1 << 20


def view(data: bytes) -> memoryview:
    return memoryview(data)


def test_golden_bytes() -> None:
    packed = pack([(16, view(b"abc")), (4096, view(b"z"))])
    assert packed.hex() == "02000000" + "1000000003000000" + "0010000001000000" + b"abcz".hex()
    assert [(offset, bytes(data)) for offset, data in unpack(view(packed), CHUNK)] == [(16, b"abc"), (4096, b"z")]


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"\1\0\0", "less than a count"),
        (b"\0\0\0\0", "0 pieces"),
        (b"\1\0\0\0abc", "1 pieces in 7 bytes"),
        (pack([(0, view(b""))]), "empty"),
        (pack([(4, view(b"ab")), (5, view(b"c"))]), "piece 5"),
        (pack([(CHUNK - 1, view(b"ab"))]), "beyond the chunk"),
        (pack([(0, view(b"ab"))]) + b"c", "take 14 of 15"),
        (pack([(0, view(b"ab"))])[:-1], "take 14 of 13"),
        (pack([(index, view(b"a")) for index in range(PIECES_MAX + 1)]), "4097 pieces"),
    ],
)
def test_what_does_not_add_up_is_refused(payload: bytes, why: str) -> None:
    with pytest.raises(EmberError, match=why) as refused:
        unpack(view(payload), CHUNK)
    assert refused.value.code is Code.INVALID


def test_any_bytes_give_pieces_or_a_clean_error() -> None:
    for seed in range(300):
        rng = random.Random(seed)
        packed = bytearray(pack([(10 * place, view(rng.randbytes(5))) for place in range(rng.randint(1, 5))]))
        for _ in range(rng.randint(1, 3)):
            packed[rng.randrange(len(packed))] = rng.randrange(256)
        try:
            pieces = unpack(view(bytes(packed[: rng.randint(0, len(packed))])), CHUNK)
        except EmberError as error:
            assert error.code is Code.INVALID, f"seed {seed}"
        else:
            assert all(offset >= 0 and offset + len(data) <= CHUNK for offset, data in pieces), f"seed {seed}"
