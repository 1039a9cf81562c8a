"""Updates: striping, exactly once, order, bounds."""

import asyncio
import errno
import random
from typing import Any

import pytest

import fs_client
from fs_client import FileSystem, aio, write_path
from fs_common import methods
from fs_common.errors import Code, EmberError
from fs_common.layout import stripe_chains
from fs_common.methods import Method
from fs_common.records.routing import PublicState
from fs_common.records.storage import UpdateKind
from tests.client.fake_cluster import CHUNK, FakeCluster
from tests.client.test_read_ranges import on_servers
from tests.support import run

DATA = random.Random(1).randbytes(9 * CHUNK + 777)


def applied(cluster: FakeCluster) -> list[tuple[int, int, int]]:
    items = [item for daemon in cluster.storage.values() for item in daemon.updates]
    return sorted((item.index, item.offset, item.length) for item in items)


def test_chunks_go_to_the_heads_of_their_chains(cluster: FakeCluster, fs: FileSystem) -> None:
    fs.write_file("/f", DATA)
    layout = fs.get_layout("/f")
    chains = stripe_chains(layout, [1, 2, 3])
    for node, daemon in cluster.storage.items():
        assert [item.chain for item in daemon.updates] == [node] * len(daemon.updates)
        assert sorted(item.index for item in daemon.updates) == [
            index for index in range(10) if chains[index % 3] == node
        ]
    assert [daemon.update_frames for daemon in cluster.storage.values()] == [1, 1, 1]


def test_large_writes_travel_in_several_frames(
    cluster: FakeCluster, fs: FileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_path, "FRAME_BYTES", CHUNK)
    fs.write_file("/f", DATA)
    assert sum(daemon.update_frames for daemon in cluster.storage.values()) == 10
    assert fs.read_file("/f") == DATA


def test_bytes_in_flight_are_bounded(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_path, "FRAME_BYTES", CHUNK)
    monkeypatch.setattr(write_path, "BYTES_IN_FLIGHT", 2 * CHUNK)
    with fs_client.connect(cluster.address) as fs:
        fs.write_file("/f", DATA)
        assert fs.read_file("/f") == DATA
    assert max(daemon.most_bytes_in_work for daemon in cluster.storage.values()) <= 2 * CHUNK


@pytest.mark.parametrize("count", [1, 3])
def test_a_write_whose_answer_is_lost_is_applied_once(cluster: FakeCluster, fs: FileSystem, count: int) -> None:
    for daemon in cluster.storage.values():
        daemon.lost_replies = count
    fs.write_file("/f", DATA)
    assert fs.read_file("/f") == DATA
    assert applied(cluster) == [*((index, 0, CHUNK) for index in range(9)), (9, 0, 777)]
    assert sum(daemon.duplicates for daemon in cluster.storage.values()) == 10 * count


@pytest.mark.parametrize("code", [Code.BUSY, Code.CHAIN_BROKEN, Code.CHECKSUM, Code.UPDATE_MISSING, Code.NOT_SERVING])
def test_what_may_be_retried_is(cluster: FakeCluster, fs: FileSystem, code: Code) -> None:
    failed: set[tuple[int, int]] = set()

    def fail_once(item: object) -> EmberError | None:
        key = (item.inode, item.index)  # type: ignore[attr-defined]
        if key in failed:
            return None
        failed.add(key)
        return EmberError(code, "once")

    for daemon in cluster.storage.values():
        daemon.update_fault = fail_once
    fs.write_file("/f", DATA)
    assert fs.read_file("/f") == DATA and len(failed) == 10
    assert applied(cluster) == [*((index, 0, CHUNK) for index in range(9)), (9, 0, 777)]


