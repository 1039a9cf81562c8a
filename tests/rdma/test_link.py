"""Calls over RDMA, on verbs in memory: whose memory it is at any moment, what is posted, and how connections end."""

import asyncio
import contextlib
import errno
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random

import pytest

from fs_common.errors import Code, EmberError
from fs_common.limits import KIB, MIB
from fs_common.methods import PING, RDMA_CONNECT, READ_CHUNKS, UPDATE_CHUNKS
from fs_common.records.session import Ping
from fs_common.records.storage import ReadChunksReply, UpdateChunks, UpdateChunksReply
from fs_common.rpc import Allocation, Call, FileRange, Peer, Reply, Service
from fs_common.serving import ServingConnection
from fs_common.transports import tcp
from fs_common.transports.rdma import link as link_module
from fs_common.transports.rdma import setup
from fs_common.transports.rdma.link import RdmaLink
from fs_common.transports.rdma.plan import SIGNAL_EVERY
from fs_common.transports.rdma.slabs import BLOCK_BYTES, LARGE_BYTES, SlabPool
from fs_common.transports.rdma.stream import CREDITS
from fs_common.transports.rdma.verbs import Access, Kind
from tests.common.loopback import TIMEOUT, hello, memory, pattern, read_request, service, until
from tests.common.services import CLIENT, Gate, replying
from tests.rdma.mixed_calls import Mixed
from tests.rdma.soft_verbs import Fabric
from tests.rdma.transport import RdmaTransport
from tests.support import run

DEVICES = {"soft0": "10.77.0.1", "soft1": "10.77.0.2"}
NEVER_S = 3600.0


class World:
    """A server and a connection to it, over a fabric that the test may hold."""

    def __init__(self, fabric: Fabric, transport: RdmaTransport, server: tcp.Server, peer: Peer) -> None:
        self.fabric = fabric
        self.transport = transport
        self.server = server
        self.peer = peer

    @property
    def connection(self) -> ServingConnection:
        (connection,) = self.server._connections
        return connection

    @property
    def served(self) -> RdmaLink:
        """The server's link."""
        link = self.connection.link
        assert isinstance(link, RdmaLink)
        return link

    @property
    def calling(self) -> RdmaLink:
        link = self.peer.link
        assert isinstance(link, RdmaLink)
        return link

    def turns(self) -> None:
        """Let the fabric do all it can, without the loop seeing any of it."""
        self.fabric.settle()

    async def reconnect(self) -> Peer:
        return await self.transport.connect("127.0.0.1", self.server.port, hello(), timeout=TIMEOUT)


@contextlib.asynccontextmanager
async def world(offered: Service, fabric: Fabric | None = None, slabs: SlabPool | None = None) -> AsyncIterator[World]:
    """At its end nothing may be left of what connections have taken."""
    fabric = fabric or Fabric(DEVICES)
    transport = RdmaTransport(fabric.binding)
    transport.open()
    if slabs is not None:
        transport.server.local = transport.server.local._replace(slabs=slabs)
    server = await transport.serve(offered, "127.0.0.1", 0)
    try:
        peer = await transport.connect("127.0.0.1", server.port, hello(), timeout=TIMEOUT)
        try:
            yield World(fabric, transport, server, peer)
        finally:
            fabric.let_go()
            await peer.close()
    finally:
        await server.close()
        for pool in (slabs, transport.server.slabs):
            if pool is not None:
                pool.close()
        assert set(transport.held().values()) == {0}, transport.held()
        used = [entry for side in (transport.client, transport.server) for entry in side.memory._index if entry.uses]
        assert not used, "memory is in use that belongs to nobody"
        transport.close()
        assert fabric.faults == []


def update() -> UpdateChunks:
    return UpdateChunks(CLIENT, [])


class Storing:
    """UPDATE_CHUNKS takes what it is sent, READ_CHUNKS answers with `data`."""

    def __init__(self, data: bytes = b"") -> None:
        self.service = service()
        self.service.register(UPDATE_CHUNKS, self._update, allocate=self._allocate)
        self.service.register(READ_CHUNKS, self._read)
        self.data = data
        self.got: list[bytes] = []
        self.allocated = 0
        self.released = 0
        self.on_release = lambda: None

    def _allocate(self, request: UpdateChunks, length: int) -> Allocation:
        self.allocated += 1

        def release() -> None:
            self.released += 1
            self.on_release()

        self.view = memoryview(bytearray(length))
        return Allocation([self.view], release)

    def _update(self, call: Call) -> Reply:
        self.got.append(b"".join(call.payload))
        return Reply(UpdateChunksReply([], []))

    def _read(self, call: Call) -> Reply:
        return Reply(ReadChunksReply([len(self.data)], []), [self.data])


