"""Files of the async face beside those of Python: positions, lines, what is buffered."""

import asyncio
import gc
import io
import os
import random
from pathlib import Path
from typing import Any

import pytest

from fs_client import FileSystem, aio
from fs_common.errors import Code, EmberError
from fs_common.records.storage import UpdateItem
from tests.client.fake_cluster import CHUNK, FakeCluster
from tests.support import run


def test_both_are_awaited_or_entered(cluster: FakeCluster) -> None:
    async def main() -> None:
        async with aio.connect(cluster.address) as fs, fs.open("/f", "wb") as file:
            assert await file.write(b"abc") == 3
        assert fs.closed and file.closed
        async with await aio.connect(cluster.address) as fs, await fs.open("/f") as file:
            assert await file.read() == b"abc"
        fs = await asyncio.create_task(aio.connect(cluster.address, timeout_s=10))
        [file] = await asyncio.gather(fs.open("/f"))
        assert await file.read(2) == b"ab"
        await file.close()
        await fs.close()

    run(main())
    with pytest.raises(ValueError, match="cluster address"):
        asyncio.run(aio.connect("http://a"))


def test_what_cannot_be_opened_is_an_error_where_it_is_entered(cluster: FakeCluster) -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="cluster address"):
            async with aio.connect("http://a"):
                pass
        async with aio.connect(cluster.address) as fs:
            with pytest.raises(FileNotFoundError):
                async with fs.open("/none"):
                    pass

    run(main())


LINES = b"one\n\n" + b"x" * 3 * CHUNK + b"\nthree\r\nno end"


def test_lines(cluster: FakeCluster, fs: FileSystem) -> None:
    fs.write_file("/f", LINES)

    async def main() -> None:
        expected = io.BytesIO(LINES).readlines()
        async with aio.connect(cluster.address) as fs, fs.open("/f") as file:
            assert [line async for line in file] == expected and await file.readline() == b""
            await file.seek(0)
            assert await file.readlines() == expected
            await file.seek(0)
            assert await file.readlines(4) == expected[:2]
            await file.seek(6)
            assert await file.readline(10) == b"x" * 10 and await file.tell() == 16
            assert await file.read(3) == b"xxx" and await file.tell() == 19

    run(main())


CALLS = ("write", "write", "read", "readline", "readinto", "seek", "end", "truncate", "flush")


@pytest.mark.parametrize("seed", range(6))
def test_any_calls_give_what_a_local_file_gives(cluster: FakeCluster, tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)

    async def main() -> None:
        local = open(tmp_path / "f", "w+b")  # noqa: SIM115
        async with aio.connect(cluster.address) as fs, fs.open("/f", "w+b") as file:
            for _ in range(80):
                size = draw.choice((0, 1, 100, 40_000, CHUNK, 3 * CHUNK))
                where = draw.randrange(6 * CHUNK)
                done: Any
                match draw.choice(CALLS):
                    case "write":
                        data = draw.randbytes(size).replace(b"\x01", b"\n")
                        done = await file.write(data), local.write(data)
                    case "read":
                        done = await file.read(size), local.read(size)
                    case "readline":
                        done = await file.readline(), local.readline()
                    case "readinto":
                        mine, theirs = bytearray(size), bytearray(size)
                        done = (await file.readinto(mine), mine), (local.readinto(theirs), theirs)
                    case "seek":
                        done = await file.seek(where), local.seek(where)
                    case "end":
                        done = await file.seek(0, os.SEEK_END), local.seek(0, os.SEEK_END)
                    case "truncate":
                        done = await file.truncate(where), local.truncate(where)
                    case _:
                        done = await file.flush(), local.flush()
                assert done[0] == done[1], seed
                assert await file.tell() == local.tell(), seed
        local.close()
        async with aio.connect(cluster.address) as fs:
            assert await fs.read_file("/f") == (tmp_path / "f").read_bytes(), seed

    run(main())


