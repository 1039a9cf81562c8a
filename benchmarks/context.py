"""What every benchmark gets: a cluster, a directory on the disk under test, how often and how much."""

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30


TLS_DIRECTORY = "cluster-tls"
TOKENS_DIRECTORY = "cluster-tokens"
_SETTINGS = ("meta.gc_delay_ms=0", "meta.gc_interval_ms=100")
"""Removed files are freed at once, so that every run of a write finds the same blocks free."""


@dataclass(frozen=True, slots=True)
class Context:
    cluster: str
    """Address of its metadata servers."""
    processes: dict[str, int]
    """Daemon name to pid; empty for a cluster that we did not start."""
    directory: Path
    """Scratch space on the same disk as the cluster's data, for limits."""
    repeat: int
    """Runs of each measurement, at least 1."""
    quick: bool
    """A small run that shows whether everything works; its figures mean little."""

    @property
    def file_bytes(self) -> int:
        """Of the large file."""
        return 48 * MIB if self.quick else 1 * GIB

    def count(self, full: int) -> int:
        """How many operations one run of a measurement has."""
        return max(full // 20, 1) if self.quick else full


def say(line: str) -> None:
    """A line about what goes on, on stderr: stdout is for results."""
    click.echo(line, err=True)


def tls_ca_in(directory: Path) -> str:
    """What clients of the cluster with TLS below `directory` trust."""
    from fs_client.cli.local.directory import ClusterDirectory

    return str(ClusterDirectory(directory / TLS_DIRECTORY).tls_ca)


def administrators_token_in(directory: Path) -> Path:
    """File with the first token of the cluster with security below `directory`."""
    return directory / TOKENS_DIRECTORY / "tokens" / "admin.token"


@contextlib.contextmanager
def cluster_in(
    directory: Path, storage: int = 3, *, tls: bool = False, tokens: bool = False
) -> Iterator[tuple[str, dict[str, int]]]:
    """A cluster of its own below `directory`, on free ports: (address, daemon name to pid). Stopped and removed.

    `tls`: what its clients trust is at `tls_ca_in(directory)`. `tokens`: it has security on, and
    `administrators_token_in(directory)`.
    """
    from fs_client.cli.local.configuration import Options
    from fs_client.cli.local.launch import launch

    path = directory / (TLS_DIRECTORY if tls else TOKENS_DIRECTORY if tokens else "cluster")
    more = " and TLS" * tls + " and tokens" * tokens
    say(f"starting a cluster with {storage} storage daemons{more} in {path}")
    options = Options(
        port=0,
        storage=storage,
        replicas=min(3, storage),
        settings=_SETTINGS,
        tls=tls,
        security="on" if tokens else None,
    )
    with launch(path, options) as cluster:
        record = cluster.record
        yield record.address, {daemon.name: daemon.process.pid for daemon in record.daemons if daemon.process}
    shutil.rmtree(path)
