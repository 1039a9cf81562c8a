"""mkdir, rmdir, readdir, real_path and usage."""

import errno

import pytest

from fs_common.layout import Layout
from fs_common.limits import BODY_BYTES_MAX
from fs_common.records import meta
from fs_common.records.meta import FileType, User
from fs_meta.ops.real_path import real_path
from tests.meta.world import CHUNK, ROOT, ROOT_LAYOUT, World, fails, world
from tests.support import run


def test_a_new_directory_and_its_parent() -> None:
    async def body() -> None:
        async with world() as w:
            made = await w.acting(User(5, 6)).mkdir(b"d/", mode=0o7750)
            assert made == await w.stat(b"d")
            assert (made.type, made.mode, made.uid, made.gid, made.links, made.length, made.parent) == (
                FileType.DIRECTORY, 0o1750, 5, 6, 2, 0, ROOT,
            )  # fmt: skip
            assert made.layout == ROOT_LAYOUT
            root = await w.stat(b"/")
            assert (root.links, root.mtime_ns, root.ctime_ns) == (3, made.mtime_ns, made.mtime_ns)
            await w.mkdir(b"d/sub")
            await w.mkdir(b"d/sub2")
            assert (await w.stat(b"d")).links == 4
            assert (await w.stat(b"/")).links == 3

    run(body())


@pytest.mark.parametrize(
    ("path", "number"),
    [
        (b"d", errno.EEXIST),
        (b"d/", errno.EEXIST),
        (b"f", errno.EEXIST),
        (b"dangling", errno.EEXIST),
        (b"dangling/", errno.EEXIST),
        (b"to_d", errno.EEXIST),
        (b"/", errno.EEXIST),
        (b".", errno.EEXIST),
        (b"d/..", errno.EEXIST),
        (b"", errno.ENOENT),
        (b"missing/x", errno.ENOENT),
        (b"f/x", errno.ENOTDIR),
        (b"n" * 256, errno.ENAMETOOLONG),
    ],
)
def test_places_where_no_directory_can_be_made(path: bytes, number: int) -> None:
    async def body() -> None:
        async with world() as w:
            await w.mkdir(b"d")
            await w.create(b"f")
            await w.symlink(b"dangling", b"nowhere")
            await w.symlink(b"to_d", b"d")
            with fails(number):
                await w.mkdir(path)
            assert await w.names() == [b"d", b"dangling", b"f", b"to_d"]

    run(body())


def test_layout_of_a_directory() -> None:
    async def body() -> None:
        async with world() as w:
            wanted = Layout(1 << 20, 7, 1, 5, 3, 9, 1)
            made = await w.mkdir(b"d", layout=wanted)
            assert made.layout == Layout(1 << 20, 7, 1, 0, 0, 0, 1), "what a file's creation chooses is left open"
            assert (await w.mkdir(b"d/sub")).layout == made.layout
            with fails(errno.EINVAL):
                await w.mkdir(b"x", layout=Layout(CHUNK * 3))

    run(body())


def test_parents_makes_the_whole_path() -> None:
    async def body() -> None:
        async with world() as w:
            made = await w.mkdir(b"/a/b/../c/./d/", mode=0o500, parents=True)
            assert made == await w.stat(b"a/c/d")
            assert (made.mode, (await w.stat(b"a/c")).mode, (await w.stat(b"a")).links) == (0o500, 0o700, 4)
            assert await w.mkdir(b"a/c/d", parents=True) == made
            assert await w.mkdir(b"/", parents=True) == await w.stat(b"/")
            assert (await w.usage()).directories == 4

    run(body())


def test_parents_goes_through_symbolic_links_to_directories() -> None:
    async def body() -> None:
        async with world() as w:
            await w.mkdir(b"d")
            await w.create(b"f")
            await w.symlink(b"to_d", b"d")
            await w.symlink(b"to_f", b"f")
            await w.symlink(b"dangling", b"nowhere")
            made = await w.mkdir(b"to_d/x/y", parents=True)
            assert made.inode == (await w.stat(b"d/x/y")).inode
            assert (await w.mkdir(b"to_d", parents=True)).inode == (await w.stat(b"d")).inode
            for path, number in [
                (b"f", errno.EEXIST),
                (b"f/x", errno.ENOTDIR),
                (b"to_f", errno.EEXIST),
                (b"to_f/x", errno.ENOTDIR),
                (b"dangling", errno.EEXIST),
                (b"dangling/x", errno.EEXIST),
                (b"new/" + b"n" * 256, errno.ENAMETOOLONG),
                (b"x/" * 1025, errno.ENAMETOOLONG),
            ]:
                with fails(number):
                    await w.mkdir(path, parents=True)
            assert b"new" not in await w.names(), "all or nothing"

    run(body())


def test_rmdir() -> None:
    async def body() -> None:
        async with world() as w:
            d = await w.mkdir(b"d")
            await w.mkdir(b"d/sub")
            with fails(errno.ENOTEMPTY):
                await w.rmdir(b"d")
            await w.rmdir(b"d/sub/")
            assert (await w.stat(b"d")).links == 2
            assert (await w.stat(b"d")).mtime_ns > d.mtime_ns
            await w.rmdir(b"d")
            assert (await w.stat(b"/")).links == 2
            assert await w.inodes() == {ROOT}
            with fails(errno.ESTALE):
                await w.stat(b"", at=d.inode)

    run(body())