# What is posted


@pytest.mark.parametrize("layout", ["dense", "apart"])
def test_256_reads_of_4_kib_are_one_frame_each_way(layout: str) -> None:
    async def main() -> None:
        size = 4 * KIB
        data = pattern(256 * size, 5)
        offered = service()
        step = size if layout == "dense" else 2 * size
        lengths = [size] * 256
        pieces = [memoryview(data)[i * size : (i + 1) * size] for i in range(256)]
        offered.register(READ_CHUNKS, lambda call: Reply(ReadChunksReply(lengths, []), pieces))
        async with world(offered) as w:
            space = memoryview(bytearray(256 * step))
            into = [space[i * step : i * step + size] for i in range(256)]
            await w.peer.call(READ_CHUNKS, read_request(*lengths), into=into, timeout=TIMEOUT)
            before = dict(w.fabric.posted), w.fabric.signalled
            sent = w.transport.client.traffic.messages_sent, w.transport.server.traffic.messages_sent
            space[:] = bytes(len(space))
            await w.peer.call(READ_CHUNKS, read_request(*lengths), into=into, timeout=TIMEOUT)
            assert b"".join(into) == data
            posted = {kind: w.fabric.posted[kind] - before[0].get(kind, 0) for kind in (Kind.WRITE, Kind.READ)}
            assert posted == {Kind.WRITE: 1 if layout == "dense" else 256, Kind.READ: 0}
            request = w.transport.client.traffic.messages_sent - sent[0]
            answer = w.transport.server.traffic.messages_sent - sent[1]
            # Descriptors of the request take one more slot or two; the answer is one message.
            assert request <= 3
            assert answer == 1
            # One in 32, the last of the answer, and what tells the sender that its slots are free.
            assert w.fabric.signalled - before[1] <= posted[Kind.WRITE] // SIGNAL_EVERY + 2

    run(main())


def test_payload_moves_by_read_and_write_alone() -> None:
    async def main() -> None:
        storing = Storing(pattern(MIB, 1))
        async with world(storing.service) as w:
            into = memory(MIB)
            for _ in range(5):
                await w.peer.call(READ_CHUNKS, read_request(MIB), into=into, timeout=TIMEOUT)
                await w.peer.call(UPDATE_CHUNKS, update(), send=[storing.data], timeout=TIMEOUT)
            assert into[0] == storing.data == storing.got[-1]
            moved = w.fabric.moved_bytes
            assert moved[Kind.WRITE] == moved[Kind.READ] == 5 * MIB
            assert moved[Kind.SEND] < 4 * KIB
            # A MiB is one work, and one completion tells of it and of the message behind it.
            assert w.fabric.posted[Kind.WRITE] == w.fabric.posted[Kind.READ] == 5

    run(main())


def test_small_frames_of_one_turn_share_messages() -> None:
    async def main() -> None:
        async with world(service()) as w:
            await w.peer.call(PING, Ping(), timeout=TIMEOUT)
            before = w.transport.client.traffic.messages_sent
            calls = [asyncio.ensure_future(w.peer.call(PING, Ping(), timeout=TIMEOUT)) for _ in range(100)]
            await asyncio.gather(*calls)
            # The first goes alone: there is nobody to wait for.
            assert w.transport.client.traffic.messages_sent - before <= 3

    run(main())


# Who is woken


def test_a_server_is_not_woken_for_its_own_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "DRAIN_S", NEVER_S)

    async def main() -> None:
        released = 0

        def release() -> None:
            nonlocal released
            released += 1

        data = pattern(MIB, 2)
        offered = service()
        offered.register(READ_CHUNKS, lambda call: Reply(ReadChunksReply([MIB], []), [data], release))
        async with world(offered) as w:
            into = memory(MIB)
            woken = {"server": 0, "caller": 0}
            for name, link in (("server", w.served), ("caller", w.calling)):
                take = link._completions.take_events

                def count(name: str = name, take: Callable[[], int] = take) -> int:
                    woken[name] += 1
                    return take()

                monkeypatch.setattr(link._completions, "take_events", count)
            for number in range(1, 51):
                await w.peer.call(READ_CHUNKS, read_request(MIB), into=into, timeout=TIMEOUT)
                # What the server has done is complete with the next request.
                assert released >= number - 1
            assert woken == {"server": 50, "caller": 50}

    run(main())


