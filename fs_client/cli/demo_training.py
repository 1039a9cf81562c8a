"""The demo's training loop: epochs of a PyTorch DataLoader over a dataset, with every sample compared to its source.

Everything a training job relies on is checked, not assumed: the batches are those that the sampler names, in its order;
every sample comes exactly once an epoch; every byte is the source's; another epoch has another order.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fs_client.cli.demo_data import SourceFile, digest
from fs_client.cli.failure import Failure
from fs_client.cli.progress import Progress
from fs_client.loader.dataset import SampleDataset
from fs_client.loader.sampler import ElasticBatchSampler
from fs_client.loader.torch_collate import collate

BATCH_SIZE = 64


@dataclass(frozen=True, slots=True)
class EpochResult:
    samples: int
    sample_bytes: int
    elapsed_s: float
    order: tuple[int, ...]
    """Sample indices as they came."""


def run_epochs(
    title: str, dataset: SampleDataset, expected: Sequence[SourceFile], *, epochs: int, workers: int, seed: int
) -> Iterator[EpochResult]:
    """Train from `dataset`, whose sample i has to be `expected[i]`; a result after each epoch.

    Raises `Failure` for the first deviation.
    """
    from torch.utils.data import DataLoader

    if len(dataset) != len(expected):
        raise Failure(f"{title}: the dataset has {len(dataset)} samples, the source {len(expected)}")
    sampler = ElasticBatchSampler(len(dataset), BATCH_SIZE, seed=seed)
    loader = DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=collate,
        persistent_workers=workers > 0,
    )
    orders: set[tuple[int, ...]] = set()
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        result = _run_epoch(f"{title}, epoch {epoch}", loader, expected, seed, epoch)
        if result.order in orders and len(expected) > 10:
            raise Failure(f"{title}: epoch {epoch} came in the order of an earlier one")
        orders.add(result.order)
        yield result


def _run_epoch(title: str, loader: "object", expected: Sequence[SourceFile], seed: int, epoch: int) -> EpochResult:
    announced = ElasticBatchSampler(len(expected), BATCH_SIZE, seed=seed)
    announced.set_epoch(epoch)
    order: list[int] = []
    sample_bytes = 0
    start = time.perf_counter()
    with Progress(title, len(expected), "samples") as progress:
        for indices, batch in zip(announced, loader, strict=True):  # type: ignore[call-overload]
            if len(batch) != len(indices):
                raise Failure(f"{title}: a batch of {len(batch)} samples instead of {len(indices)}")
            for i, sample in zip(indices, batch, strict=True):
                _compare(title, expected[i], memoryview(sample.numpy()))
            order += indices
            sample_bytes += int(batch.lengths.sum())
            progress.advance(len(indices))
    elapsed_s = time.perf_counter() - start
    if sorted(order) != list(range(len(expected))):
        raise Failure(f"{title}: {len(set(order))} of {len(expected)} samples came, {len(order)} in all")
    return EpochResult(len(order), sample_bytes, elapsed_s, tuple(order))


def _compare(title: str, source: SourceFile, sample: memoryview) -> None:
    if len(sample) != source.size or digest(sample) != source.digest:
        raise Failure(
            f"{title}: {source.name} was read as {len(sample)} bytes with digest {digest(sample).hex()}; its source "
            f"{source.path} has {source.size} bytes with digest {source.digest.hex()}"
        )
