"""The redo log: what changed since the last checkpoint, in order. Two files that take turns.

Used by the writer thread only (and by recovery, before there is one).

Invariants:

* Frames of the two files together are one run of sequences without a hole; a file is switched only when the one before
  it is on the disk.
* A file is written again from its start only after a checkpoint that holds everything in it.
* `synced` <= `sequence`: frames up to it survive a crash.

Reading stops at the first frame that is missing or damaged. That is the end of the log if nothing proves otherwise;
a later frame that says that the damaged place was already on the disk proves it, and is an error: the tail of a log
may be torn by a crash, the middle may not.
"""

import threading
from collections.abc import Iterator
from pathlib import Path

from fs_common.checks import check
from fs_storage.engine.disk import Bytes, Disk
from fs_storage.engine.log_format import (
    ALIGNMENT,
    FILE_HEADER_SIZE,
    FRAME_HEADER_SIZE,
    Frame,
    LogDamaged,
    check_file_header,
    decode_frame,
    encode_begin,
    encode_file_header,
    encode_frame,
    find_frame,
)
from fs_storage.engine.syncing import Syncs

FILE_NAMES = ("redo.0", "redo.1")
_ZEROS = bytes(1 << 20)


def format_log(disk: Disk, directory: Path, target: int, step_bytes: int) -> None:
    """Make the two files, empty and durable."""
    disk.make_directory(directory)
    for name in FILE_NAMES:
        file = disk.open(directory / name, create=True)
        try:
            disk.truncate(file, 0)
            _extend(disk, file, 0, step_bytes)
            disk.sync(file)
            disk.write(file, [encode_file_header(target)], 0)
            disk.sync(file)
        finally:
            disk.close(file)
    disk.sync_directory(directory)


def _extend(disk: Disk, file: int, size: int, grown: int) -> None:
    """Let the file grow from `size` to `grown` bytes, of zeros that are really written: a sync of bytes written over
    others needs no change of the file system's own records, and takes a fraction of the time. The caller syncs."""
    disk.allocate(file, size, grown - size)
    for offset in range(size, grown, len(_ZEROS)):
        disk.write(file, [memoryview(_ZEROS)[: grown - offset]], offset)


