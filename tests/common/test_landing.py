"""Payloads that do not arrive: a serving connection on a link that is driven by hand, and a server with a real one."""

import asyncio
from collections.abc import Callable, Sequence

import msgspec
import pytest

from fs_common import frames
from fs_common.errors import Code, EmberError
from fs_common.methods import HELLO, PING, UPDATE_CHUNKS
from fs_common.records.session import ErrorBody, Ping
from fs_common.records.storage import UpdateChunks, UpdateChunksReply
from fs_common.rpc import Allocation, Call, Reply, Service
from fs_common.serving import STILL_LOOKS_MAX, ServingConnection
from fs_common.transports import tcp
from fs_common.wire import Frame, Outgoing, Part
from tests.common import loopback
from tests.common.loopback import KIB, MIB, TIMEOUT, hello, raw_client, service
from tests.support import run


class HandLink:
    """Frames come when the test says so; what is sent is kept."""

    name = "nowhere:1"
    descriptor = None
    unsent_bytes = 0

    def __init__(self) -> None:
        self.received_bytes = 0
        self.within_frame = False
        self.errors: list[tuple[int, Code]] = []
        """(request, code) of error frames."""
        self.answers: list[int] = []
        self.discarded = 0
        self.keeps = False
        """Somebody else is still writing into the memory of a payload that is thrown away."""
        self.kept: list[Callable[[], None]] = []
        self.paused = False
        self.lost: EmberError | None = None
        self.receiver: ServingConnection | None = None

    def send(self, frame: bytes, *, into: Sequence[memoryview] = (), urgent: bool = False) -> None:
        header = frames.unpack(frame)
        if header.kind == frames.ERROR:
            body = msgspec.msgpack.decode(frame[frames.HEADER_SIZE :], type=ErrorBody)
            self.errors.append((header.request, serving_code(body.code)))
        else:
            self.answers.append(header.request)

    def send_with_payload(
        self,
        frame: bytes,
        parts: Sequence[Part],
        payload_length: int,
        release: Callable[[], None] | None,
        *,
        into: Sequence[memoryview] = (),
        lengths: Sequence[int] | None = None,
        urgent: bool = False,
    ) -> Outgoing:
        raise AssertionError("no answer of these tests has payload")

    proven = None

    def set_bounds(self, body_bytes_max: int, payload_bytes_max: int) -> None: ...

    def withdraw(self, outgoing: Outgoing) -> None: ...

    def discard_payload(self, release: Callable[[], None] | None = None) -> None:
        self.discarded += 1
        if release is not None:
            self.kept.append(release)
            if not self.keeps:
                self.give_back()

    def give_back(self) -> None:
        while self.kept:
            self.kept.pop()()

    def probe(self) -> None: ...

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def close(self) -> None:
        self.abort(EmberError(Code.PEER_GONE))

    def abort(self, error: EmberError) -> None:
        if self.lost is None:
            self.lost = error
            assert self.receiver is not None
            self.receiver.link_lost(error)

    async def wait_closed(self) -> None: ...


def serving_code(number: int) -> Code:
    return next(code for code in Code if code.value.number == number)


class World:
    """Connections that share one service, which lends `budget` bytes to payloads."""

    def __init__(self, budget: int) -> None:
        self.service: Service = service()
        self.service.register(UPDATE_CHUNKS, lambda call: Reply(UpdateChunksReply([], [], [])), allocate=self._allocate)
        self.free = budget
        self.now = 1000.0

    def _allocate(self, request: UpdateChunks, length: int) -> Allocation:
        if length > self.free:
            raise EmberError(Code.BUSY, "no memory")
        self.free -= length

        def release() -> None:
            self.free += length

        return Allocation([memoryview(bytearray(length))], release)

    def connect(self) -> "Caller":
        return Caller(self)

    def look(self, *callers: "Caller") -> None:
        """A second passes."""
        self.now += 1.0
        for caller in callers:
            caller.connection.look(self.now)


