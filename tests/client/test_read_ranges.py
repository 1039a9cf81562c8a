"""The batch primitive: layout of the buffer, ends and holes, faults of servers, cancellation."""

import asyncio
import errno
import pickle
import random
import sys
from collections import Counter
from types import FrameType
from typing import Any

import msgspec
import pytest

import fs_client
from fs_client import FileRef, FileSystem, aio, read_plan
from fs_common import methods
from fs_common.errors import Code, EmberError
from fs_common.records.routing import NodeState, PublicState
from fs_common.records.storage import ReadItem
from tests.client.fake_cluster import CHUNK, FakeCluster
from tests.support import run

DATA = random.Random(1).randbytes(10 * CHUNK + 777)


@pytest.fixture
def file(fs: FileSystem) -> str:
    fs.write_file("/f", DATA)
    return "/f"


def reads(cluster: FakeCluster) -> int:
    return sum(len(daemon.reads) for daemon in cluster.storage.values())


def test_ranges_lie_one_after_another(fs: FileSystem, file: str) -> None:
    into = bytearray(b"-" * 100)
    views = fs.read_ranges([(file, 5, 10), (file, CHUNK - 5, 10), (file, 0, 0), (file, len(DATA) - 5, 10)], into)
    assert into[:10] == DATA[5:15] and into[10:20] == DATA[CHUNK - 5 : CHUNK + 5]
    assert into[20:25] == DATA[-5:] and into[25:] == b"-" * 75
    assert [len(view) for view in views] == [10, 10, 0, 5]
    views[0][:1] = b"!"
    assert into[:1] == b"!", "views are of the caller's buffer"


def test_any_writable_buffer_will_do(fs: FileSystem, file: str) -> None:
    import array

    into = array.array("I", bytes(8))
    fs.read_ranges([(file, 100, 8)], into)
    assert into.tobytes() == DATA[100:108]
    with pytest.raises(TypeError, match="writable"):
        fs.read_ranges([(file, 0, 4)], b"1234")


def test_without_a_buffer_one_is_made_without_gaps(fs: FileSystem, file: str) -> None:
    views = fs.read_ranges([(file, len(DATA) - 5, 1 << 40), (file, 0, 3)])
    assert [bytes(view) for view in views] == [DATA[-5:], DATA[:3]]


@pytest.mark.parametrize(("replicas", "count", "frames"), [(3, 6, 1), (3, 8, 1), (3, 100, 3), (1, 6, 3)])
def test_few_small_pieces_share_a_frame_where_one_server_has_them_all(replicas: int, count: int, frames: int) -> None:
    with FakeCluster(replicas=replicas).running() as cluster, fs_client.connect(cluster.address) as fs:
        fs.write_file("/f", DATA)
        file = fs.ref("/f")
        for daemon in cluster.storage.values():
            daemon.read_frames = 0
        ranges = [(file, number % 10 * CHUNK + number, 100) for number in range(count)]
        found = fs.read_ranges(ranges)
        assert [bytes(view) for view in found] == [DATA[start : start + 100] for _, start, _ in ranges]
        assert sum(daemon.read_frames for daemon in cluster.storage.values()) == frames


def test_larger_pieces_go_to_all_servers(cluster: FakeCluster, fs: FileSystem, file: str) -> None:
    ref = fs.ref(file)
    for daemon in cluster.storage.values():
        daemon.read_frames = 0
    fs.read_ranges([(ref, number * CHUNK, CHUNK) for number in range(3)])
    assert [daemon.read_frames for daemon in cluster.storage.values()] == [1, 1, 1]


def test_files_are_named_by_path_reference_or_open_file(fs: FileSystem, file: str) -> None:
    ref = pickle.loads(pickle.dumps(fs.ref(file)))
    with fs.open(file) as buffered, fs.open(file, buffering=0) as raw:
        sources = [file, file.encode(), ref, buffered, raw]
        views = fs.read_ranges([(source, 3, 4) for source in sources])
    assert [bytes(view) for view in views] == [DATA[3:7]] * 5


