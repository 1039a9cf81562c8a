"""One connection for each address, made when needed."""

import asyncio
import os
import socket

import pytest

from fs_common.errors import Code, EmberError, Retry
from fs_common.methods import PING, READ_CHUNKS
from fs_common.peers import PeerPool
from fs_common.records.session import Ping
from fs_common.records.storage import ReadChunksReply
from fs_common.rpc import Call, Reply, Service, Ticket
from fs_common.transports import tcp
from tests.common.loopback import TIMEOUT, hello, read_request, service, serving, until
from tests.support import run


def counting(sessions: set[int]) -> Service:
    """Notes which connections its calls come by."""
    offered = service()

    async def answer(call: Call) -> Reply:
        sessions.add(id(call.session))
        await asyncio.sleep(0)
        return Reply(ReadChunksReply([], []))

    offered.register(READ_CHUNKS, answer)
    return offered


def test_concurrent_first_calls_share_one_connection() -> None:
    async def main() -> None:
        sessions: set[int] = set()
        async with serving(counting(sessions)) as server:
            pool = PeerPool(hello())
            address = ("127.0.0.1", server.port)
            calls = [pool.call(address, READ_CHUNKS, read_request(1), timeout=TIMEOUT) for _ in range(20)]
            await asyncio.gather(*calls)
            assert len(sessions) == 1
            assert len(pool.descriptors()) == 1
            await pool.close()
            assert pool.descriptors() == []

    run(main())


def test_a_lost_connection_is_made_anew() -> None:
    async def main() -> None:
        pool = PeerPool(hello())
        async with serving(service()) as server:
            address = ("127.0.0.1", server.port)
            first = await pool.peer(address)
            await server.close(grace_s=0)
        with pytest.raises(EmberError, match=f"127.0.0.1:{address[1]}") as caught:
            await until_refused(pool, address)
        assert caught.value.code is Code.UNREACHABLE
        server = await tcp.serve(service(), *address)
        assert await pool.call(address, PING, Ping(b"back"), timeout=TIMEOUT) == Ping(b"back")
        assert await pool.peer(address) is not first
        await pool.close()
        await server.close()

    run(main())


def test_whoever_waits_for_a_server_that_is_gone_hears_so() -> None:
    async def main() -> None:
        offered = service()
        silent = asyncio.Event()
        called = asyncio.Event()

        async def never(call: Call) -> Reply:
            called.set()
            await silent.wait()
            return Reply(ReadChunksReply([], []))

        offered.register(READ_CHUNKS, never)
        async with serving(offered) as server:
            pool = PeerPool(hello())
            address = ("127.0.0.1", server.port)
            waiting = asyncio.create_task(pool.call(address, READ_CHUNKS, read_request(1), timeout=TIMEOUT))
            await called.wait()
            await pool.end(address)
            with pytest.raises(EmberError) as caught:
                await waiting
            assert caught.value.code is Code.PEER_GONE and caught.value.retry is Retry.MAYBE_APPLIED
            assert await pool.call(address, PING, Ping(b"again"), timeout=TIMEOUT) == Ping(b"again")
            await pool.end(("127.0.0.1", 1))
            silent.set()
            await pool.close()

    run(main())


async def until_refused(pool: PeerPool, address: tuple[str, int]) -> None:
    """The old connection may need a turn of the loop to notice its end."""
    for _ in range(100):
        try:
            await pool.call(address, PING, Ping(), timeout=TIMEOUT)
        except EmberError as error:
            if error.code is not Code.PEER_GONE:
                raise


def test_after_goodbye_new_calls_go_to_a_new_connection_and_old_ones_finish() -> None:
    async def main() -> None:
        started, finish = asyncio.Event(), asyncio.Event()

        async def answer(call: Call) -> Reply:
            started.set()
            await finish.wait()
            return Reply(ReadChunksReply([1], []))

        leaving = service()
        leaving.register(READ_CHUNKS, answer)
        pool = PeerPool(hello())
        server = await tcp.serve(leaving, "127.0.0.1", 0)
        address = ("127.0.0.1", server.port)
        call = asyncio.ensure_future(pool.call(address, READ_CHUNKS, read_request(1), timeout=TIMEOUT))
        await started.wait()
        old = await pool.peer(address)
        closing = asyncio.ensure_future(server.close(grace_s=TIMEOUT))
        await until(lambda: old.closing)
        successor = await tcp.serve(service(), *address)
        assert await pool.call(address, PING, Ping(b"new"), timeout=TIMEOUT) == Ping(b"new")
        assert not call.done()
        assert len(pool.descriptors()) == 2
        finish.set()
        assert (await call).lengths == [1]
        await closing
        await pool.close()
        await successor.close()

    run(main())


