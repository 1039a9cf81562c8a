"""Starts that cannot succeed, and clusters that cannot be reached: one clear line each, and nothing left running."""

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import fs_client
from fs_client.cli.local.identity import open_process, wait_for_end
from fs_client.cli.local.launch import LaunchedCluster
from fs_client.cli.local.ports import free_ports
from tests.system.control import ROOT, emberfs, is_healthy

pytestmark = pytest.mark.system

Start = Callable[..., LaunchedCluster]


def failure(*arguments: str | Path, code: int = 1) -> str:
    """The one line that a failing command says."""
    result = emberfs(*arguments, code=code)
    assert result.stdout == ""
    line, end, rest = result.stderr.partition("\n")
    assert (end, rest) == ("\n", ""), result.stderr
    return line


def test_a_used_port_is_named(tmp_path: Path) -> None:
    port = free_ports("127.0.0.1", 1)[0]
    with socket.create_server(("127.0.0.1", port + 10)):
        line = failure("up", "--detach", "--dir", tmp_path / "data", "--port", str(port))
    assert line == (
        f"emberfs: port {port + 10} on 127.0.0.1 (storage-1) is in use; pick another with --port PORT, "
        "or --port 0 for free ports"
    )
    assert not (tmp_path / "data").exists()


def test_a_second_up_in_the_same_directory(fresh_cluster: Start) -> None:
    running = fresh_cluster()
    for arguments in ((), ("--detach",)):
        line = failure("up", "--dir", running.path, *arguments)
        assert line == (
            f"emberfs: a cluster already runs in {running.path}; stop it with `emberfs down --dir {running.path}`"
        )
    assert is_healthy(running.address)


def test_directories_that_are_not_whole(fresh_cluster: Start, tmp_path: Path) -> None:
    running = fresh_cluster()
    with fs_client.connect(running.address) as fs:
        fs.write_file("/kept", bytes(100_000))
    status = json.loads(emberfs("status", "--json", running.address).stdout)
    number = next(
        target["target"]
        for chain in status["chains"]
        for target in chain["targets"]
        if target["node"] == 2 and target.get("chunks")
    )
    running.stop()
    folder = running.path
    content = (folder / "cluster.json").read_text()

    (folder / "cluster.json").write_text(content[: len(content) // 2])
    assert "cluster.json is damaged" in failure("up", "--detach", "--dir", folder)
    assert "cluster.json is damaged" in failure("down", "--dir", folder)

    (folder / "cluster.json").unlink()
    assert "but no cluster.json: it is not (or no longer) the directory of a cluster" in failure(
        "up", "--detach", "--dir", folder
    )

    (folder / "cluster.json").write_text(content)
    (folder / "storage-2").rename(folder / "elsewhere")
    assert "storage-2 is missing or empty: the cluster has lost the data of storage-2" in failure(
        "up", "--detach", "--dir", folder
    )

    (folder / "elsewhere").rename(folder / "storage-2")
    target = folder / "storage-2" / f"target-{number}"
    shutil.rmtree(target)
    emberfs("up", "--detach", "--dir", folder)
    deadline_s = time.monotonic() + 60
    while is_healthy(running.address):  # until the daemon has heard the manager's verdict
        assert time.monotonic() < deadline_s
    told = emberfs("status", running.address, code=1).stdout
    assert f"the store of target {number} is lost (its directory is empty)" in told and "degraded" in told
    emberfs("down", "--dir", folder)
    assert not target.exists(), "it is not made anew"


def test_a_store_of_another_cluster_is_refused(fresh_cluster: Start) -> None:
    running = fresh_cluster()
    running.stop()
    path = running.path / "cluster.json"
    record = json.loads(path.read_text())
    record["cluster"] = "ember-other"
    path.write_text(json.dumps(record))
    line = failure("up", "--detach", "--dir", running.path)
    assert "did not start: " in line
    assert record["cluster"] in line


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert failure("up", "--dir", tmp_path / "file") == (
        f"emberfs: {tmp_path / 'file'} is not a directory; pick another with --dir DIR"
    )


def test_settings_that_a_daemon_refuses_are_its_own_words(tmp_path: Path) -> None:
    for setting, words in (
        ("meta.no_such_key=1", "no_such_key"),
        ("storage.payload_memory_bytes=1", "payload_memory_bytes"),
    ):
        line = failure("up", "-q", "--detach", "--dir", tmp_path / setting, "--port", "0", "--set", setting)
        assert "did not start: " in line
        assert words in line
        left = sorted(path.name for path in (tmp_path / setting).iterdir())
        assert left == ["logs"], "what the line names, and no cluster"
    up = emberfs("up", "--detach", "--dir", tmp_path / setting, "--port", "0", "--storage", "1")
    emberfs("down", "--dir", tmp_path / setting)
    assert "1 storage daemon" in up.stdout


def test_nobody_there(tmp_path: Path) -> None:
    port = free_ports("127.0.0.1", 1)[0]
    address = f"127.0.0.1:{port}"
    for arguments in (
        ["status", address],
        ["ls", f"ember://{address}/"],
        ["cp", "pyproject.toml", f"ember://{address}/"],
        ["du", "--cluster", address],
    ):
        line = failure(*arguments)
        assert line.startswith(f"emberfs: cannot reach the EmberFS cluster: tried {address}")
    assert failure("ls", "ember://host:port/", code=2) == "emberfs: cluster address 'host:port' is not host:port"


def test_a_server_that_is_no_cluster() -> None:
    """It accepts and says nothing, or something else: the command ends, and says what happened."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        import threading

        def answer() -> None:
            try:
                while True:
                    connection, _ = server.accept()
                    with connection:
                        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n" * 4)
            except OSError:
                return

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            line = failure("status", f"127.0.0.1:{server.getsockname()[1]}")
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
    assert line.startswith("emberfs: ")


def test_ctrl_c_stops_everything(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fs_client.cli", "up", "--dir", str(tmp_path / "data"), "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("EmberFS is ready at 127.0.0.1:")
        descriptors = [os.pidfd_open(pid) for pid in _pids(tmp_path / "data")]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert errors.endswith("stopped.\n")
    for descriptor in descriptors:
        # A number may be of another process by now.
        assert select.select([descriptor], [], [], 0)[0]
        os.close(descriptor)


def test_a_killed_supervisor_leaves_nothing(fresh_cluster: Start) -> None:
    running = fresh_cluster()
    record = running.record
    descriptors = [open_process(one.process) for one in record.daemons if one.process is not None]
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    for descriptor in descriptors:
        assert descriptor is not None
        assert wait_for_end(descriptor, 20.0)
        os.close(descriptor)
    assert emberfs("down", "--dir", running.path).stdout == f"the cluster in {running.path} is not running\n"
    emberfs("up", "--detach", "--dir", running.path)
    emberfs("down", "--dir", running.path)


def _pids(folder: Path) -> list[int]:
    record = json.loads((folder / "cluster.json").read_text())
    return [one["process"]["pid"] for one in record["daemons"]]
