"""The metadata store is lost, and made of a backup: what was there then is there again, and nothing is given twice."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import fs_client
from fs_client.cli.local.launch import LaunchedCluster
from tests.system.control import daemon, emberfs, kill, wait_whole

pytestmark = [pytest.mark.system, pytest.mark.slow]

Start = Callable[..., LaunchedCluster]
FILES = 50


def content(name: str) -> bytes:
    return name.encode() * 20_000


def test_a_lost_metadata_store_comes_back_from_a_backup(fresh_cluster: Start, tmp_path: Path) -> None:
    cluster = fresh_cluster("data")
    backup = tmp_path / "backup"
    with fs_client.connect(cluster.address) as fs:
        for number in range(FILES):
            fs.write_file(f"/kept-{number}", content(f"kept-{number}"))
        fs.write_file("/removed", content("removed"))
        emberfs("backup", backup, cluster=cluster.address)
        fs.remove("/removed")
        for number in range(FILES):
            fs.write_file(f"/later-{number}", content(f"later-{number}"))
        fs.write_file("/kept-0", content("newer!"))
        # One that was left behind meanwhile, and served when the backup was made.
        kill(cluster, "storage-2")
        fs.write_file("/kept-1", content("kept_1"))
        wanted = {number: fs.read_file(f"/kept-{number}") for number in range(FILES)}
    assert backup.stat().st_mode & 0o777 == 0o600

    cluster.stop()
    meta = cluster.path / "config" / "meta.toml"
    store = Path(next(line for line in meta.read_text().splitlines() if line.startswith("directory")).split('"')[1])
    assert "is there already" in emberfs("restore", backup, "--config", meta, code=1).stderr
    shutil.rmtree(store)
    store.mkdir()
    assert "restored" in emberfs("restore", backup, "--config", meta).stdout

    cluster = fresh_cluster("data")
    wait_whole(cluster)
    with fs_client.connect(cluster.address) as fs:
        names = set(fs.listdir("/"))
        assert names == {*(f"kept-{number}" for number in range(FILES)), "removed", *(names & {"lost+found"})}
        for number in range(FILES):
            assert fs.read_file(f"/kept-{number}") == wanted[number], number
        # Numbers of inodes whose chunks are still there are not given to anybody else.
        for number in range(FILES):
            fs.write_file(f"/new-{number}", b"")
            assert fs.read_file(f"/new-{number}") == b""
            fs.write_file(f"/new-{number}", content(f"new-{number}"))
        for number in range(FILES):
            assert fs.read_file(f"/new-{number}") == content(f"new-{number}")
    found = emberfs("fsck", cluster=cluster.address, code=None).stdout
    assert "orphan" in found and "differs" not in found and "damaged" not in found
    assert daemon(cluster, "meta").ready


def test_what_is_no_backup_makes_nothing(fresh_cluster: Start, tmp_path: Path) -> None:
    cluster = fresh_cluster("data", storage=1)
    backup = tmp_path / "backup"
    emberfs("backup", backup, cluster=cluster.address)
    other = tmp_path / "meta.toml"
    config = (cluster.path / "config" / "meta.toml").read_text()
    lines = [line for line in config.splitlines() if not line.startswith(("directory", "cluster"))]
    good = [line for line in config.splitlines() if line.startswith("cluster")]
    place = tmp_path / "place"
    place.mkdir()
    other.write_text("\n".join([*lines, *good, f'directory = "{place}"']))
    data = backup.read_bytes()
    for bad, words in (
        (data[:-1], "damaged, or cut short"),
        (data[:1000] + bytes((data[1000] ^ 1,)) + data[1001:], "damaged, or cut short"),
        (data[:20], "cut short"),
        (b"", "too short"),
        (b"nothing of the kind" * 10, "no backup"),
    ):
        backup.write_bytes(bad)
        line = emberfs("restore", backup, "--config", other, code=1).stderr
        assert words in line and line.count("\n") == 1, line
        assert list(place.iterdir()) == []
    backup.write_bytes(data)
    other.write_text("\n".join([*lines, 'cluster = "another"', f'directory = "{place}"']))
    assert "'another'" in emberfs("restore", backup, "--config", other, code=1).stderr
    assert list(place.iterdir()) == []
    gone = emberfs("backup", tmp_path / "no" / "where", cluster=cluster.address, code=1).stderr
    assert "No such file" in gone and gone.count("\n") == 1
