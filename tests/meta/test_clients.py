"""Who is alive, and what is taken from who is not: locks, sessions, files without names."""

import asyncio
import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from msgspec.structs import replace

from fs_common.errors import Code, EmberError
from fs_common.layout import Layout
from fs_common.records import meta
from fs_common.records.locks import LOCK_END, Lock, LockKind, LockType
from fs_common.records.meta import OpenReply
from fs_meta import prune as prune_module
from fs_meta import schema
from fs_meta.clients import Clients
from fs_meta.kv.interface import Transaction
from fs_meta.ops.close import close
from fs_meta.ops.fsync import fsync
from fs_meta.ops.lock import lock
from fs_meta.ops.truncate import truncate
from fs_meta.ops.xattrs import CAPABILITY
from fs_meta.prune import KEEP_S, PAGE, RETRY_S, SWEEP_S, Pruner
from fs_meta.server import LOCK_LEASE
from tests.meta.world import CHUNK, CLIENT, GC_DELAY_NS, LOCK_LEASE_MS, ROOT, World, fails, new_request, world
from tests.support import run

TIMEOUT_S = 30.0
OTHER = b"o" * 16


# The registry


def test_a_client_is_alive_with_a_connection_and_for_a_while_after() -> None:
    clients = Clients(TIMEOUT_S)
    clients.connected(CLIENT)
    clients.holds(CLIENT, 0)
    assert clients.overdue(1e9) == set() and len(clients) == 1
    clients.disconnected(CLIENT, 100)
    assert len(clients) == 0
    assert not clients.is_overdue(CLIENT, 129.9) and clients.overdue(129.9) == set()
    assert clients.is_overdue(CLIENT, 130) and clients.overdue(130) == {CLIENT}
    clients.connected(CLIENT)
    assert not clients.is_overdue(CLIENT, 1e9) and clients.overdue(1e9) == set()


def test_one_of_several_connections_is_enough() -> None:
    clients = Clients(TIMEOUT_S)
    clients.holds(CLIENT, 0)
    for _ in range(3):
        clients.connected(CLIENT)
    clients.disconnected(CLIENT, 0)
    clients.disconnected(CLIENT, 0)
    assert clients.overdue(1e9) == set()
    clients.disconnected(CLIENT, 5)
    assert clients.overdue(36) == {CLIENT}


def test_operators_see_who_is_connected_and_since_when() -> None:
    clients = Clients(TIMEOUT_S)
    clients.connected(OTHER, "trainer", 17, "mount /mnt/ember", 20.0)
    clients.connected(CLIENT, "trainer", 18, "train.py" * 100, 10.0)
    clients.connected(CLIENT, "trainer", 18, "train.py", 30.0)
    clients.holds(CLIENT, 31)
    first, second = clients.listed()
    assert (first.client, first.connections, first.since_s, first.holds, first.mount) == (CLIENT, 2, 10.0, True, False)
    assert len(first.program) == 200
    assert (second.client, second.program, second.mount) == (OTHER, "mount /mnt/ember", True)
    clients.disconnected(OTHER, 40)
    clients.disconnected(CLIENT, 40)
    clients.connected(OTHER, now=50.0)
    assert [(each.client, each.since_s) for each in clients.listed()] == [(CLIENT, 10.0), (OTHER, 50.0)]


def test_who_holds_nothing_is_no_work() -> None:
    clients = Clients(TIMEOUT_S)
    clients.connected(CLIENT)
    clients.disconnected(CLIENT, 0)
    assert clients.overdue(31) == set() and not clients.is_overdue(CLIENT, 31), "and forgotten"


def test_who_is_known_from_the_store_has_its_time_from_then() -> None:
    clients = Clients(TIMEOUT_S)
    clients.holds(CLIENT, 100)
    clients.holds(CLIENT, 120)
    assert not clients.is_overdue(CLIENT, 129) and clients.overdue(130) == {CLIENT}


