"""A metadata service with a manager, on a loop of a thread of its own, and the HTTP application in front of it.

Storage daemons are real as far as they are connected to: they answer what HTTP asks of them. What they say to the
manager is said by `tests.manager.test_growth.Node`, on a clock that tests set.
"""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx
import uvloop

from fs_common import methods
from fs_common.http_server import HttpServer, LoopBridge
from fs_common.records.cluster_config import PushedConfig
from fs_common.records.control import GetControlReply
from fs_common.records.routing import Routing
from fs_common.records.scrubbing import ScrubReply, ScrubStatus
from fs_common.records.storage import SpaceInfo, SpaceInfoReply, TargetTrouble
from fs_common.rpc import Call, Handler, Reply, Service
from fs_common.settings import MOUNT
from fs_common.transports import tcp
from fs_meta import server
from fs_meta.config import MetaConfig
from fs_meta.format import prepare_store
from fs_meta.http.app import make_app
from fs_meta.http.backend import Backend
from fs_meta.kv.memory_engine import MemoryStore
from fs_meta.manager.manager import Manager
from fs_meta.users.users import Users
from tests.manager.cluster import Bench, Config
from tests.manager.test_growth import Cluster, Node

T = TypeVar("T")
TIMEOUT_S = 30.0


class Daemon:
    """What a storage daemon answers."""

    def __init__(self, node: int) -> None:
        self.node = node
        self.troubles: list[TargetTrouble] = []
        self.scrubs: list[Any] = []
        self.silent: asyncio.Event | None = None
        """It says nothing before it is set."""
        self._server: tcp.Server | None = None

    @property
    def port(self) -> int:
        assert self._server is not None
        return self._server.port

    async def start(self) -> None:
        service = Service("storage", "test", self.node)
        service.register(methods.SPACE_INFO, lambda _: Reply(SpaceInfoReply(1000, 990, [], self.troubles)))
        service.register(methods.SCRUB, self._scrub)
        slow = service.registrations[methods.SLOW_OPERATIONS.number]
        slow.handler = self._unless_silent(slow.handler)
        service.slow_operations.note("read_chunks", self.node * 10**9, trace=7)
        self._server = await tcp.serve(service, "127.0.0.1", 0)

    async def close(self) -> None:
        if self._server is not None:
            await self._server.close(0)

    def _unless_silent(self, handler: Handler) -> Handler:
        async def handle(call: Call) -> Reply:
            if self.silent is not None:
                await self.silent.wait()
            reply = handler(call)
            return await reply if isinstance(reply, Awaitable) else reply

        return handle

    def _scrub(self, call: Call) -> Reply:
        self.scrubs.append(call.request)
        return Reply(ScrubReply([ScrubStatus(100 * self.node + 1, 1, 1, False, 10.0, 20.0, 5, 5, 50, 0, [], [])], 30.0))


