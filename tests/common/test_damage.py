"""A conversation of updates whose bytes are cut off or damaged on the way, at every place: nothing is done twice, and
nobody is told that an update was not done when it was.

Damage is to headers: what a body or a payload says is not covered by the frame (payloads have their page checksums).
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

import pytest

from fs_common import frames
from fs_common.errors import EmberError, Retry
from fs_common.methods import UPDATE_CHUNKS
from fs_common.records.storage import UpdateChunks, UpdateChunksReply
from fs_common.rpc import Call, Peer, Reply
from fs_common.transports import tcp
from tests.common.loopback import TIMEOUT, hello, service, serving
from tests.support import run

UPDATES = 3


class Ledger:
    """A service that does each update once, and remembers how often it did."""

    def __init__(self) -> None:
        self.service = service()
        self.service.register(UPDATE_CHUNKS, self._update, allocate=lambda _, length: [memoryview(bytearray(length))])
        self.done: dict[bytes, int] = {}
        self.answered: set[bytes] = set()

    def _update(self, call: Call) -> Reply:
        name = call.request.client
        if name not in self.answered:
            self.answered.add(name)
            self.done[name] = self.done.get(name, 0) + 1
        return Reply(UpdateChunksReply([1], [len(name)], []))


class Fault(NamedTuple):
    """What happens to the bytes of one direction of the first connection."""

    to_server: bool
    position: int
    damage: int
    """Added to the byte; 0: the connection ends before it."""


class Wire:
    """Carries bytes between a caller and a server, and remembers them. Only the first connection has the fault."""

    def __init__(self, port: int, fault: Fault | None) -> None:
        self._port = port
        self._fault = fault
        self.carried: dict[bool, bytearray] = {True: bytearray(), False: bytearray()}
        """By direction; to the server: True."""
        self._tasks: list[asyncio.Task[None]] = []

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fault, self._fault = self._fault, None
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._tasks.append(asyncio.ensure_future(self._carry(True, reader, server_writer, fault)))
        self._tasks.append(asyncio.ensure_future(self._carry(False, server_reader, writer, fault)))

    async def _carry(
        self, to_server: bool, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fault: Fault | None
    ) -> None:
        carried = self.carried[to_server]
        try:
            while data := bytearray(await reader.read(65536)):
                if (
                    fault is not None
                    and fault.to_server is to_server
                    and 0 <= fault.position - len(carried) < len(data)
                ):
                    place = fault.position - len(carried)
                    if not fault.damage:
                        writer.write(data[:place])
                        return
                    data[place] = (data[place] + fault.damage) % 256
                carried += data
                writer.write(data)
        except ConnectionError:
            pass
        finally:
            with contextlib.suppress(OSError):
                await writer.drain()
            writer.close()

    async def close(self) -> None:
        await asyncio.gather(*self._tasks)


@contextlib.asynccontextmanager
async def wired(
    ledger: Ledger, fault: Fault | None
) -> AsyncIterator[tuple[Wire, Callable[[], "asyncio.Future[Peer]"]]]:
    async with serving(ledger.service) as server:
        wire = Wire(server.port, fault)
        between = await asyncio.start_server(wire.accept, "127.0.0.1", 0)
        port = between.sockets[0].getsockname()[1]
        try:
            yield wire, lambda: asyncio.ensure_future(tcp.connect("127.0.0.1", port, hello(), timeout=TIMEOUT))
        finally:
            between.close()
            await between.wait_closed()
            await wire.close()


async def converse(fault: Fault | None) -> Wire:
    """Updates one after another, each tried as the error table says; returns what was carried."""
    ledger = Ledger()
    async with wired(ledger, fault) as (wire, connect):
        peer: Peer | None = None
        try:
            for number in range(UPDATES):
                name = b"update %d" % number
                while True:
                    try:
                        if peer is None or peer.closed:
                            peer = await connect()
                        await peer.call(UPDATE_CHUNKS, UpdateChunks(name, []), send=[b"payload"], timeout=TIMEOUT)
                    except EmberError as error:
                        if peer is not None:
                            # A caller that is told "not done" may send it anew as another update.
                            assert error.retry is Retry.MAYBE_APPLIED or name not in ledger.done, (fault, error)
                            assert error.retry is not Retry.FINAL, (fault, error)
                    else:
                        break
        finally:
            if peer is not None:
                await peer.close()
    assert ledger.done == {b"update %d" % number: 1 for number in range(UPDATES)}, fault
    return wire


def header_places(carried: bytearray) -> list[int]:
    places: list[int] = []
    start = 0
    while start < len(carried):
        header = frames.unpack(carried, start)
        places += range(start, start + frames.HEADER_SIZE)
        start += frames.HEADER_SIZE + header.body_length + header.payload_length
    return places


@pytest.mark.parametrize("to_server", [True, False], ids=["requests", "answers"])
@pytest.mark.parametrize("kind", ["cut", "damaged"])
def test_updates_are_done_once_whatever_becomes_of_the_bytes(to_server: bool, kind: str) -> None:
    async def main() -> None:
        carried = (await converse(None)).carried[to_server]
        if kind == "cut":
            faults = [Fault(to_server, place, 0) for place in range(len(carried))]
        else:
            faults = [Fault(to_server, place, damage) for place in header_places(carried) for damage in (1, 128)]
        for start in range(0, len(faults), 16):
            async with asyncio.TaskGroup() as group:
                for fault in faults[start : start + 16]:
                    group.create_task(converse(fault))

    run(main())
