"""TLS of gRPC: its own library of TLS, so its own way to say the same as `files`.

A server of gRPC in Python can demand certificates of all callers or of none. Administrators have none, so none are
asked for: on the control plane a daemon is known by its token.

Called by: the manager, its clients. It needs grpc.
"""

from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio

from fs_common.tls.files import TlsFiles
from fs_common.tls.names import DAEMON_NAME


def open_channel(address: str, options: Sequence[tuple[str, Any]], tls: TlsFiles | None) -> Any:
    """A channel to a manager; with `tls`, to one of the cluster that these files are of."""
    if tls is None:
        return grpc.aio.insecure_channel(address, options=options)
    ca, certificate, key = tls.read()
    credentials = grpc.ssl_channel_credentials(ca, key, certificate)
    # The name that is compared with the certificate; by default it is the address.
    named = ("grpc.ssl_target_name_override", DAEMON_NAME)
    return grpc.aio.secure_channel(address, credentials, options=[*options, named])


def server_credentials(tls: TlsFiles) -> Any:
    """Asked for again at each handshake, so that new files are used."""

    def newest() -> Any:
        _, certificate, key = tls.read()
        return grpc.ssl_server_certificate_configuration([(key, certificate)])

    return grpc.dynamic_ssl_server_credentials(newest(), newest)
