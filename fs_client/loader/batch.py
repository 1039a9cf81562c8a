"""A batch of samples in one arena, and the error of a sample that could not be read."""

import errno
from collections.abc import Iterable, Sequence
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

Sample: TypeAlias = NDArray[np.uint8]
"""1-D, writable; a view into the arena of its batch."""


class Batch(tuple[Sample, ...]):
    """Samples in the order they were asked for, as views into one arena.

    The arena belongs to this batch: it is never used again for another one, and it lives as long as the batch or any
    sample of it does. So samples may be kept and written to; keeping one keeps the memory of all. The views do not
    overlap, not even where an index was asked for twice.

    Pickled, it is one buffer, not one for each sample.
    """

    arena: Sample
    """The samples one after another, without gaps."""
    lengths: NDArray[np.int64]
    """Bytes of each."""

    @classmethod
    def of(cls, arena: Sample, lengths: NDArray[np.int64]) -> Self:
        """The batch whose samples lie in `arena` one after another. Takes the arena over."""
        ends = np.cumsum(lengths).tolist()
        begins = [0, *ends[:-1]]
        batch = cls(arena[begin:end] for begin, end in zip(begins, ends, strict=False))
        batch.arena = arena
        batch.lengths = lengths
        return batch

    @classmethod
    def joined(cls, samples: Sequence[Sample]) -> Self:
        """A batch with copies of these samples."""
        arena = np.concatenate(samples) if samples else np.empty(0, np.uint8)
        return cls.of(arena, np.fromiter(map(len, samples), np.int64, len(samples)))

    def __reduce__(self) -> tuple[Any, ...]:
        return (Batch.of, (self.arena, self.lengths))


class SampleError(OSError):
    """A sample could not be read. `index`: which; `filename`: its path; `errno`: what POSIX would call it.

    A DataLoader makes it anew from its text alone when it comes from a worker: the text names index and path too.
    """

    def __init__(
        self, message: str, number: int = errno.EIO, index: int | None = None, path: str | None = None
    ) -> None:
        super().__init__(number, message, path)
        self.index = index

    def __str__(self) -> str:
        return str(self.strerror)

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.strerror, self.errno, self.index, self.filename))


def check_indices(indices: Iterable[int], count: int) -> NDArray[np.int64]:
    """The indices as an array, negative ones counted from the end. Raises `IndexError` naming the one outside."""
    array = np.asarray(indices if isinstance(indices, (np.ndarray, list)) else list(indices))
    if array.size == 0:
        return np.empty(0, np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise TypeError(f"sample indices are whole numbers, not {array.dtype} of shape {array.shape}")
    array = array.astype(np.int64)
    outside = (array < -count) | (array >= count)
    if outside.any():
        raise IndexError(f"sample {int(array[outside][0])} of a dataset of {count}")
    return np.where(array < 0, array + count, array)
