"""The files that a process trusts by and shows of itself, and the contexts made of them.

    tls_dir of a daemon          tls_ca of a client
      ca.pem    authorities        the same ca.pem
      cert.pem  the daemon's certificate
      key.pem   its key

`ca.pem` may hold several authorities: while one takes over from another, both are trusted.

Files are looked at again for each new connection, and taken when they have changed: certificates are replaced without a
restart, and connections that are open stay. Files that cannot be used, as when only one of two is replaced yet, change
nothing; the log says so. It also says, each day, that the certificate will end.

Invariant: a context is never changed once it is made, so no connection sees half of a change.

Called by: transports, the control plane, HTTP.
"""

import contextlib
import logging
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fs_common.errors import Code, EmberError
from fs_common.quantities import counted
from fs_common.telemetry import LimitedLog
from fs_common.tls.names import DAEMON_NAME, NOBODY, Proven, describe, proven_by
from fs_common.tls.reasons import reason_of

_log = logging.getLogger(__name__)
_trouble = LimitedLog(_log, lines_max=2, period_s=60.0)

CA_FILE = "ca.pem"
CERTIFICATE_FILE = "cert.pem"
KEY_FILE = "key.pem"

WARN_DAYS = 30
"""Before the end of a certificate: a month of daily lines."""
DAY_S = 86_400.0

_State = tuple[tuple[int, int, int], ...]


