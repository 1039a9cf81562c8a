"""symlink, readlink, link, set_attr and statfs."""

import errno
from typing import Any

import pytest

from fs_common.layout import Layout
from fs_common.limits import LINK_COUNT_MAX
from fs_common.records import meta
from fs_common.records.meta import FileType, User
from fs_common.records.routing import NodeInfo, NodeState, Routing
from fs_meta import schema
from fs_meta.kv.interface import Transaction
from fs_meta.ops.statfs import statfs
from tests.meta.world import ROOT, fails, world
from tests.support import run


def test_a_symbolic_link_keeps_its_target() -> None:
    async def body() -> None:
        async with world() as w:
            target = b"../no/where\xff"
            link = await w.acting(User(3, 4)).symlink(b"link", target)
            assert (link.type, link.mode, link.uid, link.gid, link.links, link.length, link.layout) == (
                FileType.SYMLINK, 0o777, 3, 4, 1, len(target), None,
            )  # fmt: skip
            assert await w.readlink(b"link") == target
            assert await w.readlink(b"", at=link.inode) == target
            assert (await w.stat(b"/")).mtime_ns == link.mtime_ns
            await w.symlink(b"longest", b"t" * 4095)

    run(body())


@pytest.mark.parametrize(
    ("path", "target", "number"),
    [
        (b"f", b"x", errno.EEXIST),
        (b"f/", b"x", errno.EEXIST),
        (b".", b"x", errno.EEXIST),
        (b"/", b"x", errno.EEXIST),
        (b"new/", b"x", errno.ENOENT),
        (b"", b"x", errno.ENOENT),
        (b"new", b"", errno.ENOENT),
        (b"new", b"t" * 4096, errno.ENAMETOOLONG),
        (b"new", b"nul\0", errno.EINVAL),
        (b"missing/new", b"x", errno.ENOENT),
    ],
)
def test_what_symlink_refuses(path: bytes, target: bytes, number: int) -> None:
    async def body() -> None:
        async with world() as w:
            await w.create(b"f")
            with fails(number):
                await w.symlink(path, target)
            assert await w.names() == [b"f"]

    run(body())


def test_readlink_is_for_symbolic_links() -> None:
    async def body() -> None:
        async with world() as w:
            await w.create(b"f")
            for path in (b"f", b"/"):
                with fails(errno.EINVAL):
                    await w.readlink(path)

    run(body())


def test_a_second_name() -> None:
    async def body() -> None:
        async with world() as w:
            f = await w.create(b"f")
            await w.mkdir(b"d")
            linked = await w.link(b"f", b"d/g")
            assert (linked.inode, linked.links) == (f.inode, 2) and linked.ctime_ns > f.ctime_ns
            assert (await w.stat(b"d")).mtime_ns == linked.ctime_ns
            assert (await w.link(b"", b"h", at=f.inode)).links == 3
            link = await w.symlink(b"link", b"f")
            assert (await w.link(b"link", b"link2")).inode == link.inode, "not followed"

    run(body())


@pytest.mark.parametrize(
    ("path", "new_path", "number"),
    [
        (b"d", b"new", errno.EPERM),
        (b"d", b"f", errno.EEXIST),
        (b"f", b"f", errno.EEXIST),
        (b"f", b".", errno.EEXIST),
        (b"f", b"new/", errno.ENOENT),
        (b"f", b"", errno.ENOENT),
        (b"f/", b"new", errno.ENOTDIR),
        (b"missing", b"new", errno.ENOENT),
        (b"f", b"missing/new", errno.ENOENT),
        (b"f", b"f/new", errno.ENOTDIR),
    ],
)
def test_what_link_refuses(path: bytes, new_path: bytes, number: int) -> None:
    async def body() -> None:
        async with world() as w:
            f = await w.create(b"f")
            await w.mkdir(b"d")
            with fails(number):
                await w.link(path, new_path)
            assert (await w.stat(b"f")) == f

    run(body())


def test_a_removed_file_gets_no_new_name() -> None:
    async def body() -> None:
        async with world() as w:
            f = await w.create_open(b"f")
            await w.unlink(b"f")
            with fails(errno.ENOENT):
                await w.link(b"", b"new", at=f.attributes.inode)

    run(body())


def test_links_have_a_bound() -> None:
    async def body() -> None:
        async with world() as w:
            f = await w.create(b"f")

            async def put_links(links: int) -> None:
                async def change(txn: Transaction) -> None:
                    key = schema.inode_key(f.inode)
                    value = await txn.get(key)
                    assert value is not None
                    record = schema.decode_inode(value)
                    record.links = links
                    txn.put(key, schema.encode(record))

                await w.kv.transact(change)

            await put_links(LINK_COUNT_MAX)
            with fails(errno.EMLINK):
                await w.link(b"f", b"g")
            await put_links(LINK_COUNT_MAX - 1)
            await w.link(b"f", b"g")
            await put_links(2)

    run(body())