@pytest.mark.parametrize(
    ("path", "number"),
    [
        (b"f", errno.ENOTDIR),
        (b"f/", errno.ENOTDIR),
        (b"to_d", errno.ENOTDIR),
        (b"to_d/", errno.ENOTDIR),
        (b"missing", errno.ENOENT),
        (b"missing/x", errno.ENOENT),
        (b"", errno.ENOENT),
        (b"d/.", errno.EINVAL),
        (b"d/..", errno.ENOTEMPTY),
        (b"/", errno.EBUSY),
    ],
)
def test_what_rmdir_refuses(path: bytes, number: int) -> None:
    async def body() -> None:
        async with world() as w:
            await w.mkdir(b"d")
            await w.create(b"f")
            await w.symlink(b"to_d", b"d")
            with fails(number):
                await w.rmdir(path)
            assert await w.names() == [b"d", b"f", b"to_d"]

    run(body())


def test_readdir_gives_pages_in_byte_order() -> None:
    async def body() -> None:
        async with world() as w:
            d = await w.mkdir(b"d")
            names = [b"%d" % number for number in range(25)] + [b"\xff", b" ", b"a", b"a0"]
            await w.batch_create(names, parent=d.inode)
            await w.mkdir(b"e")
            listed: list[bytes] = []
            after, more, pages = b"", True, 0
            while more:
                reply = await w.readdir(d.inode, after=after, limit=10)
                listed += [entry.name for entry in reply.entries]
                after, more, pages = listed[-1], reply.more, pages + 1
            assert listed == sorted(names) and pages == 3
            assert (await w.readdir(d.inode, after=b"\xff")).entries == []
            assert not (await w.readdir(d.inode, limit=29)).more

    run(body())


def test_readdir_with_attributes_is_what_stat_says() -> None:
    async def body() -> None:
        async with world() as w:
            await w.create(b"f")
            await w.mkdir(b"d")
            await w.symlink(b"link", b"f")
            reply = await w.readdir(ROOT, with_attributes=True)
            assert [entry.attributes for entry in reply.entries] == [
                await w.stat(name, follow=False) for name in (b"d", b"f", b"link")
            ]
            assert [entry.type for entry in (await w.readdir(ROOT)).entries] == [
                FileType.DIRECTORY, FileType.FILE, FileType.SYMLINK,
            ]  # fmt: skip

    run(body())


def test_readdir_refuses() -> None:
    async def body() -> None:
        async with world() as w:
            f = await w.create(b"f")
            for inode, limit, after, number in [
                (f.inode, 10, b"", errno.ENOTDIR),
                (9999, 10, b"", errno.ESTALE),
                (ROOT, 0, b"", errno.EINVAL),
                (ROOT, 10, b"n" * 600, errno.ENAMETOOLONG),
            ]:
                with fails(number):
                    await w.readdir(inode, limit=limit, after=after)
            assert (await w.readdir((await w.mkdir(b"empty")).inode)).entries == []

    run(body())


def test_a_page_stays_below_the_bound_of_a_record() -> None:
    import msgspec

    async def body() -> None:
        async with world() as w:
            for number in range(900):
                await w.symlink(b"%0250d" % number, b"t" * 4095)
            reply = await w.readdir(ROOT, limit=4096, with_attributes=True)
            assert reply.more and len(reply.entries) > 600
            assert len(msgspec.msgpack.encode(reply)) < BODY_BYTES_MAX
            rest = await w.readdir(ROOT, limit=4096, with_attributes=True, after=reply.entries[-1].name)
            assert not rest.more and len(reply.entries) + len(rest.entries) == 900

    run(body())


async def _path(w: World, inode: int) -> bytes:
    return (await real_path(w.context, meta.RealPath(inode))).path


def test_real_path_follows_renames() -> None:
    async def body() -> None:
        async with world() as w:
            d = await w.mkdir(b"a/b/c", parents=True)
            assert await _path(w, d.inode) == b"/a/b/c"
            await w.mkdir(b"x")
            await w.rename(b"a/b", b"x/y")
            assert await _path(w, d.inode) == b"/x/y/c"
            assert await _path(w, ROOT) == b"/"
            f = await w.create(b"f")
            with fails(errno.ENOTDIR):
                await _path(w, f.inode)
            await w.remove_tree(b"x")
            with fails(errno.ENOENT):
                await _path(w, d.inode)
            with fails(errno.ESTALE):
                await _path(w, 9999)

    run(body())


def test_real_path_has_a_bound() -> None:
    async def body() -> None:
        async with world() as w:
            at = ROOT
            for _ in range(17):
                at = (await w.mkdir(b"n" * 255, at=at)).inode
            with fails(errno.ENAMETOOLONG):
                await _path(w, at)

    run(body())


def test_usage_counts_what_is_below() -> None:
    async def body() -> None:
        async with world() as w:
            await w.mkdir(b"a/b", parents=True)
            await w.batch_create([b"%d" % number for number in range(1200)], parent=(await w.stat(b"a")).inode)
            f = await w.create(b"a/b/f")
            await w.truncate(f.inode, 1000)
            await w.link(b"a/b/f", b"a/second")
            await w.symlink(b"a/link", b"b")
            reply = await w.usage((await w.stat(b"a")).inode)
            assert (reply.files, reply.directories, reply.symlinks, reply.total_bytes) == (1201, 1, 1, 1000)
            assert (await w.usage()).directories == 2
            with fails(errno.ENOTDIR):
                await w.usage(f.inode)
            with fails(errno.ESTALE):
                await w.usage(9999)

    run(body())
