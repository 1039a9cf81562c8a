"""Clients that follow the service: who is told of what, whose answers wait for it and for how long, restarts.

Most tests call the handlers as a connection does, on a loop whose time jumps, over a store in memory.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fs_common import eager, methods, tracing
from fs_common.errors import Code, EmberError
from fs_common.methods import Method
from fs_common.records import meta
from fs_common.records.following import Follow, FollowReply, Promised
from fs_common.records.locks import Lock, ReleaseLocks
from fs_common.records.meta import FileType, RenameFlags
from fs_common.records.session import Empty, Hello
from fs_common.rpc import Admission, Call, Peer, ServerSession, Service
from fs_common.security.identity import Grants, Identity
from fs_common.transports import tcp
from fs_meta import following as following_module
from fs_meta import promises, schema, server, store_times
from fs_meta import service as service_module
from fs_meta.clients import Clients
from fs_meta.config import MetaConfig
from fs_meta.following import HOLD, STUBBORN, FollowedStore, Following
from fs_meta.format import prepare_store
from fs_meta.kv.memory_engine import MemoryStore
from fs_meta.kv.open import open_store
from fs_meta.patience import SHARE, WAITED_MAX_S, Patience
from fs_meta.promises import LEASE_S, PAUSE_S
from fs_meta.prune import Pruner
from fs_meta.service import OPERATIONS, make_service
from tests.meta.test_service import FakeManager, cluster
from tests.meta.world import ROOT, ROOT_LAYOUT, World, dump, new_request
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

    async def call(
        self, client: bytes, method: Method, request: msgspec.Struct, identity: Identity | None = None, host: str = ""
    ) -> Any:
        session = ServerSession(Hello([1], "client", client, "test"), f"{host or client.hex()}:1", Admission(identity))
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
        return self.served.begins(self.client, methods.FOLLOW, Follow(self.last.generation, self.last.number))

    async def follow(self) -> FollowReply:
        """One call; what it tells is taken with the next one."""
        self.last = await self.calls()
        self.inodes |= set(self.last.inodes)
        self.directories |= set(self.last.directories)
        return self.last

    async def told(self) -> tuple[set[int], set[int]]:
        """The next news: (inodes, directories)."""
        self.inodes, self.directories = set(), set()
        for _ in range(20):
            await self.follow()
            if self.inodes or self.directories:
                return self.inodes, self.directories
        raise AssertionError("nothing is told")

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
            begun = s.loop.time()
            change = s.begins(B, methods.SET_ATTR, s.chmod(f.inode))
            a.last = await held
            assert (a.last.inodes, a.last.directories) == ([f.inode], [])
            await settled()
            assert not change.done()
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
            first = await follow(Follow())
            assert (await c.call(methods.LOOKUP, meta.Lookup(ROOT, b"f"))).promised == BOTH
            held = asyncio.create_task(follow(Follow(first.generation, first.number)))
            chmod = meta.SetAttr(inode, b"", new_request(), mode=0o600, relaxed=True)
            change = asyncio.create_task(other.call(methods.SET_ATTR, chmod, timeout=10))
            news = await held
            assert news.inodes == [inode] and not change.done()
            last = asyncio.create_task(follow(Follow(news.generation, news.number)))
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


@pytest.mark.parametrize(("method", "request_of"), REPEATED, ids=[row[0].name for row in REPEATED])
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
                (methods.OPEN, meta.Open(ROOT, b"f", True, A, new_request())),
                (methods.OPEN, meta.Open(ROOT, b"f", False, A, new_request(), hold=True)),
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
            late = await s.call(A, methods.FOLLOW, Follow())
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
            await c.call(methods.FOLLOW, Follow())

            async def forgotten() -> None:
                while (await c.call(methods.STATS, Empty())).counters["followers"]:
                    await asyncio.sleep(0)

            await asyncio.wait_for(forgotten(), 20)

    run(body())


def test_a_change_waits_for_every_follower_it_concerns() -> None:
    async def body() -> None:
        async with served() as s:
            a, b, c = [await follower(s, client) for client in (A, B, b"c" * 16)]
            f = await s.world.create(b"f")
            for one in (a, b):
                await one.lookup(b"f")
            change = s.begins(c.client, methods.SET_ATTR, s.chmod(f.inode))
            calls = []
            for one in (a, b):
                await settled()
                assert not change.done()
                assert (await one.follow()).inodes == [f.inode]
                calls.append(one.calls())
            await change
            for call in calls:
                await cancelled(call)

    run_virtual(body())


def test_own_changes_are_not_told_and_end_no_promise() -> None:
    async def body() -> None:
        async with served() as s:
            a = await follower(s)
            f = await s.world.create(b"f")
            await a.lookup(b"f")
            begun = s.loop.time()
            assert (await s.call(A, methods.SET_ATTR, s.chmod(f.inode))).promised == ATTRIBUTES
            await s.call(A, methods.RENAME, meta.Rename(ROOT, b"f", ROOT, b"g", new_request()))
            assert s.loop.time() == begun
            assert await a.follow() == a.last and not a.inodes and not a.directories
            change = s.begins(B, methods.UNLINK, meta.Unlink(ROOT, b"g", new_request()))
            assert await a.told() == ({f.inode}, {ROOT})
            await cancelled(change)

    run_virtual(body())


def test_a_change_that_fails_is_told_to_nobody() -> None:
    async def body() -> None:
        async with served() as s:
            a = await follower(s)
            f = await s.world.create(b"f")
            await a.lookup(b"f")
            begun = s.loop.time()
            with pytest.raises(EmberError) as caught:
                await s.call(B, methods.MKDIR, meta.Mkdir(ROOT, b"f", 0o755, new_request()))
            assert caught.value.code is Code.EXISTS and s.loop.time() == begun
            assert (await a.follow()).inodes == []
            assert s.service.stats()["promises"] == 2 and f.inode

    run_virtual(body())


def test_a_change_whose_caller_gives_up_is_told_all_the_same() -> None:
    async def body() -> None:
        async with served() as s:
            a = await follower(s)
            f = await s.world.create(b"f")
            await a.lookup(b"f")
            change = s.begins(B, methods.SET_ATTR, s.chmod(f.inode))
            for _ in range(20):
                if (await s.lookup(B, b"f")).attributes.mode == 0o600:
                    break  # it is in the store, and not acknowledged
                await asyncio.sleep(0)
            await cancelled(change)
            assert await a.told() == ({f.inode}, set())

    run_virtual(body())


def test_a_second_call_of_a_follower_ends_the_first() -> None:
    async def body() -> None:
        async with served() as s:
            a = await follower(s)
            begun = s.loop.time()
            first = a.calls()
            await settled()
            second = a.calls()
            assert (await first).inodes == [] and s.loop.time() == begun
            await cancelled(second)

    run_virtual(body())


# Followers that do not hear


@pytest.mark.parametrize(("clock", "rate"), [(None, 1), (slow_clock, 2)])
def test_a_silent_follower_is_waited_for_until_its_lease_is_over(
    clock: Callable[[], float] | None, rate: float
) -> None:
    async def body() -> None:
        async with served(clock=clock) as s:
            a = await follower(s)
            begun = s.loop.time()
            f = await s.world.create(b"f")
            await a.lookup(b"f")
            await asyncio.gather(*[s.call(B, methods.SET_ATTR, s.chmod(f.inode, mode)) for mode in (0o600, 0o640)])
            assert s.loop.time() - begun == pytest.approx(LEASE_S * rate)
            assert s.service.stats()["followers"] == s.service.stats()["promises"] == 0
            await s.call(B, methods.SET_ATTR, s.chmod(f.inode))
            assert s.loop.time() - begun == pytest.approx(LEASE_S * rate)
            before = a.last.generation
            assert (await a.follow()).generation != before
            await asyncio.sleep(PAUSE_S * rate)
            assert (await a.lookup(b"f")).promised == BOTH

    run_virtual(body())


def test_a_follower_that_takes_no_news_is_waited_for_some_leases() -> None:
    async def body() -> None:
        async with served() as s:
            a = await follower(s)
            f = await s.world.create(b"f")
            await a.lookup(b"f")
            begun = s.loop.time()
            change = s.begins(B, methods.SET_ATTR, s.chmod(f.inode))
            await settled()
            for _ in range(2 * STUBBORN):
                assert (await a.calls()).inodes == [f.inode] and not change.done()
                await asyncio.wait([change], timeout=LEASE_S / 2)
            await change
            assert s.loop.time() - begun == pytest.approx(STUBBORN * LEASE_S)

    run_virtual(body())


class Nuisance:
    """Comes again and again, and costs others as much as it can. `takes`: the part of a lease after which it takes its
    news; None: never. `anew`: under another client's id each time."""

    def __init__(self, served: Served, *, takes: float | None, calls: bool, anew: bool, identity: Identity) -> None:
        self.served = served
        self.takes = takes
        self.calls = calls
        self.anew = anew
        self.identity = identity
        self.client = b"n" * 16
        self.number = 0

    async def run(self, inode: int) -> None:
        served = self.served
        while True:
            if self.anew:
                self.number += 1
                self.client = b"n" * 8 + self.number.to_bytes(8, "big")
            last = FollowReply(0, 0, [], [], 0)
            for _ in range(3 * STUBBORN):
                request = Follow(last.generation, 0 if self.takes is None else last.number)
                last = await served.call(self.client, methods.FOLLOW, request, self.identity, f"host{self.number}")
                if not last.lease_ms:
                    break
                await served.call(self.client, methods.STAT, meta.Stat(inode, b""), self.identity)
                await asyncio.sleep(LEASE_S * (0.25 if self.takes is None else self.takes))
                if not self.calls:
                    break
            await asyncio.sleep(0.01 if last.lease_ms else 1)


