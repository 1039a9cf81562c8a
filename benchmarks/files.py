"""The large file that several benchmarks read, written once for all of them."""

import os
import secrets

from benchmarks.context import MIB, Context
from fs_client.filesystem import FileSystem
from fs_common.layout import Durability

DIRECTORY = "/bench"
LARGE = f"{DIRECTORY}/large"


def pattern(size: int) -> memoryview:
    """`size` bytes of memory that is touched and does not repeat within a chunk: 64 random MiB, again and again."""
    block = os.urandom(min(size, 64 * MIB))
    memory = memoryview(bytearray(size))
    for start in range(0, size, len(block)):
        piece = memory[start : start + len(block)]
        piece[:] = block[: len(piece)]
    return memory


def large_file(fs: FileSystem, context: Context) -> str:
    """The path of a file of `context.file_bytes`, in the page cache of the daemons (this writes it if need be)."""
    if fs.exists(LARGE) and fs.stat(LARGE).st_size == context.file_bytes:
        return LARGE
    fs.makedirs(DIRECTORY, exist_ok=True)
    fs.set_layout(DIRECTORY, durability=Durability.MEMORY)
    partial = f"{LARGE}.{secrets.token_hex(4)}"
    with fs.open(partial, "wb") as file:
        file.write(pattern(context.file_bytes))
    fs.rename(partial, LARGE)
    return LARGE
