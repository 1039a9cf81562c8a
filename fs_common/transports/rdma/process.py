"""The RDMA of a process: its binding, its open devices, and which of them each connection goes over.

One for each process and event loop, made by `transports.payload` when the first connection may need it. A device is
opened with its first connection and stays open; what failed lately, and how many connections each port has, is kept in
`devices.Choice`.

Invariant: a device's context, memory and slabs outlive all connections over it: `close` comes after theirs.

Concurrency: docs/concurrency/rdma.md.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial

from fs_common.errors import Code, EmberError
from fs_common.records.rdma import QueuePairEnd
from fs_common.transports.choice import RDMA, TransportChoice
from fs_common.transports.rdma.devices import Choice, Way, usable, wanted
from fs_common.transports.rdma.endpoint import Traffic
from fs_common.transports.rdma.locked_memory import raise_limit
from fs_common.transports.rdma.memory import MemoryRefused, RegisteredMemory
from fs_common.transports.rdma.setup import Local, other_gid
from fs_common.transports.rdma.slabs import SlabPool
from fs_common.transports.rdma.verbs import AsyncEvent, Binding, Context, Device, VerbsError

logger = logging.getLogger(__name__)

REFUSED_S = 60.0
"""So long no connection is over RDMA after memory could not be registered: its limit will not be another one soon."""
DEVICES_AGE_S = 60.0
"""How old what is known of devices may be that are not in use: asking opens them, some milliseconds each. One in use
tells by itself of a link that goes down, and is asked again after every failure."""


class _Open:
    """A device in use."""

    def __init__(
        self, context: Context, loop: asyncio.AbstractEventLoop, refused: Callable[[MemoryRefused], None]
    ) -> None:
        self.context = context
        self.memory = RegisteredMemory(context, loop, context.name, refused)
        self.traffic = Traffic()


class Rdma:
    def __init__(self, binding: Binding, choice: TransportChoice, loop: asyncio.AbstractEventLoop) -> None:
        self.binding = binding
        self.choice = Choice(wanted(choice.rdma_devices, choice.rdma_subnets))
        self._demanded = choice.transport == RDMA
        self._refused_until_s = float("-inf")
        self._refusal = ""
        raise_limit()
        self._loop = loop
        self._slabs = SlabPool()
        self._open: dict[str, _Open] = {}
        self._failed: list[_Open] = []
        """Devices that are of no more use; their last connections may still have to end."""
        self._devices: list[Device] = []
        self._looked_s = float("-inf")
        """When all `_devices` were asked for."""
        self._news = False
        """Those in use may be other than they were."""

    # What there is

    def devices(self) -> list[Device]:
        now = self._loop.time()
        if now - self._looked_s >= DEVICES_AGE_S:
            self._devices = self.binding.devices()
            self._looked_s = now
        elif self._news:
            self._devices = [self._as_it_is(device) for device in self._devices]
        self._news = False
        return self._devices

    def _as_it_is(self, device: Device) -> Device:
        opened = self._open.get(device.name)
        if opened is None:
            return device
        try:
            return opened.context.device()
        except VerbsError as error:
            logger.warning("RDMA device %s: %s", device.name, error)
            return device._replace(ports=())

    def obstacles(self) -> list[str]:
        """Why nothing is usable; empty: something is."""
        found = usable(self.devices(), self.choice.wanted)
        return [] if found.ways else found.obstacles

    # Connections

    def to_server(self, server: str) -> list[Way]:
        """Ways for a connection to `server`, the best first."""
        if self.leaves():
            return []
        return self.choice.to_server(self.devices(), server, self._loop.time())

    def to_caller(self, end: QueuePairEnd, caller: str) -> Local:
        """This side of a connection that `caller` asks for. Raises `EmberError`, UNREACHABLE."""
        if self.leaves():
            raise EmberError(Code.UNREACHABLE, self._refusal)
        gid = other_gid(end)
        way = self.choice.to_caller(self.devices(), gid, self._loop.time())
        if way is None:
            obstacles = self.obstacles()
            reason = "; ".join(obstacles) if obstacles else "none of this server's RDMA devices is in its network"
            raise EmberError(Code.UNREACHABLE, f"{end.device} ({gid.ip}) is not reached: {reason}")
        return self.local(way)

    def local(self, way: Way) -> Local:
        """This side of a connection over `way`. Raises `EmberError`, UNREACHABLE."""
        device = next((device for device in self.devices() if device.name == way.device), None)
        try:
            opened = self._open.get(way.device) or self._open_device(way.device)
        except VerbsError as error:
            raise EmberError(Code.UNREACHABLE, f"RDMA device {way.device} cannot be opened: {error}") from None
        return Local(
            opened.context,
            opened.memory,
            self._slabs,
            opened.traffic,
            way.port,
            way.gid,
            way.mtu_bytes,
            way.lid,
            device.reads_max if device is not None else 1,
            partial(self.choice.opened, way),
            partial(self.choice.closed, way),
            partial(self.failed, way),
            self.leaves,
        )

    # Memory that cannot be registered

    def leaves(self) -> bool:
        """Connections are over TCP for now: the memory that they need cannot be registered."""
        return self._loop.time() < self._refused_until_s

    def _on_refused(self, error: MemoryRefused) -> None:
        if not self._demanded and not self.leaves():
            self._refusal = error.message
            self._refused_until_s = self._loop.time() + REFUSED_S
            logger.warning("data goes over TCP for %d s, as memory is needed for RDMA: %s", REFUSED_S, error.message)

    def failed(self, way: Way) -> None:
        """A connection over it broke."""
        self.choice.failed(way, self._loop.time())
        self._news = True

    def unreached(self, way: Way, server: str) -> None:
        """No connection to `server` could be made over it."""
        self.choice.unreached(way, server, self._loop.time())
        self._news = True

    # Devices

    def _open_device(self, name: str) -> _Open:
        opened = self._open[name] = _Open(self.binding.open(name), self._loop, self._on_refused)
        self._loop.add_reader(opened.context.async_fileno(), self._on_news, opened)
        logger.info("RDMA device %s is open (%s)", name, self.binding.name)
        return opened

    def _on_news(self, opened: _Open) -> None:
        try:
            news = opened.context.take_async_events()
        except VerbsError as error:
            logger.warning("RDMA device %s: %s", opened.context.name, error)
            news = [AsyncEvent.DEVICE_FAILED]
        for event in news:
            if event in (AsyncEvent.PORT_DOWN, AsyncEvent.DEVICE_FAILED):
                logger.warning("RDMA device %s: %s", opened.context.name, event.value)
            elif event is not AsyncEvent.OTHER:
                logger.info("RDMA device %s: %s", opened.context.name, event.value)
        self._news = True
        if AsyncEvent.DEVICE_FAILED in news and self._open.get(opened.context.name) is opened:
            self._loop.remove_reader(opened.context.async_fileno())
            del self._open[opened.context.name]
            self._failed.append(opened)

    def close(self) -> None:
        """All connections over its devices are over. Idempotent."""
        for opened in self._open.values():
            self._loop.remove_reader(opened.context.async_fileno())
        for opened in (*self._open.values(), *self._failed):
            opened.memory.close()
            opened.context.close()
        self._open.clear()
        self._failed.clear()
        self._slabs.close()

    # Figures

    @property
    def opened(self) -> Sequence[_Open]:
        return tuple(self._open.values())

    def stats(self) -> dict[str, int]:
        figures = dict(self._slabs.stats())
        figures["rdma_queue_pairs"] = sum(self.choice.connections.values())
        for opened in self._open.values():
            for part in (opened.traffic.stats(), opened.memory.stats()):
                for name, value in part.items():
                    figures[name] = figures.get(name, 0) + value
        return figures
