"""Frames over TLS: the link of `tcp.py` with a TLS session between the frames and the socket.

A record is decrypted straight into the memory that its bytes are for. Large segments are encrypted from where they are;
small ones, and bytes of files, are gathered in a buffer, so that they fill records.

Invariant: what was encrypted is sent, to its last byte and in order (`_sealed`): no record can be taken back. Memory of
others is given back before, as it is encrypted.

Concurrency: docs/concurrency/rpc.md.
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
from fs_common.tls.names import NOBODY, Proven
from fs_common.tls.reasons import TLS_WANTED, reason_of
from fs_common.transports.tcp import TURN_BYTES_MAX, TcpLink
from fs_common.transports.tls_session import RECORD_BYTES, TlsSession, give_back, take_buffer
from fs_common.wire import FileRange

logger = logging.getLogger(__name__)
_strangers = LimitedLog(logger)

PIECE_BYTES = 128 * KIB
"""Encrypted and sent at a time: it stays in the processor's cache from the file to the socket."""
SEGMENTS = 16
"""Looked at together for one piece."""
HANDSHAKE_FIRST_BYTE = 0x16
"""Of every TLS connection; of a frame it is the "E" of its magic."""


class TlsLink(TcpLink):
    """A connected socket with TLS. Of a server it begins with the handshake; a client's has that behind it."""

    def __init__(
        self,
        connected: socket.socket,
        loop: asyncio.AbstractEventLoop,
        files: TlsFiles | None = None,
        session: TlsSession | None = None,
        proven: Proven = NOBODY,
    ) -> None:
        """`files`: of a server whose caller has sent nothing yet. `session`: of a client, with a server that is
        `proven`."""
        super().__init__(connected, loop)
        self._files = files
        """Until the handshake begins."""
        self._session = session
        self._shaken = session is not None
        """The handshake is over, or there will be none: the caller speaks no TLS, or has been refused."""
        self._sealed: memoryview | None = None
        """Encrypted and not sent: the socket is full."""
        self._proven = proven
        self._certificate_ends_s = session.certificate_ends_s if session is not None else None

    @property
    def proven(self) -> Proven | None:
        return self._proven

    @property
    def certificate_ends_s(self) -> float | None:
        return self._certificate_ends_s

    @property
    def unsent_bytes(self) -> int:
        return self._writer.unsent_bytes + (len(self._sealed) if self._sealed is not None else 0)

    def start(self, receiver: Receiver) -> None:
        self._receiver = receiver
        if self._shaken:
            self._loop.add_reader(self._file, self._on_readable)
            # What came right behind the handshake is in the session, and wakes nobody up.
            self._loop.call_soon(self._on_read_on)
        else:
            self._loop.add_reader(self._file, self._on_first_byte)

    def resume_reading(self) -> None:
        was = self._reading
        super().resume_reading()
        if not was:
            self._loop.call_soon(self._on_read_on)

    def abort(self, error: EmberError) -> None:
        self._session = None
        self._sealed = None
        super().abort(error)

    # Handshake

    def _on_first_byte(self) -> None:
        """A caller that speaks no TLS is told so in words that it understands."""
        files, receiver = self._files, self._receiver
        assert files is not None and receiver is not None
        try:
            first = self._socket.recv(1, socket.MSG_PEEK)
            if not first:
                self._end()
                return
            self._files = None
            self._loop.remove_reader(self._file)
            if first[0] == HANDSHAKE_FIRST_BYTE:
                self._session = TlsSession(self._socket, files.server_context(), server=True)
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, ValueError) as error:
            self._refuse(error)
            return
        if self._session is None:
            self._shaken = True
            receiver.frame_bad(FrameError("tls", TLS_WANTED))
            return
        self._loop.add_reader(self._file, self._on_handshake)
        self._on_handshake()

    def _on_handshake(self) -> None:
        if self._finishing:
            self._end()
            return
        assert self._session is not None
        try:
            self._proven = self._session.shake()
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, ValueError) as error:
            self._refuse(error)
            return
        self._shaken = True
        self._loop.add_reader(self._file, self._on_readable)
        self._on_readable()

    def _refuse(self, error: Exception) -> None:
        reason = reason_of(error)
        _strangers.line(logging.WARNING, "%s: no TLS session: %s", self.name, reason)
        # The caller has been told why. Over TLS 1.3 it has sent its first bytes by now: closing with those unread would
        # take the word back.
        self._session = None
        self._shaken = self._finishing = True
        self._begin_linger()

    # Reading

    def _on_readable(self) -> None:
        session = self._session
        if session is None or self._linger is not None or self._finishing:
            super()._on_readable()
            return
        reader = self._reader
        left = TURN_BYTES_MAX
        self._in_turn = True
        try:
            while True:
                into = reader.wants()[0]
                asked = len(into)
                if asked > RECORD_BYTES and reader.payload_left:
                    count = self._read_payload(session, into)
                else:
                    count = self._read_some(session, into)
                if not count:
                    self._on_end()
                    return
                left -= count
                if not reader.payload_left:
                    if not self._take_events():
                        return
                    if count < asked and not reader.payload_left and not session.waits:
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
        except (BlockingIOError, InterruptedError):
            # A part of what is still to come may be in the session already: less than a record.
            self._set_wake_bytes(reader.payload_left - 2 * RECORD_BYTES)
        except ssl.SSLEOFError:
            self._on_end()
        except OSError as error:
            self._on_failure(error)
        except Exception as error:
            self._on_defect(error)
        finally:
            self._in_turn = False
            if self._writer.unsent_bytes or self._finishing:
                self._write()

    def _read_some(self, session: TlsSession, into: memoryview) -> int:
        """Bytes of one record; 0: the session has ended. Raises as `TlsSession.read`, and BlockingIOError."""
        # Not found out by asking for a record: the exception costs as much as a record.
        if not session.waits:
            session.refill()
        while True:
            try:
                count = session.read(len(into), into)
            except ssl.SSLWantReadError:
                session.refill()
                continue
            if count:
                self.received_bytes += count
                self._reader.filled(count)
            return count

    def _read_payload(self, session: TlsSession, into: memoryview) -> int:
        """Fill `into`, record by record; less than that: the session has ended. What came is counted before an error,
        BlockingIOError too, is raised.

        Each record costs a call, 64 of them for a MiB: the inner loop has nothing else in it.
        """
        read = session.read
        size = len(into)
        filled = 0
        try:
            while filled < size:
                try:
                    while filled < size:
                        count = read(size - filled, into[filled:])
                        if not count:
                            return 0
                        filled += count
                except ssl.SSLWantReadError:
                    session.refill()
        finally:
            if filled:
                self.received_bytes += filled
                self._reader.filled(filled)
        return filled

    def _on_failure(self, error: OSError) -> None:
        if isinstance(error, ssl.SSLError):
            self.abort(EmberError(Code.PEER_GONE, f"connection {self.name} broke: {reason_of(error)}"))
        else:
            super()._on_failure(error)

    # Writing

    def _write(self) -> None:
        session = self._session
        if session is None or not self._shaken:
            if self._shaken:
                super()._write()
            elif self._finishing:
                # Nothing is said before the handshake is over.
                self._end()
            return
        if self._over or self._writable_watched:
            return
        writer = self._writer
        left = TURN_BYTES_MAX
        had = self.unsent_bytes
        try:
            while True:
                sealed = self._sealed
                if sealed is None:
                    due = writer.gather(SEGMENTS)
                    if due is None:
                        break
                    if isinstance(due, FileRange) or len(due[0]) < RECORD_BYTES:
                        if not self._seal_gathered(session):
                            return
                    else:
                        piece = memoryview(due[0])[:PIECE_BYTES]
                        session.write(piece)
                        writer.sent(len(piece))
                    sealed = memoryview(session.sealed())
                    self._sealed = sealed
                count = self._socket.send(sealed)
                left -= count
                if count < len(sealed):
                    self._sealed = sealed[count:]
                    raise BlockingIOError
                self._sealed = None
                if left <= 0:
                    raise BlockingIOError
        except (BlockingIOError, InterruptedError):
            self._writable_watched = True
            self._loop.add_writer(self._file, self._on_writable)
        except OSError as error:
            self._on_failure(error)
            return
        if had and self._receiver is not None:
            self._receiver.drained()
        if self._finishing and not self.unsent_bytes:
            self._begin_linger()

    def _seal_gathered(self, session: TlsSession) -> bool:
        """Encrypt the next piece: small segments one after another, and bytes of files. False: the link is over."""
        writer = self._writer
        buffer = take_buffer()
        view = memoryview(buffer)
        filled = 0
        try:
            while filled < PIECE_BYTES and (due := writer.gather(SEGMENTS)) is not None:
                if isinstance(due, FileRange):
                    end = min(filled + due.length, PIECE_BYTES)
                    count = os.preadv(due.file, [view[filled:end]], due.offset)
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
                    # Of a large segment what fills the record: the rest is encrypted from where it is.
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
            session.write(view[:filled])
        finally:
            give_back(buffer)
        return True

    def _begin_linger(self) -> None:
        if self._linger is None and not self._over and self._session is not None:
            # The record that says that nothing follows.
            with contextlib.suppress(OSError, ValueError):
                self._session.finish()
        super()._begin_linger()


async def connected_link(connected: socket.socket, loop: asyncio.AbstractEventLoop, files: TlsFiles) -> TlsLink:
    """A client's link over a connected socket, after the handshake. Raises `EmberError`, UNREACHABLE."""
    try:
        session = TlsSession(connected, files.client_context(), server=False)
        while True:
            try:
                proven = session.shake()
                return TlsLink(connected, loop, session=session, proven=proven)
            except BlockingIOError:
                await _readable(connected.fileno(), loop.add_reader, loop.remove_reader)
    except BaseException as error:
        connected.close()
        if isinstance(error, OSError | ValueError):
            raise EmberError(Code.UNREACHABLE, reason_of(error)) from None
        raise


async def _readable(
    descriptor: int, watch: Callable[[int, Callable[[], None]], Any], unwatch: Callable[[int], Any]
) -> None:
    ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    watch(descriptor, lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        unwatch(descriptor)
