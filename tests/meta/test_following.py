"""Clients that follow the service: who is told of what, whose answers wait for it and for how long, restarts.

Most tests call the handlers as a connection does, on a loop whose time jumps, over a store in memory.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fs_common import eager, methods
from fs_common.methods import Method
from fs_common.records import meta
from fs_common.records.meta import FollowReply, Promised
from fs_common.records.session import Empty, Hello
from fs_common.rpc import Call, ServerSession, Service
from fs_common.transports import tcp
from fs_meta import promises, server
from fs_meta.clients import Clients
from fs_meta.following import HOLD, FollowedStore, Following
from fs_meta.format import prepare_store
from fs_meta.kv.memory_engine import MemoryStore
from fs_meta.promises import LEASE_S
from fs_meta.service import make_service
from tests.meta.test_service import cluster
from tests.meta.world import ROOT, ROOT_LAYOUT, World, new_request
from tests.storage.engine.virtual_loop import run_virtual
from tests.support import run

A, B = b"a" * 16, b"b" * 16
ATTRIBUTES, NAMES = Promised.ATTRIBUTES, Promised.NAMES
BOTH = ATTRIBUTES | NAMES


class Served:
    """A service that has just started on a store, without sockets."""

    def __init__(self, kv: MemoryStore, clock: Callable[[], float] | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        self.kv = kv
        self.following = Following(kv, clock or self.loop.time)
        self.world = World(FollowedStore(kv, self.following))  # type: ignore[arg-type]
        """Its own calls are nobody's."""
        self.clients = Clients(30.0)
        self.service: Service = make_service(self.world.context, "test", self.clients, self.following)

    async def call(self, client: bytes, method: Method, request: msgspec.Struct) -> Any:
        session = ServerSession(Hello([1], "client", client, "test"), "test")
        handler = self.service.registrations[method.number].handler
        answer: Any = handler(Call(request, (), session, math.inf))
        started = eager.start(answer, self.loop)
        reply = await started if isinstance(started, asyncio.Task) else started
        return reply.body

    def begins(self, client: bytes, method: Method, request: msgspec.Struct) -> "asyncio.Task[Any]":
        return asyncio.create_task(self.call(client, method, request))

    async def lookup(self, client: bytes, name: bytes, parent: int = ROOT) -> meta.AttributesReply:
        reply: meta.AttributesReply = await self.call(client, methods.LOOKUP, meta.Lookup(parent, name))
        return reply

    def chmod(self, inode: int, mode: int = 0o600) -> meta.SetAttr:
        return meta.SetAttr(inode, b"", new_request(), mode=mode)

    async def close(self) -> None:
        self.following.end()
        await self.world.context.inode_ids.close()
        await self.following.close()


class FollowingClient:
    """One that follows: it takes the news it is told as soon as it is told, unless told otherwise by a test."""

    def __init__(self, served: Served, client: bytes = A) -> None:
        self.served = served
        self.client = client
        self.last = FollowReply(0, 0, [], [], 0)
        self.inodes: set[int] = set()
        self.directories: set[int] = set()

    def calls(self) -> "asyncio.Task[FollowReply]":
        return self.served.begins(self.client, methods.FOLLOW, meta.Follow(self.last.generation, self.last.number))

    async def follow(self) -> FollowReply:
        """One call; what it tells is taken with the next one."""
        self.last = await self.calls()
        self.inodes |= set(self.last.inodes)
        self.directories |= set(self.last.directories)
        return self.last

    async def keep_following(self) -> None:
        while True:
            await self.follow()

    async def told(self) -> tuple[set[int], set[int]]:
        """The next news: (inodes, directories)."""
        self.inodes, self.directories = set(), set()
        while not (self.inodes or self.directories):
            await self.follow()
        return self.inodes, self.directories

    async def lookup(self, name: bytes, parent: int = ROOT) -> meta.AttributesReply:
        return await self.served.lookup(self.client, name, parent)


