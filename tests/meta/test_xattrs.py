"""Extended attributes: errors as on Linux, who may do what, bounds, and that they go with their inode."""

import errno

import pytest

from fs_common.limits import XATTR_LIST_BYTES_MAX, XATTR_VALUE_BYTES_MAX
from fs_common.records.meta import InodeFlags, RenameFlags, User, XattrFlags
from fs_meta import schema
from fs_meta.kv.interface import Transaction
from tests.meta.world import ROOT, World, fails, world
from tests.support import run

OWNER = User(1000, 1000)
GROUP = User(2000, 1000)
MEMBER = User(2000, 2000, [1000])
OTHER = User(3000, 3000)


async def _owned(w: World, path: bytes = b"f", mode: int = 0o640) -> int:
    return (await w.acting(OWNER).create(path, mode=mode)).inode


async def _flag(w: World, inode: int, flags: int) -> None:
    async def put(txn: Transaction) -> None:
        key = schema.inode_key(inode)
        record = schema.decode_inode(await txn.get(key) or b"")
        record.flags = flags
        txn.put(key, schema.encode(record))

    await w.kv.transact(put)


def test_values_are_kept_replaced_listed_and_removed() -> None:
    async def body() -> None:
        async with world() as w:
            f, g = await _owned(w), await _owned(w, b"g")
            await w.set_xattr(f, b"user.b", b"\0any\xff")
            await w.set_xattr(f, b"user.a", b"")
            assert await w.get_xattr(f, b"user.b") == b"\0any\xff"
            assert await w.get_xattr(f, b"user.a") == b""
            await w.set_xattr(f, b"user.b", b"2")
            assert await w.get_xattr(f, b"user.b") == b"2"
            assert await w.list_xattrs(f) == [b"user.a", b"user.b"]
            assert await w.list_xattrs(g) == []
            await w.remove_xattr(f, b"user.b")
            assert await w.list_xattrs(f) == [b"user.a"]
            for call in (w.get_xattr(f, b"user.b"), w.remove_xattr(f, b"user.b"), w.get_xattr(g, b"user.a")):
                with fails(errno.ENODATA):
                    await call

    run(body())


def test_create_and_replace() -> None:
    async def body() -> None:
        async with world() as w:
            f = await _owned(w)
            with fails(errno.ENODATA):
                await w.set_xattr(f, b"user.a", b"1", XattrFlags.REPLACE)
            await w.set_xattr(f, b"user.a", b"1", XattrFlags.CREATE)
            with fails(errno.EEXIST):
                await w.set_xattr(f, b"user.a", b"2", XattrFlags.CREATE)
            assert await w.get_xattr(f, b"user.a") == b"1"
            await w.set_xattr(f, b"user.a", b"2", XattrFlags.REPLACE)
            assert await w.get_xattr(f, b"user.a") == b"2"
            both = XattrFlags.CREATE | XattrFlags.REPLACE
            with fails(errno.EEXIST):
                await w.set_xattr(f, b"user.a", b"3", both)
            with fails(errno.ENODATA):
                await w.set_xattr(f, b"user.b", b"3", both)
            with fails(errno.EINVAL):
                await w.set_xattr(f, b"user.a", b"3", 4)

    run(body())


@pytest.mark.parametrize(
    ("name", "number"),
    [
        (b"", errno.ERANGE),
        (b"user." + b"x" * 251, errno.ERANGE),
        (b"user.", errno.EINVAL),
        (b"security.", errno.EINVAL),
        (b"user.a\0b", errno.EINVAL),
        (b"system.other", errno.EOPNOTSUPP),
        (b"USER.a", errno.EOPNOTSUPP),
        (b"user", errno.EOPNOTSUPP),
        (b"x", errno.EOPNOTSUPP),
    ],
)
def test_names_that_are_none(name: bytes, number: int) -> None:
    async def body() -> None:
        async with world() as w:
            f = await _owned(w)
            for call in (w.get_xattr(f, name), w.set_xattr(f, name), w.remove_xattr(f, name)):
                with fails(number):
                    await call
            assert await w.list_xattrs(f) == []

    run(body())


def test_the_longest_name_and_the_largest_value() -> None:
    async def body() -> None:
        async with world() as w:
            f = await _owned(w)
            name, value = b"user." + b"x" * 250, b"v" * XATTR_VALUE_BYTES_MAX
            await w.set_xattr(f, name, value)
            assert await w.get_xattr(f, name) == value
            with fails(errno.E2BIG):
                await w.set_xattr(f, name, value + b"v")
            assert await w.get_xattr(f, name) == value

    run(body())


