"""Callers that do as they like with a queue pair: a server bears it, keeps nothing of theirs, and serves the others."""

import asyncio
import contextlib
import errno
import struct
from collections.abc import AsyncIterator, Sequence
from random import Random

import msgspec
import pytest

from fs_common import frames
from fs_common import serving as serving_module
from fs_common.errors import Code, EmberError
from fs_common.limits import MIB
from fs_common.methods import PING, RDMA_CONNECT, RDMA_READY, READ_CHUNKS, UPDATE_CHUNKS, Method
from fs_common.records.session import Empty, Ping
from fs_common.records.storage import ReadChunksReply, UpdateChunks, UpdateChunksReply
from fs_common.rpc import Allocation, Call, Peer, Reply, Service
from fs_common.transports import tcp
from fs_common.transports.rdma import setup
from fs_common.transports.rdma.endpoint import Endpoint
from fs_common.transports.rdma.link import RdmaLink
from fs_common.transports.rdma.stream import CREDITS, RECEIVE_SLOTS, pack_envelope
from fs_common.transports.rdma.verbs import Access, Kind, VerbsError, Work
from tests.common.loopback import TIMEOUT, hello, memory, pattern, read_request, service, until
from tests.rdma.soft_queue_pairs import SoftQueuePair
from tests.rdma.soft_verbs import Fabric, SoftRegion
from tests.rdma.transport import RdmaTransport
from tests.support import run

DEVICES = {"soft0": "10.77.0.1", "soft1": "10.77.0.2"}
CLIENT = b"c" * 16


class Hostile:
    """The client's end of a connection, and of a queue pair that the server has made for it."""

    def __init__(self, peer: Peer, endpoint: Endpoint) -> None:
        self.peer = peer
        self.endpoint = endpoint
        self.sequence = 0

    def send(self, content: bytes, *, sequence: int | None = None, credits: int = 0, flags: int | None = None) -> None:
        """A message as it should be, but for what is given."""
        if flags is None:
            flags = 1 if content else 0
        self.raw(struct.pack("<IHBB", self.sequence if sequence is None else sequence, credits, flags, 0) + content)

    def raw(self, message: bytes) -> None:
        slots = self.endpoint.slots
        index = RECEIVE_SLOTS + self.sequence % 18
        self.sequence += 1
        slots.views[index][: len(message)] = message
        work = Work(
            Kind.SEND,
            2 * self.sequence,
            slots.addresses[index],
            len(message),
            slots.lkey,
            signalled=True,
            solicited=True,
        )
        self.endpoint.queue_pair.post([work])

    def close(self) -> None:
        self.endpoint.close()


def request(
    method: Method,
    number: int,
    body: msgspec.Struct,
    payload_length: int = 0,
    sends: Sequence[tuple[int, int, int]] = (),
    intos: Sequence[tuple[int, int, int]] = (),
) -> bytes:
    packed = msgspec.msgpack.encode(body)
    frame = frames.pack(frames.REQUEST, method.number, number, len(packed), payload_length, 0) + packed
    return pack_envelope(frame, sends, intos)


READY = request(RDMA_READY, 1000, Empty())


class Serving:
    def __init__(self) -> None:
        self.service = service()
        self.service.register(UPDATE_CHUNKS, self._update, allocate=self._allocate)
        self.held = 0
        """Allocations that are not given back."""
        self.views: list[memoryview] = []

    def _allocate(self, request: UpdateChunks, length: int) -> Allocation:
        self.held += 1
        view = memoryview(bytearray(length))
        self.views.append(view)

        def release() -> None:
            self.held -= 1

        return Allocation([view], release)

    def _update(self, call: Call) -> Reply:
        return Reply(UpdateChunksReply([], []))


class World:
    def __init__(self, fabric: Fabric, transport: RdmaTransport, server: tcp.Server, good: Peer) -> None:
        self.fabric = fabric
        self.transport = transport
        self.server = server
        self.good = good

    async def greeted(self) -> Peer:
        return await tcp.connect("127.0.0.1", self.server.port, hello(transports=["rdma"]), timeout=TIMEOUT)

    async def hostile(self) -> Hostile:
        peer = await self.greeted()
        half = setup._Half(self.transport.client.local)
        answer = await peer.call(RDMA_CONNECT, half.end, timeout=TIMEOUT)
        return Hostile(peer, half.connect(answer, Access.NOTHING))