@asynccontextmanager
async def served(kv: MemoryStore | None = None, clock: Callable[[], float] | None = None) -> AsyncIterator[Served]:
    store = kv or MemoryStore()
    await prepare_store(store, "test", ROOT_LAYOUT, 0, 0, 1)
    made = Served(store, clock)
    await made.following.begin()
    yield made
    await made.close()


async def follower(made: Served, client: bytes = A) -> FollowingClient:
    following = FollowingClient(made, client)
    assert (await following.follow()).lease_ms == LEASE_S * 1000
    return following


async def settled() -> None:
    """All that can happen before time passes has happened."""
    for _ in range(50):
        await asyncio.sleep(0)


async def cancelled(task: "asyncio.Task[Any]") -> None:
    task.cancel()
    await asyncio.wait([task])


# Who waits


def test_a_call_of_a_follower_stays_for_a_part_of_a_lease() -> None:
    async def body() -> None:
        async with served() as s:
            a = await follower(s)
            first = a.last
            begun = s.loop.time()
            assert await a.follow() == first
            assert s.loop.time() - begun == pytest.approx(LEASE_S / HOLD)

    run_virtual(body())


def test_a_change_by_another_is_answered_when_the_follower_has_taken_the_news() -> None:
    async def body() -> None:
        async with served() as s:
            a = await follower(s)
            f = await s.world.create(b"f")
            assert (await a.lookup(b"f")).promised == BOTH
            held = a.calls()
            await settled()
            change = s.begins(B, methods.SET_ATTR, s.chmod(f.inode))
            a.last = await held
            assert (a.last.inodes, a.last.directories) == ([f.inode], [])
            await settled()
            assert not change.done()
            begun = s.loop.time()
            next_call = a.calls()
            assert (await change).attributes.mode == 0o600 and s.loop.time() == begun
            await cancelled(next_call)

    run_virtual(body())


def test_over_sockets_a_relaxed_change_waits_for_the_follower(tmp_path: Path) -> None:
    """On the real store a relaxed transaction ends in the first step of its handler, where there is no task."""

    async def body() -> None:
        async with cluster(tmp_path) as c:
            follow = partial(c.call, methods.FOLLOW)
            other = await tcp.connect("127.0.0.1", c.running.port, Hello([1], "client", B, "test"), timeout=5)
            create = meta.Create(ROOT, b"f", 0o644, new_request())
            inode = (await c.call(methods.CREATE, create)).attributes.inode
            first = await follow(meta.Follow())
            assert (await c.call(methods.LOOKUP, meta.Lookup(ROOT, b"f"))).promised == BOTH
            held = asyncio.create_task(follow(meta.Follow(first.generation, first.number)))
            chmod = meta.SetAttr(inode, b"", new_request(), mode=0o600, relaxed=True)
            change = asyncio.create_task(other.call(methods.SET_ATTR, chmod, timeout=10))
            news = await held
            assert news.inodes == [inode] and not change.done()
            last = asyncio.create_task(follow(meta.Follow(news.generation, news.number)))
            assert (await change).attributes.mode == 0o600
            counters = (await c.call(methods.STATS, Empty())).counters
            assert (counters["followers"], counters["promises"]) == (1, 1)
            await last
            await other.close()

    run(body())


REPEATED: list[tuple[Method, Callable[[int], msgspec.Struct]]] = [
    (methods.SET_ATTR, lambda inode: meta.SetAttr(inode, b"", new_request(), mode=0o600)),
    (methods.TRUNCATE, lambda inode: meta.Truncate(inode, 5, new_request())),
    (methods.UNLINK, lambda inode: meta.Unlink(ROOT, b"f", new_request())),
]


