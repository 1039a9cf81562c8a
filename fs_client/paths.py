"""Paths as the metadata service wants them: bytes, relative to the root, without NUL.

There is no working directory: `a/b` and `/a/b` are the same path.
"""

import errno
import os
from typing import TypeAlias

Path: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]


def encode(path: Path) -> bytes:
    """The bytes of `path`, as `os.fsencode` gives them."""
    name = os.fsencode(path)
    if b"\0" in name:
        raise ValueError("embedded null byte in path")
    if not name:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return name


def decode_like(path: Path, name: bytes) -> str | bytes:
    """`name` as bytes where the caller speaks bytes, else as `os.fsdecode` gives it."""
    return name if isinstance(os.fspath(path), bytes) else os.fsdecode(name)
