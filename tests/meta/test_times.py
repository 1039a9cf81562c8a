"""Which call changes which time, and the version of contents. What is not named does not change."""

import errno
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from fs_common.layout import Layout
from fs_common.records.meta import Attributes, FileType, User
from fs_meta.kv.interface import Transaction
from fs_meta.ops.inodes import put_inode
from fs_meta.ops.resolve import get_inode
from tests.meta.world import ROOT, World, fails, world
from tests.support import run

Act = Callable[[World], Awaitable[Any]]

OBJECTS = (b"", b"a", b"a/f", b"a/g", b"a/link", b"a/empty", b"a/sub", b"a/sub/x", b"b", b"b/f", b"b/empty", b"a/fifo")


async def _tree(w: World) -> None:
    for path in (b"a", b"a/empty", b"a/sub", b"b", b"b/empty"):
        await w.mkdir(path)
    for path in (b"a/f", b"a/sub/x", b"b/f"):
        await w.create(path)
    await w.link(b"a/f", b"a/g2")
    await w.create(b"a/g")
    await w.symlink(b"a/link", b"f")
    await w.mknod(b"a/fifo", FileType.FIFO)


async def _open(w: World, path: bytes) -> Any:
    return await w.open(path)


async def _write(w: World, end: int, **more: Any) -> None:
    opened = await w.open(b"a/f")
    await w.close(opened.attributes.inode, opened.session, end, **more)


async def _fsync(w: World, end: int, **more: Any) -> None:
    opened = await w.open(b"a/f")
    await w.fsync(opened.attributes.inode, opened.session, end, **more)


async def _truncate(w: World, length: int, session: bool = False) -> None:
    opened = await w.open(b"a/f")
    await w.truncate(opened.attributes.inode, length, opened.session if session else b"")


async def _look(w: World) -> None:
    await w.stat(b"a/link")
    await w.readlink(b"a/link")
    await w.open(b"a/f", write=False)
    await w.open(b"a", write=False)
    await w.readdir((await w.stat(b"a")).inode, with_attributes=True)
    await w.lookup(ROOT, b"a")
    await w.access((await w.stat(b"a/f")).inode, 7 - 1)
    await w.batch_stat([b"a/f", b"b"])
    await w.usage()


