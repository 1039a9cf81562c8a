"""Daemons that get their settings from the environment alone, as in a container, and are known by a name."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fs_client.cli.local.ports import free_ports
from tests.system.control import ROOT, WAIT_S, emberfs

pytestmark = pytest.mark.system


def start(role: str, settings: dict[str, object]) -> "subprocess.Popen[str]":
    variables = {f"EMBERFS_{role.upper()}_{key.upper()}": str(value) for key, value in settings.items()}
    return subprocess.Popen(
        [sys.executable, "-m", "fs_client.cli", role, "--format-if-missing"],
        env=dict(os.environ, PYTHONPATH=str(ROOT)) | variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_cluster_of_variables_is_reached_by_its_name(tmp_path: Path) -> None:
    port, grpc_port, data_port = free_ports("127.0.0.1", 3)
    common = {"cluster": "c", "host": "localhost", "listen": "127.0.0.1"}
    meta = {"directory": tmp_path / "meta", "port": port, "grpc_port": grpc_port, "storage_nodes": 1, "replicas": 1}
    storage = {"directory": tmp_path / "1", "node": 1, "port": data_port, "manager": f"localhost:{grpc_port}"}
    for _ in range(2):  # made by the first start, found by the second
        with start("meta", common | meta) as first, start("storage", common | storage) as second:
            try:
                assert first.stdout is not None and second.stdout is not None
                assert first.stdout.readline() == f"ready meta 127.0.0.1:{port}\n"
                assert second.stdout.readline() == f"ready storage localhost:{data_port}\n"
                status = json.loads(emberfs("status", "--json", f"localhost:{port}").stdout)
                assert [node["address"] for node in status["nodes"]] == [f"localhost:{data_port}"]
            finally:
                first.terminate()
                second.terminate()
            assert (first.wait(WAIT_S), second.wait(WAIT_S)) == (0, 0)


@pytest.mark.parametrize("role", ["meta", "storage"])
def test_a_directory_that_is_made_without_serving(tmp_path: Path, role: str) -> None:
    settings = {"cluster": "c", "directory": tmp_path, "node": 1, "manager": "127.0.0.1:1"}
    variables = {f"EMBERFS_STORAGE_{key.upper()}": str(value) for key, value in settings.items()}
    variables |= {"EMBERFS_META_CLUSTER": "c", "EMBERFS_META_DIRECTORY": str(tmp_path)}
    assert emberfs(role, "--format-only", variables=variables).stderr == ""
    assert "formatted already" in emberfs(role, "--format-only", variables=variables, code=1).stderr
    assert "formatted already" in emberfs(role, "--format", variables=variables, code=1).stderr


def test_a_variable_that_sets_nothing_is_named(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "fs_meta"],
        env=dict(os.environ, PYTHONPATH=str(ROOT), EMBERFS_META_PROT="1"),
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )
    assert (result.returncode, result.stderr) == (
        2,
        "emberfs meta: EMBERFS_META_PROT: there is no setting prot; unset it\n",
    )
