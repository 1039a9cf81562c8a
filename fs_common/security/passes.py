"""A pass: an identity for which the metadata service vouches to storage daemons. They see no token.

    offset  size  field
    0       1     version   1
    1       4     key       id of the key it is made under, little-endian
    5       2     length    of the record, little-endian
    7       n     record    msgpack of an `Identity`
    7+n     32    mac       keyed BLAKE2b of bytes 0 .. 7+n-1, personalised with "emberfs pass"

It names the client or node that may show it and says nothing of time: it is valid while its key is in the ring and its
token is not revoked. Whoever reads one on an open wire can show it, along with the client's id; TLS is against that.

Decoding any bytes gives an identity or PASS_REFUSED. Pure.

Page: docs/SECURITY.md.
"""

import struct
from typing import Final

import msgspec

from fs_common.security.identity import Identity
from fs_common.security.keys import MAC_BYTES, Key, KeyRing, refuse_pass, same

PASS_VERSION: Final = 1
PASS_BYTES_MAX: Final = 2048
"""With `GROUPS_MAX` groups; a hello with a pass stays below what a stranger may make a server hold."""
GROUPS_MAX: Final = 256
NAME_LENGTH_MAX: Final = 64

_PURPOSE: Final = b"emberfs pass"
_HEADER: Final = struct.Struct("<BIH")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Identity).decode

assert _HEADER.size == 7


def make_pass(key: Key, identity: Identity) -> bytes:
    """The pass that shows `identity`, under `key`."""
    record = _encode(identity)
    signed = _HEADER.pack(PASS_VERSION, key.id, len(record)) + record
    return signed + key.mac(_PURPOSE, signed)


def check_pass(ring: KeyRing, shown: bytes) -> Identity:
    """Whom a pass shows. Raises PASS_REFUSED: it is none, or not valid (any more)."""
    if not shown:
        raise refuse_pass("this cluster has security on, and the caller shows no pass: connect with a token")
    if len(shown) > PASS_BYTES_MAX or len(shown) < _HEADER.size + MAC_BYTES:
        raise refuse_pass(f"the pass is malformed: it has {len(shown)} bytes")
    version, number, length = _HEADER.unpack_from(shown)
    if version != PASS_VERSION:
        raise refuse_pass(f"the pass has version {version}, this release knows {PASS_VERSION}; upgrade the older side")
    end = _HEADER.size + length
    if len(shown) != end + MAC_BYTES:
        raise refuse_pass(f"the pass is malformed: its length says {length}")
    key = ring.key(number)
    if key is None:
        raise refuse_pass(f"the pass was made under key {number}, which is not in use here (any more, or yet)")
    if not same(key.mac(_PURPOSE, shown[:end]), shown[end:]):
        raise refuse_pass(f"the pass is not of this cluster, or was changed: key {number} does not vouch for it")
    try:
        return _decode(shown[_HEADER.size : end])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise refuse_pass(f"the pass holds no identity: {error}") from None