PLAIN = Identity("client", b"", "mallory", token="1")
MANY = Identity("client", b"", "hosts", grants=int(Grants.ANY_USER), token="2")


@pytest.mark.parametrize(
    ("takes", "calls", "anew"),
    [(None, False, False), (None, False, True), (None, True, False), (None, True, True), (0.95, True, False)],
    ids=["silent", "silent under many ids", "stubborn", "stubborn under many ids", "as late as it may"],
)
def test_what_one_user_makes_others_wait_is_bounded(takes: float | None, calls: bool, anew: bool) -> None:
    async def body() -> None:
        async with served() as s:
            f = await s.world.create(b"f")
            nuisance = asyncio.create_task(
                Nuisance(s, takes=takes, calls=calls, anew=anew, identity=PLAIN).run(f.inode)
            )
            waited, until = 0.0, s.loop.time() + 3600
            while s.loop.time() < until:
                await asyncio.sleep(0.5)
                begun = s.loop.time()
                await s.call(B, methods.SET_ATTR, s.chmod(f.inode))
                waited += s.loop.time() - begun
            await cancelled(nuisance)
            # Waited for at first, then for the part of the time that is forgiven; one wait may end beyond the bound.
            assert LEASE_S / 2 < waited < WAITED_MAX_S + 3600 * SHARE + 2 * STUBBORN * LEASE_S

    run_virtual(body())


