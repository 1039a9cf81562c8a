"""Records under a message authentication code: what passes and permits have in common.

    offset  size  field
    0       1     version   of the kind of record
    1       4     key       id of the key it is made under, little-endian
    5       2, 4  length    of the record, little-endian
    .       n     record    msgpack
    .       32    mac       keyed BLAKE2b of all before it, personalised with the kind's purpose

Opening any bytes gives the record or PASS_REFUSED. Pure.

Page: docs/SECURITY.md.
"""

import struct
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from fs_common.security.keys import MAC_BYTES, Key, KeyRing, refuse_pass, same

T = TypeVar("T", bound=msgspec.Struct)
_encode = msgspec.msgpack.Encoder().encode


class Kind(NamedTuple, Generic[T]):
    """What is sealed."""

    name: str
    """In messages."""
    version: int
    purpose: bytes
    header: struct.Struct
    """Version, key, length."""
    bytes_max: int
    decode: Callable[[bytes], T]
    holds: str
    """What the record is, in messages."""


def kind_of(
    record: type[T], name: str, holds: str, *, version: int, purpose: bytes, length: str, bytes_max: int
) -> Kind[T]:
    """`length`: its format, "H" or "I"."""
    decoder: Any = msgspec.msgpack.Decoder(record)
    return Kind(name, version, purpose, struct.Struct(f"<BI{length}"), bytes_max, decoder.decode, holds)


def seal(kind: Kind[T], key: Key, record: T) -> bytes:
    body = _encode(record)
    signed = kind.header.pack(kind.version, key.id, len(body)) + body
    return signed + key.mac(kind.purpose, signed)


def unseal(kind: Kind[T], ring: KeyRing, shown: bytes) -> T:
    """What a key of the ring vouches for. Raises PASS_REFUSED."""
    name, header = kind.name, kind.header
    if not header.size + MAC_BYTES <= len(shown) <= kind.bytes_max:
        raise refuse_pass(f"the {name} is malformed: it has {len(shown)} bytes")
    version, number, length = header.unpack_from(shown)
    if version != kind.version:
        raise refuse_pass(
            f"the {name} has version {version}, this release knows {kind.version}; upgrade the older side"
        )
    end = header.size + length
    if len(shown) != end + MAC_BYTES:
        raise refuse_pass(f"the {name} is malformed: its length says {length}")
    key = ring.key(number)
    if key is None:
        raise refuse_pass(f"the {name} was made under key {number}, which is not in use here (any more, or yet)")
    if not same(key.mac(kind.purpose, shown[:end]), shown[end:]):
        raise refuse_pass(f"the {name} is not of this cluster, or was changed: key {number} does not vouch for it")
    try:
        return kind.decode(shown[header.size : end])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise refuse_pass(f"the {name} holds no {kind.holds}: {error}") from None
