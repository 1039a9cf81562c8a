"""What is kept of users, tokens and keys in the metadata store: the only encoder of these keys and values.

Keys: `\\x03users/` and a table's name, then the name or id. Values: one version byte (1), then msgpack (an array of the
record's fields in the order declared). A field is only ever appended, with a default, under the same version byte.

| table    | key                          | value                                              |
| -------- | ---------------------------- | -------------------------------------------------- |
| users    | `\\x03users/user/` name      | UserRecord                                         |
| tokens   | `\\x03users/token/` id       | TokenRecord: the digest of a secret, never a secret |
| vouching | `\\x03users/vouching`        | VouchingRecord: the key ring, what is revoked       |

The key ring is a secret: whoever can read the store can make passes.

Page: docs/SECURITY.md.
"""

import enum
from typing import Final, TypeVar

import msgspec

from fs_common.security.identity import CLIENT
from fs_common.security.keys import KeyRing

PREFIX: Final = b"\x03users/"
USERS: Final = (PREFIX + b"user/", PREFIX + b"user0")
"""Begin and end of the table's keys ("0" follows "/")."""
TOKENS: Final = (PREFIX + b"token/", PREFIX + b"token0")
VOUCHING_KEY: Final = PREFIX + b"vouching"

_VALUE_VERSION = b"\x01"
_R = TypeVar("_R", bound=msgspec.Struct)
_encode = msgspec.msgpack.Encoder().encode


class CorruptUsers(Exception):
    """A key or value of these tables is not what this module writes."""


class UserFlags(enum.IntFlag):
    NONE = 0
    ADMIN = 1
    """Its plain tokens may administer the cluster."""
    ROOT = 2
    """Its plain tokens act as the user that a request names."""


class UserRecord(msgspec.Struct, frozen=True, array_like=True):
    """The name is in the key."""

    uid: int
    gid: int
    groups: list[int]
    flags: int
    """`UserFlags`"""
    created_ns: int
    """The wall clock's."""


class TokenRecord(msgspec.Struct, frozen=True, array_like=True):
    """The id is in the key."""

    digest: bytes
    """`fs_common.security.tokens.secret_digest`"""
    created_ns: int
    """The wall clock's."""
    expires_ns: int = 0
    """The same; 0: never."""
    user: str = ""
    """Name of its user; "": a daemon's."""
    role: str = CLIENT
    """`CLIENT`, or `STORAGE` for a daemon's."""
    node: int = 0
    """Of a daemon's: its node; 0: any."""
    mount: bool = False
    """A mount's: acts as the user that its kernel names, and administers nothing."""
    squash_root: bool = False
    """Of a mount's: root becomes nobody."""


class Revoked(msgspec.Struct, frozen=True, array_like=True):
    """A token whose passes may still be about."""

    token: str
    key: int
    """The newest key when it was revoked: once all keys are newer, so is every pass."""


class VouchingRecord(msgspec.Struct, frozen=True, array_like=True):
    version: int = 0
    """Grows with every change."""
    ring: KeyRing = KeyRing()
    newest_since: int = 0
    """The version that brought the newest key."""
    revoked: list[Revoked] = []
    rotated_ns: int = 0
    """The service's time of the last rotation."""


def user_key(name: str) -> bytes:
    return USERS[0] + name.encode()


def token_key(token: str) -> bytes:
    return TOKENS[0] + token.encode()


def split_user_key(key: bytes) -> str:
    return key.removeprefix(USERS[0]).decode()


def split_token_key(key: bytes) -> str:
    return key.removeprefix(TOKENS[0]).decode()


def encode(record: UserRecord | TokenRecord | VouchingRecord) -> bytes:
    return _VALUE_VERSION + _encode(record)


def decode(kind: type[_R], value: bytes) -> _R:
    """The record. Raises `CorruptUsers`, which repeats nothing of the value."""
    if value[:1] != _VALUE_VERSION:
        raise CorruptUsers(f"{kind.__name__}: version byte {value[:1].hex() or 'missing'}, this program knows 01")
    try:
        return msgspec.msgpack.decode(value[1:], type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise CorruptUsers(f"{kind.__name__}: {error}") from None
