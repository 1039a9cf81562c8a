"""Where the bytes of a file live: layout, the shuffle of its chains, and the split of a byte range into chunks.

Pure. Chunk `i` of a file is on `chains[i mod stripe]`, where `chains` is computed from the layout and the chain
table of the version the layout names. Every client and server, of every version, must compute the same chains
for ever, so the shuffle is specified here byte by byte and pinned by test vectors:

    candidates[k] = table[(first + k) mod len(table)]      for k in 0 .. stripe-1
    state = seed                                            (64 bits)
    for k = stripe-1 down to 1:
        state = (state + 0x9E3779B97F4A7C15) mod 2**64      (splitmix64)
        z = state
        z = ((z xor (z >> 30)) * 0xBF58476D1CE4E5B9) mod 2**64
        z = ((z xor (z >> 27)) * 0x94D049BB133111EB) mod 2**64
        z = z xor (z >> 31)
        j = (z * (k + 1)) >> 64
        swap candidates[k], candidates[j]
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from fs_common.errors import Code, EmberError
from fs_common.limits import CHUNK_INDEX_MAX, CHUNK_SIZE_DEFAULT, CHUNK_SIZE_MAX, CHUNK_SIZE_MIN

_MASK = 2**64 - 1


class Durability:
    """When an update counts as stored (values of `Layout.durability`)."""

    DISK = 0
    """Synced to the disk of every serving replica."""
    MEMORY = 1
    """In the page cache of every serving replica: survives the death of processes, not of machines."""


class Layout(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How a file is cut up and where it goes. A directory's layout is what its new children inherit.

    For a directory `table_version`, `first` and `seed` are 0: they are chosen when a file is created.
    """

    chunk_size: int = CHUNK_SIZE_DEFAULT
    """Bytes; a power of two, 64 KiB to 64 MiB."""
    stripe: int = 1
    """Chains a file is spread over; 1 .. length of the table."""
    table: int = 1
    table_version: int = 0
    first: int = 0
    """Index in the table of the first of `stripe` consecutive chains."""
    seed: int = 0
    """64 bits: orders those chains for this file."""
    durability: int = Durability.DISK


class Extent(NamedTuple):
    """A piece of a file that lies in one chunk."""

    index: int  # type: ignore[assignment]  # tuple.index is of no use here
    """Chunk index within the file."""
    offset: int
    """Byte offset within the chunk."""
    length: int
    """Bytes, >= 1."""
    position: int
    """Offset of this piece in the caller's range (and buffer)."""


def validate(layout: Layout) -> None:
    """Raise `EmberError(INVALID)` naming the field that is wrong."""
    size = layout.chunk_size
    if not CHUNK_SIZE_MIN <= size <= CHUNK_SIZE_MAX or size & (size - 1):
        raise EmberError(Code.INVALID, f"chunk size {size} is not a power of two from 64 KiB to 64 MiB")
    if layout.stripe < 1:
        raise EmberError(Code.INVALID, f"stripe {layout.stripe} is less than 1")
    if layout.durability not in (Durability.DISK, Durability.MEMORY):
        raise EmberError(Code.INVALID, f"durability {layout.durability} is neither 0 (disk) nor 1 (memory)")


def stripe_chains(layout: Layout, table: Sequence[int]) -> tuple[int, ...]:
    """The chain of chunk `i` is element `i mod stripe`. `table`: chain ids of the layout's table and version."""
    count = min(layout.stripe, len(table))
    chains = [table[(layout.first + k) % len(table)] for k in range(count)]
    state = layout.seed
    for k in range(count - 1, 0, -1):
        state = (state + 0x9E3779B97F4A7C15) & _MASK
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        z ^= z >> 31
        j = (z * (k + 1)) >> 64
        chains[k], chains[j] = chains[j], chains[k]
    return tuple(chains)


def split(chunk_size: int, offset: int, length: int) -> Iterator[Extent]:
    """Cut file bytes `[offset, offset + length)` at chunk borders, in order. Yields nothing for length 0."""
    position = 0
    while position < length:
        index, within = divmod(offset + position, chunk_size)
        if index > CHUNK_INDEX_MAX:
            raise EmberError(Code.FILE_TOO_LARGE, f"offset {offset + position} is beyond the last chunk of a file")
        size = min(chunk_size - within, length - position)
        yield Extent(index, within, size, position)
        position += size
