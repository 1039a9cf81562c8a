"""The calling side in turns that a real connection rarely takes: a link that does nothing, driven by hand."""

import asyncio
import gc
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import msgspec
import pytest

from fs_common import frames
from fs_common.errors import Code, EmberError
from fs_common.methods import PING, READ_CHUNKS
from fs_common.peers import PeerPool
from fs_common.records.session import Ping
from fs_common.records.storage import ReadChunksReply
from fs_common.rpc import Peer, Ticket
from fs_common.wire import Frame, Outgoing, Part
from tests.common.loopback import TIMEOUT, connected, hello, memory, raw_server, read_request, service, serving, until
from tests.support import run


class IdleLink:
    """Takes frames and keeps them."""

    name = "nowhere:1"
    descriptor = None
    unsent_bytes = 0
    received_bytes = 0
    within_frame = False

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.urgent: list[bool] = []
        self.discarded = 0
        self.on_probe: Callable[[], None] = lambda: None

    def send(self, frame: bytes, *, into: Sequence[memoryview] = (), urgent: bool = False) -> Outgoing | None:
        self.sent.append(frame)
        self.urgent.append(urgent)
        return None

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
        self.sent.append(frame)
        return Outgoing(1, release)

    def set_bounds(self, body_bytes_max: int, payload_bytes_max: int) -> None: ...

    def withdraw(self, outgoing: Outgoing) -> None:
        outgoing.done = True

    def discard_payload(self, release: Callable[[], None] | None = None) -> None:
        self.discarded += 1
        if release is not None:
            release()

    def probe(self) -> None:
        self.on_probe()

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def close(self) -> None: ...

    def abort(self, error: EmberError) -> None: ...

    async def wait_closed(self) -> None: ...


def response(request: int, record: msgspec.Struct, payload_length: int = 0) -> Frame:
    body = memoryview(msgspec.msgpack.encode(record))
    return Frame(frames.RESPONSE, PING.number, request, body, payload_length, 0)


def driven() -> tuple[Peer, IdleLink]:
    link = IdleLink()
    return Peer(link, asyncio.get_running_loop()), link