def test_reads_at_offsets_see_what_was_written(cluster: FakeCluster) -> None:
    async def main() -> None:
        async with aio.connect(cluster.address) as fs, fs.open("/f", "w+b") as file:
            await file.write(b"0123456789")
            assert file.length == 10 and await file.read_at(3, 4) == b"3456"
            await file.write_at(4, b"new")
            await file.seek(2)
            assert await file.read() == b"23new789"
            await file.write(b"end")
            (view,) = await fs.read_ranges([(file, 8, 10)])
            assert bytes(view) == b"89end"
            await file.seek(1)
            await file.truncate()
            assert await file.seek(0, os.SEEK_END) == 1

    run(main())


def test_small_writes_become_whole_chunks(cluster: FakeCluster) -> None:
    updates: list[int] = []

    def note(item: UpdateItem) -> None:
        updates.append(item.index)

    async def main() -> None:
        async with aio.connect(cluster.address) as fs, fs.open("/f", "wb") as file:
            for daemon in cluster.storage.values():
                daemon.update_fault = note
            for _ in range(64):
                await file.write(bytes(CHUNK // 16))

    run(main())
    assert sorted(set(updates)) == [0, 1, 2, 3] and len(updates) == 4


def test_appends_of_two_files_keep_both(cluster: FakeCluster) -> None:
    async def main() -> None:
        async with aio.connect(cluster.address) as fs:
            async with fs.open("/log", "ab") as one, fs.open("/log", "ab") as other:
                await one.write(b"A1 ")
                await one.write(b"A2 ")
                assert await one.tell() == 6
                await one.flush()
                await other.write(b"B1 ")
                await other.flush()
                assert await other.tell() == 9
                await one.write(b"A3 ")
            assert await fs.read_file("/log") == b"A1 A2 B1 A3 "

    run(main())


def test_what_could_not_be_stored_is_told_by_close(cluster: FakeCluster) -> None:
    async def main() -> None:
        async with aio.connect(cluster.address, timeout_s=0.5) as fs:
            file = await fs.open("/f", "wb")
            for node in (1, 2, 3):
                cluster.storage[node].update_fault = lambda item: EmberError(Code.NO_SPACE, "full")
            await file.write(b"lost")
            with pytest.raises(OSError, match="full"):
                await file.close()

    run(main())


def test_misuse(cluster: FakeCluster) -> None:
    async def main() -> None:
        async with aio.connect(cluster.address) as fs, fs.open("/f", "wb") as file:
            with pytest.raises(TypeError, match="not str: encode it"):
                await file.write("text")
            with pytest.raises(io.UnsupportedOperation):
                await file.read()
            with pytest.raises(io.UnsupportedOperation):
                await file.readline()
            with pytest.raises(OSError, match="negative seek"):
                await file.seek(-1)
            with pytest.raises(ValueError, match="whence"):
                await file.seek(0, 9)
            await file.close()
            with pytest.raises(ValueError, match="closed file"):
                await file.write(b"")

    run(main())


def test_seek_to_data_and_holes(cluster: FakeCluster) -> None:
    async def main() -> None:
        async with aio.connect(cluster.address) as fs, fs.open("/f", "w+b") as file:
            await file.seek(5 * CHUNK)
            await file.write(b"x" * CHUNK)
            await file.seek(9 * CHUNK)
            await file.write(b"y")
            assert await file.seek(0, os.SEEK_DATA) == 5 * CHUNK and await file.read(1) == b"x"
            assert await file.seek(5 * CHUNK, os.SEEK_HOLE) == 6 * CHUNK
            with pytest.raises(OSError, match="No such device"):
                await file.seek(10 * CHUNK, os.SEEK_DATA)

    run(main())


def test_a_file_that_is_dropped_says_what_is_lost(cluster: FakeCluster) -> None:
    async def main() -> None:
        async with aio.connect(cluster.address) as fs:
            file = await fs.open("/f", "wb")
            await file.write(b"abc")
            with pytest.warns(ResourceWarning, match="unclosed file <AsyncFile '/f' mode='wb'>: what was written last"):
                del file
                gc.collect()
            file = await fs.open("/f", "r+b")
            del file
            gc.collect()

    run(main())
