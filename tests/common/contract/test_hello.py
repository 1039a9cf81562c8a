"""Who is let in, and what services know of their callers."""

import asyncio
from typing import Any

import pytest

from fs_common.errors import Code, EmberError
from fs_common.methods import PING, READ_CHUNKS
from fs_common.records.session import Hello, Ping
from fs_common.records.storage import ReadChunksReply
from fs_common.rpc import Admission, Call, Reply, ServerSession
from fs_common.security.identity import Identity
from tests.common.loopback import (
    TIMEOUT,
    connected,
    hello,
    read_request,
    service,
    serving,
    until,
)
from tests.common.services import CLIENT, Gate
from tests.common.transports import Transport
from tests.support import run

# Hello


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"versions": [2, 3]}, Code.VERSION_MISMATCH, "speaks protocol 1"),
        ({"versions": []}, Code.VERSION_MISMATCH, "upgrade the older side"),
        ({"cluster": "elsewhere"}, Code.WRONG_CLUSTER, "belongs to cluster 'test-cluster'"),
        ({"token": "wrong"}, Code.ACCESS_DENIED, "token"),
    ],
)
def test_strangers_are_turned_away(transport: Transport, changes: dict[str, Any], code: Code, words: str) -> None:
    async def main() -> None:
        def admit(hello: Hello) -> None:
            if hello.token:
                raise EmberError(Code.ACCESS_DENIED, "the token is not known")

        offered = service()
        offered.admit = admit
        async with serving(offered, transport) as server:
            with pytest.raises(EmberError, match=words) as caught:
                await transport.connect("127.0.0.1", server.port, hello(**changes), timeout=TIMEOUT)
            assert caught.value.code is code
            peer = await transport.connect("127.0.0.1", server.port, hello(cluster=""), timeout=TIMEOUT)
            await peer.close()

    run(main())


def test_a_caller_is_who_the_service_says_and_calls_what_it_may(transport: Transport) -> None:
    async def main() -> None:
        sessions: list[ServerSession] = []
        identity = Identity("client", CLIENT, "ada")

        def authenticate(hello: Hello) -> Admission:
            if hello.token != "good":
                raise EmberError(Code.UNAUTHENTICATED, "nobody knows this token")
            return Admission(identity, frozenset({PING.number}), b"a pass")

        def answer(call: Call) -> Reply:
            sessions.append(call.session)
            return Reply(ReadChunksReply([], []))

        offered = service()
        offered.authenticate = authenticate
        offered.register(READ_CHUNKS, answer)
        async with serving(offered, transport) as server:
            with pytest.raises(EmberError, match="nobody knows") as caught:
                await transport.connect("127.0.0.1", server.port, hello(), timeout=TIMEOUT)
            assert caught.value.code is Code.UNAUTHENTICATED and not offered.sessions
            peer = await transport.connect("127.0.0.1", server.port, hello(token="good"), timeout=TIMEOUT)
            assert peer.welcome.given_pass == b"a pass"
            assert [session.identity for session in offered.sessions] == [identity]
            for send in ((), [b"payload"]):
                with pytest.raises(EmberError, match=r"'ada'.* may not call read_chunks") as caught:
                    await peer.call(READ_CHUNKS, read_request(1), send=send, timeout=TIMEOUT)
                assert caught.value.code is Code.ACCESS_DENIED
            assert await peer.call(PING, Ping(b"still"), timeout=TIMEOUT) == Ping(b"still")
            assert not sessions
            await peer.close()
            await until(lambda: not offered.sessions)

    run(main())


def test_the_service_ends_a_session_with_its_calls(transport: Transport) -> None:
    async def main() -> None:
        cancelled: list[bool] = []
        offered = service()

        async def answer(call: Call) -> Reply:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(True)
                raise
            raise AssertionError

        offered.register(READ_CHUNKS, answer)
        async with connected(offered, transport) as peer:
            call = asyncio.ensure_future(peer.call(READ_CHUNKS, read_request(1), timeout=TIMEOUT))
            await until(lambda: offered.registrations[READ_CHUNKS.number].calls)
            (session,) = offered.sessions
            session.end(EmberError(Code.UNAUTHENTICATED, "the token was revoked"))
            with pytest.raises(EmberError) as caught:
                await call
            assert caught.value.code is Code.PEER_GONE
            assert peer.closed and session.closed and not offered.sessions
            await until(lambda: cancelled)
            session.end(EmberError(Code.UNAUTHENTICATED, "once more"))

    run(main())


def test_nobody_there_is_unreachable(transport: Transport) -> None:
    async def main() -> None:
        async with serving(service(), transport) as server:
            port = server.port
        with pytest.raises(EmberError, match=f"127.0.0.1:{port} cannot be reached") as caught:
            await transport.connect("127.0.0.1", port, hello(), timeout=TIMEOUT)
        assert caught.value.code is Code.UNREACHABLE

    run(main())


def test_the_service_knows_who_calls_and_when_they_leave(transport: Transport) -> None:
    async def main() -> None:
        seen: list[Any] = []
        ended: list[Any] = []
        offered = service()
        offered.session_ended = ended.append

        def answer(call: Call) -> Reply:
            seen.append(call.session)
            return Reply(ReadChunksReply([], []))

        offered.register(READ_CHUNKS, answer)
        async with connected(offered, transport) as peer:
            await peer.call(READ_CHUNKS, read_request(1), timeout=TIMEOUT)
            await peer.call(READ_CHUNKS, read_request(1), timeout=TIMEOUT)
            assert seen[0] is seen[1]
            assert seen[0].hello.client == CLIENT
            assert seen[0].address.startswith("127.0.0.1:")
            assert not seen[0].closed
            await peer.close()
            await until(lambda: ended)
            assert ended == [seen[0]]
            assert seen[0].closed

    run(main())


def test_the_service_knows_of_a_caller_that_left_while_its_call_is_in_work(transport: Transport) -> None:
    async def main() -> None:
        gate = Gate()
        finished: list[Any] = []
        gate.service.session_finished = finished.append
        async with connected(gate.service, transport) as peer:
            task = asyncio.create_task(peer.call(READ_CHUNKS, read_request(1), timeout=TIMEOUT))
            await until(lambda: gate.waiting)
            await peer.close()
            await until(lambda: finished)
            assert [session.hello.client for session in finished] == [CLIENT] and gate.waiting == 1
            gate.open.set()
            with pytest.raises(EmberError):
                await task

    run(main())
