"""How to reach a cluster: the address string, and the options of one client.

Options are plain values: a file system pickles as its options and connects anew where it is unpickled.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from fs_client.integers import integer
from fs_common.transports.choice import AUTO, WHAT_THERE_IS, TransportChoice, transport_choice

if TYPE_CHECKING:
    from fs_common.tls.files import TlsFiles

SCHEME = "ember"
DEFAULT_CLUSTER = "127.0.0.1:9700"
DEFAULT_PORT = 9700
DEFAULT_TIMEOUT_S = 30.0
CLUSTER_VARIABLE = "EMBERFS_CLUSTER"
TLS_CA_VARIABLE = "EMBERFS_TLS_CA"
TOKEN_VARIABLE = "EMBERFS_TOKEN"
TOKEN_FILE_VARIABLE = "EMBERFS_TOKEN_FILE"
TRANSPORT_VARIABLE = "EMBERFS_TRANSPORT"
RDMA_DEVICES_VARIABLE = "EMBERFS_RDMA_DEVICES"
RDMA_SUBNETS_VARIABLE = "EMBERFS_RDMA_SUBNETS"


class Address(NamedTuple):
    """Where a server's data plane listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


ClusterAddress: TypeAlias = str | tuple[str, int] | Sequence[str | tuple[str, int]]
"""How programs name a cluster: "host:port,host:port", "ember://host:port", (host, port), or several of these."""


@dataclass(frozen=True, slots=True)
class Options:
    """What `connect` was told."""

    cluster: str
    """`host:port[,host:port...]` of metadata servers."""
    token: str = field(default="", repr=False)
    transport: TransportChoice = WHAT_THERE_IS
    """With TLS it is TCP."""
    timeout_s: float = DEFAULT_TIMEOUT_S
    """Total time one call may take, all of its retries included."""
    tls_ca: str = ""
    """File with the cluster's authority: everything goes over TLS. Empty: nothing does."""
    token_file: str = ""
    """Where the token is, if `token` is empty. Both empty: there is none."""

    @property
    def addresses(self) -> tuple[Address, ...]:
        return parse_cluster(self.cluster)

    def read_token(self) -> str:
        """The token; "": there is none. Raises `OSError` for a file that cannot be read, or holds none."""
        if self.token or not self.token_file:
            return self.token
        from fs_common.token_file import read_token_file

        return read_token_file(self.token_file)


def make_options(
    cluster: ClusterAddress | None,
    token: str | None,
    transport: str | None,
    timeout_s: float,
    tls_ca: str | None = None,
    token_file: str | os.PathLike[str] | None = None,
    rdma_devices: str | Sequence[str] | None = None,
    rdma_subnets: str | Sequence[str] | None = None,
) -> Options:
    """Checked options. `cluster` None: the environment's `EMBERFS_CLUSTER`, else `127.0.0.1:9700`.

    `tls_ca` None: the environment's `EMBERFS_TLS_CA`; empty: no TLS whatever the environment says.

    `transport` and what goes with it None: the environment's `EMBERFS_TRANSPORT`, else "auto"; `EMBERFS_RDMA_DEVICES`;
    `EMBERFS_RDMA_SUBNETS`.

    Neither `token` nor `token_file`: the environment's `EMBERFS_TOKEN` or `EMBERFS_TOKEN_FILE`, else none.

    Raises ValueError: one of them is wrong, or the token is none; OSError: its file cannot be read.
    """
    cluster = "" if cluster is None else cluster_text(cluster)
    if not cluster:
        cluster = cluster_text(os.environ.get(CLUSTER_VARIABLE) or DEFAULT_CLUSTER)
    parse_cluster(cluster)
    if not timeout_s > 0:
        raise ValueError(f"timeout_s {timeout_s!r} is not a positive number of seconds")
    token, token_file = _given_token(token or "", os.fspath(token_file or ""))
    if token:
        _check_token(token)
    ca = tls_ca_path(tls_ca)
    choice = transport_choice(
        transport or os.environ.get(TRANSPORT_VARIABLE) or AUTO,
        os.environ.get(RDMA_DEVICES_VARIABLE) if rdma_devices is None else rdma_devices,
        os.environ.get(RDMA_SUBNETS_VARIABLE) if rdma_subnets is None else rdma_subnets,
        tls=bool(ca),
    )
    options = Options(cluster, token, choice, float(timeout_s), ca, token_file)
    options.read_token()
    return options