def test_paths_are_looked_up_in_one_call(cluster: FakeCluster, fs: FileSystem) -> None:
    for number in range(20):
        fs.write_file(f"/{number}", b"%02d" % number)
    cluster.metadata.calls.clear()
    views = fs.read_ranges([(f"/{number % 20}", 0, 2) for number in range(40)])
    assert [bytes(view) for view in views] == [b"%02d" % (number % 20) for number in range(40)]
    assert [name for name, _ in cluster.metadata.calls] == ["batch_stat"]


def test_a_missing_path_is_its_own_error(fs: FileSystem, file: str) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        fs.read_ranges([(file, 0, 1), ("/no", 0, 1), (file, 1, 1)])
    assert caught.value.filename == "/no"


def test_wrong_numbers_are_value_errors(fs: FileSystem, file: str) -> None:
    with pytest.raises(ValueError, match="range 1 has a negative"):
        fs.read_ranges([(file, 0, 1), (file, -1, 1)], bytearray(9))
    with pytest.raises(ValueError, match="the buffer has 9 bytes, ranges up to number 1 need 10"):
        fs.read_ranges([(file, 0, 5), (file, 0, 5)], bytearray(9))
    with pytest.raises(ValueError, match="negative"):
        fs.read_ranges([(file, 0, -1)])


def test_one_frame_for_each_server(cluster: FakeCluster, fs: FileSystem, file: str) -> None:
    ref = fs.ref(file)
    for daemon in cluster.storage.values():
        daemon.read_frames = 0
    chooser = random.Random(2)
    ranges = [(ref, chooser.randrange(len(DATA) - 1000), 1000) for _ in range(500)]
    views = fs.read_ranges(ranges, bytearray(500_000))
    assert all(view == DATA[offset : offset + 1000] for view, (_, offset, _) in zip(views, ranges, strict=True))
    assert [daemon.read_frames for daemon in cluster.storage.values()] == [1, 1, 1]


def test_large_reads_are_cut_into_frames(
    cluster: FakeCluster, fs: FileSystem, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_plan, "FRAME_BYTES", CHUNK)
    for daemon in cluster.storage.values():
        daemon.read_frames = 0
    assert fs.read_file(file) == DATA
    assert sum(daemon.read_frames for daemon in cluster.storage.values()) == 11


def test_holes_are_zeros(fs: FileSystem) -> None:
    with fs.open("/h", "wb") as file:
        file.write(b"a" * 10)
        file.seek(4 * CHUNK + 100)
        file.write(b"b" * 10)
    into = bytearray(b"-" * (5 * CHUNK))
    (view,) = fs.read_ranges([("/h", 0, 5 * CHUNK)], into)
    assert bytes(view) == b"a" * 10 + bytes(4 * CHUNK + 90) + b"b" * 10
    assert into[len(view) :] == b"-" * (5 * CHUNK - len(view))


def questions(cluster: FakeCluster) -> list[list[int]]:
    return [request.inodes for name, request in cluster.metadata.calls if name == "kept"]


def sparse(fs: FileSystem, path: str) -> FileRef:
    """Chunk 0 and the last of five are there."""
    with fs.open(path, "wb") as file:
        file.write(b"a" * 10)
        file.seek(4 * CHUNK)
        file.write(b"b" * CHUNK)
    return fs.ref(path)


def test_holes_cost_one_question_for_as_long_as_its_answer_holds(cluster: FakeCluster, fs: FileSystem) -> None:
    refs = [sparse(fs, f"/{number}") for number in range(3)]
    whole = fs.ref("/0")
    fs.read_ranges([(ref, 0, 10) for ref in refs])
    assert questions(cluster) == [], "what is there needs none"
    for _ in range(3):
        for ref in [*refs, whole]:
            (view,) = fs.read_ranges([(ref, 0, 5 * CHUNK)])
            assert bytes(view) == b"a" * 10 + bytes(4 * CHUNK - 10) + b"b" * CHUNK
    assert questions(cluster) == [[ref.inode] for ref in refs]


