"""Who may do what: the rules of `fs_meta.ops.permission` in every operation, errno by errno."""

import errno
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from fs_common.layout import Layout
from fs_common.records import meta
from fs_common.records.meta import FileType, User
from fs_meta import schema
from fs_meta.ops import permission
from fs_meta.ops.permission import EXECUTE, READ, WRITE
from fs_meta.schema import Inode
from tests.meta.world import ROOT, World, fails, world
from tests.support import run

SUPER = User()
ALICE = User(1000, 1000)
BOB = User(2000, 2000, [50])
"""Group 50 is Alice's group for the directories she shares."""
CAROL = User(3000, 3000)


def _inode(mode: int, type_: FileType = FileType.FILE, uid: int = 1000, gid: int = 50) -> Inode:
    return Inode(type_, mode, uid, gid, 1, 0, 0, 0, 0, 0, None)


@pytest.mark.parametrize(
    ("mode", "user", "rights"),
    [
        (0o700, ALICE, READ | WRITE | EXECUTE),
        (0o077, ALICE, 0),
        (0o640, BOB, READ),
        (0o604, BOB, 0),
        (0o070, BOB, READ | WRITE | EXECUTE),
        (0o060, User(2000, 50), READ | WRITE),
        (0o604, CAROL, READ),
        (0o770, CAROL, 0),
        (0o001, CAROL, EXECUTE),
        (0o000, SUPER, READ | WRITE),
        (0o010, SUPER, READ | WRITE | EXECUTE),
        (0o001, SUPER, READ | WRITE | EXECUTE),
        (0o7000, CAROL, 0),
    ],
)
def test_one_class_of_bits_counts(mode: int, user: User, rights: int) -> None:
    record = _inode(mode)
    for asked in range(8):
        assert permission.allowed(record, user, asked) == (not asked & ~rights), asked


def test_root_searches_every_directory() -> None:
    assert permission.allowed(_inode(0, FileType.DIRECTORY), SUPER, READ | WRITE | EXECUTE)


@pytest.mark.parametrize(
    ("mode", "user", "left"),
    [
        (0o6755, SUPER, 0o6755),
        (0o6755, ALICE, 0o755),
        (0o6745, BOB, 0o2745),
        (0o6745, CAROL, 0o745),
        (0o6745, None, 0o2745),
        (0o6755, None, 0o755),
        (0o1755, CAROL, 0o1755),
    ],
)
def test_set_id_bits_go_with_the_bytes(mode: int, user: User | None, left: int) -> None:
    assert permission.without_set_id(_inode(mode), user) == left
    assert permission.without_set_id(_inode(mode, FileType.DIRECTORY), user) == mode


async def _tree(w: World) -> None:
    alice, bob = w.acting(ALICE), w.acting(BOB)
    await alice.mkdir(b"alice")
    for path, mode in [
        (b"f", 0o644),
        (b"secret", 0o600),
        (b"exec", 0o711),
        (b"writable", 0o666),
        (b"write_only", 0o222),
    ]:
        await alice.create(b"alice/" + path, mode=mode)
    await alice.symlink(b"alice/link", b"priv/x")
    await alice.symlink(b"alice/to_f", b"f")
    for path, mode in [
        (b"priv", 0o700), (b"shared", 0o770), (b"list", 0o744), (b"drop", 0o733), (b"open", 0o777), (b"empty", 0o700),
    ]:  # fmt: skip
        await alice.mkdir(b"alice/" + path, mode=mode)
        if path != b"empty":
            await alice.create(b"alice/" + path + b"/x")
    await w.set_attr(b"alice/shared", gid=50)
    await alice.mkdir(b"alice/priv/sub", mode=0o777)
    await w.mkdir(b"tmp", mode=0o1777)
    await alice.create(b"tmp/alices", mode=0o666)
    await alice.mkdir(b"tmp/alices_dir", mode=0o777)
    await bob.create(b"tmp/bobs")
    await bob.mkdir(b"bob")
    await bob.create(b"bob/f")
    await bob.mkdir(b"bob/dir")
    await bob.mkdir(b"bob/fixed", mode=0o555)
    await w.create(b"roots", mode=0o600)


Act = Callable[[World], Coroutine[Any, Any, Any]]
OK, ACCES, PERM = 0, errno.EACCES, errno.EPERM


