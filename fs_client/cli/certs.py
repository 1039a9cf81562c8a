"""`emberfs certs`: a cluster's authority, and the certificates of its daemons."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fs_client.cli.failure import EXIT_FAILED, Done, Failure, Usage
from fs_client.cli.options import json_option
from fs_client.cli.suggest import SuggestingGroup
from fs_client.cli.text import counted, put

if TYPE_CHECKING:
    from fs_common.tls.making import Shown

DIRECTORY_DEFAULT = "emberfs-certs"
WARN_DAYS = 30

directory_argument = click.argument("directory", type=click.Path(path_type=Path), default=DIRECTORY_DEFAULT)
days_option = click.option("--days", type=click.IntRange(1, 36_500), help="How long the certificates are good.")


@click.group(cls=SuggestingGroup)
def certs() -> None:
    """Make, show and rotate the certificates of a cluster.

    One directory (./emberfs-certs unless you name another) holds the cluster's authority and a folder for each daemon,
    which is its `tls_dir`; `client/ca.pem` is all that clients get. Keep the directory where administrators are:
    whoever reads ca-key.pem can be any daemon. Daemons look at their files at each new connection, so a file that is
    copied needs no restart.

    \b
    Example:
      emberfs certs init --cluster prod --storage 4      authority, meta and storage-1 to storage-4
      emberfs certs issue emberfs-certs storage-5        one daemon more
      emberfs certs show                                 whose they are, and how long they are good
      emberfs certs rotate                               a new key and certificate for each daemon
      emberfs certs rotate --authority                   begin with a new authority; all trust both
      emberfs certs rotate --forget                      the earlier authority is trusted no more
    """


@certs.command()
@directory_argument
@click.option("--cluster", required=True, help="The cluster's id: its name in the certificates.")
@click.option("--storage", type=click.IntRange(0, 9999), default=3, show_default=True, help="Storage daemons: 1 to N.")
@click.option(
    "--host",
    "hosts",
    multiple=True,
    metavar="[DAEMON=]HOST",
    help="A name or address under which HTTP reaches a daemon (or all), beside its own name and localhost.",
)
@days_option
def init(directory: Path, cluster: str, storage: int, hosts: tuple[str, ...], days: int | None) -> None:
    """Make a cluster's authority, and certificates for all its daemons."""
    making = _making()
    names = ["meta", *(f"storage-{node}" for node in range(1, storage + 1))]
    own = _hosts_by_daemon(hosts, names)
    daemons = [making.daemon_of(name, own[name]) for name in names]
    making.make_authority(directory, cluster)
    for daemon in daemons:
        making.issue(directory, daemon, days or making.DAEMON_DAYS)
    put(f"{directory}: the authority of {cluster}, and certificates of meta and {counted(storage, 'storage daemon')}")
    put(f"  daemons:  tls_dir = {directory}/meta, {directory}/storage-1, ...")
    put(f"  clients:  export EMBERFS_TLS_CA={(directory / 'client' / 'ca.pem').absolute()}")


@certs.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.argument("daemons", nargs=-1, required=True, metavar="DAEMON...")
@click.option("--host", "hosts", multiple=True, help="A name or address for HTTP, beside its own name and localhost.")
@days_option
def issue(directory: Path, daemons: tuple[str, ...], hosts: tuple[str, ...], days: int | None) -> None:
    """Make certificates for daemons: meta, storage-5; those they had are replaced."""
    making = _making()
    for name in daemons:
        # Those that it had are kept, unless others are named.
        there = (directory / name / "cert.pem").exists()
        daemon = making.daemon_of(name, [] if there and not hosts else _own_hosts(name, hosts))
        put(f"{making.issue(directory, daemon, days or making.DAEMON_DAYS)}: until {_until(directory / name)}")