class Held:
    """A manager as the metadata server has it: whoever made it closes it."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    @property
    def routing(self) -> Routing:
        return self._manager.routing

    def subscribe(self, callback: Callable[[Routing], None]) -> None:
        self._manager.subscribe(callback)

    def where(self) -> GetControlReply:
        return GetControlReply(0, True)

    def mount_config(self) -> PushedConfig:
        return self._manager.configuration().pushed(MOUNT)

    async def close(self) -> None:
        pass


class World:
    """`do` runs something on the service's loop; `client()` asks over HTTP."""

    def __init__(self, config: Config, *, security: bool, bridge_timeout_s: float) -> None:
        self._config = config
        self._security = security
        self._bridge_timeout_s = bridge_timeout_s
        self.tokens: dict[str, str] = {}
        """With security: the first ones, by the name of their file."""
        self.daemons: dict[int, Daemon] = {}
        self.loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="service")

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def do(self, make: Callable[[], Awaitable[T] | T]) -> T:
        async def there() -> T:
            made = make()
            return await made if isinstance(made, Awaitable) else made

        return asyncio.run_coroutine_threadsafe(there(), self.loop).result(TIMEOUT_S)

    def open(self) -> None:
        self._thread.start()
        self.do(self._open)

    async def _open(self) -> None:
        kv = MemoryStore()
        self.bench = Bench(kv, self._config)
        config = MetaConfig(cluster="test", directory="/nowhere", store="memory://", port=0, stripe=2)
        await prepare_store(kv, "test", config.root_layout, 0, 0, 1)
        await self.bench.manager.start()
        users = Users(kv, time.time_ns, enabled=self._security)
        await users.load()
        if self._security:
            await users.begin(self.tokens.update)
        self.server = await server.start(config, kv, Held(self.bench.manager), users=users)
        self.cluster = Cluster(self.bench)
        self.app = make_app(
            Backend(
                config,
                LoopBridge(self.loop, timeout_s=self._bridge_timeout_s),
                self.bench.manager,
                self.cluster.growth,
                self.server,
            )
        )

    def close(self) -> None:
        self.do(self._close)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    async def _close(self) -> None:
        await self.bench.manager.close()
        await self.server.close(0)
        for daemon in self.daemons.values():
            await daemon.close()
        await asyncio.sleep(0)
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        if left:
            _, left = await asyncio.wait(left, timeout=5.0)
        assert not left, f"tasks left behind: {left}"

    def join(self, *nodes: int) -> None:
        """Storage nodes come; the first chains are made when there are as many as the configuration says."""
        self.do(lambda: self._join(nodes))

    async def _join(self, nodes: tuple[int, ...]) -> None:
        for node in nodes:
            daemon = self.daemons[node] = Daemon(node)
            await daemon.start()
            self.cluster.nodes[node] = Node(self.bench, node, daemon.port)
            self.cluster.nodes[node].start()
        await self.cluster.settle(3)

    async def connect(self) -> None:
        """To all daemons, so that no test has to: connections stay open as long as the world."""
        for daemon in self.daemons.values():
            await self.server.pool.call(("127.0.0.1", daemon.port), methods.SPACE_INFO, SpaceInfo(), timeout=5)

    def settle(self, rounds: int = 40) -> None:
        self.do(lambda: self.cluster.settle(rounds))

    def die(self, node: int) -> None:
        """Its process is gone, and the manager sees it."""

        async def gone() -> None:
            self.cluster.nodes[node].die()
            await self.daemons[node].close()
            await self.cluster.settle(3)

        self.do(gone)

    def ask(self, method: str, path: str, json: Any = None, token: str = "", **headers: str) -> httpx.Response:
        """One request, on a loop of its own in this thread."""
        return asyncio.run(self.asking(method, path, json, token, **headers))

    async def asking(self, method: str, path: str, json: Any = None, token: str = "", **headers: str) -> httpx.Response:
        if token:
            headers["authorization"] = f"Bearer {token}"
        async with self.client() as client:
            return await client.request(method, path, json=json, headers=headers)

    def get(self, path: str, **more: Any) -> Any:
        """The value of an answer that has to be a success."""
        answer = self.ask("GET", path, **more)
        assert answer.is_success, answer.text
        return answer.json()

    @contextmanager
    def served(self) -> Iterator[str]:
        """By the server of daemons, on a port: its address."""

        async def start() -> HttpServer:
            http = HttpServer(self.app, "127.0.0.1", 0)
            http.start()
            return http

        http = self.do(start)
        try:
            yield f"http://127.0.0.1:{http.port}"
        finally:
            self.do(http.close)

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://127.0.0.1:9702/api/v1")


@contextmanager
def world(
    nodes: int = 3, *, security: bool = False, bridge_timeout_s: float = 30.0, **settings: int
) -> Iterator[World]:
    """A cluster of `nodes` that serve."""
    made = World(Config(**settings), security=security, bridge_timeout_s=bridge_timeout_s)  # type: ignore[arg-type]
    made.open()
    try:
        made.join(*range(1, nodes + 1))
        made.do(made.connect)
        yield made
    finally:
        made.close()
