"""A service to call, a server that runs it, and a bare socket that speaks frames: what the RPC tests share."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import msgspec

from fs_common import frames
from fs_common.frames import HEADER_SIZE
from fs_common.methods import HELLO, Method
from fs_common.records.session import ErrorBody, Hello, Welcome
from fs_common.records.storage import ReadChunks, ReadItem
from fs_common.rpc import Peer, Service
from fs_common.transports import tcp
from tests.support import PATIENCE

KIB = 1024
MIB = 1024 * KIB
CLUSTER = "test-cluster"
TIMEOUT = 20.0 * PATIENCE
"""Long enough for any machine; a call that is expected to time out says so."""


def hello(**changes: Any) -> Hello:
    return msgspec.structs.replace(Hello([1], "client", b"c" * 16, CLUSTER), **changes)


def service() -> Service:
    return Service("storage", CLUSTER, 7)


def pattern(size: int, seed: int = 0) -> bytes:
    """Bytes that differ when shifted, and for each seed."""
    return (bytes((seed + i * 7) % 251 for i in range(251)) * (size // 251 + 1))[:size]


def memory(*sizes: int) -> list[memoryview]:
    return [memoryview(bytearray(size)) for size in sizes]


def read_request(*lengths: int) -> ReadChunks:
    return ReadChunks([ReadItem(1, 1, 1, i, 0, length) for i, length in enumerate(lengths)])


@contextlib.asynccontextmanager
async def serving(service: Service, transport: Any = tcp) -> AsyncIterator[tcp.Server]:
    server = await transport.serve(service, "127.0.0.1", 0)
    try:
        yield server
    finally:
        await server.close(grace_s=5.0)


@contextlib.asynccontextmanager
async def connected(service: Service, transport: Any = tcp, server: tcp.Server | None = None) -> AsyncIterator[Peer]:
    """A peer greeted by `server`, or by a server of its own."""
    async with contextlib.nullcontext(server) if server else serving(service, transport) as server:
        peer = await transport.connect("127.0.0.1", server.port, hello(), timeout=TIMEOUT)
        try:
            yield peer
        finally:
            await peer.close()


class RawFrame(NamedTuple):
    header: frames.Header
    body: bytes
    payload: bytes

    @property
    def error(self) -> ErrorBody:
        assert self.header.kind == frames.ERROR
        return msgspec.msgpack.decode(self.body, type=ErrorBody)


class RawSocket:
    """One end of a connection, frame by frame, with no rules."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def write(
        self,
        kind: int,
        method: int,
        request: int,
        body: msgspec.Struct | bytes = b"",
        payload: bytes = b"",
        payload_length: int | None = None,
        deadline_ms: int = 0,
    ) -> None:
        encoded = body if isinstance(body, bytes) else msgspec.msgpack.encode(body)
        length = len(payload) if payload_length is None else payload_length
        self.writer.write(frames.pack(kind, method, request, len(encoded), length, deadline_ms) + encoded + payload)

    def request(self, method: Method, request: int, body: msgspec.Struct | bytes, **more: Any) -> None:
        self.write(frames.REQUEST, method.number, request, body, **more)

    async def read(self) -> RawFrame:
        header = frames.unpack(await self.reader.readexactly(HEADER_SIZE))
        body = await self.reader.readexactly(header.body_length)
        return RawFrame(header, body, await self.reader.readexactly(header.payload_length))

    async def at_end(self) -> bool:
        """The other side ends the connection, and sends nothing before."""
        try:
            return await self.reader.read(1) == b""
        except ConnectionResetError:
            return True

    async def greet(self) -> RawFrame:
        self.request(HELLO, 1, hello())
        answer = await self.read()
        assert answer.header.kind == frames.RESPONSE, answer
        return answer

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


@contextlib.asynccontextmanager
async def raw_client(port: int) -> AsyncIterator[RawSocket]:
    socket = RawSocket(*await asyncio.open_connection("127.0.0.1", port, limit=16 * MIB))
    try:
        yield socket
    finally:
        await socket.close()


@contextlib.asynccontextmanager
async def raw_server() -> AsyncIterator[tuple[Peer, RawSocket]]:
    """A peer, and the bare socket that welcomed it."""
    accepted: asyncio.Future[RawSocket] = asyncio.get_running_loop().create_future()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set_result(RawSocket(reader, writer))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    connecting = asyncio.ensure_future(tcp.connect("127.0.0.1", port, hello(), timeout=TIMEOUT))
    socket = await accepted
    greeting = await socket.read()
    socket.write(frames.RESPONSE, HELLO.number, greeting.header.request, Welcome(1, "storage", CLUSTER, 7))
    peer = await connecting
    try:
        yield peer, socket
    finally:
        await peer.close()
        await socket.close()
        server.close()
        await server.wait_closed()


async def until(condition: Any) -> None:
    """Turn the loop until `condition()`; the test's own timeout ends what never comes."""
    while not condition():
        await asyncio.sleep(0)
