"""Frames over TLS: the link of `tcp.py` with a TLS session between the frames and the socket.

A record is decrypted straight into the memory that its bytes are for, and encrypted from where they are: large segments
go to OpenSSL as they lie, small ones and pieces of files are gathered in a buffer so that they fill whole records.

Where the kernel does the records itself (kTLS), the link is the plain one: `recvmsg_into`, `sendmsg`, `sendfile`.

Invariant: what OpenSSL was offered and could not send, because the socket was full, it is offered again until it is
sent, with the same bytes (`_held`): a record of it has begun. Memory of others is not held so long: it is copied then.

Source: DESIGN section 3. Concurrency: docs/concurrency/rpc.md.
"""

import asyncio
import contextlib
import logging
import os
import socket
import ssl
from collections.abc import Callable
from typing import Any

from fs_common.errors import Code, EmberError
from fs_common.frames import FrameError
from fs_common.limits import KIB
from fs_common.link import Receiver
from fs_common.telemetry import LimitedLog
from fs_common.tls.files import TlsFiles
from fs_common.tls.names import DAEMON_NAME, NOBODY, Proven, proven_by
from fs_common.transports.tcp import TURN_BYTES_MAX, TcpLink
from fs_common.wire import FileRange

logger = logging.getLogger(__name__)
_strangers = LimitedLog(logger)

RECORD_BYTES = 16 * KIB
"""The most that a record of TLS carries."""
PIECE_BYTES = 64 * KIB
"""OpenSSL is offered so much at a time: four records. Few enough to stay in the processor's cache from the file to the
socket, enough that Python's part of the work is a few per cent."""
HANDSHAKE_FIRST_BYTE = 0x16
"""Of every TLS connection; of a frame it is the "E" of its magic."""
BUFFERS_KEPT = 16

TLS_WANTED = (
    "this server speaks TLS only: tell the client the cluster's authority (tls_ca=, -o tls_ca=, EMBERFS_TLS_CA), "
    "a daemon its certificates (tls_dir)"
)
TLS_UNKNOWN = "it does not speak TLS: it has no tls_dir, or this is not the port that is meant"

SEGMENTS = 16
"""Looked at together for one piece."""
BUFFERS_KEPT = 16

SOL_TLS = 282
TLS_TX = 1
TLS_RX = 2
TCP_ULP = 31
"""Linux's; Python does not name them."""

_buffers: list[bytearray] = []
"""Spare ones, each `PIECE_BYTES` long. A loop in another thread takes and gives back as this one does."""