async def _inode_of(w: World, path: bytes) -> int:
    return (await w.acting(SUPER).stat(path, follow=False)).inode


def _by_inode(path: bytes, act: Callable[[World, int], Coroutine[Any, Any, Any]]) -> Act:
    async def body(w: World) -> Any:
        return await act(w, await _inode_of(w, path))

    return body


WALKS: list[tuple[User, Act, int]] = [
    (CAROL, lambda w: w.stat(b"alice/f"), OK),
    (CAROL, lambda w: w.stat(b"alice/priv"), OK),
    (CAROL, lambda w: w.stat(b"alice/priv/"), OK),
    (CAROL, lambda w: w.stat(b"alice/priv/x"), ACCES),
    (CAROL, lambda w: w.stat(b"alice/priv/missing"), ACCES),
    (CAROL, lambda w: w.stat(b"alice/priv/" + b"n" * 256), ACCES),
    (CAROL, lambda w: w.stat(b"alice/priv/."), ACCES),
    (CAROL, lambda w: w.stat(b"alice/priv/.."), ACCES),
    (CAROL, lambda w: w.stat(b"alice/priv/sub/../../f"), ACCES),
    (CAROL, lambda w: w.stat(b"alice/link"), ACCES),
    (CAROL, lambda w: w.stat(b"alice/link", follow=False), OK),
    (CAROL, lambda w: w.stat(b"alice/f/x"), errno.ENOTDIR),
    (CAROL, lambda w: w.stat(b"alice/list/x"), ACCES),
    (CAROL, lambda w: w.stat(b"alice/drop/x"), OK),
    (BOB, lambda w: w.stat(b"alice/shared/x"), OK),
    (CAROL, lambda w: w.stat(b"alice/shared/x"), ACCES),
    (SUPER, lambda w: w.stat(b"alice/priv/x"), OK),
    (CAROL, _by_inode(b"alice/priv", lambda w, at: w.stat(b"x", at=at)), ACCES),
    (CAROL, _by_inode(b"alice/priv", lambda w, at: w.stat(b"", at=at)), OK),
    (CAROL, _by_inode(b"alice/priv", lambda w, at: w.lookup(at, b"x")), ACCES),
    (CAROL, _by_inode(b"alice/priv", lambda w, at: w.lookup(at, b"..")), ACCES),
    (CAROL, _by_inode(b"alice/f", lambda w, at: w.lookup(at, b"x")), errno.ENOTDIR),
    (CAROL, lambda w: w.stat(b"x", at=9999), errno.ESTALE),
    (CAROL, lambda w: w.readlink(b"alice/link"), OK),
    (CAROL, lambda w: w.readlink(b"alice/priv/x"), ACCES),
]
OPENS: list[tuple[User, Act, int]] = [
    (CAROL, lambda w: w.open(b"alice/f", write=False), OK),
    (CAROL, lambda w: w.open(b"alice/f"), ACCES),
    (CAROL, lambda w: w.open(b"alice/secret", write=False), ACCES),
    (ALICE, lambda w: w.open(b"alice/secret"), OK),
    (CAROL, lambda w: w.open(b"alice/writable"), OK),
    (CAROL, lambda w: w.open(b"alice/write_only"), ACCES),
    (CAROL, lambda w: w.open(b"alice/write_only", read=False), OK),
    (CAROL, lambda w: w.open(b"alice/f", write=False, truncate=True), ACCES),
    (CAROL, lambda w: w.open(b"alice/exec", write=False), ACCES),
    (CAROL, lambda w: w.open(b"alice/exec", write=False, read=False, execute=True), OK),
    (CAROL, lambda w: w.open(b"alice/f", write=False, execute=True), ACCES),
    (SUPER, lambda w: w.open(b"alice/f", write=False, execute=True), ACCES),
    (SUPER, lambda w: w.open(b"alice/exec", write=False, execute=True), OK),
    (SUPER, lambda w: w.open(b"alice", write=False, execute=True), ACCES),
    (SUPER, lambda w: w.open(b"alice/secret"), OK),
    (CAROL, lambda w: w.open(b"alice/priv", write=False), ACCES),
    (CAROL, lambda w: w.open(b"alice/list", write=False), OK),
    (CAROL, lambda w: w.open(b"alice/priv"), errno.EISDIR),
    (CAROL, lambda w: w.create(b"alice/f", exclusive=False), OK),
    (CAROL, lambda w: w.create_open(b"alice/f", exclusive=False), ACCES),
    (CAROL, lambda w: w.create(b"alice/f", exclusive=False, truncate=True), ACCES),
    (CAROL, lambda w: w.create_open(b"alice/write_only", exclusive=False, read=False), OK),
    (CAROL, lambda w: w.create_open(b"alice/write_only", exclusive=False), ACCES),
    (CAROL, lambda w: w.create_open(b"tmp/new", mode=0), OK),
    (CAROL, _by_inode(b"alice/priv", lambda w, inode: w.readdir(inode)), ACCES),
    (CAROL, _by_inode(b"alice/drop", lambda w, inode: w.readdir(inode)), ACCES),
    (CAROL, _by_inode(b"alice/list", lambda w, inode: w.readdir(inode)), OK),
    (CAROL, _by_inode(b"alice/f", lambda w, inode: w.readdir(inode)), errno.ENOTDIR),
    (CAROL, _by_inode(b"alice/f", lambda w, inode: w.access(inode, READ)), OK),
    (CAROL, _by_inode(b"alice/f", lambda w, inode: w.access(inode, READ | WRITE)), ACCES),
    (CAROL, _by_inode(b"roots", lambda w, inode: w.access(inode, 0)), OK),
    (SUPER, _by_inode(b"alice/f", lambda w, inode: w.access(inode, EXECUTE)), ACCES),
    (SUPER, _by_inode(b"alice/f", lambda w, inode: w.access(inode, 8)), errno.EINVAL),
    (SUPER, lambda w: w.access(9999, 0), errno.ESTALE),
    (CAROL, _by_inode(b"alice/f", lambda w, inode: w.truncate(inode, 1)), ACCES),
    (CAROL, _by_inode(b"alice/writable", lambda w, inode: w.truncate(inode, 1)), OK),
    (CAROL, _by_inode(b"alice/priv", lambda w, inode: w.usage(inode)), ACCES),
]
CHANGES: list[tuple[User, Act, int]] = [
    (CAROL, lambda w: w.create(b"alice/new"), ACCES),
    (CAROL, lambda w: w.create(b"alice/f"), errno.EEXIST),
    (CAROL, lambda w: w.create(b"alice/new/"), errno.EISDIR),
    (CAROL, lambda w: w.create(b"alice/priv/new"), ACCES),
    (CAROL, lambda w: w.create(b"alice/drop/new"), OK),
    (CAROL, lambda w: w.mkdir(b"alice/new"), ACCES),
    (CAROL, lambda w: w.mkdir(b"alice/f"), errno.EEXIST),
    (CAROL, lambda w: w.mkdir(b"alice/open/a/b", parents=True), OK),
    (CAROL, lambda w: w.mkdir(b"alice/open", parents=True), OK),
    (CAROL, lambda w: w.mkdir(b"alice/new/b", parents=True), ACCES),
    (CAROL, lambda w: w.mkdir(b"alice/priv/sub", parents=True), ACCES),
    (CAROL, lambda w: w.symlink(b"alice/new", b"x"), ACCES),
    (CAROL, lambda w: w.symlink(b"alice/f", b"x"), errno.EEXIST),
    (CAROL, lambda w: w.mknod(b"alice/new", FileType.FIFO), ACCES),
    (CAROL, lambda w: w.mknod(b"alice/f", FileType.FIFO), errno.EEXIST),
    (CAROL, lambda w: w.mknod(b"alice/new", FileType.BLOCK_DEVICE), ACCES),
    (CAROL, lambda w: w.mknod(b"alice/open/new", FileType.BLOCK_DEVICE), PERM),
    (CAROL, lambda w: w.link(b"alice/f", b"alice/new"), ACCES),
    (CAROL, lambda w: w.link(b"roots", b"alice/open/new"), OK),
    (CAROL, lambda w: w.link(b"alice/priv/x", b"alice/open/new"), ACCES),
    (CAROL, lambda w: w.link(b"alice/priv", b"alice/new"), ACCES),
    (CAROL, lambda w: w.unlink(b"alice/f"), ACCES),
    (CAROL, lambda w: w.unlink(b"alice/priv"), ACCES),
    (CAROL, lambda w: w.unlink(b"alice/missing"), errno.ENOENT),
    (CAROL, lambda w: w.unlink(b"alice/f/"), errno.ENOTDIR),
    (CAROL, lambda w: w.unlink(b"alice/open/x"), OK),
    (BOB, lambda w: w.unlink(b"alice/shared/x"), OK),
    (CAROL, lambda w: w.rmdir(b"alice/empty"), ACCES),
    (CAROL, lambda w: w.rmdir(b"alice/f"), ACCES),
    (CAROL, lambda w: w.rmdir(b"alice/priv"), ACCES),
    (ALICE, lambda w: w.rmdir(b"alice/priv"), errno.ENOTEMPTY),
    (ALICE, lambda w: w.rmdir(b"alice/f"), errno.ENOTDIR),
    (ALICE, lambda w: w.unlink(b"alice/priv"), errno.EISDIR),
    # Sticky directories.
    (BOB, lambda w: w.unlink(b"tmp/alices"), PERM),
    (BOB, lambda w: w.unlink(b"tmp/bobs"), OK),
    (BOB, lambda w: w.unlink(b"tmp/alices_dir"), PERM),
    (BOB, lambda w: w.rmdir(b"tmp/alices_dir"), PERM),
    (BOB, lambda w: w.remove_tree(b"tmp/alices"), PERM),
    (BOB, lambda w: w.rename(b"tmp/alices", b"bob/new"), PERM),
    (BOB, lambda w: w.rename(b"bob/f", b"tmp/alices"), PERM),
    (BOB, lambda w: w.rename(b"tmp/alices", b"tmp/bobs", 2), PERM),
    (BOB, lambda w: w.rename(b"tmp/bobs", b"tmp/alices", 2), PERM),
    (BOB, lambda w: w.rename(b"tmp/bobs", b"bob/new"), OK),
    (SUPER, lambda w: w.unlink(b"tmp/alices"), OK),
    # Rename.
    (BOB, lambda w: w.rename(b"bob/f", b"alice/new"), ACCES),
    (BOB, lambda w: w.rename(b"alice/f", b"bob/new"), ACCES),
    (BOB, lambda w: w.rename(b"alice/f", b"alice/to_f"), ACCES),
    (BOB, lambda w: w.rename(b"alice/f", b"alice/f"), OK),
    (BOB, lambda w: w.rename(b"alice/missing", b"bob/new"), errno.ENOENT),
    (BOB, lambda w: w.rename(b"bob/f", b"alice/f", 1), errno.EEXIST),
    (BOB, lambda w: w.rename(b"bob/f", b"alice/priv"), ACCES),
    (BOB, lambda w: w.rename(b"bob/f", b"bob"), errno.ENOTEMPTY),
    (BOB, lambda w: w.rename(b"bob/dir", b"bob/dir/x"), errno.EINVAL),
    (BOB, lambda w: w.rename(b"bob/fixed", b"alice/open/new"), ACCES),
    (BOB, lambda w: w.rename(b"bob/fixed", b"bob/new"), OK),
    (BOB, lambda w: w.rename(b"bob/dir", b"alice/open/new"), OK),
    (BOB, lambda w: w.rename(b"bob/fixed", b"alice/open/x"), errno.ENOTDIR),
    (BOB, lambda w: w.rename(b"bob/fixed", b"alice/open/x", 2), ACCES),
    (BOB, lambda w: w.rename(b"alice/open/x", b"bob/fixed", 2), ACCES),
    (BOB, lambda w: w.rename(b"alice/open/x", b"bob/dir", 2), OK),
    (BOB, lambda w: w.rename(b"bob/f", b"bob/fixed"), errno.EISDIR),
    (BOB, lambda w: w.rename(b"bob/f", b"alice/empty", 2), ACCES),
]
ATTRIBUTES: list[tuple[User, Act, int]] = [
    (CAROL, lambda w: w.set_attr(b"alice/f", mode=0o600), PERM),
    (ALICE, lambda w: w.set_attr(b"alice/f", mode=0o600), OK),
    (ALICE, lambda w: w.set_attr(b"alice/to_f", mode=0o600, follow=False), errno.EOPNOTSUPP),
    (CAROL, lambda w: w.set_attr(b"alice/priv/x", mode=0o600), ACCES),
    (CAROL, lambda w: w.set_attr(b"alice/f", uid=3000), PERM),
    (ALICE, lambda w: w.set_attr(b"alice/f", uid=3000), PERM),
    (ALICE, lambda w: w.set_attr(b"alice/f", uid=1000, gid=1000), OK),
    (ALICE, lambda w: w.set_attr(b"alice/f", gid=50), PERM),
    (BOB, lambda w: w.set_attr(b"bob/f", gid=50), OK),
    (BOB, lambda w: w.set_attr(b"alice/f", gid=50), PERM),
    (CAROL, lambda w: w.set_attr(b"alice/f", gid=1000), PERM),
    (SUPER, lambda w: w.set_attr(b"alice/f", uid=3000, gid=77), OK),
    (CAROL, lambda w: w.set_attr(b"alice/writable", mtime_ns=5), PERM),
    (CAROL, lambda w: w.set_attr(b"alice/writable", atime_now=True), PERM),
    (CAROL, lambda w: w.set_attr(b"alice/writable", atime_now=True, mtime_ns=5), PERM),
    (CAROL, lambda w: w.set_attr(b"alice/writable", atime_now=True, mtime_now=True), OK),
    (CAROL, lambda w: w.set_attr(b"alice/f", atime_now=True, mtime_now=True), ACCES),
    (ALICE, lambda w: w.set_attr(b"alice/f", atime_now=True, mtime_ns=-5), OK),
    (CAROL, lambda w: w.set_attr(b"alice/open", layout=Layout()), PERM),
    (ALICE, lambda w: w.set_attr(b"alice/open", layout=Layout()), OK),
    (ALICE, lambda w: w.set_attr(b"alice/f", layout=Layout()), errno.ENOTDIR),
    (CAROL, lambda w: w.set_attr(b"alice/f", flags=0x40), PERM),
    (ALICE, lambda w: w.set_attr(b"alice/f", flags=0x40), OK),
    (ALICE, lambda w: w.set_attr(b"alice/f", flags=0x10), PERM),
    (ALICE, lambda w: w.set_attr(b"alice/f", flags=0x20), PERM),
    (ALICE, lambda w: w.set_attr(b"alice/f", flags=0x1), errno.EOPNOTSUPP),
    (ALICE, lambda w: w.set_attr(b"alice/to_f", flags=0x40, follow=False), errno.EOPNOTSUPP),
    (CAROL, lambda w: w.set_attr(b"alice/f"), OK),
]


