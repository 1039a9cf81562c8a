"""What the manager's tests share: a configuration, a clock that is set, nodes that say something."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fs_common.records.routing import LocalState, NodeState, Routing
from fs_meta.kv.interface import KeyValueStore
from fs_meta.manager.chains import Report
from fs_meta.manager.manager import Manager, NodeStream
from fs_meta.manager.membership import Beat, Identity, TargetReport


@dataclass(frozen=True)
class Config:
    """A `ManagerConfig` that hardly ever ticks by itself."""

    cluster: str = "test"
    bind: str = "127.0.0.1"
    grpc_port: int = 0
    storage_nodes: int = 3
    replicas: int = 3
    heartbeat_interval_ms: int = 1_000_000
    lease_ms: int = 8_000
    failure_ms: int = 10_000
    opening_ms: int = 10_000
    targets_per_node: int = 0
    moves_per_node: int = 2
    moves_at_once: int = 64
    replace_lost_after_ms: int = 0


LIVELY = Config(heartbeat_interval_ms=40, lease_ms=8_000, failure_ms=10_000)
"""For real streams and real ports: nodes are looked at each 10 ms."""


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


class Ports:
    """Which data ports refuse connections, when the manager looks."""

    def __init__(self) -> None:
        self.refusing: set[int] = set()
        self.looked: list[int] = []

    async def refuses(self, host: str, port: int) -> bool:
        self.looked.append(port)
        await asyncio.sleep(0)
        return port in self.refusing


def identity(node: int, incarnation: int = 0) -> Identity:
    return Identity(node, "127.0.0.1", 9700 + node, "0.1.0", incarnation or 1000 + node)


def beat(used_bytes: int = 10) -> Beat:
    return Beat(1000, used_bytes, {101: TargetReport(Report(LocalState.UPTODATE, 1), 5)}, 0)


def states(routing: Routing) -> dict[int, NodeState]:
    return {node.node: node.state for node in routing.nodes}


class Bench:
    """A manager without its gRPC service."""

    def __init__(self, kv: KeyValueStore, config: Config | None = None) -> None:
        self.kv = kv
        self.clock = Clock()
        self.ports = Ports()
        self.manager = Manager(kv, config or Config(), self.clock, self.ports.refuses)

    async def join(self, node: int, incarnation: int = 0) -> NodeStream:
        stream = self.manager.open_stream(self.manager.config.cluster, identity(node, incarnation))
        await stream.heartbeat(beat())
        return stream

    async def use(self, scenario: Callable[["Bench"], Awaitable[None]]) -> None:
        await self.manager.start()
        try:
            await scenario(self)
        finally:
            await self.manager.close()
