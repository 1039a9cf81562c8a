"""Making a cluster's authority and the certificates of its daemons.

One directory holds all of it, with the authority's key, and is kept where an administrator is, not on the daemons:

    ca.pem            authorities that are trusted: the newest first
    ca-key.pem        key of the newest
    meta/             what the metadata server gets as its `tls_dir`: ca.pem, cert.pem, key.pem
    storage-1/        ... the storage daemon of node 1
    client/           what clients get: ca.pem

A change of the authority has three steps, so that at each moment everybody trusts everybody: `rotate_authority` makes a
new one and lets all trust both; `issue` signs anew by the new one; `forget_authorities` drops the old one. Between two
steps the directories are given to whoever uses them.

A file is replaced as a whole, by one rename: who reads meanwhile has the old one or the new one. Keys are readable by
their owner alone from the beginning, never by a later chmod.

Called by: `emberfs certs`, `emberfs up --tls`. Only this module imports `cryptography`.
"""

import datetime
import ipaddress
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fs_common.errors import Code, EmberError
from fs_common.tls.files import CA_FILE, CERTIFICATE_FILE, KEY_FILE
from fs_common.tls.names import META, NOBODY, STORAGE, Proven, names_of, proven_by

CA_KEY_FILE = "ca-key.pem"
CLIENT_DIRECTORY = "client"
CA_DAYS = 3650
DAEMON_DAYS = 397
"""As long as browsers take a certificate for good; rotating costs nobody anything."""
BACKDATED = datetime.timedelta(days=1)
"""Clocks differ: a certificate is good on a machine that is late."""
KEY_MODE = 0o600
CERTIFICATE_MODE = 0o644

Key = ec.EllipticCurvePrivateKey


class Shown(NamedTuple):
    """What there is to say of a certificate."""

    subject: str
    names: list[str]
    """DNS names and addresses."""
    proven: Proven
    """Which daemon's; `NOBODY`: an authority's, or one that was not made here."""
    authority: bool
    not_before: datetime.datetime
    not_after: datetime.datetime
    serial: int
    issuer_key: str
    """Of the authority's key that signed it, 8 hex digits."""
    own_key: str


class Daemon(NamedTuple):
    """Who gets a certificate."""

    proven: Proven
    hosts: Sequence[str] = ()
    """Names and addresses by which browsers and tools reach it over HTTP."""

    @property
    def directory(self) -> str:
        return names_of(self.proven)[1].partition(".")[0]


def daemon_of(name: str, hosts: Sequence[str] = ()) -> Daemon:
    """The daemon whose directory has this name: "meta", "storage-3". Raises `EmberError`, INVALID."""
    for host in hosts:
        _host(host)
    proven = proven_by([f"{name}.{names_of(Proven(META))[0]}"])
    if proven is NOBODY:
        raise EmberError(Code.INVALID, f"{name!r} is no daemon's name: write {META}, or {STORAGE}-N for node N")
    return Daemon(proven, hosts)


def own_hosts(name: str, more: Sequence[str] = ()) -> list[str]:
    """The hosts in a daemon's certificate: those given, its name as a container's is, and this machine's own."""
    return list(dict.fromkeys([name, "localhost", "127.0.0.1", "::1", *more]))


def make_authority(directory: Path, cluster: str, days: int = CA_DAYS) -> None:
    """A new cluster's authority. Raises `EmberError`, INVALID: there is one; `OSError`."""
    if (directory / CA_KEY_FILE).exists():
        raise EmberError(Code.INVALID, f"{directory} has an authority already: emberfs certs issue, or rotate")
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    key, certificate = _authority(cluster, days)
    # The key last: what has one is complete.
    _put_certificates(directory / CA_FILE, [certificate])
    _put_key(directory / CA_KEY_FILE, key)
    _put_client(directory)


def rotate_authority(directory: Path, days: int = CA_DAYS) -> None:
    """A new authority beside those there are: daemons and clients trust all of them from now on."""
    _, current = _authority_of(directory)
    trusted = authorities(directory)
    names = current.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    key, certificate = _authority(str(names[0].value) if names else "emberfs", days)
    _put_certificates(directory / CA_FILE, [certificate, *trusted])
    _put_key(directory / CA_KEY_FILE, key)
    _spread(directory)


def forget_authorities(directory: Path) -> int:
    """Trust the newest authority alone; returns how many were dropped.

    Raises `EmberError`, INVALID: a daemon's certificate is still of another one.
    """
    _, current = _authority_of(directory)
    trusted = authorities(directory)
    signer = _key_name(current.public_key())
    for daemon in daemons(directory):
        shown = show(directory / daemon.directory / CERTIFICATE_FILE)
        if shown.issuer_key != signer:
            message = f"{daemon.directory} still has a certificate of an earlier authority: emberfs certs issue first"
            raise EmberError(Code.INVALID, message)
    _put_certificates(directory / CA_FILE, [current])
    _spread(directory)
    return len(trusted) - 1