class TlsLink(TcpLink):
    """A connected socket with TLS. Of a server it begins with the handshake; a client's has that behind it."""

    def __init__(
        self,
        connected: socket.socket,
        loop: asyncio.AbstractEventLoop,
        files: TlsFiles | None = None,
        session: ssl.SSLSocket | None = None,
    ) -> None:
        """`files`: of a server whose caller has sent nothing yet. `session`: of a client, over `connected`."""
        super().__init__(connected, loop)
        self._files = files
        """Until the handshake begins."""
        self._session: Any = session
        """Over the descriptor of `_socket`, which keeps it."""
        self._reads = False
        """Records are read by OpenSSL; otherwise bytes come plain: from the kernel, or from a stranger."""
        self._writes = False
        self._greeted = False
        """The handshake is over, or there will be none."""
        self._held: memoryview | None = None
        """Offered to OpenSSL again when the socket has room; in `_held_buffer`."""
        self._held_buffer: bytearray | None = None
        self._proven = NOBODY
        if session is not None:
            self._on_greeted()

    @property
    def proven(self) -> Proven | None:
        return self._proven

    @property
    def unsent_bytes(self) -> int:
        return self._writer.unsent_bytes + (len(self._held) if self._held is not None else 0)

    def start(self, receiver: Receiver) -> None:
        self._receiver = receiver
        if self._greeted:
            self._loop.add_reader(self._file, self._on_readable)
            # What came right behind the handshake is in OpenSSL, and wakes nobody up.
            self._loop.call_soon(self._on_read_on)
        else:
            self._loop.add_reader(self._file, self._on_first_byte)

    def resume_reading(self) -> None:
        was = self._reading
        super().resume_reading()
        if not was and self._reads:
            self._loop.call_soon(self._on_read_on)

    def abort(self, error: EmberError) -> None:
        if self._over:
            return
        session, self._session = self._session, None
        if session is not None:
            session.detach()
        self._held = None
        self._give_back()
        super().abort(error)

    # Handshake

    def _on_first_byte(self) -> None:
        """A caller that speaks no TLS is told so in words that it understands."""
        try:
            first = self._socket.recv(1, socket.MSG_PEEK)
            if not first:
                self._end()
                return
            files, self._files = self._files, None
            assert files is not None and self._receiver is not None
            self._loop.remove_reader(self._file)
            if first[0] == HANDSHAKE_FIRST_BYTE:
                self._session, self._socket = session_over(self._socket, files.server_context(), server=True)
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, ValueError) as error:
            self._refused(error)
            return
        if self._session is None:
            self._greeted = True
            self._receiver.frame_bad(FrameError("tls", TLS_WANTED))
            return
        self._loop.add_reader(self._file, self._on_handshake)
        self._on_handshake()

    def _on_handshake(self) -> None:
        self._loop.remove_writer(self._file)
        try:
            self._session.do_handshake()
        except ssl.SSLWantReadError:
            return
        except ssl.SSLWantWriteError:
            self._loop.add_writer(self._file, self._on_handshake)
            return
        except (OSError, ValueError) as error:
            self._refused(error)
            return
        self._on_greeted()
        self._loop.add_reader(self._file, self._on_readable)
        self._on_readable()

    def _refused(self, error: Exception) -> None:
        reason = reason_of(error)
        _strangers.line(logging.WARNING, "%s: no TLS session: %s", self.name, reason)
        # OpenSSL has told the caller why. Over TLS 1.3 that has sent its first bytes by now: closing with those unread
        # would take the word back.
        self._greeted = self._finishing = True
        self._begin_linger()

    def _on_greeted(self) -> None:
        session = self._session
        certificate = session.getpeercert() or {}
        self._proven = proven_by(name for kind, name in certificate.get("subjectAltName", ()) if kind == "DNS")
        self._writes = not kernel_has(self._socket, TLS_TX)
        self._reads = not kernel_has(self._socket, TLS_RX)
        self._greeted = True

    # Reading

    def _on_readable(self) -> None:
        if not self._reads or self._linger is not None or self._finishing:
            if self._greeted or self._finishing:
                super()._on_readable()
            return
        reader = self._reader
        session = self._session
        read = session.read
        left = TURN_BYTES_MAX
        self._in_turn = True
        try:
            while True:
                into = reader.wants()[0]
                asked = len(into)
                count = read(asked, into)
                if not count:
                    self._on_end()
                    return
                self.received_bytes += count
                reader.filled(count)
                left -= count
                if not reader.payload_left:
                    if not self._take_events():
                        return
                    if count < asked and not reader.payload_left and not session.pending():
                        # Most likely there is no more. If there is, the loop tells; of an error it might not.
                        if code := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                            raise OSError(code, os.strerror(code))
                        self._set_wake_bytes(0)
                        return
                    # Between frames others get their turn: a window of small frames is work enough.
                    if not reader.within_frame and count == asked:
                        left = 0
                if left <= 0:
                    if self._read_on is None:
                        self._read_on = self._loop.call_soon(self._on_read_on)
                    return
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError, InterruptedError):
            # A part of what is still to come may be in OpenSSL already: a record at most.
            self._set_wake_bytes(reader.payload_left - 2 * RECORD_BYTES)
        except OSError as error:
            self._on_failure(error)
        except Exception as error:
            self._on_defect(error)
        finally:
            self._in_turn = False
            if self._writer.unsent_bytes or self._finishing:
                self._write()

    def _on_failure(self, error: OSError) -> None:
        if isinstance(error, ssl.SSLError):
            self.abort(EmberError(Code.PEER_GONE, f"connection {self.name} broke: {reason_of(error)}"))
        else:
            super()._on_failure(error)

    # Writing

    def _write(self) -> None:
        if not self._writes:
            if self._greeted:
                super()._write()
            elif self._finishing:
                # Nothing is said before the handshake is over.
                self._end()
            return
        if self._over or self._writable_watched:
            return
        writer = self._writer
        write = self._session.write
        left = TURN_BYTES_MAX
        had = self.unsent_bytes
        try:
            while True:
                held = self._held
                if held is not None:
                    write(held)
                    count = len(held)
                    self._held = None
                    self._give_back()
                else:
                    due = writer.gather(SEGMENTS)
                    if due is None:
                        break
                    if isinstance(due, FileRange) or len(due[0]) < RECORD_BYTES:
                        if not self._fill():
                            return
                        continue
                    piece = memoryview(due[0])[:PIECE_BYTES]
                    count = len(piece)
                    try:
                        write(piece)
                    except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                        self._hold(piece)
                        writer.sent(count)
                        raise
                    writer.sent(count)
                left -= count
                if left <= 0:
                    raise BlockingIOError
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError, BlockingIOError, InterruptedError):
            self._writable_watched = True
            self._loop.add_writer(self._file, self._on_writable)
        except OSError as error:
            self._on_failure(error)
            return
        if had and self._receiver is not None:
            self._receiver.drained()
        if self._finishing and not self.unsent_bytes:
            self._begin_linger()

    def _fill(self) -> bool:
        """Hold the next piece: small segments one after another, and bytes of files. False: the link is over."""
        writer = self._writer
        view = memoryview(self._take_buffer())
        filled = 0
        while filled < PIECE_BYTES and (due := writer.gather(SEGMENTS)) is not None:
            if isinstance(due, FileRange):
                count = os.preadv(due.file, [view[filled : filled + due.length]], due.offset)
                if not count:
                    message = f"file ended before byte {due.offset} that was promised to {self.name}"
                    logger.error("%s", message)
                    self.abort(EmberError(Code.PEER_GONE, message))
                    return False
                filled += count
                writer.sent(count)
                continue
            begin = filled
            large = False
            for segment in due:
                # Of a large segment what fills the record: the rest goes as it lies.
                large = len(segment) >= RECORD_BYTES
                room = -filled % RECORD_BYTES if large else PIECE_BYTES - filled
                taken = memoryview(segment)[:room]
                view[filled : filled + len(taken)] = taken
                filled += len(taken)
                if large or filled == PIECE_BYTES:
                    break
            writer.sent(filled - begin)
            if large:
                break
        self._held = view[:filled]
        return True

    def _hold(self, piece: memoryview) -> None:
        view = memoryview(self._take_buffer())[: len(piece)]
        view[:] = piece
        self._held = view

    def _take_buffer(self) -> bytearray:
        try:
            buffer = _buffers.pop()
        except IndexError:
            buffer = bytearray(PIECE_BYTES)
        self._held_buffer = buffer
        return buffer

    def _give_back(self) -> None:
        buffer, self._held_buffer = self._held_buffer, None
        if buffer is not None and len(_buffers) < BUFFERS_KEPT:
            _buffers.append(buffer)

    def _begin_linger(self) -> None:
        if self._linger is None and not self._over and self._writes:
            # Says in a record of its own that nothing follows; the answer to it is not waited for.
            with contextlib.suppress(OSError, ValueError):
                self._session.unwrap()
        super()._begin_linger()


