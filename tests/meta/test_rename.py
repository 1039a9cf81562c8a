"""rename: the checks at the head of `fs_meta.ops.rename`, and what each success leaves."""

import errno

import pytest

from fs_common.limits import PATH_DEPTH_MAX
from fs_common.records.meta import FileType, RenameFlags, User
from tests.meta.world import ROOT, World, fails, world
from tests.support import run

NO_REPLACE, EXCHANGE = int(RenameFlags.NO_REPLACE), int(RenameFlags.EXCHANGE)
WHITEOUT = int(RenameFlags.WHITEOUT)


async def _tree(w: World) -> None:
    await w.create(b"f")
    await w.create(b"g")
    await w.link(b"f", b"f2")
    await w.mkdir(b"d")
    await w.mkdir(b"d/sub")
    await w.mkdir(b"empty")
    await w.mkdir(b"full")
    await w.create(b"full/x")
    await w.symlink(b"to_d", b"d")


async def _picture(w: World) -> dict[bytes, tuple[int, int]]:
    """Every path, its inode and its links."""
    found = {}
    pending = [(b"", ROOT)]
    while pending:
        path, inode = pending.pop()
        for entry in (await w.readdir(inode, with_attributes=True)).entries:
            assert entry.attributes is not None
            found[path + entry.name] = (entry.inode, entry.attributes.links)
            if entry.type == 2:
                pending.append((path + entry.name + b"/", entry.inode))
    return found


WRONG = [
    (b"missing", b"new", 0, errno.ENOENT),
    (b"", b"new", 0, errno.ENOENT),
    (b"f", b"", 0, errno.ENOENT),
    (b"f", b"missing/new", 0, errno.ENOENT),
    (b"missing/x", b"new", 0, errno.ENOENT),
    (b"f", b"g/new", 0, errno.ENOTDIR),
    (b"f/x", b"new", 0, errno.ENOTDIR),
    (b"f", b"n" * 256, 0, errno.ENAMETOOLONG),
    (b"d/.", b"new", 0, errno.EINVAL),
    (b"d/sub/..", b"new", 0, errno.EINVAL),
    (b"d", b"empty/.", 0, errno.EINVAL),
    (b"d", b"empty/..", 0, errno.EINVAL),
    (b"/", b"new", 0, errno.EBUSY),
    (b"d", b"/", 0, errno.EBUSY),
    (b"f", b"new", NO_REPLACE | EXCHANGE, errno.EINVAL),
    (b"f", b"new", 8, errno.EINVAL),
    (b"f", b"g", WHITEOUT | EXCHANGE, errno.EINVAL),
    (b"f", b"g", WHITEOUT | NO_REPLACE, errno.EEXIST),
    (b"f", b"new", -1, errno.EINVAL),
    # A name that is there.
    (b"d", b"f", 0, errno.ENOTDIR),
    (b"d", b"to_d", 0, errno.ENOTDIR),
    (b"f", b"empty", 0, errno.EISDIR),
    (b"f", b"full", 0, errno.EISDIR),
    (b"d", b"full", 0, errno.ENOTEMPTY),
    (b"d/sub", b"d", 0, errno.ENOTEMPTY),
    (b"f", b"g", NO_REPLACE, errno.EEXIST),
    (b"f", b"f2", NO_REPLACE, errno.EEXIST),
    (b"f", b"f", NO_REPLACE, errno.EEXIST),
    (b"d", b"empty", NO_REPLACE, errno.EEXIST),
    # Trailing slashes.
    (b"f/", b"new", 0, errno.ENOTDIR),
    (b"to_d/", b"new", 0, errno.ENOTDIR),
    (b"f", b"new/", 0, errno.ENOTDIR),
    (b"f", b"empty/", 0, errno.ENOTDIR),
    (b"d", b"f/", EXCHANGE, errno.ENOTDIR),
    (b"f/", b"d", EXCHANGE, errno.ENOTDIR),
    # Loops.
    (b"d", b"d/new", 0, errno.EINVAL),
    (b"d", b"d/sub", 0, errno.EINVAL),
    (b"d", b"d/sub/new", 0, errno.EINVAL),
    (b"d", b"to_d/sub/new", 0, errno.EINVAL),
    (b"d", b"d/sub", EXCHANGE, errno.EINVAL),
    (b"d/sub", b"d", EXCHANGE, errno.EINVAL),
    # Exchange needs both.
    (b"f", b"missing", EXCHANGE, errno.ENOENT),
    (b"missing", b"f", EXCHANGE, errno.ENOENT),
]


