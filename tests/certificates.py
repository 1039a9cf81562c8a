"""Certificates of a test's cluster, made once for each process, and the transport that uses them."""

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from fs_common.rpc import Peer, Service
from fs_common.tls import making
from fs_common.tls.files import TlsFiles
from fs_common.transports import tcp

NODE = 7
"""Of the storage daemon that `tests.common.loopback.service` is."""
DAEMONS = ("meta", *(f"storage-{node}" for node in (1, 2, 3, 4, NODE)))


@cache
def _kept() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="emberfs-test-certificates-")


@cache
def certificates() -> Path:
    """The directory of a cluster's authority, with certificates of `DAEMONS`. Nobody changes it."""
    directory = Path(_kept().name) / "certs"
    make_certificates(directory)
    return directory


def make_certificates(directory: Path, *names: str) -> None:
    making.make_authority(directory, "test-cluster")
    for name in names or DAEMONS:
        making.issue(directory, making.daemon_of(name, ["127.0.0.1", "localhost"]))


def daemon_files(name: str) -> TlsFiles:
    return TlsFiles.of_daemon(certificates() / name)


def client_files() -> TlsFiles:
    return TlsFiles.of_client(certificates() / "client" / "ca.pem")


class TlsTransport:
    """`tcp` with TLS, for tests that are given a transport."""

    gives_up_alone = True
    lands_in_pieces = True

    async def serve(self, service: Service, host: str, port: int) -> tcp.Server:
        return await tcp.serve(service, host, port, tls=daemon_files(f"storage-{NODE}"))

    async def connect(self, *where: Any, **how: Any) -> Peer:
        return await tcp.connect(*where, **how, tls=client_files())

    def held(self) -> dict[str, int]:
        return {}

    def close(self) -> None:
        pass
