import socket

import pytest

from fs_client.cli.failure import Failure
from fs_client.cli.local import ports


def test_a_port_in_use_is_named_with_the_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not ports.is_free("127.0.0.1", port)
        with pytest.raises(
            Failure, match=rf"port {port} on 127.0.0.1 \(storage-1\) is in use; pick another with --port"
        ):
            ports.require_free("127.0.0.1", {"storage-1": port})


def test_a_port_whose_last_connection_lingers_is_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
        accepted.close()
        client.close()
    assert ports.is_free("127.0.0.1", port)


def test_free_ports_are_different_and_free() -> None:
    found = ports.free_ports("127.0.0.1", 8)
    assert len(set(found)) == 8
    assert all(ports.is_free("127.0.0.1", port) for port in found)


def test_a_base_port_too_high_for_all_daemons() -> None:
    with pytest.raises(Failure, match="--port 65530 leaves no room below 65535 for 3 storage daemons"):
        ports.fixed_ports(65_530, 3)


def test_a_host_that_is_not_ours() -> None:
    with pytest.raises(Failure, match=r"cannot listen on 192\.0\.2\.1"):
        ports.is_free("192.0.2.1", 9700)
