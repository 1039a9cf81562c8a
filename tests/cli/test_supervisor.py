"""The supervisor, with daemons that are real processes but do nothing."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from fs_client.cli.failure import Failure
from fs_client.cli.local import supervisor as supervisor_module
from fs_client.cli.local.configuration import Options, new_cluster
from fs_client.cli.local.directory import ClusterDirectory, ClusterRecord
from fs_client.cli.local.events import Event, Kind
from fs_client.cli.local.identity import is_running
from fs_client.cli.local.supervisor import Supervisor
from tests.support import run

FAKES = {"meta": "tests.cli.fake_daemon", "storage": "tests.cli.fake_daemon"}


class Run:
    """A supervisor at work in this process."""

    def __init__(self, path: Path, settings: Sequence[str] = (), *, restart: bool = True, storage: int = 2) -> None:
        self.directory = ClusterDirectory(path)
        self.directory.lock()
        self.record = self.directory.load() or new_cluster(Options(port=0, storage=storage, settings=settings))
        self.directory.save(self.record)
        self.events: list[Event] = []
        self.news = asyncio.Condition()
        self.supervisor = Supervisor(self.directory, self.record, self.note, restart=restart, modules=FAKES)

    def note(self, event: Event) -> None:
        self.events.append(event)
        asyncio.get_running_loop().create_task(self.announce())

    async def announce(self) -> None:
        async with self.news:
            self.news.notify_all()

    async def wait_for(self, kind: Kind, name: str = "", count: int = 1) -> Event:
        """The `count`th event of this kind about this daemon."""

        def found() -> list[Event]:
            return [event for event in self.events if event.kind == kind and event.name == name]

        async with self.news:
            await self.news.wait_for(lambda: len(found()) >= count)
        return found()[count - 1]


@contextlib.asynccontextmanager
async def running(path: Path, settings: Sequence[str] = (), *, restart: bool = True) -> AsyncIterator[Run]:
    """A cluster that is ready; stopped at the end, with nothing left of it."""
    cluster = Run(path, settings, restart=restart)
    task = asyncio.create_task(cluster.supervisor.run(lambda: None))
    try:
        await cluster.wait_for(Kind.READY)
        yield cluster
    finally:
        cluster.supervisor.stop()
        try:
            await task
        finally:
            cluster.directory.unlock()
            await asyncio.sleep(0)
    assert no_daemon_runs(cluster.record)


def no_daemon_runs(record: ClusterRecord) -> bool:
    return not any(daemon.process is not None and is_running(daemon.process) for daemon in record.daemons)


def pid_of(cluster: Run, name: str) -> int:
    """As `cluster.json` says, for everybody to read."""
    record = cluster.directory.load()
    assert record is not None
    process = next(daemon.process for daemon in record.daemons if daemon.name == name)
    assert process is not None
    return process.pid


def test_starts_all_daemons_and_stops_storage_before_metadata(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as cluster:
            ready = await cluster.wait_for(Kind.READY)
            assert ready.text == f"127.0.0.1:{cluster.record.meta.port}"
            record = cluster.directory.load()
            assert record is not None
            assert record.started
            assert [daemon.ready for daemon in record.daemons] == [True, True, True]
            assert record.supervisor is not None
            assert record.supervisor.pid == os.getpid()
        kinds = [event.kind for event in cluster.events]
        assert kinds[-2:] == [Kind.STOPPING, Kind.STOPPED]
        for name in ("storage-1", "storage-2"):
            log = cluster.directory.log(name).read_text()
            assert "serving" in log
            assert "the manager listens" in log, "a storage daemon has somebody to tell that it leaves"

    run(scenario())


def test_the_same_directory_brings_the_same_cluster_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as first:
            assert "may format: Making.IF_MISSING" in first.directory.log("storage-1").read_text()
        async with running(tmp_path) as second:
            assert second.directory.log("storage-1").read_text().rpartition("may format: ")[2].startswith("Making.NO")
            assert second.record.cluster == first.record.cluster
            assert second.record.address == first.record.address

    run(scenario())


def test_a_daemon_that_dies_is_reported_and_started_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as cluster:
            old = pid_of(cluster, "storage-1")
            os.kill(old, signal.SIGKILL)
            ended = await cluster.wait_for(Kind.ENDED, "storage-1")
            assert ended.text == "killed by SIGKILL; starting it again in 0.5 s"
            await cluster.wait_for(Kind.SERVING, "storage-1", count=2)
            assert pid_of(cluster, "storage-1") != old

    run(scenario())


def test_without_restart_a_dead_daemon_waits_for_the_signal(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, restart=False) as cluster:
            os.kill(pid_of(cluster, "storage-1"), signal.SIGKILL)
            ended = await cluster.wait_for(Kind.ENDED, "storage-1")
            assert ended.text == "killed by SIGKILL; it is not started again"
            record = cluster.directory.load()
            assert record is not None
            assert [daemon.ready for daemon in record.daemons] == [True, False, True]
            cluster.supervisor.start_again()
            await cluster.wait_for(Kind.SERVING, "storage-1", count=2)

    run(scenario())


def test_a_daemon_that_cannot_start_fails_the_cluster_with_its_own_words(tmp_path: Path) -> None:
    async def scenario() -> None:
        cluster = Run(tmp_path, ["storage.behaviour=fail"])
        try:
            with pytest.raises(Failure, match=r"did not start: storage: the disk is made of cheese; its log is .*log"):
                await cluster.supervisor.run(lambda: pytest.fail("it is not ready"))
        finally:
            cluster.directory.unlock()
        assert no_daemon_runs(cluster.record)
        assert not cluster.record.started
        await asyncio.sleep(0)

    run(scenario())


def test_a_daemon_that_never_serves_fails_the_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "SERVING_TIMEOUT_S", 0.2)

    async def scenario() -> None:
        cluster = Run(tmp_path, ["meta.behaviour=silent"])
        try:
            with pytest.raises(Failure, match="does not serve after 0 s"):
                await cluster.supervisor.run(lambda: pytest.fail("it is not ready"))
        finally:
            cluster.directory.unlock()
        assert no_daemon_runs(cluster.record)
        await asyncio.sleep(0)

    run(scenario())


def test_a_daemon_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "STOP_GRACE_S", 0.2)

    async def scenario() -> None:
        async with running(tmp_path, ["storage.behaviour=stubborn"]):
            pass

    run(scenario())


def test_stop_while_starting_leaves_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        cluster = Run(tmp_path, ["meta.behaviour=silent"])
        task = asyncio.create_task(cluster.supervisor.run(lambda: pytest.fail("it is not ready")))
        await cluster.wait_for(Kind.SERVING, "storage-1")
        cluster.supervisor.stop()
        await task
        cluster.directory.unlock()
        assert no_daemon_runs(cluster.record)
        await asyncio.sleep(0)

    run(scenario())


def test_lost_data_of_a_started_cluster_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as cluster:
            pass
        (tmp_path / "storage-2" / "data").unlink()
        again = Run(tmp_path)
        with pytest.raises(Failure, match="storage-2 is missing or empty: the cluster has lost the data of storage-2"):
            await again.supervisor.run(lambda: pytest.fail("it is not ready"))
        again.directory.unlock()
        assert cluster.record.started

    run(scenario())