def test_who_was_cleared_up_after_is_forgotten_unless_it_is_back() -> None:
    clients = Clients(TIMEOUT_S)
    clients.holds(CLIENT, 0)
    clients.holds(OTHER, 0)
    clients.connected(OTHER)
    clients.forget(CLIENT)
    clients.forget(OTHER)
    clients.disconnected(OTHER, 10)
    assert clients.overdue(1e9) == {OTHER}


# The pruner


class Bench:
    """A namespace, clients that come and go, and the pruner."""

    def __init__(self, w: World) -> None:
        self.w = w
        self.now = 1000.0
        self.restart()

    def restart(self) -> None:
        self.clients = Clients(TIMEOUT_S)
        self.pruner = Pruner(self.w.context, self.clients, lambda: self.now)

    def connect(self, client: bytes = CLIENT) -> None:
        self.clients.connected(client)
        self.clients.holds(client, self.now)

    async def die(self, client: bytes = CLIENT) -> int:
        """It loses its connection and its time passes."""
        self.clients.disconnected(client, self.now)
        self.now += TIMEOUT_S
        return await self.prune()

    async def prune(self) -> int:
        await self.pruner.prune_locks()
        return await self.pruner.prune_sessions()

    async def written(self, path: bytes, end: int, settled: int = -1) -> OpenReply:
        """A file open for writing whose chunks end at `end`; the service has heard of `settled`."""
        opened = await self.w.create_open(path)
        self.write(opened, end)
        if settled >= 0:
            await self.w.fsync(opened.attributes.inode, opened.session, settled)
        return opened

    def write(self, opened: OpenReply, end: int) -> None:
        assert opened.attributes.layout is not None
        self.w.chunks.write(opened.attributes.inode, opened.attributes.layout, end)


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    async with world() as w:
        yield Bench(w)


def test_nothing_is_taken_before_the_time_is_over() -> None:
    async def body() -> None:
        async with bench() as b:
            b.connect()
            await b.written(b"f", 100)
            assert await b.prune() == 0
            b.clients.disconnected(CLIENT, b.now)
            b.now += TIMEOUT_S - 0.1
            assert await b.prune() == 0
            b.clients.connected(CLIENT)
            b.now += 1e6
            assert await b.prune() == 0
            assert len(await b.w.table(b"S")) == 1 and b.w.chunks.measured == []

    run(body())


def test_a_write_session_ends_with_the_exact_length() -> None:
    async def body() -> None:
        async with bench() as b:
            b.connect()
            opened = await b.written(b"f", 3 * CHUNK + 7, settled=CHUNK)
            before = await b.w.stat(b"f")
            assert await b.die() == 1
            after = await b.w.stat(b"f")
            assert after.length == 3 * CHUNK + 7
            assert after.mtime_ns == after.ctime_ns > before.mtime_ns
            assert await b.w.table(b"S") == [] and b.w.chunks.measured == [opened.attributes.inode]
            assert b.pruner.counters["pruned_sessions"] == b.pruner.counters["pruned_clients"] == 1
            assert await b.prune() == 0, "it is done"

    run(body())


def test_a_length_that_was_grown_into_a_hole_stays() -> None:
    async def body() -> None:
        async with bench() as b:
            b.connect()
            opened = await b.written(b"f", 10, settled=10)
            await b.w.truncate(opened.attributes.inode, 5000)
            await b.die()
            assert (await b.w.stat(b"f")).length == 5000

    run(body())


def test_a_truncate_while_it_is_measured_asks_again() -> None:
    async def body() -> None:
        async with bench() as b:
            b.connect()
            opened = await b.written(b"f", 1000)

            async def cut() -> None:
                await b.w.truncate(opened.attributes.inode, 10)

            b.w.chunks.after_step.append(cut)
            await b.die()
            assert (await b.w.stat(b"f")).length == 10 and len(b.w.chunks.measured) == 2

    run(body())


