"""The client of EmberFS: the Python API, the mount and the command line. Programs import its names from `emberfs`.

Importing this package loads nothing else: each name below is loaded when it is first used, so that a command or a
worker that needs little of it starts quickly.
"""

import importlib
from typing import TYPE_CHECKING, Any

from fs_common.release import RELEASE as __version__

if TYPE_CHECKING:
    from fs_client import aio
    from fs_client.file_ref import FileRef
    from fs_client.filesystem import FileSystem, connect

__all__ = ["FileRef", "FileSystem", "__version__", "aio", "connect"]

_DEFINED_IN = {
    "FileRef": "fs_client.file_ref",
    "FileSystem": "fs_client.filesystem",
    "connect": "fs_client.filesystem",
}


def __getattr__(name: str) -> Any:
    if name == "aio":
        return importlib.import_module("fs_client.aio")
    if name not in _DEFINED_IN:
        raise AttributeError(f"module 'fs_client' has no attribute {name!r}")
    value = getattr(importlib.import_module(_DEFINED_IN[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
