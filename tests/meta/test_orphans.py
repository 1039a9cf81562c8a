"""Who may remove a tree, and what becomes of what may not be removed."""

import errno

import pytest

from fs_common.errors import Code, EmberError
from fs_common.layout import Layout
from fs_common.records.meta import FileType, InodeFlags, User
from fs_meta import fsck, schema
from fs_meta.gc import Collector
from fs_meta.ops.remove_tree import SAMPLE_DIRECTORIES, SAMPLE_ENTRIES
from fs_meta.trees import ORPHANS
from tests.meta.world import RETRY_NS, ROOT, World, fails, world
from tests.support import run

ALICE, BOB = User(1000, 1000), User(2000, 2000)
IMMUTABLE, APPEND = int(InodeFlags.IMMUTABLE), int(InodeFlags.APPEND)


async def _orphans(w: World) -> dict[bytes, int]:
    """Name behind the number -> inode."""
    found = {}
    for entry in (await w.readdir((await w.stat(ORPHANS)).inode)).entries:
        assert entry.name.startswith(b"%d" % entry.inode)
        found[entry.name.removeprefix(b"%d" % entry.inode)] = entry.inode
    return found


async def _alices_tree(w: World) -> World:
    alice = w.acting(ALICE)
    await alice.mkdir(b"home", mode=0o777)
    await alice.mkdir(b"home/d/a/b", parents=True, mode=0o777)
    await w.set_attr(b"home/d", mode=0o777)
    await w.set_attr(b"home/d/a", mode=0o777)
    await alice.create(b"home/d/a/f")
    return alice


def test_who_may_remove_everything_removes_the_tree() -> None:
    async def body() -> None:
        async with world() as w:
            await _alices_tree(w)
            await w.acting(BOB).create(b"home/d/a/b/bobs", mode=0)
            await w.acting(BOB).mkdir(b"home/d/empty", mode=0o700)
            await w.acting(ALICE).remove_tree(b"home/d")
            await w.collect_all()
            assert await w.names((await w.stat(b"home")).inode) == [] and await w.names() == [b"home"]
            assert len(await w.inodes()) == 2

    run(body())


@pytest.mark.parametrize(
    ("path", "mode", "number"),
    [
        (b"home", 0o555, errno.EACCES),
        (b"home", 0o1777, errno.EPERM),
        (b"home/d", 0o755, errno.EACCES),
        (b"home/d", 0o733, errno.EACCES),
        (b"home/d", 0o776, errno.EACCES),
        (b"home/d/a", 0o755, errno.EACCES),
        (b"home/d/a", 0o1777, errno.EPERM),
        (b"home/d/a/b", 0o700, 0),
    ],
)
def test_what_is_seen_at_once_refuses_the_whole(path: bytes, mode: int, number: int) -> None:
    async def body() -> None:
        async with world() as w:
            await _alices_tree(w)
            await w.set_attr(path, mode=mode)
            bob = w.acting(BOB)
            if number:
                before = await w.table(b"I") + await w.table(b"D")
                with fails(number):
                    await bob.remove_tree(b"home/d")
                assert await w.table(b"I") + await w.table(b"D") == before
            await w.remove_tree(b"home/d")
            await w.collect_all()
            assert await w.names() == [b"home"]

    run(body())


def test_flags_refuse_root_too() -> None:
    async def body() -> None:
        async with world() as w:
            for flag in (IMMUTABLE, APPEND):
                path = b"d%d" % flag
                await w.mkdir(path)
                await w.set_attr(path, flags=flag)
                with fails(errno.EPERM):
                    await w.remove_tree(path)
            await w.mkdir(b"e")
            await w.acting(ALICE).mkdir(b"home/e", parents=True)
            await w.acting(ALICE).create(b"home/e/f")
            await w.set_attr(b"home/e", flags=APPEND)
            with fails(errno.EPERM):
                await w.acting(ALICE).remove_tree(b"home")
            await w.set_attr(b"home/e", flags=0)

    run(body())


def test_a_retry_is_told_of_the_success_though_the_tree_is_gone() -> None:
    async def body() -> None:
        from fs_common.records import meta
        from fs_meta.ops.remove_tree import remove_tree

        async with world() as w:
            await _alices_tree(w)
            request = meta.RemoveTree(ROOT, b"home/d", b"q" * 16, ALICE)
            first = await remove_tree(w.context, request)
            await w.acting(BOB).mkdir(b"home/d")
            await w.acting(BOB).create(b"home/d/f")
            assert await remove_tree(w.context, request) == first
            assert (await w.stat(b"home/d/f")).uid == BOB.uid

    run(body())