CALLS: list[tuple[str, Act, dict[bytes, str]]] = [
    ("looking", _look, {}),
    ("open for writing", lambda w: w.open(b"a/f"), {}),
    ("create that opens", lambda w: w.create_open(b"a/f", exclusive=False), {}),
    ("create", lambda w: w.create(b"a/new"), {b"a": "mcv"}),
    ("batch_create", lambda w: w.batch_create([b"1", b"2", b"b"]), {b"": "mcv"}),
    ("batch_create of nothing new", lambda w: w.batch_create([b"a", b"b"]), {}),
    ("create_unnamed", lambda w: w.create_unnamed(), {}),
    ("mkdir", lambda w: w.mkdir(b"a/new"), {b"a": "mcv"}),
    ("mkdir of what is there", lambda w: w.mkdir(b"a/sub", parents=True), {}),
    ("mkdir of ancestors", lambda w: w.mkdir(b"a/sub/1/2", parents=True), {b"a/sub": "mcv"}),
    ("symlink", lambda w: w.symlink(b"a/new", b"x"), {b"a": "mcv"}),
    ("mknod", lambda w: w.mknod(b"a/new", FileType.SOCKET), {b"a": "mcv"}),
    ("link", lambda w: w.link(b"a/f", b"b/new"), {b"a/f": "c", b"b": "mcv"}),
    ("link of a symbolic link", lambda w: w.link(b"a/link", b"b/new"), {b"a/link": "c", b"b": "mcv"}),
    ("unlink of one of two names", lambda w: w.unlink(b"a/g2"), {b"a/f": "c", b"a": "mcv"}),
    ("unlink of the last name", lambda w: w.unlink(b"a/g"), {b"a/g": "c", b"a": "mcv"}),
    ("unlink of a fifo", lambda w: w.unlink(b"a/fifo"), {b"a": "mcv"}),
    ("rmdir", lambda w: w.rmdir(b"a/empty"), {b"a": "mcv"}),
    ("remove_tree", lambda w: w.remove_tree(b"a/sub"), {b"a": "mcv", b"a/sub": "c"}),
    ("rename within a directory", lambda w: w.rename(b"a/f", b"a/new"), {b"a/f": "c", b"a": "mcv"}),
    ("rename", lambda w: w.rename(b"a/f", b"b/new"), {b"a/f": "c", b"a": "mcv", b"b": "mcv"}),
    ("rename of a directory", lambda w: w.rename(b"a/sub", b"b/new"), {b"a/sub": "c", b"a": "mcv", b"b": "mcv"}),
    ("rename over a file", lambda w: w.rename(b"a/f", b"b/f"), {b"a/f": "c", b"b/f": "c", b"a": "mcv", b"b": "mcv"}),
    ("rename over a directory", lambda w: w.rename(b"a/sub", b"b/empty"), {b"a/sub": "c", b"a": "mcv", b"b": "mcv"}),
    ("rename onto itself", lambda w: w.rename(b"a/f", b"a/g2"), {}),
    (
        "exchange",
        lambda w: w.rename(b"a/f", b"b/empty", 2),
        {b"a/f": "c", b"b/empty": "c", b"a": "mcv", b"b": "mcv"},
    ),
    ("chmod", lambda w: w.set_attr(b"a/f", mode=0o600), {b"a/f": "c"}),
    ("chmod to the same", lambda w: w.set_attr(b"a/f", mode=0o644), {b"a/f": "c"}),
    ("chown", lambda w: w.set_attr(b"a/link", uid=5, follow=False), {b"a/link": "c"}),
    ("utimes", lambda w: w.set_attr(b"a/f", atime_ns=1, mtime_ns=2), {b"a/f": "amc"}),
    ("utimes, one of them", lambda w: w.set_attr(b"a/f", atime_ns=1), {b"a/f": "ac"}),
    ("utimes to the clock", lambda w: w.set_attr(b"a/f", atime_now=True, mtime_now=True), {b"a/f": "amc"}),
    ("flags", lambda w: w.set_attr(b"a/f", flags=0x40), {b"a/f": "c"}),
    ("layout", lambda w: w.set_attr(b"a", layout=Layout()), {b"a": "c"}),
    ("nothing", lambda w: w.set_attr(b"a/f"), {}),
    ("close after writing", lambda w: _write(w, 10), {b"a/f": "mcv"}),
    ("close after writing inside", lambda w: _write(w, 0), {b"a/f": "mcv"}),
    ("close after a failed write", lambda w: _write(w, -1, exact=True), {b"a/f": "mcv"}),
    ("close without writing", lambda w: _write(w, -1), {}),
    ("close with a time", lambda w: _write(w, -1, mtime_ns=5), {b"a/f": "mc"}),
    ("close without privilege", lambda w: _write(w, -1, clear_set_id=True), {}),
    ("fsync after writing", lambda w: _fsync(w, 10), {b"a/f": "mcv"}),
    ("fsync without writing", lambda w: _fsync(w, -1), {}),
    ("truncate", lambda w: _truncate(w, 10), {b"a/f": "mcv"}),
    ("truncate to the same", lambda w: _truncate(w, 0), {b"a/f": "mc"}),
    ("ftruncate", lambda w: _truncate(w, 10, True), {b"a/f": "mcv"}),
    ("ftruncate to the same", lambda w: _truncate(w, 0, True), {b"a/f": "mc"}),
]


async def _times(w: World) -> dict[bytes, Attributes]:
    return {path: await w.stat(path, follow=False) for path in OBJECTS}


async def _changed(w: World, before: dict[bytes, Attributes]) -> dict[bytes, str]:
    """By the path it had before: letters of what has changed. What is gone is left out."""
    inodes = await w.inodes()
    found = {}
    for path, old in before.items():
        if old.inode not in inodes:
            continue
        new = await w.stat(b"", at=old.inode)
        assert new.btime_ns == old.btime_ns
        letters = "a" * (new.atime_ns != old.atime_ns) + "m" * (new.mtime_ns != old.mtime_ns)
        letters += "c" * (new.ctime_ns != old.ctime_ns) + "v" * (new.version != old.version)
        assert new.ctime_ns >= old.ctime_ns and new.version >= old.version
        if letters:
            found[path] = letters
    return found