@pytest.mark.parametrize(("user", "act", "number"), WALKS + OPENS + CHANGES + ATTRIBUTES)
def test_who_may(user: User, act: Act, number: int) -> None:
    """What is refused changes nothing."""

    async def body() -> None:
        async with world() as w:
            await _tree(w)
            before = {table: await w.table(table) for table in (b"I", b"D", b"S", b"G")}
            if not number:
                await act(w.acting(user))
                return
            with fails(number):
                await act(w.acting(user))
            assert {table: await w.table(table) for table in before} == before

    run(body())


def test_batches_tell_for_each_name() -> None:
    async def body() -> None:
        async with world() as w:
            await _tree(w)
            carol = w.acting(CAROL)
            reply = await carol.batch_stat([b"alice/f", b"alice/priv/x", b"alice/secret"])
            assert [(failure.index, failure.code) for failure in reply.errors] == [(1, 110)]
            reply = await carol.batch_stat([b"alice/f", b"alice/priv/x", b"alice/secret"], read=True)
            assert [(failure.index, failure.code) for failure in reply.errors] == [(1, 110), (2, 110)]
            alices = await _inode_of(w, b"alice")
            before = await w.stat(b"alice")
            reply = await carol.batch_create([b"f", b"new"], parent=alices)
            assert [(failure.index, failure.code) for failure in reply.errors] == [(0, 101), (1, 110)]
            assert await w.stat(b"alice") == before
            with fails(errno.EACCES):
                await carol.batch_create([b"new"], parent=await _inode_of(w, b"alice/priv"))

    run(body())


