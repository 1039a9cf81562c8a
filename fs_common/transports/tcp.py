"""Frames over TCP: a link that owns a non-blocking socket, `connect` and `serve`.

The link reads and writes the socket itself, with the loop only telling when it is ready: a payload is received by
`recvmsg_into` straight into the memory it is for, and sent by `sendmsg` from where it is, or by `sendfile`.
Frames of one turn of the loop leave together.

Concurrency: docs/concurrency/rpc.md.
"""

import asyncio
import contextlib
import errno
import logging
import os
import resource
import socket
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from fs_common.errors import Code, EmberError
from fs_common.frames import FrameError
from fs_common.limits import KIB, MIB
from fs_common.link import Receiver
from fs_common.records.session import Hello, Welcome
from fs_common.rpc import Peer, Service
from fs_common.serving import ServingConnection
from fs_common.telemetry import LimitedLog
from fs_common.tls.names import Proven, describe
from fs_common.transports.tcp_socket import UNACKNOWLEDGED_MS as UNACKNOWLEDGED_MS
from fs_common.transports.tcp_socket import connected_socket, tune
from fs_common.wire import PAYLOAD_DONE, FileRange, FrameReader, FrameWriter, Outgoing, Part

if TYPE_CHECKING:
    from fs_common.tls.files import TlsFiles

logger = logging.getLogger(__name__)
_defects = LimitedLog(logger)

TURN_BYTES_MAX = 1 * MIB
"""One connection moves this much in one turn of the loop before others get theirs: some tenths of a millisecond."""
WAKE_BYTES = 256 * KIB
"""While so much of a payload is still to come, the loop is told only when so much is there: nobody can use a part of it
before, and a turn of the loop costs the same however little it moves. 30 % less processor time for each MiB that is
read, 8 % for each that three replicas store; with 1 MiB it is more again, as the bytes leave the cache meanwhile."""
LINGER_S = 1.0
"""How long a link that has sent its last byte waits for the other side to take it."""
ACCEPT_RETRY_S = 0.5
CONNECTIONS_SHARE = 7
"""Eighths of the descriptors that a process may have which connections to one server of it may take."""
LOOK_S = 1.0
"""How often a server looks whether what has begun to arrive goes on arriving (`serving.ServingConnection.look`)."""
BACKLOG = 1024