def test_only_what_is_the_dead_clients() -> None:
    async def body() -> None:
        async with bench() as b:
            for client in (CLIENT, OTHER):
                b.connect(client)
            opened = await b.written(b"f", 5)
            f = opened.attributes.inode
            other = await b.w.create_open(b"g", client=OTHER)
            await b.w.lock(f, 1, LockType.SHARED)
            await b.w.lock(f, 1, LockType.SHARED, client=OTHER)
            await b.w.lock(f, 2, LockType.EXCLUSIVE, LockKind.FLOCK)
            await b.w.lock(other.attributes.inode, 1, client=OTHER)
            await b.die()
            assert await b.w.held(f) == [(1, LockType.SHARED, 0, LOCK_END)]
            assert len(await b.w.held(other.attributes.inode)) == 1
            [(key, _)] = await b.w.table(b"S")
            assert key == schema.session_key(other.attributes.inode, other.session)
            assert b.pruner.counters["pruned_locks"] == 2

    run(body())


def test_who_gives_up_a_lock_is_told_whether_it_was_taken_away() -> None:
    """A client that was cut off for so long that another may have appended under the lock meanwhile."""

    async def body() -> None:
        async with bench() as b:
            b.connect()
            f = (await b.w.create(b"f")).inode
            await b.w.lock(f, 0, kind=LockKind.APPEND)
            assert await b.w.release_locks(f, 0, LockKind.APPEND)
            assert not await b.w.release_locks(f, 0, LockKind.APPEND)
            await b.w.lock(f, 0, kind=LockKind.APPEND)
            await b.die()
            b.connect()
            assert not await b.w.release_locks(f, 0, LockKind.APPEND)

    run(body())


def test_a_lock_is_leased_for_less_than_it_is_kept() -> None:
    """And its lease is told again to who asks again under the same request."""

    async def body() -> None:
        async with bench() as b:
            f = (await b.w.create(b"f")).inode
            request = Lock(f, CLIENT, 1, LockKind.FLOCK, LockType.EXCLUSIVE, new_request())
            for _ in range(2):
                assert (await lock(b.w.context, request)).lease_ms == LOCK_LEASE_MS
            assert (
                await lock(b.w.context, replace(request, type=LockType.UNLOCK, request=new_request()))
            ).lease_ms == 0
            assert LOCK_LEASE == 2 / 3 and int(TIMEOUT_S * 1000 * LOCK_LEASE) == LOCK_LEASE_MS

    run(body())


def test_who_waits_for_a_dead_clients_lock_gets_it() -> None:
    async def body() -> None:
        async with bench() as b:
            b.connect()
            f = (await b.w.create(b"f")).inode
            await b.w.lock(f, 1)
            waiting = asyncio.create_task(b.w.lock(f, 1, client=OTHER, wait_ms=30_000))
            while not b.w.context.lock_waits.is_queued(f):
                await asyncio.sleep(0)
            await b.die()
            await waiting

    run(body())


def test_a_removed_file_is_queued_and_not_measured() -> None:
    async def body() -> None:
        async with bench() as b:
            b.connect()
            opened = await b.written(b"f", 100)
            await b.w.unlink(b"f")
            await b.die()
            assert b.w.chunks.measured == []
            assert await b.w.collector.collect() == 0, "readers elsewhere have their delay"
            b.w.monotonic.now_ns += GC_DELAY_NS
            assert await b.w.collector.collect() == 1
            assert await b.w.inodes() == {ROOT} and b.w.chunks.of(opened.attributes.inode) == {}

    run(body())


