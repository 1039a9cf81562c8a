"""The journal: every batch of transactions since the last checkpoint, in order. Two files that take turns.

Owns: the two files and where the next frame goes. Used on the event loop; only `Disk.sync` of the files that
`unsynced_files` names is called in a thread.

Invariants:

* Frames of the two files together are one run of sequences without a hole, from the one after the store's checkpoint
  on; a sequence is used once in the life of a store.
* A file is written from its start again only when a checkpoint holds everything in it (`applied`).
* `synced` <= `sequence`: frames up to it survive a crash of the machine, in here or in a checkpoint.

Commit point of a frame: the write. A crash of the process before it leaves nothing, a crash in it a torn frame, which
is no frame; after it the batch is there. Durable: the sync that follows.

A machine that crashes may lose any of the frames that were not synced, also one before another that it keeps. `read`
returns those up to the first that is missing and forgets the others: the history ends there. It is an error when a
later frame says that the missing one was on the disk.

Files grow by steps of zeros that are really written: a sync of bytes written over others does not change the file
system's own records, and takes less time.
"""

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fs_common.checks import check
from fs_meta.kv.disk import Disk
from fs_meta.kv.journal_format import (
    ALIGNMENT,
    FILE_HEADER_SIZE,
    FRAME_HEADER_SIZE,
    ID_SIZE,
    Changes,
    Frame,
    JournalDamaged,
    decode_file_header,
    encode_file_header,
    encode_frame,
    find_frame,
)

FILE_NAMES = ("journal.0", "journal.1")
STEP_BYTES = 256 * 1024
"""Files grow by so much: 60 us of the loop for each, once in the life of a store that has reached its size."""
_ZEROS = bytes(STEP_BYTES)
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def make_journal(disk: Disk, directory: Path) -> None:
    """Make the two files, empty and durable."""
    header = encode_file_header(os.urandom(ID_SIZE))
    for name in FILE_NAMES:
        file = disk.open(directory / name, create=True)
        try:
            disk.write(file, header, 0)
            disk.sync(file)
        finally:
            disk.close(file)
    disk.sync_directory(directory)


@dataclass(slots=True)
class _File:
    descriptor: int
    size: int
    last: int = 0
    """The highest sequence in it that counts."""
    synced: int = 0
    """Its frames up to this one are on the disk."""


class Journal:
    """See the module. `open`, `read` everything, then append."""

    def __init__(self, disk: Disk, directory: Path) -> None:
        self._disk = disk
        self._directory = directory
        self._files: list[_File] = []
        self._current = 0
        """Index of the file that is appended to."""
        self._position = FILE_HEADER_SIZE
        """Where its next frame goes."""
        self.id = b""
        self.sequence = 0
        """Of the last frame appended."""
        self.synced = 0
        self.applied = 0
        """Frames up to this one are in a checkpoint."""
        self.recovered_bytes = 0
        """Of the frames that `read` gave."""

    def open(self) -> None:
        """Raises `JournalDamaged` for files that are not one store's journal, `OSError` for files that are missing."""
        for name in FILE_NAMES:
            descriptor = self._disk.open(self._directory / name)
            self._files.append(_File(descriptor, self._disk.size(descriptor)))
            try:
                journal_id = decode_file_header(self._disk.read(descriptor, FILE_HEADER_SIZE, 0))
            except JournalDamaged as error:
                raise JournalDamaged(f"{self._directory / name}: {error}") from None
            if self.id and self.id != journal_id:
                raise JournalDamaged(f"{self._directory}: {' and '.join(FILE_NAMES)} are of different stores")
            self.id = journal_id

    def close(self) -> None:
        for file in self._files:
            self._disk.close(file.descriptor)
        self._files = []

    # --- reading, before anything is appended -----------------------------------------------------------------

    def read(self, applied: int) -> Iterator[Changes]:
        """The batches after checkpoint `applied`, in order; when all are taken, the journal goes on behind them.

        Raises `JournalDamaged`. Frames that a crash has cut off from the others are made unreadable, durably: a new
        frame in the place of the missing one must not bring them back.
        """
        self.sequence = self.synced = self.applied = applied
        frames: dict[int, tuple[int, Frame]] = {}
        for index, file in enumerate(self._files):
            content = memoryview(self._disk.read(file.descriptor, file.size, 0))
            frame = find_frame(content, FILE_HEADER_SIZE, self.id)
            while frame is not None:
                if frame.sequence > applied:
                    frames[frame.sequence] = index, frame
                frame = find_frame(content, frame.end, self.id)
        while (found := frames.pop(self.sequence + 1, None)) is not None:
            index, frame = found
            yield frame.changes()
            self.recovered_bytes += frame.end - frame.start
            self.sequence = self._files[index].last = frame.sequence
            self._current = index
            self._position = frame.end
        for _, frame in frames.values():
            if frame.synced > self.sequence:
                raise JournalDamaged(
                    f"{self._directory}: frame {self.sequence + 1} of the journal is damaged or missing, and frame "
                    f"{frame.sequence} says that it was on the disk; restore the store from a backup"
                )
        for index, frame in frames.values():
            self._disk.write(self._files[index].descriptor, bytes(FRAME_HEADER_SIZE), frame.start)
        for index in {index for index, _ in frames.values()}:
            self._disk.sync(self._files[index].descriptor)

    # --- appending --------------------------------------------------------------------------------------------

    def next_frame(self, changes: Changes) -> bytes:
        """What `append` is to be given next for a batch."""
        return encode_frame(self.id, self.sequence + 1, self.synced, changes)

    def append(self, frame: bytes) -> None:
        """Write a frame, with one system call. An error leaves the journal as it was; `NO_SPACE`: its numbers."""
        file = self._files[self._current]
        end = self._position + len(frame)
        if end + STEP_BYTES // 2 > file.size:
            self._grow(file)
        self._disk.write(file.descriptor, frame, self._position)
        file.size = max(file.size, end)
        self._position = end
        self.sequence += 1
        file.last = self.sequence

    def _grow(self, file: _File) -> None:
        """Zeros at the end, ahead of need. Without space for them frames go on to the end of the file and beyond."""
        try:
            self._disk.write(file.descriptor, _ZEROS, file.size)
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
        else:
            file.size += STEP_BYTES

    def unsynced_files(self) -> list[int]:
        """Descriptors to be synced, in this order, for everything appended until now to be durable."""
        other, current = self._files[1 - self._current], self._files[self._current]
        return [file.descriptor for file in (other, current) if file.last > max(file.synced, self.applied)]

    def files_synced(self, sequence: int) -> None:
        """What `unsynced_files` named when `sequence` was the last is synced."""
        for file in self._files:
            file.synced = max(file.synced, min(file.last, sequence))
        self.synced = max(self.synced, sequence)

    def checkpoint_begins(self) -> int:
        """A checkpoint will hold what was appended until now, up to the sequence returned; go on in the other file.

        Unless that is needed still, because the checkpoint before has failed: then in the same.
        """
        other = self._files[1 - self._current]
        if other.last <= self.applied:
            self._current = 1 - self._current
            self._position = FILE_HEADER_SIZE
        return self.sequence

    def checkpoint_is_durable(self, sequence: int) -> None:
        """A checkpoint holds everything up to `sequence`."""
        check(self.applied <= sequence <= self.sequence, "a checkpoint of frames that were appended", sequence)
        self.applied = sequence
        self.synced = max(self.synced, sequence)
        if self._files[self._current].last <= sequence:
            self._position = FILE_HEADER_SIZE


assert FILE_HEADER_SIZE % ALIGNMENT == 0