def test_a_listing_without_search_has_no_attributes() -> None:
    async def body() -> None:
        async with world() as w:
            await _tree(w)
            inode = await _inode_of(w, b"alice/list")
            [entry] = (await w.acting(CAROL).readdir(inode, with_attributes=True)).entries
            assert (entry.name, entry.type, entry.attributes) == (b"x", FileType.FILE, None)
            [entry] = (await w.acting(ALICE).readdir(inode, with_attributes=True)).entries
            assert entry.attributes == await w.stat(b"alice/list/x")

    run(body())


def test_usage_counts_what_may_be_seen() -> None:
    async def body() -> None:
        async with world() as w:
            await _tree(w)
            inode = await _inode_of(w, b"alice")
            seen, all_of_it = await w.acting(CAROL).usage(inode), await w.usage(inode)
            assert (all_of_it.files, all_of_it.directories, all_of_it.unreadable) == (10, 7, 0)
            assert (seen.files, seen.directories, seen.unreadable) == (6, 6, 5)

    run(body())


def test_what_is_made_has_the_right_owner_group_and_mode() -> None:
    async def body() -> None:
        async with world() as w:
            await w.mkdir(b"d")
            await w.set_attr(b"d", mode=0o2777, gid=50)
            outsider, member = w.acting(CAROL), w.acting(BOB)
            made = await outsider.create(b"d/1", mode=0o6755)
            assert (made.uid, made.gid, made.mode) == (3000, 50, 0o4755), "no privilege of a group he is not in"
            assert (await member.create(b"d/2", mode=0o6755)).mode == 0o6755
            assert (await outsider.create(b"d/3", mode=0o6745)).mode == 0o6745, "no privilege without execution"
            assert (await outsider.create(b"4", mode=0o6755)).mode == 0o6755, "his own group"
            assert (await w.create(b"d/5", mode=0o6755)).mode == 0o6755
            fifo = await outsider.mknod(b"d/fifo", FileType.FIFO, mode=0o2610)
            assert (fifo.uid, fifo.gid, fifo.mode) == (3000, 50, 0o610)
            reply = await outsider.batch_create([b"6"], parent=(await w.stat(b"d")).inode)
            assert reply.attributes[0] is not None and reply.attributes[0].gid == 50
            sub = await outsider.mkdir(b"d/sub", mode=0o6750)
            assert (sub.gid, sub.mode) == (50, 0o2750)

    run(body())


