"""The certificates of a cluster that `emberfs up --tls` runs: made once, and for each daemon that comes later."""

from fs_client.cli.failure import Failure
from fs_client.cli.local.directory import ClusterDirectory, ClusterRecord
from fs_client.cli.local.ours import make_our_directory, require_our_name
from fs_common.errors import EmberError


def make_certificates(directory: ClusterDirectory, record: ClusterRecord) -> None:
    """What is there already stays: `emberfs certs rotate` replaces it. Raises `Failure`."""
    try:
        from fs_common.tls import making
    except ImportError as error:
        raise Failure(f"--tls: {error}; install emberfs[server]") from None
    certificates = directory.certificates
    make_our_directory(certificates)
    certificates.chmod(0o700)
    try:
        require_our_name(certificates / making.CA_KEY_FILE)
        if not (certificates / making.CA_KEY_FILE).exists():
            making.make_authority(certificates, record.cluster)
        for daemon in record.daemons:
            if not (certificates / daemon.name / "cert.pem").exists():
                making.issue(certificates, making.daemon_of(daemon.name, making.own_hosts(daemon.name, [record.host])))
    except EmberError as error:
        raise Failure(f"--tls: {error.message}") from None
