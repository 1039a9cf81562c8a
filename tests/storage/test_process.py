"""The daemon as a process: one clear line for a start that cannot succeed, an orderly end."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fs_client.cli.local.ports import free_ports

ROOT = Path(__file__).resolve().parents[2]


def configuration(path: Path, **changes: Any) -> Path:
    values = {
        "cluster": "c",
        "node": 1,
        "directory": str(path / "data"),
        "manager": "127.0.0.1:1",
        "port": 0,
    } | changes
    lines = [
        f"{key} = {value if isinstance(value, int) else chr(34) + value + chr(34)}" for key, value in values.items()
    ]
    file = path / "storage.toml"
    file.write_text("\n".join(lines) + "\n")
    return file


def start(config: Path, *options: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "fs_storage", "--config", str(config), *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def outcome(config: Path, *options: str) -> tuple[int, str]:
    process = start(config, *options)
    out, err = process.communicate(timeout=60)
    assert out == ""
    return process.returncode, err


@pytest.mark.system
def test_rdma_that_is_demanded_and_cannot_be(tmp_path: Path) -> None:
    config = configuration(tmp_path, transport="rdma", rdma_devices="none0")
    status, said = outcome(config, "--format-if-missing")
    assert status == 2
    (line,) = said.splitlines()[-1:]
    assert line.startswith("emberfs storage: transport 'rdma' cannot be used: ") and "emberfs doctor" in line


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"node": 0}, "node: from 1 on"),
        ({"manager": "nowhere"}, "'nowhere' is not host:port"),
        ({"payload_memory_bytes": 1}, "payload_memory_bytes"),
        ({"surprise": 1}, "surprise"),
        ({"transport": "pigeon"}, "transport"),
        ({"transport": "rdma", "tls_dir": "certs"}, "RDMA is not encrypted"),
        ({"rdma_subnets": "10.0.0.1/8"}, "rdma_subnets: 10.0.0.1/8 has host bits set"),
        ({"port": "9710"}, "port"),
    ],
)
def test_a_bad_configuration_is_one_line_and_status_2(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    from fs_common.config import ConfigError, load
    from fs_storage.config import StorageConfig

    with pytest.raises(ConfigError) as caught:
        load(configuration(tmp_path, **changes), StorageConfig)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.system
def test_starts_that_cannot_succeed(tmp_path: Path) -> None:
    status, text = outcome(configuration(tmp_path, node=0))
    assert (status, text.count("\n")) == (2, 1) and "node" in text
    status, text = outcome(tmp_path / "missing.toml")
    assert (status, text.count("\n")) == (2, 1) and "missing.toml" in text
    status, text = outcome(configuration(tmp_path, directory=str(tmp_path / "no" / "where")), "--format")
    assert (status, text.count("\n")) == (1, 1) and "No such file" in text
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, text = outcome(configuration(tmp_path, port=port), "--format")
        assert (status, text.count("\n")) == (1, 1) and f"127.0.0.1:{port}" in text
        status, text = outcome(configuration(tmp_path, http_port=port))
    assert status == 1 and f"http_port: cannot listen on 127.0.0.1:{port}" in text.splitlines()[-1]


def readiness(port: int) -> tuple[int, list[str]]:
    """Status and reasons of `/readyz`."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        return response.status, json.loads(response.read())["waits_for"]
    finally:
        connection.close()


@pytest.mark.system
def test_a_daemon_without_a_manager_waits_and_ends_when_told(tmp_path: Path) -> None:
    status, text = outcome(configuration(tmp_path))
    assert (status, text.count("\n")) == (1, 1) and "mount its disk or restore it" in text and "--format" in text
    assert not (tmp_path / "data").exists(), "nothing is made unasked"
    (http_port,) = free_ports("127.0.0.1", 1)
    first = start(configuration(tmp_path, http_port=http_port), "--format")
    try:
        assert first.stderr is not None
        assert "manager" in first.stderr.readline()
        assert readiness(http_port) == (503, ["no manager has answered yet"])
        status, text = outcome(configuration(tmp_path))
        assert (status, text.count("\n")) == (1, 1) and "in use" in text
        os.kill(first.pid, signal.SIGTERM)
        first.communicate(timeout=60)
        assert first.returncode == 0
    finally:
        if first.poll() is None:
            first.kill()
            first.communicate()
