"""The client against real processes: daemons that die or hang while it reads, a metadata server that restarts."""

import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

import fs_client
from fs_client import FileSystem
from fs_client.cli.local.launch import LaunchedCluster
from fs_common.layout import Layout
from fs_common.limits import KIB
from tests.system.control import daemon, kill, start_again, wait_whole

pytestmark = [pytest.mark.system]

CHUNK = 64 * KIB
LAYOUT = Layout(chunk_size=CHUNK, stripe=3, durability=1)
CONTENTS = {f"/f{number}": random.Random(number).randbytes(number * CHUNK + 12345) for number in range(6)}


@contextmanager
def readers(fs: FileSystem, count: int = 3) -> Iterator[Callable[[], None]]:
    """Threads that read random ranges and check them. What is given waits until each has read something more."""
    stop = threading.Event()
    errors: list[BaseException] = []
    rounds = [threading.Semaphore(0) for _ in range(count)]
    refs = {path: fs.ref(path) for path in CONTENTS}

    def read(number: int) -> None:
        chooser = random.Random(number)
        try:
            while not stop.is_set():
                wanted = []
                for _ in range(64):
                    path = chooser.choice(list(CONTENTS))
                    wanted.append((path, chooser.randrange(len(CONTENTS[path])), chooser.choice([1, 4096, CHUNK])))
                views = fs.read_ranges([(refs[path], offset, size) for path, offset, size in wanted])
                for view, (path, offset, size) in zip(views, wanted, strict=True):
                    assert view == CONTENTS[path][offset : offset + size]
                rounds[number].release()
        except BaseException as error:
            errors.append(error)
            rounds[number].release()

    def one_more_round() -> None:
        for done in rounds:
            while done.acquire(blocking=False):
                pass
        for done in rounds:
            done.acquire()
        assert not errors

    threads = [threading.Thread(target=read, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield one_more_round
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not errors


def test_reads_do_not_notice_daemons_that_die_and_come_back(fresh_cluster: Callable[..., LaunchedCluster]) -> None:
    cluster = fresh_cluster(durability="memory")
    with fs_client.connect(cluster.address) as fs:
        for path, data in CONTENTS.items():
            fs.write_file(path, data, layout=LAYOUT)
        with readers(fs) as one_more_round:
            one_more_round()
            kill(cluster, "storage-1")
            one_more_round()
            start_again(cluster)
            one_more_round()
            # Until it has been filled up the others are the only ones that have everything.
            wait_whole(cluster)
            kill(cluster, "storage-2", "storage-3")
            one_more_round()


@pytest.mark.slow
def test_a_daemon_that_hangs_costs_one_failover(fresh_cluster: Callable[..., LaunchedCluster]) -> None:
    cluster = fresh_cluster(durability="memory")
    with fs_client.connect(cluster.address) as fs:
        for path, data in CONTENTS.items():
            fs.write_file(path, data, layout=LAYOUT)
        process = daemon(cluster, "storage-2").process
        assert process is not None
        with readers(fs) as one_more_round:
            one_more_round()
            os.kill(process.pid, signal.SIGSTOP)
            try:
                one_more_round()
                one_more_round()
            finally:
                os.kill(process.pid, signal.SIGCONT)
            one_more_round()


def test_a_metadata_server_that_restarts_is_waited_for(fresh_cluster: Callable[..., LaunchedCluster]) -> None:
    cluster = fresh_cluster(durability="memory")
    with fs_client.connect(cluster.address) as fs:
        with fs.open("/open", "wb") as file:
            file.write(b"before ")
            file.fsync()
            kill(cluster, "meta")
            restarting = threading.Thread(target=start_again, args=(cluster,))
            restarting.start()
            fs.mkdir("/made")
            file.write(b"and after")
            restarting.join()
        assert fs.listdir() == ["made", "open"]
        assert fs.read_file("/open") == b"before and after"


def test_files_of_a_real_cluster_are_byte_arrays(fresh_cluster: Callable[..., LaunchedCluster]) -> None:
    cluster = fresh_cluster(durability="memory")
    with fs_client.connect(cluster.address) as fs:
        for seed in range(10):
            chooser = random.Random(seed)
            model = bytearray()
            path = f"/model-{seed}"
            with fs.open(path, "w+b", buffering=chooser.choice([-1, 0, 5000]), layout=LAYOUT) as file:
                for _ in range(25):
                    place, size = chooser.randrange(5 * CHUNK), chooser.choice([0, 1, 4096, CHUNK, 3 * CHUNK + 1])
                    match chooser.choice(["write", "write", "read", "truncate"]):
                        case "write":
                            data = chooser.randbytes(size)
                            file.seek(place)
                            file.write(data)
                            if data:
                                model.extend(bytes(max(place + size - len(model), 0)))
                                model[place : place + size] = data
                        case "read":
                            file.seek(place)
                            assert file.read(size) == model[place : place + size]
                        case "truncate":
                            file.truncate(place)
                            del model[place:]
                            model.extend(bytes(place - len(model)))
            assert fs.stat(path).st_size == len(model)
            assert fs.read_file(path) == model