def test_all_that_a_batch_misses_is_one_question(cluster: FakeCluster, fs: FileSystem) -> None:
    refs = [sparse(fs, f"/{number}") for number in range(20)]
    views = fs.read_ranges([(ref, CHUNK * index, CHUNK) for ref in refs for index in (1, 2)])
    assert all(bytes(view) == bytes(CHUNK) for view in views)
    assert questions(cluster) == [sorted(ref.inode for ref in refs)]


def test_where_nothing_is_promised_each_batch_asks_anew(cluster: FakeCluster, fs: FileSystem) -> None:
    ref = sparse(fs, "/f")
    cluster.metadata.kept_ms = 0
    for _ in range(3):
        assert bytes(fs.read_ranges([(ref, CHUNK, 10)])[0]) == bytes(10)
    assert questions(cluster) == [[ref.inode]] * 3


@pytest.mark.parametrize("first", [0, 4], ids=["all chunks", "the last chunk"])
@pytest.mark.parametrize("holes", [True, False])
def test_a_file_that_was_removed_and_collected_is_stale(
    cluster: FakeCluster, fs: FileSystem, file: str, first: int, holes: bool
) -> None:
    ref = fs.ref(file)
    ref.holes = holes
    fs.unlink(file)
    fs.write_file(file, bytes(3) + DATA[3:])  # another file of that name
    cluster.collect(ref.inode, first)
    into = bytearray(b"-" * 20)
    with pytest.raises(OSError, match="the file was removed") as caught:
        fs.read_ranges([(ref, CHUNK * 3 - 10, 10), (ref, CHUNK * 4 - 5, 10)], into)
    assert caught.value.errno == errno.ESTALE
    assert bytes(fs.read_ranges([(file, 0, 6)])[0]) == bytes(3) + DATA[3:6]


def test_an_open_file_that_was_removed_and_collected_is_stale(cluster: FakeCluster, fs: FileSystem, file: str) -> None:
    inode = fs.ref(file).inode
    with fs.open(file, "rb", buffering=0) as opened:
        assert opened.read(10) == DATA[:10]
        fs.unlink(file)
        cluster.collect(inode)
        with pytest.raises(OSError, match="removed") as caught:
            opened.read(10)
        assert caught.value.errno == errno.ESTALE


