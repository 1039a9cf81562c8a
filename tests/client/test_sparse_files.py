"""What the mount does to long ranges of files costs by the chunks that there are."""

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from fs_client import FileSystem, aio, extents
from fs_client.file_ref import FileRef
from fs_client.fuse import abi
from fs_client.fuse.handles import Handle
from fs_client.fuse.mount import Mount
from fs_client.fuse.ops import space
from fs_client.fuse.policy import Policy
from fs_common import methods
from fs_common.errors import EmberError
from fs_common.limits import GIB
from fs_common.records import meta
from tests.client.fake_cluster import CHUNK, FakeCluster
from tests.support import run

TIB = 1024 * GIB
PUNCH, ZERO = space.PUNCH_HOLE | space.KEEP_SIZE, space.ZERO_RANGE


class Mounted:
    """The operations of a mount, with files open."""

    def __init__(self, client: aio.AsyncFileSystem) -> None:
        self.client = client
        self.mount = Mount(client, Policy())
        self.handlers = space.handlers(self.mount)

    async def open(self, path: str) -> Handle:
        request = meta.Open(1, path.encode(), True, b"client", self.client.request_id())
        reply: meta.OpenReply = await self.client.metadata.call(methods.OPEN, request)
        self.mount.nodes.adopt(reply.attributes, self.mount.nodes.stamp(), self.mount.now())
        file = self.mount.file(reply.attributes)
        return self.mount.handles.open_file(file, os.O_RDWR, meta.User(), reply.session)

    async def ask(self, opcode: abi.Opcode, body: bytes) -> bytes:
        answer: Any = self.handlers[opcode](SimpleNamespace(body=body, uid=0, gid=0, pid=1))  # type: ignore[arg-type]
        return await answer or b""

    async def fallocate(self, handle: Handle, mode: int, offset: int, length: int) -> None:
        await self.ask(abi.Opcode.FALLOCATE, abi.FALLOCATE_IN.pack(handle.number, offset, length, mode))

    async def copy(self, source: Handle, offset: int, target: Handle, to: int, length: int) -> int:
        body = abi.COPY_FILE_RANGE_IN.pack(source.number, offset, 1, target.number, to, length, 0)
        answer = await self.ask(abi.Opcode.COPY_FILE_RANGE_64, body)
        copied: int = abi.COPY_FILE_RANGE_OUT.unpack(answer)[0]
        return copied

    async def read(self, handle: Handle, offset: int, length: int) -> bytes:
        await handle.file.back.flush()
        place = memoryview(bytearray(length))
        (found,) = await self.client.reader.read([(handle.file.ref, offset, length)], place)
        return bytes(found)


@contextlib.asynccontextmanager
async def mounted(cluster: FakeCluster, timeout_s: float = 20.0) -> AsyncIterator[Mounted]:
    async with await aio.connect(cluster.address, timeout_s=timeout_s) as client:
        one = Mounted(client)
        try:
            yield one
        finally:
            for handle in one.mount.handles.files.values():
                await handle.file.back.flush()


def make(cluster: FakeCluster, fs: FileSystem, path: str, length: int, chunks: dict[int, bytes]) -> int:
    """A file of that length which has these chunks; returns its inode."""
    fs.write_file(path, b"")
    inode = fs.stat(path).st_ino
    asyncio.run(fill(cluster, path, chunks))
    cluster.metadata._change(inode, length=length, sparse=True)
    return inode


async def fill(cluster: FakeCluster, path: str, chunks: dict[int, bytes]) -> None:
    async with await aio.connect(cluster.address) as client:
        file = await client.ref(path)
        for index, data in chunks.items():
            await client.writer.write(file, index * CHUNK, memoryview(data), lambda _: None)


def updates(cluster: FakeCluster) -> int:
    return sum(len(daemon.updates) for daemon in cluster.storage.values())


def lists(cluster: FakeCluster) -> int:
    return sum(daemon.lists for daemon in cluster.storage.values())


def chunks_of(cluster: FakeCluster, inode: int) -> dict[int, bytes]:
    found = {key: bytes(data) for daemon in cluster.storage.values() for key, data in daemon.chunks.items()}
    return {index: data for (_, owner, index), data in found.items() if owner == inode}


@pytest.mark.parametrize("mode", [PUNCH, ZERO])
def test_a_long_range_costs_what_is_there(cluster: FakeCluster, fs: FileSystem, mode: int) -> None:
    full = b"x" * CHUNK
    inode = make(cluster, fs, "/f", TIB, {0: full, 5: full, 10_000_000: full, 10_000_001: b"short"})
    before = updates(cluster)

    async def scenario() -> None:
        async with mounted(cluster) as one:
            handle = await one.open("/f")
            await one.fallocate(handle, mode, 100, TIB - 100)
            assert handle.file.length == TIB and handle.file.sparse

    run(scenario())
    assert chunks_of(cluster, inode) == {0: b"x" * 100 + bytes(CHUNK - 100)}
    assert updates(cluster) - before == 4 and lists(cluster) == 3


def test_nothing_is_made_where_nothing_is(cluster: FakeCluster, fs: FileSystem) -> None:
    make(cluster, fs, "/f", TIB, {})

    async def scenario() -> None:
        async with mounted(cluster) as one:
            handle = await one.open("/f")
            await one.fallocate(handle, PUNCH, 1, TIB)
            await one.fallocate(handle, ZERO, 1, TIB + 5)
            assert handle.file.length == TIB + 6

    run(scenario())
    assert updates(cluster) == 0