def issue(directory: Path, daemon: Daemon, days: int = DAEMON_DAYS) -> Path:
    """A certificate and a new key for a daemon, in its directory, which is returned; those it had are replaced.

    Without `hosts` it keeps those it had.
    """
    authority_key, authority = _authority_of(directory)
    target = directory / daemon.directory
    hosts = daemon.hosts
    if not hosts and (target / CERTIFICATE_FILE).exists():
        own = names_of(daemon.proven)
        hosts = [name for name in show(target / CERTIFICATE_FILE).names if name not in own]
    target.mkdir(exist_ok=True, mode=0o700)
    now = _now()
    not_after = min(now + datetime.timedelta(days=days), authority.not_valid_after_utc)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(authority, daemon.directory))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(not_after)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(
            # Daemons are called, and call each other.
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
            critical=False,
        )
        .add_extension(
            x509.SubjectAlternativeName([*map(x509.DNSName, names_of(daemon.proven)), *map(_host, hosts)]),
            critical=False,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_signed_by(authority), critical=False)
    )
    certificate = builder.sign(authority_key, hashes.SHA256())
    _put_certificates(target / CA_FILE, authorities(directory))
    # A daemon that looks between the two finds a key that does not fit, and keeps what it has until both are there.
    _put_key(target / KEY_FILE, key)
    _put_certificates(target / CERTIFICATE_FILE, [certificate])
    return target


def daemons(directory: Path) -> list[Daemon]:
    """Those that have a certificate in `directory`, in order."""
    found = []
    for path in directory.glob(f"*/{CERTIFICATE_FILE}"):
        proven = show(path).proven
        if proven is not NOBODY:
            found.append(Daemon(proven))
    return sorted(found)


def authorities(directory: Path) -> list[x509.Certificate]:
    return _read(directory / CA_FILE)


def show(path: Path) -> Shown:
    """Of the first certificate in a file. Raises `EmberError`, INVALID."""
    return show_all(path)[0]


def show_all(path: Path) -> list[Shown]:
    """Of every certificate in a file. Raises `EmberError`, INVALID."""
    return [_shown(certificate) for certificate in _read(path)]


def _read(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise EmberError(Code.INVALID, f"{path}: {error.strerror}") from None
    except ValueError:
        raise EmberError(Code.INVALID, f"{path}: is no certificate in PEM") from None


def _shown(certificate: x509.Certificate) -> Shown:
    names = []
    authority = False
    signer = ""
    for extension in certificate.extensions:
        value = extension.value
        if isinstance(value, x509.SubjectAlternativeName):
            names = [str(name.value) for name in value]
        elif isinstance(value, x509.BasicConstraints):
            authority = value.ca
        elif isinstance(value, x509.AuthorityKeyIdentifier):
            signer = (value.key_identifier or b"")[:4].hex()
    return Shown(
        subject=certificate.subject.rfc4514_string(),
        names=names,
        proven=proven_by(names),
        authority=authority,
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        serial=certificate.serial_number,
        issuer_key=signer,
        own_key=_key_name(certificate.public_key()),
    )


def _authority(cluster: str, days: int) -> tuple[Key, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key()
    now = _now()
    # The key is part of the name: two authorities of a cluster are told apart in every list.
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, cluster[:64]),
            x509.NameAttribute(NameOID.COMMON_NAME, f"EmberFS authority {_key_name(public)}"),
        ]
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )
    return key, certificate


def _authority_of(directory: Path) -> tuple[Key, x509.Certificate]:
    path = directory / CA_KEY_FILE
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except FileNotFoundError:
        raise EmberError(Code.INVALID, f"{directory} has no authority: emberfs certs init {directory}") from None
    except OSError as error:
        raise EmberError(Code.INVALID, f"{path}: {error.strerror}") from None
    except (ValueError, TypeError):
        raise EmberError(Code.INVALID, f"{path}: is no key in PEM without a password") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise EmberError(Code.INVALID, f"{path}: is no key of an elliptic curve")
    own = _key_name(key.public_key())
    for certificate in authorities(directory):
        if _key_name(certificate.public_key()) == own:
            return key, certificate
    raise EmberError(Code.INVALID, f"{path}: is the key of no authority in {CA_FILE} beside it")


def _signed_by(authority: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    own = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _name(authority: x509.Certificate, own: str) -> x509.Name:
    cluster = authority.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return x509.Name([*cluster, x509.NameAttribute(NameOID.COMMON_NAME, own)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError:
        raise EmberError(Code.INVALID, f"{host!r} is neither a host's name nor an address") from None


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=key_cert_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _key_name(public: object) -> str:
    identifier = x509.SubjectKeyIdentifier.from_public_key(public)  # type: ignore[arg-type]
    return identifier.digest[:4].hex()


def _spread(directory: Path) -> None:
    """Let everybody in `directory` trust what it trusts."""
    trusted = authorities(directory)
    for daemon in daemons(directory):
        _put_certificates(directory / daemon.directory / CA_FILE, trusted)
    _put_client(directory)


def _put_client(directory: Path) -> None:
    client = directory / CLIENT_DIRECTORY
    client.mkdir(exist_ok=True, mode=0o755)
    _put_certificates(client / CA_FILE, authorities(directory))


def _put_certificates(path: Path, certificates: Iterable[x509.Certificate]) -> None:
    text = b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in certificates)
    _put(path, text, CERTIFICATE_MODE)


def _put_key(path: Path, key: Key) -> None:
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _put(path, text, KEY_MODE)


def _put(path: Path, text: bytes, mode: int) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with open(descriptor, "wb") as file:
        # Not what the umask leaves: others have to read certificates.
        os.fchmod(file.fileno(), mode)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)
