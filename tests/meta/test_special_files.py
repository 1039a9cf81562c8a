"""mknod, and fifos, sockets and devices in every operation."""

import errno
import os

import pytest

from fs_common.layout import Layout
from fs_common.records.meta import FileType, User
from tests.meta.world import CHUNK, ROOT, World, fails, make_routing, world
from tests.support import run

SPECIAL = [FileType.FIFO, FileType.SOCKET, FileType.CHARACTER_DEVICE, FileType.BLOCK_DEVICE]
DEVICE = os.makedev(4095, 2**20 - 1)


async def _make(w: World, type_: FileType) -> int:
    return (await w.mknod(b"s", type_, device=DEVICE)).inode


@pytest.mark.parametrize("type_", SPECIAL)
def test_what_mknod_makes(type_: FileType) -> None:
    async def body() -> None:
        async with world() as w:
            made = await w.mknod(b"s", type_, 0o4640, device=DEVICE)
            is_device = type_ in (FileType.CHARACTER_DEVICE, FileType.BLOCK_DEVICE)
            assert (made.type, made.mode, made.links, made.length, made.layout) == (type_, 0o4640, 1, 0, None)
            assert made.device == (DEVICE if is_device else 0)
            assert made.atime_ns == made.mtime_ns == made.ctime_ns == made.btime_ns == (await w.stat(b"/")).mtime_ns
            assert made == await w.stat(b"s") == await w.lookup(ROOT, b"s")
            [entry] = (await w.readdir(ROOT)).entries
            assert entry.type is type_

    run(body())


def test_a_regular_file_is_made_as_create_makes_it() -> None:
    async def body() -> None:
        async with world() as w:
            made = await w.mknod(b"f", FileType.FILE)
            assert made.layout is not None and (made.layout.chunk_size, made.layout.table_version) == (CHUNK, 1)
            own = await w.mknod(b"g", FileType.FILE, layout=Layout(1 << 20))
            assert own.layout is not None and own.layout.chunk_size == 1 << 20
            assert await w.table(b"S") == []
            w.routing = make_routing(tables={})
            with fails(errno.EAGAIN):
                await w.mknod(b"h", FileType.FILE)
            await w.mknod(b"fifo", FileType.FIFO)

    run(body())


@pytest.mark.parametrize("type_", SPECIAL)
def test_names_of_special_files_behave_like_any_others(type_: FileType) -> None:
    async def body() -> None:
        async with world() as w:
            inode = await _make(w, type_)
            await w.mkdir(b"d")
            assert (await w.link(b"s", b"d/t")).links == 2
            await w.rename(b"s", b"d/s")
            assert (await w.stat(b"d/s")).inode == inode
            await w.create(b"f")
            await w.rename(b"d/s", b"f")
            await w.rename(b"f", b"d", 2)
            assert (await w.stat(b"d")).inode == inode
            await w.unlink(b"d")
            assert (await w.stat(b"f/t")).links == 1
            with fails(errno.ENOTDIR):
                await w.stat(b"f/t/x")
            with fails(errno.ENOTDIR):
                await w.rmdir(b"f/t")
            assert (await w.set_attr(b"f/t", mode=0o600, uid=5)).uid == 5
            await w.unlink(b"f/t")
            assert inode not in await w.inodes(), "it goes at once: it has no contents"
            assert w.context.inode_count.estimate == len(await w.inodes())

    run(body())


