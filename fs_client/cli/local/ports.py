"""Which TCP ports a cluster on this machine uses, and whether they are free."""

import random
import socket
from typing import NamedTuple

from fs_client.cli.failure import Failure

PORT_MAX = 65_535
GRPC_OFFSET = 1
HTTP_OFFSET = 2
STORAGE_OFFSET = 10
STORAGE_HTTP_OFFSET = 110
"""The metadata service has the first ten ports: RPC, gRPC, HTTP, and room."""
_FREE_PORTS = range(10_000, 32_000)
"""Below the range the kernel gives to outgoing connections, so that nobody is handed a port we have just chosen."""
_TRIES_MAX = 200


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now. Raises `Failure` when the host is not an address of this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except PermissionError:
            raise Failure(f"port {port} needs privileges; pick one above 1023 with --port PORT") from None
        except OSError as error:
            import errno

            if error.errno == errno.EADDRINUSE:
                return False
            raise Failure(f"cannot listen on {host}: {error.strerror}") from None
        return True


class Ports(NamedTuple):
    """Of a cluster."""

    rpc: int
    grpc: int
    http: int
    storage: list[int]
    """RPC of each storage daemon."""
    storage_http: list[int]


def fixed_ports(port: int, storage: int) -> Ports:
    """For a base port."""
    ports = Ports(
        port,
        port + GRPC_OFFSET,
        port + HTTP_OFFSET,
        [port + STORAGE_OFFSET + number for number in range(storage)],
        [port + STORAGE_HTTP_OFFSET + number for number in range(storage)],
    )
    if ports.storage_http[-1] > PORT_MAX:
        raise Failure(f"--port {port} leaves no room below {PORT_MAX} for {storage} storage daemons; pick a lower one")
    return ports


def any_ports(host: str, storage: int) -> Ports:
    """Free ones."""
    found = free_ports(host, 3 + 2 * storage)
    return Ports(found[0], found[1], found[2], found[3 : 3 + storage], found[3 + storage :])


def free_ports(host: str, count: int) -> list[int]:
    """`count` different ports that are free now."""
    found: list[int] = []
    for _ in range(_TRIES_MAX * count):
        port = random.choice(_FREE_PORTS)
        if port not in found and is_free(host, port):
            found.append(port)
            if len(found) == count:
                return found
    raise Failure(f"cannot find {count} free ports between {_FREE_PORTS.start} and {_FREE_PORTS.stop} on {host}")


def require_free(host: str, names: dict[str, int]) -> None:
    """Raise `Failure` naming the first port of `names` (what for -> port) that somebody else listens on."""
    for what, port in names.items():
        if not is_free(host, port):
            raise Failure(
                f"port {port} on {host} ({what}) is in use; pick another with --port PORT, or --port 0 for free ports"
            )
