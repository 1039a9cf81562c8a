"""`emberfs up --log-json`: every line that any process of the cluster writes is one object with the same fields."""

import json
import os
from pathlib import Path

import pytest

from fs_client.cli.local.ports import free_ports
from tests.system.control import emberfs

pytestmark = pytest.mark.system
FIELDS = {"event", "level", "logger", "process", "timestamp"}


def test_all_logs_are_json(tmp_path: Path) -> None:
    directory, port = tmp_path / "data", str(free_ports("127.0.0.1", 1)[0])
    mountpoint = tmp_path / "mnt"
    mountpoint.mkdir()
    mount = ["--mount", mountpoint] if os.access("/dev/fuse", os.W_OK) else []
    try:
        emberfs("up", "--detach", "--dir", directory, "--port", port, "--storage", "1", "--log-json", *mount)
        emberfs("ls", "ember:/", cluster=f"127.0.0.1:{port}")
    finally:
        emberfs("down", "--dir", directory)
    logs = {path.stem: path.read_text().splitlines() for path in (directory / "logs").iterdir()}
    assert logs.keys() >= {"meta", "storage-1", "supervisor"} and (not mount or "mount" in logs)
    for name, lines in logs.items():
        assert lines, name
        for line in lines:
            found = json.loads(line)
            assert found.keys() >= FIELDS and found["process"] == name, line


def test_why_a_daemon_did_not_start_is_told_in_words(tmp_path: Path) -> None:
    port = str(free_ports("127.0.0.1", 1)[0])
    options = ("--port", port, "--storage", "1", "--log-json", "--set", "storage.read_threads=0")
    refused = emberfs("up", "--detach", "--dir", tmp_path / "data", *options, code=1)
    assert "read_threads: at least 1" in refused.stderr and "{" not in refused.stderr
