"""`emberfs doctor` on clusters of real processes, in each of which something is broken."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from fs_client.cli.local.launch import LaunchedCluster
from tests.system.control import emberfs, kill, wait_until

pytestmark = [pytest.mark.system, pytest.mark.slow]


def doctor(address: str, code: int | None = None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(emberfs("doctor", "--json", address, code=code).stdout)
    return found


def bad(findings: list[dict[str, Any]], subject: str) -> list[dict[str, Any]]:
    return [one for one in findings if one["subject"] == subject and one["level"] in ("problem", "warning")]


OF_CLUSTER = (
    "metadata server",
    "security",
    "tls",
    "control plane",
    "manager",
    "node",
    "chains",
    "target",
    "configuration",
)


def test_a_cluster_that_is_well(cluster: LaunchedCluster) -> None:
    findings = doctor(cluster.address)
    assert not [one for subject in OF_CLUSTER for one in bad(findings, subject)]
    text = emberfs("doctor", cluster.address, code=None).stdout
    assert "3 storage nodes are up" in text and "have all their replicas" in text


def test_the_address_of_a_storage_daemon(cluster: LaunchedCluster) -> None:
    node = json.loads(emberfs("status", "--json", cluster.address).stdout)["nodes"][0]
    (finding,) = bad(doctor(node["address"], code=1), "metadata server")
    assert "is a storage daemon" in finding["what"]


def test_dead_daemons(fresh_cluster: Callable[..., LaunchedCluster]) -> None:
    cluster = fresh_cluster()
    kill(cluster, "storage-2")

    def is_seen() -> bool:
        findings = doctor(cluster.address)
        return bool(bad(findings, "node") and bad(findings, "chains"))

    wait_until(is_seen, "the doctor sees a dead daemon")
    findings = doctor(cluster.address, code=1)
    assert any("node 2" in one["what"] and one["do"] for one in bad(findings, "node"))
    (chains,) = bad(findings, "chains")
    assert chains["level"] == "warning" and "lack a replica" in chains["what"]
    kill(cluster, "meta")
    (finding,) = bad(doctor(cluster.address, code=1), "metadata server")
    assert "nothing listens there" in finding["what"]
