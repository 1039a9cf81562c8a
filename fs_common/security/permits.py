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

from typing import Final

import msgspec

from fs_common.limits import READ_ITEMS_MAX
from fs_common.records.session import Right as Right
from fs_common.security.keys import Key, KeyRing, refuse_pass
from fs_common.security.sealed import kind_of, seal, unseal

PERMIT_VERSION: Final = 1
PERMIT_INODES_MAX: Final = READ_ITEMS_MAX
"""As many files as one frame of reads may be of."""
PERMIT_BYTES_MAX: Final = 128 + 10 * PERMIT_INODES_MAX


class Permit(msgspec.Struct, frozen=True, array_like=True):
    client: bytes
    """Who may show it: `Hello.client`."""
    inodes: list[int]
    rights: list[int]
    """`Right`s to each of them."""


_PERMIT: Final = kind_of(
    Permit,
    "permit",
    "rights",
    version=PERMIT_VERSION,
    purpose=b"emberfs permit",
    length="I",
    bytes_max=PERMIT_BYTES_MAX,
)


def make_permit(key: Key, permit: Permit) -> bytes:
    return seal(_PERMIT, key, permit)


def check_permit(ring: KeyRing, shown: bytes, client: bytes) -> Permit:
    """What `client` may do. Raises PASS_REFUSED: it is no permit, not this client's, or not valid (any more)."""
    permit = unseal(_PERMIT, ring, shown)
    if permit.client != client or len(permit.inodes) != len(permit.rights):
        raise refuse_pass("the permit is another client's")
    return permit
