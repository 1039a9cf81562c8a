"""What a power cut leaves of what programs did through a mount: everything that fsync and its like have promised.

The mount's own handlers, over real RPC, on a cluster that forgets what it was not told to sync.
"""

import asyncio
import errno
import inspect
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

import fs_client
from fs_client import aio
from fs_client.fuse import abi
from fs_client.fuse.abi import Opcode
from fs_client.fuse.handover import State, capture, restore
from fs_client.fuse.mount import Mount
from fs_client.fuse.negotiation import Negotiated
from fs_client.fuse.ops import data, directories, opening
from fs_client.fuse.policy import Policy
from fs_common import methods
from fs_common.ids import ROOT_INODE
from fs_common.layout import Durability, Layout
from fs_common.peers import PeerPool
from fs_common.records import meta
from tests.client.fake_cluster import CHUNK, FakeCluster
from tests.client.test_small_updates import Held
from tests.support import run

DATA = random.Random(7).randbytes(4 * CHUNK + 777)
"""On all chains of its file."""


class Payload:
    def __init__(self, content: bytes) -> None:
        self.view = memoryview(content)

    def release(self) -> None:
        pass


class Kernel:
    """The calls of programs, as the kernel would send them."""

    def __init__(self, mount: Mount) -> None:
        self.mount = mount
        self._handlers = {
            **opening.handlers(mount),
            **data.handlers(mount),
            **directories.handlers(mount),
        }

    async def request(self, opcode: Opcode, body: bytes, node: int = ROOT_INODE, content: bytes = b"") -> Any:
        request = SimpleNamespace(
            opcode=opcode, body=bytearray(body), node=node, uid=0, gid=0, pid=1, extensions=b"",
            take_data=lambda: Payload(content),
        )  # fmt: skip
        result = self._handlers[opcode](request)  # type: ignore[arg-type]
        return await result if inspect.isawaitable(result) else result

    async def create(self, name: bytes, flags: int = 0) -> tuple[int, int]:
        """(handle, inode)"""
        body = abi.CREATE_IN.pack(os.O_RDWR | flags, 0o100644, 0o22, 0) + name + b"\0"
        answer = await self.request(Opcode.CREATE, body)
        return abi.OPEN_OUT.unpack_from(answer, len(answer) - abi.OPEN_OUT.size)[0], abi.ENTRY_OUT.unpack_from(answer)[
            0
        ]

    async def open(self, inode: int, flags: int = 0) -> int:
        answer = await self.request(Opcode.OPEN, abi.OPEN_IN.pack(os.O_RDWR | flags, 0), inode)
        handle: int = abi.OPEN_OUT.unpack_from(answer)[0]
        return handle

    async def write(self, handle: int, content: bytes, offset: int = 0) -> None:
        flags = self.mount.handles.file(handle).flags
        await self.request(Opcode.WRITE, abi.WRITE_IN.pack(handle, offset, len(content), 0, 0, flags), content=content)

    async def fsync(self, handle: int, flags: int = 0) -> None:
        await self.request(Opcode.FSYNC, abi.FSYNC_IN.pack(handle, flags))

    async def fsyncdir(self, handle: int = 0) -> None:
        await self.request(Opcode.FSYNCDIR, abi.FSYNC_IN.pack(handle, 0))

    async def syncfs(self) -> None:
        await self.request(Opcode.SYNCFS, abi.SYNCFS_IN.pack())

    async def close(self, handle: int) -> None:
        await self.request(Opcode.FLUSH, abi.FLUSH_IN.pack(handle, 0))
        await self.request(Opcode.RELEASE, abi.RELEASE_IN.pack(handle, 0, 0, 0))
        await self.mount.quiet()


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Client and cluster are in one process, which may have a collection of all its objects in the way."""
    monkeypatch.setitem(PeerPool.__init__.__kwdefaults__, "connect_timeout_s", 30.0)


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster().running() as running:
        yield running


@asynccontextmanager
async def mounted(cluster: FakeCluster) -> AsyncIterator[Kernel]:
    mount = Mount(await aio.connect(cluster.address, timeout_s=10), Policy())
    try:
        yield Kernel(mount)
    finally:
        mount.closing = True  # the cluster has forgotten sessions: ending them is not tried for long
        for handle in list(mount.handles.files.values()):
            await mount.close_handle(handle)
        await mount.quiet()
        await mount.fs.close()


def left(cluster: FakeCluster, name: str = "/f") -> bytes | None:
    """What a client finds after the power cut; None: no such file."""
    cluster.power_cut()
    with fs_client.connect(cluster.address, timeout_s=10) as fs:
        return fs.read_file(name) if fs.exists(name) else None


Step = Callable[[Kernel, int], Awaitable[None]]


async def fsync(kernel: Kernel, handle: int) -> None:
    await kernel.fsync(handle)


async def fdatasync(kernel: Kernel, handle: int) -> None:
    await kernel.fsync(handle, abi.FSYNC_FDATASYNC)


async def syncfs(kernel: Kernel, _: int) -> None:
    await kernel.syncfs()


async def close_and_syncfs(kernel: Kernel, handle: int) -> None:
    await kernel.close(handle)
    await kernel.syncfs()


async def close_open_and_fsync(kernel: Kernel, handle: int) -> None:
    """As databases do: another process than the writer's makes files durable."""
    inode = kernel.mount.handles.file(handle).file.inode
    await kernel.close(handle)
    await kernel.fsync(await kernel.open(inode))