def test_all_names_fit_into_one_list() -> None:
    async def body() -> None:
        async with world() as w:
            f = await _owned(w)
            count = XATTR_LIST_BYTES_MAX // 256
            for number in range(count):
                await w.set_xattr(f, b"user.%0250d" % number)
            with fails(errno.E2BIG):
                await w.set_xattr(f, b"user.a")
            await w.set_xattr(f, b"user.%0250d" % 0, b"a value replaced takes no room of names")
            await w.remove_xattr(f, b"user.%0250d" % 0)
            await w.set_xattr(f, b"user.a")
            assert len(await w.list_xattrs(f)) == count

    run(body())


def test_user_attributes_follow_the_modes() -> None:
    async def body() -> None:
        async with world() as w:
            f = await _owned(w, mode=0o640)
            await w.set_xattr(f, b"user.a", b"1", user=OWNER)
            for user in (GROUP, MEMBER):
                assert await w.get_xattr(f, b"user.a", user) == b"1"
                for call in (w.set_xattr(f, b"user.a", user=user), w.remove_xattr(f, b"user.a", user)):
                    with fails(errno.EACCES):
                        await call
            for call in (w.get_xattr(f, b"user.a", OTHER), w.get_xattr(f, b"user.none", OTHER)):
                with fails(errno.EACCES):
                    await call
            assert await w.list_xattrs(f, OTHER) == [b"user.a"], "names are no secret, as on Linux"
            own = await _owned(w, b"own", 0o077)
            with fails(errno.EACCES):
                await w.set_xattr(own, b"user.a", user=OWNER)
            with fails(errno.EACCES):
                await w.get_xattr(own, b"user.a", OWNER)
            await w.set_xattr(own, b"user.a", b"1")
            assert await w.get_xattr(own, b"user.a", OTHER) == b"1"

    run(body())


def test_user_attributes_are_for_files_and_directories() -> None:
    async def body() -> None:
        async with world() as w:
            link = (await w.acting(OWNER).symlink(b"link", b"x")).inode
            with fails(errno.EPERM):
                await w.set_xattr(link, b"user.a")
            with fails(errno.EPERM):
                await w.remove_xattr(link, b"user.a")
            with fails(errno.ENODATA):
                await w.get_xattr(link, b"user.a")
            await w.set_xattr(link, b"trusted.a", b"1")
            assert await w.get_xattr(link, b"trusted.a") == b"1"
            d = (await w.acting(OWNER).mkdir(b"d")).inode
            await w.set_xattr(d, b"user.a", b"1", user=OWNER)
            assert await w.get_xattr(d, b"user.a", OTHER) == b"1"

    run(body())


def test_a_sticky_directorys_attributes_are_its_owners() -> None:
    async def body() -> None:
        async with world() as w:
            d = (await w.acting(OWNER).mkdir(b"d", mode=0o777)).inode
            await w.set_attr(b"d", mode=0o1777)
            for call in (w.set_xattr(d, b"user.a", user=OTHER), w.remove_xattr(d, b"user.a", OTHER)):
                with fails(errno.EPERM):
                    await call
            await w.set_xattr(d, b"user.a", b"1", user=OWNER)
            assert await w.get_xattr(d, b"user.a", OTHER) == b"1"
            await w.remove_xattr(d, b"user.a")
            await w.set_attr(b"d", mode=0o777)
            await w.set_xattr(d, b"user.a", user=OTHER)

    run(body())


def test_trusted_attributes_are_roots_and_nobody_else_sees_them() -> None:
    async def body() -> None:
        async with world() as w:
            f = await _owned(w, mode=0o666)
            await w.set_xattr(f, b"trusted.a", b"1")
            await w.set_xattr(f, b"user.a", b"1")
            assert await w.list_xattrs(f) == [b"trusted.a", b"user.a"]
            assert await w.list_xattrs(f, OWNER) == [b"user.a"]
            with fails(errno.ENODATA):
                await w.get_xattr(f, b"trusted.a", OWNER)
            for call in (w.set_xattr(f, b"trusted.a", user=OWNER), w.remove_xattr(f, b"trusted.a", OWNER)):
                with fails(errno.EPERM):
                    await call
            assert await w.get_xattr(f, b"trusted.a") == b"1"

    run(body())


