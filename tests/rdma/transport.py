"""A transport for tests: TCP connections that go on over RDMA, by any binding of verbs."""

import asyncio
from collections.abc import Callable

import msgspec

from fs_common.methods import RDMA_CONNECT
from fs_common.records.session import Hello
from fs_common.rpc import Peer, Service
from fs_common.transports import tcp
from fs_common.transports.rdma import bindings
from fs_common.transports.rdma.endpoint import Traffic
from fs_common.transports.rdma.memory import RegisteredMemory
from fs_common.transports.rdma.setup import Local, offer, upgrade
from fs_common.transports.rdma.slabs import SlabPool
from fs_common.transports.rdma.verbs import Binding, GidKind
from tests.rdma.soft_verbs import Fabric


class Side:
    """An open device of one side, with the first address that travels."""

    def __init__(self, binding: Binding, name: str | None = None, slabs: SlabPool | None = None) -> None:
        devices = [device for device in binding.devices() if name in (None, device.name)]
        device = devices[0]
        self.context = binding.open(device.name)
        self.memory = RegisteredMemory(self.context, asyncio.get_running_loop(), device.name)
        self.slabs = slabs or SlabPool()
        self.traffic = Traffic()
        self.connections = 0
        port = device.ports[0]
        gid = next(gid for gid in port.gids if gid.kind is not GidKind.ROCE_V1 and gid.ip.version == 4)
        self.local = Local(
            self.context,
            self.memory,
            self.slabs,
            self.traffic,
            port.number,
            gid,
            port.mtu_bytes,
            port.lid,
            device.reads_max,
            self._opened,
            self._closed,
        )

    def _opened(self) -> None:
        self.connections += 1

    def _closed(self) -> None:
        self.connections -= 1

    def close(self) -> None:
        self.slabs.close()
        self.memory.close()
        self.context.close()


class RdmaTransport:
    """Like `fs_common.transports.tcp`; a client's and a server's side, each with a device of its own.

    Everything is opened with the first use and belongs to the loop of that.
    """

    gives_up_alone = False
    lands_in_pieces = False

    def __init__(self, binding: Binding | Callable[[], Binding] | None = None) -> None:
        self._given = binding
        self.client: Side
        self.server: Side
        self._opened = False

    def open(self) -> None:
        if self._opened:
            return
        self._opened = True
        given = self._given or Fabric({"soft0": "10.77.0.1", "soft1": "10.77.0.2"}).binding
        binding: Binding = given() if callable(given) else given
        names = [device.name for device in binding.devices()]
        self.client = Side(binding, names[0])
        self.server = Side(binding, names[:2][-1])

    async def serve(self, service: Service, host: str, port: int) -> tcp.Server:
        self.open()
        if RDMA_CONNECT.number not in service.registrations:
            offer(service, lambda end, name: self.server.local)
        return await tcp.serve(service, host, port)

    async def connect(self, host: str, port: int, hello: Hello, *, timeout: float) -> Peer:
        self.open()
        said = msgspec.structs.replace(hello, transports=["rdma"])
        peer = await tcp.connect(host, port, said, timeout=timeout)
        try:
            assert peer.welcome.transport == "rdma"
            await upgrade(peer, self.client.local, timeout)
        except BaseException:
            await peer.close()
            raise
        return peer

    def held(self) -> dict[str, int]:
        if not self._opened:
            return {}
        found = {}
        for name, side in (("client", self.client), ("server", self.server)):
            counts = side.context.counts()
            found[f"{name} queue pairs"] = counts.queue_pairs
            found[f"{name} completion queues"] = counts.completion_queues
            found[f"{name} connections"] = side.connections
            # Memory that is kept for its next use goes by itself, some seconds later; what lasts goes with its owner.
            lasts = [entry for entry in side.memory._lasting.values() if entry.region is not None]
            found[f"{name} regions"] = side.memory.regions - len(side.memory._kept) - len(lasts)
        return found

    def close(self) -> None:
        if self._opened:
            self.client.close()
            self.server.close()


class DeviceTransport(RdmaTransport):
    """Over the devices of this machine: from the first to the second, if there is one."""

    def __init__(self) -> None:
        super().__init__(bindings.load)
