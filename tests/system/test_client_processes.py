"""A client that is carried into other processes: fork, spawn, threads, pickles."""

import multiprocessing
import os
import pickle
import threading

import pytest

import fs_client
from fs_client.cli.local.launch import LaunchedCluster

pytestmark = pytest.mark.system


def _use(fs: fs_client.FileSystem, folder: str, number: int) -> None:
    """In another process: read what the parent wrote, write something of our own."""
    assert fs.read_file(f"{folder}/parent") == b"from the parent"
    fs.write_file(f"{folder}/{number}", str(number).encode() * 1000)
    fs.close()


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_use_the_parents_client(cluster: LaunchedCluster, method: str) -> None:
    context = multiprocessing.get_context(method)
    folder = f"/children-{method}"
    with fs_client.connect(cluster.address) as fs:
        fs.mkdir(folder)
        fs.write_file(f"{folder}/parent", b"from the parent")
        children = [context.Process(target=_use, args=(fs, folder, number)) for number in range(3)]  # type: ignore[attr-defined]
        for child in children:
            child.start()
        # The parent goes on with its own connections meanwhile.
        for _ in range(20):
            fs.write_file(f"{folder}/mine", os.urandom(100_000))
            assert len(fs.read_file(f"{folder}/mine")) == 100_000
        for child in children:
            child.join(60)
            assert child.exitcode == 0
            child.close()
        for number in range(3):
            assert fs.read_file(f"{folder}/{number}") == str(number).encode() * 1000


def test_a_child_that_is_forked_while_calls_are_under_way(cluster: LaunchedCluster) -> None:
    context = multiprocessing.get_context("fork")
    folder = "/forked-while-busy"
    with fs_client.connect(cluster.address) as fs:
        fs.mkdir(folder)
        fs.write_file(f"{folder}/parent", b"from the parent")
        stop = threading.Event()
        errors: list[BaseException] = []

        def load(number: int) -> None:
            try:
                data = os.urandom(300_000)
                while not stop.is_set():
                    fs.write_file(f"{folder}/load-{number}", data)
                    assert fs.read_file(f"{folder}/load-{number}") == data
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=load, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        try:
            for number in range(5):
                child = context.Process(target=_use, args=(fs, folder, number))
                child.start()
                child.join(60)
                assert child.exitcode == 0
                child.close()
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert not errors


def test_pickles_and_threads(cluster: LaunchedCluster) -> None:
    with fs_client.connect(cluster.address) as fs:
        fs.write_file("/pickled", b"content")
        with pickle.loads(pickle.dumps(fs)) as copy:
            assert copy.read_file("/pickled") == b"content"
        results: list[bytes] = []
        threads = [threading.Thread(target=lambda: results.append(fs.read_file("/pickled"))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [b"content"] * 8