@pytest.mark.parametrize(
    "step", [fsync, fdatasync, syncfs, close_and_syncfs, close_open_and_fsync], ids=lambda step: step.__name__
)
def test_what_was_synced_survives_a_power_cut(cluster: FakeCluster, step: Step) -> None:
    async def main() -> bytes | None:
        async with mounted(cluster) as kernel:
            handle, _ = await kernel.create(b"f")
            await kernel.write(handle, DATA)
            await step(kernel, handle)
            # What comes after it is nobody's promise: whatever is found is from the step.
            return await asyncio.to_thread(left, cluster)

    assert run(main()) == DATA


def test_without_a_sync_a_power_cut_takes_what_was_written(cluster: FakeCluster) -> None:
    """Else these tests would show nothing."""

    async def main() -> bytes | None:
        async with mounted(cluster) as kernel:
            handle, _ = await kernel.create(b"f")
            await kernel.fsync(handle)
            await kernel.write(handle, DATA)
            await kernel.close(handle)
            return await asyncio.to_thread(left, cluster)

    assert run(main()) == b""


@pytest.mark.parametrize("flag", [os.O_SYNC, os.O_DSYNC], ids=["O_SYNC", "O_DSYNC"])
def test_a_write_of_a_synchronous_descriptor_survives_as_soon_as_it_returns(cluster: FakeCluster, flag: int) -> None:
    async def main() -> bytes | None:
        async with mounted(cluster) as kernel:
            handle, _ = await kernel.create(b"f", flag)
            await kernel.write(handle, DATA[: 2 * CHUNK])
            await kernel.write(handle, DATA[2 * CHUNK :], 2 * CHUNK)
            return await asyncio.to_thread(left, cluster)

    assert run(main()) == DATA


def test_a_name_survives_the_fsync_of_its_directory(cluster: FakeCluster) -> None:
    async def main(sync: bool) -> bytes | None:
        name = b"synced" if sync else b"not"
        async with mounted(cluster) as kernel:
            await kernel.create(name)
            if sync:
                await kernel.fsyncdir()
            return await asyncio.to_thread(left, cluster, f"/{name.decode()}")

    assert run(main(False)) is None
    assert run(main(True)) == b""