def test_one_caller_that_gives_up_does_not_fail_the_others() -> None:
    async def main() -> None:
        async with serving(service()) as server:
            pool = PeerPool(hello())
            address = ("127.0.0.1", server.port)
            calls = [
                asyncio.ensure_future(pool.call(address, PING, Ping(b"%d" % n), timeout=TIMEOUT)) for n in range(3)
            ]
            await asyncio.sleep(0)
            calls[0].cancel()
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert isinstance(outcomes[0], asyncio.CancelledError)
            assert outcomes[1:] == [Ping(b"1"), Ping(b"2")]
            await pool.close()

    run(main())


def test_a_caller_that_waits_for_a_connection_can_be_abandoned() -> None:
    """The server takes the connection and says nothing."""

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            pool = PeerPool(hello(), connect_timeout_s=TIMEOUT)
            ticket = Ticket()
            call = asyncio.ensure_future(pool.call(silent.getsockname(), PING, Ping(), timeout=TIMEOUT, ticket=ticket))
            await asyncio.sleep(0)
            ticket.abandon(EmberError(Code.TIMED_OUT, "another was faster"))
            with pytest.raises(EmberError, match="another was faster"):
                await call
            assert pool.received(silent.getsockname()) == 0
            await pool.close()

    run(main())


def test_a_failed_connect_fails_all_who_waited_and_is_tried_again() -> None:
    async def main() -> None:
        async with serving(service()) as server:
            address = ("127.0.0.1", server.port)
        pool = PeerPool(hello())
        calls = [pool.call(address, PING, Ping(), timeout=TIMEOUT) for _ in range(3)]
        for outcome in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(outcome, EmberError)
            assert (outcome.code, outcome.retry) == (Code.UNREACHABLE, Retry.SAFE)
            assert f"127.0.0.1:{address[1]}" in str(outcome)
        server = await tcp.serve(service(), *address)
        assert await pool.call(address, PING, Ping(b"now"), timeout=TIMEOUT) == Ping(b"now")
        await pool.close()
        await server.close()

    run(main())


@pytest.mark.parametrize("turns", [0, 1, 2])
def test_closing_while_connecting(turns: int) -> None:
    async def main() -> None:
        async with serving(service()) as server:
            pool = PeerPool(hello())
            call = asyncio.ensure_future(pool.call(("127.0.0.1", server.port), PING, Ping(), timeout=TIMEOUT))
            for _ in range(turns):
                await asyncio.sleep(0)
            await pool.close()
            with pytest.raises(EmberError) as caught:
                await call
            assert caught.value.code is Code.CLOSING
            with pytest.raises(EmberError, match="pool is closed"):
                await pool.peer(("127.0.0.1", server.port))

    run(main())


def test_a_handler_may_call_on_in_its_first_step() -> None:
    """Forwarding runs outside a task until it first waits, and the first wait may be for a connection."""

    async def main() -> None:
        async with serving(service()) as tail:
            pool = PeerPool(hello())

            async def forward(call: Call) -> Reply:
                answer = await pool.call(("127.0.0.1", tail.port), PING, Ping(b"on"), timeout=TIMEOUT)
                return Reply(ReadChunksReply([len(answer.text)], []))

            head_service = service()
            head_service.register(READ_CHUNKS, forward)
            async with serving(head_service) as head:
                client = PeerPool(hello())
                for _ in range(2):
                    reply = await client.call(("127.0.0.1", head.port), READ_CHUNKS, read_request(1), timeout=TIMEOUT)
                    assert reply.lengths == [2]
                await client.close()
            await pool.close()

    run(main())


def test_a_pool_is_of_no_use_after_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with serving(service()) as server:
            pool = PeerPool(hello())
            address = ("127.0.0.1", server.port)
            await pool.call(address, PING, Ping(), timeout=TIMEOUT)
            parent = os.getpid()
            with monkeypatch.context() as patch:
                patch.setattr(os, "getpid", lambda: parent + 1)
                with pytest.raises(EmberError, match="made before fork") as caught:
                    await pool.call(address, PING, Ping(), timeout=TIMEOUT)
            assert caught.value.code is Code.INVALID
            await pool.close()

    run(main())
