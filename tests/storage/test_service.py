"""Three daemons over real RPC on a healthy chain: what updates, reads and queries do."""

import asyncio
import contextlib
import errno
import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from fs_common import serving
from fs_common.errors import Code, EmberError
from fs_common.ids import chunk_id
from fs_common.limits import PAYLOAD_BYTES_MAX, READ_ITEMS_MAX, REMOVE_FILES_MAX
from fs_common.methods import (
    COMMITTED_VERSIONS,
    HELLO,
    LIST_CHUNKS,
    READ_CHUNKS,
    REMOVE_CHUNKS,
    REMOVE_FILES,
    SPACE_INFO,
    STATS,
    SYNC_CHAINS,
    UPDATE_CHUNKS,
)
from fs_common.records.routing import LocalState
from fs_common.records.session import Empty, Hello
from fs_common.records.storage import (
    CommittedVersions,
    ListChunks,
    ListChunksReply,
    ReadChunks,
    ReadItem,
    RemoveChunks,
    RemoveChunksReply,
    RemoveFiles,
    RemoveFilesReply,
    SpaceInfo,
    SyncChains,
    UpdateChunks,
    UpdateKind,
)
from fs_common.transports import tcp
from fs_storage import queries
from fs_storage.engine.interface import Space
from tests.common.loopback import raw_client
from tests.storage.chain import CHUNK, CLIENT, TIMEOUT_S, ChainOfDaemons, chain_of, eventually
from tests.storage.refusals import refused
from tests.support import run

OTHER = b"client-number-02"


