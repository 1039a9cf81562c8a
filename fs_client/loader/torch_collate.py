"""Batches of samples of any length as torch tensors. The one module of the loader that needs torch, and only when used.

Pass `collate` (or `collate_padded`) as `collate_fn=` of `torch.utils.data.DataLoader`. Both take what a dataset
without a transform returns: a sequence of 1-D uint8 arrays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from fs_client.loader.batch import Batch, Sample
from fs_common.errors import Code, EmberError

if TYPE_CHECKING:
    import torch


class RaggedBatch:
    """A sequence of uint8 tensors, which are views of one: a batch crosses process borders as two tensors, not as one
    for each sample (each would take a file descriptor of its own).
    """

    def __init__(self, data: torch.Tensor, lengths: torch.Tensor) -> None:
        self.data = data
        """uint8[sum of lengths]: the samples one after another."""
        self.lengths = lengths
        """int64[samples], on the CPU."""
        self._tensors: tuple[torch.Tensor, ...] | None = None

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """One uint8 tensor for each sample; they share `data`."""
        if self._tensors is None:
            self._tensors = self.data.split(self.lengths.tolist()) if len(self) else ()
        return self._tensors

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, i: int) -> torch.Tensor:
        return self.tensors[i]

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(self.tensors)

    def pin_memory(self) -> RaggedBatch:
        """Called by a DataLoader with `pin_memory=True`."""
        return RaggedBatch(self.data.pin_memory(), self.lengths)

    def to(self, *arguments: Any, **options: Any) -> RaggedBatch:
        """The same samples on another device: one transfer for all of them."""
        return RaggedBatch(self.data.to(*arguments, **options), self.lengths)

    def __getstate__(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.data, self.lengths

    def __setstate__(self, state: tuple[torch.Tensor, torch.Tensor]) -> None:
        self.data, self.lengths = state
        self._tensors = None


def collate(samples: Sequence[Sample]) -> RaggedBatch:
    """The samples as they are. A dataset's `Batch` is not copied: the tensors own its arena from then on."""
    torch = _torch()
    batch = samples if isinstance(samples, Batch) else Batch.joined(samples)
    return RaggedBatch(torch.from_numpy(batch.arena), torch.from_numpy(batch.lengths))


def collate_padded(
    samples: Sequence[Sample], *, length: int | None = None, fill: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """(uint8[samples, length], int64[samples] of real lengths): each sample followed by `fill`.

    `length` None: that of the longest sample. Raises `EmberError(INVALID)` if a sample is longer than `length`.
    """
    torch = _torch()
    lengths = torch.tensor([len(sample) for sample in samples], dtype=torch.int64)
    longest = max(map(len, samples), default=0)
    if length is not None and longest > length:
        raise EmberError(Code.INVALID, f"a sample has {longest} bytes, more than the length {length} to pad to")
    padded = torch.full((len(samples), longest if length is None else length), fill, dtype=torch.uint8)
    rows = padded.numpy()
    for row, sample in zip(rows, samples, strict=True):
        row[: len(sample)] = sample
    return padded, lengths


def _torch() -> Any:
    import torch

    return torch
