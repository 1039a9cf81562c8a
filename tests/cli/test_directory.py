"""What `emberfs up` makes of a directory: a new one, an old one, one that is in use, one that is not whole."""

import fcntl
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from fs_client.cli.failure import Failure, Usage
from fs_client.cli.local.configuration import Options, apply_options, new_cluster, write_configuration
from fs_client.cli.local.directory import CLUSTER_FILE, ClusterDirectory, ClusterRecord
from fs_client.cli.local.ports import free_ports
from fs_client.cli.local.process import start
from fs_client.cli.local.run import open_cluster


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[ClusterDirectory]:
    opened = ClusterDirectory(tmp_path / "data")
    yield opened
    opened.unlock()


@pytest.fixture
def record(directory: ClusterDirectory) -> ClusterRecord:
    """Of a cluster that was made and is not running."""
    made = open_cluster(directory, Options(port=0))
    directory.unlock()
    return made


def test_a_new_cluster_survives_being_read_back(directory: ClusterDirectory, record: ClusterRecord) -> None:
    assert directory.load() == record
    assert [daemon.name for daemon in record.daemons] == ["meta", "storage-1", "storage-2", "storage-3"]
    used = {record.meta.grpc_port, *(port for daemon in record.daemons for port in (daemon.port, daemon.http_port))}
    assert len(used) == 9 and 0 not in used


def test_ports_follow_the_one_that_is_given(directory: ClusterDirectory) -> None:
    record = open_cluster(directory, Options(port=12_000, storage=2))
    assert record.address == "127.0.0.1:12000"
    assert record.meta.grpc_port == 12_001
    assert record.meta.http_port == 12_002
    assert [(daemon.port, daemon.http_port) for daemon in record.storage] == [(12_010, 12_110), (12_011, 12_111)]


def test_a_second_supervisor_is_refused(directory: ClusterDirectory) -> None:
    open_cluster(directory, Options(port=0))
    other = ClusterDirectory(directory.path)
    with pytest.raises(Failure, match=r"a cluster already runs in .*data; stop it with `emberfs down --dir .*data`"):
        open_cluster(other, Options())
    assert other.is_locked()
    directory.unlock()
    assert not other.is_locked()


def test_a_directory_with_other_things_in_it_is_refused(directory: ClusterDirectory) -> None:
    (directory.path / "meta").mkdir(parents=True)
    with pytest.raises(Failure, match=r"holds 'meta' but no cluster.json: .* pick another with --dir DIR"):
        open_cluster(directory, Options())
    assert not directory.is_locked()


def test_a_crash_before_the_first_save_leaves_a_directory_that_works(directory: ClusterDirectory) -> None:
    directory.lock()
    (directory.path / (CLUSTER_FILE + ".new")).write_text('{"clus')
    directory.unlock()
    assert open_cluster(directory, Options(port=0)).cluster.startswith("ember-")


def test_a_start_that_cannot_be_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "not" / "there" / "yet"
    port = free_ports("127.0.0.1", 1)[0]
    wrong = [
        Options(port=0, storage=1, replicas=2),
        Options(port=0, settings=["meta"]),
        Options(port=0, mountpoint=str(tmp_path / "none")),
        Options(port=port),
    ]
    with socket.create_server(("127.0.0.1", port + 10)):
        for options in wrong:
            with pytest.raises((Failure, Usage)):
                open_cluster(ClusterDirectory(path), options)
            assert list(tmp_path.iterdir()) == []
    path.mkdir(parents=True)
    with pytest.raises(Usage):
        open_cluster(ClusterDirectory(path), wrong[0])
    assert list(path.iterdir()) == [], "a directory that was there stays, and is as it was"
    made = ClusterDirectory(path)
    assert len(open_cluster(made, Options(port=0, storage=1)).storage) == 1
    made.unlock()


def test_somebody_elses_directory_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "mine").touch()
    with pytest.raises(Failure, match=r"holds 'config' but no cluster\.json"):
        open_cluster(ClusterDirectory(tmp_path), Options(port=0))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["config", "mine"]