@pytest.mark.parametrize(("name", "act", "changes"), CALLS, ids=[name for name, _, _ in CALLS])
def test_what_a_call_changes(name: str, act: Act, changes: dict[bytes, str]) -> None:
    async def body() -> None:
        async with world() as w:
            await _tree(w)
            before = await _times(w)
            await act(w)
            assert await _changed(w, before) == changes

    run(body())


def test_all_that_one_call_changes_has_one_time() -> None:
    async def body() -> None:
        async with world() as w:
            await _tree(w)
            before = await _times(w)
            await w.rename(b"a/f", b"b/f")
            after = [await w.stat(b"", at=before[path].inode) for path in (b"a", b"b", b"a/f", b"b/f")]
            assert len({seen.ctime_ns for seen in after}) == 1
            assert after[0].mtime_ns == after[1].mtime_ns == after[0].ctime_ns

    run(body())


def test_a_refused_call_changes_nothing() -> None:
    async def body() -> None:
        async with world() as w:
            await _tree(w)
            before = await _times(w)
            for number, act in [
                (errno.EEXIST, w.create(b"a/f")),
                (errno.ENOTEMPTY, w.rename(b"a/sub", b"b")),
                (errno.EPERM, w.acting(User(5)).set_attr(b"a/f", mode=0)),
                (errno.EACCES, w.acting(User(5)).unlink(b"a/f")),
            ]:
                with fails(number):
                    await act
            assert await _changed(w, before) == {}

    run(body())


def test_set_id_bits_that_go_change_the_ctime() -> None:
    async def body() -> None:
        async with world() as w:
            await _tree(w)
            await w.set_attr(b"a/f", mode=0o4777)
            opened = await w.open(b"a/f")
            before = await _times(w)
            await w.close(opened.attributes.inode, opened.session, clear_set_id=True)
            assert await _changed(w, before) == {b"a/f": "c"}

    run(body())


def test_times_are_nanoseconds_of_either_side_of_1970() -> None:
    async def body() -> None:
        async with world() as w:
            await w.create(b"f")
            for atime_ns, mtime_ns in [(1, 2), (-1, -(10**18) - 1), (2**63 - 1, -(2**63)), (0, 0)]:
                seen = await w.set_attr(b"f", atime_ns=atime_ns, mtime_ns=mtime_ns)
                assert (seen.atime_ns, seen.mtime_ns) == (atime_ns, mtime_ns)

    run(body())


def test_the_version_tells_every_change_of_contents() -> None:
    """Two writes that leave length and mtime as they were; two entries that come and go."""

    async def body() -> None:
        async with world() as w:
            await _tree(w)
            seen = {(await w.stat(b"a/f")).version}
            for _ in range(3):
                await _write(w, 10, mtime_ns=5)
                seen.add((await w.stat(b"a/f")).version)
            assert len(seen) == 4
            first = (await w.stat(b"b")).version
            await w.create(b"b/new")
            await w.unlink(b"b/new")
            assert (await w.stat(b"b")).version == first + 2

    run(body())


def test_a_records_version_is_shown_wherever_attributes_are() -> None:
    async def body() -> None:
        async with world() as w:
            device = await w.mknod(b"d", FileType.CHARACTER_DEVICE, device=0x103)

            async def change(txn: Transaction) -> None:
                record = await get_inode(txn, ROOT)
                record.flags, record.version = 0x40, 77
                put_inode(txn, ROOT, record)

            await w.kv.transact(change)
            for seen in (await w.stat(b"/"), (await w.open(b"/", write=False)).attributes):
                assert (seen.flags, seen.version) == (0x40, 77)
            [entry] = (await w.readdir(ROOT, with_attributes=True)).entries
            assert entry.attributes == device and device.device == 0x103

    run(body())
