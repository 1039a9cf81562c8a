"""One metadata process, put together: store, manager, namespace, RPC server, collector, upkeep.

Order of start: store (opened and checked by the caller), manager, namespace, RPC; a client that can connect is served.
Order of stop: waits for locks end, then RPC (calls in flight finish), then the tasks, then the manager, then
the store, so that nothing runs on something that is closed.

Tasks: the collector, the pruner of dead clients, the upkeep and the samples of the last hour, owned here and waited for
in `close`.
Page: docs/concurrency/meta.md.
"""

import asyncio
import itertools
import logging
import os
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import msgspec

from fs_common import methods
from fs_common.checks import InvariantViolation
from fs_common.endless import keep
from fs_common.errors import EmberError
from fs_common.peers import Address, PeerPool
from fs_common.records.cluster_config import PushedConfig
from fs_common.records.control import GetControlReply
from fs_common.records.routing import Routing
from fs_common.records.session import PROTOCOL_VERSION, Hello, Welcome
from fs_common.rpc import Reply
from fs_common.security.identity import META, Identity
from fs_common.slow_operations import SlowOperations
from fs_common.telemetry import set_log_level
from fs_common.tls.files import TlsFiles
from fs_common.transports import tcp
from fs_meta.chain_allocator import ChainAllocator
from fs_meta.chunks import ChunkClient
from fs_meta.clients import Clients
from fs_meta.config import MetaConfig
from fs_meta.following import FollowedStore, Following
from fs_meta.forget import forget_answers
from fs_meta.gc import Collector
from fs_meta.http.observing import Observer
from fs_meta.inode_count import InodeCount
from fs_meta.inode_ids import InodeIds
from fs_meta.kv.interface import KeyValueStore
from fs_meta.ops.context import Context
from fs_meta.prune import Pruner
from fs_meta.routing_news import RoutingNews
from fs_meta.scrubs import Scrubs
from fs_meta.service import OPERATIONS, make_service
from fs_meta.service_time import ServiceTime
from fs_meta.users import permits
from fs_meta.users.admission import guard
from fs_meta.users.users import Users
from fs_meta.users.vouching import Vouching

_log = logging.getLogger(__name__)

_MS = 1_000_000
UPKEEP_INTERVAL_S = 5.0
"""Pause between two rounds of upkeep: what a crash may lose of the inode count, and how old answers get beyond their
time."""
TIME_KEPT_EVERY = 6
"""Rounds after which the service's time is stored: what a crash may lose of it, and how often an idle disk wakes."""


CLIENTS_INTERVAL_S = 1.0
"""Pause between two looks for dead clients: how much later than their time they are found."""


LOCK_LEASE = 2 / 3
"""Of the time that a client without a connection keeps its locks: how long it counts on them. What it has sent under a
lock before arrives in the third that is left, or never: by default 10 s, after which bytes that a peer has not
acknowledged are given up (`fs_common.transports.tcp`)."""


class Manager(Protocol):
    """What is used of the cluster manager in this process."""

    @property
    def routing(self) -> Routing | None:
        """The newest routing, replaced as a whole when it changes."""

    def subscribe(self, callback: Callable[[Routing], None]) -> None:
        """Call `callback` at each new version, on the loop."""

    def where(self) -> GetControlReply:
        """Where the control plane is."""

    def mount_config(self) -> PushedConfig:
        """What the cluster configures for mounts. Raises NOT_MANAGER."""

    def reconfigure(self, config: MetaConfig) -> None:
        """What of it takes effect at once does."""

    async def close(self) -> None: ...


class _OwnIntroduction:
    """What storage daemons hear of this process: a pass that it makes itself, under the newest key that all have."""

    def __init__(self, hello: Hello, vouching: Vouching) -> None:
        self._hello = hello
        self._vouching = vouching
        self._identity = Identity(META, hello.client)

    def hello(self, address: Address) -> Hello:
        if not self._vouching.version:
            return self._hello
        return msgspec.structs.replace(self._hello, shown_pass=self._vouching.give(self._identity))

    def greeted(self, address: Address, welcome: Welcome) -> None:
        pass

    async def renew(self, address: Address) -> bool:
        return False


