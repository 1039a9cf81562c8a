"""What operators see of a mount: its figures, its log."""

import http.client
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fs_client.cli.failure import Failure
from fs_client.cli.local.launch import LaunchedCluster
from fs_client.cli.local.ports import free_ports
from fs_common.metric_families import FAMILIES, MOUNT
from tests.mount.conftest import Mounted

pytestmark = pytest.mark.system

MakeMount = Callable[..., Mounted]
CALLS_AT_ONCE = 32
PATIENCE_S = 120.0


def get(port: int, path: str, host: str = "127.0.0.1") -> tuple[int, str]:
    connection = http.client.HTTPConnection(host, port, timeout=60)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def operations(port: int) -> dict[str, float]:
    """How many of each, as the mount tells it; all its figures have the names and labels that are documented."""
    status, text = get(port, "/metrics")
    assert status == 200
    found = {}
    for metric in text_string_to_metric_families(text):
        name = metric.name + ("_total" if metric.type == "counter" else "")
        if name.startswith("process_"):
            continue
        family = FAMILIES[name]
        assert MOUNT in family.processes, name
        for sample in metric.samples:
            assert sample.labels.keys() - {"le"} == set(family.labels)
            if name == "emberfs_mount_operations_total":
                found[sample.labels["operation"]] = sample.value
    return found


def test_a_mount_gives_its_figures_also_after_another_daemon_took_over(
    cluster: LaunchedCluster, mount: MakeMount
) -> None:
    (port,) = free_ports("127.0.0.1", 1)
    one = mount(cluster, "figures", f"metrics_port={port}")
    home = one.path / "figures-of-a-mount"
    home.mkdir()
    (home / "a").write_bytes(b"x" * 5000)
    found = operations(port)
    assert found["mkdir"] == 1 and found["create"] == 1 and found["write"] >= 1
    status, text = get(port, "/readyz")
    assert status == 200 and json.loads(text)["role"] == "mount"
    with pytest.raises(Failure, match=f"cannot listen on 127.0.0.1:{port}"):
        mount(cluster, "another", f"metrics_port={port}")
    one.take_over(cluster.address)
    (home / "b").touch()
    assert operations(port)["create"] == 1


def test_a_mount_gives_its_figures_where_it_is_told_to(cluster: LaunchedCluster, mount: MakeMount) -> None:
    (port,) = free_ports("127.0.0.2", 1)
    mount(cluster, "elsewhere", f"metrics_port={port}", "metrics_host=127.0.0.2")
    status, text = get(port, "/metrics", "127.0.0.2")
    assert status == 200 and "emberfs_mount_operations_total" in text
    with pytest.raises(ConnectionRefusedError):
        get(port, "/metrics")


def test_the_log_has_each_operation_at_debug_level_as_json(cluster: LaunchedCluster, mount: MakeMount) -> None:
    one = mount(cluster, "logged", "log_level=debug", "log_json")
    home = one.path / "log-of-a-mount"
    home.mkdir()
    (home / "naïve").touch()
    one.close()
    lines: list[dict[str, Any]] = [json.loads(line) for line in one.log.read_text().splitlines()]
    assert all({"event", "level", "logger", "process", "timestamp"} <= line.keys() for line in lines)
    made = [line for line in lines if line["event"] == "create"]
    assert len(made) == 1 and "name 'naïve'" in made[0]["about"] and len(made[0]["trace"]) == 8
    assert any("is mounted at" in line["event"] for line in lines)


def test_operations_carry_their_trace_to_the_servers(
    fresh_cluster: Callable[..., LaunchedCluster], mount: MakeMount
) -> None:
    """What the metadata server says of a request has the id that the mount gave the operation."""
    settings = ("meta.slow_operation_ms=1", "meta.log_json=true", "storage.slow_operation_ms=1")
    cluster = fresh_cluster(storage=1, settings=settings)
    one = mount(cluster, "traced", "log_level=debug", "log_json")
    log = Path(cluster.path / "logs" / "meta.log")

    def slow_ones() -> list[dict[str, Any]]:
        lines = [line for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
        return [json.loads(line) for line in lines if "slow operation: mkdir " in line]

    # The more at once, the longer each waits for the others: on a fast disk one alone takes less than a millisecond.
    with ThreadPoolExecutor(CALLS_AT_ONCE) as threads:
        deadline = time.monotonic() + PATIENCE_S
        made = 0
        while not slow_ones() and time.monotonic() < deadline:
            list(threads.map(lambda number: (one.path / f"made{number}").mkdir(), range(made, made + 100)))
            made += 100
    one.close()
    of_mount = {line["trace"] for line in map(json.loads, one.log.read_text().splitlines()) if "trace" in line}
    slow = slow_ones()
    assert slow
    assert {line["trace"] for line in slow} <= of_mount
