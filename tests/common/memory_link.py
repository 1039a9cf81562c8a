"""Links within one process: two ends that hand frames to each other, with payload copied from memory to memory.

The second way to keep `link.Link`'s promises, beside bytes in a socket: a frame arrives whole or not at all, and its
payload in pieces, one for each turn of the loop.
"""

import asyncio
import os
from collections import deque
from collections.abc import Callable, Sequence

from fs_common import frames
from fs_common.errors import Code, EmberError
from fs_common.frames import HEADER_SIZE, FrameError
from fs_common.limits import BODY_BYTES_MAX, MIB, PAYLOAD_BYTES_MAX
from fs_common.link import Receiver
from fs_common.records.session import Hello
from fs_common.rpc import Peer, Service
from fs_common.serving import ServingConnection
from fs_common.wire import FileRange, Frame, Outgoing, Part

TURN_BYTES = 1 * MIB
"""Of payload that one turn of the loop copies."""


class _Sending:
    """A frame on its way."""

    def __init__(self, frame: bytes, parts: Sequence[Part], outgoing: Outgoing | None, payload_length: int) -> None:
        self.frame = frame
        self.parts = deque(parts)
        self.outgoing = outgoing
        self.left = payload_length
        """Bytes of its payload that have not arrived."""
        self.begun = False

    def take(self, size: int) -> bytes | memoryview:
        """The next bytes of the payload, at most `size` of them."""
        part = self.parts.popleft()
        if isinstance(part, FileRange):
            data = os.pread(part.file, min(size, part.length), part.offset)
            if not data:
                raise OSError("the file ended early")
            if len(data) < part.length:
                self.parts.appendleft(FileRange(part.file, part.offset + len(data), part.length - len(data)))
            return data
        view = memoryview(part)
        if len(view) > size:
            self.parts.appendleft(view[size:])
        return view[:size]

    def finish(self) -> None:
        if self.outgoing is not None and not self.outgoing.done:
            self.outgoing.done = True
            release, self.outgoing.release = self.outgoing.release, None
            if release is not None:
                release()


