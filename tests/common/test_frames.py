"""The header's bytes are pinned; any other bytes are refused with the name of the bad field."""

import struct

import pytest
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from fs_common import frames
from fs_common.frames import FrameError, Header, Kind, pack, unpack
from fs_common.limits import BODY_BYTES_MAX, PAYLOAD_BYTES_MAX
from fs_common.tracing import TRACE_MAX

GOLDEN = bytes.fromhex("454d4252 01 01 c800 04030201 11000000 00001000 88130000 0d0c0b0a 4b107366".replace(" ", ""))


def sealed(**changes: int) -> bytes:
    """A header with a right checksum and these fields."""
    fields = {
        "magic": frames.MAGIC,
        "version": 1,
        "kind": 1,
        "method": 2,
        "request": 3,
        "body": 4,
        "payload": 5,
        "deadline": 6,
        "trace": 0,
    }
    fields.update(changes)
    covered = struct.pack("<IBBHIIIII", *fields.values())
    return covered + struct.pack("<I", crc32c(covered))


def test_golden_bytes() -> None:
    assert pack(Kind.REQUEST, 200, 0x01020304, 17, 1 << 20, 5000, 0x0A0B0C0D) == GOLDEN
    assert unpack(GOLDEN) == Header(Kind.REQUEST, 200, 0x01020304, 17, 1 << 20, 5000, 0x0A0B0C0D)


def test_goodbye_golden_bytes() -> None:
    assert pack(Kind.GOODBYE, 0, 0, 0).hex() == "454d42520104000000000000000000000000000000000000000000003a23e0b1"


@given(
    kind=st.sampled_from(Kind),
    method=st.integers(0, 2**16 - 1),
    request=st.integers(0, frames.REQUEST_ID_MAX),
    body=st.integers(0, BODY_BYTES_MAX),
    payload=st.integers(0, PAYLOAD_BYTES_MAX),
    deadline=st.integers(0, frames.DEADLINE_MS_MAX),
    trace=st.integers(0, TRACE_MAX),
    offset=st.integers(0, 9),
)
@settings(deadline=None)
def test_what_is_packed_is_unpacked(
    kind: Kind, method: int, request: int, body: int, payload: int, deadline: int, trace: int, offset: int
) -> None:
    packed = bytes(offset) + pack(kind, method, request, body, payload, deadline, trace)
    assert unpack(packed, offset) == Header(kind, method, request, body, payload, deadline, trace)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"magic": 0x20544547}, "magic"),
        ({"version": 2}, "version"),
        ({"version": 0}, "version"),
        ({"kind": 0}, "kind"),
        ({"kind": 5}, "kind"),
        ({"body": BODY_BYTES_MAX + 1}, "body length"),
        ({"body": 2**32 - 1}, "body length"),
        ({"payload": PAYLOAD_BYTES_MAX + 1}, "payload length"),
    ],
)
def test_each_bad_field_is_named(changes: dict[str, int], field: str) -> None:
    with pytest.raises(FrameError, match=f"bad frame: {field}: ") as caught:
        unpack(sealed(**changes))
    assert caught.value.field == field


def test_bounds_are_inclusive() -> None:
    assert unpack(sealed(body=BODY_BYTES_MAX, payload=PAYLOAD_BYTES_MAX)).payload_length == PAYLOAD_BYTES_MAX
    with pytest.raises(FrameError, match="body length"):
        unpack(sealed(body=11), 0, body_bytes_max=10)


@pytest.mark.parametrize("bit", range(frames.HEADER_SIZE * 8))
def test_every_flipped_bit_is_found(bit: int) -> None:
    damaged = bytearray(GOLDEN)
    damaged[bit // 8] ^= 1 << bit % 8
    with pytest.raises(FrameError):
        unpack(damaged)


@given(st.binary(min_size=32, max_size=32))
@settings(deadline=None)
def test_any_bytes_are_a_header_or_a_clean_error(data: bytes) -> None:
    try:
        header = unpack(data)
    except FrameError as error:
        assert error.field
    else:
        assert pack(*header) == data