def test_set_attr_changes_what_is_given() -> None:
    async def body() -> None:
        async with world() as w:
            f = await w.create(b"f", mode=0o600)
            seen = await w.set_attr(b"f", mode=0o17777)
            assert (seen.mode, seen.mtime_ns) == (0o7777, f.mtime_ns) and seen.ctime_ns > f.ctime_ns
            seen = await w.set_attr(b"f", atime_ns=1, mtime_ns=2)
            assert (seen.atime_ns, seen.mtime_ns) == (1, 2)
            assert await w.set_attr(b"", at=f.inode) == seen, "nothing asked, nothing changed"
            seen = await w.set_attr(b"", at=f.inode, uid=5, gid=6)
            assert (seen.uid, seen.gid) == (5, 6)
            assert seen == await w.stat(b"f")

    run(body())


def test_a_new_owner_clears_set_id_bits_of_files() -> None:
    async def body() -> None:
        async with world() as w:
            await w.create(b"f", mode=0o6755)
            assert (await w.set_attr(b"f", gid=5)).mode == 0o755
            await w.set_attr(b"f", mode=0o6745)
            assert (await w.set_attr(b"f", uid=5)).mode == 0o2745, "set-group-id without group execution is a lock"
            assert (await w.set_attr(b"f", uid=6, mode=0o4755)).mode == 0o4755
            await w.mkdir(b"d")
            await w.set_attr(b"d", mode=0o2755)
            assert (await w.set_attr(b"d", uid=5)).mode == 0o2755

    run(body())


def test_set_attr_follows_symbolic_links_unless_told_not_to() -> None:
    async def body() -> None:
        async with world() as w:
            f = await w.create(b"f")
            link = await w.symlink(b"link", b"f")
            assert (await w.set_attr(b"link", uid=5)).inode == f.inode
            assert (await w.set_attr(b"link", uid=6, follow=False)).inode == link.inode
            assert (await w.stat(b"f")).uid == 5

    run(body())


def test_a_layout_is_for_children_made_from_now_on() -> None:
    async def body() -> None:
        async with world() as w:
            d = await w.mkdir(b"d")
            old = await w.create(b"d/old")
            seen = await w.set_attr(b"d", layout=Layout(1 << 20, 3, 1, 9, 9, 9))
            assert seen.layout == Layout(1 << 20, 3) and seen.ctime_ns > d.ctime_ns
            assert (await w.stat(b"d/old")).layout == old.layout
            new = (await w.create(b"d/new")).layout
            assert new is not None and new.chunk_size == 1 << 20
            with fails(errno.ENOTDIR):
                await w.set_attr(b"d/old", layout=Layout())
            with fails(errno.EINVAL):
                await w.set_attr(b"d", layout=Layout(7))

    run(body())


@pytest.mark.parametrize(
    "wrong",
    [
        {"uid": -1},
        {"gid": 2**32 - 1},
        {"uid": 2**40},
        {"atime_ns": -(2**63) - 1},
        {"mtime_ns": 2**63},
        {"atime_ns": 5, "atime_now": True},
        {"mtime_ns": 5, "mtime_now": True},
    ],
)
def test_set_attr_refuses_values_out_of_range(wrong: dict[str, Any]) -> None:
    async def body() -> None:
        async with world() as w:
            await w.create(b"f")
            with fails(errno.EINVAL):
                await w.set_attr(b"f", **wrong)

    run(body())


def test_set_attr_of_what_is_gone() -> None:
    async def body() -> None:
        async with world() as w:
            with fails(errno.ESTALE):
                await w.set_attr(b"", at=9999, mode=0)
            with fails(errno.ENOENT):
                await w.set_attr(b"missing", mode=0)

    run(body())


def test_statfs_divides_replicas_out() -> None:
    async def body() -> None:
        async with world() as w:
            w.routing = Routing(
                1,
                "test",
                [
                    NodeInfo(1, "h", 1, NodeState.UP, 3000, 600),
                    NodeInfo(2, "h", 2, NodeState.FAILED, 3000, 600),
                    NodeInfo(3, "h", 3, NodeState.LEFT, 3000, 600),
                ],
                [],
                [],
                replicas=2,
            )
            reply = await statfs(w.context, meta.Statfs())
            assert (reply.capacity_bytes, reply.free_bytes, reply.replicas) == (3000, 2400, 2)
            w.routing = None
            reply = await statfs(w.context, meta.Statfs())
            assert (reply.capacity_bytes, reply.free_bytes, reply.replicas, reply.files) == (0, 0, 1, 1)

    run(body())


def test_inodes_are_counted_without_scanning() -> None:
    async def body() -> None:
        async with world() as w:
            await w.mkdir(b"a/b", parents=True)
            await w.create(b"a/f")
            await w.symlink(b"a/link", b"f")
            await w.batch_create([b"x", b"y"])
            assert w.context.inode_count.estimate == len(await w.inodes()) == 7
            await w.remove_tree(b"a")
            await w.unlink(b"x")
            await w.collect_all()
            assert w.context.inode_count.estimate == len(await w.inodes()) == 2
            await w.context.inode_count.flush()
            again = w.new_context()
            await again.inode_count.flush()
            assert again.inode_count.estimate == 2
            assert (await w.stat(b"/")).inode == ROOT

    run(body())