def test_a_new_head_takes_over(cluster: FakeCluster, fs: FileSystem) -> None:
    """The old head has applied the update and died before it answered."""
    fs.mkdir("/warm")
    cluster.storage[1].lost_replies = 1_000_000
    # A client that comes back for routing has been told nothing by the old head.
    failing = cluster.after(cluster.when_called("get_routing"), lambda: cluster.set_chain(1, {1: PublicState.OFFLINE}))
    with fs.open("/f", "wb") as file:
        file.write(DATA)
    failing.join()
    assert fs.read_file("/f") == DATA
    assert applied(cluster) == [*((index, 0, CHUNK) for index in range(9)), (9, 0, 777)]
    assert cluster.storage[2].duplicates > 0


def test_a_head_that_dies_costs_what_the_manager_takes_to_name_another(cluster: FakeCluster, fs: FileSystem) -> None:
    """The client waits at the metadata service, not by its own clock; what the dead head had applied is not applied
    again."""
    cluster.storage[1].lost_replies = 1_000_000

    def die() -> None:
        cluster.stop_node(1)
        for chain in cluster.chains:
            cluster.set_chain(chain, {1: PublicState.OFFLINE})

    dying = cluster.after(cluster.metadata.held_back, die)
    fs.write_file("/f", DATA)
    dying.join()
    assert fs.read_file("/f") == DATA
    assert applied(cluster) == [*((index, 0, CHUNK) for index in range(9)), (9, 0, 777)]
    assert cluster.storage[2].duplicates > 0


def test_a_chain_that_is_lost_is_tried_until_the_deadline(cluster: FakeCluster) -> None:
    with fs_client.connect(cluster.address, timeout_s=0.3) as fs:
        for chain in cluster.chains:
            cluster.set_chain(chain, {1: PublicState.LASTSRV, 2: PublicState.OFFLINE, 3: PublicState.OFFLINE})
        with pytest.raises(OSError, match=r"chain \d has no serving replica: bring node 1 \(.*\) back") as caught:
            fs.write_file("/f", b"x")
        assert caught.value.errno == errno.EIO
    with fs_client.connect(cluster.address) as fs:
        # The node comes back while it is waited for.
        returning = cluster.after(
            cluster.when_called("get_routing"),
            lambda: [cluster.set_chain(chain, {1: PublicState.SERVING}) for chain in cluster.chains],
        )
        fs.write_file("/f", DATA)
        returning.join()
        assert fs.read_file("/f") == DATA


def test_a_head_that_is_down_is_waited_for(cluster: FakeCluster, fs: FileSystem) -> None:
    cluster.stop_node(2)
    restarting = cluster.after(cluster.when_called("get_routing"), lambda: cluster.start_node(2))
    fs.write_file("/f", DATA)
    restarting.join()
    assert fs.read_file("/f") == DATA


def test_a_failure_names_file_and_chunk_and_the_rest_is_stored(cluster: FakeCluster, fs: FileSystem) -> None:
    for daemon in cluster.storage.values():
        daemon.update_fault = lambda item: EmberError(Code.NO_SPACE, "full") if item.index == 4 else None
    with pytest.raises(OSError, match=r"chunk 4 of inode \d+, 65536 bytes at 0: .*full") as caught:
        fs.write_file("/f", DATA)
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == "/f"
    assert [index for index, _, _ in applied(cluster)] == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    closes = [request for name, request in cluster.metadata.calls if name == "close"]
    assert closes[-1].exact and fs.stat("/f").st_size == len(DATA)


def test_a_deadline_ends_the_retries(cluster: FakeCluster) -> None:
    for daemon in cluster.storage.values():
        daemon.update_fault = lambda item: EmberError(Code.CHAIN_BROKEN, "a replica is gone")
    with fs_client.connect(cluster.address, timeout_s=0.3) as fs:
        with pytest.raises(OSError, match="a replica is gone"):
            fs.write_file("/f", b"x")


def test_a_servers_bug_is_not_retried_for_long(cluster: FakeCluster, fs: FileSystem) -> None:
    tries: list[object] = []

    def bug(item: object) -> EmberError:
        tries.append(item)
        return EmberError(Code.INTERNAL, "a bug")

    for daemon in cluster.storage.values():
        daemon.update_fault = bug
    with pytest.raises(OSError, match="a bug"):
        fs.write_file("/f", b"x")
    assert len(tries) == 3