@pytest.mark.parametrize(("path", "new_path", "flags", "number"), WRONG)
def test_what_rename_refuses_changes_nothing(path: bytes, new_path: bytes, flags: int, number: int) -> None:
    async def body() -> None:
        async with world() as w:
            await _tree(w)
            before = await _picture(w)
            root = await w.stat(b"/")
            with fails(number):
                await w.rename(path, new_path, flags)
            assert await _picture(w) == before
            assert await w.stat(b"/") == root

    run(body())


def test_a_file_moves_and_times_tell() -> None:
    async def body() -> None:
        async with world() as w:
            await _tree(w)
            f = await w.stat(b"f")
            await w.rename(b"f", b"d/new")
            moved = await w.stat(b"d/new")
            assert (moved.inode, moved.links, moved.mtime_ns) == (f.inode, 2, f.mtime_ns)
            assert moved.ctime_ns > f.ctime_ns
            for directory in (b"/", b"d"):
                seen = await w.stat(directory)
                assert seen.mtime_ns == seen.ctime_ns == moved.ctime_ns
            with fails(errno.ENOENT):
                await w.stat(b"f")

    run(body())


def test_a_replaced_file_loses_a_link() -> None:
    async def body() -> None:
        async with world() as w:
            await _tree(w)
            f, g = await w.stat(b"f"), await w.stat(b"g")
            await w.rename(b"g", b"f")
            assert (await w.stat(b"f")).inode == g.inode
            assert (await w.stat(b"f2")).links == 1
            await w.rename(b"f", b"f2")
            assert (await w.stat(b"", at=f.inode)).links == 0
            assert len(await w.table(b"G")) == 1
            # A symbolic link is replaced itself, whatever it leads to.
            await w.rename(b"f2", b"to_d")
            assert (await w.stat(b"to_d")).inode == g.inode

    run(body())


def test_a_replaced_file_that_is_open_keeps_its_chunks() -> None:
    async def body() -> None:
        async with world() as w:
            target = await w.create_open(b"target")
            await w.create(b"f")
            await w.rename(b"f", b"target")
            assert await w.table(b"G") == []
            await w.close(target.attributes.inode, target.session)
            assert len(await w.table(b"G")) == 1

    run(body())


def test_directories_move_with_their_links() -> None:
    async def body() -> None:
        async with world() as w:
            await _tree(w)
            d = await w.stat(b"d")
            await w.rename(b"d/", b"full/moved/")
            moved = await w.stat(b"full/moved")
            assert (moved.inode, moved.parent) == (d.inode, (await w.stat(b"full")).inode)
            assert [(await w.stat(path)).links for path in (b"/", b"full", b"full/moved")] == [4, 3, 3]
            # Over an empty directory.
            empty = await w.stat(b"empty")
            await w.rename(b"full/moved", b"empty")
            assert (await w.stat(b"empty")).inode == d.inode
            assert [(await w.stat(path)).links for path in (b"/", b"full", b"empty")] == [4, 2, 3]
            assert empty.inode not in await w.inodes()
            # And within one directory.
            await w.rename(b"empty", b"full/a")
            await w.rename(b"full/a", b"full/b")
            assert (await w.stat(b"full")).links == 3

    run(body())


def test_the_same_inode_on_both_sides_is_left_alone() -> None:
    async def body() -> None:
        async with world() as w:
            await _tree(w)
            before, root = await _picture(w), await w.stat(b"/")
            for path, new_path, flags in [
                (b"f", b"f", 0), (b"f", b"f2", 0), (b"d", b"d", 0), (b"d/", b"d", 0), (b"f", b"f2", EXCHANGE),
            ]:  # fmt: skip
                await w.rename(path, new_path, flags)
            assert await _picture(w) == before and await w.stat(b"/") == root

    run(body())