def test_followers_that_do_not_answer_are_waited_for_together() -> None:
    async def body() -> None:
        async with served() as s:
            f = await s.world.create(b"f")
            stubborn = [await follower(s, bytes([number]) * 16) for number in range(1, 4)]
            for each in stubborn:
                await each.lookup(b"f")
            begun = s.loop.time()
            change = s.begins(B, methods.SET_ATTR, s.chmod(f.inode))
            while not change.done():
                for each in stubborn:
                    assert (await each.calls()).lease_ms
                await asyncio.wait([change], timeout=LEASE_S / 2)
            assert s.loop.time() - begun == pytest.approx(STUBBORN * LEASE_S, abs=LEASE_S)

    run_virtual(body())


def test_one_machine_that_is_lost_again_and_again_leaves_others_of_its_token_what_they_have() -> None:
    async def body() -> None:
        async with served() as s:
            f = await s.world.create(b"f")

            async def asks(client: bytes, host: str) -> FollowReply:
                reply: FollowReply = await s.call(client, methods.FOLLOW, Follow(0, 0), MANY, host)
                return reply

            lost = b"l" * 16
            while (await asks(lost, "lost")).lease_ms:
                await s.call(lost, methods.STAT, meta.Stat(f.inode, b""), MANY, "lost")
                await s.call(B, methods.SET_ATTR, s.chmod(f.inode))
                await asyncio.sleep(PAUSE_S)
            assert (await asks(A, "well")).lease_ms
            # Forgiven after a while.
            await asyncio.sleep(WAITED_MAX_S / SHARE)
            assert (await asks(lost, "lost")).lease_ms

    run_virtual(body())


