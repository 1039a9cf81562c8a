"""The service over real sockets: every method, storage daemons that are asked for chunks, start and stop."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from fs_common import methods
from fs_common.errors import Code, EmberError
from fs_common.layout import stripe_chains
from fs_common.records import meta
from fs_common.records.cluster_config import PushedConfig
from fs_common.records.control import GetControlReply
from fs_common.records.locks import GetLock, Lock, ReleaseLocks
from fs_common.records.routing import GetRouting, GetRoutingReply, Routing
from fs_common.records.session import Empty, Hello
from fs_common.routing_changes import changed
from fs_common.rpc import Peer
from fs_common.transports import tcp
from fs_meta import fsck, server
from fs_meta.config import MetaConfig
from fs_meta.format import prepare_store
from fs_meta.kv.open import open_store
from fs_meta.service import OPERATIONS
from tests.meta.fake_storage import FakeStorage, routing_of
from tests.meta.world import CLIENT, ROOT, dump, new_request
from tests.support import run


class FakeManager:
    def __init__(self, routing: Routing | None) -> None:
        self.routing = routing
        self.closed = False
        self.subscribers: list[Callable[[Routing], None]] = []

    def subscribe(self, callback: Callable[[Routing], None]) -> None:
        self.subscribers.append(callback)

    def publish(self, routing: Routing) -> None:
        self.routing = routing
        for callback in self.subscribers:
            callback(routing)

    def where(self) -> GetControlReply:
        return GetControlReply(9701, True)

    def mount_config(self) -> PushedConfig:
        return PushedConfig(0, "")

    async def close(self) -> None:
        self.closed = True


class Cluster:
    def __init__(
        self, peer: Peer, running: server.MetaServer, manager: FakeManager, daemons: list[FakeStorage]
    ) -> None:
        self.peer = peer
        self.running = running
        self.manager = manager
        self.daemons = daemons

    async def call(self, method: methods.Method, request: msgspec.Struct):  # type: ignore[no-untyped-def]
        return await self.peer.call(method, request, timeout=10)

    def chunks(self, inode: int) -> dict[int, int]:
        found: dict[int, int] = {}
        for daemon in self.daemons:
            found |= daemon.of(inode)
        return found


@asynccontextmanager
async def cluster(directory: Path, gc_delay_ms: int = 300_000, **settings: int) -> AsyncIterator[Cluster]:
    daemons = [FakeStorage(node) for node in (1, 2)]
    for daemon in daemons:
        await daemon.start()
    config = MetaConfig(
        cluster="test",
        directory=str(directory),
        port=0,
        stripe=2,
        chunk_size_bytes=64 * 1024,
        gc_delay_ms=gc_delay_ms,
        gc_interval_ms=1,
        **settings,
    )
    kv = open_store(config.store_url)
    await prepare_store(kv, "test", config.root_layout, 0, 0, 1)
    manager = FakeManager(routing_of(daemons))
    running = await server.start(config, kv, manager)
    peer = await tcp.connect("127.0.0.1", running.port, Hello([1], "client", CLIENT, "test"), timeout=5)
    yield Cluster(peer, running, manager, daemons)
    await peer.close()
    await running.close(0)
    assert manager.closed
    for daemon in daemons:
        await daemon.close()
    again = open_store(config.store_url)
    findings = fsck.check(await dump(again))
    await again.close()
    assert not findings, findings


def test_a_files_life_through_every_method(tmp_path: Path) -> None:
    async def body() -> None:
        async with cluster(tmp_path) as c:
            used: set[methods.Method] = set()

            async def call(method: methods.Method, request: msgspec.Struct):  # type: ignore[no-untyped-def]
                used.add(method)
                reply = await c.call(method, request)
                assert type(reply) is method.response
                return reply

            d = (await call(methods.MKDIR, meta.Mkdir(ROOT, b"d", 0o755, new_request()))).attributes
            opened = await call(
                methods.CREATE, meta.Create(d.inode, b"f", 0o644, new_request(), write=True, client=CLIENT)
            )
            inode, session, layout = opened.attributes.inode, opened.session, opened.attributes.layout
            chains = stripe_chains(layout, [1, 2])
            for index, length in [(0, 64 * 1024), (1, 64 * 1024), (2, 10)]:
                chain = chains[index % 2]
                c.daemons[chain - 1].lengths[chain, inode, index] = length
            reply = await call(methods.FSYNC, meta.Fsync(inode, session, new_request(), 5))
            assert reply.attributes.length == 5
            reply = await call(methods.CLOSE, meta.Close(inode, session, new_request(), exact=True))
            assert reply.attributes.length == 2 * 64 * 1024 + 10
            reply = await call(methods.TRUNCATE, meta.Truncate(inode, 64 * 1024 + 3, new_request()))
            assert reply.attributes.length == 64 * 1024 + 3
            assert c.chunks(inode) == {0: 64 * 1024, 1: 3}
            await call(methods.LINK, meta.Link(ROOT, b"d/f", ROOT, b"g", new_request()))
            await call(methods.SYMLINK, meta.Symlink(ROOT, b"link", b"d/f", new_request()))
            assert (await call(methods.READLINK, meta.Readlink(ROOT, b"link"))).target == b"d/f"
            await call(methods.SET_ATTR, meta.SetAttr(ROOT, b"link", new_request(), mode=0o600))
            assert (await call(methods.STAT, meta.Stat(ROOT, b"link"))).attributes.mode == 0o600
            assert (await call(methods.LOOKUP, meta.Lookup(d.inode, b"f"))).attributes.links == 2
            batch = await call(methods.BATCH_STAT, meta.BatchStat(ROOT, [b"g", b"x"]))
            assert batch.attributes[0].inode == inode and batch.errors[0].index == 1
            await call(methods.OPEN, meta.Open(ROOT, b"g"))
            await call(methods.BATCH_CREATE, meta.BatchCreate(d.inode, [b"1", b"2"], 0o644, new_request()))
            page = await call(methods.READDIR, meta.Readdir(d.inode, with_attributes=True))
            assert [entry.name for entry in page.entries] == [b"1", b"2", b"f"]
            await call(methods.RENAME, meta.Rename(ROOT, b"d", ROOT, b"e", new_request()))
            assert (await call(methods.REAL_PATH, meta.RealPath(d.inode))).path == b"/e"
            await call(methods.MKNOD, meta.Mknod(ROOT, b"fifo", meta.FileType.FIFO, 0o600, new_request()))
            await call(methods.ACCESS, meta.Access(inode, 6))
            used_up = await call(methods.USAGE, meta.Usage(ROOT))
            assert (used_up.files, used_up.directories, used_up.symlinks, used_up.specials) == (3, 1, 1, 1)
            space = await call(methods.STATFS, meta.Statfs())
            assert (space.capacity_bytes, space.files) == (2 * 10**9, 7)
            await call(methods.CREATE_UNNAMED, meta.CreateUnnamed(ROOT, 0o600, new_request(), CLIENT))
            await call(methods.LOCK, Lock(inode, CLIENT, 1, 1, 2, new_request()))
            assert (await call(methods.GET_LOCK, GetLock(inode, CLIENT, 2, 1, 1))).type == 2
            await call(methods.RELEASE_LOCKS, ReleaseLocks(inode, CLIENT, 1, 1, new_request()))
            await call(methods.SET_XATTR, meta.SetXattr(inode, b"user.a", b"v", new_request()))
            assert (await call(methods.GET_XATTR, meta.GetXattr(inode, b"user.a"))).value == b"v"
            assert (await call(methods.LIST_XATTRS, meta.ListXattrs(inode))).names == [b"user.a"]
            await call(methods.REMOVE_XATTR, meta.RemoveXattr(inode, b"user.a", new_request()))
            await call(methods.UNLINK, meta.Unlink(ROOT, b"link", new_request()))
            await call(methods.MKDIR, meta.Mkdir(ROOT, b"empty", 0o755, new_request()))
            await call(methods.RMDIR, meta.Rmdir(ROOT, b"empty", new_request()))
            await call(methods.REMOVE_TREE, meta.RemoveTree(ROOT, b"e", new_request()))
            await call(methods.SYNC, meta.Sync())
            assert (await call(methods.KEPT, meta.Kept([inode, 999]))).for_ms == [300_000, -1]
            assert used == set(OPERATIONS)
            counters = (await c.call(methods.STATS, Empty())).counters
            assert counters["rpc_mkdir_calls"] == 2 and "inodes_in_use" in counters

    run(body())


def test_errors_and_replays_cross_the_wire(tmp_path: Path) -> None:
    async def body() -> None:
        async with cluster(tmp_path) as c:
            request = meta.Create(ROOT, b"f", 0o644, new_request(), write=True, client=CLIENT)
            first = await c.call(methods.CREATE, request)
            assert await c.call(methods.CREATE, request) == first
            with pytest.raises(EmberError) as caught:
                await c.call(methods.MKDIR, meta.Mkdir(ROOT, b"f", 0o755, new_request()))
            assert caught.value.code is Code.EXISTS and "b'f' exists in directory 1" in caught.value.message

    run(body())


def test_who_waits_for_routing_is_told_when_it_changes(tmp_path: Path) -> None:
    async def body() -> None:
        async with cluster(tmp_path) as c:
            waiting = [asyncio.ensure_future(c.call(methods.GET_ROUTING, GetRouting(1, 60_000))) for _ in range(3)]
            # Sent behind those on the same connection, and answered by what counts them.
            while (await c.call(methods.STATS, Empty())).counters["routing_waits"] < 3:
                pass
            assert not any(task.done() for task in waiting)
            c.manager.publish(routing_of(c.daemons, version=2))
            assert [reply.routing for reply in await asyncio.gather(*waiting)] == [c.manager.routing] * 3
            assert (await c.call(methods.GET_ROUTING, GetRouting(1, 60_000))).routing.version == 2, (
                "it is newer already"
            )
            assert (await c.call(methods.GET_ROUTING, GetRouting(2, 1))).routing is None, "its time is over"
            old = c.manager.routing
            assert old is not None
            chain = msgspec.structs.replace(old.chains[1], version=7, targets=[])
            new = msgspec.structs.replace(old, version=3, chains=[old.chains[0], chain, *old.chains[2:]])
            c.manager.publish(new)
            reply = await c.call(methods.GET_ROUTING, GetRouting(2, 60_000, partial=True))
            assert reply.based_on == 2 and reply.routing.chains == [chain] and not reply.routing.nodes
            assert changed(old, reply.routing) == new
            for asked in (GetRouting(2), GetRouting(99, partial=True)):
                assert await c.call(methods.GET_ROUTING, asked) == GetRoutingReply(new), "the whole"
            c.manager.publish(routing_of(c.daemons, version=2))
            last = asyncio.ensure_future(c.call(methods.GET_ROUTING, GetRouting(2, 60_000)))
            while not (await c.call(methods.STATS, Empty())).counters["routing_waits"]:
                pass
            c.running._news.end()
            assert (await last).routing is None, "a service that closes holds nobody back"
            assert (await c.call(methods.GET_ROUTING, GetRouting(2, 60_000))).routing is None

    run(body())


def test_routing_is_told_once_for_each_version(tmp_path: Path) -> None:
    async def body() -> None:
        async with cluster(tmp_path) as c:
            assert (await c.call(methods.GET_ROUTING, GetRouting())).routing == c.manager.routing
            assert (await c.call(methods.GET_ROUTING, GetRouting(1))).routing is None
            c.manager.routing = routing_of(c.daemons, version=2)
            assert (await c.call(methods.GET_ROUTING, GetRouting(1))).routing.version == 2
            c.manager.routing = Routing(0, "test", [], [], [])
            assert (await c.call(methods.GET_ROUTING, GetRouting())).routing.version == 0
            c.manager.routing = None
            assert (await c.call(methods.GET_ROUTING, GetRouting())).routing is None
            with pytest.raises(EmberError) as caught:
                await c.call(methods.CREATE, meta.Create(ROOT, b"f", 0o644, new_request()))
            assert caught.value.code is Code.CLUSTER_NOT_READY

    run(body())


def test_the_collector_runs_and_reaches_storage(tmp_path: Path) -> None:
    async def body() -> None:
        async with cluster(tmp_path, gc_delay_ms=0) as c:
            reply = await c.call(
                methods.CREATE, meta.Create(ROOT, b"f", 0o644, new_request(), write=True, client=CLIENT)
            )
            inode = reply.attributes.inode
            await c.call(methods.CLOSE, meta.Close(inode, reply.session, new_request(), 5))
            c.daemons[0].lengths[1, inode, 0] = 5
            c.daemons[1].lengths[2, inode, 1] = 5
            await c.call(methods.UNLINK, meta.Unlink(ROOT, b"f", new_request()))

            async def gone() -> None:
                while True:
                    try:
                        await c.call(methods.STAT, meta.Stat(inode, b""))
                    except EmberError as error:
                        assert error.code is Code.STALE
                        return

            await asyncio.wait_for(gone(), 20)
            assert c.chunks(inode) == {}

    run(body())


def test_many_clients_at_once_make_every_name_once(tmp_path: Path) -> None:
    async def body() -> None:
        async with cluster(tmp_path) as c:

            async def make(number: int) -> bool:
                try:
                    await c.call(methods.CREATE, meta.Create(ROOT, b"%d" % (number % 50), 0o644, new_request()))
                    return True
                except EmberError as error:
                    assert error.code is Code.EXISTS
                    return False

            made = await asyncio.gather(*[make(number) for number in range(200)])
            assert sum(made) == 50
            page = await c.call(methods.READDIR, meta.Readdir(ROOT))
            assert len(page.entries) == 50

    run(body())


async def _waiting(c: Cluster, inode: int, is_queued: bool) -> None:
    async def look() -> None:
        while c.running.context.lock_waits.is_queued(inode) != is_queued:
            await asyncio.sleep(0.001)

    await asyncio.wait_for(look(), 20)


def test_a_wait_for_a_lock_ends_with_its_connection(tmp_path: Path) -> None:
    async def body() -> None:
        async with cluster(tmp_path) as c:
            request = meta.Create(ROOT, b"f", 0o644, new_request())
            inode = (await c.call(methods.CREATE, request)).attributes.inode
            await c.call(methods.LOCK, Lock(inode, CLIENT, 1, 1, 2, new_request()))
            other = await tcp.connect("127.0.0.1", c.running.port, Hello([1], "client", b"o" * 16, "test"), timeout=5)
            wanted = Lock(inode, b"o" * 16, 1, 1, 2, new_request(), wait_ms=30_000)
            waiting = asyncio.create_task(other.call(methods.LOCK, wanted, timeout=30))
            await _waiting(c, inode, True)
            await other.close()
            with pytest.raises(EmberError) as caught:
                await waiting
            assert caught.value.code is Code.PEER_GONE
            await _waiting(c, inode, False)
            await c.call(methods.LOCK, Lock(inode, CLIENT, 1, 1, 0, new_request()))
            assert (await c.call(methods.GET_LOCK, GetLock(inode, CLIENT, 9, 1, 2))).type == 0

    run(body())


def test_a_wait_for_a_lock_ends_with_the_request_and_with_the_server(tmp_path: Path) -> None:
    async def body() -> None:
        async with cluster(tmp_path) as c:
            await c.call(methods.LOCK, Lock(ROOT, CLIENT, 1, 1, 2, new_request()))
            wanted = Lock(ROOT, CLIENT, 2, 1, 2, new_request(), wait_ms=30_000)
            with pytest.raises(EmberError) as caught:
                await c.peer.call(methods.LOCK, wanted, timeout=0.1)
            assert caught.value.code is Code.TIMED_OUT
            await _waiting(c, ROOT, False)
            waiting = asyncio.create_task(c.call(methods.LOCK, wanted))
            await _waiting(c, ROOT, True)
            await c.running.context.kv.sync()
            c.running.context.lock_waits.close()
            with pytest.raises(EmberError) as caught:
                await waiting
            assert caught.value.code is Code.CLOSING

    run(body())


def test_a_client_that_is_gone_leaves_locks_and_sessions_to_the_others(tmp_path: Path) -> None:
    async def body() -> None:
        async with cluster(tmp_path, client_timeout_ms=20) as c:
            hello = Hello([1], "client", b"o" * 16, "test")
            peers = [await tcp.connect("127.0.0.1", c.running.port, hello, timeout=5) for _ in range(2)]
            create = meta.Create(ROOT, b"f", 0o644, new_request(), write=True, client=b"o" * 16)
            opened = await peers[0].call(methods.CREATE, create, timeout=5)
            inode = opened.attributes.inode
            chain = stripe_chains(opened.attributes.layout, [1, 2])[0]
            c.daemons[chain - 1].lengths[chain, inode, 0] = 77
            await peers[0].call(methods.LOCK, Lock(inode, b"o" * 16, 1, 1, 2, new_request()), timeout=5)
            await peers[0].close()
            with pytest.raises(EmberError) as caught:  # the other connection keeps it alive, whatever time passes
                await c.call(methods.LOCK, Lock(inode, CLIENT, 1, 1, 2, new_request(), wait_ms=100))
            assert caught.value.code is Code.WOULD_BLOCK
            await peers[1].close()
            await c.call(methods.LOCK, Lock(inode, CLIENT, 1, 1, 2, new_request(), wait_ms=8_000))

            async def settled() -> None:
                while (await c.call(methods.STAT, meta.Stat(inode, b""))).attributes.length != 77:
                    await asyncio.sleep(0.001)

            await asyncio.wait_for(settled(), 20)
            close = meta.Close(inode, opened.session, new_request(), 99)
            with pytest.raises(EmberError) as caught:
                await c.call(methods.CLOSE, close)
            assert caught.value.code is Code.BAD_SESSION
            back = await tcp.connect("127.0.0.1", c.running.port, hello, timeout=5)
            close = meta.Close(inode, opened.session, new_request(), 99)
            assert (await back.call(methods.CLOSE, close, timeout=5)).attributes.length == 99
            await back.close()
            counters = (await c.call(methods.STATS, Empty())).counters
            assert counters["pruned_locks"] == counters["pruned_sessions"] == 1

    run(body())


def test_nobody_acts_for_another_client(tmp_path: Path) -> None:
    """Who knows a session, or a client's id, cannot use what is that client's from a connection of his own."""

    async def body() -> None:
        async with cluster(tmp_path) as c:
            opened = await c.call(
                methods.CREATE, meta.Create(ROOT, b"f", 0o644, new_request(), write=True, client=CLIENT)
            )
            inode, session = opened.attributes.inode, opened.session
            await c.call(methods.LOCK, Lock(inode, CLIENT, 1, 1, 2, new_request()))
            stranger = await tcp.connect("127.0.0.1", c.running.port, Hello([1], "client", b"s" * 16), timeout=5)
            for method, request, code in (
                (methods.OPEN, meta.Open(inode, b"", True, client=CLIENT, request=new_request()), Code.NOT_PERMITTED),
                (methods.CREATE, meta.Create(ROOT, b"g", 0o644, new_request(), client=CLIENT), Code.NOT_PERMITTED),
                (methods.CREATE_UNNAMED, meta.CreateUnnamed(ROOT, 0o600, new_request(), CLIENT), Code.NOT_PERMITTED),
                (methods.LOCK, Lock(inode, CLIENT, 1, 1, 0, new_request()), Code.NOT_PERMITTED),
                (methods.GET_LOCK, GetLock(inode, CLIENT, 1, 1, 2), Code.NOT_PERMITTED),
                (methods.RELEASE_LOCKS, ReleaseLocks(inode, CLIENT, 1, 1, new_request()), Code.NOT_PERMITTED),
                (methods.FSYNC, meta.Fsync(inode, session, new_request(), 99), Code.BAD_SESSION),
                (methods.TRUNCATE, meta.Truncate(inode, 99, new_request(), session=session), Code.BAD_SESSION),
                (methods.CLOSE, meta.Close(inode, session, new_request(), 99), Code.BAD_SESSION),
            ):
                with pytest.raises(EmberError) as caught:
                    await stranger.call(method, request, timeout=5)
                assert caught.value.code is code, method.name
                assert CLIENT.hex() not in caught.value.message
            await stranger.close()
            found = await c.call(methods.GET_LOCK, GetLock(inode, CLIENT, 2, 1, 2))
            assert found.type == 2
            closed = await c.call(methods.CLOSE, meta.Close(inode, session, new_request()))
            assert closed.attributes.length == 0

    run(body())


def test_a_client_from_before_a_restart_is_waited_for_and_then_cleared_up_after(tmp_path: Path) -> None:
    async def body() -> None:
        async with cluster(tmp_path, client_timeout_ms=60_000) as c:
            await c.call(methods.LOCK, Lock(ROOT, CLIENT, 1, 1, 2, new_request()))
            found = await c.call(methods.GET_LOCK, GetLock(ROOT, CLIENT, 2, 1, 2))
            assert found.type == 2
        config = MetaConfig(cluster="test", directory=str(tmp_path), port=0, client_timeout_ms=20)
        running = await server.start(config, open_store(config.store_url), FakeManager(None))
        peer = await tcp.connect("127.0.0.1", running.port, Hello([1], "client", b"o" * 16, "test"), timeout=5)
        wanted = Lock(ROOT, b"o" * 16, 1, 1, 2, new_request(), wait_ms=8_000)
        await peer.call(methods.LOCK, wanted, timeout=10)
        await peer.close()
        await running.close(0)

    run(body())


def test_a_port_that_is_taken_leaves_the_store_to_its_owner(tmp_path: Path) -> None:
    async def body() -> None:
        async with cluster(tmp_path / "one") as c:
            config = MetaConfig(cluster="test", directory=str(tmp_path / "two"), port=c.running.port)
            kv = open_store(config.store_url)
            await prepare_store(kv, "test", config.root_layout, 0, 0, 1)
            with pytest.raises(OSError, match="in use"):
                await server.start(config, kv, FakeManager(None))
            await kv.close()

    run(body())
