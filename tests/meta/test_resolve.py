"""Walking paths: the rules at the head of `fs_meta.ops.resolve`."""

import errno

import pytest

from fs_common.limits import SYMLINK_FOLLOW_MAX
from tests.meta.world import ROOT, World, fails, world
from tests.support import run


async def _tree(w: World) -> None:
    """/d/sub/file, /d/f, links to each of them, a dangling one and a loop."""
    await w.mkdir(b"d")
    await w.mkdir(b"d/sub")
    await w.create(b"d/sub/file")
    await w.create(b"d/f")
    await w.symlink(b"to_d", b"d")
    await w.symlink(b"to_d_slash", b"d/")
    await w.symlink(b"to_f", b"/d/f")
    await w.symlink(b"d/up", b"../d/sub")
    await w.symlink(b"dangling", b"nowhere")
    await w.symlink(b"loop", b"loop")


SAME = [
    (b"/d/sub/file", b"d/sub/file"),
    (b"//d///sub//file", b"d/sub/file"),
    (b"d/./sub/./file", b"d/sub/file"),
    (b"d/sub/../sub/file", b"d/sub/file"),
    (b"../../d/sub/file", b"d/sub/file"),
    (b"to_d/sub/file", b"d/sub/file"),
    (b"to_d_slash/sub/file", b"d/sub/file"),
    (b"to_d/up/file", b"d/sub/file"),
    (b"d/up/../f", b"d/f"),
    (b"to_f", b"d/f"),
    (b"d/", b"d"),
    (b"to_d/", b"d"),
    (b"d/.", b"d"),
    (b"d/sub/..", b"d"),
    (b"/", b"/"),
    (b".", b"/"),
    (b"..", b"/"),
    (b"", b"/"),
]


@pytest.mark.parametrize(("path", "same"), SAME)
def test_paths_that_name_the_same(path: bytes, same: bytes) -> None:
    async def body() -> None:
        async with world() as w:
            await _tree(w)
            assert (await w.stat(path)).inode == (await w.stat(same)).inode

    run(body())


WRONG = [
    (b"missing", errno.ENOENT),
    (b"missing/x", errno.ENOENT),
    (b"d/missing", errno.ENOENT),
    (b"d/missing/x", errno.ENOENT),
    (b"d/f/x", errno.ENOTDIR),
    (b"d/f/", errno.ENOTDIR),
    (b"d/f/.", errno.ENOTDIR),
    (b"d/f/..", errno.ENOTDIR),
    (b"to_f/", errno.ENOTDIR),
    (b"to_f/x", errno.ENOTDIR),
    (b"dangling", errno.ENOENT),
    (b"dangling/", errno.ENOENT),
    (b"dangling/x", errno.ENOENT),
    (b"loop", errno.ELOOP),
    (b"loop/", errno.ELOOP),
    (b"loop/x", errno.ELOOP),
    (b"n" * 256, errno.ENAMETOOLONG),
    (b"d/" + b"n" * 256, errno.ENAMETOOLONG),
    (b"n" * 256 + b"/x", errno.ENAMETOOLONG),
    (b"/d" * 2049, errno.ENAMETOOLONG),
    (b"d/a\0b", errno.EINVAL),
    (b"a\0b", errno.EINVAL),
]


@pytest.mark.parametrize(("path", "number"), WRONG)
def test_paths_that_lead_nowhere(path: bytes, number: int) -> None:
    async def body() -> None:
        async with world() as w:
            await _tree(w)
            with fails(number):
                await w.stat(path)

    run(body())


def test_a_last_symbolic_link_is_not_followed_on_request() -> None:
    async def body() -> None:
        async with world() as w:
            await _tree(w)
            link = await w.stat(b"to_f", follow=False)
            assert (link.target, link.length) == (b"/d/f", 4)
            assert (await w.stat(b"loop", follow=False)).target == b"loop"
            # On the way, and before a slash, it is followed all the same.
            assert (await w.stat(b"to_d/f", follow=False)).inode == (await w.stat(b"d/f")).inode
            assert (await w.stat(b"to_d/", follow=False)).inode == (await w.stat(b"d")).inode

    run(body())


def test_paths_relative_to_an_inode() -> None:
    async def body() -> None:
        async with world() as w:
            await _tree(w)
            d, f = await w.stat(b"d"), await w.stat(b"d/f")
            assert (await w.stat(b"sub/../f", at=d.inode)).inode == f.inode
            assert (await w.stat(b"/d/f", at=d.inode)).inode == f.inode
            assert (await w.stat(b"", at=f.inode)).inode == f.inode
            for path in (b"x", b".", b"..", b"./", b"x/y"):
                with fails(errno.ENOTDIR):
                    await w.stat(path, at=f.inode)
            for path in (b"", b"x", b".", b"..", b"x/y"):
                with fails(errno.ESTALE):
                    await w.stat(path, at=9999)

    run(body())


def test_forty_symbolic_links_are_followed_and_no_more() -> None:
    async def body() -> None:
        async with world() as w:
            await w.create(b"0")
            for number in range(SYMLINK_FOLLOW_MAX + 1):
                await w.symlink(b"%d" % (number + 1), b"%d" % number)
            assert (await w.stat(b"%d" % SYMLINK_FOLLOW_MAX)).inode == (await w.stat(b"0")).inode
            with fails(errno.ELOOP):
                await w.stat(b"%d" % (SYMLINK_FOLLOW_MAX + 1))

    run(body())


def test_lookup_is_one_name() -> None:
    async def body() -> None:
        async with world() as w:
            await _tree(w)
            d = await w.lookup(ROOT, b"d")
            assert (await w.lookup(d.inode, b"f")).inode == (await w.stat(b"d/f")).inode
            assert (await w.lookup(ROOT, b"to_f")).target == b"/d/f"
            assert (await w.lookup(d.inode, b"..")).inode == ROOT
            assert (await w.lookup(d.inode, b".")).inode == d.inode
            for parent, name, number in [
                (ROOT, b"missing", errno.ENOENT),
                (ROOT, b"", errno.EINVAL),
                (ROOT, b"d/f", errno.EINVAL),
                (ROOT, b"n" * 256, errno.ENAMETOOLONG),
                (9999, b"x", errno.ESTALE),
                ((await w.stat(b"d/f")).inode, b"x", errno.ENOTDIR),
            ]:
                with fails(number):
                    await w.lookup(parent, name)

    run(body())


def test_batch_stat_answers_each_path_by_itself() -> None:
    async def body() -> None:
        async with world() as w:
            await _tree(w)
            reply = await w.batch_stat([b"d/f", b"missing", b"to_f", b"d/f/x"])
            f = await w.stat(b"d/f")
            assert reply.attributes == [f, None, f, None]
            assert [(failure.index, failure.code) for failure in reply.errors] == [(1, 100), (3, 102)]
            assert (await w.batch_stat([b"to_f"], follow=False)).attributes[0] == await w.stat(b"to_f", follow=False)
            with fails(errno.EINVAL):
                await w.batch_stat([b"x"] * 4097)

    run(body())


def test_batch_stat_refuses_an_answer_over_the_bound_of_a_record() -> None:
    async def body() -> None:
        async with world() as w:
            await w.symlink(b"long", b"t" * 4095)
            with fails(errno.EMSGSIZE):
                await w.batch_stat([b"long"] * 1000, follow=False)

    run(body())
