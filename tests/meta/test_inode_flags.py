"""Immutable and append-only inodes: what each operation does with them, root included."""

import errno
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from fs_common.layout import Layout
from fs_common.records.meta import FileType, InodeFlags, User
from tests.meta.world import ROOT, World, fails, world
from tests.support import run

Act = Callable[[World], Awaitable[Any]]
IMMUTABLE, APPEND = int(InodeFlags.IMMUTABLE), int(InodeFlags.APPEND)
NO_DUMP, NO_ATIME = int(InodeFlags.NO_DUMP), int(InodeFlags.NO_ATIME)
OK, PERM = 0, errno.EPERM


async def _tree(w: World, flag: int) -> None:
    """`f` and `d` have the flag; `g` and `e` have none."""
    await w.create(b"f")
    await w.create(b"g")
    for path in (b"d", b"e"):
        await w.mkdir(path)
        await w.create(path + b"/x")
        await w.mkdir(path + b"/sub")
    await w.set_attr(b"f", flags=flag)
    await w.set_attr(b"d", flags=flag)


async def _inode(w: World, path: bytes) -> int:
    return (await w.stat(path)).inode


CALLS: list[tuple[Act, int, int]] = [
    # What is done; the errno if the flag is IMMUTABLE, if it is APPEND.
    (lambda w: w.open(b"f", write=False), OK, OK),
    (lambda w: w.open(b"f"), PERM, PERM),
    (lambda w: w.open(b"f", append=True), PERM, OK),
    (lambda w: w.open(b"f", append=True, truncate=True), PERM, PERM),
    (lambda w: w.open(b"f", write=False, truncate=True), PERM, PERM),
    (lambda w: w.create_open(b"f", exclusive=False), PERM, PERM),
    (lambda w: w.create_open(b"f", exclusive=False, append=True), PERM, OK),
    (lambda w: w.create(b"f", exclusive=False), OK, OK),
    (lambda w: w.create(b"f"), errno.EEXIST, errno.EEXIST),
    (lambda w: _truncate(w, b"f"), PERM, PERM),
    (lambda w: _access(w, b"f", 2), PERM, OK),
    (lambda w: _access(w, b"f", 4), OK, OK),
    (lambda w: w.link(b"f", b"new"), PERM, PERM),
    (lambda w: w.unlink(b"f"), PERM, PERM),
    (lambda w: w.remove_tree(b"f"), PERM, PERM),
    (lambda w: w.rename(b"f", b"new"), PERM, PERM),
    (lambda w: w.rename(b"g", b"f"), PERM, PERM),
    (lambda w: w.rename(b"g", b"f", 2), PERM, PERM),
    (lambda w: w.rename(b"f", b"g", 2), PERM, PERM),
    (lambda w: w.rename(b"f", b"f"), OK, OK),
    (lambda w: w.set_attr(b"f", mode=0o644), PERM, PERM),
    (lambda w: w.set_attr(b"f", uid=0), PERM, PERM),
    (lambda w: w.set_attr(b"f", mtime_ns=5), PERM, PERM),
    (lambda w: w.set_attr(b"f", mtime_now=True), PERM, PERM),
    (lambda w: w.set_attr(b"f", atime_now=True, mtime_now=True), PERM, OK),
    (lambda w: w.set_attr(b"f"), OK, OK),
    (lambda w: w.set_attr(b"d", layout=Layout()), PERM, PERM),
    (lambda w: w.create(b"d/new"), PERM, OK),
    (lambda w: w.create(b"d/x"), errno.EEXIST, errno.EEXIST),
    (lambda w: w.create_open(b"d/x", exclusive=False), OK, OK),
    (lambda w: w.mkdir(b"d/new"), PERM, OK),
    (lambda w: w.mkdir(b"d/sub/new"), OK, OK),
    (lambda w: w.mkdir(b"d/1/2", parents=True), PERM, OK),
    (lambda w: w.symlink(b"d/new", b"x"), PERM, OK),
    (lambda w: w.mknod(b"d/new", FileType.FIFO), PERM, OK),
    (lambda w: w.link(b"g", b"d/new"), PERM, OK),
    (lambda w: w.rename(b"g", b"d/new"), PERM, OK),
    (lambda w: _unnamed(w, b"d"), PERM, OK),
    (lambda w: w.unlink(b"d/x"), PERM, PERM),
    (lambda w: w.rmdir(b"d/sub"), PERM, PERM),
    (lambda w: w.rename(b"d/x", b"new"), PERM, PERM),
    (lambda w: w.rename(b"d/x", b"d/y"), PERM, PERM),
    (lambda w: w.rename(b"g", b"d/x"), PERM, PERM),
    (lambda w: w.rename(b"g", b"d/x", 2), PERM, PERM),
    (lambda w: w.rmdir(b"d"), PERM, PERM),
    (lambda w: w.rename(b"d", b"new"), PERM, PERM),
    (lambda w: w.remove_tree(b"d"), PERM, PERM),
    (lambda w: w.set_attr(b"f", flags=0), OK, OK),
    (lambda w: w.set_attr(b"f", flags=IMMUTABLE | APPEND), PERM, OK),
    (lambda w: w.set_attr(b"f", flags=APPEND), OK, OK),
    (lambda w: w.set_attr(b"f", flags=NO_DUMP), OK, OK),
    (lambda w: w.set_attr(b"f", flags=0, mode=0o600), PERM, PERM),
]


