"""A server and its callers, whose connections move to RDMA: over verbs in memory, or over devices of this machine."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from fs_common.errors import Code, EmberError
from fs_common.methods import READ_CHUNKS, UPDATE_CHUNKS
from fs_common.peers import Address, PeerPool
from fs_common.records.storage import ReadChunksReply, UpdateChunksReply
from fs_common.rpc import Call, Peer, Reply, Service
from fs_common.transports import tcp
from fs_common.transports.choice import TransportChoice
from fs_common.transports.payload import PayloadTransport
from fs_common.transports.rdma.verbs import Binding
from tests.common.loopback import TIMEOUT, hello, memory, read_request, service
from tests.rdma.soft_verbs import Fabric

AUTO, ONLY_RDMA, ONLY_TCP = (TransportChoice(name) for name in ("auto", "rdma", "tcp"))
CLIENT = b"c" * 16


def nothing_here() -> Binding:
    raise EmberError(Code.UNREACHABLE, "this machine has no RDMA device")


class World:
    """A server and its callers, each with the same devices: one machine."""

    def __init__(self, find_binding: Callable[[], Binding], fabric: Fabric | None = None) -> None:
        self.fabric = fabric
        self._find_binding = find_binding
        self.transports: list[PayloadTransport] = []
        self.pools: list[PeerPool] = []
        self.servers: list[tcp.Server] = []

    def transport(self, choice: TransportChoice) -> PayloadTransport:
        made = PayloadTransport(choice, self._find_binding)
        self.transports.append(made)
        return made

    async def serve(self, offered: Service, choice: TransportChoice = AUTO) -> Address:
        self.transport(choice).offer(offered)
        server = await tcp.serve(offered, "127.0.0.1", 0)
        self.servers.append(server)
        return "127.0.0.1", server.port

    def pool(self, choice: TransportChoice = AUTO) -> PeerPool:
        made = PeerPool(hello(), transport=self.transport(choice), connect_timeout_s=TIMEOUT)
        self.pools.append(made)
        return made

    async def close(self) -> None:
        for pool in self.pools:
            await pool.close()
        for server in self.servers:
            await server.close()
        for transport in self.transports:
            transport.close()
        if self.fabric is not None:
            assert not self.fabric.faults and not self.fabric.queue_pairs


@contextlib.asynccontextmanager
async def world(*devices: str) -> AsyncIterator[World]:
    """`devices`: their addresses; none: a machine without RDMA."""
    fabric = Fabric({f"soft{n}": address for n, address in enumerate(devices)}) if devices else None
    made = World(nothing_here if fabric is None else fabric.binding, fabric)
    try:
        yield made
    finally:
        await made.close()


class Store:
    """READ_CHUNKS answers with its bytes; UPDATE_CHUNKS is done once for each client id."""

    def __init__(self, data: bytes = b"") -> None:
        self.service = service()
        self.service.register(READ_CHUNKS, lambda call: Reply(ReadChunksReply([len(data)], []), [data]))
        self.service.register(UPDATE_CHUNKS, self._update, allocate=lambda request, length: memory(length))
        self.done: dict[bytes, bytes] = {}
        self.tried = 0
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def _update(self, call: Call) -> Reply:
        self.tried += 1
        payload = b"".join(call.payload)
        assert self.done.setdefault(call.request.client, payload) == payload
        await self.go_on.wait()
        return Reply(UpdateChunksReply([1], [len(payload)]))


def goes_over(peer: Peer) -> str:
    return peer.link.transport


async def read(pool: PeerPool, address: Address, size: int) -> bytes:
    into = memory(size)
    await pool.call(address, READ_CHUNKS, read_request(size), into=into, timeout=TIMEOUT)
    return bytes(into[0])
