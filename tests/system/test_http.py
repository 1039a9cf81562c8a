"""What the daemons of a cluster tell over HTTP."""

import http.client
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import fs_client
from fs_client.cli.local.launch import LaunchedCluster
from fs_common.metric_families import FAMILIES, META, STORAGE
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


SOMETIMES = {
    "emberfs_slow_operations_total",
    "emberfs_rpc_errors_total",
    "emberfs_resync_chunks",
    "emberfs_resync_chunks_done",
    "emberfs_chain_degraded",
}
"""Figures of what need not be."""
UNASKED = {
    f"emberfs_rpc_{name}" for name in ("calls_total", "latency_seconds", "received_bytes_total", "sent_bytes_total")
}
"""By method: of a daemon that was never asked."""


def scraped(port: int) -> dict[str, set[tuple[str, ...]]]:
    """Names of families, with all sets of label names that they come with."""
    status, body = get(port, "/metrics")
    assert status == 200
    found: dict[str, set[tuple[str, ...]]] = {}
    for metric in text_string_to_metric_families(body.decode()):
        name = metric.name + ("_total" if metric.type == "counter" else "")
        for sample in metric.samples:
            found.setdefault(name, set()).add(tuple(sorted(sample.labels.keys() - {"le"})))
    return found


def test_figures_are_those_that_are_documented(cluster: LaunchedCluster) -> None:
    record = cluster.record
    with fs_client.connect(record.address) as fs:
        fs.mkdir("/figures")
        fs.write_file("/figures/a", b"x" * 100_000)
        assert fs.read_file("/figures/a") == b"x" * 100_000
    for daemon, process in ((record.meta, META), *((one, STORAGE) for one in record.storage)):
        wait_until_ready(daemon.http_port)
        found = scraped(daemon.http_port)
        ours = {name: labels for name, labels in found.items() if not name.startswith("process_")}
        mine = {name: family for name, family in FAMILIES.items() if process in family.processes}
        assert ours.keys() <= mine.keys()
        for name, labels in ours.items():
            assert labels == {tuple(sorted(mine[name].labels))}, name
        assert mine.keys() - ours.keys() <= SOMETIMES | UNASKED
        assert "process_resident_memory_bytes" in found


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
