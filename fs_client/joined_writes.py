"""Writes of one chunk that wait together become one change of it.

Where they overlap the later one counts. What they come to is pieces: runs of bytes that touch nobody else's.

Pure.
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise

Piece = tuple[int, memoryview]
"""Offset, bytes."""


def join(writes: Sequence[Piece]) -> list[Piece]:
    """`writes`: at least one, none empty, in their order. Returns pieces, ascending, apart from each other; in memory
    of their own, unless a single write is all there is."""
    if len(writes) == 1:
        return list(writes)
    ordered = sorted(writes, key=lambda write: write[0])
    if all(offset + len(data) < after for (offset, data), (after, _) in pairwise(ordered)):
        return [(offset, memoryview(bytes(data))) for offset, data in ordered]
    starts: list[int] = []
    ends: list[int] = []
    for offset, data in ordered:
        end = offset + len(data)
        if starts and offset <= ends[-1]:
            ends[-1] = max(ends[-1], end)
        else:
            starts.append(offset)
            ends.append(end)
    runs = [memoryview(bytearray(end - start)) for start, end in zip(starts, ends, strict=True)]
    for offset, data in writes:
        place = bisect_right(starts, offset) - 1
        within = offset - starts[place]
        runs[place][within : within + len(data)] = data
    return list(zip(starts, runs, strict=True))
