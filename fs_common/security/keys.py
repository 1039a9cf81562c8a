"""The cluster's key ring: the secrets under which the metadata service vouches for what it says of others.

A ring has one or two keys. What is made under either is valid; a rotation adds a key and drops the older of two, and
with it all that was made under it. So validity needs no clock.

Invariant: keys are in order of their ids, which grow by one; ids are never used again. Nothing here prints a secret.
Pure.

Page: docs/SECURITY.md.
"""

import hashlib
import hmac
from typing import Final

import msgspec

from fs_common.errors import Code, EmberError

KEY_BYTES: Final = 32
MAC_BYTES: Final = 32
KEY_ID_MAX: Final = 2**32 - 1


class Key(msgspec.Struct, frozen=True, array_like=True):
    id: int
    """1 to `KEY_ID_MAX`."""
    secret: bytes
    """`KEY_BYTES` random bytes."""

    def __repr__(self) -> str:
        return f"<key {self.id}>"

    def mac(self, purpose: bytes, data: bytes | memoryview) -> bytes:
        """Keyed BLAKE2b of `data`: `MAC_BYTES`. `purpose` (at most 16 bytes) keeps kinds of records apart."""
        return hashlib.blake2b(data, key=self.secret, digest_size=MAC_BYTES, person=purpose).digest()


class KeyRing(msgspec.Struct, frozen=True, array_like=True):
    keys: list[Key] = []
    """At most two, the newest last. None: nothing is valid."""

    def __post_init__(self) -> None:
        ids = [key.id for key in self.keys]
        if len(ids) > 2 or ids != list(range(ids[0], ids[0] + len(ids)) if ids else ()):
            raise ValueError(f"a key ring has at most two keys in order, not {ids}")
        if any(len(key.secret) != KEY_BYTES or not 1 <= key.id <= KEY_ID_MAX for key in self.keys):
            raise ValueError(f"a key has an id of 1 to {KEY_ID_MAX} and {KEY_BYTES} bytes")

    @property
    def newest(self) -> Key:
        return self.keys[-1]

    @property
    def oldest(self) -> Key:
        return self.keys[0]

    def key(self, number: int) -> Key | None:
        for key in self.keys:
            if key.id == number:
                return key
        return None

    def rotated(self, secret: bytes) -> "KeyRing":
        """The ring with a key more, and without the older one of two."""
        number = self.newest.id + 1 if self.keys else 1
        return KeyRing([*self.keys[-1:], Key(number, secret)])


def same(mac: bytes | memoryview, other: bytes | memoryview) -> bool:
    """Whether two MACs are equal, in a time that does not tell how far they are."""
    return hmac.compare_digest(mac, other)


def refuse_pass(why: str) -> EmberError:
    """What is raised for something that nobody vouches for any more; its holder gets a new one and comes back."""
    return EmberError(Code.PASS_REFUSED, why)