def test_security_attributes_are_read_by_all_and_written_by_root() -> None:
    async def body() -> None:
        async with world() as w:
            f = await _owned(w, mode=0o600)
            await w.set_xattr(f, b"security.selinux", b"label")
            assert await w.get_xattr(f, b"security.selinux", OTHER) == b"label"
            assert await w.list_xattrs(f, OTHER) == [b"security.selinux"]
            for call in (w.set_xattr(f, b"security.x", user=OWNER), w.remove_xattr(f, b"security.selinux", OWNER)):
                with fails(errno.EPERM):
                    await call

    run(body())


@pytest.mark.parametrize("flag", [InodeFlags.IMMUTABLE, InodeFlags.APPEND])
def test_flagged_objects_keep_their_attributes(flag: InodeFlags) -> None:
    async def body() -> None:
        async with world() as w:
            f = await _owned(w)
            for name in (b"user.a", b"trusted.a", b"security.a"):
                await w.set_xattr(f, name, b"1")
            await _flag(w, f, flag)
            for name in (b"user.a", b"trusted.a", b"security.a"):
                for call in (w.set_xattr(f, name, b"2"), w.remove_xattr(f, name)):
                    with fails(errno.EPERM):
                        await call
                assert await w.get_xattr(f, name) == b"1"
            await _flag(w, f, 0)

    run(body())


def test_only_changes_move_ctime_and_only_ctime() -> None:
    async def body() -> None:
        async with world() as w:
            f = await _owned(w)
            seen = await w.stat(b"f")
            for change in (
                w.set_xattr(f, b"user.a", b"1"),
                w.set_xattr(f, b"user.a", b"1"),
                w.remove_xattr(f, b"user.a"),
            ):
                await change
                now = await w.stat(b"f")
                assert now.ctime_ns > seen.ctime_ns and now.mtime_ns == seen.mtime_ns
                seen = now
            with fails(errno.ENODATA):
                await w.remove_xattr(f, b"user.a")
            await w.list_xattrs(f)
            assert await w.stat(b"f") == seen

    run(body())


def test_an_inode_that_is_gone() -> None:
    async def body() -> None:
        async with world() as w:
            for call in (
                w.get_xattr(99, b"user.a"),
                w.list_xattrs(99),
                w.set_xattr(99, b"user.a"),
                w.remove_xattr(99, b"user.a"),
            ):
                with fails(errno.ESTALE):
                    await call

    run(body())


def test_they_belong_to_the_inode_not_to_a_name() -> None:
    async def body() -> None:
        async with world() as w:
            f = await _owned(w)
            await w.set_xattr(f, b"user.a", b"1")
            await w.link(b"f", b"g")
            await w.unlink(b"f")
            await w.rename(b"g", b"h")
            assert await w.get_xattr((await w.stat(b"h")).inode, b"user.a") == b"1"

    run(body())


def test_they_go_with_the_inode_whatever_removes_it() -> None:
    async def body() -> None:
        async with world() as w:
            for directory in (b"d1", b"d2", b"d3", b"tree", b"tree/sub"):
                await w.mkdir(directory)
            for file in (b"f1", b"f2", b"f3", b"tree/f"):
                await w.create(file)
            await w.symlink(b"link", b"x")
            for path in (b"d1", b"d2", b"d3", b"tree", b"tree/sub", b"f1", b"f2", b"f3", b"tree/f", b"link"):
                await w.set_xattr((await w.stat(path, follow=False)).inode, b"trusted.a", b"1")
            await w.rmdir(b"d1")
            await w.rename(b"d2", b"d3")
            await w.unlink(b"link")
            assert len(await w.table(b"A")) == 7
            await w.rename(b"f1", b"f2")
            await w.unlink(b"f2")
            await w.remove_tree(b"f3")
            await w.remove_tree(b"tree")
            assert len(await w.table(b"A")) == 7, "a removed file may still be open"
            await w.rmdir(b"d3")
            await w.collect_all()
            assert await w.table(b"A") == [] and await w.inodes() == {ROOT}

    run(body())


def test_exchange_keeps_each_ones_own() -> None:
    async def body() -> None:
        async with world() as w:
            f, g = await _owned(w), await _owned(w, b"g")
            await w.set_xattr(f, b"user.a", b"f")
            await w.set_xattr(g, b"user.a", b"g")
            await w.rename(b"f", b"g", RenameFlags.EXCHANGE)
            assert (await w.stat(b"g")).inode == f
            assert await w.get_xattr(f, b"user.a") == b"f" and await w.get_xattr(g, b"user.a") == b"g"

    run(body())
