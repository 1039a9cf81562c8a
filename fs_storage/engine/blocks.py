"""Block files: where chunk bytes live. `blocks/<KiB>k.<n>`, n-th file of one size class, blocks side by side.

Opened, extended and written by the writer thread; positions are computed anywhere.

Invariants:

* A block's place is a function of class and slot: file `slot // blocks in a file`, then blocks side by side. Files
  have a fixed size when full, noted in the target's marker.
* A unit (4 MiB, or one block where that is larger) has its storage allocated before the first write to it: a full
  disk shows here and nowhere later.
"""

import errno
import re
from pathlib import Path

from fs_storage.engine.disk import Disk
from fs_storage.engine.syncing import Syncs
from fs_storage.engine.versions import Block, BlockFile

CLASS_MIN = 12
"""log2 of the smallest block, 4 KiB: the device's and the page cache's unit."""
CLASS_MAX = 26
"""log2 of the largest block, 64 MiB: the largest chunk."""
UNIT_BITS = 22
FILE_BYTES = 4 << 30
"""Of a full block file: few descriptors for a large disk, and a sync does not wait for all of the disk's writes."""

_NAME = re.compile(r"(\d+)k\.(\d+)")


def size_class(length: int) -> int:
    """log2 of the smallest block that takes `length` bytes."""
    return max(CLASS_MIN, (length - 1).bit_length())


def unit_slots(of_class: int) -> int:
    """Blocks in a unit, the piece in which storage is allocated."""
    return 1 << max(0, UNIT_BITS - of_class)


class BlockFiles:
    """All block files of one target."""

    def __init__(self, disk: Disk, syncs: Syncs, directory: Path, file_bytes: int = FILE_BYTES) -> None:
        self._disk = disk
        self._syncs = syncs
        self._directory = directory
        self._file_bits = file_bytes.bit_length() - 1
        self._files: dict[tuple[int, int], BlockFile] = {}
        """By (class, number). A file that does not exist yet has descriptor -1."""

    def open(self) -> dict[int, int]:
        """Open what is there. Returns for each class how many units its files span."""
        units: dict[int, int] = {}
        # A process may have died between making a file and making its name durable.
        self._disk.sync_directory(self._directory)
        for name in self._disk.list_directory(self._directory):
            match = _NAME.fullmatch(name)
            if match is None:
                raise OSError(errno.EINVAL, f"{self._directory / name} is not a file of the engine; move it away")
            of_class = (int(match[1]) * 1024).bit_length() - 1
            number = int(match[2])
            file = self._file(of_class, number)
            file.fd = self._disk.open(self._directory / name)
            unit_bits = max(UNIT_BITS, of_class)
            spanned = (number << (self._file_bits - unit_bits)) + (self._disk.size(file.fd) >> unit_bits)
            units[of_class] = max(units.get(of_class, 0), spanned)
        return units

    def close(self) -> None:
        for file in self._files.values():
            if file.fd >= 0:
                self._disk.close(file.fd)
                file.fd = -1

    def locate(self, of_class: int, slot: int) -> Block:
        slot_bits = self._file_bits - of_class
        number = slot >> slot_bits
        position = (slot - (number << slot_bits)) << of_class
        return Block(of_class, slot, self._file(of_class, number), position)

    def _file(self, of_class: int, number: int) -> BlockFile:
        file = self._files.get((of_class, number))
        if file is None:
            file = BlockFile(-1, f"{1 << (of_class - 10)}k.{number}")
            self._files[of_class, number] = file
        return file

    def is_backed(self, of_class: int, unit: int) -> bool:
        """Whether the unit's file reaches to its end (a punched unit is not known as such)."""
        block = self.locate(of_class, unit * unit_slots(of_class))
        fd = block.file.fd
        return fd >= 0 and self._disk.size(fd) >= block.position + (1 << max(UNIT_BITS, of_class))

    def back(self, of_class: int, unit: int) -> None:
        """Allocate a unit's storage. ENOSPC leaves nothing behind that matters."""
        block = self.locate(of_class, unit * unit_slots(of_class))
        file = block.file
        if file.fd < 0:
            file.fd = self._disk.open(self._directory / file.name, create=True)
            self._disk.sync_directory(self._directory)
        self._disk.allocate(file.fd, block.position, 1 << max(UNIT_BITS, of_class))
        # The new size is needed to find the bytes again, so it is as much a write as they are.
        file.stored += 1
        file.touched += 1

    def punch(self, of_class: int, unit: int) -> None:
        """Give a unit's storage back. Nothing may be stored in it."""
        block = self.locate(of_class, unit * unit_slots(of_class))
        self._disk.punch(block.file.fd, block.position, 1 << max(UNIT_BITS, of_class))

    def allocated_bytes(self) -> int:
        """What all block files take of the file system's space."""
        return sum(self._disk.allocated_bytes(file.fd) for file in list(self._files.values()) if file.fd >= 0)

    def sync(self, file: BlockFile) -> None:
        """On return what was written to the file before is durable. From any thread."""
        stored, touched = file.stored, file.touched
        self._syncs.sync(file.fd, file.lock)
        file.stored_synced = max(file.stored_synced, stored)
        file.touched_synced = max(file.touched_synced, touched)

    def sync_all(self) -> None:
        for file in list(self._files.values()):
            if file.fd >= 0:
                self.sync(file)

    def unsynced(self) -> list[BlockFile]:
        """Files with any write that is not durable. From any thread: the event loop may add files meanwhile."""
        return [file for file in list(self._files.values()) if file.touched != file.touched_synced]
