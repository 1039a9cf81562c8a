"""The collector: what it frees, when, in what steps, and what it survives."""

import asyncio
from collections.abc import Sequence

import pytest

from fs_common.errors import Code, EmberError
from fs_common.layout import Layout
from fs_common.records.meta import Attributes
from fs_meta import fsck, schema
from fs_meta.gc import BATCH, CONCURRENCY, PAGE, STEP, TREE_STEPS, Collector
from fs_meta.kv.interface import Transaction
from fs_meta.pace import Pace
from tests.meta.world import GC_DELAY_NS, RETRY_NS, ROOT, World, world
from tests.support import run


async def _written(w: World, path: bytes, length: int = 100) -> Attributes:
    opened = await w.create_open(path)
    layout = opened.attributes.layout
    assert layout is not None
    w.chunks.write(opened.attributes.inode, layout, length)
    return await w.close(opened.attributes.inode, opened.session, length)


def test_a_removed_file_goes_after_the_delay_chunks_first() -> None:
    async def body() -> None:
        async with world() as w:
            f = await _written(w, b"f")
            await w.unlink(b"f")
            w.monotonic.now_ns += GC_DELAY_NS - 10**9
            assert await w.collector.collect() == 0
            assert w.chunks.of(f.inode)
            w.monotonic.now_ns += 10**9
            assert await w.collector.collect() == 1
            assert w.chunks.lengths == {} and await w.inodes() == {ROOT} and await w.table(b"G") == []
            assert w.collector.counters["gc_files"] == 1

    run(body())


def test_storage_that_does_not_answer_delays_only_what_is_on_it() -> None:
    async def body() -> None:
        async with world() as w:
            broken, fine = await _written(w, b"broken"), await _written(w, b"fine")
            remove = w.chunks.remove

            async def remove_if_up(files: Sequence[tuple[int, Layout]]) -> list[EmberError | None]:
                await remove([file for file in files if file[0] != broken.inode])
                return [EmberError(Code.UNREACHABLE, "down") if file[0] == broken.inode else None for file in files]

            w.chunks.remove = remove_if_up  # type: ignore[method-assign]
            await w.unlink(b"broken")
            await w.unlink(b"fine")
            w.monotonic.now_ns += GC_DELAY_NS
            assert await w.collector.collect() == 1
            assert not w.chunks.of(fine.inode) and w.chunks.of(broken.inode)
            [(key, value)] = await w.table(b"G")
            assert schema.decode_garbage(value).attempts == 1
            assert schema.split_garbage_key(key)[0] > w.service_time.now_ns() + RETRY_NS - 10**9
            assert await w.collector.collect() == 0
            w.chunks.remove = remove  # type: ignore[method-assign]
            w.monotonic.now_ns += RETRY_NS
            assert await w.collector.collect() == 1
            assert await w.inodes() == {ROOT}

    run(body())


def test_a_crash_between_chunks_and_inode_is_repeated() -> None:
    class Crash(Exception):
        pass

    async def body() -> None:
        async with world() as w:
            f = await _written(w, b"f")
            await w.unlink(b"f")
            w.monotonic.now_ns += GC_DELAY_NS
            remove = w.chunks.remove

            async def remove_and_crash(files: Sequence[tuple[int, Layout]]) -> list[EmberError | None]:
                await remove(files)
                raise Crash

            w.chunks.remove = remove_and_crash  # type: ignore[method-assign]
            try:
                await w.collector.collect()
            except* Crash:
                pass
            w.chunks.remove = remove  # type: ignore[method-assign]
            assert f.inode in await w.inodes()
            after_restart = Collector(w.new_context(), retry_ns=RETRY_NS)
            assert await after_restart.collect() == 1
            assert await w.inodes() == {ROOT}

    run(body())