class MemoryLink:
    """One end. See `link.Link`."""

    transport = "memory"
    descriptor = None
    proven = None
    certificate_ends_s = None

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop) -> None:
        self.name = name
        self.other: MemoryLink
        self.unsent_bytes = 0
        self.received_bytes = 0
        self._loop = loop
        self._receiver: Receiver | None = None
        self._outbox: deque[_Sending] = deque()
        self._booked: asyncio.Handle | None = None
        """The next turn of sending."""
        self._reading = True
        self._finishing = False
        self._over = False
        self._told = False
        """The other end knows that nothing more comes."""
        self._bounds = (BODY_BYTES_MAX, PAYLOAD_BYTES_MAX)
        self._landing: deque[memoryview] | None = None
        """Where the rest of the payload goes that is arriving; empty: nowhere; None: none is arriving."""
        self._closed = loop.create_future()

    def start(self, receiver: Receiver) -> None:
        self._receiver = receiver

    # Link

    @property
    def within_frame(self) -> bool:
        return self._landing is not None

    def send(self, frame: bytes, *, into: Sequence[memoryview] = (), urgent: bool = False) -> None:
        if not self._over:
            self._outbox.append(_Sending(frame, (), None, 0))
            self.unsent_bytes += len(frame)
            self._book()

    def send_with_payload(
        self,
        frame: bytes,
        parts: Sequence[Part],
        payload_length: int,
        release: Callable[[], None] | None,
        *,
        into: Sequence[memoryview] = (),
        lengths: Sequence[int] | None = None,
        urgent: bool = False,
    ) -> Outgoing:
        outgoing = Outgoing(1 + len(parts), release)
        sending = _Sending(frame, parts, outgoing, payload_length)
        if self._over:
            sending.finish()
        else:
            self._outbox.append(sending)
            self.unsent_bytes += len(frame) + payload_length
            self._book()
        return outgoing

    def set_bounds(self, body_bytes_max: int, payload_bytes_max: int) -> None:
        self._bounds = (body_bytes_max, payload_bytes_max)

    def withdraw(self, outgoing: Outgoing) -> None:
        for sending in self._outbox:
            if sending.outgoing is outgoing:
                if not sending.begun:
                    self._outbox.remove(sending)
                    self.unsent_bytes -= len(sending.frame) + sending.left
                else:
                    rest = b"".join(bytes(sending.take(sending.left)) for _ in range(len(sending.parts)))
                    sending.parts = deque([rest])
                sending.finish()
                return

    def discard_payload(self, release: Callable[[], None] | None = None) -> None:
        if self._landing is not None:
            self._landing = deque()
        if release is not None:
            release()

    def probe(self) -> None:
        self.other._turn()

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self.other._book()

    def close(self) -> None:
        self._finishing = True
        self._book()

    def abort(self, error: EmberError) -> None:
        if self._over:
            return
        self._over = True
        # What a socket would have taken at once still arrives.
        kept: list[_Sending] = []
        while self._outbox and self._outbox[0].outgoing is None:
            kept.append(self._outbox.popleft())
        for sending in self._outbox:
            sending.finish()
        self._outbox = deque(kept)
        self.unsent_bytes = 0
        self._landing = None
        self._book()
        self.other._book()
        if not self._closed.done():
            self._closed.set_result(None)
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.link_lost(error)

    async def wait_closed(self) -> None:
        await asyncio.shield(self._closed)

    # Sending

    def _book(self) -> None:
        if self._booked is None:
            self._booked = self._loop.call_soon(self._on_turn)

    def _on_turn(self) -> None:
        self._booked = None
        self._turn()

    def _turn(self) -> None:
        """Hand over what the other end takes."""
        other = self.other
        if other._over:
            for sending in self._outbox:
                sending.finish()
            self._outbox.clear()
        had = self.unsent_bytes
        left = TURN_BYTES
        while self._outbox and left > 0 and other._takes:
            left -= self._hand_over(self._outbox[0], left)
        if had and not self._over and self._receiver is not None:
            self._receiver.drained()
        if not self._outbox:
            self._tell_end()
        elif other._takes:
            self._book()

    @property
    def _takes(self) -> bool:
        return self._reading and not self._finishing and not self._over

    def _hand_over(self, sending: _Sending, size: int) -> int:
        """Some of a frame. Returns how much."""
        other = self.other
        moved = 0
        if not sending.begun:
            sending.begun = True
            moved = len(sending.frame)
            other._begin(sending.frame)
        if sending.left and not other._over and not self._over:
            try:
                data = sending.take(min(size, sending.left))
            except OSError as error:
                self.abort(EmberError(Code.PEER_GONE, f"{self.name}: {error}"))
                return size
            sending.left -= len(data)
            moved += len(data)
            other._land(data)
        if not self._over:
            self.unsent_bytes -= moved
        if not sending.left and self._outbox and self._outbox[0] is sending:
            self._outbox.popleft()
            with_payload = sending.outgoing is not None
            sending.finish()
            if with_payload:
                other._end_payload()
        return max(moved, 1)

    def _tell_end(self) -> None:
        """Nothing is left to send: if that is all, the other end hears so."""
        if (self._over or self._finishing) and not self._told:
            self._told = True
            other = self.other
            if not other._over and other._receiver is not None:
                if other.within_frame:
                    other.abort(EmberError(Code.PEER_GONE, f"connection {other.name} ended within a frame"))
                else:
                    other._receiver.peer_finished()
            self.abort(EmberError(Code.PEER_GONE, f"connection {self.name} is closed"))

    # Receiving

    def _begin(self, frame: bytes) -> None:
        receiver = self._receiver
        assert receiver is not None
        self.received_bytes += len(frame)
        try:
            if len(frame) < HEADER_SIZE:
                raise FrameError("header", f"{len(frame)} bytes are none")
            header = frames.unpack(frame, 0, *self._bounds)
            if len(frame) != HEADER_SIZE + header.body_length:
                raise FrameError("body length", f"{header.body_length} is not that of the body")
            views = receiver.frame_begun(
                Frame(
                    header.kind,
                    header.method,
                    header.request,
                    memoryview(frame)[HEADER_SIZE:],
                    header.payload_length,
                    header.deadline_ms,
                    header.trace,
                )
            )
            if header.payload_length and not self._over:
                self._landing = deque(views or ())
        except FrameError as error:
            receiver.frame_bad(error)
            if not self._over:
                self.close()

    def _land(self, data: bytes | memoryview) -> None:
        self.received_bytes += len(data)
        landing = self._landing
        while landing and len(data):
            view = landing.popleft()
            size = min(len(view), len(data))
            view[:size] = data[:size]
            if size < len(view):
                landing.appendleft(view[size:])
            data = data[size:]

    def _end_payload(self) -> None:
        if self._landing is not None:
            self._landing = None
            if self._receiver is not None:
                self._receiver.payload_done()


class MemoryServer:
    """What `tcp.Server` is to sockets."""

    def __init__(self, network: "Network", service: Service, port: int, loop: asyncio.AbstractEventLoop) -> None:
        self.port = port
        self.service = service
        self._network = network
        self._loop = loop
        self._connections: set[ServingConnection] = set()

    def accept(self, link: MemoryLink) -> None:
        connection = ServingConnection(self.service, link, self._loop, self._connections.discard)
        self._connections.add(connection)
        link.start(connection)

    async def close(self, grace_s: float = 5.0) -> None:
        self._network.servers.pop(self.port, None)
        for connection in list(self._connections):
            connection.begin_close()
        ends = self._loop.time() + grace_s
        while self._connections:
            if self._loop.time() >= ends:
                for connection in list(self._connections):
                    connection.abort()
            await asyncio.sleep(0)


class Network:
    """Servers by port."""

    def __init__(self) -> None:
        self.servers: dict[int, MemoryServer] = {}
        self._last_port = 0

    def serve(self, service: Service, loop: asyncio.AbstractEventLoop) -> MemoryServer:
        self._last_port += 1
        server = self.servers[self._last_port] = MemoryServer(self, service, self._last_port, loop)
        return server

    async def connect(self, host: str, port: int, hello: Hello, timeout: float) -> Peer:
        loop = asyncio.get_running_loop()
        server = self.servers.get(port)
        if server is None:
            raise EmberError(Code.UNREACHABLE, f"{host}:{port} cannot be reached: nobody listens there")
        link, accepted = MemoryLink(f"{host}:{port}", loop), MemoryLink(f"{host}:0", loop)
        link.other, accepted.other = accepted, link
        peer = Peer(link, loop)
        link.start(peer)
        server.accept(accepted)
        try:
            await peer.greet(hello, timeout)
        except BaseException:
            await peer.close()
            raise
        return peer
