"""Opening a store by its URL: the one place that knows which engines there are."""

from pathlib import Path

from fs_common.errors import Code, EmberError
from fs_common.limits import GIB
from fs_meta.kv.interface import KeyValueStore

MAP_SIZE_BYTES_DEFAULT = 4 * GIB
"""Address space, not memory and not disk: LMDB's file grows with its data. It is doubled when it is used up."""


def open_store(url: str, *, map_size_bytes: int = MAP_SIZE_BYTES_DEFAULT, make: bool = True) -> KeyValueStore:
    """Open `lmdb://DIRECTORY` or `memory://`; `make`: the directory may be a new one.

    Raises `EmberError`: INVALID (URL, directory, format, no store), BUSY (in use).
    """
    scheme, separator, rest = url.partition("://")
    if separator and scheme == "lmdb" and rest:
        from fs_meta.kv.lmdb_engine import LmdbStore  # only this engine needs the package `lmdb`

        return LmdbStore.open(Path(rest), map_size_bytes=map_size_bytes, make=make)
    if separator and scheme == "memory" and not rest:
        from fs_meta.kv.memory_engine import MemoryStore

        return MemoryStore()
    raise EmberError(Code.INVALID, f"metadata store {url!r}: expected lmdb://DIRECTORY or memory://")
