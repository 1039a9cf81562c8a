"""A permit: rights of one client to the contents of files, for which the metadata service vouches to storage daemons.

    offset  size  field
    0       1     version   1
    1       4     key       id of the key it is made under, little-endian
    5       4     length    of the record, little-endian
    9       n     record    msgpack of a `Permit`
    9+n     32    mac       keyed BLAKE2b of bytes 0 .. 9+n-1, personalised with "emberfs permit"

Who acts for one user alone shows permits on a connection that a pass has opened; mounts and root need none. Like an
open descriptor a permit outlives a change of the file's mode: it is valid while its key is in the ring, for the client
that it names.

Decoding any bytes gives a permit or PASS_REFUSED. Pure.

Page: docs/SECURITY.md.
"""

import struct
from typing import Final

import msgspec

from fs_common.limits import READ_ITEMS_MAX
from fs_common.records.session import Right as Right
from fs_common.security.keys import MAC_BYTES, Key, KeyRing, refuse_pass, same

PERMIT_VERSION: Final = 1
PERMIT_INODES_MAX: Final = READ_ITEMS_MAX
"""As many files as one frame of reads may be of."""
PERMIT_BYTES_MAX: Final = 128 + 10 * PERMIT_INODES_MAX

_PURPOSE: Final = b"emberfs permit"
_HEADER: Final = struct.Struct("<BII")


class Permit(msgspec.Struct, frozen=True, array_like=True):
    client: bytes
    """Who may show it: `Hello.client`."""
    inodes: list[int]
    rights: list[int]
    """`Right`s to each of them."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Permit).decode


def make_permit(key: Key, permit: Permit) -> bytes:
    record = _encode(permit)
    signed = _HEADER.pack(PERMIT_VERSION, key.id, len(record)) + record
    return signed + key.mac(_PURPOSE, signed)


def check_permit(ring: KeyRing, shown: bytes, client: bytes) -> Permit:
    """What `client` may do. Raises PASS_REFUSED: it is no permit, not this client's, or not valid (any more)."""
    if not _HEADER.size + MAC_BYTES <= len(shown) <= PERMIT_BYTES_MAX:
        raise refuse_pass(f"the permit is malformed: it has {len(shown)} bytes")
    version, number, length = _HEADER.unpack_from(shown)
    if version != PERMIT_VERSION:
        raise refuse_pass(f"the permit has version {version}, this release knows {PERMIT_VERSION}")
    end = _HEADER.size + length
    if len(shown) != end + MAC_BYTES:
        raise refuse_pass(f"the permit is malformed: its length says {length}")
    key = ring.key(number)
    if key is None:
        raise refuse_pass(f"the permit was made under key {number}, which is not in use here (any more, or yet)")
    if not same(key.mac(_PURPOSE, shown[:end]), shown[end:]):
        raise refuse_pass(f"the permit is not of this cluster, or was changed: key {number} does not vouch for it")
    try:
        permit = _decode(shown[_HEADER.size : end])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise refuse_pass(f"the permit holds no rights: {error}") from None
    if permit.client != client or len(permit.inodes) != len(permit.rights):
        raise refuse_pass("the permit is another client's")
    return permit
