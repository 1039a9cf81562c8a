"""The frame header: the only bytes on a data-plane connection that both ends must agree on before anything else.

One frame is header, body, payload, with nothing in between. All integers are little-endian:

    offset  size  field
    0       4     magic          "EMBR"
    4       1     version        of this table, 1
    5       1     kind           1 request, 2 response, 3 error, 4 goodbye
    6       2     method         number from `methods.py`; 0 in a goodbye
    8       4     request id     chosen by the caller, answered with; 0 where a frame belongs to no request
    12      4     body length    bytes, at most `BODY_BYTES_MAX`
    16      4     payload length bytes, at most `PAYLOAD_BYTES_MAX`
    20      4     deadline ms    requests: time left when it was sent, 0 for none; otherwise 0
    24      4     trace          requests: the operation that it is made for (`tracing.py`), 0 for none; otherwise 0
    28      4     crc32c         of bytes 0 .. 27

The body is a msgpack record (`records/`); of an error frame, `records.session.ErrorBody`; of a goodbye, nothing.
The payload is raw bytes that no code parses.

Decoding any 32 bytes gives a header or a `FrameError` that names the bad field. Pure.
"""

import enum
import struct
from typing import NamedTuple

from crc32c import crc32c

from fs_common.limits import BODY_BYTES_MAX, PAYLOAD_BYTES_MAX

MAGIC = int.from_bytes(b"EMBR", "little")
FRAME_VERSION = 1
HEADER_SIZE = 32
DEADLINE_MS_MAX = 2**32 - 1
REQUEST_ID_MAX = 2**32 - 1

_HEADER = struct.Struct("<IBBHIIIIII")
_COVERED = struct.Struct("<IBBHIIIII")
_CRC = struct.Struct("<I")
_CRC_OFFSET = _COVERED.size

assert _HEADER.size == HEADER_SIZE
assert HEADER_SIZE - _CRC.size == _CRC_OFFSET


class Kind(enum.IntEnum):
    REQUEST = 1
    RESPONSE = 2
    ERROR = 3
    GOODBYE = 4
    """The sender takes no new requests on this connection; those it has are still answered."""


REQUEST = int(Kind.REQUEST)
RESPONSE = int(Kind.RESPONSE)
ERROR = int(Kind.ERROR)
GOODBYE = int(Kind.GOODBYE)
"""Plain ints: comparing enum members costs more than parsing the rest of the header."""


class FrameError(Exception):
    """Bytes that are no frame of this protocol. `field` is the header field that is wrong."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"bad frame: {field}: {message}")
        self.field = field


class Header(NamedTuple):
    kind: int
    method: int
    request: int
    body_length: int
    payload_length: int
    deadline_ms: int
    trace: int


def pack(
    kind: int,
    method: int,
    request: int,
    body_length: int,
    payload_length: int = 0,
    deadline_ms: int = 0,
    trace: int = 0,
) -> bytes:
    """The 32 bytes. The caller keeps lengths within their bounds."""
    covered = _COVERED.pack(
        MAGIC, FRAME_VERSION, kind, method, request, body_length, payload_length, deadline_ms, trace
    )
    return covered + _CRC.pack(crc32c(covered))


def kind_and_request(frame: bytes) -> tuple[int, int]:
    """Of a frame that this process has packed."""
    return frame[5], int.from_bytes(frame[8:12], "little")


def unpack(
    buffer: bytes | bytearray | memoryview,
    offset: int = 0,
    body_bytes_max: int = BODY_BYTES_MAX,
    payload_bytes_max: int = PAYLOAD_BYTES_MAX,
) -> Header:
    """The header in `buffer[offset:offset + 32]`. Raises `FrameError`."""
    magic, version, kind, method, request, body_length, payload_length, deadline_ms, trace, crc = _HEADER.unpack_from(
        buffer, offset
    )
    if (
        magic != MAGIC
        or version != FRAME_VERSION
        or crc != crc32c(memoryview(buffer)[offset : offset + _CRC_OFFSET])
        or not REQUEST <= kind <= GOODBYE
        or body_length > body_bytes_max
        or payload_length > payload_bytes_max
    ):
        raise _diagnosis(memoryview(buffer)[offset : offset + HEADER_SIZE], body_bytes_max, payload_bytes_max)
    return Header(kind, method, request, body_length, payload_length, deadline_ms, trace)


def _diagnosis(header: memoryview, body_bytes_max: int, payload_bytes_max: int) -> FrameError:
    """Which field is wrong. Magic and version come before the checksum: another version may compute another one."""
    magic, version, kind, _, _, body_length, payload_length, _, _, crc = _HEADER.unpack_from(header, 0)
    if magic != MAGIC:
        if bytes(header[:2]) == b"\x16\x03":
            return FrameError("magic", "the peer speaks TLS, and this server has no certificates (tls_dir)")
        return FrameError("magic", f"{bytes(header[:4])!r} is not b'EMBR'; the peer speaks another protocol")
    if version != FRAME_VERSION:
        return FrameError("version", f"{version} is not {FRAME_VERSION}; upgrade the older side")
    computed = crc32c(header[:_CRC_OFFSET])
    if crc != computed:
        return FrameError("crc32c", f"{crc:#010x} where the header's bytes give {computed:#010x}")
    if not REQUEST <= kind <= GOODBYE:
        return FrameError("kind", f"{kind} is none of 1 to 4")
    if body_length > body_bytes_max:
        return FrameError("body length", f"{body_length} bytes is over the bound of {body_bytes_max}")
    return FrameError("payload length", f"{payload_length} bytes is over the bound of {payload_bytes_max}")
