"""`emberfs info`, `df`, `warmup` and `completion` on a cluster of real processes."""

import json
import os
from collections.abc import Callable

import pytest

import fs_client
from fs_client.cli.local.launch import LaunchedCluster
from tests.system.control import emberfs, kill

pytestmark = pytest.mark.system

MIB = 1 << 20


def test_info_shows_every_chunk_at_every_replica(cluster: LaunchedCluster) -> None:
    with fs_client.connect(cluster.address) as fs:
        fs.mkdir("/info")
        fs.write_file("/info/file", os.urandom(5 * MIB + 17))
        with fs.open("/info/hole", "wb") as file:
            file.truncate(2 * MIB)
    value = json.loads(emberfs("info", "--json", "--cluster", cluster.address, "ember:/info/file").stdout)
    assert (value["size"], value["type"]) == (5 * MIB + 17, "file")
    assert [chunk["index"] for chunk in value["chunks"]] == list(range(6))
    assert [chunk["bytes"] for chunk in value["chunks"]] == [MIB] * 5 + [17]
    for chunk in value["chunks"]:
        assert chunk["agree"]
        assert len({replica["node"] for replica in chunk["replicas"]}) == 3
        assert {replica["state"] for replica in chunk["replicas"]} == {"serving"}
        (checksum,) = {replica["checksum"] for replica in chunk["replicas"]}
        assert int(checksum, 16)
        assert {replica["version"] for replica in chunk["replicas"]} == {1}

    text = emberfs(
        "info", "--cluster", cluster.address, "--first", "4", "--chunks", "1", "ember:/info/file", "ember:/info/hole"
    )
    lines = text.stdout.splitlines()
    assert lines[0].startswith("ember:/info/file: file, inode ")
    assert [line.split()[0] for line in lines[3:4]] == ["4"]
    assert lines[4].split() == ["and", "1", "more:", "--first", "5"]

    holes = emberfs("info", "--cluster", cluster.address, "ember:/info/hole").stdout
    assert holes.count(" hole ") == 2

    directory = json.loads(emberfs("info", "--json", "--cluster", cluster.address, "ember:/info").stdout)
    assert directory["chunks"] == []


def test_info_of_nothing(cluster: LaunchedCluster) -> None:
    failed = emberfs("info", "--cluster", cluster.address, "ember:/not-there", code=1)
    assert failed.stderr.splitlines() == ["emberfs: ember:/not-there: No such file or directory"]


def test_info_says_who_could_not_be_asked(fresh_cluster: Callable[..., LaunchedCluster]) -> None:
    cluster = fresh_cluster()
    with fs_client.connect(cluster.address) as fs:
        fs.write_file("/file", os.urandom(MIB))
    kill(cluster, "storage-3")
    told = emberfs("info", "--cluster", cluster.address, "ember:/file", code=1)
    assert "target 3" in told.stderr and "was not asked" in told.stderr
    assert "(?)" in told.stdout or "(offline)" in told.stdout


def test_df(cluster: LaunchedCluster) -> None:
    value = json.loads(emberfs("df", "--json", cluster.address).stdout)
    assert value["replicas"] == 3
    assert 0 < value["available_bytes"] <= value["size_bytes"]
    assert [node["state"] for node in value["nodes"]] == ["up"] * 3
    table = emberfs("df", "--nodes", f"ember://{cluster.address}/").stdout.splitlines()
    assert table[0].split() == ["cluster", "size", "used", "available", "use", "files"]
    assert table[1].split()[0] == cluster.address
    assert [line.split()[1] for line in table[2:]] == ["1", "2", "3"]
    local = emberfs("df", "./somewhere", code=2)
    assert "is a local path" in local.stderr


def test_warmup_reads_a_tree_at_the_daemons(cluster: LaunchedCluster) -> None:
    sizes = {f"/warm/{number % 3}/file-{number}": number * 50_000 for number in range(40)}
    with fs_client.connect(cluster.address) as fs:
        for number in range(3):
            fs.makedirs(f"/warm/{number}")
        for path, size in sizes.items():
            fs.write_file(path, bytes(size))
        fs.write_file("/warm/large", bytes(3 * MIB + 1))
        with fs.open("/warm/hole", "wb") as file:
            file.truncate(5 * MIB)
    stored = sum(sizes.values()) + 3 * MIB + 1
    once = json.loads(emberfs("warmup", "--json", "--cluster", cluster.address, "ember:/warm").stdout)
    assert (once["bytes"], once["failed"]) == (stored, 0)
    assert once["files"] == sum(1 for size in sizes.values() if size) + 2
    everywhere = json.loads(
        emberfs("warmup", "--json", "--all-replicas", "--cluster", cluster.address, "ember:/warm").stdout
    )
    assert everywhere["bytes"] == 3 * stored
    one = emberfs("warmup", "--cluster", cluster.address, "ember:/warm/large").stdout
    assert one.startswith("1 file, 4 chunks, 3.1 MiB in ")


def test_warmup_goes_on_behind_what_fails(cluster: LaunchedCluster) -> None:
    with fs_client.connect(cluster.address) as fs:
        fs.write_file("/warm-alone", bytes(1000))
    told = emberfs("warmup", "--json", "--cluster", cluster.address, "ember:/not-there", "ember:/warm-alone", code=1)
    assert "ember:/not-there: No such file or directory" in told.stderr
    assert json.loads(told.stdout)["bytes"] == 1000


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_of_this_command(shell: str) -> None:
    assert "_EMBERFS_COMPLETE" in emberfs("completion", shell).stdout


def test_top_has_every_process(cluster: LaunchedCluster) -> None:
    looks = emberfs("top", "--count", "2", "--interval", "0.2", "--json", cluster.address).stdout.splitlines()
    assert len(looks) == 2
    for look in map(json.loads, looks):
        assert [process["name"].split()[0] for process in look["processes"]] == ["meta", "node", "node", "node"]
        assert all(process["answers"] for process in look["processes"])
    table = emberfs("top", "--count", "1", "--interval", "0.2", cluster.address).stdout
    assert "metadata" in table and "together" in table