def test_a_file_that_is_collected_between_the_answer_and_the_read_is_stale(
    cluster: FakeCluster, fs: FileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer holds for a time, and that is over."""
    ref = sparse(fs, "/f")
    assert fs._connected is not None
    kept = fs._connected.core.reader._kept
    now = 1000.0
    kept._now = lambda: now
    cluster.metadata.kept_ms = 10_000
    assert bytes(fs.read_ranges([(ref, CHUNK, 10)])[0]) == bytes(10)
    now += 9
    assert bytes(fs.read_ranges([(ref, CHUNK, 10)])[0]) == bytes(10)
    assert len(questions(cluster)) == 1
    now += 1
    cluster.collect(ref.inode)
    with pytest.raises(OSError, match="removed"):
        fs.read_ranges([(ref, CHUNK, 10)])


def test_the_question_comes_after_what_was_found_missing(cluster: FakeCluster, fs: FileSystem, file: str) -> None:
    """Asked before, the answer would be that the file is kept."""
    ref = fs.ref(file)
    cluster.metadata.kept_ms = 0
    asked = cluster.when_called("kept")

    def collected_while_it_is_read(item: ReadItem) -> EmberError | None:
        assert not asked.is_set()
        cluster.metadata.collected.add(ref.inode)
        return EmberError(Code.CHUNK_NOT_FOUND, "no such chunk")

    for daemon in cluster.storage.values():
        daemon.read_fault = collected_while_it_is_read
    with pytest.raises(OSError, match="removed"):
        fs.read_ranges([(ref, 0, 10)])


def test_nobody_to_ask_is_an_error_not_zeros(cluster: FakeCluster) -> None:
    with fs_client.connect(cluster.address, timeout_s=0.2) as fs:
        ref = sparse(fs, "/f")
        cluster.metadata.fault = lambda method: EmberError(Code.BUSY) if method.name == "kept" else None
        with pytest.raises(OSError, match=r"range 0 \(chunk 1 .*gave up"):
            fs.read_ranges([(ref, CHUNK, 10), (ref, 2 * CHUNK, 10)])


def test_a_service_of_before_is_asked_whether_the_file_has_a_name(cluster: FakeCluster, fs: FileSystem) -> None:
    ref, removed = sparse(fs, "/f"), sparse(fs, "/g")
    fs.unlink("/g")
    inodes = cluster.metadata.inodes
    inodes[removed.inode] = msgspec.structs.replace(inodes[removed.inode], links=0)
    cluster.metadata.fault = lambda method: EmberError(Code.UNKNOWN_METHOD) if method.name == "kept" else None
    assert bytes(fs.read_ranges([(ref, CHUNK, 10)])[0]) == bytes(10)
    for _ in range(2):
        with pytest.raises(OSError, match="removed") as caught:
            fs.read_ranges([(ref, CHUNK, 10), (removed, CHUNK, 10)])
        assert caught.value.errno == errno.ESTALE
        inodes.pop(removed.inode, None)  # it is collected


def test_what_is_not_a_hole_may_still_be_missing(cluster: FakeCluster, fs: FileSystem) -> None:
    ref = sparse(fs, "/f")
    ref.holes = False
    with pytest.raises(FileNotFoundError, match="bytes are missing"):
        fs.read_ranges([(ref, CHUNK, 10)])


def test_the_load_is_given_back(fs: FileSystem, file: str) -> None:
    fs.read_file(file)
    assert fs._connected is not None
    assert [server.outstanding for server in fs._connected.core.routing.servers.values()] == [0, 0, 0]


def test_a_loaded_server_is_relieved(fs: FileSystem, file: str, cluster: FakeCluster) -> None:
    assert fs._connected is not None
    servers = fs._connected.core.routing.servers
    servers[1].outstanding = read_plan.IMBALANCE_BYTES + 1
    for daemon in cluster.storage.values():
        daemon.reads.clear()
    assert fs.read_file(file) == DATA
    assert not cluster.storage[1].reads
    servers[1].outstanding = 0


# Faults


def test_a_dead_server_costs_one_failover(cluster: FakeCluster, fs: FileSystem, file: str) -> None:
    cluster.stop_node(2)
    assert fs.read_file(file) == DATA
    before = reads(cluster)
    assert fs.read_file(file) == DATA
    assert reads(cluster) == before + 11, "it is remembered"


def test_a_server_that_comes_back_is_used_again(cluster: FakeCluster, fs: FileSystem, file: str) -> None:
    cluster.stop_node(2)
    fs.read_file(file)
    cluster.start_node(2)
    assert fs._connected is not None
    core = fs._connected.core
    core.routing.trust(core.routing.servers[2])
    cluster.storage[2].reads.clear()
    assert fs.read_file(file) == DATA
    assert cluster.storage[2].reads


def test_a_server_that_dies_while_it_answers(cluster: FakeCluster, fs: FileSystem, file: str) -> None:
    daemon = cluster.storage[3]

    def close_gate() -> None:
        daemon.gate = asyncio.Event()

    cluster.call(close_gate)

    async def die() -> None:
        await daemon.arrived.wait()
        assert daemon.server is not None
        server, daemon.server = daemon.server, None
        await server.close(grace_s=0)

    dying = asyncio.run_coroutine_threadsafe(die(), cluster._loop)
    assert fs.read_file(file) == DATA
    dying.result(10)


def test_all_servers_of_a_chain_down_until_one_returns(cluster: FakeCluster, fs: FileSystem, file: str) -> None:
    for node in (1, 2, 3):
        cluster.stop_node(node)
    # A client that comes back for routing has found nobody.
    starting = cluster.after(cluster.when_called("get_routing"), lambda: cluster.start_node(1))
    assert fs.read_file(file) == DATA
    starting.join()


@pytest.mark.parametrize("code", [Code.NOT_SERVING, Code.CHAIN_UNKNOWN, Code.DISK_FAILED, Code.BUSY])
def test_an_item_that_one_replica_refuses_is_read_from_another(
    cluster: FakeCluster, fs: FileSystem, file: str, code: Code
) -> None:
    cluster.storage[1].read_fault = lambda item: EmberError(code, "not here")
    assert fs.read_file(file) == DATA


def test_a_frame_that_is_refused_goes_elsewhere(cluster: FakeCluster, fs: FileSystem, file: str) -> None:
    cluster.storage[1].frame_fault = lambda: EmberError(Code.BUSY, "too much to do")
    assert fs.read_file(file) == DATA


def test_an_old_chain_version_is_refreshed(cluster: FakeCluster, fs: FileSystem, file: str) -> None:
    cluster.set_chain(1, {2: PublicState.OFFLINE})
    cluster.set_chain(3, {})
    assert fs.read_file(file) == DATA
    assert not any(item.chain == 1 and item.chain_version == 2 for item in cluster.storage[2].reads)


def test_a_failed_node_is_not_asked(cluster: FakeCluster, fs: FileSystem, file: str) -> None:
    cluster.states[1] = NodeState.FAILED
    cluster.set_chain(1, {})
    fs.read_file(file)
    cluster.storage[1].reads.clear()
    assert fs.read_file(file) == DATA
    assert not cluster.storage[1].reads


def test_damaged_bytes_are_read_from_another_replica(cluster: FakeCluster, fs: FileSystem, file: str) -> None:
    for node in (1, 2):
        cluster.storage[node].corrupt.update(cluster.storage[node].chunks)
    assert fs.read_file(file) == DATA
    read = [daemon.suspected for daemon in cluster.storage.values()]
    assert read[0] and read[1] and not read[2], "who sent damaged bytes is told of it"
    assert all(set(chunks) <= cluster.storage[node].corrupt for node, chunks in zip((1, 2), read[:2], strict=True))


def test_who_does_not_want_to_hear_of_damage_changes_nothing(cluster: FakeCluster, fs: FileSystem, file: str) -> None:
    for node in (1, 2):
        daemon = cluster.storage[node]
        daemon.corrupt.update(daemon.chunks)
        del daemon.service.registrations[methods.SUSPECT_CHUNKS.number]
    assert fs.read_file(file) == DATA


def test_damage_everywhere_is_an_io_error_that_names_the_range(cluster: FakeCluster, fs: FileSystem, file: str) -> None:
    for daemon in cluster.storage.values():
        daemon.corrupt.update(key for key in daemon.chunks if key[2] == 4)
    into = bytearray(100)
    with pytest.raises(OSError, match=r"range 1 \(chunk 4 of inode \d+") as caught:
        fs.read_ranges([(file, 0, 10), (file, 4 * CHUNK, 10), (file, 5 * CHUNK, 10)], into)
    assert caught.value.errno == 5 and caught.value.filename == file
    assert into[:10] == DATA[:10] and into[20:30] == DATA[5 * CHUNK : 5 * CHUNK + 10]
    tries = [item for daemon in cluster.storage.values() for item in daemon.reads if item.index == 4]
    assert len(tries) == 6, "each replica twice"


def test_damage_that_passes_is_no_error(cluster: FakeCluster, fs: FileSystem, file: str) -> None:
    """A block that changes while it is sent."""
    daemon = cluster.storage[1]
    daemon.corrupt.update(daemon.chunks)

    def heal(item: object) -> None:
        daemon.corrupt.clear()

    for other in (2, 3):
        cluster.storage[other].corrupt.update(cluster.storage[other].chunks)
        cluster.storage[other].read_fault = heal
    assert fs.read_file(file) == DATA


def test_a_final_error_is_raised_at_once(cluster: FakeCluster, fs: FileSystem, file: str) -> None:
    for daemon in cluster.storage.values():
        daemon.read_fault = lambda item: EmberError(Code.INVALID, "odd") if item.index == 2 else None
    with pytest.raises(OSError, match=r"range 0 \(chunk 2 .*odd"):
        fs.read_file(file)
    assert sum(1 for daemon in cluster.storage.values() for item in daemon.reads if item.index == 2) == 1


def test_nobody_serving_is_an_error_at_the_deadline(cluster: FakeCluster) -> None:
    import fs_client

    with fs_client.connect(cluster.address, timeout_s=0.3) as fs:
        fs.write_file("/f", DATA)
        cluster.set_chain(1, dict.fromkeys((1, 2, 3), PublicState.OFFLINE))
        with pytest.raises(OSError, match="chain 1 has no serving replica"):
            fs.read_file("/f")


def test_a_chain_table_that_is_not_known_yet_is_fetched(cluster: FakeCluster, fs: FileSystem, file: str) -> None:
    from fs_client.file_ref import FileRef

    assert fs._connected is not None
    routing = fs._connected.core.routing
    old = routing.routing
    routing.adopt(type(old)(0, old.cluster, old.nodes, [], []))
    ref = fs.ref(file)
    assert bytes(fs.read_ranges([(FileRef(ref.inode, ref.length, ref.layout), 0, 5)])[0]) == DATA[:5]


# Cancellation


def test_after_a_cancellation_the_buffer_is_not_touched(cluster: FakeCluster) -> None:
    async def main() -> None:
        async with await aio.connect(cluster.address) as fs:
            await fs.write_file("/f", DATA)

            async def close_gate() -> None:
                for daemon in cluster.storage.values():
                    daemon.gate = asyncio.Event()
                    daemon.arrived.clear()

            async def all_arrived() -> None:
                for daemon in cluster.storage.values():
                    await daemon.arrived.wait()

            async def open_gate() -> None:
                for daemon in cluster.storage.values():
                    assert daemon.gate is not None
                    daemon.gate.set()

            await on_servers(cluster, close_gate())
            into = bytearray(len(DATA))
            reading = asyncio.ensure_future(fs.read_ranges([("/f", 0, len(DATA))], into))
            await on_servers(cluster, all_arrived())
            reading.cancel()
            await asyncio.wait([reading])
            assert reading.cancelled()
            marked = bytes(into)
            await on_servers(cluster, open_gate())
            # The late answers arrive before those of this read, on the same connections.
            assert await fs.read_file("/f") == DATA
            assert into == marked == bytes(len(DATA))
            assert [server.outstanding for server in fs.routing.servers.values()] == [0, 0, 0]

    run(main())


async def on_servers(cluster: FakeCluster, coroutine: object) -> None:
    await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, cluster._loop))  # type: ignore[arg-type]


def test_over_tcp_no_range_costs_calls_of_its_own_within_the_reader() -> None:
    """Python works once for each batch and server; that is true of what only other transports need, too."""

    async def main(address: str) -> None:
        async with await aio.connect(address) as fs:
            await fs.write_file("/f", DATA)
            ranges = [("/f", number % 10 * CHUNK + number, 100) for number in range(256)]
            into = bytearray(25600)
            await fs.read_ranges(ranges, into)
            calls: Counter[str] = Counter()

            def look(frame: FrameType, event: str, argument: Any) -> None:
                if event == "call" and frame.f_code.co_filename.endswith("fs_client/read_ranges.py"):
                    calls[frame.f_code.co_name] += 1

            sys.setprofile(look)
            try:
                await fs.read_ranges(ranges, into)
            finally:
                sys.setprofile(None)
            assert calls["read"], "it was looked at"
            assert max(calls.values()) < 64, calls

    with FakeCluster().running() as cluster:
        run(main(cluster.address))
