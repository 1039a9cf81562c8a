"""What the datasets share: one `read_ranges` for a batch, samples or errors out of it, and the life of the client.

A map-style dataset as `torch.utils.data` expects it, without torch: `len`, `[i]`, and `__getitems__(indices)`, which a
DataLoader calls once for each batch with the list its batch sampler gave. Length and order of the answer are those of
the request, duplicates included. Subset, StackDataset, Hugging Face datasets and Grain use the same method.

Fork and spawn: a dataset pickles as its index and the options of its client, and a client that was inherited through
fork opens anew on first use, so workers need no `worker_init_fn`. Threads may share a dataset.
"""

import inspect
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fs_client.file_ref import FileRef
from fs_client.filesystem import FileSystem, connect
from fs_client.loader.batch import Batch, Sample, SampleError, check_indices
from fs_client.memory import allocate
from fs_client.options import ClusterAddress
from fs_client.read_ranges import RangeError

Transform: TypeAlias = Callable[[Sample], Any] | Callable[[Sample, int], Any]
"""A sample, and its index if it must have that, to what the dataset returns. The sample is the transform's own: it may
be kept and written to."""
Cluster: TypeAlias = FileSystem | ClusterAddress | None
"""A connected file system, which stays the caller's; or an address (None: the default one) to connect to."""


class SampleDataset(ABC):
    """See the module. A context manager: it ends the client, if the dataset made it."""

    def __init__(self, cluster: Cluster, transform: Transform | None) -> None:
        self._owns_client = not isinstance(cluster, FileSystem)
        self._fs = cluster if isinstance(cluster, FileSystem) else connect(cluster)
        self._transform = transform
        self._wants_index = transform is not None and _wants_index(transform)

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def path(self, i: int) -> str:
        """Where sample `i` comes from."""

    @abstractmethod
    def _ranges(self, indices: NDArray[np.int64]) -> Sequence[tuple[FileRef, int, int]]:
        """(file, offset, length) of each sample."""

    def __getitem__(self, i: int | slice) -> Any:
        """One sample: a writable uint8 array of its own, or what the transform makes of it. Of a slice: what
        `__getitems__` gives for its indices."""
        if isinstance(i, slice):
            return self.__getitems__(range(*i.indices(len(self))))
        return self.__getitems__([i])[0]

    def __getitems__(self, indices: Iterable[int]) -> Sequence[Any]:
        """The samples at these indices, in this order, read by one `read_ranges`.

        Without a transform a `Batch`; with one, the list of what it returned. Raises `IndexError`; `SampleError` for
        the first sample that could not be read or is shorter than the index says, naming it; what the transform
        raises, with a note that names the sample.
        """
        numbers = check_indices(indices, len(self))
        ranges = self._ranges(numbers)
        lengths = np.fromiter((length for _, _, length in ranges), np.int64, len(ranges))
        arena = allocate(int(lengths.sum()))
        try:
            views = self._fs.read_ranges(ranges, into=arena)
        except OSError as error:
            cause = error.__cause__
            if isinstance(cause, RangeError):
                raise self._sample_error(int(numbers[cause.number]), cause) from error
            raise
        for i, view in enumerate(views):
            if len(view) != lengths[i]:
                raise self._short(int(numbers[i]), len(view), int(lengths[i]))
        batch = Batch.of(np.frombuffer(arena, np.uint8), lengths)
        if self._transform is None:
            return batch
        return [self._transformed(sample, i) for sample, i in zip(batch, numbers.tolist(), strict=True)]

    def _transformed(self, sample: Sample, i: int) -> Any:
        assert self._transform is not None
        try:
            return self._transform(sample, i) if self._wants_index else self._transform(sample)  # type: ignore[call-arg]
        except Exception as error:
            error.add_note(f"in the transform of sample {i}, {self.path(i)}")
            raise

    def _sample_error(self, i: int, error: RangeError) -> SampleError:
        path = self.path(i)
        return SampleError(f"sample {i}, {path}: {error}", error.errno or 0, i, path)

    def _short(self, i: int, length: int, expected: int) -> SampleError:
        path = self.path(i)
        return SampleError(
            f"sample {i}, {path}: short read, {length} of {expected} bytes: the file was cut after the index was made",
            index=i,
            path=path,
        )

    def close(self) -> None:
        """End the client, if the dataset made it. Closing twice is fine."""
        if self._owns_client:
            self._fs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _wants_index(transform: Transform) -> bool:
    """Whether it cannot be called with a sample alone. What it does with a second argument is not known otherwise:
    transforms for images have settings there."""
    try:
        signature = inspect.signature(transform)
        signature.bind(None)
    except TypeError:
        return True
    except ValueError:
        # It is built in, and does not tell.
        return False
    return False


def join(root: str, relative: bytes) -> str:
    """The path of a file below `root`."""
    return root.rstrip("/") + "/" + os.fsdecode(relative)
