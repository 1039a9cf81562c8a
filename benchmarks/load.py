"""Samples a second that a training process gets from the loader, over what it would get from its own memory.

2,000 files of 16 KiB, once as a tree and once packed, shuffled, in batches of 64, in one process without DataLoader
workers, so that nothing but the loader is measured. The limit takes the same samples in the same order from arrays in
memory and copies each batch into one arena, which is the one copy that a loader must make.
"""

import os
import time
from collections.abc import Callable, Sequence

import numpy as np

import fs_client
from benchmarks.context import Context
from benchmarks.cpu import CpuMeter
from benchmarks.files import DIRECTORY
from benchmarks.measure import Figure, Limit, Series, alternate
from fs_client.filesystem import FileSystem
from fs_client.loader.batch import Batch, Sample
from fs_client.loader.file_dataset import FileDataset
from fs_client.loader.packed_dataset import PackedDataset
from fs_client.loader.packing import pack
from fs_client.loader.sampler import ElasticBatchSampler

SAMPLE_BYTES = 16 * 1024
BATCH_SIZE = 64
TREE = f"{DIRECTORY}/samples"
PACKED = f"{DIRECTORY}/samples.pack"


def run(context: Context) -> list[Figure]:
    count = context.count(2000)
    cpu_tree, cpu_packed = CpuMeter(context.processes), CpuMeter(context.processes)
    samples = [np.frombuffer(os.urandom(SAMPLE_BYTES), np.uint8) for _ in range(count)]
    with fs_client.connect(context.cluster) as fs:
        _store(fs, samples)
        tree, packed = FileDataset(fs, TREE), PackedDataset(fs, PACKED)
        epochs = iter(range(1_000_000))
        of_tree, of_packed, memory = alternate(
            context.repeat,
            cpu_tree.metered(lambda: _samples_per_s(tree.__getitems__, count, next(epochs)), count),
            cpu_packed.metered(lambda: _samples_per_s(packed.__getitems__, count, next(epochs)), count),
            lambda: _samples_per_s(lambda batch: Batch.joined([samples[i] for i in batch]), count, next(epochs)),
        )
        fs.rmtree(TREE)
        fs.unlink(PACKED)
    limits = (Limit("from memory", Series("1/s", memory)),)
    what = f"{SAMPLE_BYTES // 1024}-KiB samples, batches of {BATCH_SIZE}; "
    notes = what + cpu_tree.note("sample"), what + cpu_packed.note("sample")
    return [
        Figure("load.tree", "loader, tree of files", Series("1/s", of_tree), limits, note=notes[0]),
        Figure("load.packed", "loader, packed file", Series("1/s", of_packed), limits, note=notes[1]),
    ]


def _store(fs: FileSystem, samples: Sequence[Sample]) -> None:
    fs.rmtree(TREE, ignore_errors=True)
    fs.makedirs(TREE)
    for i, sample in enumerate(samples):
        fs.write_file(f"{TREE}/{i:06}", sample)
    pack(fs, ((str(i), sample.data) for i, sample in enumerate(samples)), PACKED)


def _samples_per_s(read: Callable[[list[int]], Sequence[Sample]], count: int, epoch: int) -> float:
    sampler = ElasticBatchSampler(count, BATCH_SIZE, seed=1)
    sampler.set_epoch(epoch)
    start = time.perf_counter()
    for batch in sampler:
        assert len(read(batch)) == len(batch)
    return count / (time.perf_counter() - start)
