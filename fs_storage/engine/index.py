"""The index: what every chunk is, as of the last checkpoint. LMDB behind a small seam.

`get` and `answer` may be called from any thread, `apply` from one thread at a time; readers see the index before or
after an `apply`, never between.

Keys and values: `index_format`. One more key, the sequence of the last log frame that the checkpoint holds, is written
by the same transaction as what it speaks of: that transaction is the commit point of a checkpoint.
"""

import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import lmdb

from fs_storage.engine.index_format import (
    TOMBSTONE_BYTES,
    IndexDamaged,
    StoredAnswer,
    decode_answer,
    encode_answer,
    glance,
)

FORGOTTEN_MIN = 4096
"""Tombstones forgotten, and answers looked at, in each checkpoint, and twice as many more as it writes: so forgetting
keeps up with whatever is made, and is a share of the checkpoint's own work."""
ANSWER_S = 24 * 3600
"""How long the last answer of a channel that is silent is kept. A retry comes within minutes."""
TOMBSTONE_S = 600
"""How long a removed chunk is remembered: longer than any copy of an update is on its way."""
_READ_BYTES = 1 << 20
_NUMBER = struct.Struct("<Q")
_SEQUENCE_KEY = b"sequence"
_ODOMETER_KEY = b"odometer"
_FLOOR_KEY = b"floor"
_QUEUED = struct.Struct(">Q12s")


class Expiry:
    """What may be forgotten. Seconds of the store's odometer."""

    __slots__ = ("answers_before", "now", "tombstones_before")

    def __init__(self, now: int, tombstones_before: int, answers_before: int) -> None:
        self.now = now
        self.tombstones_before = tombstones_before
        self.answers_before = answers_before