def test_no_replace_moves_to_a_free_name() -> None:
    async def body() -> None:
        async with world() as w:
            await _tree(w)
            await w.rename(b"f", b"new", NO_REPLACE)
            assert b"new" in await w.names()

    run(body())


@pytest.mark.parametrize(
    ("path", "new_path"),
    [(b"f", b"g"), (b"f", b"full"), (b"d", b"full"), (b"f", b"full/x"), (b"d", b"full/x"), (b"to_d", b"d/sub")],
)
def test_exchange_swaps_whatever_they_are(path: bytes, new_path: bytes) -> None:
    async def body() -> None:
        async with world() as w:
            await _tree(w)
            one, other = await w.stat(path, follow=False), await w.stat(new_path, follow=False)
            await w.rename(path, new_path, EXCHANGE)
            assert (await w.stat(path, follow=False)).inode == other.inode
            assert (await w.stat(new_path, follow=False)).inode == one.inode
            assert len(await w.table(b"G")) == 0
            await w.rename(path, new_path, EXCHANGE)
            assert (await w.stat(path, follow=False)).inode == one.inode

    run(body())


def test_nothing_moves_into_a_removed_tree() -> None:
    async def body() -> None:
        async with world() as w:
            await _tree(w)
            top, below = await w.stat(b"d"), await w.stat(b"d/sub")
            await w.remove_tree(b"d")
            for inode in (top.inode, below.inode):
                for path in (b"f", b"full"):
                    with fails(errno.ENOENT):
                        await w.rename(path, b"new", new_at=inode)
            with fails(errno.ESTALE):
                await w.rename(b"f", b"new", new_at=9999)
            f = await w.stat(b"f")
            with fails(errno.ENOTDIR):
                await w.rename(b"g", b"new", new_at=f.inode)

    run(body())


def test_the_ancestors_that_are_read_have_a_bound() -> None:
    async def body() -> None:
        async with world() as w:
            at = ROOT
            for _ in range(PATH_DEPTH_MAX - 1):
                at = (await w.mkdir(b"d", at=at)).inode
            await w.mkdir(b"m")
            await w.rename(b"m", b"m", new_at=at)
            at = (await w.mkdir(b"d", at=at)).inode
            await w.mkdir(b"m")
            with fails(errno.ENAMETOOLONG):
                await w.rename(b"m", b"m", new_at=at)

    run(body())


@pytest.mark.parametrize("flags", [WHITEOUT, WHITEOUT | NO_REPLACE])
@pytest.mark.parametrize("name", [b"f", b"d", b"to_d"])
def test_a_white_out_is_left(name: bytes, flags: int) -> None:
    async def body() -> None:
        async with world() as w:
            await _tree(w)
            await w.mkdir(b"group")
            await w.set_attr(b"group", gid=77)
            await w.set_attr(b"group", mode=0o2777)
            await w.set_attr(b"d", mode=0o777)
            await w.rename(name, b"group/" + name)
            await w.set_attr(b"", mode=0o777)
            before = await _picture(w)
            used = w.context.inode_count.estimate
            moved = await w.stat(b"group/" + name, follow=False)
            user = w.acting(User(5, 6))
            await user.rename(b"group/" + name, b"new", flags)
            left = await w.stat(b"group/" + name, follow=False)
            assert (left.type, left.device, left.mode) == (FileType.CHARACTER_DEVICE, 0, 0)
            assert (left.uid, left.gid, left.links) == (5, 77, 1)
            assert (await w.stat(b"new", follow=False)).inode == moved.inode
            assert w.context.inode_count.estimate == used + 1
            after = await _picture(w)
            assert len(after) == len(before) + 1
            await w.unlink(b"group/" + name)
            assert w.context.inode_count.estimate == used

    run(body())


def test_a_rename_of_two_names_of_one_file_leaves_no_white_out() -> None:
    async def body() -> None:
        async with world() as w:
            await _tree(w)
            before = await _picture(w)
            await w.rename(b"f", b"f2", WHITEOUT)
            assert await _picture(w) == before

    run(body())
