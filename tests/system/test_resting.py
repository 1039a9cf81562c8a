"""A cluster that is taken down as a whole comes back as it was: no chain has moved, and nothing is copied."""

import json
import os
from collections.abc import Callable

import pytest

import fs_client
from fs_client.cli.local.launch import LaunchedCluster
from tests.system.control import emberfs, is_healthy, wait_until

pytestmark = [pytest.mark.system, pytest.mark.slow]


def chains(address: str) -> list[tuple[int, int, list[tuple[int, str]]]]:
    """(chain, version, [(target, state), ...]), as a client sees them."""
    found = json.loads(emberfs("status", "--json", address, code=None).stdout)["chains"]
    return [
        (chain["chain"], chain["version"], [(target["target"], target["state"]) for target in chain["targets"]])
        for chain in found
    ]


def test_down_and_up_again(fresh_cluster: Callable[..., LaunchedCluster]) -> None:
    # With the failure time of a real cluster: on a busy machine nodes are late, and chains would move for that.
    cluster = fresh_cluster(storage=4, replicas=3, durability="memory", settings=())
    files = {f"/file-{number}": os.urandom(300_000) for number in range(8)}
    with fs_client.connect(cluster.address) as fs:
        for path, data in files.items():
            fs.write_file(path, data)
    before = chains(cluster.address)
    assert all(state == "serving" for _, _, targets in before for _, state in targets)
    emberfs("down", "--dir", cluster.path)
    cluster.stop()
    again = fresh_cluster(settings=())
    wait_until(lambda: is_healthy(again.address), "it is healthy again")
    assert chains(again.address) == before
    with fs_client.connect(again.address) as fs:
        for path, data in files.items():
            assert fs.read_file(path) == data