def test_files_that_nobody_wrote_cost_no_call_to_storage() -> None:
    async def body() -> None:
        async with world() as w:
            await w.batch_create([b"%d" % number for number in range(5)], parent=(await w.mkdir(b"d")).inode)
            written, grown = await _written(w, b"d/written"), await w.create(b"d/grown")
            await w.truncate(grown.inode, 5)
            opened = await w.open(b"d/0")
            await w.close(opened.attributes.inode, opened.session)
            asked = {written.inode, grown.inode, opened.attributes.inode}
            w.chunks.unreachable = True
            await w.remove_tree(b"d")
            await w.collect_all()
            assert await w.inodes() == {ROOT} | asked
            assert {inode for inodes in w.chunks.removals for inode in inodes} == asked
            w.chunks.unreachable = False
            await w.collect_all()
            assert await w.inodes() == {ROOT}

    run(body())


def test_a_damaged_inode_keeps_no_others() -> None:
    async def body() -> None:
        async with world() as w:
            damaged, fine = await _written(w, b"damaged"), await _written(w, b"fine")
            await w.unlink(b"damaged")
            await w.unlink(b"fine")
            key = schema.inode_key(damaged.inode)
            [sound] = [value for of, value in await w.table(b"I") if of == key]

            async def put(txn: Transaction, value: bytes = b"\x01?") -> None:
                txn.put(key, value)

            await w.kv.transact(put)
            w.monotonic.now_ns += GC_DELAY_NS
            assert await w.collector.collect() == 1
            assert not w.chunks.of(fine.inode) and w.chunks.of(damaged.inode)
            await w.kv.transact(lambda txn: put(txn, sound))
            await w.collect_all()
            assert await w.inodes() == {ROOT}

    run(body())


def test_a_tree_is_taken_apart_in_bounded_steps() -> None:
    async def body() -> None:
        async with world() as w:
            d = await w.mkdir(b"d")
            count = STEP * 2 + 5
            await w.batch_create([b"%d" % number for number in range(count)], parent=d.inode)
            await w.mkdir(b"d/a/b/c", parents=True)
            await w.symlink(b"d/a/link", b"x")
            f = await _written(w, b"d/a/b/f")
            outside = await w.create(b"outside")
            await w.link(b"outside", b"d/a/outside")
            await w.remove_tree(b"d")
            largest = 0
            transact = w.kv.transact

            async def measured(fn, *, relaxed=False):  # type: ignore[no-untyped-def]
                async def counted(txn):  # type: ignore[no-untyped-def]
                    nonlocal largest
                    result = await fn(txn)
                    largest = max(largest, len(txn.writes))
                    return result

                return await transact(counted, relaxed=relaxed)

            w.kv.transact = measured  # type: ignore[method-assign]
            while await w.collector.collect():
                assert not fsck.check(await w.dump())
            w.kv.transact = transact  # type: ignore[method-assign]
            assert 0 < largest <= 4 * STEP
            assert w.chunks.of(f.inode), "files wait for their readers"
            assert await w.table(b"D") == [pair for pair in await w.table(b"D") if pair[0].endswith(b"outside")]
            await w.collect_all()
            assert await w.inodes() == {ROOT, outside.inode}
            assert (await w.stat(b"outside")).links == 1
            assert w.chunks.lengths == {}

    run(body())


def test_a_file_in_a_tree_that_is_open_for_writing_is_kept() -> None:
    async def body() -> None:
        async with world() as w:
            await w.mkdir(b"d")
            opened = await w.create_open(b"d/f")
            inode = opened.attributes.inode
            await w.remove_tree(b"d")
            await w.collect_all()
            assert await w.inodes() == {ROOT, inode}
            assert (await w.close(inode, opened.session, 5)).length == 5
            await w.collect_all()
            assert await w.inodes() == {ROOT}

    run(body())


def test_what_is_put_into_a_tree_while_it_is_taken_apart_goes_with_it() -> None:
    """Someone still knows the inode of a directory deep inside."""

    async def body() -> None:
        async with world() as w:
            deep = await w.mkdir(b"d/deep", parents=True)
            await w.remove_tree(b"d")
            await w.create(b"late", at=deep.inode)
            await w.mkdir(b"late_too", at=deep.inode)
            await w.collect_all()
            assert await w.inodes() == {ROOT}

    run(body())


