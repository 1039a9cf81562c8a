"""A store made from the copy of another one's data file (`fs_meta.kv.copying`).

Steps: 1. the directory is made and locked, and what an interrupted restoring left is removed; 2. the data file is
written and synced; 3. one transaction of LMDB changes what the restored store must not have, and forgets the journal
that belonged to the data; 4. a new journal is made; 5. `FORMAT` is written: the commit point. A crash before it leaves
a directory that the metadata server refuses, and that another restoring begins anew.

Called by: `fs_meta.restoring`.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import lmdb

from fs_common.errors import Code, EmberError
from fs_meta.kv.directory import DATA_FILE, open_directory
from fs_meta.kv.disk import RealDisk
from fs_meta.kv.journal import FILE_NAMES, make_journal
from fs_meta.kv.journal_format import Changes
from fs_meta.kv.lmdb_file import APPLIED_KEY

_PART_BYTES = 1 << 20
Change = Callable[[Callable[[bytes], bytes | None], Callable[[bytes, bytes], Iterable[tuple[bytes, bytes]]]], Changes]
"""Of `get` and `scan` of what is stored, what is to be stored instead."""


def restore_store(path: Path, source: BinaryIO, size_bytes: int, change: Change) -> None:
    """Make a store at `path` of the next `size_bytes` of `source`.

    Raises INVALID (there is a store, the data is no store's, the directory cannot be used), BUSY.
    """
    directory = open_directory(path)
    try:
        if directory.has_format:
            raise EmberError(Code.INVALID, f"metadata store {path} is there already: move it away first")
        for name in (DATA_FILE, "lock.mdb", *FILE_NAMES):
            (path / name).unlink(missing_ok=True)
        try:
            with open(os.open(path / DATA_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as data:
                left = size_bytes
                while part := source.read(min(left, _PART_BYTES)):
                    data.write(part)
                    left -= len(part)
                data.flush()
                os.fsync(data.fileno())
            _change(path, change)
            make_journal(RealDisk(), path)
            directory.write_format()
        except OSError as error:
            raise EmberError(Code.INVALID, f"metadata store {path} cannot be made: {error.strerror}") from None
        except lmdb.Error as error:
            raise EmberError(Code.INVALID, f"metadata store {path} cannot be made of this backup: {error}") from None
    finally:
        directory.close()


def _change(path: Path, change: Change) -> None:
    size = (path / DATA_FILE).stat().st_size
    room = shutil.disk_usage(path).free
    with lmdb.open(str(path), map_size=size + min(room, max(size, 64 << 20)), max_dbs=0, mode=0o600) as environment:
        with environment.begin(write=True) as txn:

            def scan(begin: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
                with txn.cursor() as cursor:
                    if cursor.set_range(begin):
                        for key, value in cursor.iternext():
                            if key >= end:
                                return
                            yield key, value

            changes = change(txn.get, scan)
            for key, value in changes.items():
                if value is None:
                    txn.delete(key)
                else:
                    txn.put(key, value)
            txn.delete(APPLIED_KEY)
