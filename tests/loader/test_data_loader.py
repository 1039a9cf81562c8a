"""The datasets and the sampler inside a real PyTorch DataLoader, in its processes."""

import errno

import pytest

torch = pytest.importorskip("torch")

from torch.utils.data import DataLoader, Subset  # noqa: E402

from fs_client.loader.batch import SampleError  # noqa: E402
from fs_client.loader.file_dataset import FileDataset  # noqa: E402
from fs_client.loader.packed_dataset import PackedDataset  # noqa: E402
from fs_client.loader.packing import pack  # noqa: E402
from fs_client.loader.sampler import ElasticBatchSampler  # noqa: E402
from fs_client.loader.torch_collate import collate, collate_padded  # noqa: E402
from fs_common.errors import Code  # noqa: E402
from tests.loader.fake_fs import FakeFileSystem  # noqa: E402

COUNT = 100
CONTENTS = {f"/data/{i:03}": b"%d" % i * (i % 7) for i in range(COUNT)}


def read(loader: "DataLoader[object]") -> list[list[bytes]]:
    return [[bytes(sample.numpy()) for sample in batch] for batch in loader]


def expected(sampler: ElasticBatchSampler) -> list[list[bytes]]:
    values = list(CONTENTS.values())
    return [[values[i] for i in batch] for batch in sampler]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_of_files(workers: int) -> None:
    sampler = ElasticBatchSampler(COUNT, 7, seed=1)
    data = FileDataset(FakeFileSystem(dict(CONTENTS)), "/data")
    loader = DataLoader(data, batch_sampler=sampler, num_workers=workers, collate_fn=collate)
    for epoch in range(2):
        sampler.set_epoch(epoch)
        assert read(loader) == expected(sampler)


def test_spawned_workers_get_the_dataset_by_pickling() -> None:
    fs = FakeFileSystem(dict(CONTENTS))
    pack(fs, CONTENTS.items(), "/packed")
    sampler = ElasticBatchSampler(COUNT, 50, seed=1)
    loader = DataLoader(
        PackedDataset(fs, "/packed"),
        batch_sampler=sampler,
        num_workers=1,
        collate_fn=collate,
        multiprocessing_context="spawn",
    )
    assert read(loader) == expected(sampler)


def test_a_plain_loader_makes_one_read_for_a_batch() -> None:
    fs = FakeFileSystem(dict(CONTENTS))
    data = FileDataset(fs, "/data")
    for padded, lengths in DataLoader(data, batch_size=10, collate_fn=collate_padded):
        assert padded.shape[0] == len(lengths) == 10
    assert fs.batches == [10] * 10


def test_a_subset_keeps_the_batched_read() -> None:
    fs = FakeFileSystem(dict(CONTENTS))
    loader = DataLoader(Subset(FileDataset(fs, "/data"), [5, 3, 1]), batch_size=3, collate_fn=collate)
    assert read(loader) == [[CONTENTS["/data/005"], CONTENTS["/data/003"], CONTENTS["/data/001"]]]
    assert fs.batches == [3]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_names_the_sample_wherever_it_happens(workers: int) -> None:
    fs = FakeFileSystem(dict(CONTENTS))
    data = FileDataset(fs, "/data")
    fs.broken["/data/042"] = Code.CHECKSUM
    loader = DataLoader(data, batch_size=10, num_workers=workers, collate_fn=collate)
    batches = iter(loader)
    with pytest.raises(SampleError, match="sample 42, /data/042") as caught:
        for _ in batches:
            pass
    assert caught.value.errno == errno.EIO
    assert len(list(batches)) == 5, "the loader goes on behind the batch that failed"


def test_resume_in_the_middle_of_an_epoch_with_workers_that_read_ahead() -> None:
    data = FileDataset(FakeFileSystem(dict(CONTENTS)), "/data")

    def loader(sampler: ElasticBatchSampler) -> "DataLoader[object]":
        return DataLoader(data, batch_sampler=sampler, num_workers=2, prefetch_factor=4, collate_fn=collate)

    whole = ElasticBatchSampler(COUNT, 7, seed=3)
    before = read(loader(whole))
    stopped = ElasticBatchSampler(COUNT, 7, seed=3)
    batches = iter(loader(stopped))
    taken = [[bytes(sample.numpy()) for sample in next(batches)] for _ in range(5)]
    state = stopped.state_dict(batches=5)
    del batches
    resumed = ElasticBatchSampler(COUNT, 7)
    resumed.load_state_dict(state)
    assert taken + read(loader(resumed)) == before