def _given_token(token: str, token_file: str) -> tuple[str, str]:
    """One of both, or neither: what was said, else what the environment says."""
    if token and token_file:
        raise ValueError("both a token and a token_file are given: leave one out")
    if token or token_file:
        return token, token_file and os.path.abspath(token_file)
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    token_file = os.environ.get(TOKEN_FILE_VARIABLE, "")
    return token, "" if token or not token_file else os.path.abspath(token_file)


def _check_token(token: str) -> None:
    from fs_common.errors import EmberError
    from fs_common.security.tokens import parse_token

    try:
        parse_token(token)
    except EmberError as error:
        raise ValueError(f"token: {error.message}") from None


def tls_ca_path(given: str | None = None) -> str:
    """The file of `make_options`' `tls_ca`; "": no TLS. Absolute: a daemon has another working directory."""
    path = os.environ.get(TLS_CA_VARIABLE, "") if given is None else given
    return os.path.abspath(path) if path else ""


def client_tls(ca: str) -> "TlsFiles | None":
    """What connections are made with. Raises `EmberError`, INVALID: `ca` is no file with certificates."""
    if not ca:
        return None
    from fs_common.tls.files import TlsFiles

    return TlsFiles.of_client(ca)


def timeout_of(timeout_s: float, timeout: float | None) -> float:
    """`timeout` is what most libraries call `timeout_s`."""
    if timeout is None:
        return timeout_s
    if timeout_s != DEFAULT_TIMEOUT_S:
        raise ValueError("timeout and timeout_s are the same: give one of them")
    return timeout


def cluster_text(cluster: object) -> str:
    """`host:port[,host:port...]` of a cluster, however it is named. "": an URL that names none, as `ember:///data`.

    What follows the address in an URL is a path there, and does not concern the connection.
    """
    if isinstance(cluster, str):
        return _url_address(cluster) if ":/" in cluster or cluster == f"{SCHEME}:" else _not_empty(cluster)
    if isinstance(cluster, tuple) and len(cluster) == 2 and not isinstance(cluster[1], str | tuple):
        host, port = cluster
        return str(_checked(str(host), str(integer(port, "port")), f"{host}:{port}"))
    if isinstance(cluster, bytes) or not isinstance(cluster, Sequence):
        text = 'write "host:port,host:port", (host, port), or a list of these'
        raise TypeError(f"a cluster is not named by {type(cluster).__name__} ({cluster!r}): {text}")
    return _not_empty(",".join(cluster_text(one) for one in cluster))


def _not_empty(cluster: str) -> str:
    if not cluster.strip(" ,"):
        raise ValueError(f"cluster address {cluster!r} names no server: write host:port[,host:port...]")
    return cluster


def _url_address(url: str) -> str:
    scheme, _, rest = url.partition(":")
    if scheme != SCHEME:
        raise ValueError(f"cluster address {url!r} is none: write host:port[,host:port...], or {SCHEME}://host:port")
    return rest.removeprefix("//").partition("/")[0] if rest.startswith("//") else ""


def parse_cluster(cluster: str) -> tuple[Address, ...]:
    """The addresses in `host:port[,host:port...]`; a missing port is 9700; IPv6 hosts stand in brackets."""
    addresses = tuple(_parse_address(part.strip()) for part in cluster.split(",") if part.strip())
    if not addresses:
        raise ValueError(f"cluster address {cluster!r} names no server: write host:port[,host:port...]")
    return addresses


def _parse_address(text: str) -> Address:
    host, port = text, ""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if "/" in text:
        raise ValueError(f"cluster address {text!r} is not host:port: {SCHEME}://host:port/path is how a path is named")
    if not port:
        return Address(host, DEFAULT_PORT)
    return _checked(host, port, text)


def _checked(host: str, port: str, text: str) -> Address:
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"cluster address {text!r} is not host:port")
    return Address(host, int(port))
