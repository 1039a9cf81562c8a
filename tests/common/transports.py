"""The transports that the contract suite (`tests/common/contract`) runs over, and what tests may ask of each."""

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from fs_common.records.session import Hello
from fs_common.rpc import Peer, Service
from fs_common.serving import ServingConnection
from fs_common.transports import tcp
from tests.certificates import TlsTransport
from tests.common import memory_link
from tests.rdma.transport import DeviceTransport, RdmaTransport


class RunningServer(Protocol):
    """Of `transport.serve`."""

    port: int

    @property
    def service(self) -> Service: ...

    _connections: set[ServingConnection]

    async def close(self, grace_s: float = 5.0) -> None: ...


class Transport(Protocol):
    gives_up_alone: bool
    """A call that ends before its answer leaves the connection to the calls beside it. False: where its memory is lent
    to the other side, its end is the connection's, and the calls beside it are made again on a new one."""
    lands_in_pieces: bool
    """Of a large payload, some is there before the rest."""

    async def serve(self, service: Service, host: str, port: int) -> RunningServer: ...

    async def connect(self, host: str, port: int, hello: Hello, *, timeout: float) -> Peer:
        """A connection on which the transport is in use: none that fell back to another one."""

    def held(self) -> dict[str, int]:
        """What of this process it has taken of the system beyond descriptors, by kind."""

    def close(self) -> None:
        """After all servers and connections."""


class TcpTransport:
    gives_up_alone = True
    lands_in_pieces = True

    async def serve(self, service: Service, host: str, port: int) -> RunningServer:
        return await tcp.serve(service, host, port)

    async def connect(self, host: str, port: int, hello: Hello, *, timeout: float) -> Peer:
        return await tcp.connect(host, port, hello, timeout=timeout)

    def held(self) -> dict[str, int]:
        return {}

    def close(self) -> None:
        pass


class MemoryTransport:
    """Links within this process: frames are handed over whole, payload is copied from memory to memory."""

    gives_up_alone = True
    lands_in_pieces = True

    def __init__(self) -> None:
        self._network = memory_link.Network()

    async def serve(self, service: Service, host: str, port: int) -> RunningServer:
        return self._network.serve(service, asyncio.get_running_loop())

    async def connect(self, host: str, port: int, hello: Hello, *, timeout: float) -> Peer:
        return await self._network.connect(host, port, hello, timeout)

    def held(self) -> dict[str, int]:
        return {}

    def close(self) -> None:
        pass


CONTRACT: Sequence[tuple[str, Any]] = (
    ("tcp", TcpTransport),
    ("tls", TlsTransport),
    ("memory", MemoryTransport),
    ("soft-rdma", RdmaTransport),
    ("rdma", DeviceTransport),
)
"""Name and class of each transport that keeps the contract. A new one is one more line. `rdma` needs a device."""
