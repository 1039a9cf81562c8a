"""Locks as operations: errors as of fcntl(2) and flock(2), waiting and its ends, restarts and copies of requests."""

import asyncio
import errno
import itertools
from collections.abc import Coroutine
from typing import Any

import pytest

from fs_common.errors import Code, EmberError
from fs_common.limits import LOCKS_MAX
from fs_common.records.locks import LOCK_END, LockKind, LockType
from fs_meta import schema
from fs_meta.kv.interface import Transaction
from fs_meta.locks import waits
from fs_meta.ops import lock as lock_module
from fs_meta.schema import HeldLock
from tests.meta.world import CLIENT, World, fails, new_request, world
from tests.support import run

UNLOCK, SHARED, EXCLUSIVE = LockType
FLOCK, RANGE, APPEND = LockKind
OTHER = b"o" * 16
WAIT_MS = 30_000
"""Longer than a test runs: whoever waits for it waits until something else happens."""


async def _file(w: World, path: bytes = b"f") -> int:
    return (await w.create(path)).inode


async def _queued(w: World, inode: int, count: int) -> None:
    """Return once so many calls wait for a lock on the file."""
    while sum(waiter.inode == inode for waiter in w.context.lock_waits._queues) != count:
        await asyncio.sleep(0)


async def _settled() -> None:
    """Everything that can run without an outside event has run: transactions in memory take a few turns of the loop."""
    for _ in range(50):
        await asyncio.sleep(0)