def test_chmod_gives_set_group_id_to_members_only() -> None:
    async def body() -> None:
        async with world() as w:
            await w.acting(BOB).create(b"f")
            await w.acting(BOB).set_attr(b"f", gid=50)
            assert (await w.acting(BOB).set_attr(b"f", mode=0o6755)).mode == 0o6755
            without_groups = User(BOB.uid, BOB.gid)
            assert (await w.acting(without_groups).set_attr(b"f", mode=0o6755)).mode == 0o4755
            assert (await w.set_attr(b"f", mode=0o6755)).mode == 0o6755
            await w.acting(BOB).mkdir(b"d")
            await w.set_attr(b"d", gid=77)
            assert (await w.acting(BOB).set_attr(b"d", mode=0o2755)).mode == 0o755
            assert (await w.acting(BOB).set_attr(b"f", mode=0o6755, gid=2000)).mode == 0o6755

    run(body())


def test_a_new_owner_or_group_takes_the_privilege_away() -> None:
    async def body() -> None:
        async with world() as w:
            bob = w.acting(BOB)
            for name, kind in [(b"f", FileType.FILE), (b"fifo", FileType.FIFO)]:
                await w.mknod(name, kind)
                await w.set_attr(name, uid=2000, gid=2000)
                await w.set_attr(name, mode=0o6755)
                assert (await bob.set_attr(name, gid=50)).mode == 0o755
                await w.set_attr(name, mode=0o6745, gid=77)
                assert (await bob.set_attr(name, uid=2000)).mode == 0o745, "not of the group: it goes too"
                await w.set_attr(name, mode=0o6745)
                assert (await w.set_attr(name, gid=5)).mode == 0o2745
            inode = (await w.stat(b"f")).inode
            await w.set_xattr(inode, b"security.capability", b"x")
            await w.set_attr(b"f", uid=1)
            assert await w.list_xattrs(inode) == []

    run(body())