@certs.command()
@directory_argument
@click.option("--authority", is_flag=True, help="Make a new authority; everybody trusts it and those before.")
@click.option("--forget", is_flag=True, help="Trust the newest authority alone.")
@days_option
def rotate(directory: Path, authority: bool, forget: bool, days: int | None) -> None:
    """Replace the certificates of all daemons, or the authority.

    Without an option each daemon gets a new key and certificate. A new authority takes three steps, so that at no time
    anybody meets somebody whom it does not trust: --authority, rotate, --forget. After each, copy the folders to the
    daemons, and client/ca.pem to the clients.
    """
    making = _making()
    if authority and forget:
        raise Usage("--authority and --forget are two steps: copy the folders to everybody between them")
    if authority:
        making.rotate_authority(directory)
        count = counted(len(making.authorities(directory)), "authority", "authorities")
        put(f"{directory} has a new authority; everybody trusts {count}")
        put("next: copy the folders to daemons and clients; `emberfs certs rotate`, copy; `--forget`, copy")
        return
    if forget:
        dropped = making.forget_authorities(directory)
        count = counted(dropped, "earlier authority", "earlier authorities")
        put(f"{directory}: {count} forgotten; copy the folders to daemons and clients")
        return
    found = making.daemons(directory)
    if not found:
        raise Failure(f"{directory} has no daemon's certificate: emberfs certs issue {directory} meta")
    for daemon in found:
        target = making.issue(directory, daemon, days or making.DAEMON_DAYS)
        put(f"{target}: until {_until(target)}")


@certs.command()
@click.argument("path", type=click.Path(path_type=Path, exists=True), default=DIRECTORY_DEFAULT)
@json_option
def show(path: Path, as_json: bool) -> None:
    """Show the certificates in a directory, or in one file. Exits 1 if one has expired or will within 30 days."""
    making = _making()
    if path.is_dir():
        files = [name for name in (path / "ca.pem", path / "cert.pem") if name.exists()]
        files += sorted(path.glob("*/cert.pem"))
    else:
        files = [path]
    if not files:
        raise Failure(f"{path} has no certificates: emberfs certs init {path} --cluster NAME")
    found = [(file, shown) for file in files for shown in making.show_all(file)]
    now = datetime.now(UTC)
    if as_json:
        put(json.dumps([_as_dict(file, shown) for file, shown in found], indent=2))
    else:
        for file, shown in found:
            left = (shown.not_after - now).days
            state = "EXPIRED" if shown.not_after <= now else f"{counted(left, 'day')} left"
            what = (
                f"authority {shown.own_key}" if shown.authority else f"{shown.proven}, by authority {shown.issuer_key}"
            )
            put(f"{file}: {what}; until {shown.not_after:%Y-%m-%d}, {state}")
            if shown.names:
                put(f"    {', '.join(shown.names)}")
    if any((shown.not_after - now).days < WARN_DAYS for _, shown in found):
        click.echo(
            "emberfs: certificates end soon: emberfs certs rotate (--authority for that of the authority)", err=True
        )
        raise Done(EXIT_FAILED)


def _making() -> Any:
    try:
        from fs_common.tls import making
    except ImportError as error:
        raise Failure(f"{error}: certificates need emberfs[server]") from None
    return making


def _hosts_by_daemon(hosts: tuple[str, ...], names: list[str]) -> dict[str, list[str]]:
    given: dict[str, list[str]] = {name: [] for name in names}
    for text in hosts:
        daemon, equals, host = text.rpartition("=")
        if equals and daemon not in given:
            raise Usage(f"--host {text!r}: there is no daemon {daemon!r}; it is one of {', '.join(names)}")
        for name in [daemon] if equals else names:
            given[name].append(host)
    return {name: _own_hosts(name, tuple(more)) for name, more in given.items()}


def _own_hosts(name: str, more: tuple[str, ...]) -> list[str]:
    from fs_common.tls.making import own_hosts

    return own_hosts(name, more)


def _until(directory: Path) -> str:
    return f"{_making().show(directory / 'cert.pem').not_after:%Y-%m-%d}"


def _as_dict(file: Path, shown: "Shown") -> dict[str, Any]:
    return {
        "file": str(file),
        "subject": shown.subject,
        "names": shown.names,
        "role": "authority" if shown.authority else shown.proven.role,
        "node": shown.proven.node,
        "key": shown.own_key,
        "authority": shown.issuer_key or shown.own_key,
        "not_before": shown.not_before.isoformat(),
        "not_after": shown.not_after.isoformat(),
        "serial": f"{shown.serial:x}",
    }