class TlsFiles:
    """What a process is and whom it trusts. Made by `of_daemon` and `of_client`."""

    def __init__(self, ca: Path, certificate: Path | None, key: Path | None) -> None:
        self._ca = ca
        self._certificate = certificate
        self._key = key
        self._state: _State = ()
        self._client: ssl.SSLContext | None = None
        self._server: ssl.SSLContext | None = None
        self._http: ssl.SSLContext | None = None
        self._texts: tuple[bytes, bytes | None, bytes | None] = (b"", None, None)
        self.own = NOBODY
        """Which daemon the certificate is of."""
        self.ends_s = 0.0
        """When it ends, in seconds since 1970; 0: a client has none."""
        self._looked_s = float("-inf")
        """When it was looked at last, by the clock of `look_at_own`."""
        self._take()

    @classmethod
    def of_daemon(cls, directory: str | Path, role: str = "", node: int = 0) -> "TlsFiles":
        """`role`, `node`: whose they have to be. Raises `EmberError`, INVALID: a file is missing or cannot be used."""
        path = Path(directory)
        files = cls(path / CA_FILE, path / CERTIFICATE_FILE, path / KEY_FILE)
        if role and not files.own.stands_for(role, node):
            message = f"{path} is for {files.own}, and this is {describe(role, node)}: give it the folder made for it"
            raise EmberError(Code.INVALID, message)
        return files

    @classmethod
    def of_client(cls, ca: str | Path) -> "TlsFiles":
        """Raises `EmberError`, INVALID."""
        return cls(Path(ca), None, None)

    @property
    def paths(self) -> list[Path]:
        return [path for path in (self._ca, self._certificate, self._key) if path is not None]

    def client_context(self) -> ssl.SSLContext:
        """To connect with: the server has to show a certificate of the cluster's; a daemon shows its own."""
        self._look()
        assert self._client is not None
        return self._client

    def server_context(self) -> ssl.SSLContext:
        """To accept with: a caller may show a certificate of the cluster's, and no other."""
        self._look()
        assert self._server is not None, "a client's files are not for a server"
        return self._server

    def http_context(self) -> ssl.SSLContext:
        """To serve HTTPS with: callers show tokens, not certificates. It takes new files by itself."""
        context = self._http
        assert context is not None, "a client's files are not for a server"

        def newest(session: ssl.SSLObject, name: str | None, asked: ssl.SSLContext) -> None:
            self._look()
            assert self._http is not None
            session.context = self._http

        context.sni_callback = newest
        return context

    def read(self) -> tuple[bytes, bytes | None, bytes | None]:
        """Authorities, certificate, key, as they are in the files."""
        self._look()
        return self._texts

    def look_at_own(self, now_s: float, time_s: Callable[[], float] = time.time) -> None:
        """Called often, with any clock's seconds: once a day it says that the certificate will end, or has."""
        if now_s < self._looked_s + DAY_S:
            return
        self._looked_s = now_s
        self._look()
        days = (self.ends_s - time_s()) / DAY_S
        if self.ends_s and days < WARN_DAYS:
            level = logging.WARNING if days > 0 else logging.ERROR
            _log.log(level, "%s: %s (emberfs certs rotate)", self._certificate, ends_in(days))

    def _look(self) -> None:
        try:
            if _state(self.paths) != self._state:
                self._take()
                _log.info("certificates in %s are new: new connections use them", self._ca.parent)
        except (OSError, EmberError) as error:
            _trouble.line(logging.ERROR, "new certificates are not used: %s", error)

    def _take(self) -> None:
        # Before they are read: what changes meanwhile is seen at the next look.
        state = self._state_now()
        client = _context(ssl.PROTOCOL_TLS_CLIENT)
        self._load(client)
        server = http = None
        if self._certificate is not None:
            server = _context(ssl.PROTOCOL_TLS_SERVER)
            self._load(server)
            server.verify_mode = ssl.CERT_OPTIONAL
            http = _context(ssl.PROTOCOL_TLS_SERVER)
            self._load(http)
            self.own, self.ends_s = self._meet_itself(client, server)
        texts = self._read()
        self._client, self._server, self._http, self._texts, self._state = client, server, http, texts, state

    def _meet_itself(self, client: ssl.SSLContext, server: ssl.SSLContext) -> tuple[Proven, float]:
        """A session in memory with itself: what others would say of the certificate is known before they are there.
        Whose it is, and when it ends."""
        there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
        caller = client.wrap_bio(back, there, server_hostname=DAEMON_NAME)
        called = server.wrap_bio(there, back, server_side=True)
        try:
            for side in (caller, called, caller, called):
                with contextlib.suppress(ssl.SSLWantReadError):
                    side.do_handshake()
        except ssl.SSLError as error:
            raise EmberError(Code.INVALID, _advice(self._certificate, reason_of(error))) from None
        shown: dict[str, Any] = caller.getpeercert() or {}
        names = (name for kind, name in shown.get("subjectAltName", ()) if kind == "DNS")
        return proven_by(names), ssl.cert_time_to_seconds(shown["notAfter"])

    def _state_now(self) -> _State:
        try:
            return _state(self.paths)
        except OSError as error:
            raise EmberError(Code.INVALID, _advice(error.filename, error.strerror or "")) from None

    def _read(self) -> tuple[bytes, bytes | None, bytes | None]:
        try:
            ca, *own = (path.read_bytes() for path in self.paths)
        except OSError as error:
            raise EmberError(Code.INVALID, _advice(error.filename, error.strerror or "")) from None
        return (ca, own[0], own[1]) if own else (ca, None, None)

    def _load(self, context: ssl.SSLContext) -> None:
        path = self._ca
        try:
            context.load_verify_locations(path)
            if self._certificate is not None:
                path = self._certificate
                context.load_cert_chain(path, self._key, password=_no_password)
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                raise EmberError(Code.INVALID, _advice(self._key, "is not the key of cert.pem beside it")) from None
            raise EmberError(Code.INVALID, _advice(path, "is not the PEM that is expected there")) from None
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else None
            raise EmberError(Code.INVALID, _advice(path, reason or str(error))) from None


def _context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    # Connections live long: a resumption would save nothing, and a ticket would be a record that nobody asked for.
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0
    return context


def _state(paths: list[Path]) -> _State:
    found = [path.stat() for path in paths]
    return tuple((stat.st_mtime_ns, stat.st_size, stat.st_ino) for stat in found)


def _no_password() -> str:
    raise ValueError("is encrypted: a daemon has nobody to ask for a password")


def _advice(path: object, problem: str) -> str:
    return f"{path}: {problem} (made by: emberfs certs)"


def ends_in(days: float) -> str:
    """Of a certificate that has so many days left."""
    if days <= 0:
        return "its certificate has expired: nobody talks to it any more"
    return f"its certificate ends in {counted(int(days), 'day')}: nobody will talk to it then"