@pytest.mark.parametrize(
    ("user", "mode", "left"),
    [(SUPER, 0o6755, 0o6755), (BOB, 0o6755, 0o755), (BOB, 0o2644, 0o644), (BOB, 0o1644, 0o1644)],
)
def test_truncate_takes_set_id_bits(user: User, mode: int, left: int) -> None:
    async def body() -> None:
        async with world() as w:
            f = await w.create(b"f")
            await w.set_attr(b"f", uid=BOB.uid, gid=77)
            await w.set_attr(b"f", mode=mode)
            assert (await w.acting(user).truncate(f.inode, 0)).mode == left

    run(body())


@pytest.mark.parametrize("how", ["close", "fsync"])
def test_a_writer_without_privilege_takes_set_id_bits(how: str) -> None:
    async def body() -> None:
        async with world() as w:
            for mode, left in [(0o6755, 0o755), (0o6645, 0o2645), (0o644, 0o644)]:
                opened = await w.create_open(b"%o" % mode)
                inode, session = opened.attributes.inode, opened.session
                await w.set_attr(b"", at=inode, mode=mode)
                await w.set_xattr(inode, b"security.capability", b"x")
                settle = getattr(w, how)
                assert (await settle(inode, session, 10, clear_set_id=True)).mode == left
                assert await w.list_xattrs(inode) == []

    run(body())


