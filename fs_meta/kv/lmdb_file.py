"""The LMDB environment below the journal: what the checkpoints have put there.

Owns: the environment, the read transaction that the loop reads through, the write transaction of the checkpoint under
way, and the writer thread.

LMDB wants begin, commit and abort from one thread (its lock has an owner), gets and puts from any. Puts are done on the
loop, in slices, because LMDB drops the GIL at each call: a thread that puts beside a busy loop loses the GIL every time
(measured: 450 transactions/s, against 50,000/s on the loop). The writer thread begins, commits and aborts.

Invariants:

* `_write` is used by the loop between two steps of the writer thread only; at most one `apply` runs.
* The read transaction shows the newest commit, from the turn of the loop on in which `apply` returns.
* The key `APPLIED_KEY`, longer than any caller's, holds the journal's id and the sequence of its last frame in here;
  it is written by the transaction that applies those frames.

Commit point of `apply`: LMDB's meta page, written after the data pages are synced. A crash before it leaves what was
there before; after it, all of the changes.
"""

import asyncio
import contextlib
import os
import struct
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import lmdb

from fs_common.checks import check
from fs_common.errors import Code, EmberError
from fs_common.limits import MIB
from fs_meta.kv.directory import DATA_FILE
from fs_meta.kv.interface import KEY_BYTES_MAX
from fs_meta.kv.journal_format import ID_SIZE, Changes
from fs_meta.kv.worker import Worker, finished

_STEP = 100
"""Puts between two looks at the clock: 75 us."""
DISK_FULL_BYTES = 4 * MIB
"""A commit that fails while less than this is free failed for want of space."""
APPLIED_KEY = b"\xff" * (KEY_BYTES_MAX + 1)
_APPLIED = struct.Struct(f"<Q{ID_SIZE}s")


