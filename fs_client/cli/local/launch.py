"""A supervisor in the background: `emberfs up --detach`, the demo and the tests start their clusters here.

The supervisor is a process of its own in a session of its own, so it outlives the terminal. While the cluster starts
it sends its events, one JSON line each, through a pipe whose descriptor is `--events-fd`; the pipe closes when the
cluster is ready or has failed.
"""

import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from fs_client.cli.failure import EXIT_USAGE, Failure, Usage
from fs_client.cli.local.configuration import Options
from fs_client.cli.local.directory import ClusterDirectory, ClusterRecord
from fs_client.cli.local.events import Event, Kind
from fs_client.cli.local.process import module_environment, python_module

STOP_TIMEOUT_S = 660.0
"""More than the supervisor gives its daemons, storage and metadata one after the other."""


class LaunchedCluster:
    """A cluster whose supervisor is our child. `with launch(...) as cluster:` stops it at the end."""

    def __init__(self, path: Path, supervisor: "subprocess.Popen[bytes]") -> None:
        self.path = path
        self._supervisor = supervisor

    @property
    def pid(self) -> int:
        """Of the supervisor."""
        return self._supervisor.pid

    @property
    def record(self) -> ClusterRecord:
        """What `cluster.json` says at this moment."""
        record = ClusterDirectory(self.path).load()
        assert record is not None, "a launched cluster has a cluster.json"
        return record

    @property
    def address(self) -> str:
        return self.record.address

    @property
    def tls_ca(self) -> str:
        """What its clients trust; "": it has no TLS."""
        return str(ClusterDirectory(self.path).tls_ca.absolute()) if self.record.tls else ""

    def stop(self) -> int:
        """Stop the cluster, wait for its end, return the supervisor's exit status. Stopping twice is fine."""
        if self._supervisor.poll() is None:
            self._supervisor.terminate()
        return self.wait()

    def wait(self) -> int:
        """Wait for the supervisor's end; killed, daemons included, if it does not come."""
        try:
            return self._supervisor.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._supervisor.kill()
            return self._supervisor.wait()

    def send_signal(self, number: int) -> None:
        self._supervisor.send_signal(number)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def launch(
    path: Path,
    options: Options,
    *,
    restart: bool = True,
    report: Callable[[Event], None] = lambda event: None,
) -> LaunchedCluster:
    """Start the cluster of directory `path` in the background; return when it is ready.

    Raises `Failure` or `Usage` with the supervisor's own line; then nothing runs. Interrupted, it stops what it began.
    """
    read_end, write_end = os.pipe()
    try:
        supervisor = subprocess.Popen(
            [
                *python_module("fs_client.cli"),
                "up",
                *("--dir", str(path)),
                *_arguments(options),
                *(() if restart else ("--no-restart",)),
                *("--events-fd", str(write_end)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[write_end],
            start_new_session=True,
            env=module_environment(),
        )
    except BaseException:
        os.close(read_end)
        raise
    finally:
        os.close(write_end)
    cluster = LaunchedCluster(path, supervisor)
    try:
        with open(read_end, "rb") as events:
            for line in events:
                event = msgspec.json.decode(line, type=Event)
                if event.kind == Kind.FAILED:
                    raise Usage(event.text) if cluster.wait() == EXIT_USAGE else Failure(event.text)
                report(event)
                if event.kind == Kind.READY:
                    return cluster
        status = cluster.wait()
        raise Failure(f"the supervisor ended with status {status} before the cluster was ready; see {path / 'logs'}")
    except BaseException:
        cluster.stop()
        raise


def _arguments(options: Options) -> Sequence[str]:
    """The command line that says the same as `options`."""
    given = {
        "--host": options.host,
        "--port": options.port,
        "--storage": options.storage,
        "--replicas": options.replicas,
        "--durability": options.durability,
        "--chunk-size": options.chunk_size_bytes,
        "--stripe": options.stripe,
        "--mount": options.mountpoint or None,
        "--security": options.security,
    }
    words = [word for name, value in given.items() if value is not None for word in (name, str(value))]
    if options.tls is not None:
        words.append("--tls" if options.tls else "--no-tls")
    return words + [word for setting in options.settings for word in ("--set", setting)]