def test_what_several_pages_of_chunks_have_is_removed(
    cluster: FakeCluster, fs: FileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extents, "LIMIT", 2)
    monkeypatch.setattr(extents.stored_page, "__defaults__", (2,))
    kept = {index: b"%d" % index for index in (*range(0, 40, 3), *range(100, 107))}
    inode = make(cluster, fs, "/f", 200 * CHUNK, {index: data * 10 for index, data in kept.items()})

    async def scenario() -> None:
        async with mounted(cluster) as one:
            await one.fallocate(await one.open("/f"), PUNCH, 6 * CHUNK, 97 * CHUNK)

    run(scenario())
    left = chunks_of(cluster, inode)
    assert sorted(left) == [0, 3, 103, 104, 105, 106]


@pytest.mark.parametrize("seed", range(6))
def test_zeroes_and_copies_of_sparse_files(cluster: FakeCluster, fs: FileSystem, seed: int) -> None:
    """Against byte arrays."""
    draw = random.Random(seed)
    size = 12 * CHUNK

    def chunks() -> tuple[dict[int, bytes], bytearray]:
        model = bytearray(size)
        made = {}
        for index in draw.sample(range(12), draw.randrange(12)):
            made[index] = draw.randbytes(draw.choice((10, CHUNK // 2, CHUNK)))
            model[index * CHUNK : index * CHUNK + len(made[index])] = made[index]
        return made, model

    first, model = chunks()
    second, copy = chunks()
    make(cluster, fs, "/f", size, first)
    make(cluster, fs, "/g", size, second)

    async def scenario() -> None:
        async with mounted(cluster) as one:
            source, target = await one.open("/f"), await one.open("/g")
            for _ in range(8):
                start = draw.randrange(size)
                length = draw.randrange(1, size - start + 1)
                await one.fallocate(source, draw.choice((PUNCH, ZERO | space.KEEP_SIZE)), start, length)
                model[start : start + length] = bytes(length)
                assert await one.read(source, 0, size) == model
                await one.client.writer.write(
                    source.file.ref, start, memoryview(b"again")[: size - start], lambda _: None
                )
                model[start : start + 5] = b"again"[: size - start]
                offset, to = draw.randrange(size), draw.randrange(2 * size)
                done = 0
                while done < size - offset:
                    done += await one.copy(source, offset + done, target, to + done, size)
                copy.extend(bytes(max(to + done - len(copy), 0)))
                copy[to : to + done] = model[offset : offset + done]
                assert target.file.length == len(copy)
                assert await one.read(target, 0, len(copy)) == copy

    run(scenario())


def test_a_copy_of_a_hole_is_one_request_and_no_bytes(cluster: FakeCluster, fs: FileSystem) -> None:
    make(cluster, fs, "/f", TIB, {7_000_000: b"data"})
    inode = make(cluster, fs, "/g", 0, {})
    before = updates(cluster)

    async def scenario() -> None:
        async with mounted(cluster) as one:
            source, target = await one.open("/f"), await one.open("/g")
            assert await one.copy(source, 0, target, 0, TIB) == TIB
            assert target.file.length == TIB
            body = abi.COPY_FILE_RANGE_IN.pack(source.number, 0, 1, target.number, TIB, TIB, 0)
            answer = await one.ask(abi.Opcode.COPY_FILE_RANGE, body)
            assert abi.WRITE_OUT.unpack(answer)[0] == 2**32 - 4096, "what that answer can say"

    run(scenario())
    assert chunks_of(cluster, inode) == {7_000_000: b"data"}
    assert updates(cluster) - before == 1


@pytest.mark.parametrize("seed", range(6))
def test_holes_and_data_are_found(
    cluster: FakeCluster, fs: FileSystem, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(seed)
    monkeypatch.setattr(extents, "LIMIT", draw.choice((1, 2, 1024)))
    monkeypatch.setattr(extents, "LIMIT_FIRST", draw.choice((1, 3)))
    length = draw.randrange(1, 40 * CHUNK)
    chunks = {
        index: b"x" * draw.choice((1, CHUNK // 2, CHUNK, CHUNK, CHUNK))
        for index in range(-(-length // CHUNK))
        if draw.random() < 0.8
    }
    make(cluster, fs, "/f", length, chunks)
    data = [offset for index, held in chunks.items() for offset in (index * CHUNK, index * CHUNK + len(held))]

    def is_data(offset: int) -> bool:
        return offset % CHUNK < len(chunks.get(offset // CHUNK, b""))

    borders = sorted({0, *data})

    async def scenario() -> None:
        async with await aio.connect(cluster.address) as client:
            file: FileRef = await client.ref("/f")
            file = FileRef(file.inode, length, file.layout)
            for offset in {draw.randrange(length) for _ in range(20)} | {one for one in borders if one < length}:
                places = [offset, *(border for border in borders if border > offset)]
                hole = next((place for place in places if not is_data(place)), length)
                found = next((place for place in places if is_data(place) and place < length), None)
                assert await extents.next_hole(client, file, offset) == min(hole, length)
                assert await extents.next_data(client, file, offset) == found

    run(scenario())


def test_a_chain_that_nobody_serves_is_an_error(cluster: FakeCluster, fs: FileSystem) -> None:
    make(cluster, fs, "/f", TIB, {})

    async def scenario() -> None:
        async with mounted(cluster, 0.2) as one:
            handle = await one.open("/f")
            for daemon in cluster.storage.values():
                daemon.chains = {}
            with pytest.raises(EmberError):
                await one.fallocate(handle, PUNCH, 0, TIB)

    run(scenario())
