"""A TLS session whose bytes go to and from the socket by the calls of this process, not by OpenSSL's.

OpenSSL itself asks the kernel twice for each record of 16 KiB, and gives it each record alone: 192 calls for a MiB,
where these are a dozen. It costs a copy more each way, within the processor's cache, and less than the calls: a sixth
of all that a MiB costs both sides. So `read` and `write` never wait for a socket: what is read has been put in by
`refill`, what is written is taken out by `sealed`.

Called by: `tls.TlsLink`. Used from its loop alone.
"""

import socket
import ssl
from collections.abc import Callable
from typing import Any

from fs_common.limits import KIB
from fs_common.tls.names import DAEMON_NAME, NOBODY, Proven, proven_by

RECORD_BYTES = 16 * KIB
"""The most that a record of TLS carries."""
REFILL_BYTES = 256 * KIB
"""Asked of the kernel at once: it stays in the processor's cache until it is decrypted."""
BUFFERS_KEPT = 8

_buffers: list[bytearray] = []
"""Spare ones, each `REFILL_BYTES` long. A loop in another thread takes and gives back as this one does."""


def take_buffer() -> bytearray:
    try:
        return _buffers.pop()
    except IndexError:
        return bytearray(REFILL_BYTES)


def give_back(buffer: bytearray) -> None:
    if len(_buffers) < BUFFERS_KEPT:
        _buffers.append(buffer)


class TlsSession:
    """One side of a session over a connected, non-blocking socket, which stays its owner's."""

    def __init__(self, connected: socket.socket, context: ssl.SSLContext, *, server: bool) -> None:
        """A client wants a daemon of the cluster that `context` trusts. Raises `OSError`, `ValueError`."""
        self._socket = connected
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._session: Any = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server, server_hostname=None if server else DAEMON_NAME
        )
        # The object below, where Python has it as it always has: its own method only passes the call on, which for each
        # record costs as much as the call.
        below: Any = getattr(self._session, "_sslobj", self._session)
        self.read: Callable[[int, memoryview], int] = below.read
        """Decrypts into memory: bytes of one record at most. 0: the other side has ended the session.

        Raises `SSLWantReadError` (`refill`), `SSLEOFError` (the connection ended without a word), `SSLError`.
        """
        self.write: Callable[[memoryview], int] = below.write
        """Encrypts all of it, for `sealed`."""
        self.sealed: Callable[[], bytes] = self._outgoing.read
        """What is to be sent, taken out."""

        self.certificate_ends_s: float | None = None
        """When that of the other side ends, in seconds since 1970; None: it has shown none."""

    @property
    def waits(self) -> bool:
        """There may be more to read without a `refill`."""
        return bool(self._incoming.pending or self._session.pending())

    def refill(self) -> None:
        """Take what the kernel has. Raises `BlockingIOError` when that is nothing, `OSError`."""
        buffer = take_buffer()
        try:
            count = self._socket.recv_into(buffer)
            if count:
                self._incoming.write(memoryview(buffer)[:count])
            else:
                self._incoming.write_eof()
        finally:
            give_back(buffer)

    def shake(self) -> Proven:
        """Go on with the handshake; who the other side is, when it is over.

        Raises `BlockingIOError` (more has to come), `OSError`, `ssl.SSLError` (its alert has been sent), `ValueError`.
        """
        while True:
            over = False
            try:
                self._session.do_handshake()
                over = True
            except ssl.SSLWantReadError:
                pass
            finally:
                self._send()
            if over:
                certificate = self._session.getpeercert()
                if not certificate:
                    return NOBODY
                self.certificate_ends_s = ssl.cert_time_to_seconds(certificate["notAfter"])
                return proven_by(name for kind, name in certificate.get("subjectAltName", ()) if kind == "DNS")
            self.refill()

    def finish(self) -> None:
        """Say that nothing follows; the other side's word is not waited for. Raises as `shake`."""
        try:
            self._session.unwrap()
        finally:
            self._send()

    def _send(self) -> None:
        """A few KiB at most, and nothing else is on its way: the kernel has room."""
        if self._outgoing.pending:
            self._socket.send(self._outgoing.read())