def test_a_lock_that_was_taken_away_is_no_lock(directory: ClusterDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the open and the lock of another process, whose cluster could not be made."""
    directory.lock()
    other = ClusterDirectory(directory.path)
    locks = fcntl.flock

    def after_the_other_one(file: object, how: int) -> None:
        directory.take_away(None, logs=True)
        locks(file, how)  # type: ignore[arg-type]

    monkeypatch.setattr("fs_client.cli.local.directory.fcntl.flock", after_the_other_one)
    other.lock()
    monkeypatch.undo()
    assert other.is_locked() and directory.is_locked()
    with pytest.raises(Failure, match="a cluster already runs"):
        directory.lock()
    other.unlock()


@pytest.mark.parametrize("content", ["", "{", '{"format": 1}', "[]", '{"cluster": 5}', "\xff"])
def test_a_damaged_cluster_file_is_one_clear_line(
    directory: ClusterDirectory, record: ClusterRecord, content: str
) -> None:
    (directory.path / CLUSTER_FILE).write_bytes(content.encode("latin-1"))
    with pytest.raises(Failure, match=r"cluster.json is damaged \(.*\); restore it, or start a new cluster"):
        open_cluster(directory, Options())


def test_a_format_of_the_future_is_refused(directory: ClusterDirectory, record: ClusterRecord) -> None:
    record.format = 2
    directory.save(record)
    with pytest.raises(Failure, match="has format 2, this release reads 1"):
        open_cluster(directory, Options())


def test_a_file_in_the_place_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Failure, match="file is not a directory"):
        open_cluster(ClusterDirectory(tmp_path / "file"), Options())
    with pytest.raises(Failure, match=r"cannot use .*: Not a directory"):
        open_cluster(ClusterDirectory(tmp_path / "file" / "below"), Options())


def test_what_a_cluster_is_cannot_be_changed(directory: ClusterDirectory, record: ClusterRecord) -> None:
    apply_options(record, Options(storage=3, replicas=3, durability="disk"), directory.path)
    with pytest.raises(Failure, match="has 3 storage daemons, and none is taken away"):
        apply_options(record, Options(storage=2), directory.path)
    with pytest.raises(Failure, match="was made with --durability disk"):
        apply_options(record, Options(durability="memory"), directory.path)


def test_a_cluster_gets_more_daemons(directory: ClusterDirectory, record: ClusterRecord) -> None:
    record.started = True
    ports = [daemon.port for daemon in record.storage]
    apply_options(record, Options(storage=5), directory.path)
    assert [(daemon.name, daemon.node, daemon.new) for daemon in record.storage[3:]] == [
        ("storage-4", 4, True),
        ("storage-5", 5, True),
    ]
    added = [daemon.port for daemon in record.storage[3:]]
    assert len({*ports, *added}) == 5 and [daemon.port for daemon in record.storage[:3]] == ports
    assert len({daemon.http_port for daemon in record.daemons} - {0}) == 6


def test_a_cluster_of_a_release_without_http_gets_ports_for_it(
    directory: ClusterDirectory, record: ClusterRecord
) -> None:
    for daemon in record.daemons:
        daemon.http_port = 0
    by_default = record.storage[0].port + 100
    apply_options(record, Options(), directory.path)
    used = [port for daemon in record.daemons for port in (daemon.port, daemon.http_port)]
    assert len({*used, record.meta.grpc_port}) == 9
    assert record.storage[0].http_port == by_default
    record.storage[0].http_port = 0
    with socket.create_server(("127.0.0.1", by_default)):
        apply_options(record, Options(), directory.path)
    assert record.storage[0].http_port not in (0, by_default)


def test_lost_data_is_done_without_where_others_can_take_its_place(
    directory: ClusterDirectory, record: ClusterRecord
) -> None:
    record.started = True
    for daemon in record.daemons:
        directory.data(daemon).mkdir(parents=True)
        (directory.data(daemon) / "data").touch()
    assert directory.require_data(record) == []
    lost = record.storage[1]
    (directory.data(lost) / "data").unlink()
    with pytest.raises(Failure, match="add a daemon that takes its place with --storage 4"):
        directory.require_data(record)
    apply_options(record, Options(storage=4), directory.path)
    assert directory.require_data(record) == [lost]
    for daemon in record.storage[:3]:
        (directory.data(daemon) / "data").unlink(missing_ok=True)
    with pytest.raises(Failure, match="restore it, or start a new cluster"):
        directory.require_data(record)


def test_a_cluster_moves_to_other_ports(directory: ClusterDirectory, record: ClusterRecord) -> None:
    apply_options(record, Options(port=13_000), directory.path)
    assert record.address == "127.0.0.1:13000"


def test_more_replicas_than_daemons_is_wrong_usage() -> None:
    with pytest.raises(Usage, match="--replicas 3 needs at least as many storage daemons; --storage is 2"):
        new_cluster(Options(storage=2, replicas=3))
    assert new_cluster(Options(storage=2, port=0)).replicas == 2


def test_settings_reach_the_configuration_files(directory: ClusterDirectory) -> None:
    import tomllib

    record = open_cluster(
        directory, Options(port=0, settings=["meta.lease_ms=5", "storage.log_json=true", "meta.x=a=b"])
    )
    write_configuration(directory, record)
    meta = tomllib.loads(directory.config(record.meta).read_text())
    assert meta["lease_ms"] == 5
    assert meta["x"] == "a=b"
    storage = tomllib.loads(directory.config(record.storage[1]).read_text())
    assert storage["log_json"] is True
    assert storage["node"] == 2
    assert storage["manager"] == f"127.0.0.1:{record.meta.grpc_port}"
    apply_options(record, Options(settings=["meta.lease_ms=6"]), directory.path)
    assert record.settings["meta"] == {"lease_ms": 6, "x": "a=b"}


def test_settings_that_up_decides_itself_are_refused(directory: ClusterDirectory) -> None:
    record = open_cluster(directory, Options(port=0, settings=["meta.port=1"]))
    with pytest.raises(Usage, match=r"--set meta.port: `emberfs up` decides this itself"):
        write_configuration(directory, record)
    with pytest.raises(Usage, match=r"'port=1' is not meta.KEY=VALUE or storage.KEY=VALUE"):
        new_cluster(Options(port=0, settings=["port=1"]))


def test_awkward_paths_stay_themselves_in_toml(tmp_path: Path) -> None:
    import tomllib

    directory = ClusterDirectory(tmp_path / 'quo"te \\ naïve 😀\n')
    record = open_cluster(directory, Options(port=0))
    write_configuration(directory, record)
    directory.unlock()
    assert tomllib.loads(directory.config(record.meta).read_text())["directory"] == str(directory.path / "meta")


def as_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)


def test_a_directory_of_another_user_is_refused(
    directory: ClusterDirectory, record: ClusterRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_another_user(monkeypatch)
    for use in (directory.lock, directory.load, lambda: open_cluster(directory, Options())):
        with pytest.raises(Failure, match=r"data belongs to user \d+, and this runs as user \d+: run it as that user"):
            use()


def test_an_empty_directory_of_another_user_is_refused_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_another_user(monkeypatch)
    with pytest.raises(Failure, match="belongs to user"):
        open_cluster(ClusterDirectory(tmp_path), Options())
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_everybody_can_write_is_refused(directory: ClusterDirectory, record: ClusterRecord) -> None:
    directory.path.chmod(0o777)
    for use in (directory.lock, directory.load):
        with pytest.raises(Failure, match="can be written by everybody"):
            use()


@pytest.mark.parametrize("name", [CLUSTER_FILE, "cluster.lock"])
def test_a_symbolic_link_in_the_place_of_a_file_is_not_followed(
    directory: ClusterDirectory, record: ClusterRecord, tmp_path: Path, name: str
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes((directory.path / name).read_bytes())
    (directory.path / name).unlink()
    (directory.path / name).symlink_to(victim)
    before = victim.read_bytes()
    with pytest.raises(Failure, match=f"{name} is a symbolic link"):
        open_cluster(directory, Options())
    assert victim.read_bytes() == before


def test_links_that_wait_where_something_is_written_are_replaced_or_refused(
    directory: ClusterDirectory, record: ClusterRecord, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (directory.path / (CLUSTER_FILE + ".new")).symlink_to(victim)
    directory.save(record)
    (directory.path / "config").mkdir()
    directory.config(record.meta).symlink_to(victim)
    write_configuration(directory, record)
    assert victim.read_text() == "precious"
    assert directory.load() == record and "cluster" in directory.config(record.meta).read_text()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("config", "logs"):
        folder = directory.path / name
        if folder.exists():
            shutil.rmtree(folder)
        folder.symlink_to(elsewhere)
    with pytest.raises(Failure, match="config is a symbolic link"):
        write_configuration(directory, record)
    with pytest.raises(Failure, match="logs is a symbolic link"):
        start("fs_meta", [], directory.log("meta"))
    assert list(elsewhere.iterdir()) == []


def test_a_log_that_leads_elsewhere_is_not_written(
    directory: ClusterDirectory, record: ClusterRecord, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (directory.path / "logs").mkdir()
    directory.log("meta").symlink_to(victim)
    with pytest.raises(Failure, match=r"meta\.log is a symbolic link"):
        start("fs_meta", [], directory.log("meta"))
    assert victim.read_text() == "precious"
