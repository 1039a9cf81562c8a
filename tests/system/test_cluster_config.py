"""The cluster's configuration on real daemons: what takes effect at once, what at the next start, whose word counts."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from fs_client.cli.local.launch import LaunchedCluster
from tests.system.control import emberfs, kill, start_again, wait_until

pytestmark = [pytest.mark.system, pytest.mark.slow]

NODES = ("node 1", "node 2", "node 3")


class Operator:
    def __init__(self, cluster: LaunchedCluster) -> None:
        self.address = cluster.address

    def config(self, *arguments: str, code: int | None = 0) -> str:
        done = emberfs("config", *arguments, cluster=self.address, code=code)
        return done.stdout + done.stderr

    def status(self) -> dict[str, Any]:
        done = emberfs("config", "status", "--json", cluster=self.address, code=None)
        return {row["daemon"]: row for row in json.loads(done.stdout)}

    def until(self, expected: dict[str, tuple[int, str]]) -> None:
        def reached() -> bool:
            status = self.status()
            return all((status[name]["version"], status[name]["status"]) == want for name, want in expected.items())

        wait_until(reached, f"the configuration stands so: {expected}")

    def shown(self, node: str) -> dict[str, Any]:
        text = emberfs("config", "show", node, "--json", cluster=self.address).stdout
        (settings,) = (each["settings"] for each in json.loads(text).values())
        return settings


def test_a_change_reaches_daemons_that_run_that_start_and_that_come_back(
    fresh_cluster: Callable[..., LaunchedCluster],
) -> None:
    cluster = fresh_cluster(storage=3, settings=("storage.updates_in_flight=77",))
    operator = Operator(cluster)
    log = cluster.path / "logs" / "storage-1.log"

    operator.config("set", "storage.log_level=error", "-m", "be quiet")
    operator.until(dict.fromkeys(NODES, (1, "normal")))
    operator.config("set", "storage.log_level=info", "storage.read_threads=16", "storage.updates_in_flight=99")
    operator.until(dict.fromkeys(NODES, (2, "dirty")))
    said = log.read_text()
    assert "version 2 of the cluster's configuration" in said, "it says so again"
    assert "version 1 of the cluster's configuration" not in said, "it was quiet at once"
    assert operator.status()["node 1"]["waiting"] == ["read_threads"]
    own = operator.shown("1")["updates_in_flight"]
    assert (own["value"], own["origin"]) == (77, "file"), "the daemon's own file counts"

    nodes = json.loads(emberfs("nodes", "--json", cluster=cluster.address).stdout)
    assert nodes["config_version"] == 2
    assert [(node["node"], node["state"], node["targets"]) for node in nodes["nodes"]] == [
        (1, "up", 3),
        (2, "up", 3),
        (3, "up", 3),
    ]
    assert all(node["config"]["status"] == "dirty" and node["silent_ms"] < 60_000 for node in nodes["nodes"])

    kill(cluster, "storage-1", "storage-2")
    wait_until(lambda: operator.status()["node 2"]["status"] == "unknown", "the manager has seen that it is gone")
    refused = operator.config("set", "storage.scrub_interval_h=0", code=1)
    assert refused == "emberfs: storage: scrub_interval_h: at least 1\n"
    operator.config("set", "storage.scrub_bytes_per_s=64M")
    start_again(cluster)
    operator.until({"node 1": (3, "normal"), "node 2": (3, "normal"), "node 3": (3, "dirty")})
    shown = operator.shown("2")
    assert (shown["scrub_bytes_per_s"]["value"], shown["scrub_bytes_per_s"]["origin"]) == (64 << 20, "cluster")
    assert (shown["read_threads"]["value"], shown["read_threads"]["waiting"]) == (16, False)

    kill(cluster, "meta")
    start_again(cluster)
    operator.until({"node 1": (3, "normal"), "node 3": (3, "dirty")})
    operator.config("rollback", "storage", "1")
    operator.until({"node 1": (4, "dirty"), "node 3": (4, "normal")})
    history = json.loads(emberfs("config", "history", "storage", "--json", cluster=operator.address).stdout)
    assert [(each["version"], each["comment"]) for each in history][:1] == [(4, "back to version 1")]
    assert [each["version"] for each in history] == [4, 3, 2, 1] and history[3]["comment"] == "be quiet"

    edited = cluster.path / "edited.toml"
    edited.write_text('# quiet\nlog_level = "warning"\n')
    operator.config("edit", "storage", "--file", str(edited), "-m", "edited")
    operator.config("set", "storage.scrub_interval_h=100")
    history = json.loads(emberfs("config", "history", "storage", "--json", cluster=operator.address).stdout)
    assert history[0]["text"] == '# quiet\nlog_level = "warning"\nscrub_interval_h = 100\n', "comments stay"
    assert "does not set read_threads" in operator.config("unset", "storage.read_threads", code=1)

    operator.config("set", "meta.log_json=true", "meta.moves_at_once=7")
    operator.until({"meta": (1, "dirty")})
    kill(cluster, "meta")
    start_again(cluster)
    operator.until({"meta": (1, "normal")})
    assert operator.config("get", "meta.moves_at_once") == "7\n"
    lines = (cluster.path / "logs" / "meta.log").read_text().splitlines()
    assert any(line.startswith('{"event') for line in lines), "it writes JSON since it was started again"