def test_hints_tell_how_far_was_written(cluster: FakeCluster, fs: FileSystem) -> None:
    with fs.open("/f", "wb") as file:
        file.write(b"x" * 100)
        file.fsync()
        file.truncate(50)
        file.seek(70)
        file.write(b"y")
    settles = [
        (name, r.written_end, r.truncate_version, r.exact)
        for name, r in cluster.metadata.calls
        if name in ("fsync", "close")
    ]
    assert settles == [("fsync", 100, 0, False), ("close", 71, 1, False)]
    with fs.open("/f", "r+b"):
        pass
    assert cluster.metadata.calls[-1][1].written_end == -1


# The async face


def test_overlapping_writes_take_effect_in_order(cluster: FakeCluster) -> None:
    """Also when the earlier one has to be retried."""

    async def main() -> None:
        async with await aio.connect(cluster.address) as fs, await fs.open("/f", "wb") as file:
            failures = iter([True, False, True])
            for daemon in cluster.storage.values():
                daemon.update_fault = lambda item: EmberError(Code.BUSY, "later") if next(failures, False) else None
            letters = b"abcdefgh"
            await asyncio.gather(
                *(file.write_at(number * 10, bytes([letter]) * (2 * CHUNK)) for number, letter in enumerate(letters))
            )
        async with await aio.connect(cluster.address) as fs:
            data = await fs.read_file("/f")
        expected = bytearray(70 + 2 * CHUNK)
        for number, letter in enumerate(letters):
            expected[number * 10 : number * 10 + 2 * CHUNK] = bytes([letter]) * (2 * CHUNK)
        assert data == expected

    run(main())


def test_many_writers_share_channels_without_mixing(cluster: FakeCluster) -> None:
    async def main() -> None:
        async with await aio.connect(cluster.address) as fs:
            await asyncio.gather(*(fs.write_file(f"/{number}", b"%d" % number * 5000) for number in range(50)))
            for number in range(50):
                assert await fs.read_file(f"/{number}") == b"%d" % number * 5000
            assert not fs.writer._last, "no chunk is remembered once its updates have ended"

    run(main())