def test_what_may_not_be_removed_is_kept_with_all_that_is_in_it() -> None:
    """Bob's directories are beyond the sample; the collector meets them."""

    async def body() -> None:
        async with world() as w:
            alice, bob = await _alices_tree(w), w.acting(BOB)
            d = await w.stat(b"home/d")
            names = [b"%05d" % number for number in range(SAMPLE_ENTRIES)]
            await alice.batch_create(names[:4000], parent=d.inode)
            await alice.batch_create(names[4000:], parent=d.inode)
            await bob.mkdir(b"home/d/x_bobs")
            await bob.mkdir(b"home/d/x_bobs/sub")
            opened = await bob.create_open(b"home/d/x_bobs/f")
            layout = opened.attributes.layout
            assert isinstance(layout, Layout)
            w.chunks.write(opened.attributes.inode, layout, 10)
            await bob.close(opened.attributes.inode, opened.session, 10)
            await bob.mkdir(b"home/d/x_empty")
            bobs = await w.stat(b"home/d/x_bobs")
            await alice.remove_tree(b"home/d")
            await w.collect_all()
            place = await w.stat(ORPHANS)
            assert (place.uid, place.gid, place.mode, place.links) == (0, 0, 0o1777, 3)
            assert await _orphans(w) == {b":home:d:x_bobs": bobs.inode}
            name = b"lost+found/%d:home:d:x_bobs" % bobs.inode
            kept = await w.stat(name)
            assert (kept.uid, kept.mode, kept.links, kept.parent) == (BOB.uid, 0o755, 3, place.inode)
            assert kept.ctime_ns > bobs.ctime_ns and kept.mtime_ns == bobs.mtime_ns
            assert (await w.stat(name + b"/f")).length == 10 and w.chunks.of(opened.attributes.inode)
            assert w.context.inode_count.estimate == len(await w.inodes()) == 6
            # Its owner takes it back.
            await bob.rename(name, b"home/back")
            with fails(errno.ENOENT):
                await w.stat(b"home/d")

    run(body())


def test_a_sticky_directory_keeps_what_is_not_the_removers() -> None:
    async def body() -> None:
        async with world() as w:
            alice, bob = await _alices_tree(w), w.acting(BOB)
            await bob.mkdir(b"home/d/tmp")
            await w.set_attr(b"home/d/tmp", mode=0o1777)
            tmp = await w.stat(b"home/d/tmp")
            await alice.create(b"home/d/tmp/alices")
            await alice.remove_tree(b"home/d")
            # The collector has not been there yet, and somebody knows the directory.
            bobs = await bob.create(b"bobs", at=tmp.inode)
            await w.mknod(b"roots", FileType.FIFO, at=tmp.inode)
            await bob.symlink(b"to", b"x", at=tmp.inode)
            await w.collect_all()
            assert sorted(await _orphans(w)) == [b":home:d:tmp:bobs", b":home:d:tmp:roots", b":home:d:tmp:to"]
            assert (await w.stat(b"lost+found/%d:home:d:tmp:bobs" % bobs.inode)).links == 1

    run(body())


def test_flagged_things_are_kept_from_everybody() -> None:
    async def body() -> None:
        async with world() as w:
            await w.mkdir(b"d/fixed/sub", parents=True)
            await w.create(b"d/log")
            await w.link(b"d/log", b"d/second")
            await w.set_attr(b"d/fixed", flags=IMMUTABLE)
            await w.set_attr(b"d/log", flags=APPEND)
            log = await w.stat(b"d/log")
            await w.remove_tree(b"d")
            await w.collect_all()
            assert sorted(await _orphans(w)) == [b":d:fixed", b":d:log", b":d:second"]
            assert (await w.stat(b"", at=log.inode)).links == 2
            assert (await w.stat(b"lost+found/%d:d:fixed/sub" % (await _orphans(w))[b":d:fixed"])).links == 2

    run(body())


def test_a_place_that_is_somebody_elses_is_left_alone() -> None:
    async def body() -> None:
        async with world() as w:
            await w.create(b"lost+found")
            await w.acting(BOB).mkdir(b"lost+found.1")
            for path in (b"d", b"e"):
                await w.mkdir(path)
                await w.create(path + b"/f")
                await w.set_attr(path + b"/f", flags=IMMUTABLE)
                await w.remove_tree(path)
            await w.collect_all()
            assert await w.names() == [b"lost+found", b"lost+found.1", b"lost+found.2"]
            assert len(await w.names((await w.stat(b"lost+found.2")).inode)) == 2

    run(body())