class LmdbFile:
    """A `Below` (`fs_meta.kv.overlay`) that changes by `apply`."""

    def __init__(self, path: Path, environment: lmdb.Environment, writer: Worker, clock: Callable[[], float]) -> None:
        self._path = path
        self._clock = clock
        self._environment = environment
        self._writer = writer
        self.map_size_bytes: int = environment.info()["map_size"]
        self._read: lmdb.Transaction = environment.begin()
        self.get: Callable[[bytes], bytes | None] = self._read.get
        """Replaced when the read transaction is."""
        self._write: lmdb.Transaction | None = None

    @classmethod
    def open(cls, path: Path, *, map_size_bytes: int, writer: Worker, clock: Callable[[], float]) -> "LmdbFile":
        """Open or make the file in directory `path`. Raises INVALID."""
        # A file larger than the map is mapped whole, so a map that has grown is as large after the next open.
        file_bytes = (path / DATA_FILE).stat().st_size if (path / DATA_FILE).exists() else 0
        try:
            environment = lmdb.open(
                str(path),
                map_size=max(map_size_bytes, file_bytes),
                max_dbs=0,
                mode=0o600,
                readahead=False,  # keys are read at random
                meminit=False,  # slack in pages is never read back
                max_spare_txns=4,
            )
        except lmdb.Error as error:
            raise EmberError(Code.INVALID, f"metadata store {path} cannot be opened: {error}") from error
        return cls(path, environment, writer, clock)

    @property
    def is_empty(self) -> bool:
        """No transaction was ever committed."""
        return bool(self._environment.info()["last_txnid"] == 0)

    def applied(self) -> tuple[int, bytes]:
        """The sequence of the journal's last frame that is in here, and the journal's id; (0, b"") before the first."""
        value = self.get(APPLIED_KEY)
        if value is None:
            return 0, b""
        try:
            sequence, journal_id = _APPLIED.unpack(value)
        except struct.error as error:
            raise EmberError(
                Code.INVALID, f"metadata store {self._path} has a damaged {DATA_FILE}: restore it from a backup"
            ) from error
        return sequence, journal_id

    def scan(self, begin: bytes, end: bytes, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        end = min(end, APPLIED_KEY)
        with self._read.cursor() as cursor:
            if not reverse:
                if cursor.set_range(begin):
                    for pair in cursor.iternext():
                        if pair[0] >= end:
                            return
                        yield pair
                return
            # The last key below `end`: one back from the first at or above it, or the very last.
            found = cursor.prev() if cursor.set_range(end) else cursor.last()
            if found:
                for pair in cursor.iterprev():
                    if pair[0] < begin:
                        return
                    yield pair

    async def apply(self, changes: Changes, sequence: int, journal_id: bytes, slice_s: Callable[[], float]) -> None:
        """Commit `changes`, which hold the journal's frames up to `sequence`; durable and readable on return.

        `slice_s`: for how long the loop may be taken at a time. Raises KV_FULL: nothing is changed, it may be tried
        again; KV_MAYBE_COMMITTED: nobody knows, the environment must not be used any more.
        """
        check(self._write is None, "one checkpoint at a time")
        while True:
            try:
                await self._in_writer(self._begin)
                await self._put(changes, slice_s)
                self._put_applied(sequence, journal_id)
                await self._in_writer(self._commit)
            except lmdb.MapFullError:
                await self._in_writer(self._abort)
                self._grow_map()
                continue
            except lmdb.Error as error:
                await self._in_writer(self._abort)
                if self._is_full(error):
                    # LMDB gave up before it wrote the meta page, and what was there stands. Had it come later, the
                    # environment would refuse the next transaction (PanicError).
                    raise self.full(error) from error
                raise EmberError(
                    Code.KV_MAYBE_COMMITTED, f"metadata store {self._path} failed at a checkpoint: {error}"
                ) from error
            except BaseException:  # cancelled: the store is being thrown away
                await asyncio.shield(self._in_writer(self._abort))
                raise
            self._renew()
            return

    def close(self) -> None:
        """Nothing is under way any more."""
        self._read.abort()
        self._environment.close()

    def full(self, detail: object) -> EmberError:
        return EmberError(Code.KV_FULL, f"metadata store {self._path} has no space: free some on its disk ({detail})")

    # --- on the loop -----------------------------------------------------------------------------------------

    async def _in_writer(self, step: Callable[[], None]) -> None:
        await finished(self._writer, step)

    async def _put(self, changes: Changes, slice_s: Callable[[], float]) -> None:
        write = self._write
        assert write is not None
        put, delete = write.put, write.delete
        left = iter(changes.items())
        deadline_s = self._clock() + slice_s()
        while some := list(islice(left, _STEP)):
            for key, value in some:
                if value is None:
                    delete(key)
                else:
                    put(key, value)
            if self._clock() >= deadline_s:
                await asyncio.sleep(0)
                deadline_s = self._clock() + slice_s()

    def _put_applied(self, sequence: int, journal_id: bytes) -> None:
        assert self._write is not None
        self._write.put(APPLIED_KEY, _APPLIED.pack(sequence, journal_id))

    def _renew(self) -> None:
        self._read.abort()
        self._read = self._environment.begin()  # a spare one, renewed: no allocation, no system call
        self.get = self._read.get

    def _grow_map(self) -> None:
        """Double the map; KV_FULL when the disk is the limit. No read is under way, because the map moves."""
        check(self._write is None, "the map grows while no transaction is open")
        disk = os.statvfs(self._path)
        used_bytes = (self._path / DATA_FILE).stat().st_blocks * 512
        most_bytes = used_bytes + disk.f_bavail * disk.f_frsize
        size_bytes = min(self.map_size_bytes * 2, most_bytes - most_bytes % MIB)
        if size_bytes <= self.map_size_bytes:
            raise self.full(f"{most_bytes} bytes can be used")
        self._read.abort()
        self._environment.set_mapsize(size_bytes)
        self.map_size_bytes = size_bytes
        self._renew()

    def _is_full(self, error: lmdb.Error) -> bool:
        """Whether a commit failed for want of space. LMDB reports a write that was cut short as an I/O error."""
        if isinstance(error, lmdb.DiskError | lmdb.TxnFullError):
            return True
        disk = os.statvfs(self._path)
        return type(error) is lmdb.Error and disk.f_bavail * disk.f_frsize < DISK_FULL_BYTES

    # --- in the writer thread --------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._write = self._environment.begin(write=True)

    def _commit(self) -> None:
        assert self._write is not None
        self._commit_transaction(self._write)
        self._write = None

    def _commit_transaction(self, write: Any) -> None:
        """The commit itself: where tests put failing disks."""
        write.commit()

    def _abort(self) -> None:
        """After a failed commit as well: then it only gives up what the binding holds."""
        write, self._write = self._write, None
        if write is not None:
            with contextlib.suppress(lmdb.Error):
                write.abort()
