"""A whole cluster that speaks TLS: every plane, its commands, and certificates that are replaced under load."""

import http.client
import os
import ssl
import threading
from collections.abc import Callable

import pytest

import fs_client
from fs_client.cli.local.launch import LaunchedCluster
from fs_common.tls import making
from tests.system.control import emberfs, kill, start_again, wait_until

pytestmark = pytest.mark.system


def test_all_planes_speak_tls_and_nothing_else(
    fresh_cluster: Callable[..., LaunchedCluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = fresh_cluster(tls=True)
    monkeypatch.setenv("EMBERFS_CLUSTER", cluster.address)
    with pytest.raises(OSError, match="speaks TLS only"):
        fs_client.connect(cluster.address, timeout_s=5.0)
    data = os.urandom(3_000_000)
    with fs_client.connect(cluster.address, tls_ca=cluster.tls_ca) as fs:
        fs.write_file("/data", data)
        assert fs.read_file("/data") == data
    # Status asks storage daemons and the manager, over gRPC.
    monkeypatch.setenv("EMBERFS_TLS_CA", cluster.tls_ca)
    assert "healthy" in emberfs("status").stdout
    context = ssl.create_default_context(cafile=cluster.tls_ca)
    for daemon in cluster.record.daemons:
        connection = http.client.HTTPSConnection("localhost", daemon.http_port, timeout=60, context=context)
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200
        connection.close()
        plain = http.client.HTTPConnection("localhost", daemon.http_port, timeout=60)
        with pytest.raises((OSError, http.client.HTTPException)):
            plain.request("GET", "/healthz")
            plain.getresponse()
        plain.close()


def test_certificates_and_their_authority_are_replaced_while_files_are_used(
    fresh_cluster: Callable[..., LaunchedCluster],
) -> None:
    cluster = fresh_cluster(tls=True, storage=3)
    certs = cluster.path / "certs"
    ends = threading.Event()
    failures: list[Exception] = []
    rounds = 0

    def use() -> None:
        nonlocal rounds
        try:
            while not ends.is_set():
                # A new client each time: a handshake with every daemon.
                with fs_client.connect(cluster.address, tls_ca=cluster.tls_ca) as fs:
                    data = os.urandom(200_000)
                    fs.write_file("/data", data)
                    assert fs.read_file("/data") == data
                rounds += 1
        except Exception as error:
            failures.append(error)

    def used_again() -> None:
        before = rounds
        wait_until(lambda: failures or rounds > before + 1, "files are used")

    user = threading.Thread(target=use)
    user.start()
    try:
        used_again()
        making.rotate_authority(certs)
        used_again()
        for daemon in making.daemons(certs):
            making.issue(certs, daemon)
        used_again()
        making.forget_authorities(certs)
        used_again()
        # A daemon that comes back meets the others with what there is now.
        kill(cluster, "storage-2")
        start_again(cluster)
        used_again()
    finally:
        ends.set()
        user.join()
    assert not failures, failures
    for daemon in cluster.record.daemons:
        shown = making.show(certs / daemon.name / "cert.pem")
        served = ssl.get_server_certificate(("127.0.0.1", daemon.port))
        path = certs / "served.pem"
        path.write_text(served)
        assert making.show(path).serial == shown.serial, daemon.name
