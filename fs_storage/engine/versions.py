"""What the engine knows of a chunk: values shared by its parts. Immutable, so that threads may hold them.

The bytes of a version are the bytes of its block with its patches laid over them, in order. A patch is removed from
the version once it is written into the block.
"""

import threading
from typing import NamedTuple

from fs_common.limits import PAGE_SIZE_MAX, PAGE_SIZE_MIN, page_size

PAGE_SHIFTS = tuple(page_size(1 << bits).bit_length() - 1 for bits in range(32))
"""log2 of the page size, by log2 of the chunk size."""
assert 1 << min(PAGE_SHIFTS) == PAGE_SIZE_MIN and 1 << max(PAGE_SHIFTS) == PAGE_SIZE_MAX


class BlockFile:
    """One open file of blocks, and what is known of its durability. Counters only grow.

    Written by the engine's writer thread; `sync_finished` also by the checkpoint's. A file is clean with regard to
    a counter when its synced twin has caught up.
    """

    __slots__ = ("fd", "lock", "name", "stored", "stored_synced", "touched", "touched_synced")

    def __init__(self, fd: int, name: str) -> None:
        self.fd = fd
        self.lock = threading.Lock()
        """Held during a sync; see `syncing`."""
        self.name = name
        self.stored = 0
        """Writes whose bytes are nowhere else: direct ones."""
        self.stored_synced = 0
        self.touched = 0
        """All writes: direct ones, and patches applied, whose bytes are in the log as well."""
        self.touched_synced = 0


class Block(NamedTuple):
    """A slot of a block file."""

    size_class: int
    """log2 of the block's bytes."""
    slot: int
    """Number within the class."""
    file: BlockFile
    position: int
    """Byte offset of the block in the file."""


class Patch(NamedTuple):
    """Bytes of a version that are in the log and not yet in the block."""

    offset: int
    """Within the chunk."""
    data: bytes


class Version(NamedTuple):
    """One version of a chunk."""

    number: int
    chain_version: int
    chunk_bits: int
    """log2 of the chunk size."""
    length: int
    used: int
    """Bytes from the block's start that some version, not only this one, may still need. Always >= length.

    Bytes at and beyond it may be written at any time; bytes below it only by applying a patch."""
    removed: bool
    removed_at: int
    """Seconds of the store's odometer, set when a removal is committed; otherwise 0."""
    block: Block | None
    """None: it has no bytes."""
    checksums: bytes
    """Packed CRC32C of each page; the last one covers the bytes up to `length`."""
    whole: bytes
    """Packed CRC32C of all bytes, or b"": not known."""
    patches: tuple[Patch, ...]


class Identity(NamedTuple):
    """Which update made a version."""

    client: bytes
    channel: int
    sequence: int


NOBODY = Identity(b"", 0, 0)


class Record(NamedTuple):
    """One chunk. Both None: the chunk has no record."""

    committed: Version | None
    pending: Version | None
    identity: Identity
    """Of the update that made `pending`; NOBODY without one."""


NOTHING = Record(None, None, NOBODY)


def page_count(length: int, chunk_bits: int) -> int:
    shift = PAGE_SHIFTS[chunk_bits]
    return (length + (1 << shift) - 1) >> shift


def overlay(target: memoryview, start: int, patches: tuple[Patch, ...]) -> None:
    """Lay `patches` over `target`, the bytes of a chunk from `start` on."""
    end = start + len(target)
    for offset, data in patches:
        low = max(start, offset)
        high = min(end, offset + len(data))
        if low < high:
            target[low - start : high - start] = memoryview(data)[low - offset : high - offset]
