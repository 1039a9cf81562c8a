"""A network between clients and a real cluster that does what the test says with each frame: counts, loses, repeats,
damages.

Clients connect to `Meddler.address`. The routing they get there names proxies instead of daemons, so all they do passes
here. What daemons say to each other and to the manager does not.
"""

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

import msgspec

from fs_common import frames, methods
from fs_common.records.routing import GetRoutingReply

Address = tuple[str, int]


class Frame(NamedTuple):
    header: frames.Header
    body: bytes
    payload: bytes

    def encode(self) -> bytes:
        h = self.header
        packed = frames.pack(h.kind, h.method, h.request, len(self.body), len(self.payload), h.deadline_ms)
        return packed + self.body + self.payload

    @property
    def is_request(self) -> bool:
        return self.header.kind == frames.REQUEST


class Lost(Exception):
    """Raised by a rule: this frame does not arrive, and its connection breaks."""


Rule = Callable[[Address, Frame], list[Frame]]
"""What becomes of a frame to, or from, the server at an address: what is sent on. `Lost`: the connection breaks. A
second copy of a request goes over a connection of its own, and nobody hears its answer."""


class Meddler:
    """A context manager; its loop is in a thread."""

    def __init__(self, metadata: Address) -> None:
        self.rule: Rule = lambda server, frame: [frame]
        self.payload_bytes: Counter[tuple[Address, bool]] = Counter()
        """(server, whether to it) -> bytes."""
        self._metadata = metadata
        self._proxies: dict[Address, Address] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> "Meddler":
        self._thread.start()
        self._listening = asyncio.run_coroutine_threadsafe(self._proxy_of(self._metadata), self._loop).result(10)
        return self

    def __exit__(self, *exception: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def address(self) -> str:
        """Of the metadata server, for clients."""
        return f"{self._listening[0]}:{self._listening[1]}"

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for server in self._servers:
            await server.wait_closed()

    async def _proxy_of(self, server: Address) -> Address:
        if server not in self._proxies:
            listening = await asyncio.start_server(lambda r, w: self._accept(server, r, w), "127.0.0.1", 0)
            self._servers.append(listening)
            self._proxies[server] = listening.sockets[0].getsockname()[:2]
        return self._proxies[server]

    def _accept(self, server: Address, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._carry(server, reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, server: Address, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Both ways, until either side ends."""
        async with _ending(writer):
            there, back = await asyncio.open_connection(*server)
            async with _ending(back):
                ways = [
                    self._loop.create_task(self._pass_on(server, reader, back)),
                    self._loop.create_task(self._pass_on(server, there, writer)),
                ]
                try:
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in ways:
                        way.cancel()
                    await asyncio.gather(*ways, return_exceptions=True)

    async def _pass_on(self, server: Address, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello: Frame | None = None
        with contextlib.suppress(asyncio.IncompleteReadError, OSError, Lost):
            while True:
                frame = await self._read(reader)
                if hello is None:
                    hello, sent = frame, [frame]
                else:
                    sent = self.rule(server, await self._routed(frame))
                for copy, one in enumerate(sent):
                    self.payload_bytes[server, one.is_request] += len(one.payload)
                    if copy and one.is_request:
                        await self._send_alone(server, hello, one)
                    else:
                        writer.write(one.encode())
                await writer.drain()

    async def _read(self, reader: asyncio.StreamReader) -> Frame:
        header = frames.unpack(await reader.readexactly(frames.HEADER_SIZE))
        body = await reader.readexactly(header.body_length)
        return Frame(header, body, await reader.readexactly(header.payload_length))

    async def _send_alone(self, server: Address, hello: Frame, frame: Frame) -> None:
        """Over a connection that ends when the answer is there."""
        reader, writer = await asyncio.open_connection(*server)
        async with _ending(writer):
            writer.write(hello.encode())
            await self._read(reader)
            writer.write(frame.encode())
            await self._read(reader)

    async def _routed(self, frame: Frame) -> Frame:
        """With proxies for daemons, if it tells of any."""
        if frame.header.kind != frames.RESPONSE or frame.header.method != methods.GET_ROUTING.number:
            return frame
        reply = msgspec.msgpack.decode(frame.body, type=GetRoutingReply)
        if reply.routing is None:
            return frame
        nodes = []
        for node in reply.routing.nodes:
            host, port = await self._proxy_of((node.host, node.port))
            nodes.append(msgspec.structs.replace(node, host=host, port=port))
        routing = msgspec.structs.replace(reply.routing, nodes=nodes)
        return frame._replace(body=msgspec.msgpack.encode(GetRoutingReply(routing)))


@contextlib.asynccontextmanager
async def _ending(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    """Whatever happens, its socket is closed; a connection that ends is no error."""
    try:
        yield
    except (OSError, asyncio.IncompleteReadError):
        return
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
