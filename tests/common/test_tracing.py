"""Trace ids: an operation's calls have its id, and what servers do because of them; nothing else has."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest

from fs_client.meta_client import MetaClient
from fs_client.options import Address
from fs_common import tracing
from fs_common.endless import keep
from fs_common.errors import Code, EmberError
from fs_common.methods import AT_VERSION, COMMITTED_VERSIONS
from fs_common.peers import PeerPool
from fs_common.records.resync import AtVersion
from fs_common.records.session import Empty, Hello
from fs_common.records.storage import CommittedVersions, CommittedVersionsReply
from fs_common.rpc import Call, Peer, Reply, Service
from fs_common.transports import tcp
from tests.support import run

HELLO = Hello([1], "client", bytes(16))
S = 30.0


@asynccontextmanager
async def serving(prepare: Callable[[Service], None]) -> AsyncIterator[Peer]:
    """A server, and a connection to it."""
    service = Service("storage", "", 1)
    prepare(service)
    server = await tcp.serve(service, "127.0.0.1", 0)
    peer = await tcp.connect(server.host, server.port, HELLO, timeout=S)
    try:
        yield peer
    finally:
        await peer.close()
        await server.close(grace_s=S)


def test_an_operation_has_one_id_and_its_own() -> None:
    assert tracing.current() == 0
    assert tracing.begin()
    first = tracing.current()
    assert first and not tracing.begin() and tracing.current() == first
    tracing.end()
    assert tracing.current() == 0
    assert tracing.begin() and tracing.current() != first
    tracing.end()
    assert tracing.shown(0xABC) == "00000abc"
    assert len({tracing.numbered(number) for number in range(0, 2000, 2)}) == 1000


def test_calls_carry_the_operations_id_through_servers_that_suspend() -> None:
    seen: list[tuple[str, int, int]] = []

    async def scenario() -> None:
        def tail(call: Call) -> Reply:
            seen.append(("tail", call.trace, tracing.current()))
            return Reply(CommittedVersionsReply([], []))

        async with serving(lambda service: service.register(COMMITTED_VERSIONS, tail)) as to_tail:

            async def head(call: Call) -> Reply:
                seen.append(("head", call.trace, tracing.current()))
                await asyncio.sleep(0)

                async def ask() -> None:
                    await to_tail.call(COMMITTED_VERSIONS, CommittedVersions(1, 1, []), timeout=S)

                await asyncio.gather(ask(), ask())
                seen.append(("head", call.trace, tracing.current()))
                return Reply(Empty())

            async with serving(lambda service: service.register(AT_VERSION, head)) as to_head:
                for trace in (7, 0, 0xFFFFFFFF):
                    tracing.enter(trace)
                    await to_head.call(AT_VERSION, AtVersion(1, 1), timeout=S)
                    tracing.enter(0)
                    assert seen == [(who, trace, trace) for who in ("head", "tail", "tail", "head")]
                    seen.clear()

    run(scenario())


def test_a_server_of_an_earlier_release_is_sent_none() -> None:
    seen: list[int] = []

    async def scenario() -> None:
        def answer(call: Call) -> Reply:
            seen.append(call.trace)
            return Reply(Empty())

        async with serving(lambda service: service.register(AT_VERSION, answer)) as peer:
            peer.welcome = msgspec.structs.replace(peer.welcome, traces=False)
            tracing.enter(5)
            await peer.call(AT_VERSION, AtVersion(1, 1), timeout=S)

    run(scenario())
    assert seen == [0]


def test_a_failed_request_leaves_no_id_behind() -> None:
    seen: list[int] = []

    async def scenario() -> None:
        def fail(call: Call) -> Reply:
            if call.trace:
                raise RuntimeError("a defect")
            seen.append(tracing.current())
            return Reply(Empty())

        async with serving(lambda service: service.register(AT_VERSION, fail)) as peer:
            tracing.enter(5)
            with pytest.raises(EmberError, match="RuntimeError"):
                await peer.call(AT_VERSION, AtVersion(1, 1), timeout=S)
            tracing.enter(0)
            await peer.call(AT_VERSION, AtVersion(1, 1), timeout=S)

    run(scenario())
    assert seen == [0]


def test_tasks_that_outlive_an_operation_have_no_id() -> None:
    seen: list[int] = []

    async def look() -> None:
        seen.append(tracing.current())

    async def scenario() -> None:
        tracing.enter(9)
        await keep(look, "look", end_on=())
        await asyncio.get_running_loop().create_task(look(), context=tracing.new_operation())
        await asyncio.create_task(look())

    run(scenario())
    assert seen[0] == 0 and seen[1] not in (0, 9) and seen[2] == 9


def test_all_tries_of_a_call_have_the_same_id_and_other_calls_have_others() -> None:
    seen: list[int] = []

    async def scenario() -> None:
        def answer(call: Call) -> Reply:
            seen.append(call.trace)
            if len(seen) < 3:
                raise EmberError(Code.BUSY, "later")
            return Reply(Empty())

        service = Service("meta", "", 0)
        service.register(AT_VERSION, answer)
        server = await tcp.serve(service, "127.0.0.1", 0)
        pool = PeerPool(HELLO)
        try:
            client = MetaClient([Address(server.host, server.port)], pool, S)
            await client.call(AT_VERSION, AtVersion(1, 1))
            await client.call(AT_VERSION, AtVersion(1, 1))
            tracing.enter(77)
            await client.call(AT_VERSION, AtVersion(1, 1))
        finally:
            await pool.close()
            await server.close()

    run(scenario())
    assert len(set(seen[:3])) == 1 and seen[0] and seen[3] not in (0, seen[0]) and seen[4] == 77