def test_an_fsync_does_not_return_before_another_has_synced_for_it(cluster: FakeCluster) -> None:
    async def main() -> bytes | None:
        async with mounted(cluster) as kernel:
            handle, _ = await kernel.create(b"f")
            await kernel.write(handle, DATA)
            await kernel.mount.handles.file(handle).file.settle()
            async with Held(cluster) as held:
                syncing = [asyncio.ensure_future(kernel.fsync(handle)) for _ in range(2)]
                await held.arrived()
                # Once the service has answered both, all that either waits for is a disk.
                while sum(name == "fsync" and not call.relaxed for name, call in cluster.metadata.calls) < 2:
                    await kernel.mount.call(methods.STAT, meta.Stat(ROOT_INODE, b""))
                for _ in range(100):
                    await asyncio.sleep(0)
                assert not any(task.done() for task in syncing)
            await asyncio.gather(*syncing)
            return await asyncio.to_thread(left, cluster)

    assert run(main()) == DATA


def test_the_api_fsync_survives_a_power_cut(cluster: FakeCluster) -> None:
    with fs_client.connect(cluster.address, timeout_s=10) as fs:
        with fs.open("/f", "wb") as file:
            file.write(DATA)
            file.fsync()
            assert left(cluster) == DATA
            cluster.metadata.sessions[file.raw._file._session] = file.raw.inode  # for its close
        fs.write_file("/disk", DATA, layout=Layout(CHUNK, 3, durability=Durability.DISK))
        assert left(cluster, "/disk") == DATA


# Something was lost before it was synced


async def error_of(call: Awaitable[Any]) -> int | None:
    try:
        await call
    except OSError as error:
        return error.errno
    return None


def test_one_of_three_replicas_that_loses_what_it_had_loses_nothing(cluster: FakeCluster) -> None:
    async def main() -> bytes | None:
        async with mounted(cluster) as kernel:
            handle, _ = await kernel.create(b"f")
            await kernel.write(handle, DATA)
            await kernel.mount.handles.file(handle).file.settle()
            await asyncio.to_thread(cluster.power_cut, 1)
            await asyncio.to_thread(cluster.power_cut, 2)
            await kernel.fsync(handle)
            return await asyncio.to_thread(left, cluster)

    assert run(main()) == DATA


def test_what_all_replicas_have_lost_is_told_once_to_whoever_has_the_file_open(cluster: FakeCluster) -> None:
    async def main() -> None:
        async with mounted(cluster) as kernel:
            handle, inode = await kernel.create(b"f")
            others = [await kernel.open(inode) for _ in range(2)]
            await kernel.write(handle, DATA)
            await kernel.mount.handles.file(handle).file.settle()
            await asyncio.to_thread(cluster.power_cut, 1, 2, 3)
            assert await error_of(kernel.fsync(handle)) == errno.EIO
            assert await error_of(kernel.fsync(others[0])) == errno.EIO
            for one in (handle, others[0]):
                assert await error_of(kernel.fsync(one)) is None, "once"
                assert await error_of(kernel.close(one)) is None
            assert await error_of(kernel.close(others[1])) == errno.EIO
            # What is written again is there again.
            handle = await kernel.open(inode)
            await kernel.write(handle, DATA)
            await kernel.fsync(handle)
            assert await asyncio.to_thread(left, cluster) == DATA

    run(main())


def test_a_close_tells_what_is_known_to_be_lost(cluster: FakeCluster) -> None:
    async def main() -> None:
        async with mounted(cluster) as kernel:
            handle, _ = await kernel.create(b"f")
            await kernel.write(handle, DATA)
            await kernel.mount.handles.file(handle).file.settle()
            await asyncio.to_thread(cluster.power_cut, 1, 2, 3)
            # Another file on the same chains, whose own bytes are there.
            other, _ = await kernel.create(b"other")
            await kernel.write(other, DATA)
            await kernel.fsync(other)
            assert await error_of(kernel.close(other)) is None
            assert await error_of(kernel.close(handle)) == errno.EIO

    run(main())