def test_what_clients_write_is_counted_once_for_each_chain(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            await chain.update(b"hello")
            await chain.update(b" world", offset=5)
            counters = [chain.daemons[node].service.counters for node in (1, 2, 3)]
            assert [each["bytes_written"] for each in counters] == [11, 0, 0]
            assert [each["updates_of_clients"] for each in counters] == [2, 0, 0]

    run(scenario())


def test_every_replica_has_what_was_written(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            assert await chain.update(b"hello") == (1, 5)
            assert await chain.update(b" world", offset=5) == (2, 11)
            assert await chain.update(b"J", offset=0) == (3, 11)
            assert await chain.read_everywhere() == b"Jello world"
            assert await chain.read_everywhere(offset=6, length=3) == b"wor"
            assert await chain.update(kind=UpdateKind.TRUNCATE, offset=4) == (4, 4)
            assert await chain.read_everywhere() == b"Jell"
            assert await chain.update(b"!", offset=8) == (5, 9)
            assert await chain.read_everywhere() == b"Jell\0\0\0\0!"
            assert await chain.read_everywhere(offset=100, length=10) == b""
            assert await chain.update(kind=UpdateKind.REMOVE) == (6, 0)
            for place in range(3):
                with refused(Code.CHUNK_NOT_FOUND):
                    await chain.read(place=place)
            assert await chain.update(b"again") == (7, 5)
            assert await chain.read_everywhere() == b"again"

    run(scenario())


def test_whole_chunks_and_a_chain_of_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path, nodes=1, replicas=1) as chain:
            data = bytes(range(256)) * (CHUNK // 256)
            assert await chain.update(data) == (1, CHUNK)
            assert await chain.read_everywhere() == data

    run(scenario())


def test_a_batch_spans_chains_and_its_items_fail_one_by_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        # Two replicas on three nodes: node 1 heads chain 1, and has a replica of chain 3; chain 2 is not its own.
        async with chain_of(tmp_path, nodes=3, replicas=2) as chain:
            items = [
                chain.item(b"one", index=0, channel=1),
                chain.item(b"two", index=1, channel=2),
                chain.item(b"alien", chain=2, index=2, channel=3),
                chain.item(b"other head", chain=3, index=3, channel=4),
                chain.item(b"old", index=4, channel=5, chain_version=9),
                chain.item(b"bad", index=5, channel=6, checksums=b"oops"),
                chain.item(b"three", index=6, channel=7),
                chain.item(b"", kind=UpdateKind.REPLACE, index=7, channel=8),
                chain.item(b"", kind=UpdateKind.TRUNCATE, index=8, channel=9, offset=10),
            ]
            datas = [b"one", b"two", b"alien", b"other head", b"old", b"bad", b"three", b"", b""]
            reply = await chain.send(items, datas)
            assert reply.versions == [1, 1, 0, 0, 0, 0, 1, 0, 1]
            assert reply.lengths == [3, 3, 0, 0, 0, 0, 5, 0, 10]
            codes = {error.index: error.code for error in reply.errors}
            assert codes == {
                2: Code.CHAIN_UNKNOWN.value.number,
                3: Code.NOT_HEAD.value.number,
                4: Code.CHAIN_VERSION.value.number,
                5: Code.CHECKSUM.value.number,
                7: Code.INVALID.value.number,
            }
            assert await chain.read_everywhere(index=6) == b"three"
            with refused(Code.CHUNK_NOT_FOUND):
                await chain.read(index=5)

    run(scenario())


def test_a_batch_is_one_engine_batch_and_one_frame_on_every_replica(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            batches: list[int] = []
            tail = chain.store(1, 2)
            prepare = tail.prepare

            async def counted(updates):  # type: ignore[no-untyped-def]
                batches.append(len(updates))
                return await prepare(updates)

            tail.prepare = counted  # type: ignore[method-assign]
            items = [chain.item(b"x", index=index, channel=index) for index in range(256)]
            reply = await chain.send(items, [b"x"] * 256)
            assert reply.versions == [1] * 256
            assert batches == [256]
            stats = await chain.pool.call(chain.address(3), STATS, Empty(), timeout=TIMEOUT_S)
            assert stats.counters["rpc_update_chunks_calls"] == 1

    run(scenario())


def test_the_same_update_sent_again_is_applied_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            first = chain.item(b"first", sequence=1)
            for _ in range(100):
                reply = await chain.send([first], [b"first"])
                assert (reply.versions, reply.lengths, reply.errors) == ([1], [5], [])
            # Somebody else's update comes between; the replay must not undo it.
            assert await chain.update(b"SECOND", client=OTHER, sequence=1) == (2, 6)
            replies = await asyncio.gather(*(chain.send([first], [b"first"]) for _ in range(50)))
            assert {(reply.versions[0], reply.lengths[0]) for reply in replies} == {(1, 5)}
            assert await chain.read_everywhere() == b"SECOND"
            assert chain.store(1, 0).prepares == 2

    run(scenario())


def test_a_channel_that_moved_on_refuses_its_past(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            await chain.update(b"a", sequence=5)
            await chain.update(b"b", sequence=6)
            with refused(Code.UPDATE_STALE):
                await chain.update(b"a", sequence=5)
            with refused(Code.INVALID):
                await chain.update(b"b", sequence=6, index=9)
            assert await chain.read_everywhere() == b"b"

    run(scenario())


def test_updates_of_a_chunk_take_turns_and_other_chunks_go_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            tail = chain.store(1, 2)
            tail.before_prepare.hold()
            held = asyncio.create_task(chain.update(b"held", channel=1))
            await tail.before_prepare.reached.wait()
            behind = [asyncio.create_task(chain.update(b"%d" % n, channel=10 + n)) for n in range(5)]
            await eventually(lambda: chain.target(1, 0).in_flight == 6)
            assert chain.store(1, 0).prepares == 1, "an update passed the one before it"
            other = asyncio.create_task(chain.update(b"other", index=1, channel=2))
            await eventually(lambda: chain.store(1, 1).prepares == 2)
            tail.before_prepare.release()
            assert await other == (1, 5)
            assert await held == (1, 4)
            assert [await task for task in behind] == [(2 + n, 4) for n in range(5)]
            assert await chain.read_everywhere() == b"4eld"

    run(scenario())


def test_updates_wait_in_line_without_deep_recursion(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            replies = await asyncio.gather(
                *(
                    chain.send([chain.item(b"x", channel=channel * 1000 + n) for n in range(256)], [b"x"] * 256)
                    for channel in range(12)
                )
            )
            versions = sorted(version for reply in replies for version in reply.versions)
            assert versions == list(range(1, 12 * 256 + 1))

    run(scenario())


def test_a_target_over_its_bound_is_busy(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path, updates_in_flight=4) as chain:
            tail = chain.store(1, 2)
            tail.before_prepare.hold()
            held = asyncio.create_task(chain.send([chain.item(b"x", index=n, channel=n) for n in range(6)], [b"x"] * 6))
            await tail.before_prepare.reached.wait()
            with refused(Code.BUSY):
                await chain.update(b"y", index=77, channel=77)
            tail.before_prepare.release()
            reply = await held
            assert [error.code for error in reply.errors] == [Code.BUSY.value.number] * 2
            assert reply.versions == [1, 1, 1, 1, 0, 0]

    run(scenario())


def test_callers_that_stop_sending_do_not_stop_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their payloads take all memory of the head's, and nothing of them comes."""
    monkeypatch.setattr(tcp, "LOOK_S", 0.02)
    monkeypatch.setattr(serving, "STILL_LOOKS_MAX", 10**9)  # what ends them for good comes later

    async def scenario() -> None:
        async with chain_of(tmp_path, payload_memory_bytes=PAYLOAD_BYTES_MAX) as chain:
            head = chain.daemons[chain.node(1, 0)]
            async with contextlib.AsyncExitStack() as callers:
                for _ in range(4):
                    caller = await callers.enter_async_context(raw_client(chain.address(chain.node(1, 0))[1]))
                    caller.request(HELLO, 1, Hello([1], "client", OTHER))
                    await caller.read()
                    size = PAYLOAD_BYTES_MAX // 4
                    caller.request(UPDATE_CHUNKS, 2, UpdateChunks(OTHER, []), payload=b"x", payload_length=size)
                await eventually(lambda: head.service.stats()["payload_memory_bytes"] == PAYLOAD_BYTES_MAX)
                while True:
                    try:
                        await chain.update(b"y" * CHUNK, sequence=1)
                        break
                    except EmberError as error:
                        assert error.code is Code.BUSY  # until they are seen to be slow
                assert await chain.read_everywhere() == b"y" * CHUNK
            await eventually(lambda: head.service.stats()["payload_memory_bytes"] == 0)

    run(scenario())


def test_reads_of_many_chunks_chains_and_failures_in_one_batch(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            for number in (1, 2, 3):
                for index in range(4):
                    await chain.update(bytes([64 + number]) * (100 * index + 10), chain=number, index=index)
            # Node 2 has a replica of every chain. Chunk 3 of each chain is not cached there.
            for store in chain.stores_of(2):
                store.uncached.add((7).to_bytes(8, "big") + (3).to_bytes(4, "big"))
            wanted = [(number, index) for index in range(5) for number in (1, 2, 3)]
            items = [ReadItem(number, 1, 7, index, 5, 150, CHUNK) for number, index in wanted]
            items.append(ReadItem(1, 2, 7, 0, 0, 10, CHUNK))
            items.append(ReadItem(9, 1, 7, 0, 0, 10, CHUNK))
            items.append(ReadItem(1, 1, 7, 0, -1, 10, CHUNK))
            items.append(ReadItem(1, 1, -7, 0, 0, 10, CHUNK))
            into = [memoryview(bytearray(item.length)) for item in items]
            reply = await chain.pool.call(
                chain.address(2), READ_CHUNKS, ReadChunks(items), into=into, timeout=TIMEOUT_S
            )
            for place, (number, index) in enumerate(wanted):
                data = bytes(into[place][: reply.lengths[place]])
                if index < 4:
                    assert data == (bytes([64 + number]) * (100 * index + 10))[5:155], (number, index)
            codes = {error.index: error.code for error in reply.errors}
            missing = {wanted.index((number, 4)): Code.CHUNK_NOT_FOUND.value.number for number in (1, 2, 3)}
            assert codes == missing | {
                15: Code.CHAIN_VERSION.value.number,
                16: Code.CHAIN_UNKNOWN.value.number,
                17: Code.INVALID.value.number,
                18: Code.INVALID.value.number,
            }

    run(scenario())


def test_malformed_batches_are_refused_whole(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:

            async def read(items: list[ReadItem]) -> None:
                await chain.pool.call(chain.address(1), READ_CHUNKS, ReadChunks(items), timeout=TIMEOUT_S)

            for items in ([], [ReadItem(1, 1, 7, 0, 0, 0, CHUNK)], [ReadItem(1, 1, 7, 0, 0, 1 << 40, CHUNK)]):
                with refused(Code.INVALID):
                    await read(items)
            with refused(Code.INVALID):
                await chain.send([chain.item(b"longer than the payload")], [b"short"])
            with refused(Code.INVALID):
                await chain.send([chain.item(b"short")], [b"longer than the item"])
            with refused(Code.INVALID):
                await chain.update(b"x", client=b"short")
            # A client does not choose versions, nor does it speak for a replica.
            reply = await chain.send([replace(chain.item(b"x"), version=7)], [b"x"])
            assert [error.code for error in reply.errors] == [Code.INVALID.value.number]

    run(scenario())


def test_the_last_chunk_of_a_file(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            assert (await chain.query()).index == -1
            for index, size in ((0, 100), (3, 50), (5, 7)):
                await chain.update(b"x" * size, index=index)
            await chain.update(b"x", inode=8, index=9)
            last = await chain.query()
            assert (last.index, last.length, last.chunks, last.total_bytes) == (5, 7, 3, 157)
            await chain.update(kind=UpdateKind.REMOVE, index=5)
            assert (await chain.query()).index == 3

    run(scenario())


def test_a_query_covers_the_updates_that_had_begun(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            head = chain.store(1, 0)
            head.before_commit.hold()
            update = asyncio.create_task(chain.update(b"x" * 10, index=4))
            await head.before_commit.reached.wait()
            # The tail has it, so a reader may have seen it.
            assert await chain.read(place=2, index=4) == b"x" * 10
            query = asyncio.create_task(chain.query())
            await eventually(lambda: chain.target(1, 0).in_flight == 2)
            head.before_commit.release()
            assert (await query).index == 4
            assert await update == (1, 10)

    run(scenario())


async def listed(chain: ChainOfDaemons, first: int, limit: int, *, node: int = 1) -> ListChunksReply:
    reply: ListChunksReply = await chain.pool.call(
        chain.address(node), LIST_CHUNKS, ListChunks(1, 1, 7, first, limit), timeout=TIMEOUT_S
    )
    return reply


def test_the_chunks_of_a_file_are_listed_in_pages(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            assert await listed(chain, 0, 10) == ListChunksReply([], [], False)
            for index, size in ((0, 100), (3, 50), (5, 7), (2**32 - 1, 1)):
                await chain.update(b"x" * size, index=index)
            await chain.update(b"x", inode=8, index=4)
            await chain.update(kind=UpdateKind.REMOVE, index=3)
            assert await listed(chain, 0, 2) == ListChunksReply([0, 5], [100, 7], True)
            assert await listed(chain, 6, 2) == ListChunksReply([2**32 - 1], [1], False)
            assert await listed(chain, 1, 2) == ListChunksReply([5, 2**32 - 1], [7, 1], False)
            for first, limit in ((0, 0), (-1, 1), (0, READ_ITEMS_MAX + 1)):
                with refused(Code.INVALID):
                    await listed(chain, first, limit)
            with refused(Code.NOT_HEAD):
                await listed(chain, 0, 1, node=2)

    run(scenario())


def test_a_list_covers_the_updates_that_had_begun(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            head = chain.store(1, 0)
            head.before_commit.hold()
            update = asyncio.create_task(chain.update(b"x" * 10, index=4))
            await head.before_commit.reached.wait()
            list_ = asyncio.create_task(listed(chain, 0, 10))
            await eventually(lambda: chain.target(1, 0).in_flight == 2)
            head.before_commit.release()
            assert await list_ == ListChunksReply([4], [10], False)
            assert await update == (1, 10)

    run(scenario())


async def sync(chain: ChainOfDaemons, chains: list[int], versions: list[int], node: int = 1) -> None:
    await chain.pool.call(chain.address(node), SYNC_CHAINS, SyncChains(chains, versions), timeout=TIMEOUT_S)


def test_chains_are_synced_where_they_are_asked_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            await sync(chain, [1, 3], [1, 1], node=2)
            synced = {(number, place): chain.store(number, place).syncs for number in (1, 2, 3) for place in range(3)}
            asked = {(number, place) for number in (1, 3) for place in range(3) if chain.node(number, place) == 2}
            assert {key for key, count in synced.items() if count} == asked
            for chains, versions, code in (
                ([1], [2], Code.CHAIN_VERSION),
                ([77], [1], Code.CHAIN_UNKNOWN),
                ([1, 2], [1], Code.INVALID),
            ):
                with refused(code):
                    await sync(chain, chains, versions)

    run(scenario())


def test_a_chain_that_went_on_during_a_sync_is_not_told_synced(tmp_path: Path) -> None:
    """It may have gone on without this replica, which then lacks what was acknowledged since."""

    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            store = chain.store(1, 0)
            store.before_sync.hold()
            call = asyncio.create_task(sync(chain, [1], [1]))
            await store.before_sync.reached.wait()
            chain.managers[1].publish(chain.make_routing(2, chain_version=2))
            store.before_sync.release()
            with refused(Code.CHAIN_VERSION):
                await call

    run(scenario())


def test_a_sync_that_fails_takes_the_target_out_of_service(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            chain.store(1, 0).sync_failure = EmberError(Code.DISK_FAILED, "the disk is gone")
            with refused(Code.DISK_FAILED):
                await sync(chain, [1], [1])
            with refused(Code.NOT_SERVING):
                await sync(chain, [1], [1])

    run(scenario())


async def remove(chain: ChainOfDaemons, first: int, limit: int, *, inode: int = 7) -> RemoveChunksReply:
    reply: RemoveChunksReply = await chain.pool.call(
        chain.address(1), REMOVE_CHUNKS, RemoveChunks(1, 1, inode, first, limit, CLIENT), timeout=TIMEOUT_S
    )
    return reply


def test_removing_the_chunks_of_a_file(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            for start in range(0, 600, 200):
                items = [chain.item(b"x", index=start + n, channel=n) for n in range(200)]
                await chain.send(items, [b"x"] * 200)
            await chain.update(b"kept", inode=8)
            reply = await remove(chain, 100, 300)
            assert (reply.removed, reply.more) == (300, True)
            reply = await remove(chain, 100, 300)
            assert (reply.removed, reply.more) == (200, False)
            reply = await remove(chain, 100, 300)
            assert (reply.removed, reply.more) == (0, False)
            for place in range(3):
                assert chain.store(1, place).last_chunk(7).chunks == 100
            assert await chain.read_everywhere(inode=8) == b"kept"
            with refused(Code.INVALID):
                await remove(chain, 0, 0)

    run(scenario())


async def remove_files(chain: ChainOfDaemons, inodes: list[int], node: int = 1) -> RemoveFilesReply:
    reply: RemoveFilesReply = await chain.pool.call(
        chain.address(node), REMOVE_FILES, RemoveFiles(1, 1, inodes, CLIENT), timeout=TIMEOUT_S
    )
    return reply


def test_removing_many_files(tmp_path: Path) -> None:
    """Files without chunks, with one, and with more than fit into a replicated batch."""

    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            sizes = {100: 1, 101: 0, 102: 300, 103: 1, 104: 200, 105: 2}
            for inode, size in sizes.items():
                for start in range(0, size, 200):
                    count = min(200, size - start)
                    items = [chain.item(b"x", inode=inode, index=start + n, channel=n) for n in range(count)]
                    await chain.send(items, [b"x"] * count)
            await chain.update(b"kept", inode=99)
            reply = await remove_files(chain, list(sizes))
            assert (reply.removed, reply.finished) == (sum(sizes.values()), len(sizes))
            for place in range(3):
                assert [chain.store(1, place).last_chunk(inode).chunks for inode in (99, *sizes)] == [1] + [0] * 6
            reply = await remove_files(chain, list(sizes))
            assert (reply.removed, reply.finished) == (0, len(sizes))

    run(scenario())


def test_removing_files_ends_early_when_they_are_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "REMOVE_LIMIT_MAX", 256)

    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            for inode in (100, 101):
                for start in (0, 200):
                    items = [chain.item(b"x", inode=inode, index=start + n, channel=n) for n in range(200)]
                    await chain.send(items, [b"x"] * 200)
            reply = await remove_files(chain, [100, 101])
            assert (reply.removed, reply.finished) == (256, 0)
            reply = await remove_files(chain, [100, 101])
            assert (reply.removed, reply.finished) == (256, 1)
            reply = await remove_files(chain, [101])
            assert (reply.removed, reply.finished) == (256, 0)
            reply = await remove_files(chain, [101])
            assert (reply.removed, reply.finished) == (32, 1)

    run(scenario())


def test_removing_files_covers_the_updates_that_had_begun(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            head = chain.store(1, 0)
            head.before_commit.hold()
            update = asyncio.create_task(chain.update(b"x", inode=100))
            await head.before_commit.reached.wait()
            removal = asyncio.create_task(remove_files(chain, [100]))
            await eventually(lambda: chain.target(1, 0).in_flight == 2)
            head.before_commit.release()
            assert (await removal).removed == 1
            await update

    run(scenario())


def test_removing_files_is_the_heads_and_bounded(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            with refused(Code.NOT_HEAD):
                await remove_files(chain, [7], node=2)
            for inodes in ([], list(range(REMOVE_FILES_MAX + 1)), [-1]):
                with refused(Code.INVALID):
                    await remove_files(chain, inodes)

    run(scenario())


def test_space_and_statistics(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path, capacity_bytes=1 << 20) as chain:
            await chain.update(b"x" * 1000)
            await chain.read()
            space = await chain.pool.call(chain.address(1), SPACE_INFO, SpaceInfo(), timeout=TIMEOUT_S)
            assert space.capacity_bytes == (1 << 20) - (1 << 15), "what is kept free is no capacity"
            assert {target.chain: target.used_bytes for target in space.targets} == {1: 1000, 2: 0, 3: 0}
            stats = (await chain.pool.call(chain.address(1), STATS, Empty(), timeout=TIMEOUT_S)).counters
            assert (stats["updates"], stats["reads"], stats["bytes_read"]) == (1, 1, 1000)
            assert stats["payload_memory_bytes"] == 0

    run(scenario())


def test_a_disk_that_does_not_answer_takes_its_target_offline_and_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            node = chain.node(1, 0)
            broken = chain.store(1, 0)
            target = chain.target(1, 0).id
            daemon = chain.daemons[node]

            def states() -> dict[int, LocalState]:
                return {status.target: status.state for status in daemon.status().targets}

            others = {other: state for other, state in states().items() if other != target}
            assert len(others) == 2

            def space() -> Space:
                raise OSError(errno.EIO, os.strerror(errno.EIO))

            with monkeypatch.context() as patched:
                patched.setattr(broken, "space", space)
                for _ in range(3):
                    assert states() == others | {target: LocalState.OFFLINE}
            assert states()[target] is LocalState.OFFLINE, "whoever was told so goes on without it"
            assert not chain.target(1, 0).serves

    run(scenario())
    assert sum("its disk does not answer" in message for message in caplog.messages) == 1


def test_who_may_be_asked_what(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            await chain.update(b"x")
            with refused(Code.NOT_HEAD):
                reply = await chain.send([chain.item(b"y")], [b"y"], node=2)
                code = reply.errors[0]
                assert code.code == Code.NOT_HEAD.value.number
                await chain.pool.call(
                    chain.address(2), REMOVE_CHUNKS, RemoveChunks(1, 1, 7, 0, 1, CLIENT), timeout=TIMEOUT_S
                )
            with refused(Code.CHAIN_VERSION):
                await chain.pool.call(
                    chain.address(1), COMMITTED_VERSIONS, CommittedVersions(1, 1, [b"x" * 12]), timeout=TIMEOUT_S
                )
            asked = CommittedVersions(1, 1, [bytes(chunk_id(7, 0)), b"x" * 12], pending=True)
            told = await chain.pool.call(chain.address(1), COMMITTED_VERSIONS, asked, timeout=TIMEOUT_S)
            assert (told.versions, told.digests) == ([0, 0], [0, 0]), "nothing is under way, whoever is asked"
            with refused(Code.CHAIN_VERSION):
                await chain.read(chain_version=2)
            with refused(Code.CHAIN_UNKNOWN):
                await chain.pool.call(
                    chain.address(1), REMOVE_CHUNKS, RemoveChunks(77, 1, 7, 0, 1, CLIENT), timeout=TIMEOUT_S
                )

    run(scenario())