def test_what_was_sent_comes_back_without_another_message() -> None:
    async def main() -> None:
        released = asyncio.Event()
        offered = service()
        offered.register(READ_CHUNKS, lambda call: Reply(ReadChunksReply([4], []), [b"data"], released.set))
        async with world(offered) as w:
            await w.peer.call(READ_CHUNKS, read_request(4), into=memory(4), timeout=TIMEOUT)
            await released.wait()

    run(main())


# Any order of events


@pytest.mark.parametrize("seed", range(24))
def test_calls_of_all_kinds_under_any_order_of_events(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes arrive whole or not at all, and whoever gave up has memory that nobody writes to. Nothing waits for a look
    at what lies there."""
    monkeypatch.setattr(link_module, "DRAIN_S", NEVER_S if seed % 2 else 0.0)

    async def main() -> None:
        fabric = Fabric(DEVICES, seed=seed, late_turns=Random(seed).choice([0, 20]))
        with Mixed(seed, tmp_path) as mixed:
            async with world(mixed.service, fabric, SlabPool(1, 1)) as w:
                await mixed.calls(w.peer, w.reconnect)
                await until(lambda: not w.server._connections)
            mixed.check()

    run(main())


# Whose memory it is


def test_memory_under_a_read_is_kept_until_the_read_is_complete() -> None:
    """The request is refused while its payload is being fetched; the caller hears of it when that is over."""

    async def main() -> None:
        storing = Storing()
        async with world(storing.service) as w:
            w.fabric.held = True
            sent = memoryview(bytearray(b"\x01" * MIB))
            call = asyncio.ensure_future(w.peer.call(UPDATE_CHUNKS, update(), send=[sent], timeout=TIMEOUT))
            while not storing.allocated:
                w.fabric.turn()
                await asyncio.sleep(0)
            sends = w.fabric.posted[Kind.SEND]
            w.connection.yield_memory()
            for _ in range(20):
                await asyncio.sleep(0)
            assert (storing.released, w.fabric.posted[Kind.SEND]) == (0, sends)
            w.fabric.let_go()
            with pytest.raises(EmberError) as caught:
                await call
            assert caught.value.code is Code.BUSY
            assert (storing.released, storing.got) == (1, [])
            sent[:] = bytes(MIB)
            assert await w.peer.call(PING, Ping(b"in step"), timeout=TIMEOUT) == Ping(b"in step")

    run(main())


@pytest.mark.parametrize("way", ["server aborts", "caller gone", "queue pair fails"])
def test_memory_under_a_read_is_given_back_behind_the_end_of_the_queue_pair(way: str) -> None:
    async def main() -> None:
        storing = Storing()
        async with world(storing.service) as w:
            served = w.served
            storing.on_release = lambda: ended.append(served._endpoint.queue_pair.closed)  # type: ignore[attr-defined]
            ended: list[bool] = []
            w.fabric.held = True
            call = asyncio.ensure_future(w.peer.call(UPDATE_CHUNKS, update(), send=[bytes(MIB)], timeout=TIMEOUT))
            while not storing.allocated:
                w.fabric.turn()
                await asyncio.sleep(0)
            match way:
                case "server aborts":
                    w.connection.abort()
                case "caller gone":
                    w.calling.abort(EmberError(Code.PEER_GONE, "killed"))
                case _:
                    served._endpoint.queue_pair.fail()
            w.fabric.let_go()
            with pytest.raises(EmberError) as caught:
                await call
            assert caught.value.code is Code.PEER_GONE
            await until(lambda: storing.released)
            assert ended == [True]
            assert storing.got == []

    run(main())


def test_parts_of_an_answer_are_released_when_they_are_written() -> None:
    async def main() -> None:
        released: list[int] = []
        offered = service()
        data = bytes(100_000)
        offered.register(
            READ_CHUNKS,
            lambda call: Reply(ReadChunksReply([len(data)], []), [data], lambda: released.append(1)),
        )
        async with world(offered) as w:
            w.fabric.held = True
            into = memory(len(data))
            call = asyncio.ensure_future(w.peer.call(READ_CHUNKS, read_request(1), into=into, timeout=TIMEOUT))
            while not w.served.unsent_bytes:
                w.fabric.turn()
                await asyncio.sleep(0)
            for _ in range(20):
                await asyncio.sleep(0)
            assert released == []
            w.fabric.let_go()
            await call
            await until(lambda: released)
            assert released == [1]
            assert w.served.unsent_bytes == 0

    run(main())


def test_parts_of_an_answer_are_released_behind_the_end_of_the_queue_pair() -> None:
    async def main() -> None:
        ended: list[bool] = []
        offered = service()
        data = bytes(100_000)

        def release() -> None:
            ended.append(served._endpoint.queue_pair.closed)  # type: ignore[attr-defined]

        offered.register(READ_CHUNKS, lambda call: Reply(ReadChunksReply([len(data)], []), [data], release))
        async with world(offered) as w:
            served = w.served
            w.fabric.held = True
            into = memory(len(data))
            call = asyncio.ensure_future(w.peer.call(READ_CHUNKS, read_request(1), into=into, timeout=TIMEOUT))
            while not served.unsent_bytes:
                w.fabric.turn()
                await asyncio.sleep(0)
            w.connection.abort()
            assert ended == [True]
            with pytest.raises(EmberError):
                await call

    run(main())


def test_a_request_that_has_not_left_is_withdrawn_and_the_connection_goes_on() -> None:
    async def main() -> None:
        storing = Storing(b"x" * 100)
        async with world(storing.service) as w:
            w.served.pause_reading()
            calls = [asyncio.ensure_future(w.peer.call(PING, Ping(bytes(6000)), timeout=TIMEOUT)) for _ in range(50)]
            call = asyncio.ensure_future(w.peer.call(READ_CHUNKS, read_request(1), into=memory(100), timeout=TIMEOUT))
            await until(lambda: len(w.served._unread) == CREDITS)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            w.served.resume_reading()
            await asyncio.gather(*calls)
            assert storing.service.registrations[READ_CHUNKS.number].calls == 0
            assert not w.peer.closed
            assert await w.peer.call(PING, Ping(b"on"), timeout=TIMEOUT) == Ping(b"on")

    run(main())


def test_an_answer_that_is_here_already_spares_the_connection() -> None:
    async def main() -> None:
        storing = Storing(b"x" * 100)
        async with world(storing.service) as w:
            into = memory(100)
            call = asyncio.ensure_future(w.peer.call(READ_CHUNKS, read_request(1), into=into, timeout=TIMEOUT))
            await until(lambda: w.served.unsent_bytes)
            # The loop has not looked at it.
            asyncio.get_running_loop().remove_reader(w.calling._completions.fileno())
            w.turns()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert not w.peer.closed

    run(main())


def test_a_call_that_ends_early_has_its_memory_at_once() -> None:
    """The server writes its answer later: it finds no queue pair."""

    async def main() -> None:
        opened = asyncio.Event()
        released: list[bool] = []

        async def answer(call: Call) -> Reply:
            await opened.wait()
            return Reply(ReadChunksReply([100], []), [b"\x01" * 100], lambda: released.append(True))

        offered = service()
        offered.register(READ_CHUNKS, answer)
        async with world(offered) as w:
            into = memory(100)
            call = asyncio.ensure_future(w.peer.call(READ_CHUNKS, read_request(1), into=into, timeout=TIMEOUT))
            beside = asyncio.ensure_future(w.peer.call(READ_CHUNKS, read_request(1), timeout=TIMEOUT))
            await until(lambda: w.connection.in_work()[0] == 2)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert w.peer.closed
            assert w.transport.client.context.counts().queue_pairs == 0
            with pytest.raises(EmberError) as caught:
                await beside
            assert caught.value.code is Code.PEER_GONE
            opened.set()
            await until(lambda: not w.server._connections)
            assert released == [True, True]
            assert bytes(into[0]) == bytes(100)

    run(main())


def test_a_call_that_lends_nothing_ends_alone() -> None:
    async def main() -> None:
        gate = Gate()
        async with world(gate.service) as w:
            call = asyncio.ensure_future(w.peer.call(READ_CHUNKS, read_request(1), timeout=TIMEOUT))
            await until(lambda: gate.waiting)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            gate.open.set()
            assert await w.peer.call(PING, Ping(b"on"), timeout=TIMEOUT) == Ping(b"on")

    run(main())


def test_memory_that_cannot_be_registered_fails_its_call_alone() -> None:
    async def main() -> None:
        storing = Storing(b"x" * 100)
        async with world(storing.service) as w:
            w.fabric.refuse("register", errno.ENOMEM)
            with pytest.raises(EmberError) as caught:
                await w.peer.call(READ_CHUNKS, read_request(1), into=memory(100), timeout=TIMEOUT)
            assert caught.value.code is Code.UNREACHABLE
            assert "register" in caught.value.message
            into = memory(100)
            await w.peer.call(READ_CHUNKS, read_request(1), into=into, timeout=TIMEOUT)
            assert into[0] == storing.data

    run(main())


# Flow


def test_who_does_not_read_is_sent_no_more_than_he_has_room_for() -> None:
    async def main() -> None:
        async with world(service()) as w:
            w.served.pause_reading()
            text = bytes(6000)
            calls = [asyncio.ensure_future(w.peer.call(PING, Ping(text), timeout=TIMEOUT)) for _ in range(100)]
            await until(lambda: len(w.served._unread) == CREDITS)
            for _ in range(100):
                await asyncio.sleep(0)
            assert len(w.served._unread) == CREDITS
            assert w.calling.unsent_bytes > 50 * 6000
            w.served.resume_reading()
            await asyncio.gather(*calls)
            assert w.calling.unsent_bytes == 0

    run(main())


def test_who_takes_nothing_for_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with world(service()) as w:
            w.served.pause_reading()
            text = bytes(6000)
            calls = [asyncio.ensure_future(w.peer.call(PING, Ping(text), timeout=TIMEOUT)) for _ in range(100)]
            ended = await asyncio.gather(*calls, return_exceptions=True)
            assert all(isinstance(error, EmberError) and error.code is Code.PEER_GONE for error in ended)
            assert "not taken" in str(ended[0])

    monkeypatch.setattr(link_module, "UNTAKEN_S", 0.05)
    run(main())


def test_answers_wait_for_slabs_in_their_order(tmp_path: Path) -> None:
    async def main() -> None:
        data = pattern(20 * MIB, 4)
        path = tmp_path / "block"
        path.write_bytes(data)
        with path.open("rb") as file:
            offered = replying(FileRange(file.fileno(), 0, 20 * MIB))
            slabs = SlabPool(1, 1)
            async with world(offered, slabs=slabs) as w:
                other = await w.reconnect()
                intos = [memory(20 * MIB) for _ in range(3)]
                await asyncio.gather(
                    *(
                        peer.call(READ_CHUNKS, read_request(1), into=into, timeout=TIMEOUT)
                        for peer, into in zip((w.peer, other, w.peer), intos, strict=True)
                    )
                )
                assert all(into[0] == data for into in intos)
                assert slabs.waiting == 0
                await other.close()

    run(main())


def test_who_wants_a_slab_gets_those_that_have_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their connection is silent, and has not looked since."""
    monkeypatch.setattr(link_module, "DRAIN_S", NEVER_S)

    async def main() -> None:
        path = tmp_path / "block"
        path.write_bytes(pattern(MIB, 9))
        with path.open("rb") as file:
            slabs = SlabPool(1, 1)
            async with world(replying(FileRange(file.fileno(), 0, MIB)), slabs=slabs) as w:
                other = await w.reconnect()
                others = [slabs.take(MIB) for _ in range(BLOCK_BYTES // LARGE_BYTES - 1)]
                await w.peer.call(READ_CHUNKS, read_request(1), into=memory(MIB), timeout=TIMEOUT)
                assert not slabs._large.free
                into = memory(MIB)
                await other.call(READ_CHUNKS, read_request(1), into=into, timeout=TIMEOUT)
                assert into[0] == pattern(MIB, 9)
                await other.close()
                for slab in others:
                    assert slab is not None
                    slab.release()

    run(main())


def test_a_link_that_ends_while_it_waits_for_a_slab_leaves_the_slabs_to_others(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "block"
        path.write_bytes(bytes(64 * MIB))
        with path.open("rb") as file:
            slabs = SlabPool(1, 1)
            async with world(replying(FileRange(file.fileno(), 0, 64 * MIB)), slabs=slabs) as w:
                other = await w.reconnect()
                w.fabric.held = True
                calls = [
                    asyncio.ensure_future(
                        peer.call(READ_CHUNKS, read_request(1), into=memory(64 * MIB), timeout=TIMEOUT)
                    )
                    for peer in (w.peer, other)
                ]
                while not slabs.waiting:
                    w.fabric.turn()
                    await asyncio.sleep(0)
                links = [connection.link for connection in w.server._connections]
                next_one = slabs._large.waiting[0]
                (waits,) = [link for link in links if isinstance(link, RdmaLink) and link._sender._waiting is next_one]
                waits.abort(EmberError(Code.PEER_GONE, "gone"))
                w.fabric.let_go()
                ended = await asyncio.gather(*calls, return_exceptions=True)
                assert {type(one) for one in ended} == {EmberError, ReadChunksReply}
                await other.close()
                await w.peer.close()
                await until(lambda: not w.server._connections)
                assert len(slabs._large.free) == 8

    run(main())


# Ends


def test_an_answer_that_was_sent_before_the_server_ended_is_heard() -> None:
    """The end of the TCP connection and the answer come in one turn of the caller's loop."""

    async def main() -> None:
        storing = Storing(b"x" * 100)
        async with world(storing.service) as w:
            into = memory(100)
            # More messages than are taken in one turn otherwise.
            calls = [asyncio.ensure_future(w.peer.call(PING, Ping(bytes(7000)), timeout=TIMEOUT)) for _ in range(7)]
            calls += [asyncio.ensure_future(w.peer.call(READ_CHUNKS, read_request(1), into=into, timeout=TIMEOUT))]
            await asyncio.sleep(0)
            # Nothing of what comes is seen by the caller's loop before the end of TCP is.
            asyncio.get_running_loop().remove_reader(w.calling._completions.fileno())
            assert w.calling._drain is not None
            w.calling._drain.cancel()
            reads = storing.service.registrations[READ_CHUNKS.number]
            await until(lambda: reads.calls and not w.served.unsent_bytes)
            assert not any(call.done() for call in calls)
            w.calling.on_tcp_end(EmberError(Code.PEER_GONE, "killed"))
            assert (await asyncio.gather(*calls))[-1] == ReadChunksReply([100], [])
            assert into[0] == storing.data
            assert w.peer.closed

    run(main())


@pytest.mark.parametrize("first", ["tcp", "queue pair"])
def test_a_server_that_dies_fails_its_calls_whichever_end_is_heard_first(first: str) -> None:
    async def main() -> None:
        gate = Gate()
        async with world(gate.service) as w:
            calls = [
                asyncio.ensure_future(w.peer.call(READ_CHUNKS, read_request(1), into=memory(10), timeout=TIMEOUT))
                for _ in range(5)
            ]
            await until(lambda: gate.waiting == 5)
            if first == "tcp":
                w.served._tcp._socket.shutdown(2)
            else:
                w.calling._endpoint.queue_pair.fail()
            ended = await asyncio.gather(*calls, return_exceptions=True)
            assert all(isinstance(error, EmberError) and error.code is Code.PEER_GONE for error in ended)
            assert w.transport.client.context.counts().queue_pairs == 0
            gate.open.set()

    run(main())


def test_a_port_that_goes_down_fails_the_calls_of_both_sides() -> None:
    async def main() -> None:
        storing = Storing(bytes(MIB))
        async with world(storing.service) as w:
            w.fabric.port_down("soft0")
            with pytest.raises(EmberError) as caught:
                await w.peer.call(READ_CHUNKS, read_request(1), into=memory(MIB), timeout=TIMEOUT)
            assert caught.value.code is Code.PEER_GONE
            assert "RETRY_EXC_ERR" in caught.value.message
            await until(lambda: not w.server._connections)

    run(main())


def test_a_close_lets_everything_through_that_was_sent_before_it() -> None:
    async def main() -> None:
        storing = Storing(bytes(MIB))
        fabric = Fabric(DEVICES, seed=3, late_turns=30)
        async with world(storing.service, fabric) as w:
            calls = [
                asyncio.ensure_future(w.peer.call(READ_CHUNKS, read_request(1), into=memory(MIB), timeout=TIMEOUT))
                for _ in range(10)
            ]
            await until(lambda: storing.service.registrations[READ_CHUNKS.number].calls == 10)
            await w.server.close()
            for answer in await asyncio.gather(*calls):
                assert answer == ReadChunksReply([MIB], [])

    run(main())


def test_a_frame_over_tcp_ends_a_connection_that_has_moved() -> None:
    async def main() -> None:
        async with world(service()) as w:
            w.calling._tcp.send(b"E" * 32)
            await until(lambda: not w.server._connections)
            await until(lambda: w.peer.closed)

    run(main())


# Setting up


@pytest.mark.parametrize(
    "refused",
    ["client completion_queue", "client queue_pair", "client register", "server", "server connect", "nothing"],
)
def test_a_setup_that_fails_leaves_the_tcp_connection_as_it_was(refused: str) -> None:
    async def main() -> None:
        fabric = Fabric(DEVICES)
        transport = RdmaTransport(fabric.binding)
        offered = service()
        server = await transport.serve(offered, "127.0.0.1", 0)
        if refused == "server":
            offered.registrations.pop(RDMA_CONNECT.number)
        peer = await tcp.connect("127.0.0.1", server.port, hello(transports=["rdma"]), timeout=TIMEOUT)
        side, _, call = refused.partition(" ")
        if call:
            # The client asks first: the server's `connect` is the first of all.
            fabric.refuse(call, errno.ENOMEM)
        if refused == "nothing":
            await setup.upgrade(peer, transport.client.local, TIMEOUT)
            assert isinstance(peer.link, RdmaLink)
        else:
            with pytest.raises(EmberError) as caught:
                await setup.upgrade(peer, transport.client.local, TIMEOUT)
            assert caught.value.code is Code.UNREACHABLE
            assert not isinstance(caught.value, setup.Broken)
            assert isinstance(peer.link, tcp.TcpLink)
        assert await peer.call(PING, Ping(b"on"), timeout=TIMEOUT) == Ping(b"on")
        await peer.close()
        await server.close()
        assert set(transport.held().values()) == {0}
        transport.close()
        assert side

    run(main())


def test_a_way_that_does_not_carry_anything_is_found_before_anybody_relies_on_it() -> None:
    async def main() -> None:
        fabric = Fabric(DEVICES)
        transport = RdmaTransport(fabric.binding)
        server = await transport.serve(service(), "127.0.0.1", 0)
        peer = await tcp.connect("127.0.0.1", server.port, hello(transports=["rdma"]), timeout=TIMEOUT)
        fabric.port_down("soft1")
        with pytest.raises(setup.Broken) as caught:
            await setup.upgrade(peer, transport.client.local, TIMEOUT)
        assert "does not get through" in caught.value.message
        assert peer.closed
        await server.close()
        assert set(transport.held().values()) == {0}
        transport.close()

    run(main())


def test_a_caller_that_never_comes_over_leaves_nothing() -> None:
    """It asked for a queue pair, and went on over TCP."""

    async def main() -> None:
        transport = RdmaTransport(Fabric(DEVICES).binding)
        server = await transport.serve(service(), "127.0.0.1", 0)
        peer = await tcp.connect("127.0.0.1", server.port, hello(transports=["rdma"]), timeout=TIMEOUT)
        half = setup._Half(transport.client.local)
        await peer.call(RDMA_CONNECT, half.end, timeout=TIMEOUT)
        assert transport.server.context.counts().queue_pairs == 1
        # It asks once more: what it was given before is given up.
        await peer.call(RDMA_CONNECT, half.end, timeout=TIMEOUT)
        assert transport.server.context.counts().queue_pairs == 1
        half.close()
        assert await peer.call(PING, Ping(b"on"), timeout=TIMEOUT) == Ping(b"on")
        await peer.close()
        await until(lambda: not server._connections)
        await server.close()
        assert set(transport.held().values()) == {0}
        transport.close()

    run(main())


def test_a_server_lends_its_callers_nothing() -> None:
    """Whatever key a caller guesses: what a server has registered is others' data."""

    async def main() -> None:
        async with world(service()) as w:
            pairs = {pair.context.name: pair for pair in w.fabric.queue_pairs.values()}
            client, server = (pairs[side.context.name] for side in (w.transport.client, w.transport.server))
            assert client.path is not None and server.path is not None
            assert server.path.other_may == Access.NOTHING
            assert client.path.other_may == Access.REMOTE_READ | Access.REMOTE_WRITE

    run(main())