def test_more_than_a_page_in_batches_side_by_side() -> None:
    async def body() -> None:
        async with world() as w:
            count = PAGE + 20
            for number in range(count):
                await _written(w, b"%d" % number)
                await w.unlink(b"%d" % number)
            busy = most = 0
            remove = w.chunks.remove

            async def counted(files: Sequence[tuple[int, Layout]]) -> list[EmberError | None]:
                nonlocal busy, most
                busy += 1
                most = max(most, busy)
                await asyncio.sleep(0)
                outcomes = await remove(files)
                busy -= 1
                return outcomes

            w.chunks.remove = counted  # type: ignore[method-assign]
            w.monotonic.now_ns += GC_DELAY_NS
            assert await w.collector.collect() == PAGE
            assert await w.collector.collect() == 20
            assert most <= CONCURRENCY and all(len(inodes) <= BATCH for inodes in w.chunks.removals)
            assert len(w.chunks.removals) == -(-PAGE // BATCH) + -(-20 // BATCH)
            assert await w.inodes() == {ROOT}

    run(body())


def test_a_large_directory_does_not_keep_the_pass() -> None:
    async def body() -> None:
        async with world() as w:
            d = await w.mkdir(b"d")
            count = STEP * TREE_STEPS + 5
            await w.batch_create([b"%d" % number for number in range(count)], parent=d.inode)
            await w.remove_tree(b"d")
            assert await w.collector.collect() == TREE_STEPS
            assert len(await w.names(d.inode)) == 5
            assert await w.collector.collect() == 2
            assert d.inode not in await w.inodes()

    run(body())


def test_freeing_leaves_the_loop_to_others() -> None:
    """For each second of work there are so many of rest, also when steps come side by side."""
    pace = Pace(0.25)
    assert pace.pause_s(0.001, 100.0) == pytest.approx(0.003)
    assert pace.pause_s(0.001, 100.001) == pytest.approx(0.005)
    assert pace.pause_s(0.002, 200.0) == pytest.approx(0.006), "what was left over is not saved up"


def test_the_loop_collects_and_stops() -> None:
    async def body() -> None:
        async with world() as w:
            await w.create(b"f")
            await w.unlink(b"f")
            w.monotonic.now_ns += GC_DELAY_NS
            stop = asyncio.Event()
            finished = asyncio.Event()
            collect = w.collector.collect

            async def tell() -> int:
                done = await collect()
                finished.set()
                return done

            w.collector.collect = tell  # type: ignore[method-assign]
            task = asyncio.create_task(w.collector.run(stop))
            await finished.wait()
            stop.set()
            await task
            assert await w.inodes() == {ROOT}

    run(body())


def test_two_collectors_of_one_queue_do_no_harm() -> None:
    async def body() -> None:
        async with world() as w:
            await w.batch_create([b"%d" % number for number in range(20)])
            await w.mkdir(b"d/a/b", parents=True)
            await _written(w, b"d/a/f")
            await w.remove_tree(b"d")
            other = Collector(w.context, retry_ns=RETRY_NS)
            for _ in range(8):
                w.monotonic.now_ns += GC_DELAY_NS
                await asyncio.gather(w.collector.collect(), other.collect())
            assert len(await w.inodes()) == w.context.inode_count.estimate == 21

    run(body())


def test_what_has_a_name_is_never_freed() -> None:
    """A queue entry that should not be there goes; what it speaks of stays."""

    async def body() -> None:
        async with world() as w:
            d = await w.mkdir(b"d")
            f = await _written(w, b"d/f")

            async def plant(txn: Transaction) -> None:
                for attributes in (d, f):
                    value = schema.encode(schema.Garbage(attributes.type, 1))
                    txn.put(schema.garbage_key(5, attributes.inode), value)

            await w.kv.transact(plant)
            await w.collect_all()
            assert await w.table(b"G") == []
            assert w.chunks.of(f.inode) and await w.names(d.inode) == [b"f"]

    run(body())
