"""What the daemons of a cluster tell over HTTP."""

import http.client
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from fs_client.cli.local.launch import LaunchedCluster
from tests.system.control import kill, start_again, wait_until

pytestmark = pytest.mark.system


def get(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def readiness(port: int) -> dict[str, Any]:
    status, body = get(port, "/readyz")
    found: dict[str, Any] = json.loads(body)
    assert (status == 200) == (found["status"] == "ready") == (not found["waits_for"])
    return found


def wait_until_ready(port: int) -> None:
    """New stores are made a moment after the manager has laid out the chains."""
    wait_until(lambda: readiness(port)["status"] == "ready", "the daemon serves")


def test_every_daemon_says_whether_it_serves(cluster: LaunchedCluster) -> None:
    record = cluster.record
    for daemon in record.daemons:
        assert get(daemon.http_port, "/healthz")[0] == 200
        wait_until_ready(daemon.http_port)
        found = readiness(daemon.http_port)
        assert (found["status"], found["role"], found["cluster"]) == ("ready", daemon.role, record.cluster)
    assert readiness(record.meta.http_port)["details"]["nodes_up"] == len(record.storage)
    assert readiness(record.storage[0].http_port)["details"]["targets_serving"] == record.replicas


def test_a_storage_daemon_without_its_manager_says_so(fresh_cluster: Callable[..., LaunchedCluster]) -> None:
    settings = ("meta.heartbeat_interval_ms=100", "meta.lease_ms=400", "meta.failure_ms=5000")
    cluster = fresh_cluster(storage=1, settings=settings)
    port = cluster.record.storage[0].http_port
    wait_until_ready(port)
    kill(cluster, "meta")
    wait_until(lambda: readiness(port)["status"] == "not ready", "the lease is over")
    assert readiness(port)["waits_for"] == ["its lease is over: no manager answers its heartbeats"]
    start_again(cluster)
    wait_until_ready(port)


def test_clusters_that_start_at_once_have_ports_of_their_own(fresh_cluster: Callable[..., LaunchedCluster]) -> None:
    with ThreadPoolExecutor(4) as threads:
        starts = [threads.submit(fresh_cluster, f"cluster-{number}", storage=1) for number in range(4)]
        clusters = [start.result() for start in starts]
    ports = [daemon.http_port for cluster in clusters for daemon in cluster.record.daemons]
    assert len(set(ports)) == 8
    for port in ports:
        wait_until_ready(port)