def test_a_length_that_is_asked_for_beside_an_fsync_or_an_append_is_not_the_one_before(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with await aio.connect(cluster.address) as fs:
            answer, write = fs.meta_call, fs.writer.write
            gate = asyncio.Event()

            async def held_answer(method: Method, *rest: Any, **how: Any) -> Any:
                """The service is told of an fsync only when the gate opens."""
                if method is methods.FSYNC:
                    await gate.wait()
                return await answer(method, *rest, **how)

            written = asyncio.Event()

            async def held_write(*arguments: Any, **how: Any) -> None:
                written.set()
                await gate.wait()
                await write(*arguments, **how)

            async with await fs.open("/beside", "w+b") as file:
                await file.write_at(0, b"0123456789")
                monkeypatch.setattr(fs, "meta_call", held_answer)
                syncing = asyncio.ensure_future(file.fsync())
                asking = asyncio.ensure_future(file.refresh())
                await asyncio.sleep(0)
                assert file.length == 10
                gate.set()
                await syncing
                assert await asking == 10

                gate.clear()
                monkeypatch.setattr(fs.writer, "write", held_write)
                appending = asyncio.ensure_future(file.append(b"abc"))
                await written.wait()
                assert await file.refresh() == 13
                behind = asyncio.ensure_future(file.append(b"def"))
                await asyncio.sleep(0)
                gate.set()
                await asyncio.gather(appending, behind)
                assert await file.read_at(8) == b"89abcdef"

    run(main())


def test_async_files(cluster: FakeCluster) -> None:
    async def main() -> None:
        async with await aio.connect(cluster.address) as fs:
            async with await fs.open("/f", "w+b") as file:
                await asyncio.gather(*(file.append(b"%d" % number) for number in range(10)))
                assert await file.read_at(0) == b"0123456789"
                into = bytearray(4)
                assert await file.read_into(8, into) == 2 and into[:2] == b"89"
                await file.write_at(20, b"x")
                assert file.length == 21 and await file.read_at(10, 5) == bytes(5)
                assert await file.truncate(3) == 3 and await file.read_at(0) == b"012"
                async with await fs.open("/f", "r+b") as other:
                    await other.write_at(3, b"3")
                assert file.length == 3 and await file.refresh() == 4
                assert repr(file) == "<AsyncFile '/f' mode='w+b'>"
            with pytest.raises(ValueError, match="closed"):
                await file.read_at(0)
            large = random.Random(3).randbytes(100_000)
            await fs.write_file("/g", large)
            async with await fs.open("/g") as file:
                assert await file.read_at(50) == large[50:]
                with pytest.raises(OSError, match="not writable"):
                    await file.write_at(0, b"")

    run(main())


def test_a_cancelled_write_frees_its_place(cluster: FakeCluster) -> None:
    async def main() -> None:
        async with await aio.connect(cluster.address) as fs:
            file = await fs.open("/f", "wb")

            async def close_gate() -> None:
                for daemon in cluster.storage.values():
                    daemon.gate = asyncio.Event()
                    daemon.arrived.clear()

            async def one_arrived() -> None:
                waits = [asyncio.ensure_future(daemon.arrived.wait()) for daemon in cluster.storage.values()]
                _, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                for waiting in pending:
                    waiting.cancel()

            async def open_gate() -> None:
                for daemon in cluster.storage.values():
                    assert daemon.gate is not None
                    daemon.gate.set()
                    daemon.gate = None

            await on_servers(cluster, close_gate())
            writing = asyncio.ensure_future(file.write_at(0, b"a" * CHUNK))
            waiting = asyncio.ensure_future(file.write_at(0, b"b" * CHUNK))
            await on_servers(cluster, one_arrived())
            writing.cancel()
            await asyncio.wait([writing])
            await on_servers(cluster, open_gate())
            await waiting
            await file.close()
            assert await fs.read_file("/f") == b"b" * CHUNK
            assert fs.writer._budget.held == 0
            closes = [request for name, request in cluster.metadata.calls if name == "close"]
            assert closes[-1].exact

    run(main())


PIECES = [(CHUNK + 10, b"ab"), (CHUNK + 500, b"c"), (CHUNK + 7000, b"defg")]


def with_pieces(cluster: FakeCluster) -> bytes:
    """A file of two chunks of dots, over which the pieces were written."""

    async def main() -> bytes:
        async with await aio.connect(cluster.address) as fs:
            await fs.write_file("/f", b"." * (2 * CHUNK))
            ends: list[int] = []
            ref = await fs.ref("/f")
            pieces = [(offset, memoryview(data)) for offset, data in PIECES]
            await fs.writer.write_pieces(ref, pieces, ends.append)
            assert max(ends) == CHUNK + 7004 and fs.writer._budget.held == 0
            return await fs.read_file("/f")

    expected = bytearray(b"." * (2 * CHUNK))
    for offset, data in PIECES:
        expected[offset : offset + len(data)] = data
    assert run(main()) == expected
    return bytes(expected)


@pytest.mark.parametrize("lost", [0, 2])
def test_pieces_of_a_chunk_are_one_update(cluster: FakeCluster, lost: int) -> None:
    """Whatever becomes of the answers."""
    for daemon in cluster.storage.values():
        daemon.lost_replies = lost
    with_pieces(cluster)
    items = [item for daemon in cluster.storage.values() for item in daemon.updates if item.length != CHUNK]
    assert [(item.kind, item.index, item.offset) for item in items] == [(UpdateKind.SCATTER, 1, 10)]


def test_daemons_that_refuse_pieces_get_them_one_by_one(cluster: FakeCluster) -> None:
    for daemon in cluster.storage.values():
        daemon.refuse_scattered = True
    with_pieces(cluster)
    assert [place for place in applied(cluster) if place[2] != CHUNK] == [(1, 10, 2), (1, 500, 1), (1, 7000, 4)]
