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

from typing import Final

from fs_common.security.identity import Identity
from fs_common.security.keys import Key, KeyRing, refuse_pass
from fs_common.security.sealed import kind_of, seal, unseal

PASS_VERSION: Final = 1
PASS_BYTES_MAX: Final = 2048
"""With `GROUPS_MAX` groups; a hello with a pass stays below what a stranger may make a server hold."""
GROUPS_MAX: Final = 256
NAME_LENGTH_MAX: Final = 64

_PASS: Final = kind_of(
    Identity,
    "pass",
    "identity",
    version=PASS_VERSION,
    purpose=b"emberfs pass",
    length="H",
    bytes_max=PASS_BYTES_MAX,
)


def make_pass(key: Key, identity: Identity) -> bytes:
    """The pass that shows `identity`, under `key`."""
    return seal(_PASS, key, identity)


def check_pass(ring: KeyRing, shown: bytes) -> Identity:
    """Whom a pass shows. Raises PASS_REFUSED: it is none, or not valid (any more)."""
    if not shown:
        raise refuse_pass("this cluster has security on, and the caller shows no pass: connect with a token")
    return unseal(_PASS, ring, shown)


def key_of(shown: bytes) -> int:
    """Id of the key that a pass was made under, which `check_pass` has taken."""
    number: int = _PASS.header.unpack_from(shown)[1]
    return number
