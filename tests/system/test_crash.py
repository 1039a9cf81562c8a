"""`kill -9` in the middle of work: what was acknowledged is there afterwards."""

import os
import threading
from collections.abc import Callable

import pytest

import fs_client
from fs_client.cli.local.launch import LaunchedCluster
from tests.system.control import assert_works, is_healthy, kill, start_again, wait_whole

pytestmark = [pytest.mark.system, pytest.mark.slow]

Start = Callable[..., LaunchedCluster]
TIMEOUT_S = 5.0
"""Of clients whose cluster dies: they have nothing to wait for."""


class Writers:
    """Threads that write until they are told to stop, and note what was acknowledged."""

    def __init__(
        self, address: str, count: int, step: Callable[["Writers", fs_client.FileSystem, int, int], None]
    ) -> None:
        self.address = address
        self.acknowledged: dict[str, bytes] = {}
        self.enough = threading.Event()
        """A good number of steps is done."""
        self._stop = threading.Event()
        self._step = step
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(count)]

    def __enter__(self) -> "Writers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def note(self, path: str, data: bytes, enough: int) -> None:
        self.acknowledged[path] = data
        if len(self.acknowledged) >= enough:
            self.enough.set()

    def _run(self, number: int) -> None:
        with fs_client.connect(self.address, timeout_s=TIMEOUT_S) as fs:
            count = 0
            while not self._stop.is_set():
                try:
                    self._step(self, fs, number, count)
                except OSError:
                    # The cluster is dead: nothing more will be acknowledged.
                    return
                count += 1


Step = Callable[[Writers, fs_client.FileSystem, int, int], None]
"""(writers, connection, number of the thread, number of the step)"""


def _create(writers: Writers, fs: fs_client.FileSystem, number: int, count: int) -> None:
    path = f"/names/{number}-{count}"
    if count % 10 == 9:
        path += ".d"
        fs.mkdir(path)
    elif count % 10 == 8:
        old, path = f"/names/{number}-{count - 1}", path + ".renamed"
        # Until the new name is acknowledged nothing is promised about the old one either.
        writers.acknowledged.pop(old)
        fs.rename(old, path)
    else:
        fs.open(path, "xb").close()
    writers.note(path, b"", enough=300)


def test_names_survive_the_death_of_the_metadata_server(fresh_cluster: Start) -> None:
    cluster = fresh_cluster()
    with fs_client.connect(cluster.address) as fs:
        fs.mkdir("/names")
    with Writers(cluster.address, 4, _create) as writers:
        assert writers.enough.wait(60)
        kill(cluster, "meta")
    start_again(cluster)
    with fs_client.connect(cluster.address) as fs:
        present = set(fs.listdir("/names"))
    missing = {path.rpartition("/")[2] for path in writers.acknowledged} - present
    assert not missing
    # One operation of each writer may have been applied without anybody being told.
    assert len(present) <= len(writers.acknowledged) + 4
    assert_works(cluster.address)


def _write(writers: Writers, fs: fs_client.FileSystem, number: int, count: int) -> None:
    path = f"/files/{number}-{count}"
    data = os.urandom((1, 5_000, 70_000, 1_500_000)[count % 4])
    if count % 5 == 4:
        # A second version of an old file: the new bytes, not a mixture, once they are acknowledged.
        path = f"/files/{number}-{count - 4}"
    # Until the new version is acknowledged nothing is promised about the old one either.
    writers.acknowledged.pop(path, None)
    with fs.open(path, "wb", buffering=0) as file:
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]
        file.flush()
        file.fsync()
        writers.note(path, data, enough=60)


@pytest.mark.parametrize("durability", ["disk", "memory"])
def test_bytes_survive_the_death_of_everything(fresh_cluster: Start, durability: str) -> None:
    cluster = fresh_cluster(durability=durability)
    with fs_client.connect(cluster.address) as fs:
        fs.mkdir("/files")
    with Writers(cluster.address, 3, _write) as writers:
        assert writers.enough.wait(60)
        kill(cluster, "storage-1", "storage-2", "storage-3", "meta")
    start_again(cluster)
    with fs_client.connect(cluster.address) as fs:
        wrong = [path for path, data in writers.acknowledged.items() if fs.read_file(path) != data]
    assert not wrong
    assert_works(cluster.address)


@pytest.mark.parametrize("durability", ["disk", "memory"])
def test_bytes_survive_the_death_of_the_storage_daemons_one_after_the_other(
    fresh_cluster: Start, durability: str
) -> None:
    """Writers go on after each: their updates were kept under way by the client, and are applied once."""
    cluster = fresh_cluster(durability=durability, restart=True)
    with fs_client.connect(cluster.address, timeout_s=60) as fs:
        fs.mkdir("/appended")
        expected = {f"/appended/{number}": bytearray() for number in range(3)}
        errors: list[BaseException] = []
        stop = threading.Event()
        progress = threading.Semaphore(0)

        def append(path: str, content: bytearray) -> None:
            try:
                with fs.open(path, "wb", buffering=0) as file:
                    while not stop.is_set():
                        data = os.urandom(30_000)
                        assert file.write(data) == len(data)
                        content += data
                        progress.release()
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=append, args=item) for item in expected.items()]
        for thread in threads:
            thread.start()
        try:
            for name in ("storage-1", "storage-2", "storage-3"):
                for _ in range(20):
                    assert progress.acquire(timeout=60)
                kill(cluster, name)
        finally:
            for _ in range(20):
                assert progress.acquire(timeout=60)
            stop.set()
            for thread in threads:
                thread.join()
        assert not errors
        for path, content in expected.items():
            assert fs.read_file(path) == content
    wait_whole(cluster)
    assert is_healthy(cluster.address)