def test_who_has_a_session_needs_no_right_any_more() -> None:
    async def body() -> None:
        async with world() as w:
            bob, carol = w.acting(BOB), w.acting(CAROL)
            opened = await bob.create_open(b"f", mode=0)
            inode = opened.attributes.inode
            with fails(errno.EACCES):
                await bob.truncate(inode, 10)
            assert (await bob.truncate(inode, 10, opened.session)).length == 10
            with fails(errno.EBADF):
                await carol.truncate(inode, 10, b"s" * 16)
            assert (await bob.close(inode, opened.session)).length == 10
            with fails(errno.EBADF):
                await bob.truncate(inode, 0, opened.session)

    run(body())


def test_a_denied_truncate_cuts_nothing() -> None:
    async def body() -> None:
        async with world() as w:
            opened = await w.create_open(b"f")
            await w.fsync(opened.attributes.inode, opened.session, 100)
            with fails(errno.EACCES):
                await w.acting(CAROL).truncate(opened.attributes.inode, 10)
            assert w.chunks.cuts == []

    run(body())


def test_root_reads_no_directory_on_its_way() -> None:
    """And others read each once: rights cost them what they cost."""

    async def body() -> None:
        from fs_meta.ops.resolve import place_of, resolve

        async with world() as w:
            await w.mkdir(b"a/b/c", parents=True)
            await w.create(b"a/b/c/f")

            for user, inodes in [(SUPER, 0), (CAROL, 4)]:
                read: list[bytes] = []

                class Counting:
                    def __init__(self, txn: Any) -> None:
                        self._txn = txn

                    async def get(self, key: bytes, read: list[bytes] = read) -> bytes | None:
                        read.append(key)
                        found: bytes | None = await self._txn.get(key)
                        return found

                    snapshot_get = get

                async def walk(txn: Any, user: User = user) -> None:
                    await resolve(Counting(txn), ROOT, b"a/b/c/f", True, user)  # type: ignore[arg-type]

                async def place(txn: Any, user: User = user) -> None:
                    await place_of(Counting(txn), ROOT, b"a/b/c/f", user)  # type: ignore[arg-type]

                await w.kv.read(walk)
                assert [key[:1] for key in read].count(b"I") == inodes
                assert [key[:1] for key in read].count(b"D") == 4
                read.clear()
                await w.kv.read(place)
                assert [key[:1] for key in read].count(b"I") == inodes

    run(body())


def test_the_session_says_how_the_file_was_opened() -> None:
    async def body() -> None:
        async with world() as w:
            await w.create(b"f")
            await w.open(b"f", append=True)
            [(_, value)] = await w.table(b"S")
            session = schema.decode_session(value)
            assert (session.write, session.append) == (True, True)
            assert meta.Open(ROOT, b"f").read, "reading is the default"

    run(body())