@contextlib.asynccontextmanager
async def world(offered: Service, seed: int | None = None) -> AsyncIterator[World]:
    """With a caller that means well, who is served before and after."""
    fabric = Fabric(DEVICES, seed=seed)
    transport = RdmaTransport(fabric.binding)
    server = await transport.serve(offered, "127.0.0.1", 0)
    good = await transport.connect("127.0.0.1", server.port, hello(), timeout=TIMEOUT)
    made = World(fabric, transport, server, good)
    try:
        yield made
        assert await made.good.call(PING, Ping(b"still"), timeout=TIMEOUT) == Ping(b"still")
    finally:
        await made.good.close()
        await server.close()
        transport.server.slabs.close()
        assert set(transport.held().values()) == {0}, transport.held()
        transport.close()
        assert fabric.faults == []


def test_what_completes_with_a_bad_message_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """A READ's completion that is polled behind a message that is none."""
    monkeypatch.setattr(serving_module, "STILL_LOOKS_MAX", 10**9)

    async def main() -> None:
        serving = Serving()
        async with world(serving.service) as w:
            caller = await w.hostile()
            caller.send(READY)
            await until(lambda: w.transport.server.connections == 2 and len(w.server._connections) == 2)
            data = bytearray(b"d" * 100)
            lent = w.transport.client.memory.remote([memoryview(data)], Access.REMOTE_READ)
            # Its own end lets itself be read: it was connected without.
            pair = caller.endpoint.queue_pair
            pair.path = pair.path._replace(other_may=Access.REMOTE_READ)  # type: ignore[attr-defined]
            await until(lambda: caller.endpoint.completions.poll(1))
            w.fabric.held = True
            piece = (lent.addresses[0], 100, lent.keys[0])
            caller.send(request(UPDATE_CHUNKS, 5, UpdateChunks(CLIENT, []), 100, [piece]))
            w.fabric.settle()
            await until(lambda: serving.held == 1)
            # Both in one poll, the message first.
            fetching = next(pair for pair in w.fabric.queue_pairs.values() if pair._issue)
            w.fabric.sleep(fetching)
            caller.send(b"", sequence=77)
            w.fabric.settle()
            w.fabric.wake(fetching)
            w.fabric.settle()
            w.fabric.let_go()
            await until(lambda: len(w.server._connections) == 1)
            assert serving.held == 0
            lent.use.release()
            caller.close()
            await caller.peer.close()

    run(main())


