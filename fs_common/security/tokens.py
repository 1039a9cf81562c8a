"""The text of a token: what a person or a daemon holds to be known by.

    ember.<id>.<secret>

`id`: 8 hex digits, which name the token everywhere and are no secret. `secret`: 48 characters of base64url: 32 random
bytes, then the CRC32C (big-endian) of the id's digits and those bytes, so that a token that was cut off or mistyped is
told from one that nobody knows.

A token is shown to metadata servers alone, which keep the SHA-256 of its 32 bytes and nothing else: they are random, so
no slow hash is needed. Nothing here prints or logs a secret. Pure.

Page: docs/SECURITY.md.
"""

import base64
import binascii
import hashlib
import re
import struct
from typing import Final, NamedTuple

from crc32c import crc32c

from fs_common.errors import Code, EmberError

PREFIX: Final = "ember"
ID_BYTES: Final = 4
SECRET_BYTES: Final = 32
TOKEN_TEXT_LENGTH: Final = 63

_TEXT: Final = re.compile(r"ember\.([0-9a-f]{8})\.([A-Za-z0-9_-]{48})")
_CRC: Final = struct.Struct(">I")


class Token(NamedTuple):
    """A token in parts."""

    id: str
    """8 hex digits."""
    secret: bytes
    """32 bytes."""

    def __repr__(self) -> str:
        return f"<token {self.id}>"


def make_token(random: bytes) -> Token:
    """The token made of 36 random bytes: its id, then its secret."""
    if len(random) != ID_BYTES + SECRET_BYTES:
        raise ValueError(f"a token is made of {ID_BYTES + SECRET_BYTES} random bytes, not of {len(random)}")
    return Token(random[:ID_BYTES].hex(), random[ID_BYTES:])


def token_text(token: Token) -> str:
    """What is given to whoever holds the token."""
    checked = token.secret + _CRC.pack(_checksum(token))
    return f"{PREFIX}.{token.id}.{base64.urlsafe_b64encode(checked).decode('ascii')}"


def parse_token(text: str) -> Token:
    """The token in `text`. Raises UNAUTHENTICATED for what is none; the message repeats nothing of it."""
    found = _TEXT.fullmatch(text)
    if found is None:
        raise EmberError(
            Code.UNAUTHENTICATED,
            f"this is no token: one has the form {PREFIX}.<8 hex digits>.<48 characters>, in one line",
        )
    try:
        checked = base64.b64decode(found[2], altchars=b"-_", validate=True)
    except binascii.Error:  # pragma: no cover - the expression above lets base64url alone through
        checked = bytes(SECRET_BYTES + _CRC.size)
    token = Token(found[1], checked[:SECRET_BYTES])
    if _CRC.pack(_checksum(token)) != checked[SECRET_BYTES:] or token_text(token) != text:
        raise EmberError(
            Code.UNAUTHENTICATED, f"token {token.id} is damaged: its checksum does not match; copy it once more, whole"
        )
    return token


def secret_digest(token: Token) -> bytes:
    """32 bytes: what is kept of a secret, to know it again."""
    return hashlib.sha256(token.secret).digest()


def _checksum(token: Token) -> int:
    return int(crc32c(token.id.encode("ascii") + token.secret))