def test_with_no_place_at_all_the_tree_waits() -> None:
    async def body() -> None:
        async with world() as w:
            await w.create(b"lost+found")
            for number in range(1, 10):
                await w.create(b"lost+found.%d" % number)
            await w.mkdir(b"d")
            f = await w.create(b"d/f")
            await w.set_attr(b"d/f", flags=IMMUTABLE)
            await w.acting(User()).remove_tree(b"d")
            assert await w.collector.collect() == 0
            [(_, value)] = await w.table(b"G")
            garbage = schema.decode_garbage(value)
            assert (garbage.attempts, garbage.path) == (1, b"/d")
            await w.unlink(b"lost+found.9")
            w.monotonic.now_ns += RETRY_NS
            assert await w.collector.collect() > 0
            assert await w.names((await w.stat(b"lost+found.9")).inode) == [b"%d:d:f" % f.inode]

    run(body())


def test_long_paths_and_taken_names() -> None:
    async def body() -> None:
        async with world() as w:
            long = b"n" * 250
            await w.mkdir(b"/".join([long] * 3), parents=True)
            f = await w.create(long + b"/f")
            await w.set_attr(long + b"/f", flags=IMMUTABLE)
            g = await w.create(b"/".join([long] * 3) + b"/" + long)
            await w.set_attr(b"", at=g.inode, flags=IMMUTABLE)
            await w.mkdir(b"lost+found", mode=0o1777)
            taken = b"%d:" % f.inode + long + b":f"
            await w.create(b"lost+found/" + taken)
            await w.remove_tree(long)
            await w.collect_all()
            names = await w.names((await w.stat(b"lost+found")).inode)
            cut = b"%d:..." % g.inode
            assert sorted(names) == sorted([taken, b"%d~1" % f.inode, cut + b"n" * (255 - len(cut))])

    run(body())


def test_the_sample_ends() -> None:
    async def body() -> None:
        async with world() as w:
            alice = w.acting(ALICE)
            await alice.mkdir(b"d")
            for number in range(SAMPLE_DIRECTORIES + 10):
                await alice.mkdir(b"d/%05d" % number)
            reads = 0
            read = w.kv.read

            async def counted(fn):  # type: ignore[no-untyped-def]
                async def counting(txn):  # type: ignore[no-untyped-def]
                    range_ = txn.range

                    async def count(*arguments):  # type: ignore[no-untyped-def]
                        nonlocal reads
                        reads += 1
                        return await range_(*arguments)

                    class Counting:
                        get = txn.get
                        snapshot_get = txn.snapshot_get
                        range = staticmethod(count)

                    return await fn(Counting())

                return await read(counting)

            w.kv.read = counted  # type: ignore[method-assign]
            await alice.remove_tree(b"d")
            w.kv.read = read  # type: ignore[method-assign]
            assert 0 < reads <= SAMPLE_DIRECTORIES

    run(body())


def test_a_crash_between_steps_forgets_nobody() -> None:
    """Everything is sound after each transaction, and a new collector goes on as the same user."""

    async def body() -> None:
        async with world() as w:
            alice, bob = await _alices_tree(w), w.acting(BOB)
            deep = await w.stat(b"home/d/a")
            await alice.remove_tree(b"home/d")
            late = (await bob.mkdir(b"late", at=deep.inode, mode=0o700)).inode
            await bob.create(b"f", at=late)
            transact = w.kv.transact

            class Crash(Exception):
                pass

            async def once_and_crash(fn, **more):  # type: ignore[no-untyped-def]
                await transact(fn, **more)
                assert not fsck.check(await w.dump())
                raise Crash

            for _ in range(20):
                w.kv.transact = once_and_crash  # type: ignore[method-assign]
                try:
                    w.collector = Collector(w.context, retry_ns=RETRY_NS)
                    await w.collector.collect()
                except* Crash:
                    pass
                w.kv.transact = transact  # type: ignore[method-assign]
            await w.collect_all()
            assert list(await _orphans(w)) == [b":home:d:a:late"]
            assert w.chunks.lengths == {}

    run(body())


def test_the_error_of_a_place_is_no_reason_to_lose_anything() -> None:
    async def body() -> None:
        async with world() as w:
            await w.mkdir(b"d")
            await w.create(b"d/f")
            await w.set_attr(b"d/f", flags=IMMUTABLE)
            await w.remove_tree(b"d")
            take = w.context.inode_ids.take

            async def fail() -> int:
                raise EmberError(Code.KV_FULL, "full")

            w.context.inode_ids.take = fail  # type: ignore[method-assign, assignment]
            assert await w.collector.collect() == 0
            w.context.inode_ids.take = take  # type: ignore[method-assign]
            await w.collect_all()
            assert list(await _orphans(w)) == [b":d:f"]

    run(body())
