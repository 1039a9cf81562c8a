"""create, batch_create and open."""

import errno

import pytest

from fs_common.errors import Code, EmberError
from fs_common.layout import Layout
from fs_common.records.meta import FileType, User
from tests.meta.world import CHUNK, CLIENT, ROOT, ROOT_LAYOUT, fails, make_routing, world
from tests.support import run


def test_a_new_file_and_its_directory() -> None:
    async def body() -> None:
        async with world() as w:
            before = await w.stat(b"/")
            made = await w.acting(User(1000, 2000)).create(b"f", mode=0o4640)
            assert made == await w.stat(b"f")
            assert (made.type, made.mode, made.uid, made.gid, made.links, made.length) == (
                FileType.FILE, 0o4640, 1000, 2000, 1, 0,
            )  # fmt: skip
            assert made.atime_ns == made.mtime_ns == made.ctime_ns == made.btime_ns > before.ctime_ns
            after = await w.stat(b"/")
            assert (after.mtime_ns, after.ctime_ns, after.links) == (made.mtime_ns, made.mtime_ns, 2)
            assert await w.table(b"S") == []

    run(body())


def test_opened_for_writing_in_the_same_transaction() -> None:
    async def body() -> None:
        async with world() as w:
            reply = await w.create_open(b"f")
            assert len(reply.session) == 16 and not reply.existed
            assert len(await w.table(b"S")) == 1

    run(body())


def test_exclusive_creates_refuse_any_name_that_is_there() -> None:
    async def body() -> None:
        async with world() as w:
            await w.create(b"f")
            await w.mkdir(b"d")
            await w.symlink(b"dangling", b"nowhere")
            for name in (b"f", b"d", b"dangling", b".", b"/", b"d/.."):
                with fails(errno.EEXIST):
                    await w.create(name)

    run(body())


def test_not_exclusive_opens_what_is_there() -> None:
    async def body() -> None:
        async with world() as w:
            made = await w.create(b"f")
            reply = await w.create_open(b"f", exclusive=False)
            assert reply.existed and reply.attributes.inode == made.inode and reply.session
            assert (await w.create(b"f", exclusive=False)).inode == made.inode
            await w.mkdir(b"d")
            for path in (b"d", b"d/", b"f/", b"new/", b".", b"/"):
                with fails(errno.EISDIR):
                    await w.create(path, exclusive=False)
            assert await w.names() == [b"d", b"f"]

    run(body())


def test_not_exclusive_follows_symbolic_links_and_makes_what_they_lead_to() -> None:
    async def body() -> None:
        async with world() as w:
            await w.mkdir(b"d")
            await w.symlink(b"link", b"d/second")
            await w.symlink(b"d/second", b"third")
            made = await w.create(b"link", exclusive=False)
            assert (await w.stat(b"d/third")).inode == made.inode
            assert (await w.create(b"link", exclusive=False)).inode == made.inode
            await w.symlink(b"loop", b"loop")
            with fails(errno.ELOOP):
                await w.create(b"loop", exclusive=False)

    run(body())


@pytest.mark.parametrize(
    ("path", "number"),
    [
        (b"missing/f", errno.ENOENT),
        (b"", errno.ENOENT),
        (b"f/x", errno.ENOTDIR),
        (b"n" * 256, errno.ENAMETOOLONG),
        (b"nul\0", errno.EINVAL),
        (b"new/", errno.EISDIR),
    ],
)
def test_places_where_no_file_can_be_made(path: bytes, number: int) -> None:
    async def body() -> None:
        async with world() as w:
            f = await w.create(b"f")
            with fails(number):
                await w.create(path)
            with fails(errno.ENOTDIR):
                await w.create(b"x", at=f.inode)
            with fails(errno.ESTALE):
                await w.create(b"x", at=9999)

    run(body())


def test_nothing_is_made_in_a_removed_directory() -> None:
    async def body() -> None:
        async with world() as w:
            removed, detached = await w.mkdir(b"removed"), await w.mkdir(b"detached")
            await w.rmdir(b"removed")
            await w.remove_tree(b"detached")
            with fails(errno.ESTALE):
                await w.create(b"x", at=removed.inode)
            with fails(errno.ENOENT):
                await w.create(b"x", at=detached.inode)

    run(body())


def test_layouts_are_inherited_or_given_and_completed() -> None:
    async def body() -> None:
        async with world() as w:
            plain = (await w.create(b"plain")).layout
            assert plain is not None
            assert (plain.chunk_size, plain.stripe, plain.table, plain.table_version) == (CHUNK, 2, 1, 1)
            own = Layout(1 << 20, 3, durability=1)
            await w.mkdir(b"d", layout=own)
            inherited = (await w.create(b"d/f")).layout
            assert inherited is not None
            assert (inherited.chunk_size, inherited.stripe, inherited.durability) == (1 << 20, 3, 1)
            wide = (await w.create(b"wide", layout=Layout(CHUNK, 1000, table_version=77))).layout
            assert wide is not None
            assert (wide.stripe, wide.table_version) == (4, 1), "capped to the table, and of its current version"
            for wrong in (Layout(CHUNK + 1), Layout(CHUNK, 0), Layout(CHUNK, table=9), Layout(CHUNK, durability=5)):
                with fails(errno.EINVAL):
                    await w.create(b"wrong", layout=wrong)

    run(body())


def test_files_wait_for_the_first_chain_table_and_directories_do_not() -> None:
    async def body() -> None:
        async with world() as w:
            for routing in (None, make_routing(tables={})):
                w.routing = routing
                with pytest.raises(EmberError) as caught:
                    await w.create(b"f")
                assert caught.value.code is Code.CLUSTER_NOT_READY
            await w.mkdir(b"d")
            w.routing = make_routing()
            await w.create(b"f")

    run(body())