async def start(call: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    task = asyncio.ensure_future(call)
    await asyncio.sleep(0)
    return task


def end(peer: Peer) -> None:
    peer.link_lost(EmberError(Code.PEER_GONE))


def test_an_answer_that_comes_between_cancellation_and_its_delivery() -> None:
    async def main() -> None:
        peer, _ = driven()
        task = await start(peer.call(PING, Ping(), timeout=TIMEOUT))
        task.cancel()
        assert peer.frame_begun(response(1, Ping())) is None
        with pytest.raises(asyncio.CancelledError):
            await task
        end(peer)

    run(main())


def test_payload_that_begins_between_cancellation_and_its_delivery_goes_nowhere() -> None:
    async def main() -> None:
        peer, link = driven()
        task = await start(peer.call(READ_CHUNKS, read_request(5), into=memory(5), timeout=TIMEOUT))
        task.cancel()
        assert peer.frame_begun(response(1, ReadChunksReply([5], []), 5)) is None
        with pytest.raises(asyncio.CancelledError):
            await task
        peer.payload_done()
        assert link.discarded == 0, "there was nothing to take back"
        end(peer)

    run(main())


def test_payload_that_ends_between_cancellation_and_its_delivery() -> None:
    async def main() -> None:
        peer, _ = driven()
        into = memory(5)
        task = await start(peer.call(READ_CHUNKS, read_request(5), into=into, timeout=TIMEOUT))
        assert peer.frame_begun(response(1, ReadChunksReply([5], []), 5)) == into
        task.cancel()
        peer.payload_done()
        with pytest.raises(asyncio.CancelledError):
            await task
        end(peer)

    run(main())


def test_an_abandoned_call_gives_its_memory_back_while_its_payload_lands() -> None:
    async def main() -> None:
        peer, link = driven()
        into, ticket = memory(5), Ticket()
        task = await start(peer.call(READ_CHUNKS, read_request(5), into=into, timeout=TIMEOUT, ticket=ticket))
        assert peer.frame_begun(response(1, ReadChunksReply([5], []), 5)) == into
        ticket.abandon(EmberError(Code.TIMED_OUT, "another was faster"))
        with pytest.raises(EmberError, match="another was faster"):
            await task
        assert link.discarded == 1
        ticket.abandon(EmberError(Code.TIMED_OUT, "twice"))
        assert await answered(peer, 2) == Ping()
        end(peer)

    async def answered(peer: Peer, request: int) -> Any:
        task = await start(peer.call(PING, Ping(), timeout=TIMEOUT))
        peer.frame_begun(response(request, Ping()))
        return await task

    run(main())


class LendingLink(IdleLink):
    """Lends the memory of calls to the other side, and can take it back only by its own end."""

    def __init__(self) -> None:
        super().__init__()
        self.lent: list[tuple[list[memoryview], Outgoing]] = []
        self.peer: Peer | None = None
        self.withdrawn: list[Outgoing] = []

    def send(self, frame: bytes, *, into: Sequence[memoryview] = (), urgent: bool = False) -> Outgoing | None:
        super().send(frame, urgent=urgent)
        self.lent.append((list(into), Outgoing(0, None)))
        return self.lent[-1][1]

    def withdraw(self, outgoing: Outgoing) -> None:
        self.withdrawn.append(outgoing)
        for _, lent in self.lent:
            lent.done = True
        assert self.peer is not None
        self.peer.link_lost(EmberError(Code.PEER_GONE, "ended to take memory back"))


def test_memory_that_is_lent_is_taken_back_when_a_call_ends_before_its_answer() -> None:
    async def main() -> None:
        link = LendingLink()
        peer = link.peer = Peer(link, asyncio.get_running_loop())
        into = memory(8)
        ended = await start(peer.call(READ_CHUNKS, read_request(8), into=into, timeout=TIMEOUT))
        beside = await start(peer.call(PING, Ping(), timeout=TIMEOUT))
        assert link.lent[0][0][0].obj is into[0].obj
        ended.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ended
        assert link.withdrawn == [link.lent[0][1]]
        with pytest.raises(EmberError) as caught:
            await beside
        assert caught.value.code is Code.PEER_GONE
        assert peer.closed

    run(main())


def test_memory_that_is_lent_comes_back_with_the_answer() -> None:
    async def main() -> None:
        link = LendingLink()
        peer = link.peer = Peer(link, asyncio.get_running_loop())
        call = await start(peer.call(READ_CHUNKS, read_request(8), into=memory(8), timeout=TIMEOUT))
        link.lent[0][1].done = True
        peer.frame_begun(response(1, ReadChunksReply([0], [])))
        assert await call == ReadChunksReply([0], [])
        assert link.withdrawn == []
        end(peer)

    run(main())


def test_a_call_that_waits_for_its_turn_can_be_abandoned() -> None:
    async def main() -> None:
        peer, _ = driven()
        peer.calls_in_flight_max = 1
        tickets = [Ticket() for _ in range(4)]
        calls = [
            await start(peer.call(PING, Ping(b"%d" % number), timeout=TIMEOUT, ticket=ticket))
            for number, ticket in enumerate(tickets)
        ]
        tickets[1].abandon(EmberError(Code.TIMED_OUT, "while it waits"))
        peer.frame_begun(response(1, Ping()))
        await asyncio.sleep(0)
        tickets[2].abandon(EmberError(Code.TIMED_OUT, "when its turn has come"))
        outcomes = await asyncio.gather(*calls[:3], return_exceptions=True)
        assert outcomes[0] == Ping() and [str(outcome)[:10] for outcome in outcomes[1:]] == ["while it w", "when its t"]
        await asyncio.sleep(0)
        peer.frame_begun(response(peer._last_request, Ping(b"last")))
        assert await calls[3] == Ping(b"last")
        assert peer._calls == 0 and not peer._waiting
        end(peer)

    run(main())


@pytest.mark.parametrize("turn_first", [True, False])
def test_a_turn_that_comes_with_a_cancellation_goes_to_the_next(turn_first: bool) -> None:
    async def main() -> None:
        peer, link = driven()
        peer.calls_in_flight_max = 1
        first, second, third = [await start(peer.call(PING, Ping(b"%d" % n), timeout=TIMEOUT)) for n in (1, 2, 3)]
        assert len(link.sent) == 1
        peer.calls_in_flight_max = 2
        if turn_first:
            peer._admit()
            second.cancel()
        else:
            second.cancel()
            peer._admit()
        with pytest.raises(asyncio.CancelledError):
            await second
        await asyncio.sleep(0)
        assert len(link.sent) == 2
        peer.frame_begun(response(2, Ping(b"3")))
        assert (await third).text == b"3"
        fourth, fifth = [await start(peer.call(PING, Ping(b"%d" % n), timeout=TIMEOUT)) for n in (4, 5)]
        assert len(link.sent) == 3, "one turn was free, not more and not fewer"
        end(peer)
        await asyncio.gather(first, fourth, fifth, return_exceptions=True)

    run(main())


@pytest.mark.parametrize("arrived", ["an answer", "an end", "nothing"])
def test_what_has_arrived_is_looked_at_before_a_timeout(arrived: str) -> None:
    """A process that was stopped for longer than the timeout finds the answer and the timer at once."""

    async def main() -> None:
        peer, link = driven()

        def look() -> None:
            if arrived == "an answer":
                peer.frame_begun(response(1, Ping(b"here")))
            elif arrived == "an end":
                end(peer)

        link.on_probe = look
        call = peer.call(PING, Ping(), timeout=-1.0)
        if arrived == "an answer":
            assert (await call).text == b"here"
        else:
            with pytest.raises(EmberError) as caught:
                await call
            assert caught.value.code is (Code.PEER_GONE if arrived == "an end" else Code.TIMED_OUT)
        end(peer)

    run(main())


def test_only_a_call_that_is_alone_is_sent_at_once() -> None:
    """The others of a turn of the loop share system calls."""

    async def main() -> None:
        peer, link = driven()
        calls = [asyncio.ensure_future(peer.call(PING, Ping(), timeout=TIMEOUT)) for _ in range(3)]
        await asyncio.sleep(0)
        assert link.urgent == [True, False, False]
        end(peer)
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(outcome, EmberError) for outcome in outcomes)

    run(main())