class RedoLog:
    """See the module. `read` everything, then `begin`, then append."""

    def __init__(self, disk: Disk, syncs: Syncs, directory: Path, target: int, step_bytes: int) -> None:
        self._disk = disk
        self._syncs = syncs
        self._directory = directory
        self._target = target
        self._step_bytes = step_bytes
        """Files grow by so much at a time."""
        self._files: list[int] = []
        self._locks = [threading.Lock() for _ in FILE_NAMES]
        """Of the files, held during a sync."""
        self._sizes: list[int] = []
        self._current = 0
        """Index of the file that is appended to."""
        self._position = FILE_HEADER_SIZE
        """Where its next frame goes."""
        self._boot_id = disk.boot_id()
        self.is_full = False
        """The current file could not grow."""
        self.sequence = 0
        """Of the last frame appended."""
        self.synced = 0
        self.highest = 0
        """Of any frame seen by `read`, the lost ones behind a torn one included: such a sequence is not used again,
        or an old frame could be taken for the continuation of a new one."""
        self.data_synced = 0
        """What frames up to this one put into blocks is on the disk; set by the writer."""

    @property
    def bytes_used(self) -> int:
        """Of the current file."""
        return self._position - FILE_HEADER_SIZE

    def open(self) -> None:
        """Raise `LogDamaged` for files that are not this target's log."""
        for name in FILE_NAMES:
            file = self._disk.open(self._directory / name)
            self._files.append(file)
            self._sizes.append(self._disk.size(file))
            header = bytearray(min(FILE_HEADER_SIZE, self._sizes[-1]))
            self._disk.read(file, (header,), 0)
            try:
                check_file_header(bytes(header), self._target)
            except LogDamaged as error:
                raise LogDamaged(f"{self._directory / name}: {error}") from None

    @property
    def files(self) -> list[int]:
        return self._files

    def sync_files(self) -> None:
        """Whatever was read is durable."""
        for file, lock in zip(self._files, self._locks, strict=True):
            self._syncs.sync(file, lock)

    def close(self) -> None:
        for file in self._files:
            self._disk.close(file)
        self._files = []

    def read(self, after: int) -> Iterator[Frame]:
        """The frames with a sequence above `after`, in order, without a hole. Raises `LogDamaged`."""
        contents = [self._content(index) for index in range(len(self._files))]
        runs = [(self._run(index, content), content) for index, content in enumerate(contents)]
        runs.sort(key=lambda run: run[0][0].sequence if run[0] else 0)
        expected = after + 1
        proof = 0
        for frames, _ in runs:
            for frame in frames:
                if frame.sequence >= expected:
                    if frame.sequence != expected:
                        self._damaged(f"frame {frame.sequence} follows frame {expected - 1}")
                    yield frame
                    expected += 1
                proof = max(proof, frame.log_synced)
                self.highest = max(self.highest, frame.sequence)
        for frames, content in runs:
            lost = find_frame(content, frames[-1].end if frames else FILE_HEADER_SIZE)
            while lost is not None:
                self.highest = max(self.highest, lost.sequence)
                if lost.sequence >= expected:
                    proof = max(proof, lost.log_synced)
                lost = find_frame(content, lost.end)
        if proof >= expected:
            self._damaged(f"frame {expected} was on the disk, and is damaged or missing")

    def _content(self, index: int) -> memoryview:
        content = memoryview(bytearray(self._sizes[index]))
        offset = 0
        while offset < len(content):
            count = self._disk.read(self._files[index], (content[offset : offset + (1 << 26)],), offset)
            if count == 0:
                break
            offset += count
        return content[:offset]

    def _run(self, index: int, content: memoryview) -> list[Frame]:
        """The frames from the start of a file on whose sequences follow each other."""
        frames: list[Frame] = []
        offset = FILE_HEADER_SIZE
        while True:
            frame = decode_frame(content, offset)
            if frame is None or (frames and frame.sequence != frames[-1].sequence + 1):
                return frames
            frames.append(frame)
            offset = frame.end

    def _damaged(self, what: str) -> None:
        raise LogDamaged(f"{self._directory}: {what}; restore the target from its other replicas")

    def begin(self, sequence: int) -> None:
        """Start anew after a checkpoint that holds everything up to `sequence`, which is at least `highest`."""
        check(sequence >= self.highest, "a sequence is not used twice", sequence, self.highest)
        self.sequence = self.synced = self.data_synced = sequence
        self._current = 0
        self._position = FILE_HEADER_SIZE
        self.append([encode_begin(self._boot_id)], 1)

    def has_room(self, size: int) -> bool:
        """Whether a frame with `size` bytes of records fits without the file having to grow (a wait for the disk)."""
        return self._position + size + FRAME_HEADER_SIZE + ALIGNMENT <= self._sizes[self._current]

    def append(self, body: list[Bytes], count: int) -> int:
        """Write one frame; returns its sequence. ENOSPC leaves the log as it was."""
        frame = encode_frame(self.sequence + 1, self.synced, self.data_synced, count, body)
        end = self._position + sum(map(len, frame))
        file = self._files[self._current]
        size = self._sizes[self._current]
        if end > size:
            grown = -(-end // self._step_bytes) * self._step_bytes
            self.is_full = True
            _extend(self._disk, file, size, grown)
            self._syncs.sync(file, self._locks[self._current])
            self.is_full = False
            self._sizes[self._current] = grown
        self._disk.write(file, frame, self._position)
        self._position = end
        self.sequence += 1
        return self.sequence

    def sync(self) -> None:
        if self.synced < self.sequence:
            sequence = self.sequence
            self._syncs.sync(self._files[self._current], self._locks[self._current])
            self.synced = sequence

    def sync_ahead(self) -> None:
        """Let the device have what was appended, before a `sync` that counts. From any thread, not beside `switch`."""
        self._syncs.sync(self._files[self._current], self._locks[self._current])

    def switch(self) -> int:
        """Continue in the other file, whose content a checkpoint holds. Returns the last sequence in this one."""
        self.sync()
        check(self.synced == self.sequence, "a log file is on the disk before the next one is used")
        sequence = self.sequence
        self._current = 1 - self._current
        self.is_full = False
        self._position = FILE_HEADER_SIZE
        self.append([encode_begin(self._boot_id)], 1)
        return sequence