class Index(Protocol):
    """Lookups raise `IndexDamaged`."""

    floor: int
    """No removal that was forgotten had a higher version. At least that by the time that a reader may miss one."""

    def odometer(self) -> int:
        """What it showed at the last `apply`."""

    def sequence(self) -> int:
        """0: nothing was ever applied."""

    def get(self, chunk: bytes) -> bytes | None: ...

    def answer(self, key: bytes) -> StoredAnswer | None: ...

    def answers(self, first: bytes) -> Iterator[tuple[bytes, StoredAnswer]]:
        """Answers with `first` <= key, ascending."""

    def scan(self, first: bytes, last: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Records with `first` <= key <= `last`, ascending."""

    def apply(
        self,
        records: Mapping[bytes, bytes | None],
        answers: Mapping[bytes, StoredAnswer],
        sequence: int,
        expiry: Expiry,
    ) -> None:
        """Store all of it durably in one step, and forget what has expired; None deletes. Raises `OSError`; then
        nothing is stored."""

    def raise_floor(self, floor: int) -> None:
        """`floor` is at least that from now on, durably with the next `apply`."""

    def reserve(self) -> None:
        """Have storage for the next checkpoints at hand. Raises `OSError` with ENOSPC."""

    def close(self) -> None: ...


class LmdbIndex:
    """The index in an LMDB environment of its own."""

    def __init__(self, directory: Path, map_size_bytes: int, *, durable: bool = True) -> None:
        """`durable` False: for tests that crash nothing. Raises `IndexDamaged`, `OSError`."""
        self._directory = directory
        try:
            self._open(map_size_bytes, durable)
        except lmdb.Error as error:
            raise IndexDamaged(f"the index cannot be opened: {error}") from error

    def _open(self, map_size_bytes: int, durable: bool) -> None:
        self._environment = lmdb.open(
            os.fspath(self._directory),
            map_size=map_size_bytes,
            max_dbs=4,
            readahead=False,
            mode=0o640,
            max_readers=512,
            sync=durable,
            metasync=durable,
        )
        try:
            self._read_through()
        except BaseException:
            self._environment.close()
            raise
        self._records = self._environment.open_db(b"records")
        self._answers = self._environment.open_db(b"answers")
        self._meta = self._environment.open_db(b"meta")
        self._tombstones = self._environment.open_db(b"tombstones")
        """(removed at, chunk): tombstones in the order in which they are forgotten. An entry may outlive its
        tombstone."""
        self._answer_cursor = b""
        """Where the next sweep goes on."""
        self.floor = self._number(_FLOOR_KEY)
        if self.sequence() and not self.odometer():
            self._queue_all()

    def _read_through(self) -> None:
        """Every page that is in use can be read: what cannot would kill the process when it is touched in the map. The
        scan that follows finds them in memory."""
        used = (self._environment.info()["last_pgno"] + 1) * self._environment.stat()["psize"]
        path = self._directory / "data.mdb"
        buffer = bytearray(_READ_BYTES)
        with open(path, "rb", buffering=0) as file:
            done = 0
            while done < used:
                try:
                    count = file.readinto(buffer)
                except OSError as error:
                    raise IndexDamaged(f"{path} cannot be read at {done}: {error.strerror}") from error
                if not count:
                    raise IndexDamaged(f"{path} ends at {done}, and {used} bytes of it are in use")
                done += count

    def sequence(self) -> int:
        return self._number(_SEQUENCE_KEY)

    def odometer(self) -> int:
        return self._number(_ODOMETER_KEY)

    def raise_floor(self, floor: int) -> None:
        self.floor = max(self.floor, floor)

    def _number(self, key: bytes) -> int:
        with self._environment.begin(self._meta) as transaction:
            value = transaction.get(key)
        return 0 if value is None else int(_NUMBER.unpack(value)[0])

    def _queue_all(self) -> None:
        """The index is of a version that had no queue, and told time by the machine's clock: the odometer goes on where
        that was."""
        newest = 1
        with self._environment.begin(write=True) as transaction:
            for chunk, value in transaction.cursor(self._records):
                seen = glance(value)
                newest = max(newest, seen.removed_at)
                self.floor = max(self.floor, seen.number)
                if seen.removed_at and not seen.unsettled:
                    transaction.put(_QUEUED.pack(seen.removed_at, chunk), b"", db=self._tombstones)
            for _, value in transaction.cursor(self._answers):
                newest = max(newest, decode_answer(value).when)
            transaction.put(_FLOOR_KEY, _NUMBER.pack(self.floor), db=self._meta)
            transaction.put(_ODOMETER_KEY, _NUMBER.pack(newest), db=self._meta)

    def get(self, chunk: bytes) -> bytes | None:
        try:
            with self._environment.begin(self._records) as transaction:
                value: bytes | None = transaction.get(chunk)
        except lmdb.Error as error:
            raise IndexDamaged(str(error)) from error
        return value

    def answer(self, key: bytes) -> StoredAnswer | None:
        try:
            with self._environment.begin(self._answers) as transaction:
                value = transaction.get(key)
        except lmdb.Error as error:
            raise IndexDamaged(str(error)) from error
        return None if value is None else decode_answer(value)

    def answers(self, first: bytes) -> Iterator[tuple[bytes, StoredAnswer]]:
        try:
            with self._environment.begin(self._answers) as transaction:
                cursor = transaction.cursor()
                if cursor.set_range(first):
                    for key, value in cursor:
                        yield key, decode_answer(value)
        except lmdb.Error as error:
            raise IndexDamaged(str(error)) from error

    def scan(self, first: bytes, last: bytes) -> Iterator[tuple[bytes, bytes]]:
        try:
            with self._environment.begin(self._records, buffers=True) as transaction:
                cursor = transaction.cursor()
                if not cursor.set_range(first):
                    return
                for key, value in cursor:
                    key = bytes(key)
                    if key > last:
                        return
                    yield key, value
        except lmdb.Error as error:
            raise IndexDamaged(str(error)) from error

    def apply(
        self,
        records: Mapping[bytes, bytes | None],
        answers: Mapping[bytes, StoredAnswer],
        sequence: int,
        expiry: Expiry,
    ) -> None:
        try:
            with self._environment.begin(write=True) as transaction:
                for chunk in sorted(records):
                    value = records[chunk]
                    if value is None:
                        transaction.delete(chunk, db=self._records)
                    else:
                        transaction.put(chunk, value, db=self._records)
                        if len(value) == TOMBSTONE_BYTES:
                            seen = glance(value)
                            if seen.removed_at:
                                transaction.put(_QUEUED.pack(seen.removed_at, chunk), b"", db=self._tombstones)
                for key, answer in answers.items():
                    transaction.put(key, encode_answer(answer), db=self._answers)
                # Before the commit: whoever misses a tombstone has to find the floor raised.
                self.floor = self._forget_tombstones(transaction, len(records), expiry)
                self._forget_answers(transaction, len(answers), expiry)
                transaction.put(_SEQUENCE_KEY, _NUMBER.pack(sequence), db=self._meta)
                transaction.put(_ODOMETER_KEY, _NUMBER.pack(expiry.now), db=self._meta)
                transaction.put(_FLOOR_KEY, _NUMBER.pack(self.floor), db=self._meta)
        except lmdb.Error as error:
            raise OSError(5, f"the index cannot be written: {error}") from error

    def _forget_tombstones(self, transaction: "lmdb.Transaction", written: int, expiry: Expiry) -> int:
        """Forget those that have expired, the oldest first. Returns the floor that goes with it."""
        floor = self.floor
        before = _QUEUED.pack(max(expiry.tombstones_before, 0), bytes(12))
        with transaction.cursor(self._tombstones) as cursor:
            cursor.first()
            for _ in range(FORGOTTEN_MIN + 2 * written):
                key = cursor.key()
                if not key or key >= before:
                    break
                removed_at, chunk = _QUEUED.unpack(key)
                value = transaction.get(chunk, db=self._records)
                if value is not None:
                    seen = glance(value)
                    # With a version pending it stays, and is queued again if that is dropped.
                    if seen.removed_at == removed_at and not seen.unsettled:
                        transaction.delete(chunk, db=self._records)
                        floor = max(floor, seen.number)
                cursor.delete()
        return floor

    def _forget_answers(self, transaction: "lmdb.Transaction", written: int, expiry: Expiry) -> None:
        """Forget what has expired among the next few thousand. As more are looked at than are written, at most half of
        all are expired."""
        with transaction.cursor(self._answers) as cursor:
            if cursor.set_range(self._answer_cursor):
                for _ in range(FORGOTTEN_MIN + 2 * written):
                    expired = decode_answer(cursor.value()).when < expiry.answers_before
                    if not (cursor.delete() and cursor.key() if expired else cursor.next()):
                        break
            self._answer_cursor = bytes(cursor.key())

    def reserve(self) -> None:
        """Allocate the file's next pages ahead: a transaction must not meet a full disk, or nothing could be removed.

        A transaction copies the pages it changes; 8 MiB and a quarter of what there is are room for many.
        """
        page = self._environment.stat()["psize"]
        used = (self._environment.info()["last_pgno"] + 1) * page
        path = self._directory / "data.mdb"
        wanted = used + max(8 << 20, min(used // 4, 256 << 20))
        if path.stat().st_blocks * 512 >= used + (4 << 20):
            return
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.posix_fallocate(file, 0, wanted)
        finally:
            os.close(file)

    def close(self) -> None:
        self._environment.close()