def test_a_follower_that_answers_at_once_costs_nothing() -> None:
    patience = Patience(waited_max_s=10.0, share=0.1)
    for second in range(1000):
        patience.begins("a", float(second))
        patience.ends("a", second + 0.09)
    assert not patience.lost("a", 1000.0)
    patience.begins("a", 1000.0)
    patience.begins("a", 1001.0)
    patience.ends("a", 1006.0)
    assert not patience.lost("a", 1009.0), "both wait once"
    assert patience.lost("a", 1010.5) and not patience.lost("b", 1010.5)
    patience.ends("a", 1011.0)
    assert patience.lost("a", 1060.0) and not patience.lost("a", 1072.0)


def test_where_nobody_is_asked_who_he_is_nobody_answers_for_the_others() -> None:
    """All are the same one there: mounts of a busy machine would be promised nothing because of one that is stopped."""

    async def body() -> None:
        async with served() as s:
            f = await s.world.create(b"f")
            stopped = b"s" * 16
            for _ in range(20):
                await s.call(stopped, methods.FOLLOW, Follow(0, 0), None, "here")
                await s.call(stopped, methods.STAT, meta.Stat(f.inode, b""), None, "here")
                begun = s.loop.time()
                await s.call(B, methods.SET_ATTR, s.chmod(f.inode))
                assert s.loop.time() > begun, "it waits for the one that is stopped"
            assert (await s.call(A, methods.FOLLOW, Follow(0, 0), None, "here")).lease_ms

    run_virtual(body())


def test_a_slow_operation_tells_what_of_its_time_was_the_stores_and_what_it_waited_for_followers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_ns = [0]
    for module in (following_module, service_module, store_times):
        monkeypatch.setattr(module, "clock_ns", lambda: now_ns[0])

    async def body() -> None:
        async with served() as s:
            f = await s.world.create(b"f")
            a = await follower(s)
            await a.lookup(b"f")
            transact, read = s.kv.transact, s.kv.read

            async def slow_transact(fn: Any, *, relaxed: bool = False) -> Any:
                now_ns[0] += 30_000_000
                return await transact(fn, relaxed=relaxed)

            async def slow_read(fn: Any) -> Any:
                now_ns[0] += 20_000_000
                return await read(fn)

            monkeypatch.setattr(s.kv, "transact", slow_transact)
            monkeypatch.setattr(s.kv, "read", slow_read)

            def begins(method: Method, request: msgspec.Struct, trace: int) -> tuple[Call, "asyncio.Task[Any]"]:
                call = Call(request, (), ServerSession(Hello([1], "client", B, "test"), "b:1"), math.inf, trace)
                handler: Any = s.service.registrations[method.number].handler
                context = tracing.no_operation()
                context.run(tracing.enter, trace)
                return call, s.loop.create_task(handler(call), context=context)

            change, changed = begins(methods.SET_ATTR, s.chmod(f.inode), 7)
            await settled()
            now_ns[0] += 500_000_000
            assert await a.told() == ({f.inode}, set())
            telling = a.calls()
            await changed
            await cancelled(telling)
            look, looked = begins(methods.LOOKUP, meta.Lookup(ROOT, b"f"), 7)
            await looked
            assert change.times is not None and look.times is not None
            assert change.times()["followers"] == 500_000_000 and change.times()["kv"] >= 30_000_000
            assert look.times() == {"kv": 20_000_000, "followers": 0}, "and nothing of the call before"
            monkeypatch.undo()

    run_virtual(body())


# What is told


class Tree:
    """
    /f /g /w (with a session) /d/h /e/ /t/i; f has an extended attribute
    """

    def __init__(self, writer: bytes = B) -> None:
        self.inodes = {"/": ROOT}
        self.session = b""
        self.writer = writer
        """Whose session it is."""

    async def make(self, world: World) -> None:
        for name in ("d", "e", "t"):
            self.inodes[name] = (await world.mkdir(name.encode())).inode
        for path in ("f", "g", "d/h", "t/i"):
            self.inodes[path[-1]] = (await world.create(path.encode())).inode
        await world.set_xattr(self["f"], b"user.a")
        opened = await world.create_open(b"w", client=self.writer)
        self.inodes["w"], self.session = opened.attributes.inode, opened.session

    def __getitem__(self, name: str) -> int:
        return self.inodes[name]

    def names(self, inodes: set[int]) -> set[str]:
        return {name for name, inode in self.inodes.items() if inode in inodes}