def test_a_removed_file_that_another_holds_is_measured_and_kept() -> None:
    async def body() -> None:
        async with bench() as b:
            for client in (CLIENT, OTHER):
                b.connect(client)
            opened = await b.written(b"f", 100)
            inode = opened.attributes.inode
            held = await b.w.open(b"f", write=False, hold=True, client=OTHER)
            await b.w.unlink(b"f")
            await b.die()
            assert (await b.w.stat(b"", at=inode)).length == 100
            await b.w.collect_all()
            assert b.w.chunks.of(inode)
            await b.die(OTHER)
            await b.w.collect_all()
            assert await b.w.inodes() == {ROOT} and held.session

    run(body())


def test_holds_and_unnamed_files_go_without_asking_storage() -> None:
    async def body() -> None:
        async with bench() as b:
            b.connect()
            b.w.chunks.unreachable = True
            await b.w.create(b"f")
            await b.w.open(b"f", write=False, hold=True)
            before = await b.w.stat(b"f")
            unnamed = await b.w.create_unnamed()
            assert await b.die() == 1
            assert await b.w.table(b"S") == [] and await b.w.stat(b"f") == before
            b.w.chunks.unreachable = False
            assert await b.w.collector.collect() == 1
            assert unnamed.attributes.inode not in await b.w.inodes()

    run(body())


def test_what_storage_keeps_from_being_done_is_tried_again_and_the_rest_is_done() -> None:
    async def body() -> None:
        async with bench() as b:
            b.connect()
            broken, fine = await b.written(b"broken", 10), await b.written(b"fine", 10)
            await b.w.lock(broken.attributes.inode, 1)
            measure = b.w.chunks.measure

            async def measure_if_up(inode: int, layout: Layout) -> int:
                if inode == broken.attributes.inode:
                    raise EmberError(Code.UNREACHABLE, "down")
                return await measure(inode, layout)

            b.w.chunks.measure = measure_if_up  # type: ignore[method-assign]
            assert await b.die() == 0
            assert (await b.w.stat(b"fine")).length == 10 and await b.w.table(b"L") == []
            [(key, _)] = await b.w.table(b"S")
            assert key == schema.session_key(broken.attributes.inode, broken.session)
            b.w.chunks.measure = measure  # type: ignore[method-assign]
            b.now += RETRY_S / 2
            assert await b.prune() == 0 and (await b.w.stat(b"broken")).length == 0, "not at once again"
            b.now += RETRY_S
            assert await b.prune() == 1 and (await b.w.stat(b"broken")).length == 10
            assert fine.session

    run(body())


def test_a_client_that_comes_back_in_the_middle_keeps_the_rest() -> None:
    async def body() -> None:
        async with bench() as b:
            b.connect()
            opened = await b.written(b"f", 10)

            async def back() -> None:
                b.clients.connected(CLIENT)

            b.w.chunks.after_step.append(back)
            await b.die()
            assert len(await b.w.table(b"S")) == 1
            await b.w.close(opened.attributes.inode, opened.session, 10)
            b.clients.disconnected(CLIENT, b.now)
            b.now += TIMEOUT_S
            assert await b.prune() == 1, "it is watched on"

    run(body())


def test_after_a_restart_everybody_has_one_full_time_to_come_back() -> None:
    async def body() -> None:
        async with bench() as b:
            b.connect()
            opened = await b.written(b"f", 10)
            locked = (await b.w.create(b"locked")).inode
            await b.w.lock(locked, 1, client=OTHER)
            b.now += 1e6
            b.restart()
            await b.prune()
            b.now += TIMEOUT_S - 0.1
            assert await b.prune() == 0
            b.clients.connected(CLIENT)
            b.now += 0.1
            assert await b.prune() == 1
            assert await b.w.table(b"L") == [] and len(await b.w.table(b"S")) == 1 and opened.session

    run(body())


