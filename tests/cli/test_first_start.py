"""A first start that fails, or is given up, leaves no cluster behind: with daemons that are real processes."""

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from fs_client.cli.failure import Failure
from fs_client.cli.local import run as run_module
from fs_client.cli.local.configuration import Options
from fs_client.cli.local.directory import ClusterDirectory, ClusterRecord
from fs_client.cli.local.events import Event, Kind
from fs_client.cli.local.run import open_cluster, run_cluster
from fs_client.cli.local.supervisor import Supervisor
from tests.cli.test_supervisor import FAKES, no_daemon_runs


@pytest.fixture(autouse=True)
def fake_daemons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "Supervisor", partial(Supervisor, modules=FAKES))


def up(path: Path, *settings: str, report: Callable[[Event], None] = lambda event: None) -> tuple[ClusterRecord, bool]:
    """(the cluster, whether it was ever ready)"""
    directory = ClusterDirectory(path)
    record = open_cluster(directory, Options(port=0, storage=2, settings=settings))
    try:
        return record, run_cluster(directory, record, report, lambda: None, restart=False)
    finally:
        assert no_daemon_runs(record)


def when(kind: Kind, name: str) -> Callable[[Event], None]:
    """Ctrl-C as soon as this has happened."""

    def look(event: Event) -> None:
        if (event.kind, event.name) == (kind, name):
            os.kill(os.getpid(), signal.SIGINT)

    return look


def test_a_daemon_that_does_not_start_leaves_its_log_alone(tmp_path: Path) -> None:
    path = tmp_path / "data"
    with pytest.raises(Failure, match=r"the disk is made of cheese; its log is .*/logs/"):
        up(path, "storage.behaviour=fail")
    assert [one.name for one in path.iterdir()] == ["logs"]
    record, ready = up(path, report=when(Kind.READY, ""))
    assert ready and record.settings == {"meta": {}, "storage": {}}, "another cluster, with other options"
    assert {"cluster.json", "meta", "storage-1"} <= {one.name for one in path.iterdir()}


def test_a_start_that_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "data"
    _, ready = up(path, "storage.behaviour=silent", report=when(Kind.SERVING, "meta"))
    assert not ready and not path.exists()


def test_a_cluster_that_was_ready_stays_when_it_fails_later(tmp_path: Path) -> None:
    path = tmp_path / "data"
    first, ready = up(path, report=when(Kind.READY, ""))
    assert ready
    with pytest.raises(Failure, match="cheese"):
        up(path, "storage.behaviour=fail")
    kept = ClusterDirectory(path).load()
    assert kept is not None and kept.cluster == first.cluster and kept.started
    assert (path / "storage-1" / "data").exists()