@pytest.mark.parametrize("flag", [0, os.O_SYNC])
def test_syncfs_and_synchronous_writes_tell_it_too(cluster: FakeCluster, flag: int) -> None:
    async def main() -> None:
        async with mounted(cluster) as kernel:
            handle, inode = await kernel.create(b"f")
            await kernel.write(handle, DATA)
            if flag:
                await kernel.mount.handles.file(handle).file.settle()
                handle = await kernel.open(inode, flag)
            else:
                await kernel.close(handle)
            await asyncio.to_thread(cluster.power_cut, 1, 2, 3)

            def again() -> Awaitable[None]:
                return kernel.write(handle, b"x") if flag else kernel.syncfs()

            assert await error_of(again()) == errno.EIO
            assert await error_of(again()) is None

    run(main())


def test_an_fsync_of_a_file_that_is_open_for_reading_syncs_what_others_wrote_here(cluster: FakeCluster) -> None:
    async def main() -> bytes | None:
        async with await aio.connect(cluster.address, timeout_s=10) as fs:
            await fs.write_file("/f", DATA)
            async with await fs.open("/f") as file:
                await file.fsync()
            return await asyncio.to_thread(left, cluster)

    assert run(main()) == DATA


def test_the_api_tells_it_once_to_each_file(cluster: FakeCluster) -> None:
    with fs_client.connect(cluster.address, timeout_s=10) as fs:
        first, second = fs.open("/f", "wb"), fs.open("/f", "r+b")
        first.write(DATA)
        first.flush()
        cluster.power_cut(1, 2, 3)
        with pytest.raises(OSError, match="write it again") as caught:
            first.fsync()
        assert caught.value.errno == errno.EIO and caught.value.filename == "/f"
        first.fsync()
        first.close()
        with pytest.raises(OSError, match="write it again"):
            second.close()
        with fs.open("/f", "wb") as again:
            again.write(DATA)
            again.fsync()
    assert left(cluster) == DATA


# Another daemon takes the mount over


def take_over(old: Mount, new: Mount) -> None:
    state = msgspec.msgpack.decode(msgspec.msgpack.encode(capture(old, Negotiated(0, 0, 0, 0, 0, 0))), type=State)
    restore(new, state)


@pytest.mark.parametrize("step", [fsync, syncfs], ids=lambda step: step.__name__)
def test_what_an_earlier_daemon_has_stored_is_synced(cluster: FakeCluster, step: Step) -> None:
    async def main() -> None:
        async with mounted(cluster) as old, mounted(cluster) as new:
            handle, _ = await old.create(b"f")
            await old.write(handle, DATA)
            await old.mount.handles.file(handle).file.settle()
            other, _ = await old.create(b"other")
            await old.write(other, DATA)
            await old.close(other)
            take_over(old.mount, new.mount)
            await step(new, handle)
            assert await asyncio.to_thread(left, cluster) == DATA
            if step is syncfs:
                assert await asyncio.to_thread(left, cluster, "/other") == DATA

    run(main())


def test_what_was_lost_before_is_told_after(cluster: FakeCluster) -> None:
    async def main(before: bool) -> None:
        async with mounted(cluster) as old, mounted(cluster) as new:
            handle, inode = await old.create(b"f%d" % before)
            await old.write(handle, DATA)
            others = [await old.open(inode) for _ in range(2)]
            await old.mount.handles.file(handle).file.settle()
            await asyncio.to_thread(cluster.power_cut, 1, 2, 3)
            if before:
                # One of them is told by the old daemon already.
                assert await error_of(old.fsync(others[0])) == errno.EIO
            take_over(old.mount, new.mount)
            for one, told in ((handle, False), (others[0], before), (others[1], False)):
                assert (await error_of(new.fsync(one)) == errno.EIO) is not told
                assert await error_of(new.fsync(one)) is None

    run(main(False))
    run(main(True))