async def everything_promised(s: Served, tree: Tree) -> FollowingClient:
    a = await follower(s)
    assert (await s.call(A, methods.STAT, meta.Stat(ROOT, b""))).promised == ATTRIBUTES
    for name in ("/", "d", "e", "t"):
        reply = await s.call(A, methods.READDIR, meta.Readdir(tree[name], with_attributes=True))
        assert reply.promised == (BOTH if reply.entries else NAMES)
    assert s.service.stats()["promises"] == len(tree.inodes) + 4
    return a


def renames(path: bytes, new_path: bytes, flags: int = 0) -> Callable[[Tree], msgspec.Struct]:
    return lambda tree: meta.Rename(ROOT, path, ROOT, new_path, new_request(), flags)


TOLD: list[tuple[Method, Callable[[Tree], msgspec.Struct], str, str]] = [
    (methods.CREATE, lambda t: meta.Create(ROOT, b"n", 0o644, new_request()), "/", "/"),
    (methods.BATCH_CREATE, lambda t: meta.BatchCreate(t["d"], [b"m", b"n"], 0o644, new_request()), "d", "d"),
    (methods.MKDIR, lambda t: meta.Mkdir(t["d"], b"n", 0o755, new_request()), "d", "d"),
    (methods.MKDIR, lambda t: meta.Mkdir(ROOT, b"d/m/n", 0o755, new_request(), parents=True), "d", "d"),
    (methods.MKNOD, lambda t: meta.Mknod(ROOT, b"n", FileType.FIFO, 0o644, new_request()), "/", "/"),
    (methods.SYMLINK, lambda t: meta.Symlink(ROOT, b"n", b"f", new_request()), "/", "/"),
    (methods.LINK, lambda t: meta.Link(ROOT, b"f", t["d"], b"n", new_request()), "fd", "d"),
    (methods.CREATE_UNNAMED, lambda t: meta.CreateUnnamed(ROOT, 0o600, new_request(), B), "", ""),
    (methods.UNLINK, lambda t: meta.Unlink(ROOT, b"f", new_request()), "/f", "/"),
    (methods.RMDIR, lambda t: meta.Rmdir(ROOT, b"e", new_request()), "/e", "/"),
    (methods.REMOVE_TREE, lambda t: meta.RemoveTree(ROOT, b"t", new_request()), "/t", "/"),
    (methods.RENAME, renames(b"f", b"n"), "/f", "/"),
    (methods.RENAME, renames(b"f", b"d/n"), "/fd", "/d"),
    (methods.RENAME, renames(b"f", b"d/h"), "/fdh", "/d"),
    (methods.RENAME, renames(b"e", b"d/n"), "/ed", "/d"),
    (methods.RENAME, renames(b"f", b"d/h", RenameFlags.EXCHANGE), "/fdh", "/d"),
    (methods.SET_ATTR, lambda t: meta.SetAttr(ROOT, b"d/h", new_request(), mtime_now=True), "h", ""),
    (methods.TRUNCATE, lambda t: meta.Truncate(t["g"], 9, new_request()), "g", ""),
    (methods.SET_XATTR, lambda t: meta.SetXattr(t["d"], b"user.b", b"v", new_request()), "d", ""),
    (methods.REMOVE_XATTR, lambda t: meta.RemoveXattr(t["f"], b"user.a", new_request()), "f", ""),
    (methods.FSYNC, lambda t: meta.Fsync(t["w"], t.session, new_request(), 7), "w", ""),
    (methods.CLOSE, lambda t: meta.Close(t["w"], t.session, new_request(), 7), "w", ""),
    (methods.OPEN, lambda t: meta.Open(ROOT, b"w", True, B, new_request()), "", ""),
    (methods.LOCK, lambda t: Lock(t["f"], B, 1, 1, 2, new_request()), "", ""),
    (methods.RELEASE_LOCKS, lambda t: ReleaseLocks(t["f"], B, 1, 1, new_request()), "", ""),
]
READING = {
    methods.STAT, methods.BATCH_STAT, methods.LOOKUP, methods.STATFS, methods.READDIR, methods.READLINK,
    methods.REAL_PATH, methods.USAGE, methods.ACCESS, methods.GET_XATTR, methods.LIST_XATTRS, methods.GET_LOCK,
    methods.SYNC, methods.KEPT,
}  # fmt: skip


