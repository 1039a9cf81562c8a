"""A target's directory vanishes under its running daemon, and comes back: one target is out of service, with one line
that says why; its chain goes on without it, and fills it up when it is there again.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fs_client
from fs_client.cli.local.launch import LaunchedCluster
from tests.system.control import assert_works, emberfs, is_healthy, wait_until

pytestmark = [pytest.mark.system, pytest.mark.slow]


def status(cluster: LaunchedCluster) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(emberfs("status", "--json", cluster.address, code=None).stdout)
    return found


def test_a_disk_that_is_gone_and_comes_back(fresh_cluster: Callable[..., LaunchedCluster]) -> None:
    cluster = fresh_cluster()
    before = {f"/before-{number}": os.urandom(400_000 + number) for number in range(6)}
    during = {f"/during-{number}": os.urandom(400_000 + number) for number in range(6)}
    with fs_client.connect(cluster.address) as fs:
        for path, data in before.items():
            fs.write_file(path, data)
        lost = status(cluster)["chains"][0]["targets"][1]
        folder = Path(cluster.path) / f"storage-{lost['node']}" / f"target-{lost['target']}"
        folder.rename(folder.with_name("unmounted"))
        wait_until(lambda: bool(status(cluster)["troubles"]), "the target is out of service")
        (trouble,) = status(cluster)["troubles"]
        assert trouble["target"] == lost["target"]
        assert str(folder) in trouble["reason"] and "\n" not in trouble["reason"]
        # All chains are written, those of the node's other targets too.
        for path, data in during.items():
            fs.write_file(path, data)
        for path, data in (before | during).items():
            assert fs.read_file(path) == data
        folder.with_name("unmounted").rename(folder)
        wait_until(lambda: is_healthy(cluster.address), "it is back, and has what it missed")
        for path, data in (before | during).items():
            assert fs.read_file(path) == data
    assert json.loads(emberfs("fsck", cluster.address, "--grace", "0", "--json").stdout)["sound"]
    assert_works(cluster.address)
