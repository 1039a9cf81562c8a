"""One storage daemon of three is dead: reads and writes go on with the other replicas, and it is filled up once it is
back.
"""

import os
from collections.abc import Callable

import pytest

import fs_client
from fs_client.cli.local.launch import LaunchedCluster
from tests.system.control import assert_works, emberfs, is_healthy, kill, start_again, wait_until

pytestmark = [pytest.mark.system, pytest.mark.slow]


@pytest.mark.parametrize("victim", ["storage-1", "storage-3"])
def test_reads_and_writes_go_on(fresh_cluster: Callable[..., LaunchedCluster], victim: str) -> None:
    cluster = fresh_cluster(durability="memory")
    files = {f"/file-{number}": os.urandom(700_000 + number) for number in range(8)}
    with fs_client.connect(cluster.address, timeout_s=5) as fs:
        for path, data in files.items():
            fs.write_file(path, data)
        kill(cluster, victim)

        # This client learns it from its own broken connections.
        for path, data in files.items():
            assert fs.read_file(path) == data
        # This one knows nothing but what the metadata service tells it.
        with fs_client.connect(cluster.address, timeout_s=5) as other:
            for path, data in files.items():
                assert other.read_file(path) == data

        wait_until(lambda: not is_healthy(cluster.address), "the manager has noticed")
        status = emberfs("status", cluster.address, code=1)
        assert f"emberfs: the cluster is degraded: node {victim[-1]} is failed, chain 1 is degraded" in status.stderr
        # Every chain has this daemon as a member, so whichever is chosen goes on without it.
        fs.write_file("/new", b"written all the same")
        for path, data in files.items():
            assert fs.read_file(path) == data

        start_again(cluster)
        wait_until(lambda: is_healthy(cluster.address), "the daemon is filled up")
        assert fs.read_file("/new") == b"written all the same"
        for path, data in files.items():
            assert fs.read_file(path) == data
    assert_works(cluster.address)
    assert is_healthy(cluster.address)
