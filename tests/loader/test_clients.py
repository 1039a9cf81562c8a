"""Datasets over a real client: in this process, in forked and spawned ones, and with threads."""

import errno
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import fs_client
from fs_client.loader.batch import SampleError
from fs_client.loader.dataset import SampleDataset
from fs_client.loader.file_dataset import FileDataset
from fs_client.loader.packed_dataset import PackedDataset
from fs_client.loader.packing import pack
from tests.client.fake_cluster import CHUNK, FakeCluster

CONTENTS = {f"d{i % 5}/{i:03}": bytes([i]) * (i * 997 % (3 * CHUNK)) for i in range(40)}
EXPECTED = [CONTENTS[name] for name in sorted(CONTENTS)]


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster().running() as running:
        with fs_client.connect(running.address) as fs:
            for name, data in CONTENTS.items():
                fs.makedirs(f"/t/{name.split('/')[0]}", exist_ok=True)
                fs.write_file(f"/t/{name}", data)
            pack(fs, sorted(CONTENTS.items()), "/packed")
        yield running


@pytest.fixture(params=["files", "packed"])
def dataset(request: pytest.FixtureRequest, cluster: FakeCluster) -> Iterator[SampleDataset]:
    made: SampleDataset = (
        FileDataset(cluster.address, "/t") if request.param == "files" else PackedDataset(cluster.address, "/packed")
    )
    with made:
        yield made


def read_all(dataset: SampleDataset) -> list[bytes]:
    return [bytes(sample) for sample in dataset.__getitems__(range(len(dataset)))]


def read_into(dataset: SampleDataset, queue: "multiprocessing.Queue[list[bytes]]") -> None:
    queue.put(read_all(dataset))


def test_every_sample_is_what_was_written(dataset: SampleDataset) -> None:
    assert read_all(dataset) == EXPECTED
    assert [bytes(dataset[i]) for i in (3, -1)] == [EXPECTED[3], EXPECTED[-1]]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_another_process_reads_what_its_parent_reads(dataset: SampleDataset, method: str) -> None:
    """The parent has read before and reads on: its connections and its plans are not the child's."""
    assert read_all(dataset) == EXPECTED
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    children = [context.Process(target=read_into, args=(dataset, queue)) for _ in range(2)]
    for child in children:
        child.start()
    for _ in children:
        assert queue.get(timeout=30) == EXPECTED
    assert read_all(dataset) == EXPECTED
    for child in children:
        child.join()
        assert child.exitcode == 0
    queue.close()
    queue.join_thread()


def test_threads_share_a_dataset(dataset: SampleDataset) -> None:
    with ThreadPoolExecutor(4) as threads:
        assert all(result == EXPECTED for result in threads.map(lambda _: read_all(dataset), range(16)))


def test_two_clients_may_read_by_the_same_references(cluster: FakeCluster) -> None:
    """A reference remembers where its chunks are; what one client remembers must not lead another one astray."""
    with fs_client.connect(cluster.address) as one, fs_client.connect(cluster.address) as other:
        first, second = FileDataset(one, "/t"), PackedDataset(other, "/packed")
        third = PackedDataset(one, "/packed")
        third._file = second._file
        assert read_all(first) == read_all(second) == read_all(third) == read_all(second) == EXPECTED


def test_a_replica_that_died_costs_no_sample(dataset: SampleDataset, cluster: FakeCluster) -> None:
    assert read_all(dataset) == EXPECTED
    cluster.stop_node(2)
    assert read_all(dataset) == EXPECTED


def test_a_file_whose_bytes_are_gone_is_an_error_and_not_zeros(cluster: FakeCluster) -> None:
    with FileDataset(cluster.address, "/t") as data:
        i = 13
        file = data.index.refs(np.array([i]))[0]
        cluster.call(lambda: cluster._cut(file.inode, 100, CHUNK))
        with pytest.raises(SampleError, match=f"sample {i}, {data.path(i)}: .* bytes are missing") as caught:
            data.__getitems__([0, i, 2])
        assert caught.value.errno == errno.ENOENT
        assert [bytes(sample) for sample in data.__getitems__([0, 2])] == [EXPECTED[0], EXPECTED[2]]


def test_sparse_files_are_read_if_they_are_expected(cluster: FakeCluster) -> None:
    with fs_client.connect(cluster.address) as fs:
        fs.makedirs("/sparse")
        with fs.open("/sparse/file", "wb") as file:
            file.seek(2 * CHUNK + 5)
            file.write(b"end")
        with pytest.raises(SampleError, match="missing"):
            FileDataset(fs, "/sparse")[0]
        assert bytes(FileDataset(fs, "/sparse", holes=True)[0]) == bytes(2 * CHUNK + 5) + b"end"