class Caller:
    """One connection, greeted."""

    def __init__(self, world: World) -> None:
        self.link = HandLink()
        loop = asyncio.get_running_loop()
        self.connection = ServingConnection(world.service, self.link, loop, lambda _: None)
        self.link.receiver = self.connection
        self._frame(HELLO.number, 1, hello(), 0, 0)
        assert self.link.answers == [1]
        self.connection.look(world.now)

    def _frame(self, method: int, request: int, body: msgspec.Struct, payload_length: int, deadline_ms: int) -> bool:
        encoded = memoryview(msgspec.msgpack.encode(body))
        frame = Frame(frames.REQUEST, method, request, encoded, payload_length, deadline_ms)
        views = self.connection.frame_begun(frame)
        return views is not None

    def begins(self, request: int, length: int, deadline_ms: int = 0) -> bool:
        """A request's header and body come; whether its payload is wanted."""
        self.link.within_frame = True
        return self._frame(UPDATE_CHUNKS.number, request, UpdateChunks(b"c" * 16, []), length, deadline_ms)

    def sends(self, size: int) -> None:
        self.link.received_bytes += size

    def ends(self) -> None:
        """The last byte of the payload comes."""
        self.link.within_frame = False
        self.connection.payload_done()

    def leaves(self) -> None:
        self.link.abort(EmberError(Code.PEER_GONE))


def test_a_payload_that_has_not_come_by_the_deadline_is_not_waited_for() -> None:
    async def main() -> None:
        world = World(8 * MIB)
        caller = world.connect()
        world.now = asyncio.get_running_loop().time()
        assert caller.begins(2, 8 * MIB, deadline_ms=1500)
        caller.sends(2 * MIB)
        world.look(caller)
        assert (world.free, caller.link.errors) == (0, [])
        caller.sends(2 * MIB)
        world.look(caller)
        assert (world.free, caller.link.errors, caller.link.discarded) == (8 * MIB, [(2, Code.TIMED_OUT)], 1)
        # The rest goes nowhere, and the connection is in step.
        caller.ends()
        assert caller.begins(3, KIB)
        caller.ends()
        assert caller.link.answers == [1, 3]
        caller.leaves()

    run(main())


def test_memory_that_waits_for_slow_payloads_is_there_for_others() -> None:
    """As many as the memory has room for, with no deadline: they stand still, and somebody else writes."""

    async def main() -> None:
        world = World(64 * MIB)
        stalled = [world.connect() for _ in range(4)]
        for caller in stalled:
            assert caller.begins(2, 16 * MIB)
            caller.sends(1)
        writer = world.connect()
        assert not writer.begins(2, MIB)
        assert writer.link.errors == [(2, Code.BUSY)]
        writer.ends()
        world.look(*stalled)
        assert not writer.begins(3, MIB)  # nobody is known to be slow before a whole second has been seen
        writer.ends()
        world.look(*stalled)
        for request in range(4, 20):
            assert writer.begins(request, 16 * MIB)
            writer.ends()
        assert writer.link.answers[1:] == list(range(4, 20))
        # One gave its memory up; the others did not need to.
        assert sorted(caller.link.errors for caller in stalled) == [[], [], [], [(2, Code.BUSY)]]
        for caller in [*stalled, writer]:
            caller.leaves()
        assert world.free == 64 * MIB
        assert not world.service.slow

    run(main())


@pytest.mark.parametrize("why", ["deadline", "others"])
def test_memory_that_is_still_written_to_is_given_back_by_the_link(why: str) -> None:
    """A device may go on writing into it after the request was refused."""

    async def main() -> None:
        world = World(MIB)
        caller = world.connect()
        caller.link.keeps = True
        assert caller.begins(2, MIB, deadline_ms=1 if why == "deadline" else 0)
        if why == "deadline":
            world.now = asyncio.get_running_loop().time() + 1.0
            world.look(caller)
        else:
            caller.connection.yield_memory()
        assert caller.link.errors == [(2, Code.TIMED_OUT if why == "deadline" else Code.BUSY)]
        assert world.free == 0
        caller.link.give_back()
        assert world.free == MIB
        caller.ends()
        caller.leaves()
        assert world.free == MIB

    run(main())