class MetaServer:
    """A running metadata server. Made by `start`."""

    def __init__(
        self,
        config: MetaConfig,
        kv: KeyValueStore,
        manager: Manager,
        context: Context,
        collector: Collector,
        pruner: Pruner,
        chunks: ChunkClient,
        pool: PeerPool,
        server: tcp.Server,
        following: Following,
        news: RoutingNews,
        observer: Observer,
        users: Users,
        clients: Clients,
        slow_operations: SlowOperations,
    ) -> None:
        self.context = context
        self.observer = observer
        self.users = users
        self.clients = clients
        self.pool = pool
        """Connections to the storage daemons."""
        self.scrubs = Scrubs(pool, lambda: manager.routing)
        self.host = server.host
        self.port = server.port
        self.failed = asyncio.Event()
        """Set when the store has stopped working, or the state of this process is impossible: it should end and be
        started again."""
        self._config = config
        self._kv = kv
        self._manager = manager
        self._collector = collector
        self._chunks = chunks
        self.slow_operations = slow_operations
        self.data_plane = server
        self.following = following
        self._news = news
        self._rotate_every_ns = config.key_rotation_h * 3_600_000 * _MS
        self._stop = asyncio.Event()
        look_s = min(CLIENTS_INTERVAL_S, config.client_timeout_ms / 4000)
        self._tasks = [
            self._kept(lambda: collector.run(self._stop), "meta: collector"),
            self._kept(lambda: pruner.run(self._stop, look_s), "meta: clients"),
            self._kept(self._upkeep, "meta: upkeep"),
            keep(lambda: observer.run(self._stop), "meta: samples", end_on=(), stop=self._stop),
        ]

    def apply(self, config: MetaConfig) -> None:
        """The one place where a changed configuration takes effect: every key of `MetaSettings.LIVE`."""
        self._collector.interval_s = config.gc_interval_ms / 1000
        self._collector.retry_ns = config.gc_retry_ms * _MS
        self._chunks.timeout_s = config.storage_timeout_ms / 1000
        self._manager.reconfigure(config)
        self.slow_operations.set_threshold(config.slow_operation_ms)
        set_log_level(config.log_level)

    def _kept(self, run: Callable[[], Coroutine[Any, Any, None]], name: str) -> asyncio.Task[None]:
        return keep(run, name, end_on=(InvariantViolation,), end=lambda _: self.failed.set(), stop=self._stop)

    async def close(self, grace_s: float = 5.0) -> None:
        """Stop serving, finish what is in flight, release everything, the store included."""
        self.context.lock_waits.close()
        self.context.lock_questions.close()
        self.following.end()
        self._news.end()
        await self.data_plane.close(grace_s)
        self._stop.set()
        await asyncio.gather(*self._tasks)
        await self.pool.close()
        await self.context.inode_ids.close()
        try:
            await self.context.inode_count.flush()
            await self.context.service_time.keep()
        except EmberError as error:
            _log.warning("the count of inodes or the service's time could not be stored: %s", error)
        await self._manager.close()
        try:
            await self.following.close()
        except EmberError as error:
            _log.warning("the next start waits for followers that are gone: %s", error)
        await self._kv.close()

    async def _keep_users(self) -> None:
        """What has expired goes; passes get a new key now and then."""
        users, now_ns = self.users, self.context.service_time.now_ns()
        if users.enabled:
            await users.expire()
            vouching = users.vouching
            if now_ns - vouching.record.rotated_ns >= self._rotate_every_ns and vouching.spread:
                await users.rotate_keys(now_ns)

    async def _upkeep(self) -> None:
        """Store the inode count, forget old answers and followers that are gone, every `UPKEEP_INTERVAL_S`; store the
        service's time now and then."""
        for number in itertools.count(1):
            self.following.forget()
            try:
                await self.context.inode_count.flush()
                if number % TIME_KEPT_EVERY == 0:
                    await self.context.service_time.keep()
                keep_ns = self._config.request_keep_ms * _MS
                await forget_answers(self._kv, max(self.context.service_time.now_ns() - keep_ns, 0))
                await self._keep_users()
            except EmberError as error:
                _log.error("upkeep failed: %s", error)
            if getattr(self._kv, "failure", None) is not None:
                self.failed.set()
            try:
                await asyncio.wait_for(self._stop.wait(), UPKEEP_INTERVAL_S)
                return
            except TimeoutError:
                continue


