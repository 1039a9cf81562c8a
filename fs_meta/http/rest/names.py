"""Names and paths of the file system in a world of text.

A name is bytes, any but `/` and NUL. In a URL each byte that is no plain letter is percent-encoded, and that is how
requests give paths and how answers give what is to be asked next (`href`, `next`): it is exact. What is shown to people
(`name`, `path`) is UTF-8, and bytes that are none are written as `\\xNN`.
"""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

from fastapi import Depends, Query, Request

from fs_common.limits import NAME_BYTES_MAX, PATH_BYTES_MAX

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def shown(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


def encoded(name: bytes) -> str:
    """As a part of a URL."""
    return quote_from_bytes(name, safe="/")


def time_of(ns: int) -> str:
    """ISO 8601, to the nanosecond."""
    try:
        moment = _EPOCH + timedelta(seconds=ns // 10**9)
    except OverflowError:
        return "unknown"
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{ns % 10**9:09d}Z"


def _raw(request: Request, name: str) -> bytes | None:
    """The last parameter of that name, as bytes: frameworks take what is not UTF-8 for something else."""
    query: bytes = request.scope.get("query_string", b"")
    found = None
    for part in query.split(b"&"):
        key, _, value = part.partition(b"=")
        if unquote_to_bytes(key.replace(b"+", b" ")) == name.encode():
            found = unquote_to_bytes(value.replace(b"+", b" "))
    return found


def _path(
    request: Request,
    path: Annotated[
        str,
        Query(
            pattern=r"^/[^\x00]*$",
            max_length=PATH_BYTES_MAX,
            description="Absolute; symbolic links on the way are followed.",
            examples=["/", "/datasets/images"],
        ),
    ] = "/",
) -> bytes:
    return _raw(request, "path") or b"/"


def _after_name(
    request: Request,
    after: Annotated[
        str,
        Query(
            pattern=r"^[^/\x00]*$",
            max_length=NAME_BYTES_MAX,
            description="`next` of the page before; empty: the first page.",
        ),
    ] = "",
) -> bytes:
    return _raw(request, "after") or b""


PathQuery = Annotated[bytes, Depends(_path)]
AfterName = Annotated[bytes, Depends(_after_name)]
