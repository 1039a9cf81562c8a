"""How a token travels on the control plane and over HTTP: `authorization: Bearer <token>`. Pure."""

from collections.abc import Iterable
from typing import Final

AUTHORIZATION: Final = "authorization"
_BEARER: Final = "Bearer "


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """The metadata of a call that shows `token`; none for ""."""
    return ((AUTHORIZATION, _BEARER + token),) if token else ()


def shown_token(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """The token among a call's metadata, or headers; "": there is none."""
    for key, value in metadata:
        if key.lower() == AUTHORIZATION:
            text = value if isinstance(value, str) else value.decode("latin-1")
            if text[: len(_BEARER)].lower() == _BEARER.lower():
                return text[len(_BEARER) :].strip()
    return ""