async def start(
    config: MetaConfig, kv: KeyValueStore, manager: Manager, tls: TlsFiles | None = None, users: Users | None = None
) -> MetaServer:
    """Serve the namespace in `kv`, which has been prepared for `config.cluster`. Raises `OSError`: the port is taken.

    `users`: loaded; None: security is off.

    The server owns `kv` and `manager` from here on; on an error they stay the caller's.
    """
    client = os.urandom(16)
    if users is None:
        users = Users(kv, time.time_ns, enabled=False)
    hello = Hello([PROTOCOL_VERSION], META, client, config.cluster, host=config.host, pid=os.getpid())
    pool = PeerPool(_OwnIntroduction(hello, users.vouching) if users.enabled else hello, tls=tls)

    def routing() -> Routing | None:
        return manager.routing

    chunks = ChunkClient(pool, routing, client, timeout_s=config.storage_timeout_ms / 1000)
    manager.subscribe(chunks.routing_changed)
    following = Following(kv, time.monotonic)
    await following.begin()
    service_time = ServiceTime(kv)
    await service_time.begin(config.request_keep_ms * _MS, config.gc_delay_ms * _MS)
    context = Context(
        kv=FollowedStore(kv, following),
        inode_ids=InodeIds(kv),
        inode_count=InodeCount(kv),
        allocator=ChainAllocator(routing),
        chunks=chunks,
        routing=routing,
        now_ns=time.time_ns,
        service_time=service_time,
        gc_delay_ns=config.gc_delay_ms * _MS,
        lock_lease_ms=int(config.client_timeout_ms * LOCK_LEASE),
    )
    await context.inode_count.flush()
    clients = Clients(config.client_timeout_ms / 1000)
    news = RoutingNews(routing)
    manager.subscribe(news.changed)
    if manager.routing is not None:
        news.changed(manager.routing)
    service = make_service(context, config.cluster, clients, following, news)
    service.slow_operations = SlowOperations(config.slow_operation_ms)
    service.register(methods.GET_CONTROL, lambda call: Reply(manager.where()))
    service.register(methods.GET_MOUNT_CONFIG, lambda call: Reply(manager.mount_config()))
    permits.register(service, kv, users)
    guard(service, users)
    collector = Collector(
        context,
        retry_ns=config.gc_retry_ms * _MS,
        interval_s=config.gc_interval_ms / 1000,
        counters=service.counters,
    )
    pruner = Pruner(context, clients, asyncio.get_running_loop().time, counters=service.counters)
    observer = Observer(
        routing=routing,
        pool=pool,
        stats=service.stats,
        slow=lambda: service.slow_operations.snapshot(),
        clients=clients.listed,
        operations=OPERATIONS,
        clock=time.monotonic,
    )
    manager.subscribe(observer.tell)
    try:
        server = await tcp.serve(service, config.bind, config.port, tls=tls)
    except BaseException:
        await pool.close()
        raise
    return MetaServer(
        config,
        kv,
        manager,
        context,
        collector,
        pruner,
        chunks,
        pool,
        server,
        following,
        news,
        observer,
        users,
        clients,
        service.slow_operations,
    )
