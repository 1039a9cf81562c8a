"""A fake cluster, and a file system connected to it."""

import signal
from collections.abc import Iterator

import pytest

import fs_client
from tests.client.fake_cluster import FakeCluster


@pytest.fixture(autouse=True)
def usual_end_of_children() -> Iterator[None]:
    """Torch leaves a handler for SIGCHLD in processes that have used its loader: the client looks for such."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGCHLD, before)


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster().running() as running:
        yield running


@pytest.fixture
def fs(cluster: FakeCluster) -> Iterator["fs_client.FileSystem"]:
    with fs_client.connect(cluster.address, timeout_s=10) as connected:
        yield connected
