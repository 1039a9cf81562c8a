"""Bytes at a port of the data plane: frames that were damaged, cut, doubled and out of order, and broken TLS.

The server may end a connection, and may not fail, say a word above a warning, or stop serving others.
"""

import asyncio
import contextlib
import ssl
from typing import Any

import msgspec

from fs_common import frames
from fs_common.methods import HELLO, PING, READ_CHUNKS, STATS, UPDATE_CHUNKS
from fs_common.records.session import Empty, Hello, Ping
from fs_common.records.storage import ReadChunksReply, UpdateChunks, UpdateChunksReply
from fs_common.rpc import Call, Reply, Service
from fs_common.transports import tcp
from tests.certificates import client_files, daemon_files
from tests.fuzz.requests import no_defects
from tests.fuzz.values import CLIENT, Values

ANSWER_S = 0.2
"""Some streams are cut within a frame: the server waits for the rest, as it should."""


def _frame(kind: int, method: int, request: int, body: Any, payload: bytes = b"") -> bytes:
    encoded = body if isinstance(body, bytes) else msgspec.msgpack.encode(body)
    return frames.pack(kind, method, request, len(encoded), len(payload)) + encoded + payload


def _conversation(values: Values) -> list[bytes]:
    chance = values.chance
    update = _frame(
        frames.REQUEST,
        UPDATE_CHUNKS.number,
        3,
        UpdateChunks(CLIENT, []),
        chance.randbytes(chance.choice((1, 900, 70_000))),
    )
    known = [
        _frame(frames.REQUEST, HELLO.number, 1, Hello([1], "client", CLIENT)),
        _frame(frames.REQUEST, PING.number, 2, Ping(chance.randbytes(30))),
        _frame(frames.REQUEST, STATS.number, 4, Empty()),
        _frame(frames.GOODBYE, 0, 0, b""),
        _frame(frames.ERROR, 0, 0, b"\x92\x01\xa1x"),
        _frame(frames.RESPONSE, PING.number, 2, Ping(b"")),
        update,
    ]
    # Most greet first: what is behind the hello is the larger part.
    first = [known[0]] if chance.random() < 0.8 else []
    return first + [chance.choice(known) for _ in range(chance.randrange(1, 8))]


def _damaged(values: Values, pieces: list[bytes]) -> bytes:
    """Some of it is changed; headers are sealed anew at times, so that what they say is believed."""
    chance = values.chance
    stream = bytearray(b"".join(pieces))
    for _ in range(chance.choice((0, 1, 1, 2, 8))):
        at = chance.randrange(len(stream))
        match chance.randrange(4):
            case 0:
                stream[at] ^= 1 << chance.randrange(8)
            case 1:
                stream[at : at + chance.randrange(40)] = chance.randbytes(chance.randrange(40))
            case 2:
                del stream[at:]
                stream += b"\0"
            case 3:
                begin = stream.find(b"EMBR", at)
                if begin >= 0 and begin + frames.HEADER_SIZE <= len(stream):
                    fields = [chance.choice((0, 1, 5, 77, 2**16, 2**31, 2**32 - 1)) for _ in range(4)]
                    header = frames.pack(chance.randrange(1, 5), chance.randrange(90), *fields)
                    stream[begin : begin + frames.HEADER_SIZE] = header
    return bytes(stream)


def _service() -> Service:
    async def update(call: Call) -> Reply:
        await asyncio.sleep(0)
        return Reply(UpdateChunksReply([1], [1]))

    service = Service("storage", "", 7)
    service.register(READ_CHUNKS, lambda call: Reply(ReadChunksReply([], [])))
    service.register(UPDATE_CHUNKS, update, allocate=lambda request, length: [memoryview(bytearray(length))])
    return service


async def fuzz_frames(seed: int, count: int) -> None:
    """Over TCP, and within a session of TLS."""
    values = Values(seed)
    async with no_defects():
        for files in (None, daemon_files("storage-7")):
            server = await tcp.serve(_service(), "127.0.0.1", 0, tls=files)
            context = None if files is None else client_files().client_context()
            for _ in range(count // 2):
                data = _damaged(values, _conversation(values))
                await _throw(server.port, data, values, context)
            await _still_serves(server.port, tls=files is not None)
            await server.close(0.5)


async def fuzz_handshakes(seed: int, count: int) -> None:
    """A client's first bytes and the rest of its handshake, damaged."""
    values = Values(seed)
    async with no_defects():
        server = await tcp.serve(_service(), "127.0.0.1", 0, tls=daemon_files("storage-7"))
        for _ in range(count):
            there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
            session = client_files().client_context().wrap_bio(back, there, server_hostname="emberfs.internal")
            with contextlib.suppress(ssl.SSLWantReadError):
                session.do_handshake()
            first = there.read()
            await _throw(server.port, _damaged(values, [first, values.chance.randbytes(50)]), values, None)
        await _still_serves(server.port, tls=True)
        await server.close(0.5)


async def _throw(port: int, data: bytes, values: Values, context: ssl.SSLContext | None) -> None:
    """In pieces; then the end is said, or not, and what is answered is read."""
    name = None if context is None else "emberfs.internal"
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
    with contextlib.suppress(OSError):
        at = 0
        while at < len(data):
            step = values.chance.choice((1, 31, 500, len(data)))
            writer.write(data[at : at + step])
            at += step
            if values.chance.random() < 0.2:
                await asyncio.sleep(0)
        if context is None and values.chance.random() < 0.7:
            writer.write_eof()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_S):
                await reader.read()
    writer.transport.abort()


async def _still_serves(port: int, *, tls: bool) -> None:
    hello = Hello([1], "client", CLIENT)
    peer = await tcp.connect("127.0.0.1", port, hello, timeout=10.0, tls=client_files() if tls else None)
    assert await peer.call(PING, Ping(b"still"), timeout=10.0) == Ping(b"still")
    await peer.close()
