"""What took long is told once in the log, with what it was about, and kept for who looks."""

import logging

import msgspec
import pytest

from fs_common import tracing
from fs_common.errors import Code, EmberError
from fs_common.latency import Latency
from fs_common.methods import GET_ROUTING, LOOKUP, PING, READ_CHUNKS
from fs_common.records.meta import Lookup
from fs_common.records.routing import GetRouting, GetRoutingReply
from fs_common.records.session import Hello, Ping
from fs_common.records.storage import ReadChunks, ReadItem
from fs_common.rpc import Call, Reply, Service
from fs_common.slow_operations import KEPT, SlowOperations, about
from fs_common.transports import tcp
from tests.support import run

S = 30.0


def test_the_newest_are_kept_and_all_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    slow = SlowOperations(1000, now=lambda: 12.5)
    for number in range(KEPT + 3):
        slow.note("read_chunks", 1_500_000_000, trace=number, about="inode 7 chunk 1", times_ns={"disk": 1_400_000_000})
    found = slow.snapshot()
    assert len(found) == KEPT and found[0].trace == f"{KEPT + 2:08x}" and slow.counts == {"read_chunks": KEPT + 3}
    assert (found[0].ended_s, found[0].took_ms, found[0].times_ms) == (12.5, 1500.0, {"disk": 1400.0})
    assert caplog.messages[0] == "slow operation: read_chunks took 1500 ms"
    fields = vars(caplog.records[0])
    assert (fields["trace"], fields["about"], fields["disk_ms"]) == ("00000000", "inode 7 chunk 1", 1400.0)
    assert len(caplog.messages) < KEPT, "a slow disk does not fill the log"


def test_nothing_is_slow_without_a_threshold() -> None:
    assert SlowOperations(0).threshold_ns > 10**18
    assert SlowOperations(5).threshold_ns == 5_000_000


def test_what_a_request_is_about() -> None:
    read = ReadChunks([ReadItem(3, 1, 7, 2, 0, 10), ReadItem(3, 1, 8, 2, 0, 10)])
    assert about(read) == "inode 7 chunk 2 chain 3 and 1 more"
    assert about(Lookup(1, b"caf\xc3\xa9")) == "in inode 1, 'café'"
    assert about(Ping(b"")) == ""


def test_a_server_measures_and_notes_what_is_slow(caplog: pytest.LogCaptureFixture) -> None:
    def lookup(call: Call) -> Reply:
        call.times = lambda: {"disk": 2_000_000}
        raise EmberError(Code.NOT_FOUND, "not there")

    def read(call: Call) -> Reply:
        return Reply(READ_CHUNKS.response([3], [b""]), [b"abc"])

    async def scenario() -> None:
        service = Service("meta", "", 0)
        service.register(LOOKUP, lookup)
        service.register(READ_CHUNKS, read)
        service.register(GET_ROUTING, lambda call: Reply(GetRoutingReply(None)))
        service.slow_operations = SlowOperations(1000)
        service.slow_operations.threshold_ns = -1
        server = await tcp.serve(service, "127.0.0.1", 0)
        peer = await tcp.connect(server.host, server.port, Hello([1], "client", bytes(16)), timeout=S)
        try:
            tracing.enter(0xABC)
            with pytest.raises(EmberError):
                await peer.call(LOOKUP, Lookup(1, b"x"), timeout=S)
            await peer.call(GET_ROUTING, GetRouting(), timeout=S)
            request = ReadChunks([ReadItem(3, 1, 7, 2, 0, 3)])
            await peer.call(READ_CHUNKS, request, into=[memoryview(bytearray(3))], timeout=S)
        finally:
            await peer.close()
            await server.close()
        second, first = service.slow_operations.snapshot()
        assert (second.operation, second.error, second.trace) == ("read_chunks", "", "00000abc")
        assert (first.operation, first.error, first.about) == ("lookup", "NOT_FOUND", "in inode 1, 'x'")
        assert first.times_ms == {"disk": 2.0} and first.peer.startswith("client 127.0.0.1")
        assert set(service.slow_operations.counts) == {"lookup", "read_chunks"}, "who waits for others is not slow"
        for method, calls in ((LOOKUP, 1), (GET_ROUTING, 1), (READ_CHUNKS, 1), (PING, 0)):
            registration = service.registrations[method.number]
            assert sum(registration.latency.buckets) == registration.calls == calls
        assert service.registrations[READ_CHUNKS.number].sent_bytes == 3
        assert service.error_frames == {(LOOKUP.number, Code.NOT_FOUND): 1}
        msgspec.json.encode(service.slow_operations.snapshot())

    with caplog.at_level(logging.WARNING):
        run(scenario())
    assert [vars(record)["trace"] for record in caplog.records if "lookup" in record.message] == ["00000abc"]


def test_latencies_are_counted_by_powers_of_two() -> None:
    latency = Latency()
    for elapsed in (0, 1, 1023, 1024):
        latency.add(elapsed)
    assert (latency.buckets[0], latency.buckets[1], latency.buckets[10], latency.buckets[11]) == (1, 1, 1, 1)
    assert latency.total_ns == 2048