def test_all_methods_that_change_something_are_in_the_table() -> None:
    assert {row[0] for row in TOLD} | READING == set(OPERATIONS)
    assert not {row[0] for row in TOLD} & READING


@pytest.mark.parametrize(("method", "request_of", "inodes", "directories"), TOLD, ids=[row[0].name for row in TOLD])
def test_what_a_method_changes_is_told(
    method: Method, request_of: Callable[[Tree], msgspec.Struct], inodes: str, directories: str
) -> None:
    async def body() -> None:
        async with served() as s:
            tree = Tree()
            await tree.make(s.world)
            a = await everything_promised(s, tree)
            begun = s.loop.time()
            change = s.begins(B, method, request_of(tree))
            await settled()
            assert change.done() == (not inodes and not directories) and s.loop.time() == begun
            await a.follow()
            assert (tree.names(a.inodes), tree.names(a.directories)) == (set(inodes), set(directories))
            last = a.calls()
            await change
            await cancelled(last)

    run_virtual(body())


def test_what_the_collector_does_is_told_also_to_who_removed_it() -> None:
    async def body() -> None:
        async with served() as s:
            a = await follower(s)
            f = await s.world.create(b"f")
            await a.lookup(b"f")
            await s.call(A, methods.UNLINK, meta.Unlink(ROOT, b"f", new_request()))
            collecting = asyncio.create_task(s.world.collect_all())
            assert await a.told() == ({f.inode}, set())
            assert not collecting.done()
            last = a.calls()
            await collecting
            await cancelled(last)

    run_virtual(body())


def test_what_the_pruner_does_is_told() -> None:
    async def body() -> None:
        async with served() as s:
            await s.call(B, methods.CREATE, meta.Create(ROOT, b"f", 0o644, new_request(), write=True, client=B))
            a = await follower(s)
            f = (await a.lookup(b"f")).attributes
            s.world.chunks.write(f.inode, ROOT_LAYOUT, 77)
            pruner = Pruner(s.world.context, s.clients, lambda: s.loop.time() + 60.0)
            await pruner.prune_locks()
            pruning = asyncio.create_task(pruner.prune_sessions())
            assert await a.told() == ({f.inode}, set())
            assert not pruning.done()
            last = a.calls()
            await pruning
            assert (await a.lookup(b"f")).attributes.length == 77
            await cancelled(last)

    run_virtual(body())


# What is promised


PROMISED: list[tuple[Method, Callable[[Tree], msgspec.Struct], int, int]] = [
    (methods.LOOKUP, lambda t: meta.Lookup(ROOT, b"f"), BOTH, 2),
    (methods.LOOKUP, lambda t: meta.Lookup(t["d"], b"."), ATTRIBUTES, 1),
    (methods.LOOKUP, lambda t: meta.Lookup(t["d"], b".."), ATTRIBUTES, 1),
    (methods.STAT, lambda t: meta.Stat(ROOT, b"d/h"), ATTRIBUTES, 1),
    (methods.ACCESS, lambda t: meta.Access(t["f"], 4), ATTRIBUTES, 1),
    (methods.READDIR, lambda t: meta.Readdir(ROOT, with_attributes=True), BOTH, 7),
    (methods.READDIR, lambda t: meta.Readdir(ROOT, with_attributes=True, limit=2), BOTH, 3),
    (methods.READDIR, lambda t: meta.Readdir(ROOT), NAMES, 1),
    (methods.READDIR, lambda t: meta.Readdir(t["e"], with_attributes=True), NAMES, 1),
    (methods.OPEN, lambda t: meta.Open(ROOT, b"f"), ATTRIBUTES, 1),
    (methods.OPEN, lambda t: meta.Open(ROOT, b"f", True, A, new_request()), ATTRIBUTES, 1),
    (methods.CREATE, lambda t: meta.Create(ROOT, b"n", 0o644, new_request()), ATTRIBUTES, 1),
    (methods.CREATE, lambda t: meta.Create(ROOT, b"f", 0o644, new_request(), False), ATTRIBUTES, 1),
    (methods.MKDIR, lambda t: meta.Mkdir(ROOT, b"n", 0o755, new_request()), BOTH, 2),
    (methods.MKDIR, lambda t: meta.Mkdir(ROOT, b"d", 0o755, new_request(), parents=True), ATTRIBUTES, 1),
    (methods.SET_ATTR, lambda t: meta.SetAttr(ROOT, b"f", new_request(), mode=0o600), ATTRIBUTES, 1),
    (methods.CLOSE, lambda t: meta.Close(t["w"], t.session, new_request(), 7), ATTRIBUTES, 1),
]