def _start(call: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
    return asyncio.create_task(call)


def test_shared_go_together_and_exclusive_alone() -> None:
    async def body() -> None:
        async with world() as w:
            f = await _file(w)
            for kind in (FLOCK, RANGE):
                await w.lock(f, 1, SHARED, kind)
                await w.lock(f, 2, SHARED, kind)
                with fails(errno.EAGAIN):
                    await w.lock(f, 3, EXCLUSIVE, kind)
                await w.unlock(f, 1, kind)
                await w.lock(f, 2, EXCLUSIVE, kind)
                for type_ in (SHARED, EXCLUSIVE):
                    with fails(errno.EAGAIN):
                        await w.lock(f, 3, type_, kind)
                await w.lock(f, 2, SHARED, kind)
                await w.lock(f, 3, SHARED, kind)

    run(body())


def test_an_owner_is_of_a_client() -> None:
    async def body() -> None:
        async with world() as w:
            f = await _file(w)
            await w.lock(f, 1)
            with fails(errno.EAGAIN):
                await w.lock(f, 1, client=OTHER)
            await w.unlock(f, 1, client=OTHER)
            await w.release_locks(f, 1, client=OTHER)
            assert len(await w.held(f)) == 1

    run(body())


def test_kinds_and_files_are_apart() -> None:
    async def body() -> None:
        async with world() as w:
            f, g = await _file(w), await _file(w, b"g")
            for kind in (FLOCK, RANGE, APPEND):
                await w.lock(f, int(kind), EXCLUSIVE, kind)
            await w.lock(g, 9)
            await w.release_locks(f, 1, FLOCK)
            assert [owner for owner, *_ in await w.held(f)] == [2, 3]

    run(body())


def test_ranges() -> None:
    async def body() -> None:
        async with world() as w:
            f = await _file(w)
            await w.lock(f, 1, start=0, end=99)
            await w.unlock(f, 1, start=40, end=59)
            await w.lock(f, 2, start=40, end=59)
            with fails(errno.EAGAIN):
                await w.lock(f, 2, start=59, end=60)
            await w.lock(f, 1, SHARED, start=60, end=LOCK_END)
            assert await w.held(f) == [
                (1, EXCLUSIVE, 0, 39), (1, SHARED, 60, LOCK_END), (2, EXCLUSIVE, 40, 59),
            ]  # fmt: skip
            await w.release_locks(f, 1)
            assert await w.held(f) == [(2, EXCLUSIVE, 40, 59)]
            await w.unlock(f, 2)
            assert await w.table(b"L") == []

    run(body())


@pytest.mark.parametrize(
    ("kind", "type_", "more"),
    [
        (0, 1, {}),
        (4, 1, {}),
        (2, 3, {}),
        (2, -1, {}),
        (3, 1, {}),
        (2, 1, {"start": -1}),
        (2, 1, {"start": 5, "end": 4}),
        (2, 1, {"end": LOCK_END + 1}),
    ],
)
def test_what_is_no_lock(kind: int, type_: int, more: dict[str, int]) -> None:
    async def body() -> None:
        async with world() as w:
            f = await _file(w)
            with fails(errno.EINVAL):
                await w.lock(f, 1, type_, kind, **more)
            with fails(errno.EINVAL):
                await w.get_lock(f, 1, type_, kind, **more)
            with fails(errno.EINVAL):
                await w.release_locks(f, 1, 0)

    run(body())


def test_files_that_are_gone() -> None:
    async def body() -> None:
        async with world() as w:
            with fails(errno.ESTALE):
                await w.lock(99, 1)
            with fails(errno.ESTALE):
                await w.get_lock(99, 1)
            await w.unlock(99, 1)
            await w.release_locks(99, 1)
            f = await _file(w)
            await w.lock(f, 1)
            await w.unlink(b"f")
            assert await w.held(f), "a removed file is locked as long as it is there"
            await w.collect_all()
            assert await w.table(b"L") == []

    run(body())


def test_get_lock_names_the_first_in_the_way() -> None:
    async def body() -> None:
        async with world() as w:
            f = await _file(w)
            assert (await w.get_lock(f, 1)).type == UNLOCK
            await w.lock(f, 2, SHARED, start=50, end=59, process=222)
            await w.lock(f, 3, EXCLUSIVE, start=20, end=29, process=333, client=OTHER)
            found = await w.get_lock(f, 1)
            assert (found.type, found.start, found.end, found.process) == (EXCLUSIVE, 20, 29, 0)
            found = await w.get_lock(f, 1, start=30)
            assert (found.type, found.start, found.end, found.process) == (SHARED, 50, 59, 222)
            for mine in (
                await w.get_lock(f, 1, SHARED, start=30),
                await w.get_lock(f, 1, end=19),
                await w.get_lock(f, 3, start=20, end=29, client=OTHER),
                await w.get_lock(f, 1, kind=FLOCK),
            ):
                assert mine.type == UNLOCK
            with fails(errno.EINVAL):
                await w.get_lock(f, 1, UNLOCK)

    run(body())


def test_append_answers_the_file_as_it_is() -> None:
    async def body() -> None:
        async with world() as w:
            opened = await w.create_open(b"f")
            f = opened.attributes.inode
            await w.fsync(f, opened.session, 70)
            taken = await w.lock(f, 1, EXCLUSIVE, APPEND)
            assert taken == await w.stat(b"f") and taken is not None and taken.length == 70
            waiting = _start(w.lock(f, 2, EXCLUSIVE, APPEND, wait_ms=WAIT_MS))
            await _queued(w, f, 1)
            await w.fsync(f, opened.session, 90)
            await w.unlock(f, 1, APPEND)
            assert (await waiting).length == 90
            assert await w.lock(f, 3, EXCLUSIVE, FLOCK) is None
            with fails(errno.EINVAL):
                await w.lock((await w.mkdir(b"d")).inode, 1, EXCLUSIVE, APPEND)

    run(body())


def test_directories_are_locked_like_files() -> None:
    async def body() -> None:
        async with world() as w:
            d = (await w.mkdir(b"d")).inode
            await w.lock(d, 1, EXCLUSIVE, FLOCK)
            with fails(errno.EAGAIN):
                await w.lock(d, 2, SHARED, FLOCK)
            await w.rmdir(b"d")
            assert await w.table(b"L") == []

    run(body())


def test_a_file_has_so_many_locks_and_no_more() -> None:
    async def body() -> None:
        async with world() as w:
            f = await _file(w)
            many = [HeldLock(RANGE, SHARED, CLIENT, 1, 2 * n, 2 * n, 0) for n in range(LOCKS_MAX)]

            async def put(txn: Transaction) -> None:
                txn.put(schema.locks_key(f), schema.encode(schema.Locks(many)))

            await w.kv.transact(put)
            with fails(errno.ENOLCK):
                await w.lock(f, 2, SHARED)
            await w.lock(f, 1, SHARED, start=0, end=2)
            await w.lock(f, 2, SHARED)
            await w.unlock(f, 1)

    run(body())


# flock(2) changes of type


def test_flock_changes_at_once_where_it_can() -> None:
    async def body() -> None:
        async with world() as w:
            f = await _file(w)
            for type_ in (SHARED, EXCLUSIVE, SHARED, SHARED):
                await w.lock(f, 1, type_, FLOCK)
                assert await w.held(f) == [(1, type_, 0, LOCK_END)]

    run(body())


def test_a_refused_flock_upgrade_has_lost_the_old_lock() -> None:
    async def body() -> None:
        async with world() as w:
            f = await _file(w)
            await w.lock(f, 1, SHARED, FLOCK)
            await w.lock(f, 2, SHARED, FLOCK)
            request = new_request()
            for _ in range(2):
                with fails(errno.EAGAIN):
                    await w.lock(f, 1, EXCLUSIVE, FLOCK, request=request)
                assert await w.held(f) == [(2, SHARED, 0, LOCK_END)]
            await w.lock(f, 1, SHARED, FLOCK)
            with fails(errno.EAGAIN):
                await w.lock(f, 1, EXCLUSIVE, FLOCK, request=request)
            assert len(await w.held(f)) == 2, "a late copy of the upgrade drops nothing"

    run(body())


def test_two_who_upgrade_a_flock_both_get_it() -> None:
    async def body() -> None:
        async with world() as w:
            f = await _file(w)
            await w.lock(f, 1, SHARED, FLOCK)
            await w.lock(f, 2, SHARED, FLOCK)
            first = _start(w.lock(f, 1, EXCLUSIVE, FLOCK, wait_ms=WAIT_MS))
            await _queued(w, f, 1)
            await w.lock(f, 2, EXCLUSIVE, FLOCK, wait_ms=WAIT_MS)
            await _settled()
            assert not first.done()
            await w.unlock(f, 2, FLOCK)
            await first

    run(body())


def test_a_range_upgrade_that_is_refused_keeps_the_old_lock() -> None:
    async def body() -> None:
        async with world() as w:
            f = await _file(w)
            await w.lock(f, 1, SHARED)
            await w.lock(f, 2, SHARED)
            with fails(errno.EAGAIN):
                await w.lock(f, 1, EXCLUSIVE)
            assert len(await w.held(f)) == 2

    run(body())


# Waiting


def test_a_caller_waits_for_so_many_locks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the connection would have no room for the calls that give them up."""
    monkeypatch.setattr(waits, "WAITS_MAX", 3)

    async def body() -> None:
        async with world() as w:
            f = await _file(w)
            await w.lock(f, 0)
            waiting = [_start(w.lock(f, owner, SHARED, wait_ms=WAIT_MS)) for owner in range(1, 4)]
            await _queued(w, f, 3)
            request = new_request()
            with pytest.raises(EmberError) as caught:
                await w.lock(f, 4, SHARED, request=request, wait_ms=WAIT_MS)
            assert caught.value.code is Code.BUSY
            await w.unlock(f, 0)
            await asyncio.gather(*waiting)
            await w.lock(f, 4, SHARED, request=request, wait_ms=WAIT_MS)

    run(body())


@pytest.mark.parametrize("kind", [FLOCK, RANGE, APPEND])
def test_waiters_get_it_in_the_order_of_arrival(kind: LockKind) -> None:
    async def body() -> None:
        async with world() as w:
            f = await _file(w)
            await w.lock(f, 0, EXCLUSIVE, kind)
            order: list[int] = []

            async def wait(owner: int) -> None:
                await w.lock(f, owner, EXCLUSIVE, kind, wait_ms=WAIT_MS)
                order.append(owner)
                await w.unlock(f, owner, kind)

            tasks = []
            for owner in range(1, 9):
                tasks.append(_start(wait(owner)))
                await _queued(w, f, owner)
            await w.unlock(f, 0, kind)
            await asyncio.gather(*tasks)
            assert order == list(range(1, 9))

    run(body())


def test_a_wait_ends_when_its_time_is_over_and_for_good() -> None:
    async def body() -> None:
        async with world() as w:
            f = await _file(w)
            await w.lock(f, 1)
            request = new_request()
            with fails(errno.EAGAIN):
                await w.lock(f, 2, request=request, wait_ms=5)
            await w.unlock(f, 1)
            with fails(errno.EAGAIN):
                await w.lock(f, 2, request=request, wait_ms=WAIT_MS)
            assert await w.held(f) == [] and not w.context.lock_waits.is_queued(f)

    run(body())


def test_an_exclusive_waiter_is_not_passed_by_shared_ones_that_wait() -> None:
    async def body() -> None:
        async with world() as w:
            f = await _file(w)
            await w.lock(f, 1, SHARED)
            exclusive = _start(w.lock(f, 2, wait_ms=WAIT_MS))
            await _queued(w, f, 1)
            shared = _start(w.lock(f, 3, SHARED, wait_ms=WAIT_MS))
            await _settled()
            assert not shared.done()
            await w.lock(f, 4, SHARED)  # who does not wait takes what is free
            await w.unlock(f, 4)
            await w.unlock(f, 1)
            await exclusive
            assert not shared.done()
            await w.unlock(f, 2)
            await shared

    run(body())


def test_who_was_held_back_for_long_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_module, "HELD_BACK_S", 0.01)

    async def body() -> None:
        async with world() as w:
            f = await _file(w)
            await w.lock(f, 1, SHARED)
            exclusive = _start(w.lock(f, 2, wait_ms=WAIT_MS))
            await _queued(w, f, 1)
            await w.lock(f, 3, SHARED, wait_ms=WAIT_MS)
            assert not exclusive.done()
            for owner in (1, 3):
                await w.unlock(f, owner)
            await exclusive

    run(body())


def test_a_waiter_who_leaves_frees_those_it_held_back() -> None:
    async def body() -> None:
        async with world() as w:
            f = await _file(w)
            await w.lock(f, 1, SHARED)
            exclusive = _start(w.lock(f, 2, wait_ms=WAIT_MS))
            await _queued(w, f, 1)
            shared = _start(w.lock(f, 3, SHARED, wait_ms=WAIT_MS))
            await _queued(w, f, 2)
            exclusive.cancel()
            await shared
            assert not w.context.lock_waits.is_queued(f)
            assert (await asyncio.gather(exclusive, return_exceptions=True))[0].__class__ is asyncio.CancelledError

    run(body())


def test_a_lost_caller_leaves_and_its_next_copy_waits_on() -> None:
    async def body() -> None:
        async with world() as w:
            f = await _file(w)
            await w.lock(f, 1)
            request = new_request()
            lost = _start(w.lock(f, 2, request=request, wait_ms=WAIT_MS))
            await _queued(w, f, 1)
            w.context.lock_waits.caller_lost(object())
            await _settled()
            assert not lost.done()
            w.context.lock_waits.caller_lost(w)
            with pytest.raises(EmberError) as caught:
                await lost
            assert caught.value.code is Code.CANCELLED
            again = _start(w.lock(f, 2, request=request, wait_ms=WAIT_MS))
            await _queued(w, f, 1)
            await w.unlock(f, 1)
            await again
            assert await w.held(f) == [(2, EXCLUSIVE, 0, LOCK_END)]

    run(body())


def test_the_same_request_without_waiting_gives_up() -> None:
    async def body() -> None:
        async with world() as w:
            f = await _file(w)
            await w.lock(f, 1)
            request = new_request()
            waiting = _start(w.lock(f, 2, request=request, wait_ms=WAIT_MS))
            await _queued(w, f, 1)
            with fails(errno.EAGAIN):
                await w.lock(f, 2, request=request)
            with fails(errno.EAGAIN):
                await waiting
            await w.unlock(f, 1)
            assert await w.held(f) == []
            taken = new_request()
            await w.lock(f, 2, request=taken, wait_ms=WAIT_MS)
            await w.lock(f, 2, request=taken)  # had it already

    run(body())


def test_copies_of_a_waiting_request_end_together() -> None:
    async def body() -> None:
        async with world() as w:
            f = await _file(w)
            await w.lock(f, 1)
            request = new_request()
            copies = [_start(w.lock(f, 2, request=request, wait_ms=WAIT_MS)) for _ in range(3)]
            await _queued(w, f, 3)
            behind = _start(w.lock(f, 3, wait_ms=WAIT_MS))
            await _queued(w, f, 4)
            await w.unlock(f, 1)
            await asyncio.gather(*copies)
            await _settled()
            assert not behind.done()
            await w.unlock(f, 2)
            await behind

    run(body())


def test_a_server_that_ends_ends_the_waits() -> None:
    async def body() -> None:
        async with world() as w:
            f = await _file(w)
            await w.lock(f, 1)
            waiting = _start(w.lock(f, 2, wait_ms=WAIT_MS))
            await _queued(w, f, 1)
            w.context.lock_waits.close()
            for call in (waiting, w.lock(f, 2, wait_ms=WAIT_MS)):
                with pytest.raises(EmberError) as caught:
                    await call
                assert caught.value.code is Code.CLOSING

    run(body())


def test_locks_and_waits_survive_a_restart_of_the_server() -> None:
    async def body() -> None:
        async with world() as w:
            f = await _file(w)
            await w.lock(f, 1)
            request = new_request()
            waiting = _start(w.lock(f, 2, request=request, wait_ms=WAIT_MS))
            await _queued(w, f, 1)
            before, w.context = w.context, w.new_context()
            before.lock_waits.close()
            await asyncio.gather(waiting, return_exceptions=True)
            await before.inode_ids.close()
            with fails(errno.EAGAIN):
                await w.lock(f, 3)
            again = _start(w.lock(f, 2, request=request, wait_ms=WAIT_MS))
            await _queued(w, f, 1)
            await w.unlock(f, 1)
            await again

    run(body())


def test_a_circle_is_refused_where_it_closes_and_the_others_go_on() -> None:
    async def body() -> None:
        async with world() as w:
            files = [await _file(w, b"%d" % n) for n in range(3)]
            for owner, f in enumerate(files):
                await w.lock(f, owner)
            waiting = []
            for owner in (0, 1):
                waiting.append(_start(w.lock(files[owner + 1], owner, wait_ms=WAIT_MS)))
                await _queued(w, files[owner + 1], 1)
            request = new_request()
            for _ in range(2):
                with fails(errno.EDEADLK):
                    await w.lock(files[0], 2, request=request, wait_ms=WAIT_MS)
            with fails(errno.EAGAIN):
                await w.lock(files[0], 2)
            await w.unlock(files[2], 2)
            await waiting[1]
            for f in files:
                await w.unlock(f, 1)
            await waiting[0]

    run(body())


def test_flock_waits_in_a_circle_are_not_looked_for() -> None:
    async def body() -> None:
        async with world() as w:
            f, g = await _file(w), await _file(w, b"g")
            await w.lock(f, 1, EXCLUSIVE, FLOCK)
            await w.lock(g, 2, EXCLUSIVE, FLOCK)
            waiting = _start(w.lock(g, 1, EXCLUSIVE, FLOCK, wait_ms=WAIT_MS))
            await _queued(w, g, 1)
            with fails(errno.EAGAIN):
                await w.lock(f, 2, EXCLUSIVE, FLOCK, wait_ms=5)
            await w.unlock(g, 2, FLOCK)
            await waiting

    run(body())


def test_a_circle_through_who_is_held_back_is_no_deadlock() -> None:
    async def body() -> None:
        async with world() as w:
            f, g = await _file(w), await _file(w, b"g")
            await w.lock(g, 1)
            await w.lock(f, 3, SHARED)
            exclusive = _start(w.lock(f, 4, wait_ms=WAIT_MS))
            await _queued(w, f, 1)
            held_back = _start(w.lock(f, 1, SHARED, wait_ms=WAIT_MS))
            await _queued(w, f, 2)
            closing = _start(w.lock(g, 3, wait_ms=WAIT_MS))
            await held_back
            assert not closing.done() and not exclusive.done()
            await w.unlock(g, 1)
            await closing
            for owner in (1, 3):
                await w.unlock(f, owner)
            await exclusive

    run(body())


@pytest.mark.parametrize("kind", [FLOCK, RANGE, APPEND])
def test_one_at_a_time_under_a_crowd(kind: LockKind) -> None:
    async def body() -> None:
        async with world() as w:
            f = await _file(w)
            inside: set[int] = set()
            turns = itertools.count()

            async def work(owner: int) -> None:
                for _ in range(5):
                    await w.lock(f, owner, EXCLUSIVE, kind, wait_ms=WAIT_MS)
                    inside.add(owner)
                    await asyncio.sleep(0)
                    assert inside == {owner}
                    next(turns)
                    inside.remove(owner)
                    await w.unlock(f, owner, kind)

            await asyncio.gather(*[work(owner) for owner in range(20)])
            assert next(turns) == 100 and await w.held(f) == []

    run(body())
