"""The files that a process trusts by and shows of itself, and the contexts made of them.

    tls_dir of a daemon          tls_ca of a client
      ca.pem    authorities        the same ca.pem
      cert.pem  the daemon's certificate
      key.pem   its key

`ca.pem` may hold several authorities: while one takes over from another, both are trusted.

Files are looked at again for each new connection, and taken when they have changed: certificates are replaced without a
restart, and connections that are open stay. Files that cannot be used, as when only one of two is replaced yet, change
nothing; the log says so.

Invariant: a context is never changed once it is made, so no connection sees half of a change.

Called by: transports, the control plane, HTTP.
"""

import logging
import ssl
from pathlib import Path

from fs_common.errors import Code, EmberError
from fs_common.telemetry import LimitedLog

_log = logging.getLogger(__name__)
_trouble = LimitedLog(_log, lines_max=2, period_s=60.0)

CA_FILE = "ca.pem"
CERTIFICATE_FILE = "cert.pem"
KEY_FILE = "key.pem"

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
        self._take()

    @classmethod
    def of_daemon(cls, directory: str | Path) -> "TlsFiles":
        """Raises `EmberError`, INVALID: a file is missing or cannot be used."""
        path = Path(directory)
        return cls(path / CA_FILE, path / CERTIFICATE_FILE, path / KEY_FILE)

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
        texts = self._read()
        self._client, self._server, self._http, self._texts, self._state = client, server, http, texts, state

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