@pytest.mark.parametrize(("method", "request_of"), REPEATED)
@pytest.mark.parametrize("given_up", [False, True])
def test_a_repeated_request_is_not_answered_before_the_follower_has_heard(
    method: Method, request_of: Callable[[int], msgspec.Struct], given_up: bool
) -> None:
    async def body() -> None:
        async with served() as s:
            a = await follower(s)
            f = await s.world.create(b"f")
            await a.lookup(b"f")
            request = request_of(f.inode)
            first = s.begins(B, method, request)
            await settled()
            if given_up:
                await cancelled(first)
            again = s.begins(B, method, request)
            await settled()
            assert not again.done()
            await a.follow()
            await settled()
            assert not again.done()
            begun = s.loop.time()
            last = a.calls()
            reply = await again
            assert s.loop.time() == begun
            assert given_up or await first == reply
            await cancelled(last)

    run_virtual(body())


def test_an_answer_that_is_given_again_promises_nothing() -> None:
    async def body() -> None:
        async with served() as s:
            await follower(s)
            f = await s.world.create(b"f")
            for method, request in (
                (methods.MKDIR, meta.Mkdir(ROOT, b"d", 0o755, new_request())),
                (methods.SET_ATTR, s.chmod(f.inode)),
                (methods.TRUNCATE, meta.Truncate(f.inode, 5, new_request())),
                (methods.CREATE, meta.Create(ROOT, b"g", 0o644, new_request())),
            ):
                assert (await s.call(A, method, request)).promised
                assert (await s.call(A, method, request)).promised == 0

    run_virtual(body())


def test_a_call_that_comes_late_ends_no_promise() -> None:
    """A first call was given up and sent again; the first copy arrives when promises hold already."""

    async def body() -> None:
        async with served() as s:
            a = await follower(s)
            f = await s.world.create(b"f")
            await a.lookup(b"f")
            late = await s.call(A, methods.FOLLOW, meta.Follow())
            assert late.generation == a.last.generation
            change = s.begins(B, methods.SET_ATTR, s.chmod(f.inode))
            await settled()
            assert not change.done()
            assert (await a.follow()).inodes == [f.inode]
            last = a.calls()
            await change
            await cancelled(last)

    run_virtual(body())


def slow_clock() -> float:
    """Timers on the loop's own clock fire early by it."""
    return asyncio.get_running_loop().time() / 2


async def as_after_a_crash() -> MemoryStore:
    """The store of a service that had a follower and has not closed."""
    store = MemoryStore()
    async with served(store) as s:
        await s.world.create(b"f")
        await follower(s)
    return store


def test_after_a_restart_no_change_is_answered_before_a_lease_has_passed() -> None:
    async def body() -> None:
        store = await as_after_a_crash()
        async with served(store, slow_clock) as s:
            begun = s.loop.time()
            f = (await s.lookup(B, b"f")).attributes
            chmod = s.chmod(f.inode)
            changes = [s.begins(B, methods.SET_ATTR, chmod) for _ in range(2)]  # one of them is a repeated one
            await settled()
            assert not any(change.done() for change in changes) and s.loop.time() == begun
            await asyncio.gather(*changes)
            assert s.loop.time() - begun == pytest.approx(2 * LEASE_S)
            await s.call(B, methods.SET_ATTR, s.chmod(f.inode))
            assert s.loop.time() - begun == pytest.approx(2 * LEASE_S)

    run_virtual(body())


def test_followers_that_are_gone_are_forgotten_by_the_upkeep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promises, "FORGET_S", 0.0)
    monkeypatch.setattr(server, "UPKEEP_INTERVAL_S", 0.001)
    monkeypatch.setattr(server, "Following", partial(Following, lease_s=0.01))

    async def body() -> None:
        async with cluster(tmp_path) as c:
            await c.call(methods.FOLLOW, meta.Follow())

            async def forgotten() -> None:
                while (await c.call(methods.STATS, Empty())).counters["followers"]:
                    await asyncio.sleep(0)

            await asyncio.wait_for(forgotten(), 20)

    run(body())
