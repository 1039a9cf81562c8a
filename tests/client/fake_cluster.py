"""A cluster in this process, on a thread of its own: real records over real RPC, contents in dicts."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec
import uvloop

from fs_common.errors import EmberError
from fs_common.layout import Durability, Layout
from fs_common.limits import KIB
from fs_common.methods import Method
from fs_common.records.routing import (
    Chain,
    ChainTable,
    ChainTarget,
    NodeInfo,
    NodeState,
    PublicState,
    Routing,
)
from fs_common.transports import tcp
from tests.client.fake_metadata import FakeMetadata
from tests.client.fake_storage import FakeStorage

T = TypeVar("T")
CHUNK = 64 * KIB
NAME = "fake"


class FakeCluster:
    """`nodes` storage daemons, as many chains, each of `replicas` targets; one metadata server.

    Chain i has the nodes i, i + 1, ... in this order. Attributes may be changed by the test while the cluster runs:
    each is read once where it matters. What needs the servers' loop goes through `run`.
    """

    def __init__(self, nodes: int = 3, replicas: int = 3, stripe: int = 3) -> None:
        self.replicas = replicas
        self.version = 1
        self.ready = True
        self.chains: dict[int, Chain] = {}
        numbers = list(range(1, nodes + 1))
        for start in numbers:
            members = [numbers[(start - 1 + place) % nodes] for place in range(replicas)]
            targets = [ChainTarget(node * 100 + start, node, PublicState.SERVING) for node in members]
            self.chains[start] = Chain(start, 1, targets)
        self.states = dict.fromkeys(numbers, NodeState.UP)
        self.storage = {node: FakeStorage(NAME, node, self.chains) for node in numbers}
        for daemon in self.storage.values():
            daemon.others = self.storage
        layout = Layout(chunk_size=CHUNK, stripe=stripe, durability=Durability.MEMORY)
        self.metadata = FakeMetadata(NAME, layout, self.routing)
        self.metadata.cut = self._cut
        self.metadata.stored_length = self._stored_length
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fake cluster")
        self.ports: dict[int, int] = {}
        """Of storage nodes; kept when one is restarted."""

    def routing(self) -> Routing | None:
        if not self.ready:
            return None
        nodes = [NodeInfo(node, "127.0.0.1", port, self.states[node]) for node, port in self.ports.items()]
        table = ChainTable(1, 1, list(self.chains))
        return Routing(self.version, NAME, nodes, list(self.chains.values()), [table], self.replicas)

    def set_chain(self, chain: int, states: dict[int, PublicState]) -> None:
        """Change the states of a chain's targets by node, as the manager does: the chain's version grows."""
        old = self.chains[chain]
        targets = [
            msgspec.structs.replace(target, state=states.get(target.node, target.state)) for target in old.targets
        ]
        serving = [target for target in targets if target.state == PublicState.SERVING]
        others = [target for target in targets if target.state != PublicState.SERVING]
        self.chains[chain] = Chain(chain, old.version + 1, serving + others)
        self.version += 1
        self._loop.call_soon_threadsafe(self.metadata.routing_changed)

    @property
    def address(self) -> str:
        assert self.metadata.server is not None
        return f"127.0.0.1:{self.metadata.server.port}"

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run on the servers' loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def call(self, function: Callable[[], T]) -> T:
        """Call on the servers' loop."""

        async def run() -> T:
            return function()

        return self.run(run())

    def when_called(self, *names: str) -> threading.Event:
        """Set when one of these metadata calls arrives, before it is answered."""
        called = threading.Event()
        before = self.metadata.fault

        def look(method: Method) -> EmberError | None:
            if method.name in names:
                called.set()
            return before(method)

        self.metadata.fault = look
        return called

    def after(self, event: threading.Event, action: Callable[[], object]) -> threading.Thread:
        """Do something once an event has come; the thread to join."""

        def wait_and_act() -> None:
            assert event.wait(30)
            action()

        thread = threading.Thread(target=wait_and_act)
        thread.start()
        return thread

    def collect(self, inode: int, first: int = 0) -> None:
        """A removed file's chunks go, from this one on."""

        def go() -> None:
            self.metadata.collected.add(inode)
            for daemon in self.storage.values():
                for key in [key for key in daemon.chunks if key[1] == inode and key[2] >= first]:
                    del daemon.chunks[key]

        self.call(go)

    def stop_node(self, node: int) -> None:
        """The daemon dies: connections break, its port refuses."""
        server = self.storage[node].server
        if server is not None:
            self.storage[node].server = None
            self.run(server.close(grace_s=0))

    def start_node(self, node: int) -> None:
        self.run(self._serve(node))

    def power_cut(self, *nodes: int) -> None:
        """These storage nodes start again at once; without any named, all machines. What was acknowledged and not
        synced is gone, but for what other nodes have."""

        def cut() -> None:
            if not nodes:
                self.metadata.power_cut()
            for node in nodes or self.storage:
                self.storage[node].power_cut()
            for node in nodes:
                for other in self.storage.keys() - set(nodes):
                    self.storage[node].mend(self.storage[other])

        self.call(cut)

    async def _serve(self, node: int) -> None:
        daemon = self.storage[node]
        daemon.server = await tcp.serve(daemon.service, "127.0.0.1", self.ports.get(node, 0))
        self.ports[node] = daemon.server.port

    async def _start(self) -> None:
        for node in self.storage:
            await self._serve(node)
        self.metadata.server = await tcp.serve(self.metadata.service, "127.0.0.1", 0)

    async def _stop(self) -> None:
        for daemon in self.storage.values():
            if daemon.gate is not None:
                daemon.gate.set()
            if daemon.server is not None:
                await daemon.server.close(grace_s=0)
        assert self.metadata.server is not None
        await self.metadata.server.close(grace_s=0)

    def _cut(self, inode: int, length: int, chunk_size: int) -> None:
        for daemon in self.storage.values():
            daemon.cut(inode, length, chunk_size)

    def _stored_length(self, inode: int, chunk_size: int) -> int:
        return max(daemon.length(inode, chunk_size) for daemon in self.storage.values())

    @contextmanager
    def running(self) -> Iterator["FakeCluster"]:
        self._thread.start()
        try:
            self.run(self._start())
            yield self
            self.run(self._stop())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
