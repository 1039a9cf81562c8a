"""Calls over RDMA on real queue pairs: whose memory it is when a call or a connection ends early."""

import asyncio
from pathlib import Path

import pytest

from fs_common.errors import Code, EmberError
from fs_common.limits import MIB
from fs_common.methods import PING, READ_CHUNKS, UPDATE_CHUNKS
from fs_common.records.session import Ping
from fs_common.records.storage import ReadChunksReply, UpdateChunks
from fs_common.rpc import Allocation, Call, Reply
from fs_common.transports.rdma.link import RdmaLink
from tests.common.loopback import TIMEOUT, connected, hello, memory, read_request, service, serving, until
from tests.common.services import CLIENT
from tests.rdma.mixed_calls import Mixed
from tests.rdma.transport import DeviceTransport
from tests.support import run

pytestmark = pytest.mark.rdma


@pytest.mark.parametrize("seed", range(6))
def test_calls_of_all_kinds(seed: int, tmp_path: Path) -> None:
    async def main() -> None:
        transport = DeviceTransport()
        with Mixed(seed, tmp_path) as mixed:
            async with serving(mixed.service, transport) as server:

                async def connect() -> object:
                    return await transport.connect("127.0.0.1", server.port, hello(), timeout=TIMEOUT)

                await mixed.calls(await connect(), connect)  # type: ignore[arg-type]
                await until(lambda: not server._connections)
            mixed.check()
        transport.close()

    run(main())


def test_a_call_that_ends_early_has_its_memory_at_once() -> None:
    """The answer is being written when its caller gives up: what is there then stays."""

    async def main() -> None:
        transport = DeviceTransport()
        released: list[bool] = []
        size = 32 * MIB
        data = b"\x01" * size
        offered = service()
        offered.register(
            READ_CHUNKS, lambda call: Reply(ReadChunksReply([size], []), [data], lambda: released.append(True))
        )
        async with serving(offered, transport) as server, connected(offered, transport, server) as peer:
            into = memory(size)
            call = asyncio.ensure_future(peer.call(READ_CHUNKS, read_request(size), into=into, timeout=TIMEOUT))
            await until(lambda: into[0][0] or call.done())
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            into[0][:] = b"\x02" * size
            assert peer.closed, "32 MiB take longer than a turn of the loop"
            async with connected(offered, transport, server) as after:
                assert await after.call(PING, Ping(b"after"), timeout=TIMEOUT) == Ping(b"after")
            await until(lambda: released and not server._connections)
            assert bytes(into[0]) == b"\x02" * size
        transport.close()

    run(main())


@pytest.mark.parametrize("way", ["server aborts", "caller gone"])
def test_memory_under_a_read_is_given_back_behind_the_end_of_the_queue_pair(way: str) -> None:
    async def main() -> None:
        transport = DeviceTransport()
        views: list[memoryview] = []
        released: list[bytes] = []
        size = 32 * MIB

        def allocate(request: UpdateChunks, length: int) -> Allocation:
            views.extend(memory(length))
            return Allocation(views[-1:], lambda: released.append(bytes(views[-1])))

        def store(call: Call) -> Reply:
            raise AssertionError("its payload never came to its end")

        offered = service()
        offered.register(UPDATE_CHUNKS, store, allocate=allocate)
        async with serving(offered, transport) as server, connected(offered, transport, server) as peer:
            sent = b"\x01" * size
            call = asyncio.ensure_future(
                peer.call(UPDATE_CHUNKS, UpdateChunks(CLIENT, []), send=[sent], timeout=TIMEOUT)
            )
            await until(lambda: views and views[-1][0])
            (connection,) = server._connections
            assert isinstance(connection.link, RdmaLink)
            if way == "server aborts":
                connection.abort()
            else:
                peer.link.abort(EmberError(Code.PEER_GONE, "killed"))
            with pytest.raises(EmberError) as caught:
                await call
            assert caught.value.code is Code.PEER_GONE
            await until(lambda: released and not server._connections)
            # From then on nobody writes there.
            async with connected(offered, transport, server) as after:
                assert await after.call(PING, Ping(b"after"), timeout=TIMEOUT) == Ping(b"after")
            assert bytes(views[-1]) == released[0]
            assert released[0][-1] == 0
        transport.close()

    run(main())