async def _truncate(w: World, path: bytes) -> None:
    await w.truncate(await _inode(w, path), 5)


async def _access(w: World, path: bytes, mask: int) -> None:
    await w.access(await _inode(w, path), mask)


async def _unnamed(w: World, path: bytes) -> None:
    await w.create_unnamed(await _inode(w, path))


@pytest.mark.parametrize(("act", "immutable", "append"), CALLS)
@pytest.mark.parametrize("flag", [IMMUTABLE, APPEND], ids=["immutable", "append"])
def test_flags_bind_root_too(flag: int, act: Act, immutable: int, append: int) -> None:
    async def body() -> None:
        async with world() as w:
            await _tree(w, flag)
            number = immutable if flag == IMMUTABLE else append
            before = {table: await w.table(table) for table in (b"I", b"D", b"S", b"G")}
            if not number:
                await act(w)
                return
            with fails(number):
                await act(w)
            assert {table: await w.table(table) for table in before} == before

    run(body())


def test_immutable_comes_before_a_missing_right() -> None:
    async def body() -> None:
        async with world() as w:
            await _tree(w, IMMUTABLE)
            user = w.acting(User(5, 6))
            with fails(errno.EPERM):
                await user.create(b"d/new")
            with fails(errno.EPERM):
                await user.open(b"f", read=False)
            await w.set_attr(b"f", flags=APPEND)
            with fails(errno.EACCES):
                await user.open(b"f")

    run(body())


def test_who_opened_before_goes_on() -> None:
    """As on a local file system: rights and flags are looked at when a file is opened."""

    async def body() -> None:
        async with world() as w:
            opened = await w.create_open(b"f")
            inode = opened.attributes.inode
            await w.set_attr(b"f", flags=IMMUTABLE)
            with fails(errno.EPERM):
                await w.truncate(inode, 5, opened.session)
            assert (await w.fsync(inode, opened.session, 100)).length == 100
            assert (await w.close(inode, opened.session, 200)).length == 200

    run(body())


def test_flags_are_kept_shown_and_not_inherited() -> None:
    async def body() -> None:
        async with world() as w:
            await w.mkdir(b"d")
            seen = await w.set_attr(b"d", flags=NO_DUMP | NO_ATIME)
            assert seen.flags == NO_DUMP | NO_ATIME == (await w.stat(b"d")).flags
            assert (await w.create(b"d/f")).flags == (await w.mkdir(b"d/sub")).flags == 0
            assert (await w.set_attr(b"d", mode=0o700)).flags == NO_DUMP | NO_ATIME
            for wrong in (1, 1 << 32, -1):
                with fails(errno.EOPNOTSUPP):
                    await w.set_attr(b"d", flags=wrong)

    run(body())


def test_an_unnamed_files_marks_are_no_flags() -> None:
    async def body() -> None:
        async with world() as w:
            opened = await w.create_unnamed()
            inode = opened.attributes.inode
            assert opened.attributes.flags == 0
            assert (await w.set_attr(b"", at=inode, flags=NO_DUMP)).flags == NO_DUMP
            assert (await w.link(b"", b"named", at=inode)).flags == NO_DUMP
            assert (await w.stat(b"named", at=ROOT)).links == 1

    run(body())