@pytest.mark.parametrize(("method", "request_of", "promised", "count"), PROMISED, ids=[row[0].name for row in PROMISED])
def test_what_a_reply_promises(
    method: Method, request_of: Callable[[Tree], msgspec.Struct], promised: int, count: int
) -> None:
    async def body() -> None:
        async with served() as s:
            tree = Tree(A)
            await tree.make(s.world)
            await follower(s)
            assert (await s.call(A, method, request_of(tree))).promised == promised
            assert s.service.stats()["promises"] == count

    run_virtual(body())


def test_a_new_directory_is_promised_to_be_empty() -> None:
    async def body() -> None:
        async with served() as s:
            a = await follower(s)
            made = await s.call(A, methods.MKDIR, meta.Mkdir(ROOT, b"d", 0o755, new_request()))
            inode = made.attributes.inode
            change = s.begins(B, methods.CREATE, meta.Create(inode, b"f", 0o644, new_request()))
            assert await a.told() == ({inode}, {inode})
            await cancelled(change)

    run_virtual(body())


def test_who_does_not_follow_is_promised_nothing() -> None:
    async def body() -> None:
        async with served() as s:
            await s.world.create(b"f")
            await follower(s)
            assert (await s.lookup(B, b"f")).promised == 0
            assert (await s.lookup(b"", b"f")).promised == 0
            assert (await s.call(b"", methods.FOLLOW, Follow())).lease_ms == 0
            assert s.service.stats()["promises"] == 0 and s.service.stats()["followers"] == 1

    run_virtual(body())


def test_an_answer_that_a_change_has_crossed_is_not_promised() -> None:
    async def body() -> None:
        async with served() as s:
            await follower(s)
            f = await s.world.create(b"f")
            await s.world.truncate(f.inode, 100)

            async def meanwhile() -> None:
                await s.call(B, methods.SET_XATTR, meta.SetXattr(f.inode, b"user.a", b"", new_request()))

            s.world.chunks.after_step.append(meanwhile)
            assert (await s.call(A, methods.TRUNCATE, meta.Truncate(f.inode, 5, new_request()))).promised == 0

    run_virtual(body())


def test_a_store_that_others_change_too_is_not_followed() -> None:
    async def body() -> None:
        async with served(MemoryStore(exclusive=False)) as s:
            await s.world.create(b"f")
            assert await s.call(A, methods.FOLLOW, Follow()) == FollowReply(0, 0, [], [], 0)
            assert (await s.lookup(A, b"f")).promised == 0

    run_virtual(body())


# Close and start


def test_a_service_that_ends_promises_nothing_and_keeps_what_it_has_promised() -> None:
    async def body() -> None:
        async with served() as s:
            a = await follower(s)
            begun = s.loop.time()
            f = await s.world.create(b"f")
            await a.lookup(b"f")
            held = a.calls()
            await settled()
            s.following.end()
            assert (await held).lease_ms == 0 and s.loop.time() == begun
            assert (await a.calls()).lease_ms == 0
            assert (await s.call(A, methods.STAT, meta.Stat(ROOT, b""))).promised == 0
            await s.call(B, methods.SET_ATTR, s.chmod(f.inode))
            assert s.loop.time() - begun == pytest.approx(LEASE_S)

    run_virtual(body())


