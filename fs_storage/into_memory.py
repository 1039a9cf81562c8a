"""Stored bytes into memory, for who sends them on or changes them before they go anywhere. Waits for the disk."""

import os

from fs_common.errors import Code, EmberError
from fs_common.rpc import FileRange
from fs_storage.engine.interface import ChunkRead, ChunkStore


def read_into(store: ChunkStore, chunk: bytes, offset: int, view: memoryview, *, pending: bool = False) -> ChunkRead:
    """Read the committed (or the pending) version from `offset` on into `view`; called in a thread.

    The answer's `length` bytes are in `view`, whatever its `part` is; the caller calls its `release`. Raises as
    `ChunkStore.read_blocking`, and DISK_FAILED for a block that ends early.
    """
    read = store.read_blocking(chunk, offset, len(view), view, pending=pending)
    part = read.part
    if isinstance(part, FileRange):
        filled = 0
        while filled < part.length:
            count = os.preadv(part.file, [view[filled : part.length]], part.offset + filled)
            if not count:
                raise EmberError(Code.DISK_FAILED, f"the block of chunk {chunk.hex()} ends early")
            filled += count
    return read
