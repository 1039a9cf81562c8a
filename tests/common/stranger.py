"""One end of a greeted connection that keeps no rules, over any transport: what it sends it makes up."""

import contextlib
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec

from fs_common import frames
from fs_common.errors import Code, EmberError
from fs_common.frames import FrameError
from fs_common.methods import Method
from fs_common.rpc import Peer, Service
from fs_common.wire import Frame
from tests.common.loopback import TIMEOUT, RawFrame, hello, serving, until
from tests.common.transports import RunningServer, Transport


class Stranger:
    """Takes the place of the receiver of a link, and keeps what comes."""

    def __init__(self, link: Any) -> None:
        self.link = link
        self.ended = False
        self._frames: deque[RawFrame] = deque()
        self._landing: tuple[frames.Header, bytes, memoryview] | None = None
        link._receiver = self

    # Receiver

    def frame_begun(self, frame: Frame) -> Sequence[memoryview] | None:
        header = frames.Header(
            frame.kind,
            frame.method,
            frame.request,
            len(frame.body),
            frame.payload_length,
            frame.deadline_ms,
            frame.trace,
        )
        body = bytes(frame.body)
        if not frame.payload_length:
            self._frames.append(RawFrame(header, body, b""))
            return None
        self._landing = header, body, memoryview(bytearray(frame.payload_length))
        return [self._landing[2]]

    def payload_done(self) -> None:
        assert self._landing is not None
        header, body, payload = self._landing
        self._frames.append(RawFrame(header, body, bytes(payload)))

    def frame_bad(self, error: FrameError) -> None:
        raise AssertionError(error)

    def peer_finished(self) -> None:
        self.vanish()

    def drained(self) -> None: ...

    def link_lost(self, error: EmberError) -> None:
        self.ended = True

    # What tests do

    def send(
        self,
        kind: int,
        method: int,
        request: int,
        body: msgspec.Struct | bytes = b"",
        *,
        payload: bytes = b"",
        deadline_ms: int = 0,
    ) -> None:
        encoded = body if isinstance(body, bytes) else msgspec.msgpack.encode(body)
        frame = frames.pack(kind, method, request, len(encoded), len(payload), deadline_ms) + encoded
        if payload:
            self.link.send_with_payload(frame, [memoryview(payload)], len(payload), None)
        else:
            self.link.send(frame)

    def request(self, method: Method, request: int, body: msgspec.Struct | bytes, **more: Any) -> None:
        self.send(frames.REQUEST, method.number, request, body, **more)

    def garbage(self, data: bytes) -> None:
        """Bytes in the place of a frame."""
        self.link.send(data)

    async def read(self) -> RawFrame:
        await until(lambda: self._frames or self.ended)
        return self._frames.popleft()

    async def at_end(self) -> bool:
        """The other side ends the connection, and sends nothing before."""
        await until(lambda: self._frames or self.ended)
        return not self._frames

    def vanish(self) -> None:
        self.link.abort(EmberError(Code.PEER_GONE, "the stranger is gone"))


@contextlib.asynccontextmanager
async def strange_caller(transport: Transport, server: RunningServer) -> AsyncIterator[Stranger]:
    """A stranger whom `server` has let in."""
    peer = await transport.connect("127.0.0.1", server.port, hello(), timeout=TIMEOUT)
    stranger = Stranger(peer._link)
    try:
        yield stranger
    finally:
        stranger.vanish()


@contextlib.asynccontextmanager
async def strange_server(transport: Transport, offered: Service) -> AsyncIterator[tuple[Peer, Stranger]]:
    """A peer, and the stranger that has taken the place of the server that welcomed it."""
    async with serving(offered, transport) as server:
        peer = await transport.connect("127.0.0.1", server.port, hello(), timeout=TIMEOUT)
        (connection,) = server._connections
        link = connection._link
        link._receiver = None  # type: ignore[attr-defined]
        connection.link_lost(EmberError(Code.PEER_GONE, "a stranger took its place"))
        stranger = Stranger(link)
        try:
            yield peer, stranger
        finally:
            await peer.close()
            stranger.vanish()
