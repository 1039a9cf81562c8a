"""Batches as tensors: equal to the samples, without a copy where there can be none."""

import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fs_client.loader.batch import Batch  # noqa: E402
from fs_client.loader.torch_collate import RaggedBatch, collate, collate_padded  # noqa: E402
from fs_common.errors import EmberError  # noqa: E402


def samples_in_one_arena(*lengths: int) -> Batch:
    return Batch.of(np.arange(sum(lengths), dtype=np.uint8), np.array(lengths, np.int64))


def as_lists(batch: RaggedBatch) -> list[list[int]]:
    return [tensor.tolist() for tensor in batch]


def test_samples_of_one_arena_are_not_copied() -> None:
    samples = samples_in_one_arena(3, 0, 2)
    batch = collate(samples)
    assert as_lists(batch) == [[0, 1, 2], [], [3, 4]]
    assert batch.lengths.tolist() == [3, 0, 2]
    assert batch.data.data_ptr() == samples[0].ctypes.data
    assert [batch[2].tolist(), len(batch)] == [[3, 4], 3]


@pytest.mark.parametrize("order", [[1, 0], [0, 0], [1, 1, 0]])
def test_samples_out_of_order_are_joined(order: list[int]) -> None:
    samples = samples_in_one_arena(3, 2)
    assert as_lists(collate([samples[i] for i in order])) == [samples[i].tolist() for i in order]


def test_an_empty_batch() -> None:
    assert as_lists(collate([])) == []


def test_a_batch_survives_pickling() -> None:
    batch = collate(samples_in_one_arena(3, 2))
    assert as_lists(batch) == as_lists(pickle.loads(pickle.dumps(batch)))


def test_a_batch_moves_as_one() -> None:
    assert as_lists(collate(samples_in_one_arena(1, 2)).to("cpu", copy=True)) == [[0], [1, 2]]


def test_padding() -> None:
    padded, lengths = collate_padded(samples_in_one_arena(3, 0, 2), fill=255)
    assert padded.tolist() == [[0, 1, 2], [255] * 3, [3, 4, 255]]
    assert lengths.tolist() == [3, 0, 2]
    assert collate_padded(samples_in_one_arena(1), length=2)[0].tolist() == [[0, 0]]


def test_padding_never_cuts() -> None:
    with pytest.raises(EmberError, match="3 bytes"):
        collate_padded(samples_in_one_arena(3), length=2)