def test_a_crash_in_the_middle_is_continued() -> None:
    class Crash(Exception):
        pass

    async def body() -> None:
        async with bench() as b:
            b.connect()
            for number in range(3):
                await b.written(b"%d" % number, 10 + number)
            await b.w.lock((await b.w.stat(b"0")).inode, 1)
            transact = b.w.kv.transact
            steps = 0

            async def crashing(fn, *, relaxed=False):  # type: ignore[no-untyped-def]
                nonlocal steps
                result = await transact(fn, relaxed=relaxed)
                steps += 1
                if steps == 3:
                    raise Crash
                return result

            b.w.kv.transact = crashing  # type: ignore[method-assign]
            with pytest.raises((Crash, ExceptionGroup)):
                await b.die()
            b.w.kv.transact = transact  # type: ignore[method-assign]
            b.restart()
            await b.prune()
            b.now += TIMEOUT_S
            await b.prune()
            assert await b.w.table(b"S") == [] == await b.w.table(b"L")
            assert [(await b.w.stat(b"%d" % number)).length for number in range(3)] == [10, 11, 12]

    run(body())


def test_more_than_a_page_and_side_by_side() -> None:
    async def body() -> None:
        async with bench() as b:
            b.connect()
            count = PAGE + 10
            for number in range(count):
                await b.written(b"%d" % number, 5)
            busy = most = 0
            measure = b.w.chunks.measure

            async def counted(inode: int, layout: Layout) -> int:
                nonlocal busy, most
                busy += 1
                most = max(most, busy)
                await asyncio.sleep(0)
                length = await measure(inode, layout)
                busy -= 1
                return length

            b.w.chunks.measure = counted  # type: ignore[method-assign]
            assert await b.die() == 1
            assert await b.w.table(b"S") == [] and 2 <= most <= prune_module.CONCURRENCY
            assert (await b.w.usage()).total_bytes == 5 * count

    run(body())


def test_a_client_that_was_only_cut_off_has_its_session_again_with_its_next_fsync() -> None:
    async def body() -> None:
        async with bench() as b:
            b.connect()
            opened = await b.written(b"f", 10)
            inode, session = opened.attributes.inode, opened.session
            await b.die()
            assert (await b.w.stat(b"f")).length == 10
            b.write(opened, 30)
            request = meta.Fsync(inode, session, new_request(), 30)
            with fails(errno.EBADF):
                await fsync(b.w.context, request, OTHER)
            request = meta.Fsync(inode, session, new_request(), 30)
            assert (await fsync(b.w.context, request, CLIENT)).attributes.length == 30
            assert len(await b.w.table(b"S")) == 1 and await b.w.table(b"P") == []
            await b.w.unlink(b"f")
            await b.w.collect_all()
            assert b.w.chunks.of(inode), "it keeps the file as it did before"
            await b.w.close(inode, session, 40)

    run(body())


def test_and_with_its_close_and_truncate() -> None:
    async def body() -> None:
        async with bench() as b:
            b.connect()
            opened = await b.written(b"f", 10)
            inode, session = opened.attributes.inode, opened.session
            await b.die()
            cut = meta.Truncate(inode, 5, new_request(), session=session)
            assert (await truncate(b.w.context, cut, CLIENT)).attributes.length == 5
            late = meta.Close(inode, session, new_request(), 8, truncate_version=1)
            with fails(errno.EBADF):
                await close(b.w.context, late, OTHER)
            late = meta.Close(inode, session, new_request(), 8, truncate_version=1)
            assert (await close(b.w.context, late, CLIENT)).attributes.length == 8
            assert await b.w.table(b"S") == [] == await b.w.table(b"P")
            with fails(errno.EBADF):
                await close(b.w.context, meta.Close(inode, session, new_request()), CLIENT)

    run(body())