def session_over(
    connected: socket.socket, context: ssl.SSLContext, *, server: bool
) -> tuple[ssl.SSLSocket, socket.socket]:
    """A session that has not begun its handshake, and the socket below, which goes on being the descriptor's owner."""
    session = context.wrap_socket(
        connected,
        server_side=server,
        do_handshake_on_connect=False,
        server_hostname=None if server else DAEMON_NAME,
    )
    return session, socket.socket(fileno=session.fileno())


async def connected_link(connected: socket.socket, loop: asyncio.AbstractEventLoop, files: TlsFiles) -> TlsLink:
    """A client's link over a connected socket, after the handshake. Raises `EmberError`, UNREACHABLE."""
    try:
        session, below = session_over(connected, files.client_context(), server=False)
    except BaseException:
        connected.close()
        raise
    try:
        while True:
            try:
                session.do_handshake()
                return TlsLink(below, loop, session=session)
            except ssl.SSLWantReadError:
                await _ready(session.fileno(), loop.add_reader, loop.remove_reader)
            except ssl.SSLWantWriteError:
                await _ready(session.fileno(), loop.add_writer, loop.remove_writer)
    except BaseException as error:
        session.detach()
        below.close()
        if isinstance(error, OSError | ValueError):
            raise EmberError(Code.UNREACHABLE, reason_of(error)) from None
        raise


async def _ready(
    descriptor: int, watch: Callable[[int, Callable[[], None]], Any], unwatch: Callable[[int], Any]
) -> None:
    ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    watch(descriptor, lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        unwatch(descriptor)


def kernel_has(connected: socket.socket, direction: int) -> bool:
    """Whether the kernel makes (`TLS_TX`) or reads (`TLS_RX`) the records: the descriptor then takes plain bytes."""
    try:
        return (
            connected.getsockopt(socket.IPPROTO_TCP, TCP_ULP, 8).rstrip(b"\0") == b"tls"
            and len(connected.getsockopt(SOL_TLS, direction, 4)) == 4
        )
    except OSError:
        return False


NOT_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST", "UNKNOWN_PROTOCOL")
"""What OpenSSL says of bytes that are no record, by its release."""


def reason_of(error: Exception) -> str:
    """Why there is no session, in words that say what to do."""
    if isinstance(error, ssl.SSLCertVerificationError):
        # Its codes are those of X509_V_ERR_*.
        match error.verify_code:
            case 9:
                return "its certificate is not valid yet: a clock is wrong, here or where it was made"
            case 10:
                return "its certificate has expired (make another: emberfs certs rotate)"
            case 18 | 19 | 20 | 21:
                return "its certificate is not of the authority in ca.pem: another cluster's, or one of before"
            case 62:
                return "its certificate is of this authority, but of no daemon of a cluster"
        return f"its certificate is refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        if error.reason in NOT_TLS:
            return TLS_UNKNOWN
        if error.reason in ("TLSV1_ALERT_UNKNOWN_CA", "SSLV3_ALERT_BAD_CERTIFICATE", "SSLV3_ALERT_CERTIFICATE_UNKNOWN"):
            return "the other side does not take our certificate for one of its cluster's"
        if error.reason == "SSLV3_ALERT_CERTIFICATE_EXPIRED":
            return "the other side says that our certificate has expired (make another: emberfs certs rotate)"
        return f"TLS failed: {error.reason or error}"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error)