def test_a_connection_that_is_ended_by_a_completion_looks_at_no_other(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        links: list[RdmaLink] = []

        def over() -> None:
            links[0].abort(EmberError(Code.PEER_GONE, "ended by who gives memory back"))

        offered = service()
        offered.register(READ_CHUNKS, lambda call: Reply(ReadChunksReply([100], []), [b"x" * 100], over))
        async with world(offered) as w:
            (connection,) = w.server._connections
            links.append(connection.link)  # type: ignore[arg-type]
            answering = links[0]._queue_pair
            assert isinstance(answering, SoftQueuePair)
            w.fabric.held = True
            calls = []
            for _ in range(3):
                reading = w.good.call(READ_CHUNKS, read_request(100), into=memory(100), timeout=TIMEOUT)
                calls.append(asyncio.ensure_future(reading))
                unsent = links[0].unsent_bytes
                while links[0].unsent_bytes == unsent:
                    await asyncio.sleep(0)
                    w.fabric.sleep(answering)
                    w.fabric.settle()
            # Their completions come together.
            w.fabric.wake(answering)
            w.fabric.settle()
            w.fabric.let_go()
            await asyncio.gather(*calls, return_exceptions=True)
            await until(lambda: not w.server._connections)
            w.good = await w.transport.connect("127.0.0.1", w.server.port, hello(), timeout=TIMEOUT)

    run(main())
    assert "defect" not in caplog.text


def test_a_connection_moves_between_frames_alone() -> None:
    """Bytes over TCP would go on to land in memory that calls over the queue pair do not know of."""

    async def main() -> None:
        serving = Serving()
        async with world(serving.service) as w:
            caller = await w.hostile()
            packed = msgspec.msgpack.encode(UpdateChunks(CLIENT, []))
            frame = frames.pack(frames.REQUEST, UPDATE_CHUNKS.number, 5, len(packed), MIB, 0) + packed
            tcp_link = caller.peer.link
            tcp_link.send(frame + b"p" * 1000)
            await until(lambda: serving.held == 1)
            caller.send(READY)
            await until(lambda: w.transport.server.connections == 1)
            assert sum(connection.link.transport == "tcp" for connection in w.server._connections) == 1
            # It arrives, and is answered, where it began.
            tcp_link.send(b"p" * (MIB - 1000))
            await until(lambda: serving.held == 0)
            caller.close()
            await caller.peer.close()

    run(main())


def test_a_connection_that_ends_with_the_answer_to_its_setup_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with world(service()) as w:
            peer = await w.greeted()
            real = peer.call

            async def call(method: Method, *args: object, **more: object) -> object:
                answer = await real(method, *args, **more)  # type: ignore[arg-type]
                if method is RDMA_CONNECT:
                    peer.link.abort(EmberError(Code.PEER_GONE, "reset"))
                return answer

            monkeypatch.setattr(peer, "call", call)
            lost: list[EmberError] = []
            real_lost = peer.link_lost
            monkeypatch.setattr(peer, "link_lost", lambda error: (lost.append(error), real_lost(error)))
            with pytest.raises(setup.Broken):
                await setup.upgrade(peer, w.transport.client.local, TIMEOUT)
            assert len(lost) == 1, "told once"

    run(main())


def test_a_device_that_frees_nothing_any_more_does_not_keep_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its adapter was pulled out: to destroy a queue pair fails, and so does all else."""
    real_region = SoftRegion.close

    def fail() -> None:
        raise VerbsError("closing failed: no such device", errno.ENODEV)

    async def main() -> None:
        async with world(service()) as w:
            peer = await w.transport.connect("127.0.0.1", w.server.port, hello(), timeout=TIMEOUT)
            link = peer.link
            assert isinstance(link, RdmaLink)
            pair = link._endpoint.queue_pair
            real = pair.close

            def close() -> None:
                real()
                fail()

            monkeypatch.setattr(pair, "close", close)
            monkeypatch.setattr(SoftRegion, "close", lambda region: (real_region(region), fail()))
            call = asyncio.ensure_future(peer.call(PING, Ping(b"lost"), timeout=TIMEOUT))
            await asyncio.sleep(0)
            await peer.close()
            with pytest.raises(EmberError) as caught:
                await call
            assert caught.value.code is Code.PEER_GONE

    run(main())


def test_who_asks_for_queue_pairs_and_uses_none_has_one_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with world(service()) as w:
            monkeypatch.setattr(setup, "WAITING_S", 0.05)
            peer = await w.greeted()
            half = setup._Half(w.transport.client.local)
            for _ in range(setup.SETUPS_MAX):
                await peer.call(RDMA_CONNECT, half.end, timeout=TIMEOUT)
                assert w.transport.server.context.counts().queue_pairs <= 2
            with pytest.raises(EmberError) as caught:
                await peer.call(RDMA_CONNECT, half.end, timeout=TIMEOUT)
            assert caught.value.code is Code.INVALID
            await until(lambda: w.transport.server.context.counts().queue_pairs == 1)
            assert await peer.call(PING, Ping(b"on"), timeout=TIMEOUT) == Ping(b"on")
            half.close()
            await peer.close()

    run(main())


def test_a_queue_pair_that_was_given_up_does_not_move_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with world(service()) as w:
            monkeypatch.setattr(setup, "WAITING_S", 0.01)
            peer = await w.greeted()
            real = peer.call

            async def call(method: Method, *args: object, **more: object) -> object:
                answer = await real(method, *args, **more)  # type: ignore[arg-type]
                if method is RDMA_CONNECT:
                    await until(lambda: w.transport.server.connections == 1)
                return answer

            monkeypatch.setattr(peer, "call", call)
            with pytest.raises(setup.Broken) as caught:
                await setup.upgrade(peer, w.transport.client.local, TIMEOUT)
            assert "does not get through" in caught.value.message

    run(main())


@pytest.mark.parametrize(
    "absurd",
    [
        {"number": -1},
        {"number": 1 << 24},
        {"psn": 2**64 - 1},
        {"mtu_bytes": 0},
        {"mtu_bytes": 4095},
        {"mtu_bytes": 1 << 40},
        {"lid": -1},
        {"lid": 1 << 16},
        {"gid": b""},
        {"gid": b"x" * 100_000},
        {"kind": "nan"},
        {"kind": "x" * 100_000},
        {"slots": 2**63},
        {"slot_bytes": 0},
        {"format": 1},
        {"reads_max": -(2**63)},
        {"reads_max": 2**64 - 1},
        {"device": "d" * 100_000},
        {"device": "soft0\n2026-01-01 ERROR everything is lost"},
    ],
    ids=lambda absurd: str(absurd)[:40],
)
def test_an_end_that_no_queue_pair_has_is_refused_in_one_line(absurd: dict[str, object]) -> None:
    async def main() -> None:
        async with world(service()) as w:
            peer = await w.greeted()
            half = setup._Half(w.transport.client.local)
            said = msgspec.structs.replace(half.end, **absurd)
            if "reads_max" in absurd:
                await peer.call(RDMA_CONNECT, said, timeout=TIMEOUT)
            else:
                with pytest.raises(EmberError) as caught:
                    await peer.call(RDMA_CONNECT, said, timeout=TIMEOUT)
                assert caught.value.code is Code.UNREACHABLE
                assert "\n" not in caught.value.message
                assert len(caught.value.message) < 500
                assert w.transport.server.connections == 1
            half.close()
            await peer.close()

    run(main())


@pytest.mark.parametrize("seed", range(12))
def test_any_messages_leave_nothing_and_hurt_nobody_else(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    random = Random(seed)

    def number() -> int:
        return random.choice([0, 1, 2**31, 2**32 - 1, random.randrange(2**32)])

    def pieces(length: int) -> list[tuple[int, int, int]]:
        address = random.choice([0, 1, 2**63, 2**64 - 2**33, random.randrange(2**62)])
        if random.random() < 0.5:
            return [(address, length, number())]
        first = random.randrange(length + 1)
        return [(address, first, number()), (address, length - first, number()), (address, 0, number())]

    def message(caller: Hostile) -> None:
        kind = random.randrange(9)
        if kind == 0:
            caller.raw(random.randbytes(random.choice([1, 7, 8, 9, 100, 8192])))
        elif kind == 1:
            caller.send(random.randbytes(random.randrange(1, 8184)))
        elif kind == 2:
            caller.send(b"", credits=random.choice([0, 1, CREDITS, 65535]))
        elif kind == 3:
            caller.send(b"", flags=random.choice([1, 2, 4, 255]))
        elif kind == 4:
            length = random.choice([1, 100, MIB])
            claimed = random.choice([length, length, length + 1])
            caller.send(request(UPDATE_CHUNKS, number() or 1, UpdateChunks(CLIENT, []), claimed, pieces(length)))
        elif kind == 5:
            asked = random.choice([0, 100, 101])
            caller.send(request(READ_CHUNKS, number() or 1, read_request(1), 0, (), pieces(asked)))
        elif kind == 6:
            answer = frames.pack(random.choice([frames.RESPONSE, frames.ERROR, frames.GOODBYE, 9]), 1, 1, 0, 0)
            caller.send(pack_envelope(answer))
        elif kind == 7:
            # The same number again and again, with places for its answers.
            many = request(READ_CHUNKS, 7, read_request(1), 0, (), pieces(100))
            caller.send(many * 10)
        else:
            caller.send(request(PING, number() or 1, Ping(b"x" * random.randrange(4000))))

    async def main() -> None:
        serving = Serving()
        serving.service.register(READ_CHUNKS, lambda call: Reply(ReadChunksReply([100], []), [pattern(100)]))
        async with world(serving.service, seed) as w:
            for _ in range(8):
                caller = await w.hostile()
                if random.random() < 0.9:
                    caller.send(READY)
                for _ in range(random.randrange(1, 12)):
                    with contextlib.suppress(VerbsError):
                        message(caller)
                    if random.random() < 0.3:
                        await asyncio.sleep(0)
                into = memory(100)
                await w.good.call(READ_CHUNKS, read_request(1), into=into, timeout=TIMEOUT)
                assert into[0] == pattern(100)
                if random.random() < 0.5:
                    caller.close()
                    await caller.peer.close()
                else:
                    await caller.peer.close()
                    await until(lambda: len(w.server._connections) == 1)
                    caller.close()
            await until(lambda: len(w.server._connections) == 1)
            assert serving.held == 0

    run(main())
    assert "defect" not in caplog.text
