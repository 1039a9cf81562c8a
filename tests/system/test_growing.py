"""A cluster of real processes grows from three nodes to four, is rebalanced, and loses one of the first again, while a
writer and a reader go on: nothing they see is wrong, and in the end the data is where it should be.
"""

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import fs_client
from fs_client.cli.local.launch import LaunchedCluster
from fs_client.cli.local.ports import free_ports
from fs_client.cli.local.process import module_environment, python_module
from tests.system.control import emberfs, kill, wait_until

pytestmark = [pytest.mark.system, pytest.mark.slow]

QUICK = ("meta.heartbeat_interval_ms=100", "meta.lease_ms=4000", "meta.failure_ms=5000")


@contextmanager
def another_daemon(cluster: LaunchedCluster, node: int, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A storage daemon that joins the cluster while it runs."""
    record = cluster.record
    settings = {
        "cluster": record.cluster,
        "directory": str(folder / f"node-{node}"),
        "host": record.host,
        "port": free_ports(record.host, 1)[0],
        "http_port": 0,
        "node": node,
        "manager": f"{record.host}:{record.meta.grpc_port}",
        "disk_shared_by": 4,
    }
    config = folder / f"node-{node}.toml"
    config.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items()))
    command = [*python_module("fs_storage"), "--config", str(config), "--format-if-missing"]
    with open(folder / f"node-{node}.log", "wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=module_environment())
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"ready"), (folder / f"node-{node}.log").read_text()
        yield process
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()


class Traffic:
    """A writer of new files and an overwriter of old ones, and a reader that knows what each file has to be."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._stop = threading.Event()
        self.files: dict[str, bytes] = {}
        """What was acknowledged."""
        self.reads = 0
        self.errors: list[str] = []
        self._threads = [threading.Thread(target=self._run, args=(work,)) for work in (self._write, self._read)]

    def __enter__(self) -> "Traffic":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, work: Callable[[fs_client.FileSystem, int], None]) -> None:
        try:
            with fs_client.connect(self._address) as fs:
                turn = 0
                while not self._stop.is_set():
                    work(fs, turn)
                    turn += 1
        except Exception as error:
            self.errors.append(f"{work.__name__}: {error!r}")

    def _write(self, fs: fs_client.FileSystem, turn: int) -> None:
        path = f"/file-{turn % 40}"
        data = os.urandom(150_000 + turn)
        self.files.pop(path, None)  # the reader leaves it alone meanwhile
        fs.write_file(path, data)
        self.files[path] = data

    def _read(self, fs: fs_client.FileSystem, turn: int) -> None:
        for path, data in list(self.files.items()):
            try:
                found = fs.read_file(path)
            except OSError:
                if self.files.get(path) is data:
                    raise
                continue
            if self.files.get(path) is data and found != data:
                raise AssertionError(f"{path} is wrong")
            self.reads += 1


def listed(cluster: LaunchedCluster) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(emberfs("targets", "--json", cluster=cluster.address).stdout)
    return found


def hosted(cluster: LaunchedCluster) -> dict[int, int]:
    return {node["node"]: node["targets"] for node in listed(cluster)["nodes"]}


def chunks_on(cluster: LaunchedCluster) -> dict[int, int]:
    """Chunks of each node's targets."""
    status = json.loads(emberfs("status", "--json", cluster.address, code=None).stdout)
    counts: dict[int, int] = {}
    for chain in status["chains"]:
        for target in chain["targets"]:
            counts[target["node"]] = counts.get(target["node"], 0) + target.get("chunks", 0)
    return counts


def test_three_nodes_become_four_and_three_again(fresh_cluster: Callable[..., LaunchedCluster], tmp_path: Path) -> None:
    cluster = fresh_cluster(
        storage=3, replicas=3, durability="memory", stripe=4, chunk_size_bytes=65_536, settings=QUICK
    )
    with Traffic(cluster.address) as traffic, another_daemon(cluster, 4, tmp_path):
        wait_until(lambda: traffic.reads > 50 or bool(traffic.errors), "files are there")
        assert hosted(cluster) == {1: 3, 2: 3, 3: 3, 4: 0}
        told = emberfs("targets", cluster=cluster.address).stdout
        assert "not used yet: `emberfs rebalance` gives it targets" in told
        plan = json.loads(emberfs("rebalance", "--dry-run", "--json", cluster=cluster.address).stdout)
        assert len(plan["moves"]) == plan["least_moves"] == 2 and len(plan["new_chains"]) == 1
        emberfs("rebalance", "--wait", cluster=cluster.address)
        assert hosted(cluster) == {1: 3, 2: 3, 3: 3, 4: 3} and not traffic.errors
        reads = traffic.reads
        wait_until(lambda: traffic.reads > reads + 50 or bool(traffic.errors), "reads go on")
        assert chunks_on(cluster)[4] > 0

        emberfs("drain", "1", "--wait", cluster=cluster.address)
        assert (
            hosted(cluster)[1] == 0
            and "drained: it can be stopped" in emberfs("targets", cluster=cluster.address).stdout
        )
        reads = traffic.reads
        wait_until(lambda: traffic.reads > reads + 50 or bool(traffic.errors), "reads go on")
        kill(cluster, "storage-1")
        wait_until(
            lambda: emberfs("targets", "forget", "1", cluster=cluster.address, code=None).returncode == 0,
            "the manager has noticed",
        )
        assert sorted(hosted(cluster)) == [2, 3, 4]
        reads = traffic.reads
        wait_until(lambda: traffic.reads > reads + 50 or bool(traffic.errors), "reads go on")
        assert not traffic.errors, traffic.errors
        counts = chunks_on(cluster)
        assert max(counts.values()) < 2 * min(counts.values()), "all three hold their share"
    assert not traffic.errors, traffic.errors
    with fs_client.connect(cluster.address) as fs:
        for path, data in traffic.files.items():
            assert fs.read_file(path) == data


def test_a_daemon_that_is_gone_with_its_directory_is_replaced(fresh_cluster: Callable[..., LaunchedCluster]) -> None:
    """`emberfs up --storage 4 --replicas 3` heals by itself."""
    settings = (*QUICK, "meta.replace_lost_after_ms=5000")
    cluster = fresh_cluster(storage=4, replicas=3, chunk_size_bytes=65_536, durability="memory", settings=settings)
    files = {f"/file-{number}": os.urandom(200_000 + number) for number in range(12)}
    with fs_client.connect(cluster.address) as fs:
        for path, data in files.items():
            fs.write_file(path, data)
        kill(cluster, "storage-2")
        shutil.rmtree(cluster.path / "storage-2")
        wait_until(lambda: hosted(cluster)[2] == 0, "its replicas are on the other three")
        wait_until(lambda: not listed(cluster)["moves"], "the moves are over")
        assert hosted(cluster) == {1: 4, 2: 0, 3: 4, 4: 4}
        for path, data in files.items():
            assert fs.read_file(path) == data
        fs.write_file("/new", b"written afterwards")
    emberfs("targets", "forget", "2", cluster=cluster.address)
    cluster.stop()
    again = fresh_cluster(port=None, settings=settings)
    assert 2 not in hosted(again)
    with fs_client.connect(again.address) as fs:
        for path, data in files.items():
            assert fs.read_file(path) == data
        assert fs.read_file("/new") == b"written afterwards"