def test_the_same_request_succeeds_once_the_cluster_is_ready() -> None:
    """An error that is safe to retry is not remembered."""

    async def body() -> None:
        from fs_common.records import meta
        from fs_meta.ops.create import create

        async with world() as w:
            w.routing = None
            request = meta.Create(ROOT, b"f", 0o644, b"q" * 16)
            with pytest.raises(EmberError):
                await create(w.context, request)
            w.routing = make_routing()
            assert not (await create(w.context, request)).existed

    run(body())


def test_set_group_id_directories_hand_their_group_down() -> None:
    async def body() -> None:
        async with world() as w:
            await w.acting(User(1, 50)).mkdir(b"d")
            await w.set_attr(b"d", mode=0o2777)
            assert (await w.acting(User(7, 8)).create(b"d/f")).gid == 50
            sub = await w.acting(User(7, 8)).mkdir(b"d/sub", mode=0o700)
            assert (sub.uid, sub.gid, sub.mode) == (7, 50, 0o2700)
            assert (await w.acting(User(7, 8)).symlink(b"d/link", b"x")).gid == 50
            assert (await w.acting(User(7, 8)).create(b"f")).gid == 8

    run(body())


def test_batch_create_makes_each_name_or_says_why_not() -> None:
    async def body() -> None:
        async with world() as w:
            d = await w.mkdir(b"d")
            await w.create(b"d/there")
            names = [b"a", b"there", b"b", b"a", b"", b".", b"..", b"x/y", b"n" * 256, b"nul\0", b"c"]
            reply = await w.batch_create(names, parent=d.inode)
            assert [(failure.index, failure.code) for failure in reply.errors] == [
                (1, 101), (3, 101), (4, 106), (5, 106), (6, 106), (7, 106), (8, 105), (9, 106),
            ]  # fmt: skip
            made = [attributes for attributes in reply.attributes if attributes is not None]
            assert [index for index, attributes in enumerate(reply.attributes) if attributes] == [0, 2, 10]
            assert made == [await w.stat(name, at=d.inode) for name in (b"a", b"b", b"c")]
            assert (await w.stat(b"d")).mtime_ns == made[0].mtime_ns
            assert w.context.inode_count.estimate == 6

    run(body())


def test_batch_create_refuses_what_is_wrong_for_all_names() -> None:
    async def body() -> None:
        async with world() as w:
            f = await w.create(b"f")
            for parent, names, number in [
                (f.inode, [b"x"], errno.ENOTDIR),
                (9999, [b"x"], errno.ESTALE),
                (ROOT, [b"x"] * 4097, errno.EINVAL),
            ]:
                with fails(number):
                    await w.batch_create(names, parent=parent)
            with fails(errno.EINVAL):
                await w.batch_create([b"x"], layout=Layout(3))
            before = await w.stat(b"/")
            assert (await w.batch_create([])).attributes == []
            assert await w.stat(b"/") == before

    run(body())


def test_open_by_path_and_by_inode() -> None:
    async def body() -> None:
        async with world() as w:
            f = await w.create(b"f")
            await w.symlink(b"link", b"f")
            for path, at in [(b"f", ROOT), (b"link", ROOT), (b"", f.inode)]:
                reply = await w.open(path, at)
                assert reply.attributes == f and len(reply.session) == 16 and reply.existed
                reply = await w.open(path, at, write=False)
                assert reply.attributes == f and reply.session == b""
            assert len(await w.table(b"S")) == 3

    run(body())


def test_what_cannot_be_opened() -> None:
    async def body() -> None:
        async with world() as w:
            d = await w.mkdir(b"d")
            link = await w.symlink(b"link", b"d")
            assert (await w.open(b"link", write=False)).attributes == d
            for path, at, number in [
                (b"d", ROOT, errno.EISDIR),
                (b"link", ROOT, errno.EISDIR),
                (b"", link.inode, errno.ELOOP),
                (b"missing", ROOT, errno.ENOENT),
                (b"", 9999, errno.ESTALE),
            ]:
                with fails(number):
                    await w.open(path, at)

    run(body())


def test_a_removed_file_can_be_read_until_it_is_collected_but_not_written() -> None:
    async def body() -> None:
        async with world() as w:
            f = await w.create(b"f")
            await w.unlink(b"f")
            assert (await w.open(b"", f.inode, write=False)).attributes.links == 0
            with fails(errno.ESTALE):
                await w.open(b"", f.inode)
            await w.collect_all()
            with fails(errno.ESTALE):
                await w.open(b"", f.inode, write=False)

    run(body())


def test_a_removed_file_that_is_open_for_writing_can_be_opened_again() -> None:
    async def body() -> None:
        async with world() as w:
            first = await w.create_open(b"f")
            await w.unlink(b"f")
            inode = first.attributes.inode
            second = await w.open(b"", inode)
            await w.close(inode, first.session)
            assert await w.table(b"G") == []
            await w.close(inode, second.session)
            assert len(await w.table(b"G")) == 1

    run(body())


def test_the_client_is_kept_with_its_session() -> None:
    from fs_meta import schema

    async def body() -> None:
        async with world() as w:
            await w.create_open(b"f")
            [(_, value)] = await w.table(b"S")
            assert schema.decode_session(value).client == CLIENT

    run(body())


def test_the_root_layout_is_what_the_store_was_formatted_with() -> None:
    async def body() -> None:
        async with world() as w:
            assert (await w.stat(b"/")).layout == ROOT_LAYOUT

    run(body())
