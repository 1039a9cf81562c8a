"""Files as samples: the right bytes in the right order by one read for a batch, and errors that name the sample."""

import errno
import pickle
from typing import Any

import numpy as np
import pytest

from fs_client.loader.batch import Batch, SampleError
from fs_client.loader.file_dataset import FileDataset
from fs_common.errors import Code
from tests.loader.fake_fs import FakeFileSystem

FILES = {
    "/data/b.txt": b"bee",
    "/data/a/x.bin": b"ex",
    "/data/a/empty.txt": b"",
    "/data/c.bin": bytes(range(256)),
    "/elsewhere/z.txt": b"zed",
}
ORDER = ["/data/a/empty.txt", "/data/a/x.bin", "/data/b.txt", "/data/c.bin"]


def dataset(**options: object) -> tuple[FakeFileSystem, FileDataset]:
    fs = FakeFileSystem(dict(FILES))
    return fs, FileDataset(fs, "/data", **options)  # type: ignore[arg-type]


def contents(samples: object) -> list[bytes]:
    return [bytes(sample) for sample in samples]  # type: ignore[attr-defined]


def test_samples_are_the_files_below_the_root_in_path_order() -> None:
    _, data = dataset()
    assert [data.path(i) for i in range(len(data))] == ORDER
    assert contents(data) == [FILES[path] for path in ORDER]
    assert data.total_bytes == 3 + 2 + 256


def test_a_batch_is_one_read_in_the_order_asked_for() -> None:
    fs, data = dataset()
    batch = data.__getitems__([3, 1, 3, 0])
    assert contents(batch) == [FILES[ORDER[i]] for i in (3, 1, 3, 0)]
    assert fs.batches == [4]


def test_a_batch_is_one_arena_and_its_samples_do_not_overlap() -> None:
    _, data = dataset()
    batch = data.__getitems__([1, 1, 2])
    assert isinstance(batch, Batch)
    assert bytes(batch.arena) == b"exexbee"
    assert batch.lengths.tolist() == [2, 2, 3]
    batch[0][:] = 0
    assert contents(batch) == [b"\0\0", b"ex", b"bee"]
    assert np.shares_memory(batch.arena, batch[0])


def test_later_batches_leave_earlier_ones_alone() -> None:
    _, data = dataset()
    kept = [data.__getitems__([i]) for i in range(4)]
    assert [contents(batch) for batch in kept] == [[FILES[path]] for path in ORDER]


def test_a_pickled_batch_is_its_arena() -> None:
    _, data = dataset()
    batch = data.__getitems__([3, 3])
    again = pickle.loads(pickle.dumps(batch))
    assert isinstance(again, Batch)
    assert contents(again) == contents(batch)
    assert len(pickle.dumps(batch)) < 1000


@pytest.mark.parametrize("indices", [[0], (1, 2), np.array([3]), range(2), []])
def test_any_kind_of_indices(indices: object) -> None:
    _, data = dataset()
    expected = [FILES[ORDER[i]] for i in indices]  # type: ignore[attr-defined]
    assert contents(data.__getitems__(indices)) == expected  # type: ignore[arg-type]


def test_single_samples_and_negative_indices() -> None:
    _, data = dataset()
    assert bytes(data[2]) == b"bee"
    assert bytes(data[-1]) == bytes(range(256))
    assert bytes(data[np.int64(1)]) == b"ex"


@pytest.mark.parametrize("index", [4, -5])
def test_an_index_outside_is_an_index_error(index: int) -> None:
    _, data = dataset()
    with pytest.raises(IndexError, match=f"{index} of a dataset of 4"):
        data.__getitems__([0, index])


def test_indices_are_whole_numbers() -> None:
    _, data = dataset()
    with pytest.raises(TypeError, match="float64"):
        data.__getitems__([0.5])  # type: ignore[list-item]


def test_suffixes_and_pattern_choose_files() -> None:
    _, data = dataset(suffixes=".txt")
    assert [data.path(i) for i in range(len(data))] == ["/data/a/empty.txt", "/data/b.txt"]
    _, data = dataset(suffixes=(".txt", ".bin"), pattern="a/*")
    assert [data.path(i) for i in range(len(data))] == ["/data/a/empty.txt", "/data/a/x.bin"]


def test_a_transform_gets_the_sample_and_its_index() -> None:
    _, data = dataset(transform=lambda sample, i: (i, bytes(sample)))
    assert data.__getitems__([2, -1]) == [(2, b"bee"), (3, bytes(range(256)))]
    assert data[1] == (1, b"ex")


class Resized:
    """As transforms for images are: an object, whose second argument is none of ours."""

    def __call__(self, sample: object, size: int = 7) -> tuple[int, bytes]:
        return size, bytes(sample)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("transform", "expected"),
    [(lambda sample: bytes(sample), b"ex"), (bytes, b"ex"), (Resized(), (7, b"ex")), (len, 2)],
)
def test_a_transform_may_take_the_sample_alone(transform: Any, expected: object) -> None:
    _, data = dataset(transform=transform)
    assert data[1] == expected


def test_slices_are_batches() -> None:
    _, data = dataset()
    assert [bytes(sample) for sample in data[1:]] == [bytes(data[i]) for i in range(1, len(data))]
    assert len(data[5:5]) == 0 and bytes(data[::-1][0]) == bytes(data[-1])


def test_an_error_of_a_transform_names_the_sample() -> None:
    def fail(sample: object, i: int) -> None:
        raise ValueError("no image")

    _, data = dataset(transform=fail)
    with pytest.raises(ValueError, match="no image") as caught:
        data.__getitems__([2])
    assert caught.value.__notes__ == ["in the transform of sample 2, /data/b.txt"]


def test_a_sample_that_cannot_be_read_is_named() -> None:
    fs, data = dataset()
    fs.broken["/data/b.txt"] = Code.CHECKSUM
    with pytest.raises(SampleError, match=r"sample 2, /data/b.txt: .*broken") as caught:
        data.__getitems__([0, 3, 2])
    assert (caught.value.index, caught.value.filename, caught.value.errno) == (2, "/data/b.txt", errno.EIO)


def test_a_short_read_is_an_error() -> None:
    fs, data = dataset()
    fs.contents["/data/c.bin"] = b"cut"
    with pytest.raises(SampleError, match=r"sample 3, /data/c.bin: short read, 3 of 256 bytes") as caught:
        data.__getitems__([0, 3])
    assert caught.value.index == 3


def test_a_sample_error_survives_the_way_from_a_worker() -> None:
    error = SampleError("sample 3, /x: broken", errno.EACCES, 3, "/x")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.errno, again.index, again.filename) == (str(error), errno.EACCES, 3, "/x")
    from_text = SampleError("Caught SampleError in DataLoader worker process 0.")
    assert (str(from_text), from_text.errno) == ("Caught SampleError in DataLoader worker process 0.", errno.EIO)


def test_a_dataset_pickles() -> None:
    _, data = dataset(suffixes=".bin")
    again = pickle.loads(pickle.dumps(data))
    assert [again.path(i) for i in range(len(again))] == ["/data/a/x.bin", "/data/c.bin"]


def test_a_file_system_that_was_given_stays_open() -> None:
    fs, data = dataset()
    with data:
        pass
    assert not fs.closed


def test_a_root_that_is_missing_or_a_file_is_refused() -> None:
    fs = FakeFileSystem(dict(FILES))
    with pytest.raises(FileNotFoundError):
        FileDataset(fs, "/missing")
    with pytest.raises(NotADirectoryError):
        FileDataset(fs, "/data/b.txt")