@pytest.mark.parametrize("type_", SPECIAL)
def test_they_have_no_contents(type_: FileType) -> None:
    async def body() -> None:
        async with world() as w:
            inode = await _make(w, type_)
            for write in (False, True):
                with fails(errno.ENXIO):
                    await w.open(b"s", write=write)
            with fails(errno.EACCES):
                await w.acting(User(5)).open(b"s")
            with fails(errno.ENXIO):
                await w.create_open(b"s", exclusive=False)
            with fails(errno.EEXIST):
                await w.create(b"s")
            with fails(errno.EINVAL):
                await w.truncate(inode, 0)
            with fails(errno.EINVAL):
                await w.readlink(b"s")
            with fails(errno.ENOTDIR):
                await w.readdir(inode)
            with fails(errno.EBADF):
                await w.close(inode, b"s" * 16)
            with fails(errno.EOPNOTSUPP):
                await w.set_attr(b"s", flags=0x40)
            with fails(errno.ENOTDIR):
                await w.set_attr(b"s", layout=Layout())
            assert await w.table(b"S") == []

    run(body())


@pytest.mark.parametrize("type_", SPECIAL)
def test_they_go_with_a_removed_tree(type_: FileType) -> None:
    async def body() -> None:
        async with world() as w:
            await _make(w, type_)
            await w.mkdir(b"d")
            await w.rename(b"s", b"d/s")
            await w.link(b"d/s", b"kept")
            await w.mknod(b"d/gone", type_)
            await w.remove_tree(b"d")
            await w.collect_all()
            assert len(await w.inodes()) == 2 and (await w.stat(b"kept")).links == 1

    run(body())


def test_usage_counts_them() -> None:
    async def body() -> None:
        async with world() as w:
            for type_ in SPECIAL:
                await w.mknod(type_.name.encode(), type_)
            reply = await w.usage()
            assert (reply.specials, reply.files, reply.total_bytes) == (4, 0, 0)

    run(body())


@pytest.mark.parametrize(
    ("path", "type_", "more", "number"),
    [
        (b"new", FileType.DIRECTORY, {}, errno.EPERM),
        (b"new", FileType.SYMLINK, {}, errno.EINVAL),
        (b"f", FileType.FIFO, {}, errno.EEXIST),
        (b"dangling", FileType.FIFO, {}, errno.EEXIST),
        (b"f/", FileType.FIFO, {}, errno.EEXIST),
        (b".", FileType.FIFO, {}, errno.EEXIST),
        (b"new/", FileType.FIFO, {}, errno.ENOENT),
        (b"", FileType.FIFO, {}, errno.ENOENT),
        (b"missing/new", FileType.FIFO, {}, errno.ENOENT),
        (b"f/new", FileType.FIFO, {}, errno.ENOTDIR),
        (b"n" * 256, FileType.FIFO, {}, errno.ENAMETOOLONG),
        (b"new", FileType.BLOCK_DEVICE, {"device": -1}, errno.EINVAL),
        (b"new", FileType.BLOCK_DEVICE, {"device": 2**32}, errno.EINVAL),
        (b"new", FileType.FIFO, {"layout": Layout()}, errno.EINVAL),
        (b"new", FileType.FILE, {"layout": Layout(3)}, errno.EINVAL),
    ],
)
def test_what_mknod_refuses(path: bytes, type_: FileType, more: dict[str, int], number: int) -> None:
    async def body() -> None:
        async with world() as w:
            await w.create(b"f")
            await w.symlink(b"dangling", b"nowhere")
            with fails(number):
                await w.mknod(path, type_, **more)
            assert await w.names() == [b"dangling", b"f"]

    run(body())


def test_only_root_makes_devices() -> None:
    async def body() -> None:
        async with world() as w:
            user = w.acting(User(5, 6))
            for type_ in (FileType.CHARACTER_DEVICE, FileType.BLOCK_DEVICE):
                with fails(errno.EPERM):
                    await user.mknod(b"new", type_, device=DEVICE)
            with fails(errno.EPERM):
                await user.mknod(b"new", FileType.BLOCK_DEVICE, device=0)
            await user.mknod(b"whiteout", FileType.CHARACTER_DEVICE, device=0)
            for type_ in (FileType.FIFO, FileType.SOCKET, FileType.FILE):
                await user.mknod(type_.name.encode(), type_)

    run(body())
