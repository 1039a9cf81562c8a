"""A cluster of real processes whose daemons talk over RDMA, for tests in the guest."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from fs_client.cli.local.configuration import Options, new_cluster, write_configuration
from fs_client.cli.local.directory import ClusterDirectory, DaemonRecord

SETTINGS = (
    "meta.heartbeat_interval_ms=1000",
    "meta.lease_ms=32000",
    "meta.failure_ms=40000",
    "meta.gc_delay_ms=0",
    "storage.transport=rdma",
)
"""Nobody is taken for dead for being slow; a process that is gone is noticed by its connections."""
READY_S = 180.0
POLL_S = 0.05


class GuestCluster:
    """A metadata server and three storage daemons, each chunk on all three."""

    def __init__(self, path: Path, *settings: str) -> None:
        self.directory = ClusterDirectory(path)
        path.mkdir(exist_ok=True)
        self.directory.lock()
        self.record = new_cluster(
            Options(
                port=0,
                storage=3,
                replicas=3,
                durability="memory",
                chunk_size_bytes=256 << 10,
                stripe=3,
                settings=(*SETTINGS, *settings),
            )
        )
        self.directory.save(self.record)
        write_configuration(self.directory, self.record)
        self._nursery: subprocess.Popen[str] | None = None
        self._processes: dict[str, int] = {}
        self._log_read: dict[str, int] = {}
        """Of each log: what was there before the process that runs now."""

    @property
    def address(self) -> str:
        return self.record.address

    @property
    def storage(self) -> list[DaemonRecord]:
        return self.record.storage

    def log(self, daemon: DaemonRecord) -> str:
        path = self.directory.log(daemon.name)
        return path.read_text() if path.exists() else ""

    def __enter__(self) -> Self:
        self._nursery = subprocess.Popen(
            [sys.executable, "-m", "tests.rdma.nursery"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            assert self._nursery.stdout is not None
            assert self._nursery.stdout.readline().strip() == "imported"
            self.start(self.record.meta)
            for daemon in self.storage:
                self.start(daemon, wait=False)
            for daemon in self.storage:
                self.wait_ready(daemon)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for process in self._processes.values():
            _send(process, signal.SIGTERM)
        until(lambda: not any(map(alive, self._processes.values())), "daemons end", fail=False)
        if self._nursery is not None:
            assert self._nursery.stdin is not None and self._nursery.stdout is not None
            self._nursery.stdin.close()
            self._nursery.wait()
            self._nursery.stdout.close()
        self.directory.unlock()

    def start(self, daemon: DaemonRecord, *, wait: bool = True) -> None:
        assert self._nursery is not None and self._nursery.stdin is not None and self._nursery.stdout is not None
        path = self.directory.log(daemon.name)
        path.parent.mkdir(exist_ok=True)
        self._log_read[daemon.name] = path.stat().st_size if path.exists() else 0
        self._nursery.stdin.write(f"{daemon.role}\t{path}\t{self.directory.config(daemon)}\n")
        self._nursery.stdin.flush()
        self._processes[daemon.name] = int(self._nursery.stdout.readline())
        if wait:
            self.wait_ready(daemon)

    def wait_ready(self, daemon: DaemonRecord) -> None:
        process = self._processes[daemon.name]

        def ready() -> bool:
            said = self.log(daemon)[self._log_read[daemon.name] :]
            assert alive(process), f"{daemon.name} ended:\n{said}"
            return f"ready {daemon.role} " in said

        until(ready, f"{daemon.name} is ready")

    def kill(self, daemon: DaemonRecord) -> None:
        process = self._processes.pop(daemon.name)
        _send(process, signal.SIGKILL)
        until(lambda: not alive(process), f"{daemon.name} is gone")


def until(condition: object, what: str, *, limit_s: float = READY_S, fail: bool = True) -> None:
    ends = time.monotonic() + limit_s
    while not condition():  # type: ignore[operator]
        if time.monotonic() > ends:
            assert not fail, f"{what}: not within {limit_s:g} s"
            return
        time.sleep(POLL_S)


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _send(process: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, number)
