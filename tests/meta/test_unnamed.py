"""Unnamed files and holds: contents that outlive their names, and when they go."""

import asyncio
import errno

import pytest

from fs_common.errors import Code, EmberError
from fs_common.layout import Layout
from fs_common.records.meta import OpenReply, User
from tests.meta.world import GC_DELAY_NS, ROOT, World, fails, world
from tests.support import run


def _write(w: World, opened: OpenReply, end: int) -> None:
    assert opened.attributes.layout is not None
    w.chunks.write(opened.attributes.inode, opened.attributes.layout, end)


def test_an_unnamed_file_is_a_file_that_is_nowhere() -> None:
    async def body() -> None:
        async with world() as w:
            d = await w.mkdir(b"d", layout=Layout(1 << 20, 3))
            await w.set_attr(b"d", gid=77, mode=0o2777)
            before = await w.stat(b"d")
            opened = await w.acting(User(5, 6)).create_unnamed(d.inode, 0o640)
            made = opened.attributes
            assert (made.links, made.length, made.mode, made.uid, made.gid) == (0, 0, 0o640, 5, 77)
            assert made.layout is not None and made.layout.chunk_size == 1 << 20
            assert await w.stat(b"d") == before and await w.names(d.inode) == []
            assert await w.stat(b"", at=made.inode) == made and opened.session
            assert (await w.fsync(made.inode, opened.session, 10)).length == 10

    run(body())


def test_it_goes_at_once_with_its_last_session() -> None:
    async def body() -> None:
        async with world() as w:
            opened = await w.create_unnamed()
            inode = opened.attributes.inode
            _write(w, opened, 100)
            second = await w.open(b"", at=inode)
            await w.close(inode, opened.session, 100)
            assert await w.collector.collect() == 0
            await w.close(inode, second.session)
            assert await w.collector.collect() == 1
            assert await w.inodes() == {ROOT} and w.chunks.lengths == {}
            assert w.context.inode_count.estimate == 1

    run(body())


def test_link_gives_it_its_first_name_and_then_it_is_like_any_other() -> None:
    async def body() -> None:
        async with world() as w:
            opened = await w.create_unnamed()
            inode = opened.attributes.inode
            linked = await w.link(b"", b"f", at=inode)
            assert linked.links == 1 and linked.ctime_ns > opened.attributes.ctime_ns
            assert (await w.close(inode, opened.session, 5)).length == 5
            await w.collect_all()
            assert (await w.stat(b"f")).inode == inode
            await w.unlink(b"f")
            with fails(errno.ENOENT):
                await w.link(b"", b"g", at=inode)
            assert await w.collector.collect() == 0, "it had a name, so it may have readers"
            w.monotonic.now_ns += GC_DELAY_NS
            assert await w.collector.collect() == 1

    run(body())


def test_named_and_unlinked_again_while_it_is_open() -> None:
    async def body() -> None:
        async with world() as w:
            opened = await w.create_unnamed()
            inode = opened.attributes.inode
            await w.link(b"", b"f", at=inode)
            await w.unlink(b"f")
            with fails(errno.ENOENT):
                await w.link(b"", b"f", at=inode)
            await w.close(inode, opened.session)
            await w.collect_all()
            assert await w.inodes() == {ROOT}

    run(body())


def test_what_may_not_be_linked() -> None:
    async def body() -> None:
        async with world() as w:
            await w.create(b"taken")
            fixed = await w.create_unnamed(linkable=False)
            with fails(errno.ENOENT):
                await w.link(b"", b"f", at=fixed.attributes.inode)
            opened = await w.create_unnamed()
            with fails(errno.EEXIST):
                await w.link(b"", b"taken", at=opened.attributes.inode)
            await w.close(opened.attributes.inode, opened.session)
            with fails(errno.ENOENT):
                await w.link(b"", b"f", at=opened.attributes.inode)
            removed = await w.create_open(b"removed")
            await w.unlink(b"removed")
            with fails(errno.ENOENT):
                await w.link(b"", b"f", at=removed.attributes.inode)

    run(body())


def test_where_an_unnamed_file_cannot_be_made() -> None:
    async def body() -> None:
        async with world() as w:
            f = await w.create(b"f")
            d = await w.mkdir(b"d")
            await w.rmdir(b"d")
            detached = await w.mkdir(b"tree")
            await w.remove_tree(b"tree")
            for directory, number in (
                (f.inode, errno.ENOTDIR),
                (d.inode, errno.ESTALE),
                (detached.inode, errno.ENOENT),
            ):
                with fails(number):
                    await w.create_unnamed(directory)
            w.routing = None
            with pytest.raises(EmberError) as caught:
                await w.create_unnamed()
            assert caught.value.code is Code.CLUSTER_NOT_READY

    run(body())


def test_linking_against_the_last_close() -> None:
    """Whichever is first: the file has a name and stays, or has none and goes."""

    async def body() -> None:
        async with world() as w:
            for number in range(8):
                opened = await w.create_unnamed()
                inode = opened.attributes.inode
                calls = [w.link(b"", b"%d" % number, at=inode), w.close(inode, opened.session)]
                if number % 2:
                    calls.reverse()
                await asyncio.gather(*calls, return_exceptions=True)
            await w.collect_all()
            assert await w.inodes() == {ROOT} | {(await w.stat(name)).inode for name in await w.names()}
            assert await w.names() == [b"0", b"2", b"4", b"6"]

    run(body())


def test_a_hold_keeps_the_contents_until_it_is_closed() -> None:
    async def body() -> None:
        async with world() as w:
            written = await w.create_open(b"f")
            inode = written.attributes.inode
            _write(w, written, 100)
            await w.close(inode, written.session, 100)
            held = await w.open(b"f", write=False, hold=True)
            assert held.session and held.attributes.length == 100
            await w.unlink(b"f")
            await w.collect_all()
            assert w.chunks.of(inode)
            second = await w.open(b"", at=inode, write=False, hold=True)
            await w.close(inode, held.session)
            await w.collect_all()
            assert w.chunks.of(inode)
            assert (await w.close(inode, second.session)).length == 100
            await w.collect_all()
            assert await w.inodes() == {ROOT} and w.chunks.lengths == {}
            with fails(errno.ESTALE):
                await w.open(b"", at=inode, write=False, hold=True)

    run(body())


def test_a_hold_is_no_writer() -> None:
    async def body() -> None:
        async with world() as w:
            await w.create(b"f")
            held = await w.open(b"f", write=False, hold=True)
            inode, session = held.attributes.inode, held.session
            for report in ({"written_end": 5}, {"exact": True}, {"mtime_ns": 5}):
                with fails(errno.EBADF):
                    await w.fsync(inode, session, **report)
                with fails(errno.EBADF):
                    await w.close(inode, session, **report)
            await w.truncate(inode, 0)
            assert w.chunks.cuts == [], "nobody has ever written"
            written = await w.open(b"f")
            await w.truncate(inode, 0)
            assert w.chunks.cuts == [(inode, 0)]
            await w.close(inode, written.session)
            await w.fsync(inode, session)
            await w.close(inode, session)

    run(body())


def test_what_has_no_contents_is_opened_without_a_hold() -> None:
    async def body() -> None:
        async with world() as w:
            d = await w.mkdir(b"d")
            assert (await w.open(b"d", write=False, hold=True)).session == b""
            await w.symlink(b"link", b"d")
            with fails(errno.ELOOP):
                await w.open(b"", at=(await w.stat(b"link", follow=False)).inode, write=False, hold=True)
            assert await w.table(b"S") == [] and d.links == 2

    run(body())
