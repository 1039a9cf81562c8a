"""What several system tests have in common."""

import os
from collections.abc import Callable
from typing import NamedTuple

import pytest

import fs_client
from fs_client.cli.local.launch import LaunchedCluster
from fs_client.cli.main import main


class Typed(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def home(cluster: LaunchedCluster, request: pytest.FixtureRequest) -> str:
    """A directory of this test in the shared cluster, as `ember:/...`."""
    name = request.node.name.translate(str.maketrans("/[]", "---"))
    with fs_client.connect(cluster.address) as fs:
        fs.mkdir(f"/{name}")
    return f"ember:/{name}"


@pytest.fixture
def typed(
    cluster: LaunchedCluster, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Typed]:
    """Runs a command line against the shared cluster, in this process: as many of them as a test likes."""
    monkeypatch.setenv("EMBERFS_CLUSTER", cluster.address)

    def run(*arguments: object) -> Typed:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([os.fspath(one) if isinstance(one, os.PathLike) else str(one) for one in arguments])
        out, err = capfd.readouterr()
        return Typed(int(ended.value.code or 0), out, err)

    return run
