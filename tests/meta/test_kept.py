"""kept: what may be taken for a hole, and for how long."""

import errno

import pytest

from fs_common.limits import BATCH_NAMES_MAX
from fs_common.records import meta
from fs_common.records.meta import OpenReply
from fs_meta.kv.interface import Transaction
from fs_meta.ops.inodes import put_inode
from fs_meta.ops.kept import GONE, kept
from fs_meta.ops.resolve import get_inode
from fs_meta.service_time import ServiceTime
from tests.meta.world import GC_DELAY_NS, KEEP_NS, ROOT, Clock, World, fails, world
from tests.support import run

DELAY_MS = GC_DELAY_NS // 10**6


async def _kept(w: World, *inodes: int) -> list[int]:
    return (await kept(w.context, meta.Kept(list(inodes)))).for_ms


async def _written(w: World, path: bytes) -> OpenReply:
    opened = await w.create_open(path)
    assert opened.attributes.layout is not None
    w.chunks.write(opened.attributes.inode, opened.attributes.layout, 10)
    return opened


def test_a_file_with_a_name_is_kept_for_the_delay_and_nothing_else_is() -> None:
    async def body() -> None:
        async with world() as w:
            f = await w.create(b"f")
            link = await w.symlink(b"link", b"f")
            assert await _kept(w, 999, f.inode, ROOT, link.inode, f.inode) == [GONE, DELAY_MS, GONE, GONE, DELAY_MS]
            assert await _kept(w) == []
            with fails(errno.EINVAL):
                await _kept(w, *[f.inode] * (BATCH_NAMES_MAX + 1))

    run(body())


def test_a_removed_file_is_kept_until_it_is_due() -> None:
    """From then on, not from when its chunks are gone: between the two they go one by one."""

    async def body() -> None:
        async with world() as w:
            opened = await _written(w, b"f")
            inode = opened.attributes.inode
            await w.close(inode, opened.session, 10)
            await w.unlink(b"f")
            w.monotonic.now_ns += GC_DELAY_NS - 10**9
            [left_ms] = await _kept(w, inode)
            assert 0 < left_ms < 1000
            w.monotonic.now_ns += 10**9
            assert w.chunks.of(inode) and await _kept(w, inode) == [GONE]
            await w.collector.collect()
            assert await _kept(w, inode) == [GONE]

    run(body())


def test_who_has_a_removed_file_open_keeps_it() -> None:
    async def body() -> None:
        async with world() as w:
            opened = await _written(w, b"f")
            inode = opened.attributes.inode
            await w.unlink(b"f")
            w.monotonic.now_ns += 10 * GC_DELAY_NS
            assert await _kept(w, inode) == [DELAY_MS]
            await w.close(inode, opened.session, 10)
            [left_ms] = await _kept(w, inode)
            assert DELAY_MS - 1000 < left_ms <= DELAY_MS

    run(body())


def test_an_unnamed_file_is_kept_but_for_no_time_that_can_be_told() -> None:
    """It goes at once with its last session."""

    async def body() -> None:
        async with world() as w:
            opened = await w.create_unnamed()
            inode = opened.attributes.inode
            assert await _kept(w, inode) == [0]
            await w.close(inode, opened.session)
            assert await _kept(w, inode) == [GONE]

    run(body())


def test_a_process_that_comes_after_a_crash_knows_what_was_being_collected() -> None:
    async def body() -> None:
        async with world() as w:
            opened = await _written(w, b"f")
            inode = opened.attributes.inode
            await w.close(inode, opened.session, 10)
            await w.unlink(b"f")
            w.monotonic.now_ns += GC_DELAY_NS
            w.chunks.unreachable = True  # some chunks are gone, and the collector comes again
            assert await w.collector.collect() == 0
            w.service_time = ServiceTime(w.kv, Clock(0))
            await w.service_time.begin(KEEP_NS, GC_DELAY_NS)
            w.context = w.new_context()
            assert await _kept(w, inode) == [GONE]

    run(body())


def test_another_server_may_be_ahead() -> None:
    async def body() -> None:
        async with world() as w:
            opened = await _written(w, b"f")
            inode = opened.attributes.inode
            await w.close(inode, opened.session, 10)
            await w.unlink(b"f")
            other = ServiceTime(w.kv, Clock(0))
            await other.begin(KEEP_NS, GC_DELAY_NS)
            other._ahead_ns += 2 * GC_DELAY_NS
            await other.keep()
            assert await _kept(w, inode) == [GONE]

    run(body())


def test_a_file_that_was_queued_before_files_were_marked_is_not_kept() -> None:
    async def body() -> None:
        async with world() as w:
            f = await w.create(b"f")
            await w.unlink(b"f")

            async def unmark(txn: Transaction) -> None:
                record = await get_inode(txn, f.inode)
                record.due_ns = 0
                put_inode(txn, f.inode, record)

            await w.kv.transact(unmark)
            assert await _kept(w, f.inode) == [GONE]

    run(body())


@pytest.mark.parametrize("restarts", [1, 3])
def test_a_shorter_delay_counts_when_what_was_told_is_over(restarts: int) -> None:
    async def body() -> None:
        async with world() as w:
            clock = w.monotonic

            async def restart() -> None:
                w.service_time = ServiceTime(w.kv, clock)
                await w.service_time.begin(KEEP_NS, 5)
                w.context = w.new_context()
                w.context.gc_delay_ns = 5

            async def due_ns(name: bytes) -> int:
                inode = (await w.create(name)).inode
                await w.unlink(name)
                return (await w.kv.read(lambda txn: get_inode(txn, inode))).due_ns

            assert await _kept(w, (await w.create(b"f")).inode) == [DELAY_MS]
            for _ in range(restarts):
                await restart()
            begun_ns = w.service_time.now_ns()
            assert begun_ns + GC_DELAY_NS - 10**9 < await due_ns(b"g") <= begun_ns + GC_DELAY_NS
            clock.now_ns += GC_DELAY_NS
            await w.service_time.keep()
            assert await due_ns(b"h") <= w.service_time.now_ns()
            await restart()
            assert await due_ns(b"i") <= w.service_time.now_ns()

    run(body())
