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

from fs_storage.engine.index_format import StoredAnswer, decode_answer, encode_answer, glance

SWEEP_RECORDS = 4096
"""Records looked at in each checkpoint for what has expired: a share of the checkpoint's own work."""
ANSWER_S = 24 * 3600
"""How long the last answer of a channel that is silent is kept. A retry comes within minutes."""
_SEQUENCE_KEY = b"sequence"
_SEQUENCE = struct.Struct("<Q")


class Expiry:
    """What may be forgotten, in seconds since the epoch."""

    __slots__ = ("answers_before", "tombstones_before")

    def __init__(self, tombstones_before: int, answers_before: int) -> None:
        self.tombstones_before = tombstones_before
        self.answers_before = answers_before


class Index(Protocol):
    def sequence(self) -> int:
        """0: nothing was ever applied."""

    def get(self, chunk: bytes) -> bytes | None: ...

    def answer(self, key: bytes) -> StoredAnswer | None: ...

    def scan(self, first: bytes, last: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Records with `first` <= key <= `last`, ascending."""

    def apply(
        self,
        records: Mapping[bytes, bytes | None],
        answers: Mapping[bytes, StoredAnswer],
        sequence: int,
        expiry: Expiry,
    ) -> None:
        """Store all of it durably in one step; None deletes. Raises `OSError`; then nothing is stored."""

    def reserve(self) -> None:
        """Have storage for the next checkpoints at hand. Raises `OSError` with ENOSPC."""

    def close(self) -> None: ...


class LmdbIndex:
    """The index in an LMDB environment of its own."""

    def __init__(self, directory: Path, map_size_bytes: int, *, durable: bool = True) -> None:
        """`durable` False: for tests that crash nothing."""
        self._directory = directory
        self._environment = lmdb.open(
            os.fspath(directory),
            map_size=map_size_bytes,
            max_dbs=3,
            readahead=False,
            mode=0o640,
            max_readers=512,
            sync=durable,
            metasync=durable,
        )
        self._records = self._environment.open_db(b"records")
        self._answers = self._environment.open_db(b"answers")
        self._meta = self._environment.open_db(b"meta")
        self._record_cursor = b""
        self._answer_cursor = b""
        """Where the next sweep goes on."""

    def sequence(self) -> int:
        with self._environment.begin(self._meta) as transaction:
            value = transaction.get(_SEQUENCE_KEY)
        return 0 if value is None else int(_SEQUENCE.unpack(value)[0])

    def get(self, chunk: bytes) -> bytes | None:
        with self._environment.begin(self._records) as transaction:
            value: bytes | None = transaction.get(chunk)
        return value

    def answer(self, key: bytes) -> StoredAnswer | None:
        with self._environment.begin(self._answers) as transaction:
            value = transaction.get(key)
        return None if value is None else decode_answer(value)

    def scan(self, first: bytes, last: bytes) -> Iterator[tuple[bytes, bytes]]:
        with self._environment.begin(self._records, buffers=True) as transaction:
            cursor = transaction.cursor()
            if not cursor.set_range(first):
                return
            for key, value in cursor:
                key = bytes(key)
                if key > last:
                    return
                yield key, value

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
                for key, answer in answers.items():
                    transaction.put(key, encode_answer(answer), db=self._answers)
                self._sweep(transaction, records, expiry)
                transaction.put(_SEQUENCE_KEY, _SEQUENCE.pack(sequence), db=self._meta)
        except lmdb.Error as error:
            raise OSError(5, f"the index cannot be written: {error}") from error

    def _sweep(self, transaction: "lmdb.Transaction", records: Mapping[bytes, bytes | None], expiry: Expiry) -> None:
        """Forget what has expired among the next few thousand records."""
        with transaction.cursor(self._records) as cursor:
            if cursor.set_range(self._record_cursor):
                for _ in range(SWEEP_RECORDS):
                    seen = glance(cursor.value())
                    expired = 0 < seen.removed_at < expiry.tombstones_before and not seen.unsettled
                    if not (cursor.delete() and cursor.key() if expired else cursor.next()):
                        break
            self._record_cursor = bytes(cursor.key())
        with transaction.cursor(self._answers) as cursor:
            if cursor.set_range(self._answer_cursor):
                for _ in range(SWEEP_RECORDS):
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