class TcpLink:
    """One connected socket. See `link.Link`."""

    transport = "tcp"

    def __init__(self, connected: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self.name = _names(connected)
        self._socket = connected
        self._file = connected.fileno()
        self._loop = loop
        self._reader = FrameReader()
        self._writer = FrameWriter()
        self._receiver: Receiver | None = None
        self._reading = True
        """The receiver takes frames. When false the socket is not watched for reading either."""
        self._in_turn = False
        """`_on_readable` runs: it flushes at its end."""
        self.received_bytes = 0
        self._wake_bytes = 1
        """From so many bytes on the kernel reports the socket as readable."""
        self._read_on: asyncio.Handle | None = None
        """The kernel may have more than the last turn took."""
        self._flush: asyncio.Handle | None = None
        """The flush that is due in this turn of the loop."""
        self._writable_watched = False
        """The kernel's buffer is full; the flush goes on when it has room."""
        self._finishing = False
        """Nothing more is received; the link ends when all is sent."""
        self._linger: asyncio.TimerHandle | None = None
        """Set once all is sent and the other side has to close."""
        self._closed = loop.create_future()
        self._over = False

    def start(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._loop.add_reader(self._file, self._on_readable)

    def hand_over(self, receiver: Receiver) -> None:
        """From now on `receiver` is told what arrives, and of the end."""
        self._receiver = receiver

    # Link

    @property
    def descriptor(self) -> int | None:
        return None if self._over else self._file

    @property
    def proven(self) -> Proven | None:
        return None

    @property
    def certificate_ends_s(self) -> float | None:
        return None

    @property
    def unsent_bytes(self) -> int:
        return self._writer.unsent_bytes

    @property
    def within_frame(self) -> bool:
        return self._reader.within_frame

    def send(self, frame: bytes, *, into: Sequence[memoryview] = (), urgent: bool = False) -> None:
        if self._over:
            return
        self._writer.append(frame)
        if urgent:
            self._write()
        elif self._flush is None and not self._in_turn:
            self._flush = self._loop.call_soon(self._on_flush)

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
        outgoing = self._writer.append_with_payload(frame, parts, payload_length, release)
        if self._over:
            self._writer.drop()
        elif urgent:
            self._write()
        elif self._flush is None and not self._in_turn:
            self._flush = self._loop.call_soon(self._on_flush)
        return outgoing

    def withdraw(self, outgoing: Outgoing) -> None:
        try:
            self._writer.withdraw(outgoing, _read)
        except OSError as error:
            self._on_failure(error)

    def set_bounds(self, body_bytes_max: int, payload_bytes_max: int) -> None:
        self._reader.body_bytes_max = body_bytes_max
        self._reader.payload_bytes_max = payload_bytes_max

    def discard_payload(self, release: Callable[[], None] | None = None) -> None:
        self._reader.discard_payload()
        if release is not None:
            release()

    def probe(self) -> None:
        if self._reading and not self._over:
            self._on_readable()

    def pause_reading(self) -> None:
        if self._reading and not self._over:
            self._reading = False
            if not self._finishing:
                self._loop.remove_reader(self._file)

    def resume_reading(self) -> None:
        if not self._reading and not self._over:
            self._reading = True
            if not self._finishing:
                self._loop.add_reader(self._file, self._on_readable)
                # Frames that had arrived before the pause wake nobody up.
                self._loop.call_soon(self._take_events_and_flush)

    def close(self) -> None:
        if self._over or self._finishing:
            return
        self._finishing = True
        if not self._in_turn:
            self._write()

    def abort(self, error: EmberError) -> None:
        if self._over:
            return
        self._over = True
        if self._flush is not None:
            self._flush.cancel()
        if self._read_on is not None:
            self._read_on.cancel()
        if self._linger is not None:
            self._linger.cancel()
        self._loop.remove_reader(self._file)
        self._loop.remove_writer(self._file)
        self._socket.close()
        self._writer.drop()
        if not self._closed.done():
            self._closed.set_result(None)
        # Link and receiver refer to each other, and the collector of cycles comes rarely: what they hold goes now.
        self._reader.release()
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.link_lost(error)

    async def wait_closed(self) -> None:
        await asyncio.shield(self._closed)

    # Reading

    def _on_readable(self) -> None:
        """Read what there is, to the end or to the end of this turn.

        uvloop reports a socket with an error once and then never again, not even the bytes before the error. So this
        returns only when the kernel has no more bytes and no error, or with the next turn booked.
        """
        if self._linger is not None or self._finishing:
            self._drain()
            return
        reader = self._reader
        sock = self._socket
        left = TURN_BYTES_MAX
        self._in_turn = True
        try:
            while True:
                wanted = reader.wants()
                if len(wanted) == 1:
                    asked = len(wanted[0])
                    count = sock.recv_into(wanted[0])
                else:
                    asked = sum(map(len, wanted))
                    count = sock.recvmsg_into(wanted)[0]
                if not count:
                    self._on_end()
                    return
                self.received_bytes += count
                reader.filled(count)
                if not self._take_events():
                    return
                if count < asked:
                    # The kernel had no more bytes.
                    if code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                        raise OSError(code, os.strerror(code))
                    self._set_wake_bytes(reader.payload_left)
                    return
                left -= count
                # Between frames others get their turn: a window of small frames is work enough.
                if left <= 0 or not reader.within_frame:
                    if self._read_on is None:
                        self._read_on = self._loop.call_soon(self._on_read_on)
                    return
        except (BlockingIOError, InterruptedError):
            self._set_wake_bytes(reader.payload_left)
        except OSError as error:
            self._on_failure(error)
        except Exception as error:
            self._on_defect(error)
        finally:
            self._in_turn = False
            if self._writer.unsent_bytes or self._finishing:
                self._write()

    def _set_wake_bytes(self, payload_left: int) -> None:
        """Never more than is still to come: the kernel would wait for it for ever. (It reports an end in any case.)"""
        wake_bytes = WAKE_BYTES if payload_left >= WAKE_BYTES else 1
        if wake_bytes != self._wake_bytes:
            self._wake_bytes = wake_bytes
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, wake_bytes)

    def _on_read_on(self) -> None:
        self._read_on = None
        self.probe()

    def _take_events(self) -> bool:
        """Hand over what is complete. False: stop reading."""
        reader = self._reader
        receiver = self._receiver
        assert receiver is not None
        try:
            while self._reading and not self._finishing and not self._over:
                event = reader.next_event()
                if event is None:
                    return True
                if event is PAYLOAD_DONE:
                    receiver.payload_done()
                    continue
                views = receiver.frame_begun(event)
                if self._over:
                    return False
                if event.payload_length:
                    if views is None:
                        reader.discard_payload()
                    else:
                        reader.payload_into(views)
        except FrameError as error:
            receiver.frame_bad(error)
            if not self._over:
                self.close()
        return False

    def _take_events_and_flush(self) -> None:
        if self._over:
            return
        self._in_turn = True
        try:
            self._take_events()
        except Exception as error:
            self._on_defect(error)
        finally:
            self._in_turn = False
            if self._writer.unsent_bytes or self._finishing:
                self._write()

    def _on_end(self) -> None:
        assert self._receiver is not None
        if self._reader.between_frames:
            self._loop.remove_reader(self._file)
            self._receiver.peer_finished()
        else:
            self.abort(EmberError(Code.PEER_GONE, f"connection {self.name} ended within a frame"))

    def _on_failure(self, error: OSError) -> None:
        self.abort(EmberError(Code.PEER_GONE, f"connection {self.name} broke: {error.strerror}"))

    def _on_defect(self, error: Exception) -> None:
        message = "connection %s is ended by a defect of this process"
        _defects.line(logging.ERROR, message, self.name, error=error)
        self.abort(EmberError(Code.INTERNAL, f"connection {self.name} was ended by a defect; see the log"))

    # Writing

    def _on_flush(self) -> None:
        self._flush = None
        self._write()

    def _on_writable(self) -> None:
        self._loop.remove_writer(self._file)
        self._writable_watched = False
        self._write()

    def _write(self) -> None:
        if self._over or self._writable_watched:
            return
        writer = self._writer
        sock = self._socket
        left = TURN_BYTES_MAX
        had = writer.unsent_bytes
        try:
            while (due := writer.gather()) is not None:
                if isinstance(due, FileRange):
                    asked = due.length
                    count = os.sendfile(self._file, due.file, due.offset, asked)
                    if not count:
                        message = f"file ended before byte {due.offset} that was promised to {self.name}"
                        logger.error("%s", message)
                        self.abort(EmberError(Code.PEER_GONE, message))
                        return
                else:
                    flags = socket.MSG_MORE if writer.range_follows else 0
                    if len(due) == 1:
                        asked = len(due[0])
                        count = sock.send(due[0], flags)
                    else:
                        asked = sum(map(len, due))
                        count = sock.sendmsg(due, (), flags)
                writer.sent(count)
                left -= count
                if count < asked or left <= 0:
                    raise BlockingIOError
        except (BlockingIOError, InterruptedError):
            self._writable_watched = True
            self._loop.add_writer(self._file, self._on_writable)
        except OSError as error:
            self._on_failure(error)
            return
        if had and self._receiver is not None:
            self._receiver.drained()
        if self._finishing and not writer.unsent_bytes:
            self._begin_linger()

    # Ending

    def _begin_linger(self) -> None:
        """All is sent. Closing now, with bytes unread, would make the kernel drop what the other side has not read."""
        if self._linger is not None or self._over:
            return
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._on_failure(error)
            return
        self._linger = self._loop.call_later(LINGER_S, self._end)
        self._loop.add_reader(self._file, self._on_readable)

    def _drain(self) -> None:
        """Read and forget, until the other side has closed."""
        try:
            for _ in range(16):
                if not self._socket.recv(65536):
                    self._end()
                    return
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            self._on_failure(error)

    def _end(self) -> None:
        self.abort(EmberError(Code.PEER_GONE, f"connection {self.name} is closed"))


async def connect(host: str, port: int, hello: Hello, *, timeout: float, tls: "TlsFiles | None" = None) -> Peer:
    """A greeted connection to the server at `host:port`, within `timeout` seconds.

    `tls`: over TLS, and only with a daemon of the cluster that these files are of.

    Raises `EmberError`: UNREACHABLE (nobody answers there), or why the server turned us away.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    try:
        link = await asyncio.wait_for(_connected_link(loop, host, port, tls), timeout)
    except TimeoutError:
        raise EmberError(Code.UNREACHABLE, f"{host}:{port} did not answer within {timeout:g} s") from None
    except EmberError as error:
        raise EmberError(error.code, f"{host}:{port}: {error.message}") from None
    except (OSError, UnicodeError) as error:
        number = getattr(error, "errno", None) or 0
        # The loop puts words of its own in the place of the system's.
        reason = os.strerror(number) if number > 0 else getattr(error, "strerror", None) or str(error)
        raise EmberError(Code.UNREACHABLE, f"{host}:{port} cannot be reached: {reason}") from None
    peer = Peer(link, loop)
    link.start(peer)
    try:
        await peer.greet(hello, max(deadline - loop.time(), 0.001))
        if link.proven is not None:
            _check_welcome(host, port, link.proven, peer.welcome)
    except EmberError as error:
        await peer.close()
        if error.code in (Code.PEER_GONE, Code.TIMED_OUT):
            raise EmberError(Code.UNREACHABLE, f"{host}:{port} did not greet: {error.message}") from None
        raise
    except BaseException:
        await peer.close()
        raise
    return peer


def _check_welcome(host: str, port: int, proven: Proven, welcome: Welcome) -> None:
    """Any daemon of the cluster has a certificate: it may not take itself for another one."""
    if not proven.stands_for(welcome.role, welcome.node):
        said = describe(welcome.role, welcome.node)
        message = f"{host}:{port} says that it is {said}, its certificate is of {proven}"
        raise EmberError(Code.UNREACHABLE, message)


async def _connected_link(loop: asyncio.AbstractEventLoop, host: str, port: int, tls: "TlsFiles | None") -> TcpLink:
    connected = await connected_socket(loop, host, port)
    if tls is None:
        return TcpLink(connected, loop)
    from fs_common.transports.tls import connected_link

    return await connected_link(connected, loop, tls)


def _read(part: FileRange) -> bytes:
    """All bytes of a file range."""
    data = os.pread(part.file, part.length, part.offset)
    if len(data) < part.length:
        raise OSError(errno.EIO, "a file range ended early")
    return data


def _names(connected: socket.socket) -> str:
    with contextlib.suppress(OSError):
        host, port = connected.getpeername()[:2]
        return f"{host}:{port}"
    return "an ended connection"


def connections_max(descriptors_max: int) -> int:
    """How many connections a server takes in a process that may have so many descriptors (or `RLIM_INFINITY`)."""
    if descriptors_max == resource.RLIM_INFINITY:
        return sys.maxsize
    return max(descriptors_max * CONNECTIONS_SHARE // 8, 1)


class Server:
    """A listening socket and its connections."""

    def __init__(
        self,
        service: Service,
        listening: socket.socket,
        loop: asyncio.AbstractEventLoop,
        tls: "TlsFiles | None" = None,
    ) -> None:
        self._service = service
        self._tls = tls
        self._make_link: Callable[[socket.socket, asyncio.AbstractEventLoop], TcpLink] = TcpLink
        if tls is not None:
            from fs_common.transports.tls import TlsLink

            self._make_link = partial(TlsLink, files=tls)
        self._socket = listening
        self._loop = loop
        self.host, self.port = listening.getsockname()[:2]
        self._connections: set[ServingConnection] = set()
        self._idle: asyncio.Future[None] | None = None
        """Set by `close` while connections are left."""
        self._retry: asyncio.TimerHandle | None = None
        self._look = loop.call_later(LOOK_S, self._on_look)
        self.connections_max = connections_max(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        """More are ended as soon as they come, so that those that are there, and the disk, have their descriptors."""
        self._closed = False

    @property
    def service(self) -> Service:
        """What it answers with."""
        return self._service

    def start(self) -> None:
        self._loop.add_reader(self._socket.fileno(), self._on_acceptable)

    async def close(self, grace_s: float = 5.0) -> None:
        """Listen no more, say goodbye, let what is in work finish within `grace_s` seconds, then cut off the rest.

        When it returns no handler of this server runs any more.
        """
        if not self._closed:
            self._closed = True
            if self._retry is not None:
                self._retry.cancel()
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
        for connection in list(self._connections):
            connection.begin_close()
        if self._connections:
            if self._idle is None:
                self._idle = self._loop.create_future()
            timer = self._loop.call_later(grace_s, self._cut_off)
            try:
                await asyncio.shield(self._idle)
            finally:
                timer.cancel()
        self._look.cancel()

    def in_work(self) -> tuple[int, int, int]:
        """Over all connections: requests in work, their payload, answers that are not sent yet, in bytes."""
        requests = payload_bytes = unsent_bytes = 0
        for connection in self._connections:
            count, payload, unsent = connection.in_work()
            requests, payload_bytes, unsent_bytes = requests + count, payload_bytes + payload, unsent_bytes + unsent
        return requests, payload_bytes, unsent_bytes

    def _on_look(self) -> None:
        # Booked first: whatever becomes of this look, the next one comes.
        self._look = self._loop.call_later(LOOK_S, self._on_look)
        now = self._loop.time()
        for connection in list(self._connections):
            connection.look(now)
        if self._tls is not None:
            self._tls.look_at_own(now)

    def _cut_off(self) -> None:
        for connection in list(self._connections):
            connection.abort()

    def _on_acceptable(self) -> None:
        for _ in range(64):
            try:
                accepted, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # Out of descriptors or memory: the listening socket stays readable, so look again a little later.
                logger.error("cannot accept a connection: %s", error)
                self._loop.remove_reader(self._socket.fileno())
                self._retry = self._loop.call_later(ACCEPT_RETRY_S, self.start)
                return
            if len(self._connections) >= self.connections_max:
                message = "%d connections are open: no more are taken (ulimit -n)"
                self._service.strangers_log.line(logging.ERROR, message, len(self._connections))
                accepted.close()
                continue
            try:
                accepted.setblocking(False)
                tune(accepted)
            except OSError:
                accepted.close()
                continue
            link = self._make_link(accepted, self._loop)
            connection = ServingConnection(self._service, link, self._loop, self._on_ended)
            self._connections.add(connection)
            link.start(connection)

    def _on_ended(self, connection: ServingConnection) -> None:
        self._connections.discard(connection)
        if self._idle is not None and not self._connections and not self._idle.done():
            self._idle.set_result(None)


async def serve(service: Service, host: str, port: int, *, tls: "TlsFiles | None" = None) -> Server:
    """Listen on `host:port` (0: any free port) and answer with `service`; with `tls`, over TLS only.

    Raises `OSError` if the port is taken.
    """
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
    listening.setblocking(False)
    server = Server(service, listening, loop, tls)
    server.start()
    return server
