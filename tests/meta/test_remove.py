"""unlink and remove_tree, and what becomes of what they remove."""

import errno

import pytest

from fs_meta import schema
from tests.meta.world import GC_DELAY_NS, ROOT, fails, world
from tests.support import run


def test_unlink_takes_the_name_and_keeps_the_file_for_its_readers() -> None:
    async def body() -> None:
        async with world() as w:
            f = await w.create(b"f")
            before_ns = w.service_time.now_ns()
            await w.unlink(b"f")
            assert await w.names() == []
            gone = await w.stat(b"", at=f.inode)
            assert gone.links == 0 and gone.ctime_ns > f.ctime_ns
            root = await w.stat(b"/")
            assert root.mtime_ns == root.ctime_ns == gone.ctime_ns
            [(key, _value)] = await w.table(b"G")
            due_ns, inode = schema.split_garbage_key(key)
            assert inode == f.inode and before_ns < due_ns - GC_DELAY_NS < w.service_time.now_ns()
            [record] = [schema.decode_inode(value) for key, value in await w.table(b"I") if key[-1] == f.inode]
            assert record.due_ns == due_ns

    run(body())


def test_unlink_of_one_of_two_names() -> None:
    async def body() -> None:
        async with world() as w:
            f = await w.create(b"f")
            await w.link(b"f", b"g")
            await w.unlink(b"f")
            left = await w.stat(b"g")
            assert (left.inode, left.links) == (f.inode, 1)
            assert await w.table(b"G") == []

    run(body())


def test_unlink_of_a_symbolic_link_frees_it_at_once() -> None:
    async def body() -> None:
        async with world() as w:
            await w.create(b"f")
            link = await w.symlink(b"link", b"f")
            await w.link(b"link", b"second")
            await w.unlink(b"link")
            assert (await w.stat(b"second", follow=False)).links == 1
            await w.unlink(b"second")
            assert link.inode not in await w.inodes()
            assert await w.names() == [b"f"]

    run(body())


WRONG = [
    (b"missing", errno.ENOENT),
    (b"missing/", errno.ENOENT),
    (b"missing/x", errno.ENOENT),
    (b"", errno.ENOENT),
    (b"d", errno.EISDIR),
    (b"d/", errno.EISDIR),
    (b"d/.", errno.EISDIR),
    (b"d/..", errno.EISDIR),
    (b"/", errno.EISDIR),
    (b"f/", errno.ENOTDIR),
    (b"to_d/", errno.ENOTDIR),
    (b"f/x", errno.ENOTDIR),
]


@pytest.mark.parametrize(("path", "number"), WRONG)
def test_what_unlink_refuses(path: bytes, number: int) -> None:
    async def body() -> None:
        async with world() as w:
            await w.mkdir(b"d")
            f = await w.create(b"f")
            await w.symlink(b"to_d", b"d")
            with fails(number):
                await w.unlink(path)
            with fails(errno.ENOTDIR):
                await w.unlink(b"x", at=f.inode)
            assert await w.names() == [b"d", b"f", b"to_d"]

    run(body())


def test_a_file_open_for_writing_is_queued_when_its_last_session_ends() -> None:
    async def body() -> None:
        async with world() as w:
            first = await w.create_open(b"f")
            second = await w.open(b"f")
            inode = first.attributes.inode
            await w.unlink(b"f")
            await w.close(inode, first.session, 100)
            assert await w.table(b"G") == []
            assert (await w.stat(b"", at=inode)).length == 100
            await w.close(inode, second.session, 200)
            assert len(await w.table(b"G")) == 1
            await w.collect_all()
            assert await w.inodes() == {ROOT}

    run(body())


def test_remove_tree_detaches_at_once_whatever_is_below() -> None:
    async def body() -> None:
        async with world() as w:
            d = await w.mkdir(b"d")
            await w.mkdir(b"d/a/b", parents=True)
            await w.create(b"d/a/b/f")
            await w.remove_tree(b"d/")
            assert await w.names() == []
            assert (await w.stat(b"/")).links == 2
            gone = await w.stat(b"", at=d.inode)
            assert (gone.links, gone.parent) == (0, 0)
            with fails(errno.ENOENT):
                await w.stat(b"d/a")
            with fails(errno.ENOENT):
                await w.stat(b"..", at=d.inode)

    run(body())


def test_remove_tree_of_a_file_is_unlink() -> None:
    async def body() -> None:
        async with world() as w:
            await w.create(b"f")
            await w.symlink(b"link", b"f")
            await w.remove_tree(b"link")
            assert await w.names() == [b"f"]
            with fails(errno.ENOTDIR):
                await w.remove_tree(b"f/")
            await w.remove_tree(b"f")
            assert await w.names() == []

    run(body())


@pytest.mark.parametrize(
    ("path", "number"),
    [
        (b"missing", errno.ENOENT),
        (b"", errno.ENOENT),
        (b"/", errno.EBUSY),
        (b"d/.", errno.EINVAL),
        (b"d/..", errno.ENOTEMPTY),
    ],
)
def test_what_remove_tree_refuses(path: bytes, number: int) -> None:
    async def body() -> None:
        async with world() as w:
            await w.mkdir(b"d")
            with fails(number):
                await w.remove_tree(path)
            assert await w.names() == [b"d"]

    run(body())
