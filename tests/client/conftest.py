"""A fake cluster, and a file system connected to it."""

from collections.abc import Iterator

import pytest

import fs_client
from tests.client.fake_cluster import FakeCluster


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster().running() as running:
        yield running


@pytest.fixture
def fs(cluster: FakeCluster) -> Iterator["fs_client.FileSystem"]:
    with fs_client.connect(cluster.address, timeout_s=10) as connected:
        yield connected