@pytest.mark.parametrize("lease_over", [False, True])
def test_a_start_waits_only_for_followers_who_may_believe_something(lease_over: bool) -> None:
    async def body() -> None:
        store = MemoryStore()
        async with served(store) as s:
            f = await s.world.create(b"f")
            await follower(s)
            await asyncio.sleep(LEASE_S if lease_over else LEASE_S - 0.1)  # virtual
        assert (schema.FOLLOWED_KEY in dict(await dump(store))) == (not lease_over)
        async with served(store) as s:
            begun = s.loop.time()
            await s.call(B, methods.SET_ATTR, s.chmod(f.inode))
            assert (s.loop.time() == begun) == lease_over

    run_virtual(body())


def test_a_start_in_which_nobody_followed_is_followed_by_one_without_wait() -> None:
    async def body() -> None:
        store = await as_after_a_crash()
        async with served(store):
            pass  # too short for those who followed before it
        assert schema.FOLLOWED_KEY in dict(await dump(store))
        async with served(store):
            await asyncio.sleep(LEASE_S)  # virtual
        assert schema.FOLLOWED_KEY not in dict(await dump(store))

    run_virtual(body())


def test_a_client_from_before_a_restart_begins_anew() -> None:
    async def body() -> None:
        store = MemoryStore()
        async with served(store) as s:
            a = await follower(s)
            before = a.last.generation
        async with served(store) as s:
            a.served = s
            assert (await a.follow()).generation not in (0, before)

    run_virtual(body())


async def started(directory: Path) -> server.MetaServer:
    """On the store of a cluster that has ended."""
    config = MetaConfig(cluster="test", directory=str(directory), port=0)
    return await server.start(config, open_store(config.store_url), FakeManager(None))


async def connected(port: int, client: bytes) -> Peer:
    return await tcp.connect("127.0.0.1", port, Hello([1], "client", client, "test"), timeout=5)


def test_over_sockets_a_lost_follower_is_waited_for_and_so_is_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease_s = 0.2
    monkeypatch.setattr(server, "Following", partial(Following, lease_s=lease_s))

    async def change(peer: Peer, begun: float) -> None:
        """It is not answered before a lease has passed since then."""
        chmod = meta.SetAttr(ROOT, b"", new_request(), mode=0o755)
        await peer.call(methods.SET_ATTR, chmod, timeout=10)
        assert time.monotonic() - begun >= lease_s

    async def body() -> None:
        async with cluster(tmp_path) as c:
            other = await connected(c.running.port, B)
            begun = time.monotonic()
            await other.call(methods.FOLLOW, Follow(), timeout=5)
            assert (await other.call(methods.STAT, meta.Stat(ROOT, b""), timeout=5)).promised == ATTRIBUTES
            await other.close()
            await change(c.peer, begun)
            await c.call(methods.FOLLOW, Follow())
        begun = time.monotonic()
        running = await started(tmp_path)
        peer = await connected(running.port, B)
        await change(peer, begun)
        await peer.close()
        await running.close(0)

    run(body())


def test_over_sockets_an_end_lets_calls_of_followers_return(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "Following", partial(Following, lease_s=1000.0))

    async def body() -> None:
        async with cluster(tmp_path):
            pass
        running = await started(tmp_path)
        peer = await connected(running.port, A)
        first = await peer.call(methods.FOLLOW, Follow(), timeout=5)
        held = asyncio.create_task(peer.call(methods.FOLLOW, Follow(first.generation, first.number), timeout=1000))
        await asyncio.sleep(0)
        await peer.call(methods.STAT, meta.Stat(ROOT, b""), timeout=5)  # its answer comes when the other call is held
        await running.close(60)
        assert (await held).lease_ms == 0
        await peer.close()

    run(body())


def test_over_sockets_an_end_without_followers_leaves_nothing_to_wait_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "Following", partial(Following, lease_s=0.0))

    async def body() -> None:
        async with cluster(tmp_path) as c:
            await c.call(methods.FOLLOW, Follow())
            assert schema.FOLLOWED_KEY in dict(await dump(c.running.context.kv))
        kv = open_store(MetaConfig(cluster="test", directory=str(tmp_path)).store_url)
        assert schema.FOLLOWED_KEY not in dict(await dump(kv))
        await kv.close()

    run(body())