def test_request_ids_go_round_and_skip_calls_in_flight() -> None:
    async def main() -> None:
        peer, link = driven()
        first = await start(peer.call(PING, Ping(), timeout=TIMEOUT))
        peer._last_request = frames.REQUEST_ID_MAX - 1
        others = [await start(peer.call(PING, Ping(), timeout=TIMEOUT)) for _ in range(2)]
        assert [frames.unpack(frame).request for frame in link.sent] == [1, frames.REQUEST_ID_MAX, 2]
        end(peer)
        await asyncio.gather(first, *others, return_exceptions=True)

    run(main())


def test_after_goodbye_the_last_answer_ends_the_connection() -> None:
    async def main() -> None:
        async with raw_server() as (peer, server):
            call = asyncio.ensure_future(peer.call(PING, Ping(), timeout=TIMEOUT))
            request = (await server.read()).header.request
            server.write(frames.GOODBYE, 0, 0)
            await until(lambda: peer.closing)
            server.write(frames.RESPONSE, PING.number, request, Ping(b"last"))
            assert (await call).text == b"last"
            assert await server.at_end()

    run(main())


def test_a_link_that_is_over_gives_memory_back_at_once() -> None:
    async def main() -> None:
        async with connected(service()) as peer:
            await peer.close()
            released: list[bool] = []
            link = peer._link
            outgoing = link.send_with_payload(b"frame", [b"payload"], 7, lambda: released.append(True))
            assert released == [True]
            assert outgoing.done
            assert link.unsent_bytes == 0

    run(main())


def test_a_failed_connect_that_nobody_waits_for_any_more_is_no_defect() -> None:
    async def main() -> None:
        defects: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: defects.append(context))
        async with serving(service()) as server:
            address = ("127.0.0.1", server.port)
        pool = PeerPool(hello())
        call = await start(pool.call(address, PING, Ping(), timeout=TIMEOUT))
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await until(lambda: not pool._connecting)
        await asyncio.sleep(0)
        gc.collect()
        assert not defects
        await pool.close()

    run(main())