def test_but_not_to_a_file_that_goes() -> None:
    async def body() -> None:
        async with bench() as b:
            for client in (CLIENT, OTHER):
                b.connect(client)
            opened = await b.written(b"f", 10)
            inode, session = opened.attributes.inode, opened.session
            held = await b.w.open(b"f", write=False, hold=True, client=OTHER)
            await b.die()
            await b.w.unlink(b"f")
            settle = meta.Fsync(inode, session, new_request(), 10)
            assert (await fsync(b.w.context, settle, CLIENT)).attributes.links == 0, "another one keeps it"
            b.connect()
            await b.die()
            await b.w.close(inode, held.session)
            for _ in range(2):
                with fails(errno.EBADF):
                    await fsync(b.w.context, meta.Fsync(inode, session, new_request(), 10), CLIENT)
                with fails(errno.EBADF):
                    await close(b.w.context, meta.Close(inode, session, new_request(), 10), CLIENT)
                await b.w.collect_all()
            assert await b.w.inodes() == {ROOT}

    run(body())


def test_what_a_write_takes_away_goes_as_nobody_knows_whether_it_wrote() -> None:
    async def body() -> None:
        async with bench() as b:
            b.connect()
            opened = await b.written(b"f", 10)
            await b.w.set_attr(b"f", mode=0o6755)
            await b.w.set_xattr(opened.attributes.inode, CAPABILITY, b"caps")
            await b.w.set_xattr(opened.attributes.inode, b"user.a", b"1")
            before = await b.w.stat(b"f")
            await b.die()
            after = await b.w.stat(b"f")
            assert after.mode == 0o755 and after.version > before.version
            assert await b.w.list_xattrs(opened.attributes.inode) == [b"user.a"]

    run(body())


def test_what_a_pruned_writer_stored_does_not_outlive_a_truncate() -> None:
    """It was cut off from here alone, and writes on. Then the file is truncated, and it comes back and reports."""

    async def body() -> None:
        async with bench() as b:
            b.connect()
            opened = await b.written(b"f", 100, settled=100)
            inode = opened.attributes.inode
            await b.die()
            b.write(opened, 5000)
            assert (await b.w.truncate(inode, 100)).length == 100
            b.connect()
            request = meta.Fsync(inode, opened.session, new_request(), 5000)
            assert (await fsync(b.w.context, request, CLIENT)).attributes.length == 100

    run(body())


def test_pruned_sessions_are_remembered_for_a_day() -> None:
    async def body() -> None:
        async with bench() as b:
            b.connect()
            opened = await b.written(b"f", 10)
            await b.die()
            [(key, value)] = await b.w.table(b"P")
            pruned = schema.decode_pruned(value)
            assert schema.split_pruned_key(key) == opened.session
            assert (pruned.client, pruned.inode, pruned.session.write) == (CLIENT, opened.attributes.inode, True)
            b.w.monotonic.now_ns += int(KEEP_S + 1) * 10**9
            b.now += SWEEP_S
            b.connect(OTHER)
            await b.die(OTHER)
            assert await b.w.table(b"P") == []

    run(body())


def test_the_loop_learns_prunes_and_stops() -> None:
    async def body() -> None:
        async with bench() as b:
            await b.w.lock(ROOT, 1)
            stop = asyncio.Event()
            task = asyncio.create_task(b.pruner.run(stop, 0.001))
            while not b.clients._absent_since:
                await asyncio.sleep(0)
            b.now += TIMEOUT_S
            while await b.w.table(b"L"):
                await asyncio.sleep(0)
            stop.set()
            await task

    run(body())


def test_a_damaged_record_does_not_end_the_loop() -> None:
    async def body() -> None:
        async with bench() as b:
            key = schema.session_key(ROOT, b"s" * 16)

            async def damage(txn: Transaction) -> None:
                txn.put(key, b"\x01?")

            async def repair(txn: Transaction) -> None:
                txn.delete(key)

            await b.w.kv.transact(damage)
            stop = asyncio.Event()
            task = asyncio.create_task(b.pruner.run(stop, 0.001))
            for _ in range(20):
                await asyncio.sleep(0)
            assert not task.done()
            await b.w.kv.transact(repair)
            await b.w.lock(ROOT, 1)
            while not b.clients._absent_since:
                await asyncio.sleep(0.001)
            stop.set()
            await task

    run(body())
