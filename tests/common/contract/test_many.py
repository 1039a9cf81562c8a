"""Connections that come and go by the thousand leave nothing behind.

`EMBERFS_TEST_CONNECTIONS` says how many; the default is what a run of all tests has time for.
"""

import asyncio
import gc
import os

from fs_common.errors import Code, EmberError
from fs_common.methods import PING, READ_CHUNKS
from fs_common.records.session import Ping
from fs_common.rpc import Peer
from tests.common.loopback import TIMEOUT, hello, memory, read_request, serving, until
from tests.common.services import replying
from tests.common.transports import RunningServer, Transport
from tests.support import run

CONNECTIONS = int(os.environ.get("EMBERFS_TEST_CONNECTIONS", "200"))
AT_ONCE = 4


async def come_and_go(transport: Transport, server: RunningServer, way: int) -> None:
    """One connection, used and ended: by its caller, by its caller's death, by its server, within a call."""
    peer = await transport.connect("127.0.0.1", server.port, hello(), timeout=TIMEOUT)
    into = memory(5000)
    await peer.call(READ_CHUNKS, read_request(5000), into=into, timeout=TIMEOUT)
    assert into[0] == b"x" * 5000
    match way:
        case 0:
            await peer.close()
        case 1:
            peer._link.abort(EmberError(Code.PEER_GONE, "dropped"))
        case 2:
            for session in list(server.service.sessions):
                session.end(EmberError(Code.CLOSING, "the server has had enough"))
            await until(lambda: peer.closed)
        case _:
            call = asyncio.ensure_future(peer.call(PING, Ping(), timeout=TIMEOUT))
            await asyncio.sleep(0)
            await peer.close()
            await asyncio.gather(call, return_exceptions=True)


def holdings(transport: Transport) -> dict[str, int]:
    return {"descriptors": len(os.listdir("/proc/self/fd")), **transport.held()}


def test_connections_come_and_go_and_nothing_stays(transport: Transport) -> None:
    async def main() -> None:
        async with serving(replying(b"x" * 5000), transport) as server:

            async def some(count: int) -> None:
                for number in range(count):
                    await come_and_go(transport, server, number % 4)
                await until(lambda: not server._connections)

            # What is made once, at first use, is there afterwards.
            await some(8)
            gc.collect()
            before = holdings(transport)
            await some(CONNECTIONS)
            gc.collect()
            await until(lambda: holdings(transport) == before)

    run(main(), timeout=60 + CONNECTIONS)


def test_connections_that_are_made_together_are_all_given_back(transport: Transport) -> None:
    async def main() -> None:
        async with serving(replying(b"x" * 5000), transport) as server:

            async def together() -> None:
                peers: list[Peer] = await asyncio.gather(
                    *(transport.connect("127.0.0.1", server.port, hello(), timeout=TIMEOUT) for _ in range(AT_ONCE))
                )
                for peer in peers:
                    await peer.call(PING, Ping(), timeout=TIMEOUT)
                await asyncio.gather(*(peer.close() for peer in peers))
                await until(lambda: not server._connections)

            await together()
            before = holdings(transport)
            for _ in range(10):
                await together()
            await until(lambda: holdings(transport) == before)

    run(main())