def test_a_payload_that_comes_keeps_its_memory() -> None:
    async def main() -> None:
        world = World(32 * MIB)
        steady, writer = world.connect(), world.connect()
        assert steady.begins(2, 32 * MIB)
        for _ in range(16):
            world.look(steady)
            steady.sends(2 * MIB)
            assert not writer.begins(2, MIB)
            writer.ends()
        world.look(steady)
        steady.ends()
        assert (steady.link.answers, steady.link.errors) == ([1, 2], [])
        steady.leaves()
        writer.leaves()

    run(main())


@pytest.mark.parametrize("what", ["body", "payload", "payload nobody wants"])
def test_a_connection_that_stands_still_within_a_frame_ends(what: str) -> None:
    async def main() -> None:
        world = World(MIB)
        caller = world.connect()
        match what:
            case "body":
                caller.link.within_frame = True
            case "payload":
                assert caller.begins(2, MIB)
            case _:
                assert not caller.begins(2, 2 * MIB)
        caller.sends(KIB)
        for _ in range(STILL_LOOKS_MAX - 1):
            world.look(caller)
        caller.sends(100 * KIB)
        for _ in range(STILL_LOOKS_MAX):
            world.look(caller)
            assert caller.link.lost is None
            caller.sends(100)  # one who sends next to nothing stands still
        world.look(caller)
        assert caller.link.lost is not None
        assert world.free == MIB

    run(main())


@pytest.mark.parametrize("why", ["idle", "not read"])
def test_a_connection_may_be_silent_between_frames_and_when_it_is_not_read(why: str) -> None:
    async def main() -> None:
        world = World(MIB)
        world.service.calls_in_flight_max = 1
        caller = world.connect()
        gate = asyncio.get_running_loop().create_future()

        async def wait(call: Call) -> Reply:
            await gate
            return Reply(UpdateChunksReply([], [], []))

        if why == "not read":
            world.service.registrations[UPDATE_CHUNKS.number].handler = wait
            assert caller.begins(2, KIB)
            caller.ends()
            assert caller.link.paused
            caller.link.within_frame = True
        for _ in range(3 * STILL_LOOKS_MAX):
            world.look(caller)
        assert caller.link.lost is None
        gate.set_result(None)
        await loopback.until(lambda: not caller.link.paused)
        caller.leaves()

    run(main())


def test_a_server_looks_at_its_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of a refused payload is thrown away, and the connection goes on."""
    monkeypatch.setattr(tcp, "LOOK_S", 0.01)

    async def main() -> None:
        released = asyncio.Event()
        offered = service()
        offered.register(
            UPDATE_CHUNKS,
            lambda call: Reply(UpdateChunksReply([], [], [])),
            allocate=lambda _, length: Allocation([memoryview(bytearray(length))], released.set),
        )
        async with loopback.serving(offered) as server, raw_client(server.port) as client:
            await client.greet()
            body = UpdateChunks(b"c" * 16, [])
            client.request(UPDATE_CHUNKS, 2, body, payload=b"x", payload_length=4 * MIB, deadline_ms=1)
            answer = await client.read()
            assert (answer.header.request, answer.error.code) == (2, Code.TIMED_OUT.value.number)
            await asyncio.wait_for(released.wait(), TIMEOUT)
            client.writer.write(bytes(4 * MIB - 1))
            client.request(PING, 3, Ping(b"in step"))
            assert (await client.read()).header.request == 3
            # This one is cut off: nothing comes for ten looks.
            client.request(UPDATE_CHUNKS, 4, body, payload=b"x", payload_length=4 * MIB)
            assert await client.at_end()

    run(main())
